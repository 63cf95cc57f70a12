// The march and gather of render_packed.cu: a ray's state, the lists of rows it wants, and crossing a cell.
#pragma once

#include "../compositing.h"
#include "../footprint.h"
#include "../interpolation.h"
#include "../nested.h"
#include "../tiles.h"
#include "kernels.h"
#include "scene.cuh"
#include "skip.cuh"

namespace plenoxel::cuda {

constexpr int kSlots = 24;  // entries of a ray's list; one cell adds up to 8
constexpr int kQuarters = kPackedRow / 4;
using WarpTiles = Tiles<8, 4>;  // pixels of a warp

struct Entry {
  uint32_t row;
  float weight;
};

// The number that byte `at` of a word is: put into the last bits of 2^23, and that taken away.
__device__ __forceinline__ float byte_of(uint32_t word, int at) {
  return __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7540 | at)) - 8388608.0f;
}

// Row `row` of a column of quarters, whose first is given. Rows may lie beyond 2^32 numbers; with the column's start in a
// register, the address is one widening multiply-add.
__device__ __forceinline__ float4 read_quarter(const float4* column, uint32_t row) {
  return __ldg(reinterpret_cast<const float4*>(reinterpret_cast<const char*>(column) +
                                               uint64_t(row) * uint32_t(kPackedRow * sizeof(float))));
}

struct WarpMemory {
  float4 sum[32 * kQuarters];  // see quarter_of
  Entry list[kSlots * 32];     // [slot][lane]
};

// Where four numbers of a ray's sum lie: shifted from ray to ray, so that both one ray's quarters and one quarter of
// neighbouring rays are in different banks.
__device__ __forceinline__ int quarter_of(int ray, int quarter) { return ray * kQuarters + (quarter ^ (ray & (kQuarters - 1))); }

// The state of a ray on its way.
struct Walker {
  Ray<float> ray;
  float t;
  int part = 0, level = 0;  // see nested.h
  const uint8_t* ahead;     // of this ray's octant, scene and level
  uint32_t first;           // number of the first cell there
  Compositor<float> compositor;
  float depth = 0;          // world
  float correction[3] = {};  // of rgb, where colours were clamped
  int32_t row[kCorners];    // of the cell it was in last
  float weight[kCorners] = {};
  int cell[3];
};

__device__ __forceinline__ void list_corners(Walker& walker, unsigned corners, Entry* list, int& count) {
#pragma unroll
  for (int corner = 0; corner < kCorners; ++corner)
    if ((corners >> corner & 1) && walker.weight[corner] != 0 && walker.row[corner] >= 0)
      list[32 * count++] = {uint32_t(walker.row[corner] & ~kMayClamp), walker.weight[corner]};
}

// Adds the lists of a warp's rays to their sums, of rows of bytes. Lane l reads bytes 8 (l % 4) to 8 (l % 4) + 7 of the rows of
// ray 8 g + l / 4.
__device__ __forceinline__ void gather_codes(const uint8_t* codes, WarpMemory& memory, int count) {
  const int lane = threadIdx.x & 31, part = lane % 4;
  const uint2* column = reinterpret_cast<const uint2*>(codes) + part;
  __syncwarp();
#pragma unroll 1
  for (int group = 0; group < 4; ++group) {
    const int ray = 8 * group + lane / 4;
    const int own = __shfl_sync(~0u, count, ray);
    if (!__any_sync(~0u, own)) continue;
    float4 low = memory.sum[quarter_of(ray, 2 * part)], high = memory.sum[quarter_of(ray, 2 * part + 1)];
#pragma unroll 4
    for (int slot = 0; slot < own; ++slot) {
      const Entry entry = memory.list[32 * slot + ray];
      const uint2 eight = __ldg(column + uint64_t(entry.row) * (kPackedRow / sizeof(uint2)));
      low.x = __fmaf_rn(entry.weight, byte_of(eight.x, 0), low.x);
      low.y = __fmaf_rn(entry.weight, byte_of(eight.x, 1), low.y);
      low.z = __fmaf_rn(entry.weight, byte_of(eight.x, 2), low.z);
      low.w = __fmaf_rn(entry.weight, byte_of(eight.x, 3), low.w);
      high.x = __fmaf_rn(entry.weight, byte_of(eight.y, 0), high.x);
      high.y = __fmaf_rn(entry.weight, byte_of(eight.y, 1), high.y);
      high.z = __fmaf_rn(entry.weight, byte_of(eight.y, 2), high.z);
      high.w = __fmaf_rn(entry.weight, byte_of(eight.y, 3), high.w);
    }
    memory.sum[quarter_of(ray, 2 * part)] = low, memory.sum[quarter_of(ray, 2 * part + 1)] = high;
  }
  __syncwarp();
}

