// Ops on rays: checks tensors, unwraps them, calls the backends. Only the binding*.cpp files see torch.
#include <ATen/ops/zeros_like.h>

#include "scene_tensors.h"

namespace {

using namespace plenoxel::binding;

std::tuple<Tensor, Tensor, Tensor, Tensor> render_rays(const Tensor& links, const Tensor& distance, const Tensor& density,
                                                       const Tensor& sh, const Tensor& origins, const Tensor& directions,
                                                       const OptionalTensor& scene_index, Numbers center, Numbers radius,
                                                       Numbers options, int64_t outputs, int64_t image_width) {
  const OptionalTensor coefficients = sh;
  const Scene scene{links, distance, density, coefficients, origins, directions, scene_index, center, radius, options};
  scene.check_all();
  check_outputs(outputs);
  TORCH_CHECK(image_width >= 0, "image_width must not be negative, got ", image_width);
  const Tensor rgb = empty_for_rays(origins, 3, outputs & kRgb), image = empty_for_rays(origins, 27, outputs & kSh),
               depth = empty_for_rays(origins, 0, outputs & kDepth), alpha = empty_for_rays(origins, 0, outputs & kAlpha);
  dispatch(density.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const plenoxel::Image<T> out{outputs & kRgb ? data<T>(rgb) : nullptr, outputs & kSh ? data<T>(image) : nullptr,
                                 outputs & kDepth ? data<T>(depth) : nullptr, outputs & kAlpha ? data<T>(alpha) : nullptr};
    plenoxel::Rays<T> rays = scene.rays<T>();
    rays.width = image_width;
    PLENOXEL_RUN(density, render, scene.grid<T>(), rays, make_options<T>(options), out);
  });
  return {rgb, image, depth, alpha};
}

std::tuple<Tensor, Tensor> render_rays_backward(const Tensor& links, const Tensor& distance, const Tensor& density,
                                                const Tensor& sh, const Tensor& origins, const Tensor& directions,
                                                const OptionalTensor& scene_index, Numbers center, Numbers radius,
                                                Numbers options, const OptionalTensor& grad_rgb,
                                                const OptionalTensor& grad_sh, const OptionalTensor& grad_depth,
                                                const OptionalTensor& grad_alpha) {
  const OptionalTensor coefficients = sh;
  const Scene scene{links, distance, density, coefficients, origins, directions, scene_index, center, radius, options};
  scene.check_all();
  const at::ScalarType type = density.scalar_type();
  if (grad_rgb) check(*grad_rgb, "grad_rgb", type, {origins.size(0), 3});
  if (grad_sh) check(*grad_sh, "grad_sh", type, {origins.size(0), plenoxel::kCoefficients});
  if (grad_depth) check(*grad_depth, "grad_depth", type, {origins.size(0)});
  if (grad_alpha) check(*grad_alpha, "grad_alpha", type, {origins.size(0)});
  check_device(density, {grad_rgb, grad_sh, grad_depth, grad_alpha});
  const Tensor by_density = at::zeros_like(density), by_sh = at::zeros_like(sh);
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    const plenoxel::Image<T> cotangent{data<T>(grad_rgb), data<T>(grad_sh), data<T>(grad_depth), data<T>(grad_alpha)};
    PLENOXEL_RUN(density, render_backward, scene.grid<T>(), scene.rays<T>(), make_options<T>(options), cotangent,
        data<T>(by_density), data<T>(by_sh));
  });
  return {by_density, by_sh};
}

void max_weight(const Tensor& links, const Tensor& distance, const Tensor& density, const Tensor& origins,
                const Tensor& directions, const OptionalTensor& scene_index, Numbers center, Numbers radius,
                Numbers options, const Tensor& weights) {
  const OptionalTensor none;
  const Scene scene{links, distance, density, none, origins, directions, scene_index, center, radius, options};
  scene.check_all();
  check(weights, "weights", density.scalar_type(), density.sizes());
  check_device(density, {weights});
  dispatch(density.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    PLENOXEL_RUN(density, max_weight, scene.grid<T>(), scene.rays<T>(), make_options<T>(options), data<T>(weights));
  });
}

