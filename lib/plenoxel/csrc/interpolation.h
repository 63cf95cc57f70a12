// Trilinear weights and the spherical-harmonic basis.
#pragma once

#include <cmath>

#include "types.h"

namespace plenoxel {

template <typename T>
PLENOXEL_HD void trilinear_weights(const T fraction[3], T weights[kCorners]) {
  const T x[2] = {1 - fraction[0], fraction[0]};
  const T y[2] = {1 - fraction[1], fraction[1]};
  const T z[2] = {1 - fraction[2], fraction[2]};
  for (int corner = 0; corner < kCorners; ++corner) weights[corner] = x[corner >> 2] * y[corner >> 1 & 1] * z[corner & 1];
}

// Interpolates one value per corner in seven fused steps, z first: what marching does for every sample's density, before it
// is known whether the sample counts and needs weights.
template <typename T>
PLENOXEL_HD T trilinear(const T values[kCorners], const T fraction[3]) {
  T edges[4], faces[2];
  for (int i = 0; i < 4; ++i) edges[i] = std::fma(fraction[2], values[2 * i + 1] - values[2 * i], values[2 * i]);
  for (int i = 0; i < 2; ++i) faces[i] = std::fma(fraction[1], edges[2 * i + 1] - edges[2 * i], edges[2 * i]);
  return std::fma(fraction[0], faces[1] - faces[0], faces[0]);
}

// Offset in `links` from a cell's lowest corner to corner k.
PLENOXEL_HD int64_t corner_offset(const int size[3], int corner) {
  return (int64_t(corner >> 2) * size[1] + (corner >> 1 & 1)) * size[2] + (corner & 1);
}

template <typename T>
PLENOXEL_HD void sh_basis(const T direction[3], T basis[kBasis]) {
  const T x = direction[0], y = direction[1], z = direction[2];
  basis[0] = T(0.28209479177387814);
  basis[1] = T(-0.4886025119029199) * y;
  basis[2] = T(0.4886025119029199) * z;
  basis[3] = T(-0.4886025119029199) * x;
  basis[4] = T(1.0925484305920792) * x * y;
  basis[5] = T(-1.0925484305920792) * y * z;
  basis[6] = T(0.31539156525252005) * (2 * z * z - x * x - y * y);
  basis[7] = T(-1.0925484305920792) * x * z;
  basis[8] = T(0.5462742152960396) * (x * x - y * y);
}

}  // namespace plenoxel
