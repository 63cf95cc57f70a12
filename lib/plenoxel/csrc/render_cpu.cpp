// Forward passes on the CPU.
#include "cpu.h"
#include "march_cpu.h"
#include "tiles.h"

namespace plenoxel::cpu {
namespace {

template <typename T>
void render_ray(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, const Image<T>& image,
                int64_t i) {
  const Ray<T> ray = make_ray(grid, options.near_clip, rays.origins + 3 * i, rays.directions + 3 * i);
  const RowBasis<T> basis(rays.directions + 3 * i);
  const bool needs_rows = image.rgb || image.sh;
  Compositor<T> compositor;
  Row<T> sh;
  T rgb[3] = {}, depth = 0;
  march(grid, rays, options, i,
        [&](const RaySample<T>& sample, const Corners<T>& corners) {
          const T weight = compositor.pass(sample.sigma * options.step_size * ray.delta, options.stop_thresh);
          depth += weight * sample.distance;
          if (needs_rows && weight > 0) {
            const Row<T> row = corners.coefficients(grid, sample.corner_weights);
            T color[3];
            basis.dot(row, color);
            for (int c = 0; c < 3; ++c) rgb[c] += weight * larger(color[c] + T(0.5), T(0));
            sh.add_scaled(weight, row);
          }
          return !compositor.stopped;
        });
  const T background = compositor.remaining() * options.background_brightness;
  if (image.rgb)
    for (int c = 0; c < 3; ++c) image.rgb[3 * i + c] = rgb[c] + background;
  if (image.sh) {
    T* out = image.sh + i * kCoefficients;
    sh.store(out);
    if (options.sh_background && ray.hits())
      for (int k = 0; k < kCoefficients; ++k) out[k] += background;
  }
  if (image.depth) image.depth[i] = depth;
  if (image.alpha) image.alpha[i] = 1 - compositor.remaining();
}

// Raises *value to `candidate`; the order in which threads come does not matter.
template <typename T>
void raise(T* value, T candidate) {
  T current;
  __atomic_load(value, &current, __ATOMIC_RELAXED);
  while (current < candidate &&
         !__atomic_compare_exchange(value, &current, &candidate, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

}  // namespace

template <typename T>
void render(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, const Image<T>& image,
            int threads) {
  using TaskTiles = Tiles<8, 8>;
  static_assert(TaskTiles::kPixels == kRaysPerTask);
  for_ray_tasks(TaskTiles::places(rays.count, rays.width), threads, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t place = first; place < last; ++place) {
      const int64_t i = TaskTiles::ray(place, rays.count, rays.width);
      if (i < rays.count) render_ray(grid, rays, options, image, i);
    }
  });
}

template <typename T>
void max_weight(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, T* weights, int threads) {
  for_ray_tasks(rays.count, threads, [&](int64_t first, int64_t last, int64_t) {
    for (int64_t i = first; i < last; ++i) {
      const Ray<T> ray = make_ray(grid, options.near_clip, rays.origins + 3 * i, rays.directions + 3 * i);
      Compositor<T> compositor;
      march(grid, rays, options, i,
            [&](const RaySample<T>& sample, const Corners<T>& corners) {
              const T weight = compositor.pass(sample.sigma * options.step_size * ray.delta, options.stop_thresh);
              for (int corner = 0; corner < kCorners; ++corner)
                if (corners.row[corner] >= 0) raise(weights + corners.row[corner], weight);
              return !compositor.stopped;
            });
    }
  });
}

#define INSTANTIATE(T)                                                                                                  \
  template void render(const Grid<T>&, const Rays<T>&, const RenderOptions<T>&, const Image<T>&, int);                 \
  template void max_weight(const Grid<T>&, const Rays<T>&, const RenderOptions<T>&, T*, int);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace plenoxel::cpu
