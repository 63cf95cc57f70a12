// What clamping colours at 0 adds to rgb, for cells in which a corner's colour may be below 0.
//
// Of a fitted room's cells every other has such a corner, so lanes that looked at theirs as they come by would wait for each
// other all the time. Instead a warp queues its rays' cells, and looks at 32 at once, a lane a cell, whichever ray it is of. What
// a cell adds is added by its ray's lane, in the order in which the ray crossed its cells: bits depend on no other ray.
#pragma once

#include "packed_walk.cuh"

namespace plenoxel::cuda {

// A cell to be looked at more closely.
struct ClampJob {
  uint32_t cell;        // entry in the table of cells
  float t;              // of the first sample
  float optical_depth;  // before it
  uint32_t walk;        // samples << 9 | level << 5 | lane of the ray
};

constexpr int kQueue = 64;  // a power of two; fewer than 32 wait, and up to 32 come at once

struct ClampQueue {
  ClampJob job[kQueue];
  float added[3][32];
};

// The colours, not clamped, of rows seen along one direction.
template <bool kCodes>
class RowColors;

template <>
class RowColors<false> {
 public:
  __device__ __forceinline__ RowColors(const PackedGrid& grid, const float* direction)
      : rows_(reinterpret_cast<const float4*>(grid.rows)) {
    sh_basis(direction, basis_);
  }
  __device__ __forceinline__ void read(uint32_t row, float color[3]) const {
    float values[kPackedRow];
#pragma unroll
    for (int quarter = 0; quarter < 7; ++quarter)
      reinterpret_cast<float4*>(values)[quarter] = read_quarter(rows_ + quarter, row);
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      color[c] = 0.5f;
#pragma unroll
      for (int b = 0; b < kBasis; ++b) color[c] = __fmaf_rn(values[c * kBasis + b], basis_[b], color[c]);
    }
  }

 private:
  const float4* rows_;
  float basis_[kBasis];
};

template <>
class RowColors<true> {
 public:
  __device__ __forceinline__ RowColors(const PackedGrid& grid, const float* direction)
      : rows_(reinterpret_cast<const uint4*>(grid.codes)) {
    float basis[kBasis];
    sh_basis(direction, basis);
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      least_[c] = 0.5f;
#pragma unroll
      for (int b = 0; b < kBasis; ++b) {
        least_[c] = __fmaf_rn(__ldg(grid.low + c * kBasis + b), basis[b], least_[c]);
        scaled_[c * kBasis + b] = __ldg(grid.scale + c * kBasis + b) * basis[b];
      }
    }
  }
  __device__ __forceinline__ void read(uint32_t row, float color[3]) const {
    const uint4 first = __ldg(rows_ + uint64_t(row) * 2), second = __ldg(rows_ + uint64_t(row) * 2 + 1);
    const uint32_t words[8] = {first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w};
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      color[c] = least_[c];
#pragma unroll
      for (int b = 0; b < kBasis; ++b) {
        const int k = c * kBasis + b;
        color[c] = __fmaf_rn(byte_of(words[k / 4], k % 4), scaled_[k], color[c]);
      }
    }
  }

 private:
  const uint4* rows_;
  float scaled_[kCoefficients], least_[3];
};

