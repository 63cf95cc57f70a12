// Concentric sphere images around a grid (svox2's background): where a ray's samples lie in them, and what they show.
//
// The unit sphere is the one that the grid's box of radius 1 holds. A ray takes its samples where it leaves spheres
// whose inverse radii are evenly spaced from 1 to 0; the distance between two samples is the difference of their
// inverse radii. Images wrap around in longitude and, as svox2 has it, in latitude. reference_layers.py says it in
// PyTorch.
#pragma once

#include "compositing.h"

namespace plenoxel {

constexpr int kTexelCorners = 4;  // corner k of a sample is at (row + (k >> 1), column + (k & 1)), in two layers

// One direction in one layer: coefficients of a constant colour, and a density. Also their gradient.
template <typename T>
struct alignas(4 * sizeof(T)) Texel {
  T color[3], density;

  PLENOXEL_HD void add_scaled(T factor, const Texel& other) {
    for (int c = 0; c < 3; ++c) color[c] += factor * other.color[c];
    density += factor * other.density;
  }
  PLENOXEL_HD bool any() const { return color[0] != 0 || color[1] != 0 || color[2] != 0 || density != 0; }
};

template <typename T>
struct SphereLayers {
  const Texel<T>* texels;  // [rows, 2 rows, layers]
  int rows, layers;        // at least 1 and 2
  int steps;               // samples of a ray
  T brightness;            // grey level behind the last layer
  T density_unit;          // what a texel's density of 1 stands for
};

// A position between texels.
template <typename T>
struct LayerSample {
  int row, column, layer;  // of the lowest corner
  T fraction[3];           // from there on, by row, column and layer, 0 .. 1
  T depth_per_density;     // optical depth that a texel's density of 1 makes here

  // Which direction corner k is, of [rows, 2 rows].
  PLENOXEL_HD int64_t direction(int rows, int corner) const {
    int i = row + (corner >> 1), j = column + (corner & 1);
    i = i < rows ? i : 0;
    j = j < 2 * rows ? j : 0;
    return int64_t(i) * 2 * rows + j;
  }
  PLENOXEL_HD T share(int corner) const {
    return (corner >> 1 ? fraction[0] : 1 - fraction[0]) * (corner & 1 ? fraction[1] : 1 - fraction[1]);
  }
};

// The lowest corner of `cells` cells that `position` lies above, 0 .. cells - 1, and how far above. NaN is at 0.
template <typename T>
PLENOXEL_HD int cell_below(T position, int cells, T& fraction) {
  const T clamped = smaller(larger(position, T(0)), T(cells));
  const int lowest = static_cast<int>(clamped) < cells - 1 ? static_cast<int>(clamped) : cells - 1;
  fraction = clamped - T(lowest);
  return lowest;
}

template <typename T>
class LayerRay {
 public:
  // The direction may have any length: it is that of a world unit.
  PLENOXEL_HD LayerRay(const SphereLayers<T>& spheres, const T* origin, const T* direction) : spheres_(spheres) {
    T squared = 0, from_middle = 0;
    for (int axis = 0; axis < 3; ++axis) squared += direction[axis] * direction[axis];
    length_ = std::sqrt(squared);
    along_ = 0;
    for (int axis = 0; axis < 3; ++axis) {
      origin_[axis] = origin[axis];
      ahead_[axis] = direction[axis] / length_;
      along_ += origin_[axis] * ahead_[axis];
      from_middle += origin_[axis] * origin_[axis];
    }
    nearest_ = larger(from_middle - along_ * along_, T(0));
    inner_ = 1 / larger(std::sqrt(nearest_) + kApart, T(1));
  }

  // Sample number 0 <= n < steps, the nearest first; false where it lies before the first sphere that the ray leaves, or
  // behind where the ray begins.
  PLENOXEL_HD bool at(int n, LayerSample<T>& sample) const {
    const T inverse = inverse_radius(n), before = n > 0 ? smaller(inverse_radius(n - 1), inner_) : inner_;
    const T interval = before - inverse;
    if (!(interval > 0)) return false;
    const T distance = std::sqrt(larger(1 / (inverse * inverse) - nearest_, T(0))) - along_;
    if (distance <= 0) return false;
    T point[3];
    for (int axis = 0; axis < 3; ++axis) point[axis] = (origin_[axis] + distance * ahead_[axis]) * inverse;
    const T longitude = std::atan2(point[0], point[2]) * T(1 / kPi);
    const T latitude = std::asin(smaller(larger(point[1], T(-1)), T(1))) * T(2 / kPi);
    const int rows = spheres_.rows, layers = spheres_.layers;
    sample.row = cell_below((1 - latitude) / 2 * rows, rows, sample.fraction[0]);
    sample.column = cell_below((1 + longitude) * rows, 2 * rows, sample.fraction[1]);
    sample.layer = cell_below((1 - inverse) * layers - T(0.5), layers - 1, sample.fraction[2]);
    sample.depth_per_density = interval / length_ * spheres_.density_unit;
    return true;
  }

