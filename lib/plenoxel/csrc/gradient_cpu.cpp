// Gradients by density and coefficients on the CPU, in two passes that need no atomics.
//
// Pass 1 walks the rays and leaves a small record for each sample. Pass 2 adds the records to the voxels: every thread owns
// a range of x planes, reads all records in the order of the rays and adds to the rows of its own planes. Each row is thus
// summed in the order of the rays, so the bits do not depend on the number of threads.
#include <algorithm>
#include <vector>

#include "cpu.h"
#include "loss.h"
#include "march_cpu.h"

namespace plenoxel::cpu {
namespace {

constexpr int64_t kRaysPerPass = 8192;  // bounds the memory that records take

// What a sample passes to its cell: dL/dsigma, dL/dcolour times weight, and its weight (for the SH image's gradient).
template <typename T>
struct Record {
  int64_t cell;
  int32_t ray;
  T fraction[3];
  T color[3];
  T sigma;
  T weight;
};

template <typename T>
struct TaskRecords {
  std::vector<Record<T>> records;
  std::vector<int32_t> planes;  // of each record's cell, apart so that skipping is cheap

  void clear() {
    records.clear();
    planes.clear();
  }
};

// A ray's forward pass, kept for walking it backwards.
template <typename T>
struct Shaded {
  RaySample<T> sample;
  int64_t cell;
  T color[3];  // before clamping
  T weight, transmittance_after;
  T image_gradient;  // <cotangent of the SH image, coefficients>
};

template <typename T>
struct ForwardRay {
  Ray<T> ray;
  Compositor<T> compositor;
  std::vector<Shaded<T>> samples;
  T rgb[3], depth, background[3];

  void run(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, const T* backgrounds,
           const T* sh_cotangent, int64_t i) {
    background_of(backgrounds, options.background_brightness, i, background);
    ray = make_ray(grid, options.near_clip, rays.origins + 3 * i, rays.directions + 3 * i);
    const RowBasis<T> basis(rays.directions + 3 * i);
    compositor = Compositor<T>();
    samples.clear();
    depth = 0;
    rgb[0] = rgb[1] = rgb[2] = 0;
    march(grid, rays, options, i,
          [&](const RaySample<T>& sample, const Corners<T>& corners) {
            Shaded<T> shaded{sample, corners.cell, {}, 0, 0, 0};
            shaded.weight = compositor.pass(sample.sigma * options.step_size * ray.delta, options.stop_thresh);
            shaded.transmittance_after = compositor.transmittance;
            const Row<T> row = corners.coefficients(grid, sample.corner_weights);
            basis.dot(row, shaded.color);
            for (T& color : shaded.color) color += T(0.5);
            if (sh_cotangent) shaded.image_gradient = row.dot(sh_cotangent);
            for (int c = 0; c < 3; ++c) rgb[c] += shaded.weight * larger(shaded.color[c], T(0));
            depth += shaded.weight * sample.distance;
            samples.push_back(shaded);
            return !compositor.stopped;
          });
    for (int c = 0; c < 3; ++c) rgb[c] += compositor.remaining() * background[c];
  }
};

template <typename T>
void add_records(const Grid<T>& grid, const ForwardRay<T>& forward, const RenderOptions<T>& options,
                 const RayGradient<T>& gradient, int64_t i, TaskRecords<T>& out) {
  const int64_t plane_size = int64_t(grid.size[1]) * grid.size[2];
  const T optical_length = options.step_size * forward.ray.delta;
  T by_transmittance = gradient.transmittance;
  for (int c = 0; c < 3; ++c) by_transmittance += forward.background[c] * gradient.rgb[c];
  BackwardCompositor<T> backward{by_transmittance * forward.compositor.remaining() + gradient.log_transmittance};
  for (size_t s = forward.samples.size(); s-- > 0;) {
    const Shaded<T>& shaded = forward.samples[s];
    const T distance = shaded.sample.distance;
    Record<T> record{shaded.cell, int32_t(i), {}, {}, 0, shaded.weight};
    T by_weight = gradient.depth * distance + shaded.image_gradient;
    if (distance < gradient.free_until) by_weight += gradient.free_space;
    for (int c = 0; c < 3; ++c) {
      by_weight += gradient.rgb[c] * larger(shaded.color[c], T(0));
      record.color[c] = shaded.color[c] >= 0 ? gradient.rgb[c] * shaded.weight : T(0);
      record.fraction[c] = shaded.sample.fraction[c];
    }
    record.sigma = optical_length * backward.pass(by_weight, shaded.weight, shaded.transmittance_after) +
                   gradient.sparsity * sparsity_gradient(shaded.sample.sigma);
    out.records.push_back(record);
    out.planes.push_back(int32_t(shaded.cell / plane_size));
  }
}

// Where pass 2 adds up.
template <typename T>
struct GradientRows {
  const T* sh_cotangent;  // [count, 27] or null
  T* density;             // [V]
  T* sh;                  // [V, 27]
  bool* touched;          // [V] or null
};

// What the consecutive samples of one ray in one cell add to its corners: colour times basis, so few numbers suffice.
template <typename T>
struct CornerGradients {
  T color[kCorners][3] = {};
  T sigma[kCorners] = {};
  T weight[kCorners] = {};

