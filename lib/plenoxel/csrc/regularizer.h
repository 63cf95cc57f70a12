// Total variation of one cell and channel, and the optimizer's update of one value.
#pragma once

#include <cmath>

#include "types.h"

namespace plenoxel {

// Gradient of a cell's total variation by its +x, +y and +z neighbours (by the cell's own value: minus their sum).
// As in svox2, differences are weighted by R/256 outside the root: d_a (R_a / 256) / sqrt(dx^2 + dy^2 + dz^2 + 1e-9).
template <typename T>
PLENOXEL_HD void total_variation_gradient(const int size[3], T own, const T neighbor[3], T gradient[3]) {
  T squares = T(1e-9);
  for (int axis = 0; axis < 3; ++axis) {
    gradient[axis] = neighbor[axis] - own;
    squares += gradient[axis] * gradient[axis];
  }
  const T inverse = 1 / std::sqrt(squares);
  for (int axis = 0; axis < 3; ++axis) gradient[axis] *= T(size[axis]) / 256 * inverse;
}

// RMSProp; the running mean starts at the first gradient's square instead of growing from 0.
template <typename T>
PLENOXEL_HD void rmsprop_update(T& value, T& mean_square, T gradient, T learning_rate, T beta, T epsilon) {
  const T square = gradient * gradient;
  mean_square = mean_square == 0 ? square : beta * mean_square + (1 - beta) * square;
  value -= learning_rate * gradient / (std::sqrt(mean_square) + epsilon);
}

}  // namespace plenoxel
