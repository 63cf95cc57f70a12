// Colours of the corners of the cell an octet is in, and the forward pass built on them.
#pragma once

#include "octet.cuh"

namespace plenoxel::cuda {

// Sums four numbers over the octet; lane l gets the sum of number l % 4.
__device__ __forceinline__ float transposed_sum(const Octet& octet, float a, float b, float c, float d) {
  const bool odd = octet.lane & 1, high = octet.lane & 2;
  const float first = (odd ? b : a) + __shfl_xor_sync(octet.mask, odd ? a : b, 1);
  const float second = (odd ? d : c) + __shfl_xor_sync(octet.mask, odd ? c : d, 1);
  const float sum = (high ? second : first) + __shfl_xor_sync(octet.mask, high ? first : second, 2);
  return sum + __shfl_xor_sync(octet.mask, sum, 4);
}

// What the voxel at this lane's corner looks like from the ray. Rows are read once per voxel and ray, by the whole octet.
struct CornerColors {
  const float* sh;
  RowPart basis;
  float color[3] = {0.5f, 0.5f, 0.5f};  // before clamping
  bool may_clamp = false;  // a corner is below 0, so samples have to be clamped one by one

  __device__ __forceinline__ void enter(const Octet& octet, int32_t row, const Move& move) {
    const bool moved = move.from >= 0;
    const int from = moved ? move.from : 0;
    for (float& channel : color) {
      const float before = octet.from(channel, from);
      channel = moved ? before : 0.5f;
    }
    for (unsigned fresh = octet.ballot(row >= 0 && !moved); fresh; fresh &= fresh - 1) read(octet, row, __ffs(fresh) - 1);
    may_clamp = octet.ballot(color[0] < 0 || color[1] < 0 || color[2] < 0) != 0;
  }

  __device__ __forceinline__ void read(const Octet& octet, int32_t row, int corner) {
    const RowPart part = RowPart::read(sh + int64_t(octet.from(row, corner)) * kCoefficients, octet.lane);
    const float second = part.value[1] * basis.value[1], third = part.value[2] * basis.value[2];
    const bool red = octet.lane == 0, green = octet.lane < 2;  // channels of the second and third number
    const float sum = transposed_sum(octet, __fmaf_rn(part.value[0], basis.value[0], red ? second : 0),
                                     (red ? 0 : second) + (green ? third : 0),
                                     __fmaf_rn(part.value[3], basis.value[3], green ? 0 : third), 0);
    for (int c = 0; c < 3; ++c) {
      const float channel = octet.from(sum, c) + 0.5f;
      if (octet.lane == corner) color[c] = channel;
    }
  }
};

// Calls visit(corner) for every set bit.
template <typename Visit>
__device__ __forceinline__ void for_corners(unsigned corners, Visit&& visit) {
  for (; corners; corners &= corners - 1) visit(__ffs(corners) - 1);
}

// Composites one ray. kColor: rgb; kImage: the SH image.
template <bool kColor, bool kImage>
struct ForwardVisitor {
  const Octet& octet;
  const RenderOptions<float>& options;
  const Ray<float>& ray;
  CornerColors corners;
  Compositor<float> compositor;
  float rgb[3] = {};  // of this lane's corner; finish() adds up
  float depth = 0;    // world
  RowPart image{};
  float pending = 0;  // weight that this lane's corner adds to the image
  int32_t row = -1;

  __device__ __forceinline__ void enter(int32_t next, const Move& move) {
    if (kImage) {
      add_rows(row >= 0 && pending != 0 && !move.kept);
      const float before = octet.from(pending, move.from >= 0 ? move.from : 0);
      pending = move.from >= 0 ? before : 0;
      row = next;
    }
    if (kColor) corners.enter(octet, next, move);
  }

  __device__ __forceinline__ bool sample(float t, float sigma, float corner_weight) {
    const float weight = compositor.pass(sigma * options.step_size * ray.delta, options.stop_thresh);
    const float distance = t * ray.world;
    depth = __fmaf_rn(weight, distance, depth);
    const float part = weight * corner_weight;
    if (kImage) pending += part;
    if (kColor) {
      for (int c = 0; c < 3; ++c) {
        if (!corners.may_clamp) {
          rgb[c] = __fmaf_rn(part, corners.color[c], rgb[c]);
        } else if (const float color = octet.sum(corner_weight * corners.color[c]); color > 0 && octet.lane == 0) {
          rgb[c] = __fmaf_rn(weight, color, rgb[c]);
        }
      }
    }
    return !compositor.stopped;
  }

  __device__ __forceinline__ void leave() {
    if (kImage) add_rows(row >= 0 && pending != 0);
    if (kColor)
      for (float& channel : rgb) channel = octet.sum(channel) + compositor.remaining() * options.background_brightness;
  }

  __device__ __forceinline__ void add_rows(bool mine) {
    for_corners(octet.ballot(mine), [&](int corner) {
      const float weight = octet.from(pending, corner);
      const RowPart part = RowPart::read(corners.sh + int64_t(octet.from(row, corner)) * kCoefficients, octet.lane);
      for (int m = 0; m < kRowParts; ++m) image.value[m] = __fmaf_rn(weight, part.value[m], image.value[m]);
    });
  }
};

}  // namespace plenoxel::cuda