  void add(const Record<T>& record) {
    T weights[kCorners];
    trilinear_weights(record.fraction, weights);
    for (int corner = 0; corner < kCorners; ++corner) {
      for (int c = 0; c < 3; ++c) color[corner][c] += weights[corner] * record.color[c];
      sigma[corner] += weights[corner] * record.sigma;
      weight[corner] += weights[corner] * record.weight;
    }
  }

  void flush(int corner, int64_t row, const T basis[kBasis], const T* sh_cotangent, const GradientRows<T>& out) const {
    T* sh = out.sh + row * kCoefficients;
    T added[kCoefficients];
    for (int c = 0; c < 3; ++c)
      for (int b = 0; b < kBasis; ++b) added[c * kBasis + b] = color[corner][c] * basis[b];
    if (sh_cotangent)
      for (int k = 0; k < kCoefficients; ++k) added[k] += weight[corner] * sh_cotangent[k];
    for (int k = 0; k < kCoefficients; ++k) sh[k] += added[k];
    out.density[row] += sigma[corner];
    if (out.touched) out.touched[row] = true;
  }
};

// Adds all records of a task to the rows of planes [first_plane, last_plane).
template <typename T>
void scatter(const Grid<T>& grid, const Rays<T>& rays, const TaskRecords<T>& task, int first_plane, int last_plane,
             const GradientRows<T>& out) {
  T basis[kBasis] = {};
  int32_t basis_of = -1;
  const size_t count = task.records.size();
  for (size_t r = 0; r < count;) {
    const int plane = task.planes[r];
    const bool near = plane >= first_plane && plane < last_plane;         // corners 0 to 3 are ours
    const bool far = plane + 1 >= first_plane && plane + 1 < last_plane;  // corners 4 to 7 are ours
    if (!near && !far) {
      ++r;
      continue;
    }
    const Record<T>& first = task.records[r];
    CornerGradients<T> corners;
    for (; r < count && task.records[r].cell == first.cell && task.records[r].ray == first.ray; ++r)
      corners.add(task.records[r]);
    if (basis_of != first.ray) sh_basis(rays.directions + 3 * int64_t(first.ray), basis);
    basis_of = first.ray;
    const T* cotangent = out.sh_cotangent ? out.sh_cotangent + int64_t(first.ray) * kCoefficients : nullptr;
    for (int corner = near ? 0 : 4; corner < (far ? 8 : 4); ++corner) {
      const int32_t row = grid.links[first.cell + corner_offset(grid.size, corner)];
      if (row >= 0) corners.flush(corner, row, basis, cotangent, out);
    }
  }
}

// Splits the planes into `parts` ranges with about equally many records each: parts + 1 borders.
template <typename T>
std::vector<int> balanced_planes(const std::vector<TaskRecords<T>>& tasks, int parts) {
  std::vector<int64_t> per_plane;
  int64_t total = 0;
  for (const TaskRecords<T>& task : tasks) {
    total += int64_t(task.planes.size());
    for (const int32_t plane : task.planes) {
      if (size_t(plane) >= per_plane.size()) per_plane.resize(plane + 1);
      ++per_plane[plane];
    }
  }
  std::vector<int> borders{0};
  int64_t seen = 0;
  for (size_t plane = 0; plane < per_plane.size(); ++plane) {
    seen += per_plane[plane];
    if (int(borders.size()) < parts && seen * parts >= total * int64_t(borders.size())) borders.push_back(int(plane) + 1);
  }
  while (int(borders.size()) < parts) borders.push_back(borders.back());
  borders.push_back(int(per_plane.size()) + 1);
  return borders;
}

// The two passes; gradient_of(forward, i) gives the RayGradient of ray i once it is rendered in front of `backgrounds`.
template <typename T, typename GradientOf>
void accumulate(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, const T* backgrounds,
                const GradientRows<T>& out, int threads, GradientOf&& gradient_of) {
  std::vector<TaskRecords<T>> tasks((std::min(rays.count, kRaysPerPass) + kRaysPerTask - 1) / kRaysPerTask);
  for (int64_t start = 0; start < rays.count; start += kRaysPerPass) {
    for (TaskRecords<T>& task : tasks) task.clear();
    for_ray_tasks(std::min(kRaysPerPass, rays.count - start), threads, [&](int64_t first, int64_t last, int64_t task) {
      ForwardRay<T> forward;
      for (int64_t i = start + first; i < start + last; ++i) {
        forward.run(grid, rays, options, backgrounds, out.sh_cotangent ? out.sh_cotangent + i * kCoefficients : nullptr, i);
        add_records(grid, forward, options, gradient_of(forward, i), i, tasks[task]);
      }
    });
    const int parts = std::min(threads, int(tasks.size()));
    const std::vector<int> borders = balanced_planes(tasks, parts);
#pragma omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)
    for (int part = 0; part < parts; ++part)
      for (const TaskRecords<T>& task : tasks) scatter(grid, rays, task, borders[part], borders[part + 1], out);
  }
}

}  // namespace

template <typename T>
void render_backward(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, const Image<T>& cotangent,
                     T* grad_density, T* grad_sh, int threads) {
  const GradientRows<T> out{cotangent.sh, grad_density, grad_sh, nullptr};
  const T* const plain = nullptr;
  accumulate(grid, rays, options, plain, out, threads, [&](const ForwardRay<T>&, int64_t i) {
    RayGradient<T> gradient;
    if (cotangent.rgb) std::copy_n(cotangent.rgb + 3 * i, 3, gradient.rgb);
    if (cotangent.depth) gradient.depth = cotangent.depth[i];
    if (cotangent.alpha) gradient.transmittance -= cotangent.alpha[i];
    if (cotangent.sh && options.sh_background)
      for (int k = 0; k < kCoefficients; ++k)
        gradient.transmittance += options.background_brightness * cotangent.sh[i * kCoefficients + k];
    return gradient;
  });
}

template <typename T>
void fit_gradients(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, const FitLoss<T>& loss, T* rgb,
                   T* grad_density, T* grad_sh, bool* touched, int threads) {
  const GradientRows<T> out{nullptr, grad_density, grad_sh, touched};
  accumulate(grid, rays, options, loss.background, out, threads, [&](const ForwardRay<T>& forward, int64_t i) {
    std::copy_n(forward.rgb, 3, rgb + 3 * i);
    if (loss.transmittance) loss.transmittance[i] = forward.compositor.remaining();
    return loss_gradient(loss, forward.compositor, forward.rgb, forward.depth, rays.count, i);
  });
}

#define INSTANTIATE(T)                                                                                                  \
  template void render_backward(const Grid<T>&, const Rays<T>&, const RenderOptions<T>&, const Image<T>&, T*, T*, int); \
  template void fit_gradients(const Grid<T>&, const Rays<T>&, const RenderOptions<T>&, const FitLoss<T>&, T*, T*, T*,   \
                              bool*, int);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace plenoxel::cpu
