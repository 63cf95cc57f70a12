// Gradients by density and coefficients, an octet of lanes a ray. A ray is walked twice: the first pass renders it, the
// second knows from the first what lies behind every sample. All a ray gives to a voxel is summed in registers while the
// voxel is a corner of consecutive cells, then added to memory once.
#include "../loss.h"
#include "kernels.h"
#include "shading.cuh"

namespace plenoxel::cuda {
namespace {

struct GradientRows {
  float* density;  // [V]
  float* sh;       // [V, 27]
  bool* touched;   // [V] or null
};

template <bool kImage>
struct GradientVisitor {
  const Octet& octet;
  const RenderOptions<float>& options;
  const Ray<float>& ray;
  const RayGradient<float>& gradient;
  const GradientRows& out;
  CornerColors<kImage> corners;
  float behind;  // sum of dL/dw w over the samples from here on, and what the background gives
  Compositor<float> compositor;
  float by_color[3] = {}, by_sigma = 0, by_weight = 0;  // of the voxel at this lane's corner
  bool pending = false;                                 // it has had a sample
  int32_t row = -1;

  __device__ __forceinline__ void enter(int32_t next, const Move& move) {
    add_rows(pending && row >= 0 && !move.kept);
    carry(move);
    row = next;
    corners.enter(octet, next, move);
  }

  __device__ __forceinline__ bool sample(float t, float sigma, float corner_weight) {
    const float optical_length = options.step_size * ray.delta;
    const float weight = compositor.pass(sigma * optical_length, options.stop_thresh);
    const float distance = t * ray.delta, part = weight * corner_weight;
    float by_sample = gradient.depth * distance + (distance < gradient.free_until ? gradient.free_space : 0);
    float of_corner = kImage ? corners.image : 0;
    for (int c = 0; c < 3; ++c) {
      bool counts = true;
      if (corners.may_clamp) {
        const float color = octet.sum(corner_weight * corners.color[c]);
        counts = color >= 0;
        by_sample += gradient.rgb[c] * larger(color, 0.f);
      } else {
        of_corner = __fmaf_rn(gradient.rgb[c], corners.color[c], of_corner);
      }
      if (counts) by_color[c] += part;
    }
    if (kImage || !corners.may_clamp) by_sample += octet.sum(corner_weight * of_corner);
    behind -= by_sample * weight;
    const float by_tau = by_sample * compositor.transmittance - behind;
    by_sigma += corner_weight * (optical_length * by_tau + gradient.sparsity * sparsity_gradient(sigma));
    by_weight += part;
    pending = true;
    return !compositor.stopped;
  }

  __device__ __forceinline__ void leave() { add_rows(pending && row >= 0); }

  // The sums of a voxel follow it to the corner it has in the next cell.
  __device__ __forceinline__ void carry(const Move& move) {
    const bool moved = move.from >= 0;
    const int from = moved ? move.from : 0;
    const auto take = [&](float& sum) {
      const float before = octet.from(sum, from);
      sum = moved ? before : 0;
    };
    for (float& sum : by_color) take(sum);
    take(by_sigma);
    if (kImage) take(by_weight);
    const bool waited = octet.from(int(pending), from);
    pending = moved && waited;
  }

