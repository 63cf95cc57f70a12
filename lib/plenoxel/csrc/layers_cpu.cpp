// Sphere layers on the CPU. Gradients take two passes that need no atomics, as in gradient_cpu.cpp: pass 1 leaves a
// record for each sample, and in pass 2 every thread adds the records to texture rows of its own, in the order of rays.
#include "layers_cpu.h"

#include <algorithm>
#include <vector>

#include "march_cpu.h"

namespace plenoxel::cpu {
namespace {

constexpr int64_t kRaysPerPass = 8192;  // bounds the memory that records take

template <typename T>
struct Record {
  LayerSample<T> sample;
  Texel<T> gradient;
};

template <typename T>
struct TaskRecords {
  std::vector<Record<T>> records;
  std::vector<int32_t> rows;  // of each record, apart so that skipping is cheap

  void clear() {
    records.clear();
    rows.clear();
  }
};

// A sample of the forward pass, kept for walking it backwards.
template <typename T>
struct Shaded {
  LayerSample<T> sample;
  Texel<T> value;
  T weight, transmittance_after;
};

template <typename T>
void add_records(const SphereLayers<T>& spheres, const Rays<T>& rays, const T* by_rgb, int64_t i,
                 std::vector<Shaded<T>>& kept, TaskRecords<T>& out) {
  if (by_rgb[0] == 0 && by_rgb[1] == 0 && by_rgb[2] == 0) return;
  const LayerRay<T> ray(spheres, rays.origins + 3 * i, rays.directions + 3 * i);
  Compositor<T> compositor;
  kept.clear();
  Shaded<T> shaded;
  for (int n = 0; n < spheres.steps; ++n) {
    if (!ray.at(n, shaded.sample)) continue;
    shaded.value = interpolate(spheres, shaded.sample);
    shaded.weight = compositor.pass(optical_depth(shaded.sample, shaded.value), T(0));
    shaded.transmittance_after = compositor.transmittance;
    kept.push_back(shaded);
  }
  BackwardCompositor<T> backward{compositor.transmittance * spheres.brightness * (by_rgb[0] + by_rgb[1] + by_rgb[2])};
  for (size_t s = kept.size(); s-- > 0;) {
    const Shaded<T>& last = kept[s];
    const Texel<T> gradient =
        value_gradient(last.sample, last.value, by_rgb, last.weight, last.transmittance_after, backward);
    if (!gradient.any()) continue;
    out.records.push_back({last.sample, gradient});
    out.rows.push_back(last.sample.row);
  }
}

// Adds all records of a task to the rows with row % parts == part: neighbouring rows are different threads', so that
// these are equally busy wherever rays look.
template <typename T>
void scatter(const SphereLayers<T>& spheres, const TaskRecords<T>& task, int part, int parts, Texel<T>* grad_texels,
             bool* touched) {
  for (size_t r = 0; r < task.rows.size(); ++r) {
    const int row = task.rows[r], next = row + 1 < spheres.rows ? row + 1 : 0;
    const bool mine[2] = {row % parts == part, next % parts == part};
    if (!mine[0] && !mine[1]) continue;
    const auto& [sample, gradient] = task.records[r];
    for (int corner = 0; corner < kTexelCorners; ++corner) {
      if (!mine[corner >> 1]) continue;
      const int64_t direction = sample.direction(spheres.rows, corner);
      Texel<T>* const texels = grad_texels + direction * spheres.layers + sample.layer;
      const T share = sample.share(corner), far = share * sample.fraction[2];
      texels[0].add_scaled(share - far, gradient);
      texels[1].add_scaled(far, gradient);
      if (touched) touched[direction] = true;
    }
  }
}

}  // namespace

template <typename T>
void shade_layers(const SphereLayers<T>& spheres, const Rays<T>& rays, const bool* seen, T* rgb, int threads) {
  for_ray_tasks(rays.count, threads, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t i = first; i < last; ++i) {
      if (seen && !seen[i]) std::fill_n(rgb + 3 * i, 3, spheres.brightness);
      else shade_ray(spheres, rays.origins + 3 * i, rays.directions + 3 * i, rgb + 3 * i);
    }
  });
}

template <typename T>
void shade_layers_gradients(const SphereLayers<T>& spheres, const Rays<T>& rays, const T* grad_rgb,
                            Texel<T>* grad_texels, bool* touched, int threads) {
  std::vector<TaskRecords<T>> tasks((std::min(rays.count, kRaysPerPass) + kRaysPerTask - 1) / kRaysPerTask);
  const int parts = std::max(1, std::min({threads, spheres.rows, int(tasks.size())}));
  for (int64_t start = 0; start < rays.count; start += kRaysPerPass) {
    for (TaskRecords<T>& task : tasks) task.clear();
    for_ray_tasks(std::min(kRaysPerPass, rays.count - start), threads, [&](int64_t first, int64_t last, int64_t task) {
      std::vector<Shaded<T>> kept;
      for (int64_t i = start + first; i < start + last; ++i)
        add_records(spheres, rays, grad_rgb + 3 * i, i, kept, tasks[task]);
    });
#pragma omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)
    for (int part = 0; part < parts; ++part)
      for (const TaskRecords<T>& task : tasks) scatter(spheres, task, part, parts, grad_texels, touched);
  }
}

#define INSTANTIATE(T)                                                         \
  template void shade_layers(const SphereLayers<T>&, const Rays<T>&, const bool*, T*, int); \
  template void shade_layers_gradients(const SphereLayers<T>&, const Rays<T>&, const T*, Texel<T>*, bool*, int);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace plenoxel::cpu
