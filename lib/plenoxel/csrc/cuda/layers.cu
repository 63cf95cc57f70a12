// Sphere layers, a thread a ray: its samples are few, all its memory accesses are of 16 bytes.
#include "layers_cuda.h"

namespace plenoxel::cuda {
namespace {

constexpr int kRaysPerBlock = 64;  // a fit's step has few rays: small blocks spread them over the multiprocessors
constexpr float kOpaque = 80;      // optical depth behind which nothing is seen; exp(-80) is still a normal number

unsigned blocks_for_rays(int64_t rays) { return unsigned((rays + kRaysPerBlock - 1) / kRaysPerBlock); }

__global__ void __launch_bounds__(kRaysPerBlock)
    shade_kernel(SphereLayers<float> spheres, Rays<float> rays, const bool* seen, float* rgb) {
  const int64_t i = int64_t(blockIdx.x) * kRaysPerBlock + threadIdx.x;
  if (i >= rays.count) return;
  if (seen && !seen[i])
    for (int c = 0; c < 3; ++c) rgb[3 * i + c] = spheres.brightness;
  else
    shade_ray(spheres, rays.origins + 3 * i, rays.directions + 3 * i, rgb + 3 * i);
}

__device__ __forceinline__ void add(Texel<float>* target, float factor, const Texel<float>& gradient) {
  const float4 value = make_float4(factor * gradient.color[0], factor * gradient.color[1], factor * gradient.color[2],
                                   factor * gradient.density);
#if __CUDA_ARCH__ >= 900
  atomicAdd(reinterpret_cast<float4*>(target), value);
#else
  atomicAdd(target->color, value.x);
  atomicAdd(target->color + 1, value.y);
  atomicAdd(target->color + 2, value.z);
  atomicAdd(&target->density, value.w);
#endif
}

__device__ __forceinline__ void scatter(const SphereLayers<float>& spheres, const LayerSample<float>& sample,
                                        const Texel<float>& gradient, Texel<float>* grad_texels, bool* touched) {
  for (int corner = 0; corner < kTexelCorners; ++corner) {
    const int64_t direction = sample.direction(spheres.rows, corner);
    Texel<float>* const texels = grad_texels + direction * spheres.layers + sample.layer;
    const float share = sample.share(corner), far = share * sample.fraction[2];
    add(texels, share - far, gradient);
    add(texels + 1, far, gradient);
    if (touched) touched[direction] = true;
  }
}

// Forward for the optical depth alone; then back to front, so that what lies behind a sample is a sum, no difference.
__global__ void __launch_bounds__(kRaysPerBlock)
    gradient_kernel(SphereLayers<float> spheres, Rays<float> rays, const float* grad_rgb, Texel<float>* grad_texels,
                    bool* touched) {
  const int64_t i = int64_t(blockIdx.x) * kRaysPerBlock + threadIdx.x;
  if (i >= rays.count) return;
  const float by_rgb[3] = {grad_rgb[3 * i], grad_rgb[3 * i + 1], grad_rgb[3 * i + 2]};
  if (by_rgb[0] == 0 && by_rgb[1] == 0 && by_rgb[2] == 0) return;
  const LayerRay<float> ray(spheres, rays.origins + 3 * i, rays.directions + 3 * i);
  LayerSample<float> sample;
  float depth = 0, depth_before = 0;  // behind and before sample `last`
  int last = -1;
  for (int n = 0; n < spheres.steps && depth < kOpaque; ++n) {
    if (!ray.at(n, sample)) continue;
    last = n;
    depth_before = depth;
    depth += optical_depth(sample, interpolate(spheres, sample));
  }
  float after = expf(-depth);
  BackwardCompositor<float> backward{after * spheres.brightness * (by_rgb[0] + by_rgb[1] + by_rgb[2])};
  for (int n = last; n >= 0 && ray.at(n, sample); --n) {
    const Texel<float> value = interpolate(spheres, sample);
    const float own = optical_depth(sample, value);
    if (n < last) depth_before = larger(depth_before - own, 0.0f);
    const float before = expf(-depth_before);
    const Texel<float> gradient = value_gradient(sample, value, by_rgb, -expm1f(-own) * before, after, backward);
    after = before;
    if (gradient.any()) scatter(spheres, sample, gradient, grad_texels, touched);
  }
}

}  // namespace

void shade_layers(const SphereLayers<float>& spheres, const Rays<float>& rays, const bool* seen, float* rgb,
                  Stream stream) {
  if (rays.count == 0) return;
  shade_kernel<<<blocks_for_rays(rays.count), kRaysPerBlock, 0, stream>>>(spheres, rays, seen, rgb);
}

void shade_layers_gradients(const SphereLayers<float>& spheres, const Rays<float>& rays, const float* grad_rgb,
                            Texel<float>* grad_texels, bool* touched, Stream stream) {
  if (rays.count == 0) return;
  gradient_kernel<<<blocks_for_rays(rays.count), kRaysPerBlock, 0, stream>>>(spheres, rays, grad_rgb, grad_texels,
                                                                             touched);
}

}  // namespace plenoxel::cuda
