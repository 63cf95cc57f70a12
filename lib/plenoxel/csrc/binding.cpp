// Checks tensors, unwraps them, calls the drivers, and registers the ops. With binding_packed.cpp the only file that sees
// torch.
#include <ATen/Parallel.h>
#include <ATen/ops/zeros_like.h>

#include <type_traits>

#include "binding.h"
#include "cpu.h"
#ifdef WITH_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/kernels.h"
#endif

// In a function of the numbers' type T: plenoxel::cpu::NAME(..., threads), or plenoxel::cuda::NAME(..., stream) if `tensor`
// is on a GPU. PLENOXEL_RUN_TRACED hands the latter scratch for a trace of the rays, too.
#ifdef WITH_CUDA
#define PLENOXEL_RUN_EITHER(tensor, name, cpu_arguments, cuda_arguments) \
  do {                                                                   \
    if (!(tensor).is_cuda()) {                                           \
      plenoxel::cpu::name cpu_arguments;                                 \
    } else if constexpr (std::is_same_v<T, float>) {                     \
      const c10::cuda::CUDAGuard guard((tensor).device());               \
      plenoxel::cuda::name cuda_arguments;                               \
      C10_CUDA_KERNEL_LAUNCH_CHECK();                                    \
    } else {                                                             \
      TORCH_CHECK(false, #name ": float64 runs on the CPU only");        \
    }                                                                    \
  } while (false)
#else
#define PLENOXEL_RUN_EITHER(tensor, name, cpu_arguments, cuda_arguments) plenoxel::cpu::name cpu_arguments
#endif
#define PLENOXEL_RUN(tensor, name, ...) \
  PLENOXEL_RUN_EITHER(tensor, name, (__VA_ARGS__, at::get_num_threads()), (__VA_ARGS__, stream()))
#define PLENOXEL_RUN_TRACED(tensor, name, ...)                            \
  PLENOXEL_RUN_EITHER(tensor, name, (__VA_ARGS__, at::get_num_threads()), \
                      (__VA_ARGS__, TraceMemory(origins).get(), stream()))

namespace {

using namespace plenoxel::binding;

#ifdef WITH_CUDA
plenoxel::cuda::Stream stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

struct TraceMemory {
  Tensor entries, counts;

  explicit TraceMemory(const Tensor& origins)
      : entries(at::empty({plenoxel::cuda::kTraceCells, origins.size(0)}, origins.options())),
        counts(at::empty({origins.size(0)}, origins.options().dtype(at::kInt))) {}
  plenoxel::cuda::Trace get() const { return {data<float>(entries), data<int32_t>(counts)}; }
};
#endif

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
    check_device(density, {links, distance, sh, origins, directions, scene_index});
    check_options(center, radius, options);
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
    return make_options<T>(center, radius, options, sh_background);
  }
};