  __device__ __forceinline__ void add_rows(bool mine) {
    if (mine) {
      atomicAdd(out.density + row, by_sigma);
      if (out.touched) out.touched[row] = true;
    }
    for_corners(octet.ballot(mine), [&](int corner) {
      float* sh = out.sh + int64_t(octet.from(row, corner)) * kCoefficients + octet.lane;
      float color[3];
      for (int c = 0; c < 3; ++c) color[c] = octet.from(by_color[c], corner) * gradient.rgb[c];
      const float weight = kImage ? octet.from(by_weight, corner) : 0;
      const float of_part[kRowParts] = {color[0], octet.lane == 0 ? color[0] : color[1],
                                        octet.lane < 2 ? color[1] : color[2], color[2]};  // see channel_of
      for (int m = 0; m < kRowParts; ++m) {
        float value = of_part[m] * corners.basis.value[m];
        if (kImage) value = __fmaf_rn(weight, corners.cotangent.value[m], value);
        if (m * kOctet + octet.lane < kCoefficients) atomicAdd(sh + m * kOctet, value);
      }
    });
  }
};

__device__ __forceinline__ Track track_of(const Trace& trace, int64_t count, int64_t i) {
  const int cells = __ldg(trace.counts + i);
  return {trace.entries + i, count, min(cells, kTraceCells), cells <= kTraceCells};
}

// The second pass, given the first.
template <bool kImage>
__device__ __forceinline__ void walk_gradient(const Grid<float>& grid, int scene, const RenderOptions<float>& options,
                                              const ForwardVisitor<true, false, kImage>& forward,
                                              const RayGradient<float>& gradient, const GradientRows& out,
                                              const Track& track) {
  float behind = gradient.depth * forward.depth + gradient.free_space * forward.free_weight + forward.image_product +
                 gradient.transmittance * forward.compositor.remaining() + gradient.log_transmittance;
  for (int c = 0; c < 3; ++c) behind += gradient.rgb[c] * forward.rgb[c];
  GradientVisitor<kImage> visitor{forward.octet, options, forward.ray, gradient, out,
                                  {grid.sh, forward.corners.basis, forward.corners.cotangent}, behind};
  march(grid, scene, forward.ray, options, forward.octet, track, visitor);
}

__global__ void __launch_bounds__(kThreads)
    fit_kernel(Grid<float> grid, Rays<float> rays, RenderOptions<float> options, FitLoss<float> loss, float* rgb,
               GradientRows out, Trace trace, int per_warp) {
  const int64_t i = ray_of_thread(per_warp);
  if (i < 0 || i >= rays.count) return;
  const Octet octet = Octet::mine();
  const Ray<float> ray = make_ray(grid.size, options, rays.origins + 3 * i, rays.directions + 3 * i);
  const int scene = rays.scene ? rays.scene[i] : 0;
  const Track track = track_of(trace, rays.count, i);
  ForwardVisitor<true, false> forward{octet, options, ray, {grid.sh, basis_part(rays.directions + 3 * i, octet.lane)},
                                      free_until(loss, i)};
  march(grid, scene, ray, options, octet, track, forward);
  if (octet.lane < 3) rgb[3 * i + octet.lane] = octet.lane == 0   ? forward.rgb[0]
                                                : octet.lane == 1 ? forward.rgb[1]
                                                                  : forward.rgb[2];
  const RayGradient<float> gradient =
      loss_gradient(loss, forward.compositor, forward.rgb, forward.depth, rays.count, i);
  walk_gradient(grid, scene, options, forward, gradient, out, track);
}

template <bool kImage>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Grid<float> grid, Rays<float> rays, RenderOptions<float> options, Image<float> cotangent,
                    GradientRows out, Trace trace, int per_warp) {
  const int64_t i = ray_of_thread(per_warp);
  if (i < 0 || i >= rays.count) return;
  const Octet octet = Octet::mine();
  const Ray<float> ray = make_ray(grid.size, options, rays.origins + 3 * i, rays.directions + 3 * i);
  const int scene = rays.scene ? rays.scene[i] : 0;
  const Track track = track_of(trace, rays.count, i);
  ForwardVisitor<true, false, kImage> forward{octet, options, ray, {grid.sh, basis_part(rays.directions + 3 * i, octet.lane)}};
  RayGradient<float> gradient;
  if (kImage) {
    const RowPart part = RowPart::read(cotangent.sh + i * kCoefficients, octet.lane);
    forward.corners.cotangent = part;
    if (options.sh_background) {
      float sum = 0;
      for (const float value : part.value) sum += value;
      gradient.transmittance += options.background_brightness * octet.sum(sum);
    }
  }
  if (cotangent.rgb)
    for (int c = 0; c < 3; ++c) gradient.rgb[c] = cotangent.rgb[3 * i + c];
  if (cotangent.depth) gradient.depth = cotangent.depth[i];
  if (cotangent.alpha) gradient.transmittance -= cotangent.alpha[i];
  march(grid, scene, ray, options, octet, track, forward);
  walk_gradient(grid, scene, options, forward, gradient, out, track);
}

// Octets of a warp that differ in what they do wait for each other; few rays leave room for more warps.
int rays_per_warp(int64_t count) { return count <= 1 << 14 ? 2 : 4; }

}  // namespace

void fit_gradients(const Grid<float>& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                   const FitLoss<float>& loss, float* rgb, float* grad_density, float* grad_sh, bool* touched,
                   const Trace& trace, Stream stream) {
  if (rays.count == 0) return;
  trace_rays(grid, rays, options, trace, stream);
  const int per_warp = rays_per_warp(rays.count);
  const unsigned blocks = blocks_for((rays.count + per_warp - 1) / per_warp * 32);
  fit_kernel<<<blocks, kThreads, 0, stream>>>(grid, rays, options, loss, rgb,
                                                                       {grad_density, grad_sh, touched}, trace, per_warp);
}

void render_backward(const Grid<float>& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                     const Image<float>& cotangent, float* grad_density, float* grad_sh, const Trace& trace,
                     Stream stream) {
  if (rays.count == 0) return;
  trace_rays(grid, rays, options, trace, stream);
  const int per_warp = rays_per_warp(rays.count);
  const unsigned blocks = blocks_for((rays.count + per_warp - 1) / per_warp * 32);
  const auto kernel = cotangent.sh ? backward_kernel<true> : backward_kernel<false>;
  kernel<<<blocks, kThreads, 0, stream>>>(grid, rays, options, cotangent,
                                                                   {grad_density, grad_sh, nullptr}, trace, per_warp);
}

}  // namespace plenoxel::cuda
