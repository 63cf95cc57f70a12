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
  T delta;                                // world length of one voxel along this ray
  T entry, exit;                          // range of t; entry > exit where the ray misses

  PLENOXEL_HD bool hits() const { return entry <= exit; }
};

template <typename T>
PLENOXEL_HD Ray<T> make_ray(const int size[3], const RenderOptions<T>& options, const T* origin, const T* direction) {
  Ray<T> ray;
  T squared = 0;
  for (int axis = 0; axis < 3; ++axis) {
    const T scale = T(size[axis]) / (2 * options.radius[axis]);
    ray.origin[axis] = (origin[axis] - options.center[axis]) * scale + (T(size[axis]) / 2 - T(0.5));
    ray.direction[axis] = direction[axis] * scale;
    squared += ray.direction[axis] * ray.direction[axis];
  }
  ray.delta = 1 / std::sqrt(squared);
  ray.entry = options.near_clip / ray.delta;
  ray.exit = squared > 0 ? T(INFINITY) : T(-INFINITY);
  for (int axis = 0; axis < 3; ++axis) {
    ray.direction[axis] *= ray.delta;
    const T low = T(-0.5) - ray.origin[axis], high = T(size[axis]) - T(0.5) - ray.origin[axis];
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

// The first member after t of the sequence t, t + step, (t + step) + step, ... that is not below `goal`, or an earlier one.
//
// The members are those of repeated *rounded* addition, so that skipping empty space changes no sample. Between two powers
// of two the spacing of floats is constant, hence each addition rounds the same way: after one addition inside such an
// interval (which settles ties to even) the increment is constant and n of them are one exact multiplication.
template <typename T>
PLENOXEL_HD T advance(T t, T step, T goal) {
  T first = t + step;
  while (first < goal) {
    const T bound = smaller(power_of_two_above(first), goal);
    const T second = first + step;
    const T increment = (second + step) - second;
    const T count = std::floor((bound - second) / increment) - 1;
    first = count > 0 ? second + count * increment : second;
    if (!(increment > 0)) return T(INFINITY);  // t so large that a step is lost in rounding
  }
  return first;
}

}  // namespace plenoxel
