// The one file that sees torch: checks tensors, unwraps them, calls the drivers, and registers the ops.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

#include "cpu.h"

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Numbers = c10::ArrayRef<double>;

enum Output { kRgb = 1, kSh = 2, kDepth = 4, kAlpha = 8 };  // the bits of `outputs`

void check(const Tensor& tensor, const char* name, at::ScalarType type, at::IntArrayRef shape) {
  TORCH_CHECK(tensor.is_contiguous(), name, " must be contiguous");
  TORCH_CHECK(tensor.scalar_type() == type, name, " must be ", type, ", got ", tensor.scalar_type());
  TORCH_CHECK(tensor.dim() == int64_t(shape.size()), name, " must have ", shape.size(), " dimensions, got ", tensor.dim());
  for (size_t i = 0; i < shape.size(); ++i)
    TORCH_CHECK(shape[i] < 0 || tensor.size(i) == shape[i], name, " must have size ", shape[i], " in dimension ", i,
                ", got ", tensor.size(i));
}

template <typename T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

template <typename T>
T* data(const OptionalTensor& tensor) {
  return tensor ? data<T>(*tensor) : nullptr;
}

template <typename Function>
auto dispatch(at::ScalarType type, Function&& function) {
  if (type == at::kDouble) return function(double());
  TORCH_CHECK(type == at::kFloat, "density must be float32 or float64, got ", type);
  return function(float());
}

void check_links(const Tensor& links) {
  check(links, "links", at::kInt, links.dim() == 4 ? at::IntArrayRef({-1, -1, -1, -1}) : at::IntArrayRef({-1, -1, -1}));
  for (int axis = 1; axis <= 3; ++axis)
    TORCH_CHECK(links.size(-axis) >= 2, "a grid must have at least 2 voxels per axis, links have ", links.sizes());
}

// The tensors and numbers that every ray op is given, in the order of its schema.
struct Scene {
  const Tensor &links, &distance, &density;
  const OptionalTensor& sh;
  const Tensor &origins, &directions;
  const OptionalTensor& scene_index;
  Numbers center, radius, options;  // options: step_size, sigma_thresh, stop_thresh, near_clip, background_brightness
  bool sh_background;

  void check_all() const {
    check_links(links);
    check(distance, "distance", at::kByte, links.sizes());
    const at::ScalarType type = density.scalar_type();
    check(density, "density", type, {-1});
    if (sh) check(*sh, "sh", type, {density.size(0), plenoxel::kCoefficients});
    check(origins, "origins", type, {-1, 3});
    check(directions, "directions", type, {origins.size(0), 3});
    if (scene_index) check(*scene_index, "scene_index", at::kInt, {origins.size(0)});
    TORCH_CHECK(center.size() == 3 && radius.size() == 3 && options.size() == 5, "center and radius have 3 numbers each");
    TORCH_CHECK(options[0] > 0, "step_size must be positive, got ", options[0]);
    TORCH_CHECK(options[1] >= 0, "sigma_thresh must not be negative, got ", options[1]);
    TORCH_CHECK(options[3] >= 0, "near_clip must not be negative, got ", options[3]);
  }
  template <typename T>
  plenoxel::Grid<T> grid() const {
    const int64_t last = links.dim();
    return {data<int32_t>(links), data<uint8_t>(distance), data<T>(density), data<T>(sh),
            {int(links.size(last - 3)), int(links.size(last - 2)), int(links.size(last - 1))}};
  }
  template <typename T>
  plenoxel::Rays<T> rays() const {
    return {data<T>(origins), data<T>(directions), data<int32_t>(scene_index), origins.size(0)};
  }
  template <typename T>
  plenoxel::RenderOptions<T> render_options() const {
    return {{T(center[0]), T(center[1]), T(center[2])},
            {T(radius[0]), T(radius[1]), T(radius[2])},
            T(options[0]),
            T(options[1]),
            T(options[2]),
            T(options[3]),
            T(options[4]),
            sh_background};
  }
};

Tensor empty_for_rays(const Tensor& origins, int64_t channels, bool wanted) {
  if (!wanted) return at::empty({0}, origins.options());
  return channels ? at::empty({origins.size(0), channels}, origins.options())
                  : at::empty({origins.size(0)}, origins.options());
}

