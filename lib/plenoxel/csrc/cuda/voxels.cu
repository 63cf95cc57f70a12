// What works on voxels and points rather than rays: distance field, resampling.
#include "kernels.h"
#include "octet.cuh"

namespace plenoxel::cuda {
namespace {

struct Size {
  int of[3];
};

// 0 where a cell has an occupied corner, else 255.
__global__ void occupancy_kernel(const int32_t* links, int64_t cells, Size size, uint8_t* distance) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= cells) return;
  const int64_t z = i % size.of[2], y = i / size.of[2] % size.of[1], x = i / size.of[2] / size.of[1] % size.of[0];
  bool occupied = false;
  if (x < size.of[0] - 1 && y < size.of[1] - 1 && z < size.of[2] - 1)
    for (int corner = 0; corner < kCorners; ++corner)
      occupied = occupied || __ldg(links + i + corner_offset(size.of, corner)) >= 0;
  distance[i] = occupied ? 0 : 255;
}

// One axis of a Chebyshev distance transform: min over neighbours at offset r of max(|r|, their value).
__global__ void distance_kernel(const uint8_t* before, int64_t cells, int64_t stride, int length, uint8_t* after) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= cells) return;
  const int position = int(i / stride % length);
  int nearest = before[i];
  for (int offset = 1; offset < nearest; ++offset) {
    if (position >= offset) nearest = min(nearest, max(offset, int(__ldg(before + i - offset * stride))));
    if (position + offset < length) nearest = min(nearest, max(offset, int(__ldg(before + i + offset * stride))));
  }
  after[i] = uint8_t(nearest);
}

__global__ void __launch_bounds__(kThreads)
    sample_kernel(Grid<float> grid, const float* points, int64_t count, float* sigma, float* sh) {
  const int64_t i = ray_of_thread();
  if (i >= count) return;
  const Octet octet = Octet::mine();
  const Cell<float> cell = cell_at(grid.size, points + 3 * i);
  const int64_t index = (int64_t(cell.index[0]) * grid.size[1] + cell.index[1]) * grid.size[2] + cell.index[2];
  const int32_t row = __ldg(grid.links + index + corner_offset(grid.size, octet.lane));
  const float weight = lane_weight(cell.fraction, octet.lane);
  const float density = octet.sum(row >= 0 ? weight * __ldg(grid.density + row) : 0);
  if (octet.lane == 0) sigma[i] = density;
  float sum[kRowParts] = {};
  for (unsigned corners = octet.ballot(row >= 0); corners; corners &= corners - 1) {
    const int corner = __ffs(corners) - 1;
    const RowPart part = RowPart::read(grid.sh + int64_t(octet.from(row, corner)) * kCoefficients, octet.lane);
    const float factor = octet.from(weight, corner);
    for (int m = 0; m < kRowParts; ++m) sum[m] = __fmaf_rn(factor, part.value[m], sum[m]);
  }
  for (int m = 0; m < kRowParts; ++m)
    if (m * kOctet + octet.lane < kCoefficients) sh[i * kCoefficients + m * kOctet + octet.lane] = sum[m];
}

}  // namespace

void cell_distance(const int32_t* links, int64_t scenes, const int size[3], uint8_t* distance, uint8_t* scratch,
                   Stream stream) {
  const int64_t plane = int64_t(size[1]) * size[2], cells = scenes * size[0] * plane;
  if (cells == 0) return;
  const unsigned blocks = blocks_for(cells);
  occupancy_kernel<<<blocks, kThreads, 0, stream>>>(links, cells, {{size[0], size[1], size[2]}}, scratch);
  distance_kernel<<<blocks, kThreads, 0, stream>>>(scratch, cells, 1, size[2], distance);
  distance_kernel<<<blocks, kThreads, 0, stream>>>(distance, cells, size[2], size[1], scratch);
  distance_kernel<<<blocks, kThreads, 0, stream>>>(scratch, cells, plane, size[0], distance);
}

void sample_grid(const Grid<float>& grid, const float* points, int64_t count, float* sigma, float* sh, Stream stream) {
  if (count == 0) return;
  sample_kernel<<<blocks_for(count * kOctet), kThreads, 0, stream>>>(grid, points, count, sigma, sh);
}

}  // namespace plenoxel::cuda
