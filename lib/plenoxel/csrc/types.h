// What every Plenoxel kernel is given. Plain pointers and sizes, for C++ and nvcc alike.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define PLENOXEL_HD __host__ __device__ __forceinline__
#define PLENOXEL_UNROLL _Pragma("unroll")
#else
#define PLENOXEL_HD inline
#define PLENOXEL_UNROLL
#endif

namespace plenoxel {

constexpr int kBasis = 9;               // real spherical harmonics to degree 2
constexpr int kCoefficients = 3 * kBasis;  // channel-major: R0..R8, G0..G8, B0..B8
constexpr int kCorners = 8;             // corner k of a cell is at (k >> 2, k >> 1 & 1, k & 1)

// A grid's voxels along each axis, and where it lies in the world: the whole of it, where grids are nested (nested.h).
template <typename T>
struct Box {
  int size[3];
  T center[3], radius[3];
  int levels;  // of nested grids; 1 for a grid alone
};

// One sparse grid, or `scenes` grids of one resolution and as many levels stacked along leading dimensions of `links`.
template <typename T>
struct Grid : Box<T> {
  const int32_t* links;     // [scenes, levels, Rx, Ry, Rz]: row of density and sh, or -1 where empty. No row occurs twice.
  const uint8_t* distance;  // as links: see cell_distance() in cpu.h; null where nothing marches
  const T* density;         // [V]
  const T* sh;              // [V, 27]
  int64_t scenes;
};

template <typename T>
struct Rays {
  const T* origins;      // [count, 3] world
  const T* directions;   // [count, 3] world, unit length
  const int32_t* scene;  // [count] which grid of the stack, or null: all rays in the first
  int64_t count;
  int64_t width;  // where rays are the pixels of images, in scan order: how wide these are; else 0
};

// RenderOptions of options.py, member for member.
template <typename T>
struct RenderOptions {
  T step_size;     // voxels
  T sigma_thresh;  // a sample counts if sigma > sigma_thresh
  T stop_thresh;   // a ray ends, with transmittance 0, once its transmittance is below this
  T near_clip;     // world
  T background_brightness;
  bool sh_background;  // add transmittance * background to the SH image too, on rays that hit the box
};

// Outputs of the renderer; null where not asked for.
template <typename T>
struct Image {
  T* rgb;    // [count, 3]
  T* sh;     // [count, 27]
  T* depth;  // [count] world
  T* alpha;  // [count]
};

// The loss whose gradient the fused fit step accumulates, see docs in ops.py.
template <typename T>
struct FitLoss {
  const T* target;         // [count, 3]
  const T* ray_weights;    // [count, 3] or null
  const T* depth_target;   // [count] world distance along the ray, <= 0 where unknown; or null
  T beta_lambda, sparsity_lambda, depth_lambda, free_space_lambda;
  T free_space_margin;  // world
  const T* background;     // [count, 3] colour behind the grid; null: the options' brightness
  T* transmittance;        // [count], written: how much of it is seen; or null
};

// What a fit's step changes: a grid, and the gradient and the running mean square of each of its numbers.
template <typename T>
struct FitState {
  const int32_t* links;  // [levels, Rx, Ry, Rz]
  int size[3];
  int64_t levels;
  int64_t rows;  // V
  T *density, *grad_density, *square_density;  // [V]
  T *sh, *grad_sh, *square_sh;                 // [V, 27]
  bool* touched;                               // [V]
};

// How update_grid() smooths and steps.
template <typename T>
struct UpdateOptions {
  int64_t first_cell, num_cells;      // whose total variation counts
  T density_variation, sh_variation;  // its weight a cell, 0 for none
  T density_rate, sh_rate;
  T beta, epsilon;
};

// As one machine instruction each; where one side is NaN, the second.
template <typename T>
PLENOXEL_HD T smaller(T a, T b) {
  return a < b ? a : b;
}
template <typename T>
PLENOXEL_HD T larger(T a, T b) {
  return a > b ? a : b;
}

}  // namespace plenoxel
