// Features of any number of channels on GPUs. Same meaning as features_cpu.h, from a packed grid; see kernels.h on streams
// and errors. Features and values are numbers of `Number`, float or __half; sums are float32 and made with atomics, so their
// last bits depend on the order in which rays come.
#pragma once

#include <cuda_fp16.h>

#include "kernels.h"

namespace plenoxel::cuda {

template <typename Number>
void render_features(const PackedGrid& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                     const Number* features, int64_t channels, float* out, int64_t image_width, Stream stream);

template <typename Number>
void spread_features(const PackedGrid& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                     const Number* values, int64_t channels, float* sums, float* weights, int64_t image_width,
                     Stream stream);

}  // namespace plenoxel::cuda
