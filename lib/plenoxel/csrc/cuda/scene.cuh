// Which grid of a stack a ray goes through.
#pragma once

#include "../types.h"

namespace plenoxel::cuda {

// Cells of one grid.
template <typename AnyGrid>
__device__ __forceinline__ int64_t cells_of(const AnyGrid& grid) {
  return int64_t(grid.size[0]) * grid.size[1] * grid.size[2];
}

// Number of the first cell of ray i's grid, of its innermost level where grids are nested. A scene that is not in the stack
// ends the kernel with an error instead of
// reading what is not the grid's; asking on the host first would have to wait for the GPU.
template <typename AnyGrid>
__device__ __forceinline__ int64_t first_cell(const AnyGrid& grid, const Rays<float>& rays, int64_t i) {
  if (!rays.scene) return 0;
  const int scene = rays.scene[i];
  if (scene < 0 || scene >= grid.scenes) __trap();
  return int64_t(scene) * grid.levels * cells_of(grid);
}

}  // namespace plenoxel::cuda