// losses: beta_lambda, sparsity_lambda, depth_lambda, free_space_lambda, free_space_margin
Tensor fit_gradients(const Tensor& links, const Tensor& distance, const Tensor& density, const Tensor& sh,
                     const Tensor& origins, const Tensor& directions, const OptionalTensor& scene_index, Numbers center,
                     Numbers radius, Numbers options, const Tensor& target_rgb, const OptionalTensor& ray_weights,
                     const OptionalTensor& depth_target, const OptionalTensor& background, Numbers losses,
                     const Tensor& grad_density, const Tensor& grad_sh, const OptionalTensor& touched,
                     const OptionalTensor& transmittance) {
  const OptionalTensor coefficients = sh;
  const Scene scene{links, distance, density, coefficients, origins, directions, scene_index, center, radius, options};
  scene.check_all();
  const at::ScalarType type = density.scalar_type();
  check(target_rgb, "target_rgb", type, {origins.size(0), 3});
  if (ray_weights) check(*ray_weights, "ray_weights", type, {origins.size(0), 3});
  if (depth_target) check(*depth_target, "depth_target", type, {origins.size(0)});
  if (background) check(*background, "background", type, {origins.size(0), 3});
  if (transmittance) check(*transmittance, "transmittance", type, {origins.size(0)});
  check(grad_density, "grad_density", type, density.sizes());
  check(grad_sh, "grad_sh", type, sh.sizes());
  if (touched) check(*touched, "touched", at::kBool, density.sizes());
  check_device(density, {target_rgb, ray_weights, depth_target, background, grad_density, grad_sh, touched, transmittance});
  TORCH_CHECK(losses.size() == 5, "losses has 5 numbers");
  for (const double number : losses) check_finite(number, "losses");
  const Tensor rgb = empty_for_rays(origins, 3, true);
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    const plenoxel::FitLoss<T> loss{data<T>(target_rgb), data<T>(ray_weights), data<T>(depth_target), T(losses[0]),
                                    T(losses[1]),        T(losses[2]),         T(losses[3]),          T(losses[4]),
                                    data<T>(background), data<T>(transmittance)};
    PLENOXEL_RUN(density, fit_gradients, scene.grid<T>(), scene.rays<T>(), make_options<T>(options), loss, data<T>(rgb),
        data<T>(grad_density), data<T>(grad_sh), data<bool>(touched));
  });
  return rgb;
}

}  // namespace

TORCH_LIBRARY(plenoxel, library) {
  library.def("render_rays(" PLENOXEL_GRID ", Tensor sh, " PLENOXEL_RAYS
              ", int outputs, int image_width=0) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def("render_rays_backward(" PLENOXEL_GRID ", Tensor sh, " PLENOXEL_RAYS
              ", Tensor? grad_rgb, Tensor? grad_sh, Tensor? grad_depth, Tensor? grad_alpha)"
              " -> (Tensor, Tensor)");
  library.def("max_weight(" PLENOXEL_GRID ", " PLENOXEL_RAYS ", Tensor(a!) weights) -> ()");
  library.def("fit_gradients(" PLENOXEL_GRID ", Tensor sh, " PLENOXEL_RAYS
              ", Tensor target_rgb, Tensor? ray_weights, Tensor? depth_target, Tensor? background,"
              " float[] losses, Tensor(a!) grad_density, Tensor(b!) grad_sh, Tensor(c!)? touched, Tensor(d!)? transmittance)"
              " -> Tensor");
}

namespace {

void implement(torch::Library& library) {
  library.impl("render_rays", &render_rays);
  library.impl("render_rays_backward", &render_rays_backward);
  library.impl("max_weight", &max_weight);
  library.impl("fit_gradients", &fit_gradients);
}

}  // namespace

TORCH_LIBRARY_IMPL(plenoxel, CPU, library) { implement(library); }
#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(plenoxel, CUDA, library) { implement(library); }
#endif