// The same of rows of floats. Lane l reads quarter l % 8 of the rows of ray 4 g + l / 8.
__device__ __forceinline__ void gather_floats(const float* rows, WarpMemory& memory, int count) {
  const int lane = threadIdx.x & 31, quarter = lane % kQuarters;
  const float4* column = reinterpret_cast<const float4*>(rows) + quarter;
  __syncwarp();
#pragma unroll 1
  for (int group = 0; group < 8; ++group) {
    const int ray = 4 * group + lane / kQuarters;
    const int own = __shfl_sync(~0u, count, ray);
    if (!__any_sync(~0u, own)) continue;
    float4 sum = memory.sum[quarter_of(ray, quarter)];
#pragma unroll 4
    for (int slot = 0; slot < own; ++slot) {
      const Entry entry = memory.list[32 * slot + ray];
      const float4 part = read_quarter(column, entry.row);
      sum.x = __fmaf_rn(entry.weight, part.x, sum.x);
      sum.y = __fmaf_rn(entry.weight, part.y, sum.y);
      sum.z = __fmaf_rn(entry.weight, part.z, sum.z);
      sum.w = __fmaf_rn(entry.weight, part.w, sum.w);
    }
    memory.sum[quarter_of(ray, quarter)] = sum;
  }
  __syncwarp();
}

template <bool kCodes>
__device__ __forceinline__ void gather(const PackedGrid& grid, WarpMemory& memory, int count) {
  if constexpr (kCodes) gather_codes(grid.codes, memory, count);
  else gather_floats(grid.rows, memory, count);
}

__device__ __forceinline__ float sigma_at(const float density[kCorners], const float weights[kCorners]) {
  float sigma = 0;
#pragma unroll
  for (int corner = 0; corner < kCorners; ++corner) sigma = __fmaf_rn(weights[corner], density[corner], sigma);
  return sigma;
}

__device__ __forceinline__ void read_cell(const PackedCell* cell, int32_t row[kCorners], float density[kCorners]) {
  const int4* rows = reinterpret_cast<const int4*>(cell->row);
  const float4* densities = reinterpret_cast<const float4*>(cell->density);
  const int4 a = __ldg(rows), b = __ldg(rows + 1);
  const float4 c = __ldg(densities), d = __ldg(densities + 1);
  row[0] = a.x, row[1] = a.y, row[2] = a.z, row[3] = a.w, row[4] = b.x, row[5] = b.y, row[6] = b.z, row[7] = b.w;
  density[0] = c.x, density[1] = c.y, density[2] = c.z, density[3] = c.w;
  density[4] = d.x, density[5] = d.y, density[6] = d.z, density[7] = d.w;
}

__device__ __forceinline__ int octant_of(const Ray<float>& ray) {
  return (ray.direction[0] > 0 ? 4 : 0) | (ray.direction[1] > 0 ? 2 : 0) | (ray.direction[2] > 0 ? 1 : 0);
}

// Takes a ray to the next of its parts, or to the first; false if there are no more.
__device__ __forceinline__ bool begin_part(const PackedGrid& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                                           int64_t i, Walker& walker) {
  const int level = next_part(grid, options.near_clip, rays.origins + 3 * i, rays.directions + 3 * i, walker.part, walker.ray);
  walker.t = INFINITY;
  if (level < 0) return false;
  const int64_t cells = cells_of(grid), first = first_cell(grid, rays, i) + level * cells;
  walker.level = level;
  walker.t = walker.ray.entry;
  walker.first = uint32_t(first);
  walker.ahead = grid.ahead + octant_of(walker.ray) * (grid.scenes * grid.levels * cells) + first;
#pragma unroll
  for (int& index : walker.cell) index = -kFar;  // the voxels so far are left behind with the first step
  return true;
}