Tensor cell_distance(const Tensor& links) {
  check_links(links);
  Tensor distance = at::empty(links.sizes(), links.options().dtype(at::kByte));
  const int64_t last = links.dim();
  const int size[3] = {int(links.size(last - 3)), int(links.size(last - 2)), int(links.size(last - 1))};
  plenoxel::cpu::cell_distance(data<int32_t>(links), last == 4 ? links.size(0) : 1, size, data<uint8_t>(distance),
                               at::get_num_threads());
  return distance;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> render_rays(const Tensor& links, const Tensor& distance, const Tensor& density,
                                                       const Tensor& sh, const Tensor& origins, const Tensor& directions,
                                                       const OptionalTensor& scene_index, Numbers center, Numbers radius,
                                                       Numbers options, bool sh_background, int64_t outputs) {
  const OptionalTensor coefficients = sh;
  const Scene scene{links,       distance, density, coefficients, origins,      directions,
                    scene_index, center,   radius,  options,      sh_background};
  scene.check_all();
  const Tensor rgb = empty_for_rays(origins, 3, outputs & kRgb), image = empty_for_rays(origins, 27, outputs & kSh),
               depth = empty_for_rays(origins, 0, outputs & kDepth), alpha = empty_for_rays(origins, 0, outputs & kAlpha);
  dispatch(density.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const plenoxel::Image<T> out{outputs & kRgb ? data<T>(rgb) : nullptr, outputs & kSh ? data<T>(image) : nullptr,
                                 outputs & kDepth ? data<T>(depth) : nullptr, outputs & kAlpha ? data<T>(alpha) : nullptr};
    plenoxel::cpu::render(scene.grid<T>(), scene.rays<T>(), scene.render_options<T>(), out, at::get_num_threads());
  });
  return {rgb, image, depth, alpha};
}

std::tuple<Tensor, Tensor> render_rays_backward(const Tensor& links, const Tensor& distance, const Tensor& density,
                                                const Tensor& sh, const Tensor& origins, const Tensor& directions,
                                                const OptionalTensor& scene_index, Numbers center, Numbers radius,
                                                Numbers options, bool sh_background, const OptionalTensor& grad_rgb,
                                                const OptionalTensor& grad_sh, const OptionalTensor& grad_depth,
                                                const OptionalTensor& grad_alpha) {
  const OptionalTensor coefficients = sh;
  const Scene scene{links,       distance, density, coefficients, origins,      directions,
                    scene_index, center,   radius,  options,      sh_background};
  scene.check_all();
  const at::ScalarType type = density.scalar_type();
  if (grad_rgb) check(*grad_rgb, "grad_rgb", type, {origins.size(0), 3});
  if (grad_sh) check(*grad_sh, "grad_sh", type, {origins.size(0), plenoxel::kCoefficients});
  if (grad_depth) check(*grad_depth, "grad_depth", type, {origins.size(0)});
  if (grad_alpha) check(*grad_alpha, "grad_alpha", type, {origins.size(0)});
  const Tensor by_density = at::zeros_like(density), by_sh = at::zeros_like(sh);
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    const plenoxel::Image<T> cotangent{data<T>(grad_rgb), data<T>(grad_sh), data<T>(grad_depth), data<T>(grad_alpha)};
    plenoxel::cpu::render_backward(scene.grid<T>(), scene.rays<T>(), scene.render_options<T>(), cotangent,
                                   data<T>(by_density), data<T>(by_sh), at::get_num_threads());
  });
  return {by_density, by_sh};
}

Tensor first_surface_depth(const Tensor& links, const Tensor& distance, const Tensor& density, const Tensor& origins,
                           const Tensor& directions, const OptionalTensor& scene_index, Numbers center, Numbers radius,
                           Numbers options) {
  const OptionalTensor none;
  const Scene scene{links, distance, density, none, origins, directions, scene_index, center, radius, options, false};
  scene.check_all();
  const Tensor depth = empty_for_rays(origins, 0, true);
  dispatch(density.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    plenoxel::cpu::first_surface_depth(scene.grid<T>(), scene.rays<T>(), scene.render_options<T>(), data<T>(depth),
                                       at::get_num_threads());
  });
  return depth;
}

