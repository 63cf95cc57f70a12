// What the op registrations share: checking and unwrapping tensors.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>
#include <initializer_list>
#include <optional>
#include <tuple>

#include "types.h"

// Of the schemas of ops on rays.
#define PLENOXEL_RAYS                                                                                               \
  "Tensor origins, Tensor directions, Tensor? scene_index, float[] center, float[] radius, float[] options"

namespace plenoxel::binding {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Numbers = c10::ArrayRef<double>;

enum Output { kRgb = 1, kSh = 2, kDepth = 4, kAlpha = 8 };  // the bits of `outputs`

inline void check(const Tensor& tensor, const char* name, at::ScalarType type, at::IntArrayRef shape) {
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

inline void check_device(const Tensor& expected, std::initializer_list<OptionalTensor> tensors) {
  for (const OptionalTensor& tensor : tensors)
    TORCH_CHECK(!tensor || tensor->device() == expected.device(), "all tensors must be on one device, got ",
                expected.device(), " and ", tensor->device());
}

constexpr int64_t kLargestSide = 1 << 24;  // voxels along an axis, or rows of a texture: exact in float32
constexpr int64_t kMostLevels = 16;        // nested grids
constexpr double kLeastStep = 1e-3;        // voxels, or layers: shorter steps are lost in rounding, and take for ever

inline void check_finite(double number, const char* name) {
  TORCH_CHECK(std::isfinite(float(number)), name, " must be finite in float32, got ", number);
}

// A length between samples.
inline void check_step(double step_size) {
  TORCH_CHECK(step_size > 0, "step_size must be positive, got ", step_size);
  TORCH_CHECK(step_size >= kLeastStep, "step_size must be at least ", kLeastStep, ", got ", step_size);
  check_finite(step_size, "step_size");
}

// Sizes of a grid or a stack of grids, [Rx, Ry, Rz] or [S, Rx, Ry, Rz], or of a stack of nested ones, [S, L, Rx, Ry, Rz].
inline void check_resolution(const char* name, at::IntArrayRef sizes) {
  TORCH_CHECK(sizes.size() >= 3 && sizes.size() <= 5, name, " must have 3 to 5 dimensions, got ", sizes.size());
  for (size_t axis = sizes.size() - 3; axis < sizes.size(); ++axis)
    TORCH_CHECK(sizes[axis] >= 2 && sizes[axis] <= kLargestSide, "a grid must have at least 2 voxels per axis and at most ",
                kLargestSide, ", ", name, " have ", sizes);
  TORCH_CHECK(sizes.size() == 3 || sizes[0] >= 1, name, " must hold at least one grid, got ", sizes);
  TORCH_CHECK(sizes.size() < 5 || (sizes[1] >= 1 && sizes[1] <= kMostLevels), name, " must hold 1 to ", kMostLevels,
              " nested grids, got ", sizes);
}

inline void check_links(const Tensor& links) {
  check_resolution("links", links.sizes());
  check(links, "links", at::kInt, links.sizes());
}

// Origins and directions, of the numbers' type.
inline void check_rays(const Tensor& origins, const Tensor& directions, at::ScalarType type) {
  check(origins, "origins", type, {-1, 3});
  TORCH_CHECK(origins.size(0) < int64_t(1) << 31, "at most 2^31 - 1 rays in one call, got ", origins.size(0));
  check(directions, "directions", type, {origins.size(0), 3});
}

inline int levels_of(const Tensor& links) { return links.dim() > 4 ? int(links.size(1)) : 1; }

inline int64_t scenes_of(const Tensor& links) { return links.dim() > 3 ? links.size(0) : 1; }

// Grids in all, with nested ones: each has a distance field of its own.
inline int64_t grids_of(const Tensor& links) { return links.dim() > 4 ? links.size(0) * links.size(1) : scenes_of(links); }

// Values are looked at on the CPU only: asking a GPU for them would wait for it, and its kernels end by themselves.
inline void check_scene_index(const OptionalTensor& scene_index, int64_t rays, int64_t scenes) {
  if (!scene_index) return;
  check(*scene_index, "scene_index", at::kInt, {rays});
  if (!scene_index->is_cpu()) return;
  const int32_t* const values = data<int32_t>(*scene_index);
  for (int64_t i = 0; i < rays; ++i)
    TORCH_CHECK(values[i] >= 0 && values[i] < scenes, "scene_index names grid ", values[i], " of a stack of ", scenes);
}

// Where a grid's, or a stack's, voxels are; the last three dimensions of a tensor are its size.
template <typename T>
plenoxel::Box<T> box_of(const Tensor& links, Numbers center, Numbers radius, int levels) {
  const int64_t last = links.dim();
  return {{int(links.size(last - 3)), int(links.size(last - 2)), int(links.size(last - 1))},
          {T(center[0]), T(center[1]), T(center[2])},
          {T(radius[0]), T(radius[1]), T(radius[2])},
          levels};
}

inline void check_options(Numbers center, Numbers radius, Numbers options) {
  TORCH_CHECK(center.size() == 3 && radius.size() == 3 && options.size() == 6,
              "center and radius have 3 numbers each, options have 6");
  for (int axis = 0; axis < 3; ++axis) {
    check_finite(center[axis], "center");
    check_finite(radius[axis], "radius");
    TORCH_CHECK(float(radius[axis]) > 0, "radius must be positive, got ", radius[axis]);
  }
  check_step(options[0]);
  TORCH_CHECK(options[1] >= 0, "sigma_thresh must not be negative, got ", options[1]);
  TORCH_CHECK(options[2] >= 0 && options[2] < 1, "stop_thresh must be in [0, 1), got ", options[2]);
  TORCH_CHECK(options[3] >= 0, "near_clip must not be negative, got ", options[3]);
  check_finite(options[1], "sigma_thresh");
  check_finite(options[3], "near_clip");
  check_finite(options[4], "background_brightness");
}

inline void check_outputs(int64_t outputs) {
  TORCH_CHECK(outputs >= 0 && outputs <= (kRgb | kSh | kDepth | kAlpha), "outputs must be 4 bits, got ", outputs);
}

// From option_numbers of options.py, in the order of the members.
template <typename T>
RenderOptions<T> make_options(Numbers options) {
  return {T(options[0]), T(options[1]), T(options[2]), T(options[3]), T(options[4]), options[5] != 0};
}

inline Tensor empty_for_rays(const Tensor& origins, int64_t channels, bool wanted) {
  if (!wanted) return at::empty({0}, origins.options());
  return channels ? at::empty({origins.size(0), channels}, origins.options())
                  : at::empty({origins.size(0)}, origins.options());
}

}  // namespace plenoxel::binding
