// Walking one ray through the occupied cells of a grid on the CPU.
#pragma once

#include "compositing.h"
#include "interpolation.h"
#include "nested.h"
#include "row.h"

namespace plenoxel::cpu {

constexpr int64_t kRaysPerTask = 64;  // neighbours in an image row share cells, hence cache lines

template <typename T>
inline const T kEmptyRow[kCoefficients] = {};

// The corners of the cell a ray is in.
template <typename T>
struct Corners {
  int64_t cell = -1;
  int32_t row[kCorners] = {};
  T density[kCorners] = {};
  T densest = 0;

  void load(const Grid<T>& grid, int64_t index) {
    cell = index;
    densest = 0;
    for (int corner = 0; corner < kCorners; ++corner) {
      row[corner] = grid.links[index + corner_offset(grid.size, corner)];
      density[corner] = row[corner] >= 0 ? grid.density[row[corner]] : T(0);
      densest = larger(densest, density[corner]);
    }
  }
  Row<T> coefficients(const Grid<T>& grid, const T weights[kCorners]) const {
    Row<T> sum;
    for (int corner = 0; corner < kCorners; ++corner) {
      const T* values = row[corner] >= 0 ? grid.sh + int64_t(row[corner]) * kCoefficients : kEmptyRow<T>;
      sum.add_scaled(weights[corner], values);
    }
    return sum;
  }
};

template <typename T>
struct RaySample {
  T distance;  // world
  T sigma;
  int level;
  T fraction[3];
  T corner_weights[kCorners];
};

// Calls visit(sample, corners) for each sample of a part of a ray, until it returns false; then returns false. `first`:
// number of its grid's first cell.
template <typename T, typename Visit>
bool march_part(const Grid<T>& grid, int64_t first, const Ray<T>& ray, T step_size, T sigma_thresh, RaySample<T>& sample,
                Corners<T>& corners, Visit&& visit) {
  Stepper<T> stepper(step_size);
  T t = ray.entry, previous = T(-1);
  while (t <= ray.exit && t > previous) {  // a ray from so far away that a step is lost in rounding ends here
    previous = t;
    const Cell<T> cell = cell_on_ray(grid.size, ray, t);
    const int64_t index = first + (int64_t(cell.index[0]) * grid.size[1] + cell.index[1]) * grid.size[2] + cell.index[2];
    if (index != corners.cell) {
      if (const int distance = grid.distance[index]) {
        t = stepper.leap(t, smaller(empty_until(grid.size, ray, cell.index, distance), ray.exit));
        continue;
      }
      corners.load(grid, index);
    }
    t = stepper.next(t);
    if (!(corners.densest > 0)) continue;  // no sample in here exceeds a threshold, which is never negative
    sample.sigma = trilinear(corners.density, cell.fraction);
    if (!(sample.sigma > sigma_thresh)) continue;
    trilinear_weights(cell.fraction, sample.corner_weights);
    sample.distance = previous * ray.world;
    for (int axis = 0; axis < 3; ++axis) sample.fraction[axis] = cell.fraction[axis];
    if (!visit(sample, corners)) return false;
  }
  return true;
}

// Calls visit(sample, corners) for each sample of ray i denser than the threshold, front to back, until it returns false.
template <typename T, typename Visit>
void march(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, int64_t i, Visit&& visit) {
  const int64_t cells = int64_t(grid.size[0]) * grid.size[1] * grid.size[2];
  const int scene = rays.scene ? rays.scene[i] : 0;
  Corners<T> corners;
  RaySample<T> sample;
  Ray<T> ray;
  for (int part = 0;;) {
    sample.level = next_part(grid, options.near_clip, rays.origins + 3 * i, rays.directions + 3 * i, part, ray);
    if (sample.level < 0) return;
    const int64_t first = (int64_t(scene) * grid.levels + sample.level) * cells;
    if (!march_part(grid, first, ray, options.step_size, options.sigma_thresh, sample, corners, visit)) return;
  }
}

// Runs task(first_ray, last_ray, task_index) over all rays, tasks handed out as threads become free.
template <typename Task>
void for_ray_tasks(int64_t count, int threads, Task&& task) {
  const int64_t tasks = (count + kRaysPerTask - 1) / kRaysPerTask;
  const int useful_threads = tasks < threads ? int(tasks) : threads;
#pragma omp parallel for schedule(dynamic, 1) num_threads(useful_threads) if (useful_threads > 1)
  for (int64_t i = 0; i < tasks; ++i) {
    const int64_t last = (i + 1) * kRaysPerTask;
    task(i * kRaysPerTask, last < count ? last : count, i);
  }
}

}  // namespace plenoxel::cpu