void max_weight(const Tensor& links, const Tensor& distance, const Tensor& density, const Tensor& origins,
                const Tensor& directions, const OptionalTensor& scene_index, Numbers center, Numbers radius,
                Numbers options, const Tensor& weights) {
  const OptionalTensor none;
  const Scene scene{links, distance, density, none, origins, directions, scene_index, center, radius, options, false};
  scene.check_all();
  check(weights, "weights", density.scalar_type(), density.sizes());
  dispatch(density.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    plenoxel::cpu::max_weight(scene.grid<T>(), scene.rays<T>(), scene.render_options<T>(), data<T>(weights),
                              at::get_num_threads());
  });
}

// losses: beta_lambda, sparsity_lambda, depth_lambda, free_space_lambda, free_space_margin
Tensor fit_gradients(const Tensor& links, const Tensor& distance, const Tensor& density, const Tensor& sh,
                     const Tensor& origins, const Tensor& directions, const OptionalTensor& scene_index, Numbers center,
                     Numbers radius, Numbers options, const Tensor& target_rgb, const OptionalTensor& ray_weights,
                     const OptionalTensor& depth_target, Numbers losses, const Tensor& grad_density, const Tensor& grad_sh,
                     const OptionalTensor& touched) {
  const OptionalTensor coefficients = sh;
  const Scene scene{links, distance, density, coefficients, origins, directions, scene_index, center, radius, options, false};
  scene.check_all();
  const at::ScalarType type = density.scalar_type();
  check(target_rgb, "target_rgb", type, {origins.size(0), 3});
  if (ray_weights) check(*ray_weights, "ray_weights", type, {origins.size(0), 3});
  if (depth_target) check(*depth_target, "depth_target", type, {origins.size(0)});
  check(grad_density, "grad_density", type, density.sizes());
  check(grad_sh, "grad_sh", type, sh.sizes());
  if (touched) check(*touched, "touched", at::kBool, density.sizes());
  TORCH_CHECK(losses.size() == 5, "losses has 5 numbers");
  const Tensor rgb = empty_for_rays(origins, 3, true);
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    const plenoxel::FitLoss<T> loss{data<T>(target_rgb), data<T>(ray_weights), data<T>(depth_target), T(losses[0]),
                                    T(losses[1]),        T(losses[2]),         T(losses[3]),          T(losses[4])};
    plenoxel::cpu::fit_gradients(scene.grid<T>(), scene.rays<T>(), scene.render_options<T>(), loss, data<T>(rgb),
                                 data<T>(grad_density), data<T>(grad_sh), data<bool>(touched), at::get_num_threads());
  });
  return rgb;
}

void tv_gradients(const Tensor& links, const Tensor& values, const Tensor& grad, int64_t first_cell, int64_t num_cells,
                  int64_t channel_begin, int64_t channel_end, double scale, bool ignore_edge, const OptionalTensor& touched) {
  check_links(links);
  TORCH_CHECK(links.dim() == 3, "links must have 3 dimensions, got ", links.dim());
  const at::ScalarType type = values.scalar_type();
  check(values, "data", type, {-1, -1});
  check(grad, "grad", type, values.sizes());
  if (touched) check(*touched, "touched", at::kBool, {values.size(0)});
  TORCH_CHECK(0 <= channel_begin && channel_begin <= channel_end && channel_end <= values.size(1), "channels [",
              channel_begin, ", ", channel_end, ") are not among the ", values.size(1), " of data");
  TORCH_CHECK(0 <= first_cell && 0 <= num_cells && first_cell + num_cells <= links.numel(), "cells [", first_cell, ", ",
              first_cell + num_cells, ") are not among the ", links.numel(), " of links");
  const int size[3] = {int(links.size(0)), int(links.size(1)), int(links.size(2))};
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    plenoxel::cpu::total_variation(data<int32_t>(links), size, data<T>(values), int(values.size(1)), int(channel_begin),
                                   int(channel_end), first_cell, num_cells, T(scale), ignore_edge, data<T>(grad),
                                   data<bool>(touched), at::get_num_threads());
  });
}

