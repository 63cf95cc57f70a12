// Ops on features of any number of channels: on CPUs from a grid's tensors, on GPUs from its packed cells.
#include <ATen/ops/zeros.h>

#include "features_cpu.h"
#include "packed_tensors.h"
#include "scene_tensors.h"
#ifdef WITH_CUDA
#include "cuda/features_cuda.h"
#endif

namespace {

using namespace plenoxel::binding;

// Features of voxels or values of rays: [count, channels], float16 too.
void check_features(const Tensor& features, const char* name, int64_t count) {
  check(features, name, features.scalar_type(), {count, -1});
  const at::ScalarType type = features.scalar_type();
  TORCH_CHECK(type == at::kHalf || type == at::kFloat || type == at::kDouble, name,
              " must be float16, float32 or float64, got ", type);
  TORCH_CHECK(features.size(1) >= 1, name, " must have at least one channel, got ", features.sizes());
}

Tensor render_features(const Tensor& links, const Tensor& distance, const Tensor& density, const Tensor& features,
                       const Tensor& origins, const Tensor& directions, const OptionalTensor& scene_index, Numbers center,
                       Numbers radius, Numbers options) {
  const OptionalTensor no_sh;
  const Scene scene{links, distance, density, no_sh, origins, directions, scene_index, center, radius, options};
  scene.check_all();
  check_features(features, "features", density.size(0));
  check_device(density, {features});
  const Tensor numbers = features.to(density.scalar_type());
  const Tensor out = empty_for_rays(origins, features.size(1), true);
  dispatch(density.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    plenoxel::cpu::render_features(scene.grid<T>(), scene.rays<T>(), make_options<T>(options), data<T>(numbers),
                                   features.size(1), data<T>(out), at::get_num_threads());
  });
  return out;
}

std::tuple<Tensor, Tensor> spread_features(const Tensor& links, const Tensor& distance, const Tensor& density,
                                           const Tensor& values, const Tensor& origins, const Tensor& directions,
                                           const OptionalTensor& scene_index, Numbers center, Numbers radius,
                                           Numbers options) {
  const OptionalTensor no_sh;
  const Scene scene{links, distance, density, no_sh, origins, directions, scene_index, center, radius, options};
  scene.check_all();
  check_features(values, "values", origins.size(0));
  check_device(density, {values});
  const Tensor numbers = values.to(density.scalar_type());
  const int64_t rows = density.size(0), channels = values.size(1);
  const Tensor sums = at::zeros({rows, channels}, density.options()), weights = at::zeros({rows}, density.options());
  dispatch(density.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    plenoxel::cpu::spread_features(scene.grid<T>(), scene.rays<T>(), make_options<T>(options), data<T>(numbers), channels,
                                   rows, data<T>(sums), data<T>(weights), at::get_num_threads());
  });
  return {sums, weights};
}

#ifdef WITH_CUDA
// function(features as the numbers they are)
template <typename Function>
void with_numbers(const Tensor& features, const char* name, Function&& function) {
  const at::ScalarType type = features.scalar_type();
  TORCH_CHECK(type != at::kDouble, name, ": float64 runs on the CPU only");
  if (type == at::kHalf) function(data<__half>(features));
  else function(data<float>(features));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor render_features_packed(const Tensor& ahead, const Tensor& words, const Tensor& cells, const Tensor& features,
                              const Tensor& origins, const Tensor& directions, const OptionalTensor& scene_index,
                              Numbers center, Numbers radius, Numbers options, int64_t image_width) {
  const PackedScene scene{ahead, words, cells, origins, directions, scene_index, center, radius, options, image_width};
  scene.check_all();
  check_features(features, "features", -1);
  check_device(ahead, {features});
  const c10::cuda::CUDAGuard guard(ahead.device());
  const Tensor out = empty_for_rays(origins, features.size(1), true);
  with_numbers(features, "features", [&](auto* numbers) {
    plenoxel::cuda::render_features(scene.grid(), scene.rays(), make_options<float>(options), numbers, features.size(1),
                                    data<float>(out), image_width, stream());
  });
  return out;
}

// `rows`: number of the grid's rows.
std::tuple<Tensor, Tensor> spread_features_packed(const Tensor& ahead, const Tensor& words, const Tensor& cells,
                                                  const Tensor& values, int64_t rows, const Tensor& origins,
                                                  const Tensor& directions, const OptionalTensor& scene_index,
                                                  Numbers center, Numbers radius, Numbers options, int64_t image_width) {
  const PackedScene scene{ahead, words, cells, origins, directions, scene_index, center, radius, options, image_width};
  scene.check_all();
  check_features(values, "values", origins.size(0));
  check_device(ahead, {values});
  TORCH_CHECK(rows >= 0, "rows must not be negative, got ", rows);
  const c10::cuda::CUDAGuard guard(ahead.device());
  const Tensor sums = at::zeros({rows, values.size(1)}, origins.options()), weights = at::zeros({rows}, origins.options());
  with_numbers(values, "values", [&](auto* numbers) {
    plenoxel::cuda::spread_features(scene.grid(), scene.rays(), make_options<float>(options), numbers, values.size(1),
                                    data<float>(sums), data<float>(weights), image_width, stream());
  });
  return {sums, weights};
}
#endif

}  // namespace

TORCH_LIBRARY_FRAGMENT(plenoxel, library) {
  library.def("render_features(" PLENOXEL_GRID ", Tensor features, " PLENOXEL_RAYS ") -> Tensor");
  library.def("spread_features(" PLENOXEL_GRID ", Tensor values, " PLENOXEL_RAYS ") -> (Tensor, Tensor)");
#ifdef WITH_CUDA
  library.def("render_features_packed(" PLENOXEL_PACKED_CELLS ", Tensor features, " PLENOXEL_RAYS
              ", int image_width) -> Tensor");
  library.def("spread_features_packed(" PLENOXEL_PACKED_CELLS ", Tensor values, int rows, " PLENOXEL_RAYS
              ", int image_width) -> (Tensor, Tensor)");
#endif
}

TORCH_LIBRARY_IMPL(plenoxel, CPU, library) {
  library.impl("render_features", &render_features);
  library.impl("spread_features", &spread_features);
}
#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(plenoxel, CUDA, library) {
  library.impl("render_features_packed", &render_features_packed);
  library.impl("spread_features_packed", &spread_features_packed);
}
#endif
