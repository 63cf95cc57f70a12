// The CUDA backend: kernels without torch, given device pointers, sizes and a stream. Same meaning as cpu.h, float32 only.
// Nothing here allocates or waits, so every call can be captured into a CUDA graph. Launch errors are left in
// cudaGetLastError() for the caller.
#pragma once

#include "../types.h"

struct CUstream_st;

namespace plenoxel::cuda {

using Stream = CUstream_st*;

// `scratch` has the size of `distance`.
void cell_distance(const int32_t* links, int64_t scenes, const int size[3], uint8_t* distance, uint8_t* scratch,
                   Stream stream);

void render(const Grid<float>& grid, const Rays<float>& rays, const RenderOptions<float>& options, const Image<float>& image,
            Stream stream);

void render_backward(const Grid<float>& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                     const Image<float>& cotangent, float* grad_density, float* grad_sh, Stream stream);

void fit_gradients(const Grid<float>& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                   const FitLoss<float>& loss, float* rgb, float* grad_density, float* grad_sh, bool* touched,
                   Stream stream);

void max_weight(const Grid<float>& grid, const Rays<float>& rays, const RenderOptions<float>& options, float* weights,
                Stream stream);

void rmsprop(float* param, float* grad, float* mean_square, const bool* touched, int64_t rows, int channels,
             float learning_rate, float beta, float epsilon, Stream stream);

void update_grid(const FitState<float>& state, const UpdateOptions<float>& options, Stream stream);

void sample_grid(const Grid<float>& grid, const float* points, int64_t count, float* sigma, float* sh, Stream stream);

constexpr int kPackedRow = 32;  // numbers in a packed row: 27 coefficients and zeros, so that rows are whole cache lines
constexpr int kUnit = 27;       // of a row of bytes, the number that is 1
constexpr int32_t kMayClamp = 1 << 30;  // flag on a packed cell's row: its colour is below 0 from some direction

// The occupied cells of 32 consecutive ones: bit i of `bits` is set if cell 32 w + i is occupied, and its entry in the
// table of cells is then `first` + the number of set bits below i.
struct CellWord {
  uint32_t bits, first;
};

// What a ray needs of an occupied cell, in one 64-byte read.
struct PackedCell {
  int32_t row[kCorners];    // -1 where empty; kMayClamp may be set
  float density[kCorners];  // 0 where empty
};

// A grid laid out for rendering; see packing.cu. `scenes` grids of one resolution and as many levels may be stacked.
struct PackedGrid : Box<float> {
  const uint8_t* ahead;  // [8, scenes, levels, Rx, Ry, Rz] see distance_ahead
  const CellWord* words;
  const PackedCell* cells;
  const float* rows;         // [V, kPackedRow], unless
  const uint8_t* codes;      // [V, kPackedRow] are: then coefficient k is codes[k] * scale[k] + low[k]
  const float *low, *scale;  // [27] each, or null
  bool clamps;               // some row may clamp
  int64_t scenes;
};

constexpr int kOctants = 8;  // of ray directions: 4 is set where x grows along the ray, 2 where y, 1 where z does

// ahead [8, scenes, Rx, Ry, Rz]: as `distance`, but by the occupied cells that a ray into this octant can still meet. About
// twice as far. `scratch` has twice the size of `distance`.
void distance_ahead(const uint8_t* distance, int64_t scenes, const int size[3], uint8_t* ahead, uint8_t* scratch,
                    Stream stream);

// Fills words [ceil(cells / 32)], counting the occupied cells in *occupied, which must be 0 before.
void number_cells(const uint8_t* distance, int64_t cells, CellWord* words, uint32_t* occupied, Stream stream);

// Fills out [occupied], the number that number_cells counted. may_clamp [V].
void pack_cells(const Grid<float>& grid, const CellWord* words, const bool* may_clamp, int64_t occupied, PackedCell* out,
                Stream stream);

// Fills codes [V, kPackedRow]: the nearest to sh [V, 27], then 1 and zeros.
void pack_codes(const float* sh, const float* low, const float* scale, int64_t rows, uint8_t* codes, Stream stream);

// As render(). image_width > 0 tells that consecutive rays are the pixels of images so wide, in scan order: they are then
// walked in tiles.
void render_packed(const PackedGrid& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                   const Image<float>& image, int64_t image_width, Stream stream);

}  // namespace plenoxel::cuda
