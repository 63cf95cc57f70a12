// Lays a grid out for rendering: distances by octant and a table of the occupied cells, found through one bit a cell, once
// per index; what the cells hold, once per change of the values.
#include "kernels.h"
#include "skip.cuh"
#include "../interpolation.h"

namespace plenoxel::cuda {
namespace {

// The order of words in the table depends on the order of the blocks; what a cell's entry says does not.
__global__ void number_kernel(const uint8_t* distance, int64_t cells, CellWord* words, uint32_t* occupied) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const uint32_t bits = __ballot_sync(~0u, i < cells && distance[i] == 0);
  if (threadIdx.x % 32 == 0 && i < cells) words[i / 32] = {bits, atomicAdd(occupied, __popc(bits))};
}

// One axis and direction of a distance transform: min over the neighbours ahead, `stride` apart, of max(offset, theirs).
// The first axis starts from whether a cell is occupied.
__global__ void ahead_kernel(const uint8_t* before, bool first_axis, int64_t cells, int64_t stride, int length, bool up,
                             uint8_t* after) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= cells) return;
  const auto at = [&](int64_t cell) { return first_axis && before[cell] > 0 ? 255 : int(before[cell]); };
  const int position = int(i / stride % length), left = up ? length - 1 - position : position;
  int nearest = at(i);
  for (int offset = 1; offset < nearest && offset <= left; ++offset)
    nearest = min(nearest, max(offset, at(i + (up ? stride : -stride) * offset)));
  after[i] = uint8_t(nearest);
}

__global__ void pack_kernel(Grid<float> grid, const CellWord* words, const bool* may_clamp, int64_t cells,
                            int64_t occupied, PackedCell* out) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= cells) return;
  const CellWord word = words[i / 32];
  const uint32_t bit = 1u << (i % 32);
  if (!(word.bits & bit)) return;
  const uint32_t entry = word.first + __popc(word.bits & (bit - 1));
  if (entry >= occupied) return;  // the table is another grid's
  PackedCell cell;
  for (int corner = 0; corner < kCorners; ++corner) {
    const int32_t row = __ldg(grid.links + i + corner_offset(grid.size, corner));
    cell.density[corner] = row >= 0 ? __ldg(grid.density + row) : 0;
    cell.row[corner] = row >= 0 && may_clamp[row] ? row | kMayClamp : row;
  }
  out[entry] = cell;
}

__global__ void codes_kernel(const float* sh, const float* low, const float* scale, int64_t count, uint8_t* codes) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int k = int(i % kPackedRow);
  float code = k == kUnit;
  if (k < kCoefficients) code = rintf((sh[i / kPackedRow * kCoefficients + k] - low[k]) / (scale[k] + 1e-12f));
  codes[i] = uint8_t(fminf(fmaxf(code, 0), 255));
}

}  // namespace

void distance_ahead(const uint8_t* distance, int64_t scenes, const int size[3], uint8_t* ahead, uint8_t* scratch,
                    Stream stream) {
  const int64_t plane = int64_t(size[1]) * size[2], cells = scenes * size[0] * plane;
  if (cells == 0) return;
  const unsigned blocks = blocks_for(cells);
  uint8_t *along_z = scratch, *along_yz = scratch + cells;
  for (const int z : {0, 1}) {
    ahead_kernel<<<blocks, kThreads, 0, stream>>>(distance, true, cells, 1, size[2], z, along_z);
    for (const int y : {0, 2}) {
      ahead_kernel<<<blocks, kThreads, 0, stream>>>(along_z, false, cells, size[2], size[1], y, along_yz);
      for (const int x : {0, 4})
        ahead_kernel<<<blocks, kThreads, 0, stream>>>(along_yz, false, cells, plane, size[0], x,
                                                      ahead + (x | y | z) * cells);
    }
  }
}

void number_cells(const uint8_t* distance, int64_t cells, CellWord* words, uint32_t* occupied, Stream stream) {
  if (cells > 0) number_kernel<<<blocks_for(cells), kThreads, 0, stream>>>(distance, cells, words, occupied);
}

void pack_codes(const float* sh, const float* low, const float* scale, int64_t rows, uint8_t* codes, Stream stream) {
  const int64_t count = rows * kPackedRow;
  if (count > 0) codes_kernel<<<blocks_for(count), kThreads, 0, stream>>>(sh, low, scale, count, codes);
}

void pack_cells(const Grid<float>& grid, const CellWord* words, const bool* may_clamp, int64_t occupied, PackedCell* out,
                Stream stream) {
  const int64_t cells = grid.scenes * grid.levels * grid.size[0] * grid.size[1] * grid.size[2];
  if (occupied == 0) return;
  pack_kernel<<<blocks_for(cells), kThreads, 0, stream>>>(grid, words, may_clamp, cells, occupied, out);
}

}  // namespace plenoxel::cuda
