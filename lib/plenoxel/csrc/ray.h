// Rays in voxel units: where they meet the grid, which cell a sample lies in, and how t advances.
// Voxel i's centre is at grid coordinate i; the box is [-0.5, R - 0.5] per axis; t is arc length in voxels.
#pragma once

#include <cmath>
#include <cstring>

#include "types.h"

namespace plenoxel {

template <typename T>
struct Ray {
  T origin[3], direction[3], inverse[3];  // voxels; inverse is 0 on an axis the ray is parallel to
  T delta;                                // world length of one voxel along this ray; of the outermost of nested grids
  T world;                                // world length of one unit of t: delta, or less in inner grids
  T start;                                // t at the near clip
  T entry, exit;                          // range of t; entry > exit where the ray misses

  PLENOXEL_HD bool hits() const { return entry <= exit; }
  PLENOXEL_HD bool starts_inside() const { return hits() && !(entry > start); }
};

// `zoom`: how many times smaller the box is about its centre than given, a power of two.
template <typename T>
PLENOXEL_HD Ray<T> make_ray(const Box<T>& box, T near_clip, const T* origin, const T* direction, T zoom = 1) {
  Ray<T> ray;
  T squared = 0;
  for (int axis = 0; axis < 3; ++axis) {
    const T scale = T(box.size[axis]) / (2 * box.radius[axis]);
    ray.origin[axis] = (origin[axis] - box.center[axis]) * (scale * zoom) + (T(box.size[axis]) / 2 - T(0.5));
    ray.direction[axis] = direction[axis] * scale;
    squared += ray.direction[axis] * ray.direction[axis];
  }
  ray.delta = 1 / std::sqrt(squared);
  ray.world = ray.delta / zoom;
  ray.entry = ray.start = near_clip / ray.world;
  ray.exit = squared > 0 ? T(INFINITY) : T(-INFINITY);
  for (int axis = 0; axis < 3; ++axis) {
    ray.direction[axis] *= ray.delta;
    const T low = T(-0.5) - ray.origin[axis], high = T(box.size[axis]) - T(0.5) - ray.origin[axis];
    if (ray.direction[axis] == 0) {
      ray.inverse[axis] = 0;
      if (low > 0 || high < 0) ray.exit = T(-INFINITY);
      continue;
    }
    ray.inverse[axis] = 1 / ray.direction[axis];
    const T first = low * ray.inverse[axis], second = high * ray.inverse[axis];
    ray.entry = larger(ray.entry, smaller(first, second));
    ray.exit = smaller(ray.exit, larger(first, second));
  }
  return ray;
}

template <typename T>
struct Cell {
  int index[3];   // lowest corner, 0 .. R - 2
  T fraction[3];  // position in the cell, 0 .. 1
};

template <typename T>
PLENOXEL_HD Cell<T> cell_at(const int size[3], const T point[3]) {
  Cell<T> cell;
  for (int axis = 0; axis < 3; ++axis) {
    const T clamped = smaller(larger(point[axis], T(0)), T(size[axis] - 1));
    const int lowest = static_cast<int>(clamped);
    cell.index[axis] = lowest < size[axis] - 2 ? lowest : size[axis] - 2;
    cell.fraction[axis] = clamped - T(cell.index[axis]);
  }
  return cell;
}

template <typename T>
PLENOXEL_HD Cell<T> cell_on_ray(const int size[3], const Ray<T>& ray, T t) {
  const T point[3] = {std::fma(t, ray.direction[0], ray.origin[0]), std::fma(t, ray.direction[1], ray.origin[1]),
                      std::fma(t, ray.direction[2], ray.origin[2])};
  return cell_at(size, point);
}

// t up to which a ray surely stays in the cells nearer than `distance` (Chebyshev) to `cell`. The region is shrunk by a
// thousandth of a voxel, far more than the rounding of a sample's position; faces on the border count as infinitely far,
// because positions are clamped to the grid.
template <typename T>
PLENOXEL_HD T empty_until(const int size[3], const Ray<T>& ray, const int cell[3], int distance) {
  T until = T(INFINITY);
  for (int axis = 0; axis < 3; ++axis) {
    const T direction = ray.direction[axis];
    const int face = direction > 0 ? cell[axis] + distance : cell[axis] - distance + 1;
    if (direction == 0 || face <= 0 || face >= size[axis] - 1) continue;
    const T inside = T(face) - (direction > 0 ? T(1e-3) : T(-1e-3));
    until = smaller(until, (inside - ray.origin[axis]) * ray.inverse[axis]);
  }
  return until;
}

PLENOXEL_HD float power_of_two_above(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  bits = (bits & 0x7f800000u) + 0x00800000u;
  memcpy(&value, &bits, sizeof value);
  return value;
}

PLENOXEL_HD double power_of_two_above(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  bits = (bits & 0x7ff0000000000000ull) + 0x0010000000000000ull;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// Walks the sequence t, t + step, (t + step) + step, ... of repeated *rounded* addition, in one multiplication for any
// number of steps, so that leaping over empty space changes no sample.
//
// Between two powers of two the spacing of floats is constant, so each addition there rounds the same way and adds the same
// `increment` (ties to even settle after one addition); n increments are then an exact product and an exact sum.
template <typename T>
class Stepper {
 public:
  PLENOXEL_HD explicit Stepper(T step) : step_(step) {}

  PLENOXEL_HD T next(T t) const { return t + step_; }

  // The first member after t that is not below `goal`, give or take rounding of `goal`; may stop early, but not at t.
  PLENOXEL_HD T leap(T t, T goal) {
    if (!(t >= begin_ && t < end_)) settle(t);
    const T count = larger(std::ceil((goal - t) * inverse_), T(1));
    const T landed = t + count * increment_;
    return landed < end_ ? landed : leave(t);
  }

 private:
  // Learns the increment from t on, or that it is not constant yet: then end_ = begin_, and leap() takes single steps.
  PLENOXEL_HD void settle(T t) {
    begin_ = end_ = t;
    const T second = t + step_, third = second + step_, bound = power_of_two_above(t);
    increment_ = second - t;
    inverse_ = 1 / increment_;
    if (third < bound && third - second == increment_) end_ = bound;
  }

  // The first member beyond the present interval, from a t inside it.
  PLENOXEL_HD T leave(T t) const {
    const T count = std::floor((end_ - t) * inverse_) - 1;
    if (count > 0) t += count * increment_;
    do t += step_;
    while (t < end_);
    return t;
  }

  T step_, begin_ = 1, end_ = 0, increment_ = 0, inverse_ = 0;
};

}  // namespace plenoxel
