// Rendering features, and spreading values back, on the CPU.
//
// Spreading takes two passes that need no atomics. Pass 1 walks the rays and lists what each weighs at which rows. Pass 2
// gives every thread a range of rows; it reads all lists in the order of the rays and adds to its own rows. Each row is thus
// summed in the order of the rays, so the bits do not depend on the number of threads.
#include "features_cpu.h"

#include <algorithm>
#include <vector>

#include "footprint.h"
#include "march_cpu.h"

namespace plenoxel::cpu {
namespace {

constexpr int64_t kRaysPerPass = 16384;  // bounds the memory that lists take
constexpr int kMostBlocks = 4096;        // of rows, by which they are divided among threads

// Calls emit(row, weight) for the occupied voxels that ray i weighs at; a voxel that it comes back to, once more.
template <typename T, typename Emit>
void trace(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, int64_t i, Emit&& emit) {
  const Ray<T> ray = make_ray(grid, options.near_clip, rays.origins + 3 * i, rays.directions + 3 * i);
  const int64_t plane = int64_t(grid.size[1]) * grid.size[2];
  Compositor<T> compositor;
  int64_t cell = -1;
  int level = -1;
  int index[3] = {};
  int32_t row[kCorners] = {};
  T weights[kCorners] = {};
  const auto leave = [&](unsigned corners) {
    for (int corner = 0; corner < kCorners; ++corner)
      if ((corners >> corner & 1) && row[corner] >= 0 && weights[corner] != 0) emit(row[corner], weights[corner]);
  };
  march(grid, rays, options, i,
        [&](const RaySample<T>& sample, const Corners<T>& corners) {
          if (corners.cell != cell) {
            cell = corners.cell;
            const int next[3] = {int(cell / plane % grid.size[0]), int(cell / grid.size[2] % grid.size[1]),
                                 int(cell % grid.size[2])};
            int move[3] = {next[0] - index[0], next[1] - index[1], next[2] - index[2]};
            if (sample.level != level) move[0] = kFar;  // nothing is carried into the first cell of a part
            level = sample.level;
            leave(left_behind(move));
            carry_weights(move, weights);
            std::copy_n(next, 3, index);
            std::copy_n(corners.row, kCorners, row);
          }
          const T weight = compositor.pass(sample.sigma * options.step_size * ray.delta, options.stop_thresh);
          for (int corner = 0; corner < kCorners; ++corner) weights[corner] += weight * sample.corner_weights[corner];
          return !compositor.stopped;
        });
  leave(0xff);
}

template <typename T>
void add_scaled(T factor, const T* from, int64_t channels, T* to) {
  for (int64_t c = 0; c < channels; ++c) to[c] += factor * from[c];
}

template <typename T>
struct Entry {
  int32_t row;
  T weight;
};

// What the rays of a task weigh where.
template <typename T>
struct TaskList {
  std::vector<Entry<T>> entries;
  std::vector<size_t> ends;  // of each ray's entries

  void clear() {
    entries.clear();
    ends.clear();
  }
};

// Splits the rows into `parts` ranges with about equally many entries each: parts + 1 borders.
template <typename T>
std::vector<int64_t> balanced_rows(const std::vector<TaskList<T>>& tasks, int64_t rows, int parts) {
  std::vector<int64_t> borders{0};
  if (parts > 1) {
    const int64_t block = std::max<int64_t>(1, (rows + kMostBlocks - 1) / kMostBlocks);  // there may be no rows
    std::vector<int64_t> per_block((rows + block - 1) / block);
    int64_t total = 0, seen = 0;
    for (const TaskList<T>& task : tasks) {
      total += int64_t(task.entries.size());
      for (const Entry<T>& entry : task.entries) ++per_block[entry.row / block];
    }
    for (size_t b = 0; b < per_block.size() && int(borders.size()) < parts; ++b) {
      seen += per_block[b];
      if (seen * parts >= total * int64_t(borders.size())) borders.push_back(int64_t(b + 1) * block);
    }
  }
  borders.resize(parts, rows);
  borders.push_back(rows);
  return borders;
}

// Adds a task's lists, whose first ray's values are given, to the rows [first, last).
template <typename T>
void gather(const TaskList<T>& task, const T* values, int64_t channels, int64_t first, int64_t last, T* sums, T* weights) {
  size_t e = 0;
  for (const size_t end : task.ends) {
    for (; e < end; ++e) {
      const Entry<T>& entry = task.entries[e];
      if (entry.row < first || entry.row >= last) continue;
      weights[entry.row] += entry.weight;
      add_scaled(entry.weight, values, channels, sums + entry.row * channels);
    }
    values += channels;
  }
}

}  // namespace

template <typename T>
void render_features(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, const T* features,
                     int64_t channels, T* out, int threads) {
  for_ray_tasks(rays.count, threads, [&](int64_t first, int64_t last, int64_t) {
    std::fill(out + first * channels, out + last * channels, T(0));
    for (int64_t i = first; i < last; ++i)
      trace(grid, rays, options, i, [&](int32_t row, T weight) {
        add_scaled(weight, features + row * channels, channels, out + i * channels);
      });
  });
}

template <typename T>
void spread_features(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, const T* values,
                     int64_t channels, int64_t rows, T* sums, T* weights, int threads) {
  std::vector<TaskList<T>> tasks((std::min(rays.count, kRaysPerPass) + kRaysPerTask - 1) / kRaysPerTask);
  const int parts = std::max(1, std::min(threads, int(tasks.size())));
  for (int64_t start = 0; start < rays.count; start += kRaysPerPass) {
    for (TaskList<T>& task : tasks) task.clear();
    for_ray_tasks(std::min(kRaysPerPass, rays.count - start), threads, [&](int64_t first, int64_t last, int64_t number) {
      TaskList<T>& task = tasks[number];
      for (int64_t i = start + first; i < start + last; ++i) {
        trace(grid, rays, options, i, [&](int32_t row, T weight) { task.entries.push_back({row, weight}); });
        task.ends.push_back(task.entries.size());
      }
    });
    const std::vector<int64_t> borders = balanced_rows(tasks, rows, parts);
#pragma omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)
    for (int part = 0; part < parts; ++part)
      for (size_t t = 0; t < tasks.size(); ++t)
        gather(tasks[t], values + (start + int64_t(t) * kRaysPerTask) * channels, channels, borders[part],
               borders[part + 1], sums, weights);
  }
}

#define INSTANTIATE(T)                                                                                                  \
  template void render_features(const Grid<T>&, const Rays<T>&, const RenderOptions<T>&, const T*, int64_t, T*, int);  \
  template void spread_features(const Grid<T>&, const Rays<T>&, const RenderOptions<T>&, const T*, int64_t, int64_t,   \
                                T*, T*, int);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace plenoxel::cpu