Tensor cell_distance(const Tensor& links) {
  check_links(links);
  Tensor distance = at::empty(links.sizes(), links.options().dtype(at::kByte));
  const int64_t last = links.dim();
  const int size[3] = {int(links.size(last - 3)), int(links.size(last - 2)), int(links.size(last - 1))};
  const int64_t scenes = last == 4 ? links.size(0) : 1;
#ifdef WITH_CUDA
  if (links.is_cuda()) {
    const c10::cuda::CUDAGuard guard(links.device());
    const Tensor scratch = at::empty(distance.sizes(), distance.options());
    plenoxel::cuda::cell_distance(data<int32_t>(links), scenes, size, data<uint8_t>(distance), data<uint8_t>(scratch),
                                  stream());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return distance;
  }
#endif
  plenoxel::cpu::cell_distance(data<int32_t>(links), scenes, size, data<uint8_t>(distance), at::get_num_threads());
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
    PLENOXEL_RUN(density, render, scene.grid<T>(), scene.rays<T>(), scene.render_options<T>(), out);
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
  check_device(density, {grad_rgb, grad_sh, grad_depth, grad_alpha});
  const Tensor by_density = at::zeros_like(density), by_sh = at::zeros_like(sh);
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    const plenoxel::Image<T> cotangent{data<T>(grad_rgb), data<T>(grad_sh), data<T>(grad_depth), data<T>(grad_alpha)};
    PLENOXEL_RUN_TRACED(density, render_backward, scene.grid<T>(), scene.rays<T>(), scene.render_options<T>(), cotangent,
        data<T>(by_density), data<T>(by_sh));
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
    PLENOXEL_RUN(density, first_surface_depth, scene.grid<T>(), scene.rays<T>(), scene.render_options<T>(), data<T>(depth));
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
  check_device(density, {weights});
  dispatch(density.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    PLENOXEL_RUN(density, max_weight, scene.grid<T>(), scene.rays<T>(), scene.render_options<T>(), data<T>(weights));
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
  check_device(density, {target_rgb, ray_weights, depth_target, grad_density, grad_sh, touched});
  TORCH_CHECK(losses.size() == 5, "losses has 5 numbers");
  const Tensor rgb = empty_for_rays(origins, 3, true);
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    const plenoxel::FitLoss<T> loss{data<T>(target_rgb), data<T>(ray_weights), data<T>(depth_target), T(losses[0]),
                                    T(losses[1]),        T(losses[2]),         T(losses[3]),          T(losses[4])};
    PLENOXEL_RUN_TRACED(density, fit_gradients, scene.grid<T>(), scene.rays<T>(), scene.render_options<T>(), loss, data<T>(rgb),
        data<T>(grad_density), data<T>(grad_sh), data<bool>(touched));
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
  check_device(values, {links, grad, touched});
  TORCH_CHECK(0 <= channel_begin && channel_begin <= channel_end && channel_end <= values.size(1), "channels [",
              channel_begin, ", ", channel_end, ") are not among the ", values.size(1), " of data");
  TORCH_CHECK(0 <= first_cell && 0 <= num_cells && first_cell + num_cells <= links.numel(), "cells [", first_cell, ", ",
              first_cell + num_cells, ") are not among the ", links.numel(), " of links");
  const int size[3] = {int(links.size(0)), int(links.size(1)), int(links.size(2))};
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    PLENOXEL_RUN(values, total_variation, data<int32_t>(links), size, data<T>(values), int(values.size(1)), int(channel_begin),
        int(channel_end), first_cell, num_cells, T(scale), ignore_edge, data<T>(grad),
        data<bool>(touched));
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
  check_device(param, {grad, square_avg, touched});
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    PLENOXEL_RUN(param, rmsprop, data<T>(param), data<T>(grad), data<T>(square_avg), data<bool>(touched), param.size(0),
        param.dim() == 2 ? int(param.size(1)) : 1, T(lr), T(beta), T(epsilon));
  });
}

std::tuple<Tensor, Tensor> sample_grid(const Tensor& links, const Tensor& density, const Tensor& sh, const Tensor& points) {
  check_links(links);
  TORCH_CHECK(links.dim() == 3, "links must have 3 dimensions, got ", links.dim());
  const at::ScalarType type = density.scalar_type();
  check(density, "density", type, {-1});
  check(sh, "sh", type, {density.size(0), plenoxel::kCoefficients});
  check(points, "points", type, {-1, 3});
  check_device(density, {links, sh, points});
  const Tensor sigma = empty_for_rays(points, 0, true), coefficients = empty_for_rays(points, plenoxel::kCoefficients, true);
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    const plenoxel::Grid<T> grid{data<int32_t>(links), nullptr, data<T>(density), data<T>(sh),
                                 {int(links.size(0)), int(links.size(1)), int(links.size(2))}};
    PLENOXEL_RUN(density, sample_grid, grid, data<T>(points), points.size(0), data<T>(sigma), data<T>(coefficients));
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

namespace {

void implement(torch::Library& library) {
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

}  // namespace

TORCH_LIBRARY_IMPL(plenoxel, CPU, library) { implement(library); }
#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(plenoxel, CUDA, library) { implement(library); }
#endif
