// Reading the 32 numbers of a packed row, four at a time.
#pragma once

#include <cuda_fp16.h>

#include "kernels.h"

namespace plenoxel::cuda {

template <Storage kStorage>
__device__ __forceinline__ float4 read_packed(const void* rows, uint32_t row, int quarter) {
  const uint32_t at = row * (kPackedRow / 4) + quarter;
  if constexpr (kStorage == Storage::kFloat) {
    return __ldg(static_cast<const float4*>(rows) + at);
  } else if constexpr (kStorage == Storage::kHalf) {
    const uint2 bits = __ldg(static_cast<const uint2*>(rows) + at);
    const float2 low = __half22float2(reinterpret_cast<const __half2&>(bits.x));
    const float2 high = __half22float2(reinterpret_cast<const __half2&>(bits.y));
    return make_float4(low.x, low.y, high.x, high.y);
  } else {
    const uchar4 bytes = __ldg(static_cast<const uchar4*>(rows) + at);
    return make_float4(bytes.x, bytes.y, bytes.z, bytes.w);
  }
}

// Coefficients [27] of stored numbers [28]; `ones` is the sum of the weights by which the stored rows were added.
__device__ __forceinline__ void undo_affine(const float* affine, float ones, float* values) {
  if (!affine) return;
#pragma unroll
  for (int k = 0; k < kCoefficients; ++k)
    values[k] = __fmaf_rn(__ldg(affine + k), values[k], __ldg(affine + kCoefficients + k) * ones);
}

}  // namespace plenoxel::cuda