 private:
  static constexpr double kPi = 3.14159265358979323846;
  static constexpr T kApart = T(1e-3);  // samples stay this far beyond the ray's nearest point to the middle

  PLENOXEL_HD T inverse_radius(int n) const { return 1 - (T(n) + T(0.5)) / T(spheres_.steps); }

  const SphereLayers<T>& spheres_;
  T origin_[3], ahead_[3], length_;
  T along_;    // where that nearest point is
  T nearest_;  // its squared distance from the middle
  T inner_;    // inverse radius at which the spheres begin
};

template <typename T>
PLENOXEL_HD Texel<T> load(const Texel<T>* texel) {
  return *texel;
}
#if defined(__CUDA_ARCH__)
__device__ __forceinline__ Texel<float> load(const Texel<float>* texel) {
  const float4 value = __ldg(reinterpret_cast<const float4*>(texel));
  return {{value.x, value.y, value.z}, value.w};
}
#endif

template <typename T>
PLENOXEL_HD Texel<T> interpolate(const SphereLayers<T>& spheres, const LayerSample<T>& sample) {
  Texel<T> sum = {};
  for (int corner = 0; corner < kTexelCorners; ++corner) {
    const Texel<T>* texels = spheres.texels + sample.direction(spheres.rows, corner) * spheres.layers + sample.layer;
    const T share = sample.share(corner), far = share * sample.fraction[2];
    sum.add_scaled(share - far, load(texels));
    sum.add_scaled(far, load(texels + 1));
  }
  return sum;
}

constexpr double kConstantBasis = 0.28209479177387814;  // the spherical harmonic of degree 0

template <typename T>
PLENOXEL_HD T optical_depth(const LayerSample<T>& sample, const Texel<T>& value) {
  return sample.depth_per_density * larger(value.density, T(0));
}

// Channel c before clamping at 0.
template <typename T>
PLENOXEL_HD T channel(const Texel<T>& value, int c) {
  return value.color[c] * T(kConstantBasis) + T(0.5);
}

template <typename T>
PLENOXEL_HD void shade_ray(const SphereLayers<T>& spheres, const T* origin, const T* direction, T* rgb) {
  const LayerRay<T> ray(spheres, origin, direction);
  Compositor<T> compositor;
  T sum[3] = {};
  LayerSample<T> sample;
  for (int n = 0; n < spheres.steps; ++n) {
    if (!ray.at(n, sample)) continue;
    const Texel<T> value = interpolate(spheres, sample);
    const T weight = compositor.pass(optical_depth(sample, value), T(0));
    for (int c = 0; c < 3; ++c) sum[c] += weight * larger(channel(value, c), T(0));
  }
  for (int c = 0; c < 3; ++c) rgb[c] = sum[c] + compositor.transmittance * spheres.brightness;
}

// The gradient by a sample's interpolated value, given that by the ray's colour. Samples come back to front.
template <typename T>
PLENOXEL_HD Texel<T> value_gradient(const LayerSample<T>& sample, const Texel<T>& value, const T by_rgb[3], T weight,
                                    T transmittance_after, BackwardCompositor<T>& backward) {
  Texel<T> gradient;
  T by_weight = 0;
  for (int c = 0; c < 3; ++c) {
    const T color = channel(value, c);
    by_weight += by_rgb[c] * larger(color, T(0));
    gradient.color[c] = color >= 0 ? by_rgb[c] * weight * T(kConstantBasis) : T(0);
  }
  const T by_depth = backward.pass(by_weight, weight, transmittance_after);
  gradient.density = value.density >= 0 ? by_depth * sample.depth_per_density : T(0);
  return gradient;
}

}  // namespace plenoxel
