// Trilinear weights and the spherical-harmonic basis.
#pragma once

#include "types.h"

namespace plenoxel {

template <typename T>
PLENOXEL_HD void trilinear_weights(const T fraction[3], T weights[kCorners]) {
  const T x[2] = {1 - fraction[0], fraction[0]};
  const T y[2] = {1 - fraction[1], fraction[1]};
  const T z[2] = {1 - fraction[2], fraction[2]};
  for (int corner = 0; corner < kCorners; ++corner) weights[corner] = x[corner >> 2] * y[corner >> 1 & 1] * z[corner & 1];
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
