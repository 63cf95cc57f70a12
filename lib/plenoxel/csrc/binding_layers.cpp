// Ops on the sphere layers behind a grid.
#include "backend.h"
#include "layers_cpu.h"
#ifdef WITH_CUDA
#include "cuda/layers_cuda.h"
#endif

namespace {

using namespace plenoxel::binding;

// What both ops are given.
struct LayeredSky {
  const Tensor &texture, &origins, &directions;
  double step_size, brightness, density_unit;

  void check_all() const {
    const at::ScalarType type = texture.scalar_type();
    TORCH_CHECK(type == at::kFloat || type == at::kDouble, "texture must be float32 or float64, got ", type);
    check(texture, "texture", type, {-1, -1, -1, 4});
    TORCH_CHECK(texture.size(1) <= kLargestSide && texture.size(2) <= kLargestSide, "texture must have at most ",
                kLargestSide, " columns and layers, got ", texture.sizes());
    TORCH_CHECK(texture.size(0) >= 1 && texture.size(1) == 2 * texture.size(0) && texture.size(2) >= 2,
                "texture must be [R, 2 R, L, 4] with L of at least 2, got ", texture.sizes());
    check_aligned(texture, "texture");
    check_rays(origins, directions, type);
    check_device(texture, {origins, directions});
    used_here({texture});
    check_step(step_size);
    check_finite(brightness, "brightness");
    check_finite(density_unit, "density_unit");
  }
  // Texels are read and added to as a whole.
  static void check_aligned(const Tensor& tensor, const char* name) {
    TORCH_CHECK(reinterpret_cast<uintptr_t>(tensor.data_ptr()) % (4 * tensor.element_size()) == 0, name,
                " must begin at a multiple of 4 numbers in memory");
  }
  template <typename T>
  plenoxel::SphereLayers<T> spheres() const {
    const int64_t layers = texture.size(2);
    return {data<plenoxel::Texel<T>>(texture), int(texture.size(0)), int(layers), int(double(layers) / step_size) + 2,
            T(brightness),                     T(density_unit)};
  }
  template <typename T>
  plenoxel::Rays<T> rays() const {
    return {data<T>(origins), data<T>(directions), nullptr, origins.size(0)};
  }
};

Tensor shade_layers(const Tensor& texture, const Tensor& origins, const Tensor& directions, const OptionalTensor& seen,
                    double step_size, double brightness, double density_unit) {
  const LayeredSky sky{texture, origins, directions, step_size, brightness, density_unit};
  sky.check_all();
  if (seen) check(*seen, "seen", at::kBool, {origins.size(0)});
  check_device(texture, {seen});
  const Tensor rgb = empty_for_rays(origins, 3, true);
  dispatch(texture.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    PLENOXEL_RUN(texture, shade_layers, sky.spheres<T>(), sky.rays<T>(), data<bool>(seen), data<T>(rgb));
  });
  return rgb;
}

void shade_layers_gradients(const Tensor& texture, const Tensor& origins, const Tensor& directions,
                            const Tensor& grad_rgb, const Tensor& grad_texture, const OptionalTensor& touched,
                            double step_size, double brightness, double density_unit) {
  const LayeredSky sky{texture, origins, directions, step_size, brightness, density_unit};
  sky.check_all();
  const at::ScalarType type = texture.scalar_type();
  check(grad_rgb, "grad_rgb", type, {origins.size(0), 3});
  check(grad_texture, "grad_texture", type, texture.sizes());
  LayeredSky::check_aligned(grad_texture, "grad_texture");
  if (touched) check(*touched, "touched", at::kBool, {texture.size(0), texture.size(1)});
  check_device(texture, {grad_rgb, grad_texture, touched});
  dispatch(type, [&](auto zero) {
    using T = decltype(zero);
    PLENOXEL_RUN(texture, shade_layers_gradients, sky.spheres<T>(), sky.rays<T>(), data<T>(grad_rgb),
        data<plenoxel::Texel<T>>(grad_texture), data<bool>(touched));
  });
}

void implement(torch::Library& library) {
  library.impl("shade_layers", &shade_layers);
  library.impl("shade_layers_gradients", &shade_layers_gradients);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(plenoxel, library) {
  library.def("shade_layers(Tensor texture, Tensor origins, Tensor directions, Tensor? seen, float step_size,"
              " float brightness, float density_unit) -> Tensor");
  library.def("shade_layers_gradients(Tensor texture, Tensor origins, Tensor directions, Tensor grad_rgb,"
              " Tensor(a!) grad_texture, Tensor(b!)? touched, float step_size, float brightness, float density_unit)"
              " -> ()");
}

TORCH_LIBRARY_IMPL(plenoxel, CPU, library) { implement(library); }
#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(plenoxel, CUDA, library) { implement(library); }
#endif
