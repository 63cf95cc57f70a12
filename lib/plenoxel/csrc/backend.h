// Calls the C++ or the CUDA backend, by where a tensor is.
#pragma once

#include <ATen/Parallel.h>

#include <initializer_list>

#include <type_traits>

#include "binding.h"
#include "cpu.h"
#ifdef WITH_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/kernels.h"
#endif

// In a function of the numbers' type T: plenoxel::cpu::NAME(..., threads), or plenoxel::cuda::NAME(..., stream) if `tensor`
// is on a GPU.
#ifdef WITH_CUDA
#define PLENOXEL_RUN(tensor, name, ...)                              \
  do {                                                               \
    if (!(tensor).is_cuda()) {                                       \
      plenoxel::cpu::name(__VA_ARGS__, at::get_num_threads());       \
    } else if constexpr (std::is_same_v<T, float>) {                 \
      const c10::cuda::CUDAGuard guard((tensor).device());           \
      plenoxel::cuda::name(__VA_ARGS__, plenoxel::binding::stream()); \
      C10_CUDA_KERNEL_LAUNCH_CHECK();                                \
    } else {                                                         \
      TORCH_CHECK(false, #name ": float64 runs on the CPU only");    \
    }                                                                \
  } while (false)

namespace plenoxel::binding {

inline cuda::Stream stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

// Waits until what was launched here is done, so that any other stream may read it. For what is made once for a grid.
inline void finish() {
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
  cudaStreamCaptureStatus status;
  C10_CUDA_CHECK(cudaStreamIsCapturing(stream, &status));
  TORCH_CHECK(status == cudaStreamCaptureStatusNone,
              "what a grid needs for rendering is made by the first call that needs it, which a CUDA graph cannot hold;"
              " render once before capturing");
  C10_CUDA_CHECK(cudaStreamSynchronize(stream));
}

// Tells the allocator that the current stream reads a grid's tensors, which may have been made on another one: dropping the
// grid must not give their memory away before the stream is done. Costs nothing on the stream they were made on.
inline void used_here(std::initializer_list<OptionalTensor> tensors) {
  for (const OptionalTensor& tensor : tensors)
    if (tensor && tensor->is_cuda())
      c10::cuda::CUDACachingAllocator::recordStream(tensor->storage().data_ptr(), c10::cuda::getCurrentCUDAStream(tensor->get_device()));
}

}  // namespace plenoxel::binding
#else
namespace plenoxel::binding {
inline void used_here(std::initializer_list<OptionalTensor>) {}
}  // namespace plenoxel::binding
#define PLENOXEL_RUN(tensor, name, ...) plenoxel::cpu::name(__VA_ARGS__, at::get_num_threads())
#endif
