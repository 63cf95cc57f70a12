// Lays a grid out for rendering: a table of the occupied cells, found through one bit a cell. Done once per grid.
#include "kernels.h"
#include "leap.cuh"
#include "../interpolation.h"

namespace plenoxel::cuda {
namespace {

// The order of words in the table depends on the order of the blocks; what a cell's entry says does not.
__global__ void number_kernel(const uint8_t* distance, int64_t cells, CellWord* words, uint32_t* occupied) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const uint32_t bits = __ballot_sync(~0u, i < cells && distance[i] == 0);
  if (threadIdx.x % 32 == 0 && i < cells) words[i / 32] = {bits, atomicAdd(occupied, __popc(bits))};
}

struct CellSource {
  const int32_t* links;
  const CellWord* words;
  const float* density;
  const bool* may_clamp;
  int size[3];
};

__global__ void pack_kernel(CellSource source, int64_t cells, PackedCell* out) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= cells) return;
  const CellWord word = source.words[i / 32];
  const uint32_t bit = 1u << (i % 32);
  if (!(word.bits & bit)) return;
  PackedCell cell;
  for (int corner = 0; corner < kCorners; ++corner) {
    const int32_t row = __ldg(source.links + i + corner_offset(source.size, corner));
    cell.density[corner] = row >= 0 ? __ldg(source.density + row) : 0;
    cell.row[corner] = row >= 0 && source.may_clamp[row] ? row | kMayClamp : row;
  }
  out[word.first + __popc(word.bits & (bit - 1))] = cell;
}

}  // namespace

void number_cells(const uint8_t* distance, int64_t cells, CellWord* words, uint32_t* occupied, Stream stream) {
  if (cells > 0) number_kernel<<<blocks_for(cells), kThreads, 0, stream>>>(distance, cells, words, occupied);
}

void pack_cells(const int32_t* links, int64_t scenes, const int size[3], const CellWord* words, const float* density,
                const bool* may_clamp, PackedCell* cells, Stream stream) {
  const int64_t count = scenes * size[0] * size[1] * size[2];
  if (count == 0) return;
  pack_kernel<<<blocks_for(count), kThreads, 0, stream>>>({links, words, density, may_clamp, {size[0], size[1], size[2]}},
                                                          count, cells);
}

}  // namespace plenoxel::cuda
