// Eight lanes walk one ray: lane c of the octet looks after corner c of the cell, and after coefficients c, c + 8, c + 16 and
// c + 24 when a row is read. A warp walks four rays. Short dependency chains and coalesced rows make this the shape for
// few or incoherent rays.
#pragma once

#include "../compositing.h"
#include "../interpolation.h"
#include "../nested.h"
#include "scene.cuh"
#include "skip.cuh"

namespace plenoxel::cuda {

constexpr int kOctet = 8;
constexpr int kRowParts = 4;  // coefficients per lane

struct Octet {
  unsigned mask;
  int lane, base;  // this thread's corner; the warp lane of corner 0

  __device__ __forceinline__ static Octet mine() {
    const int lane = threadIdx.x & 31;
    return {0xffu << (lane & 24), lane & 7, lane & 24};
  }
  template <typename T>
  __device__ __forceinline__ T from(T value, int lane) const {
    return __shfl_sync(mask, value, base + lane);
  }
  // The same bits in all lanes.
  __device__ __forceinline__ float sum(float value) const {
    for (int other = 1; other < kOctet; other <<= 1) value += __shfl_xor_sync(mask, value, other);
    return value;
  }
  // Bit c is corner c's answer.
  __device__ __forceinline__ unsigned ballot(bool answer) const { return (__ballot_sync(mask, answer) & mask) >> base; }
};

// Where the voxel at this lane's corner was, and goes, when the ray changes cells.
struct Move {
  int from;   // which corner of the cell before this lane's corner was, or -1
  bool kept;  // whether this lane's corner of the cell before is a corner of the new one
};

__device__ __forceinline__ Move move_between(const int before[3], const int after[3], int lane) {
  Move move{0, true};
  for (int axis = 0; axis < 3; ++axis) {
    const int shift = after[axis] - before[axis], own = lane >> (2 - axis) & 1;
    const int source = own + shift, target = own - shift;
    move.from = source == 0 || source == 1 ? (move.from < 0 ? -1 : move.from * 2 + source) : -1;
    move.kept = move.kept && (target == 0 || target == 1);
  }
  return move;
}

__device__ __forceinline__ float lane_weight(const float fraction[3], int lane) {
  float weight = 1;
  for (int axis = 0; axis < 3; ++axis) weight *= lane >> (2 - axis) & 1 ? fraction[axis] : 1 - fraction[axis];
  return weight;
}

// Leaps to the next occupied cell; false if there is none.
__device__ __forceinline__ bool find_cell(const Grid<float>& grid, int64_t first, const Ray<float>& ray, Skipper& skipper,
                                          float& t, int index[3], int64_t& number) {
  while (t <= ray.exit) {
    float nearby[3];
    locate(grid.size, ray, t, nearby, index);
    number = first + (int64_t(index[0]) * grid.size[1] + index[1]) * grid.size[2] + index[2];
    const int distance = __ldg(grid.distance + number);
    if (distance == 0) return true;
    t = skipper.leap(ray, t, nearby, distance);
  }
  return false;
}

__device__ __forceinline__ bool same_cell(const int a[3], const int b[3]) {
  return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

// Walks a ray front to back. For each new cell visitor.enter(row, move); for each sample denser than the threshold
// visitor.sample(t, sigma, weight of this lane's corner), until it returns false; visitor.leave() at the end. `ray` is
// set to each of its parts in turn, and the visitor may refer to it.
template <typename Visitor>
__device__ __forceinline__ void march(const Grid<float>& grid, const Rays<float>& rays, int64_t i, Ray<float>& ray,
                                      const RenderOptions<float>& options, const Octet& octet, Visitor& visitor) {
  const int64_t scene = first_cell(grid, rays, i);
  const int64_t offset = corner_offset(grid.size, octet.lane);
  bool goes_on = true;
  for (int part = 0; goes_on;) {
    const int level = next_part(grid, options.near_clip, rays.origins + 3 * i, rays.directions + 3 * i, part, ray);
    if (level < 0) break;
    const int64_t first = scene + level * cells_of(grid);
    int before[3] = {-4, -4, -4};  // far from any cell: nothing is kept
    Skipper skipper(ray, options.step_size);
    float t = ray.entry;
    while (goes_on && t <= ray.exit) {
      int index[3];
      int64_t number;
      if (!find_cell(grid, first, ray, skipper, t, index, number)) break;
      const int32_t row = __ldg(grid.links + number + offset);
      const float density = row >= 0 ? __ldg(grid.density + row) : 0;
      const bool dense = octet.ballot(density > 0) != 0;
      visitor.enter(row, move_between(before, index, octet.lane));
#pragma unroll
      for (int axis = 0; axis < 3; ++axis) before[axis] = index[axis];
      Cell<float> cell = cell_on_ray(grid.size, ray, t);
      do {
        if (dense) {
          const float weight = lane_weight(cell.fraction, octet.lane);
          const float sigma = octet.sum(weight * density);
          goes_on = !(sigma > options.sigma_thresh) || visitor.sample(t, sigma, weight);
        }
        const float next = t + options.step_size;
        const bool moves = next > t;  // else a step is lost in rounding
        t = moves ? next : INFINITY;
        cell = cell_on_ray(grid.size, ray, fminf(t, ray.exit));
      } while (goes_on && t <= ray.exit && same_cell(cell.index, before));
    }
  }
  visitor.leave();
}

// One octet a ray.
__device__ __forceinline__ int64_t ray_of_thread() {
  return (int64_t(blockIdx.x) * kThreads + threadIdx.x) / kOctet;
}

// This lane's four numbers of a row; the last is 0 in lanes 3 to 7.
struct RowPart {
  float value[kRowParts];

  __device__ __forceinline__ static RowPart read(const float* row, int lane) {
    RowPart part;
#pragma unroll
    for (int m = 0; m < kRowParts; ++m)
      part.value[m] = m * kOctet + lane < kCoefficients ? __ldg(row + m * kOctet + lane) : 0;
    return part;
  }
};

// This lane's numbers of a ray's SH basis, as they meet the coefficients of a row.
__device__ __forceinline__ RowPart basis_part(const float* direction, int lane) {
  float basis[kBasis];
  sh_basis(direction, basis);
  RowPart part;
#pragma unroll
  for (int m = 0; m < kRowParts; ++m) {
    const int wanted = (m * kOctet + lane) % kBasis;
    float value = 0;
#pragma unroll
    for (int b = 0; b < kBasis; ++b) value = wanted == b ? basis[b] : value;
    part.value[m] = m * kOctet + lane < kCoefficients ? value : 0;
  }
  return part;
}

}  // namespace plenoxel::cuda