// Takes ray i to its first part; where there is no such ray or it misses the grid, it finds no cell and the result is false.
__device__ __forceinline__ bool start_walk(const PackedGrid& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                                           int64_t i, Walker& walker) {
  if (i < rays.count && begin_part(grid, rays, options, i, walker)) return true;
  if (i >= rays.count) walker.ray = make_ray(grid, options.near_clip, rays.origins, rays.directions);
  walker.t = INFINITY;
  walker.first = 0;
  walker.ahead = grid.ahead;
#pragma unroll
  for (int& index : walker.cell) index = -kFar;
  return false;
}

// Leaps to the ray's next sample in an occupied cell; false if there is none.
__device__ __forceinline__ bool find_cell(const int size[3], Skipper& skipper, Walker& walker, int index[3],
                                          uint32_t& number) {
  while (walker.t <= walker.ray.exit) {
    float cell[3];
    locate(size, walker.ray, walker.t, cell, index);
    number = (uint32_t(index[0]) * size[1] + index[1]) * size[2] + index[2];
    const int distance = __ldg(walker.ahead + number);
    if (distance == 0) return true;
    walker.t = skipper.leap(walker.ray, walker.t, cell, distance);
  }
  return false;
}

// The same, in whatever part of the ray. kNested: there are more than one.
template <bool kNested>
__device__ __forceinline__ bool find_next_cell(const PackedGrid& grid, const Rays<float>& rays,
                                               const RenderOptions<float>& options, int64_t i, Skipper& skipper,
                                               Walker& walker, int index[3], uint32_t& number) {
  bool found = find_cell(grid.size, skipper, walker, index, number);
  if constexpr (kNested) {
    while (!found && i < rays.count && !walker.compositor.stopped && begin_part(grid, rays, options, i, walker)) {
      skipper = Skipper(walker.ray, options.step_size);
      found = find_cell(grid.size, skipper, walker, index, number);
    }
  }
  return found;
}

// Passes all samples of a cell; t is then the first one beyond it. Returns their number where the rays' colours may be clamped
// at one of them (kClamp), else 0; `entry` is then the cell's in the table of cells.
template <bool kRows, bool kClamp>
__device__ __forceinline__ uint32_t cross_cell(const PackedGrid& grid, const RenderOptions<float>& options,
                                               const int index[3], uint32_t number, Walker& walker, Entry* list, int& count,
                                               uint32_t& entry) {
  number += walker.first;
  const uint2 bits = __ldg(reinterpret_cast<const uint2*>(grid.words) + number / 32);
  const CellWord word{bits.x, bits.y};
  entry = word.first + __popc(word.bits & ((1u << number % 32) - 1));
  if (kRows) {
    const int move[3] = {index[0] - walker.cell[0], index[1] - walker.cell[1], index[2] - walker.cell[2]};
    const unsigned left = left_behind(move);
    list_corners(walker, left, list, count);
    carry_weights(move, walker.weight);
  }
  float density[kCorners];
  read_cell(grid.cells + entry, walker.row, density);
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) walker.cell[axis] = index[axis];
  Cell<float> cell = cell_on_ray(grid.size, walker.ray, walker.t);
  uint32_t samples = 0;
  bool dense = false;
  do {
    float weights[kCorners];
    trilinear_weights(cell.fraction, weights);
    const float sigma = sigma_at(density, weights);
    if (kClamp) ++samples;
    if (sigma > options.sigma_thresh) {
      if (kClamp) dense = true;
      const float weight = walker.compositor.pass(sigma * options.step_size * walker.ray.delta, options.stop_thresh);
      walker.depth = __fmaf_rn(weight, walker.t * walker.ray.world, walker.depth);
      if (kRows)
#pragma unroll
        for (int corner = 0; corner < kCorners; ++corner)
          walker.weight[corner] = __fmaf_rn(weight, weights[corner], walker.weight[corner]);
    }
    const float next = walker.t + options.step_size;
    walker.t = walker.compositor.stopped || !(next > walker.t) ? INFINITY : next;
    cell = cell_on_ray(grid.size, walker.ray, fminf(walker.t, walker.ray.exit));
  } while (walker.t <= walker.ray.exit && cell.index[0] == walker.cell[0] && cell.index[1] == walker.cell[1] &&
           cell.index[2] == walker.cell[2]);
  if (!kClamp || !dense) return 0;
  int32_t flags = 0;
#pragma unroll
  for (const int32_t row : walker.row) flags |= row >= 0 ? row : 0;
  return flags & kMayClamp ? samples : 0;
}

}  // namespace plenoxel::cuda
