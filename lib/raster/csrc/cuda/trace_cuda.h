// CUDA driver of ray tracing: raw pointers on the device and a stream, no PyTorch.
#pragma once

#include <cuda_runtime_api.h>

#include "../trace.h"

namespace raster {

// origins, directions [R, 3]; face [R]; depth [R]; barycentric [R, 3].
cudaError_t trace_cuda(const Tree& tree, const double* origins, const double* directions, int64_t rays, double near,
                       int32_t* face, float* depth, float* barycentric, cudaStream_t stream);

}  // namespace raster
