// Forward passes straight from a grid's tensors, an octet of lanes a ray: rendering, pruning weights.
#include "kernels.h"
#include "shading.cuh"

namespace plenoxel::cuda {
namespace {

template <bool kColor, bool kImage>
__global__ void __launch_bounds__(kThreads)
    render_kernel(Grid<float> grid, Rays<float> rays, RenderOptions<float> options, Image<float> out) {
  const int64_t i = ray_of_thread();
  if (i >= rays.count) return;
  const Octet octet = Octet::mine();
  Ray<float> ray = make_ray(grid, options.near_clip, rays.origins + 3 * i, rays.directions + 3 * i);
  const bool hits = ray.hits();
  ForwardVisitor<kColor, kImage> visitor{octet, options, ray, {grid.sh, basis_part(rays.directions + 3 * i, octet.lane)}};
  march(grid, rays, i, ray, options, octet, visitor);
  const float remaining = visitor.compositor.remaining();
  if (kImage) {
    const float background = options.sh_background && hits ? remaining * options.background_brightness : 0;
    for (int m = 0; m < kRowParts; ++m)
      if (const int k = m * kOctet + octet.lane; k < kCoefficients)
        out.sh[i * kCoefficients + k] = visitor.image.value[m] + background;
  }
  if (octet.lane != 0) return;
  if (kColor)
    for (int c = 0; c < 3; ++c) out.rgb[3 * i + c] = visitor.rgb[c];
  if (out.depth) out.depth[i] = visitor.depth;
  if (out.alpha) out.alpha[i] = 1 - remaining;
}

struct MaxWeightVisitor {
  const RenderOptions<float>& options;
  const Ray<float>& ray;
  float* weights;
  Compositor<float> compositor;
  float largest = 0;
  int32_t row = -1;

  __device__ void enter(int32_t next, const Move&) {
    leave();
    row = next;
    largest = 0;
  }
  __device__ bool sample(float, float sigma, float) {
    largest = larger(largest, compositor.pass(sigma * options.step_size * ray.delta, options.stop_thresh));
    return !compositor.stopped;
  }
  // Numbers that are not negative are ordered as their bits are.
  __device__ void leave() {
    if (row >= 0 && largest > 0) atomicMax(reinterpret_cast<int*>(weights + row), __float_as_int(largest));
  }
};

__global__ void __launch_bounds__(kThreads)
    max_weight_kernel(Grid<float> grid, Rays<float> rays, RenderOptions<float> options, float* weights) {
  const int64_t i = ray_of_thread();
  if (i >= rays.count) return;
  const Octet octet = Octet::mine();
  Ray<float> ray = make_ray(grid, options.near_clip, rays.origins + 3 * i, rays.directions + 3 * i);
  MaxWeightVisitor visitor{options, ray, weights};
  march(grid, rays, i, ray, options, octet, visitor);
}

}  // namespace

void render(const Grid<float>& grid, const Rays<float>& rays, const RenderOptions<float>& options, const Image<float>& image,
            Stream stream) {
  if (rays.count == 0) return;
  const unsigned blocks = blocks_for(rays.count * kOctet);
  if (image.rgb && image.sh) render_kernel<true, true><<<blocks, kThreads, 0, stream>>>(grid, rays, options, image);
  else if (image.rgb) render_kernel<true, false><<<blocks, kThreads, 0, stream>>>(grid, rays, options, image);
  else if (image.sh) render_kernel<false, true><<<blocks, kThreads, 0, stream>>>(grid, rays, options, image);
  else render_kernel<false, false><<<blocks, kThreads, 0, stream>>>(grid, rays, options, image);
}

void max_weight(const Grid<float>& grid, const Rays<float>& rays, const RenderOptions<float>& options, float* weights,
                Stream stream) {
  if (rays.count == 0) return;
  max_weight_kernel<<<blocks_for(rays.count * kOctet), kThreads, 0, stream>>>(grid, rays, options, weights);
}

}  // namespace plenoxel::cuda