void rmsprop_step(const Tensor& param, const Tensor& grad, const Tensor& square_avg, double lr, double beta, double epsilon,
                  const OptionalTensor& touched) {
  const at::ScalarType type = param.scalar_type();
  TORCH_CHECK(param.dim() == 1 || param.dim() == 2, "param must be [V] or [V, C], got ", param.sizes());
  check(param, "param", type, param.sizes());
  check(grad, "grad", type, param.sizes());
  check(square_avg, "square_avg", type, param.sizes());
  if (touched) check(*touched, "touched", at::kBool, {param.size(0)});
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    plenoxel::cpu::rmsprop(data<T>(param), data<T>(grad), data<T>(square_avg), data<bool>(touched), param.size(0),
                           param.dim() == 2 ? int(param.size(1)) : 1, T(lr), T(beta), T(epsilon), at::get_num_threads());
  });
}

std::tuple<Tensor, Tensor> sample_grid(const Tensor& links, const Tensor& density, const Tensor& sh, const Tensor& points) {
  check_links(links);
  TORCH_CHECK(links.dim() == 3, "links must have 3 dimensions, got ", links.dim());
  const at::ScalarType type = density.scalar_type();
  check(density, "density", type, {-1});
  check(sh, "sh", type, {density.size(0), plenoxel::kCoefficients});
  check(points, "points", type, {-1, 3});
  const Tensor sigma = empty_for_rays(points, 0, true), coefficients = empty_for_rays(points, plenoxel::kCoefficients, true);
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    const plenoxel::Grid<T> grid{data<int32_t>(links), nullptr, data<T>(density), data<T>(sh),
                                 {int(links.size(0)), int(links.size(1)), int(links.size(2))}};
    plenoxel::cpu::sample_grid(grid, data<T>(points), points.size(0), data<T>(sigma), data<T>(coefficients),
                               at::get_num_threads());
  });
  return {sigma, coefficients};
}

}  // namespace

#define PLENOXEL_GRID "Tensor links, Tensor distance, Tensor density"
#define PLENOXEL_RAYS                                                                                               \
  "Tensor origins, Tensor directions, Tensor? scene_index, float[] center, float[] radius, float[] options"

TORCH_LIBRARY(plenoxel, library) {
  library.def("cell_distance(Tensor links) -> Tensor");
  library.def("render_rays(" PLENOXEL_GRID ", Tensor sh, " PLENOXEL_RAYS
              ", bool sh_background, int outputs) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def("render_rays_backward(" PLENOXEL_GRID ", Tensor sh, " PLENOXEL_RAYS
              ", bool sh_background, Tensor? grad_rgb, Tensor? grad_sh, Tensor? grad_depth, Tensor? grad_alpha)"
              " -> (Tensor, Tensor)");
  library.def("first_surface_depth(" PLENOXEL_GRID ", " PLENOXEL_RAYS ") -> Tensor");
  library.def("max_weight(" PLENOXEL_GRID ", " PLENOXEL_RAYS ", Tensor(a!) weights) -> ()");
  library.def("fit_gradients(" PLENOXEL_GRID ", Tensor sh, " PLENOXEL_RAYS
              ", Tensor target_rgb, Tensor? ray_weights, Tensor? depth_target, float[] losses,"
              " Tensor(a!) grad_density, Tensor(b!) grad_sh, Tensor(c!)? touched) -> Tensor");
  library.def("tv_gradients(Tensor links, Tensor data, Tensor(a!) grad, int first_cell, int num_cells,"
              " int channel_begin, int channel_end, float scale, bool ignore_edge, Tensor(b!)? touched) -> ()");
  library.def("rmsprop_step(Tensor(a!) param, Tensor(b!) grad, Tensor(c!) square_avg, float lr, float beta,"
              " float epsilon, Tensor? touched) -> ()");
  library.def("sample_grid(Tensor links, Tensor density, Tensor sh, Tensor points) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(plenoxel, CPU, library) {
  library.impl("cell_distance", &cell_distance);
  library.impl("render_rays", &render_rays);
  library.impl("render_rays_backward", &render_rays_backward);
  library.impl("first_surface_depth", &first_surface_depth);
  library.impl("max_weight", &max_weight);
  library.impl("fit_gradients", &fit_gradients);
  library.impl("tv_gradients", &tv_gradients);
  library.impl("rmsprop_step", &rmsprop_step);
  library.impl("sample_grid", &sample_grid);
}
