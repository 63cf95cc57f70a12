// What a warp keeps of a ray while it collects gradients; see ray_gradient.cuh.
#pragma once

#include "four_octets.cuh"

namespace plenoxel::cuda {

constexpr int kVoxels = 176;  // of one ray that are kept; a ray that meets more is walked a second time

// A voxel's sums over the samples around it; c is its share in a sample, w the sample's weight.
struct alignas(16) VoxelSums {
  float4 look;   // its colour from this ray, before clamping; sum of c
  float4 parts;  // sum of w c by colour, where that isn't clamped; the part of dL/ddensity that does not depend on g
  float4 ahead;  // sum of c (colour T_{i+1} + sum_{j <= i} colour_j w_j); the same with distances
};

// Shared memory of the warp that walks a ray. kImage: there is a cotangent of the SH image.
template <bool kImage>
struct RayMemory {
  CellList cells;
  VoxelSums voxels[kVoxels];
  float2 image[kImage ? kVoxels : 1];  // the voxel's row times that cotangent; sum of w c
  int32_t row[kVoxels];                // its complement until there was a sample
};

struct GradientRows {
  float* density;  // [V]
  float* sh;       // [V, 27]
  bool* touched;   // [V] or null
};

__device__ __forceinline__ float4 operator+(const float4& a, const float4& b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

__device__ __forceinline__ float dot(const float4& a, const float4& b) {
  return __fmaf_rn(a.x, b.x, __fmaf_rn(a.y, b.y, __fmaf_rn(a.z, b.z, a.w * b.w)));
}

// values[which] without an address in memory.
template <int kCount>
__device__ __forceinline__ float pick(const float (&values)[kCount], int which) {
  float value = values[0];
#pragma unroll
  for (int i = 1; i < kCount; ++i) value = which == i ? values[i] : value;
  return value;
}

constexpr int kSums = 6;

// Sums over the samples in one cell, as if transmittance were 1 before it. All but the last five are the octet's, these the
// lane's corner's.
struct CellSums {
  float optical_depth = 0, transmittance = 1;
  float ray[kSums] = {};  // sum of weights times: colour, world distance, being in free space, SH image's product
  bool sampled = false, stopped = false;
  float share = 0, sparsity = 0;
  float by_color[3] = {};
  float ahead[kSums] = {};  // by the numbers of `ray`
  float weight = 0;     // sum of w c, clamped or not
};

// What of a RayGradient is known before the ray is walked.
struct KnownGradient {
  float free_space = 0, free_until = 0, sparsity = 0;
};

}  // namespace plenoxel::cuda
