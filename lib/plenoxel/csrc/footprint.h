// What the samples of a ray weigh at the voxels beside it. A voxel is a corner of several cells that a ray crosses one after
// the other: its weight follows it from cell to cell, and is complete when the ray leaves the voxel behind.
#pragma once

#include "types.h"

namespace plenoxel {

constexpr int kFar = 4;  // a move so far that no corner is shared

// Which corners of a cell a ray leaves behind when it moves to a cell at this offset, a bit each.
PLENOXEL_HD unsigned left_behind(const int move[3]) {
  constexpr unsigned kLow[3] = {0x0f, 0x33, 0x55};  // corners on the lower side along each axis
  unsigned corners = 0;
  PLENOXEL_UNROLL
  for (int axis = 0; axis < 3; ++axis) {
    if (move[axis] > 1 || move[axis] < -1) corners = 0xff;
    if (move[axis] == 1) corners |= kLow[axis];
    if (move[axis] == -1) corners |= 0xff ^ kLow[axis];
  }
  return corners;
}

// The weights of voxels that stay, at the corners they have in the next cell; 0 for new ones.
template <typename T>
PLENOXEL_HD void carry_weights(const int move[3], T weight[kCorners]) {
  PLENOXEL_UNROLL
  for (int axis = 0; axis < 3; ++axis) {
    const int stride = 4 >> axis;
    PLENOXEL_UNROLL
    for (int corner = 0; corner < kCorners; ++corner) {
      if (corner & stride) continue;
      const T low = weight[corner], high = weight[corner + stride];
      weight[corner] = move[axis] == 0 ? low : move[axis] == 1 ? high : T(0);
      weight[corner + stride] = move[axis] == 0 ? high : move[axis] == -1 ? low : T(0);
    }
  }
}

}  // namespace plenoxel
