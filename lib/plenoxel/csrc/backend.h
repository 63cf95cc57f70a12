// Calls the C++ or the CUDA backend, by where a tensor is.
#pragma once

#include <ATen/Parallel.h>

#include <type_traits>

#include "binding.h"
#include "cpu.h"
#ifdef WITH_CUDA
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
}  // namespace plenoxel::binding
#else
#define PLENOXEL_RUN(tensor, name, ...) plenoxel::cpu::name(__VA_ARGS__, at::get_num_threads())
#endif
