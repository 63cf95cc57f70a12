// Gradients by density and coefficients, a warp a ray: see ray_gradient.cuh.
#include "kernels.h"
#include "ray_gradient.cuh"

namespace plenoxel::cuda {
namespace {

// A block is one warp, so that a ray that ends makes room for another at once.
constexpr int kFitBlocks = 16;  // per multiprocessor: they leave 128 registers a thread
static_assert(kFitBlocks * (sizeof(RayMemory<false>) + 1024) <= 228 * 1024, "so many blocks must fit in Hopper's shared memory");

// Walks a ray, again where it met too many voxels to keep, and adds its gradients to `out`. gradient_of(walk) is the loss's
// gradient; rgb [3] includes the background.
template <bool kImage, typename GradientOf>
__device__ __forceinline__ void add_gradients(RayWalk<kImage>& walk, const float (&background)[3], const GradientRows& out,
                                              GradientOf&& gradient_of) {
  RayGradient<float> gradient;
  float behind = 0;
  for (bool ready = false;; ready = true) {
    walk.run([&] {
      if (ready) walk.flush(gradient, behind, out);
    });
    if (!ready) {
      Compositor<float> compositor;
      compositor.optical_depth = walk.optical_depth;
      compositor.transmittance = expf(-walk.optical_depth);
      compositor.stopped = walk.stopped;
      const float depth = walk.sum(3);
      float rgb[3];
      for (int c = 0; c < 3; ++c) rgb[c] = walk.sum(c) + compositor.remaining() * background[c];
      gradient = gradient_of(compositor, rgb, depth);
      behind = gradient.depth * depth + gradient.free_space * walk.sum(4) + gradient.log_transmittance +
               gradient.transmittance * compositor.remaining();
      if (kImage) behind += walk.sum(5);
      for (int c = 0; c < 3; ++c) behind += gradient.rgb[c] * rgb[c];
    }
    if (ready || !walk.spilled) break;
  }
  walk.flush(gradient, behind, out);
}

__global__ void __launch_bounds__(kLanes, kFitBlocks)
    fit_kernel(Grid<float> grid, Rays<float> rays, RenderOptions<float> options, FitLoss<float> loss, float* rgb,
               GradientRows out) {
  __shared__ RayMemory<false> memory;
  const int64_t i = blockIdx.x;
  const KnownGradient known{loss.free_space_lambda / rays.count, free_until(loss, i), loss.sparsity_lambda};
  RayWalk<false> walk(grid, rays, i, options, nullptr, known, memory);
  float background[3];
  background_of(loss.background, options.background_brightness, i, background);
  add_gradients(walk, background, out,
                [&](const Compositor<float>& compositor, const float (&color)[3], float depth) {
                  const int lane = lane_of_thread();
                  if (lane < 3) rgb[3 * i + lane] = pick(color, lane);
                  if (lane == 3 && loss.transmittance) loss.transmittance[i] = compositor.remaining();
                  return loss_gradient(loss, compositor, color, depth, rays.count, i);
                });
}

template <bool kImage>
__global__ void __launch_bounds__(kLanes)
    backward_kernel(Grid<float> grid, Rays<float> rays, RenderOptions<float> options, Image<float> cotangent,
                    GradientRows out) {
  __shared__ RayMemory<kImage> memory;
  const int64_t i = blockIdx.x;
  const float* const by_image = kImage ? cotangent.sh + i * kCoefficients : nullptr;
  RayGradient<float> gradient;
  if (kImage && options.sh_background)
    for (int k = 0; k < kCoefficients; ++k) gradient.transmittance += options.background_brightness * by_image[k];
  if (cotangent.rgb)
    for (int c = 0; c < 3; ++c) gradient.rgb[c] = cotangent.rgb[3 * i + c];
  if (cotangent.depth) gradient.depth = cotangent.depth[i];
  if (cotangent.alpha) gradient.transmittance -= cotangent.alpha[i];
  const KnownGradient known;
  RayWalk<kImage> walk(grid, rays, i, options, by_image, known, memory);
  const float grey = options.background_brightness;
  add_gradients(walk, {grey, grey, grey}, out,
                [&](const Compositor<float>&, const float (&)[3], float) { return gradient; });
}

}  // namespace

void fit_gradients(const Grid<float>& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                   const FitLoss<float>& loss, float* rgb, float* grad_density, float* grad_sh, bool* touched,
                   Stream stream) {
  if (rays.count == 0) return;
  fit_kernel<<<unsigned(rays.count), kLanes, 0, stream>>>(grid, rays, options, loss, rgb,
                                                          {grad_density, grad_sh, touched});
}

void render_backward(const Grid<float>& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                     const Image<float>& cotangent, float* grad_density, float* grad_sh, Stream stream) {
  if (rays.count == 0) return;
  const auto kernel = cotangent.sh ? backward_kernel<true> : backward_kernel<false>;
  kernel<<<unsigned(rays.count), kLanes, 0, stream>>>(grid, rays, options, cotangent,
                                                      {grad_density, grad_sh, nullptr});
}

}  // namespace plenoxel::cuda