// Sums up what clamping adds over a cell's samples; (0, 0, 0) where all corners' colours are above 0.
template <bool kCodes>
__device__ __forceinline__ float3 clamping(const PackedGrid& grid, const RenderOptions<float>& options, const ClampJob& job,
                                           const float* origin, const float* direction) {
  const PackedCell* const cell = grid.cells + job.cell;
  const RowColors<kCodes> colors(grid, direction);
  float color[kCorners][3];
  bool below = false;
#pragma unroll
  for (int corner = 0; corner < kCorners; ++corner) {
#pragma unroll
    for (float& channel : color[corner]) channel = 0.5f;
    if (const int32_t row = __ldg(cell->row + corner); row >= 0) colors.read(row & ~kMayClamp, color[corner]);
#pragma unroll
    for (const float channel : color[corner]) below = below || channel < 0;
  }
  float3 added = {0, 0, 0};
  if (!below) return added;
  const Ray<float> ray = level_ray(grid, options.near_clip, origin, direction, int(job.walk >> 5 & 15));
  float density[kCorners];
#pragma unroll
  for (int corner = 0; corner < kCorners; ++corner) density[corner] = __ldg(cell->density + corner);
  Compositor<float> compositor;
  compositor.optical_depth = job.optical_depth;
  compositor.transmittance = expf(-job.optical_depth);
  float t = job.t;
#pragma unroll 1
  for (uint32_t left = job.walk >> 9; left > 0; --left, t += options.step_size) {
    float weights[kCorners];
    trilinear_weights(cell_on_ray(grid.size, ray, t).fraction, weights);
    const float sigma = sigma_at(density, weights);
    if (!(sigma > options.sigma_thresh)) continue;
    const float weight = compositor.pass(sigma * options.step_size * ray.delta, options.stop_thresh);
    float at[3] = {};
#pragma unroll
    for (int corner = 0; corner < kCorners; ++corner)
#pragma unroll
      for (int c = 0; c < 3; ++c) at[c] = __fmaf_rn(weights[corner], color[corner][c], at[c]);
    added.x -= weight * fminf(at[0], 0);
    added.y -= weight * fminf(at[1], 0);
    added.z -= weight * fminf(at[2], 0);
    if (compositor.stopped) break;
  }
  return added;
}

// A warp's queue; all lanes hold the same numbers.
class Clamping {
 public:
  __device__ __forceinline__ explicit Clamping(ClampQueue& queue) : queue_(queue) {}

  // Takes up to one job a lane.
  __device__ __forceinline__ void add(bool wanted, const ClampJob& job) {
    const unsigned wanting = __ballot_sync(~0u, wanted);
    if (!wanting) return;
    const unsigned before = wanting & ((1u << (threadIdx.x & 31)) - 1);
    if (wanted) queue_.job[(first_ + waiting_ + __popc(before)) % kQueue] = job;
    waiting_ += __popc(wanting);
    __syncwarp();
  }

  // Whether so many cells wait that they should be looked at; with `last`, whether any do.
  __device__ __forceinline__ bool due(bool last) const { return waiting_ >= (last ? 1 : 32); }

  // Looks at up to 32 cells. i: number of the ray that this lane walks, whose part is added to `correction`.
  template <bool kCodes>
  __device__ __forceinline__ void look(const PackedGrid& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                                       int64_t i, float correction[3]) {
    const int lane = threadIdx.x & 31, jobs = min(waiting_, 32);
    const ClampJob job = queue_.job[(first_ + lane) % kQueue];
    const int owner = lane < jobs ? int(job.walk & 31) : lane;
    const int64_t ray = __shfl_sync(~0u, i, owner);
    float3 added = {0, 0, 0};
    if (lane < jobs) added = clamping<kCodes>(grid, options, job, rays.origins + 3 * ray, rays.directions + 3 * ray);
    queue_.added[0][lane] = added.x, queue_.added[1][lane] = added.y, queue_.added[2][lane] = added.z;
    unsigned adding = __ballot_sync(~0u, added.x != 0 || added.y != 0 || added.z != 0);
    for (; adding; adding &= adding - 1) {
      const int other = __ffs(adding) - 1;
      if (__shfl_sync(~0u, owner, other) == lane)
#pragma unroll
        for (int c = 0; c < 3; ++c) correction[c] += queue_.added[c][other];
    }
    __syncwarp();
    first_ = (first_ + jobs) % kQueue;
    waiting_ -= jobs;
  }

 private:
  ClampQueue& queue_;
  int first_ = 0, waiting_ = 0;
};

}  // namespace plenoxel::cuda
