// A warp looks for the occupied cells on one ray: each lane searches its own part of the ray.
#pragma once

#include "skip.cuh"

namespace plenoxel::cuda {

constexpr unsigned kWarp = ~0u;  // all lanes
constexpr int kLanes = 32;
constexpr int kCellsPerLane = 16;

// Shared memory of one warp: t of the first sample in each cell.
struct CellList {
  float found[kCellsPerLane][kLanes];  // by each lane
  float entry[kCellsPerLane * kLanes];  // in order
};

__device__ __forceinline__ int lane_of_thread() { return threadIdx.x % kLanes; }

__device__ __forceinline__ int64_t cell_number(const Grid<float>& grid, const int index[3]) {
  return (int64_t(index[0]) * grid.size[1] + index[1]) * grid.size[2] + index[2];
}

// The sum of `count` over the lanes before this one, and over all.
__device__ __forceinline__ int count_before(int count, int& total) {
  int sum = count;
  for (int step = 1; step < kLanes; step <<= 1) {
    const int other = __shfl_up_sync(kWarp, sum, step);
    if (lane_of_thread() >= step) sum += other;
  }
  total = __shfl_sync(kWarp, sum, kLanes - 1);
  return sum - count;
}

// Lists occupied cells from the sample at `begin` on and returns their number. `begin` becomes the sample to go on from, or
// infinity where no cells are left. `first`: number of the scene's first cell.
//
// A lane starts at the first sample in its part and ends where the next lane starts, so that together they look at just the
// samples that one walk would. A cell that two lanes find is the first one's.
__device__ __forceinline__ int find_cells(const Grid<float>& grid, int64_t first, const Ray<float>& ray, float step_size,
                                          CellList& list, float& begin) {
  const int lane = lane_of_thread();
  const float length = larger((ray.exit - begin) / kLanes, 2 * step_size);  // no lane before the last is without a sample
  const float goal = begin + float(lane) * length;
  Stepper<float> stepper(step_size);
  float t = begin;
  while (t < goal) t = stepper.leap(t, goal);
  const float next = __shfl_down_sync(kWarp, t, 1), end = lane + 1 < kLanes ? next : INFINITY;

  Skipper skipper(ray, step_size);
  int64_t own_first = -1, own_last = -1;
  int count = 0;
  bool full = false;
  while (t <= ray.exit && !(t >= end)) {
    float nearby[3];
    int index[3];
    locate(grid.size, ray, t, nearby, index);
    const int64_t number = cell_number(grid, index);
    const int distance = __ldg(grid.distance + first + number);
    if (distance == 0 && number != own_last) {
      full = count == kCellsPerLane;
      if (full) break;
      if (count == 0) own_first = number;
      list.found[count++][lane] = t;
      own_last = number;
    }
    t = skipper.leap(ray, t, nearby, max(distance, 1));
  }
  __syncwarp();

  const int64_t before = __shfl_up_sync(kWarp, own_last, 1);
  const int skipped = lane > 0 && count > 0 && before == own_first;
  const unsigned full_lanes = __ballot_sync(kWarp, full);
  const int last_lane = full_lanes ? __ffs(full_lanes) - 1 : kLanes - 1;  // what later ones found is dropped
  const int own = lane <= last_lane ? count - skipped : 0;
  int total;
  const int offset = count_before(own, total);
  for (int i = 0; i < own; ++i) list.entry[offset + i] = list.found[skipped + i][lane];
  const float resume = __shfl_sync(kWarp, t, last_lane);
  begin = full_lanes ? resume : INFINITY;
  __syncwarp();
  return total;
}

}  // namespace plenoxel::cuda
