// Ops on voxels and points.
#include <c10/core/InferenceMode.h>

#include "backend.h"

namespace {

using namespace plenoxel::binding;

// Grids keep what this returns. So it is a tensor like any other even when inference mode is on, and finished on whatever
// stream it is used.
Tensor cell_distance(const Tensor& links) {
  check_links(links);
  const c10::InferenceMode guard(false);
  Tensor distance = at::empty(links.sizes(), links.options().dtype(at::kByte));
  const plenoxel::Box<float> box = box_of<float>(links, {0., 0., 0.}, {1., 1., 1.}, 1);
#ifdef WITH_CUDA
  if (links.is_cuda()) {
    const c10::cuda::CUDAGuard device(links.device());
    const Tensor scratch = at::empty(distance.sizes(), distance.options());
    plenoxel::cuda::cell_distance(data<int32_t>(links), grids_of(links), box.size, data<uint8_t>(distance),
                                  data<uint8_t>(scratch), stream());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    finish();
    return distance;
  }
#endif
  plenoxel::cpu::cell_distance(data<int32_t>(links), grids_of(links), box.size, data<uint8_t>(distance),
                               at::get_num_threads());
  return distance;
}

void check_cells(const Tensor& links, int64_t first_cell, int64_t num_cells) {
  const int64_t cells = links.numel();
  TORCH_CHECK(0 <= first_cell && first_cell <= cells && 0 <= num_cells && num_cells <= cells - first_cell, "first_cell ",
              first_cell, " and num_cells ", num_cells, " are no range of the ", cells, " cells of links");
}

void check_rule(double beta, double epsilon) {
  TORCH_CHECK(beta >= 0 && beta <= 1, "beta must be in [0, 1], got ", beta);
  TORCH_CHECK(epsilon >= 0, "epsilon must not be negative, got ", epsilon);
  check_finite(epsilon, "epsilon");
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
  check_finite(lr, "lr");
  check_rule(beta, epsilon);
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    PLENOXEL_RUN(param, rmsprop, data<T>(param), data<T>(grad), data<T>(square_avg), data<bool>(touched), param.size(0),
        param.dim() == 2 ? int(param.size(1)) : 1, T(lr), T(beta), T(epsilon));
  });
}

void update_grid(const Tensor& links, const Tensor& density, const Tensor& sh, const Tensor& grad_density,
                 const Tensor& grad_sh, const Tensor& square_density, const Tensor& square_sh, const Tensor& touched,
                 int64_t first_cell, int64_t num_cells, double density_variation, double sh_variation, double density_rate,
                 double sh_rate, double beta, double epsilon) {
  check_links(links);
  TORCH_CHECK(links.dim() == 3 || (links.dim() == 5 && links.size(0) == 1),
              "links must be [Rx, Ry, Rz] or [1, L, Rx, Ry, Rz], got ", links.sizes());
  const at::ScalarType type = density.scalar_type();
  check(density, "density", type, {-1});
  check(sh, "sh", type, {density.size(0), plenoxel::kCoefficients});
  check(grad_density, "grad_density", type, density.sizes());
  check(grad_sh, "grad_sh", type, sh.sizes());
  check(square_density, "square_density", type, density.sizes());
  check(square_sh, "square_sh", type, sh.sizes());
  check(touched, "touched", at::kBool, density.sizes());
  check_device(density, {links, sh, grad_density, grad_sh, square_density, square_sh, touched});
  used_here({links, density, sh});
  check_cells(links, first_cell, num_cells);
  check_finite(density_variation, "density_variation");
  check_finite(sh_variation, "sh_variation");
  check_finite(density_rate, "density_rate");
  check_finite(sh_rate, "sh_rate");
  check_rule(beta, epsilon);
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    const plenoxel::FitState<T> state{data<int32_t>(links),
                                      {int(links.size(-3)), int(links.size(-2)), int(links.size(-1))},
                                      levels_of(links),
                                      density.size(0),
                                      data<T>(density),
                                      data<T>(grad_density),
                                      data<T>(square_density),
                                      data<T>(sh),
                                      data<T>(grad_sh),
                                      data<T>(square_sh),
                                      data<bool>(touched)};
    const plenoxel::UpdateOptions<T> options{first_cell,      num_cells,  T(density_variation), T(sh_variation),
                                             T(density_rate), T(sh_rate), T(beta),              T(epsilon)};
    PLENOXEL_RUN(density, update_grid, state, options);
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
  used_here({links, density, sh});
  const Tensor sigma = empty_for_rays(points, 0, true), coefficients = empty_for_rays(points, plenoxel::kCoefficients, true);
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    const plenoxel::Grid<T> grid{box_of<T>(links, {0., 0., 0.}, {1., 1., 1.}, 1), data<int32_t>(links), nullptr,
                                 data<T>(density), data<T>(sh), 1};
    PLENOXEL_RUN(density, sample_grid, grid, data<T>(points), points.size(0), data<T>(sigma), data<T>(coefficients));
  });
  return {sigma, coefficients};
}

void implement(torch::Library& library) {
  library.impl("cell_distance", &cell_distance);
  library.impl("rmsprop_step", &rmsprop_step);
  library.impl("update_grid", &update_grid);
  library.impl("sample_grid", &sample_grid);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(plenoxel, library) {
  library.def("cell_distance(Tensor links) -> Tensor");
  library.def("rmsprop_step(Tensor(a!) param, Tensor(b!) grad, Tensor(c!) square_avg, float lr, float beta,"
              " float epsilon, Tensor? touched) -> ()");
  library.def("update_grid(Tensor links, Tensor(a!) density, Tensor(b!) sh, Tensor(c!) grad_density, Tensor(d!) grad_sh,"
              " Tensor(e!) square_density, Tensor(f!) square_sh, Tensor(g!) touched, int first_cell, int num_cells,"
              " float density_variation, float sh_variation, float density_rate, float sh_rate, float beta, float epsilon)"
              " -> ()");
  library.def("sample_grid(Tensor links, Tensor density, Tensor sh, Tensor points) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(plenoxel, CPU, library) { implement(library); }
#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(plenoxel, CUDA, library) { implement(library); }
#endif
