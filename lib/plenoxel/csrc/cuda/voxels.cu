// What works on voxels and points rather than rays: distance field, total variation, RMSProp, resampling.
#include "../regularizer.h"
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

struct TotalVariation {
  const int32_t* links;
  const float* data;
  int channels, channel_begin, channel_end;
  float scale;
  bool ignore_edge;
  float* grad;
  bool* touched;
  Size size;

  __device__ bool begins_cell(int64_t cell) const {
    return cell % size.of[2] < size.of[2] - 1 && cell / size.of[2] % size.of[1] < size.of[1] - 1 &&
           cell / size.of[2] / size.of[1] < size.of[0] - 1;
  }
  // rows: of the cell's own voxel and of its +x, +y and +z neighbours.
  __device__ void read_rows(int64_t cell, int32_t rows[4]) const {
    rows[0] = __ldg(links + cell);
    rows[1] = __ldg(links + cell + int64_t(size.of[1]) * size.of[2]);
    rows[2] = __ldg(links + cell + size.of[2]);
    rows[3] = __ldg(links + cell + 1);
  }
  __device__ bool has_gradient(const int32_t rows[4]) const {
    return (rows[0] >= 0 || rows[1] >= 0 || rows[2] >= 0 || rows[3] >= 0) && !(ignore_edge && rows[0] == 0);
  }
  __device__ void add(const int32_t rows[4], int channel) const {
    const float own = rows[0] >= 0 ? __ldg(data + int64_t(rows[0]) * channels + channel) : 0;
    float neighbor[3], gradient[3];
    for (int axis = 0; axis < 3; ++axis)
      neighbor[axis] = rows[axis + 1] >= 0 ? __ldg(data + int64_t(rows[axis + 1]) * channels + channel)
                       : ignore_edge       ? own
                                           : 0;
    total_variation_gradient(size.of, own, neighbor, gradient);
    for (int axis = 0; axis < 3; ++axis)
      if (rows[axis + 1] >= 0) atomicAdd(grad + int64_t(rows[axis + 1]) * channels + channel, scale * gradient[axis]);
    if (rows[0] >= 0)
      atomicAdd(grad + int64_t(rows[0]) * channels + channel, -scale * (gradient[0] + gradient[1] + gradient[2]));
  }
  __device__ void touch(const int32_t rows[4]) const {
    if (touched)
      for (int corner = 0; corner < 4; ++corner)
        if (rows[corner] >= 0) touched[rows[corner]] = true;
  }
};

// One thread a cell.
__global__ void narrow_variation_kernel(TotalVariation variation, int64_t first_cell, int64_t num_cells) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= num_cells || !variation.begins_cell(first_cell + i)) return;
  int32_t rows[4];
  variation.read_rows(first_cell + i, rows);
  if (!variation.has_gradient(rows)) return;
  for (int channel = variation.channel_begin; channel < variation.channel_end; ++channel) variation.add(rows, channel);
  variation.touch(rows);
}

// A warp looks for cells with a gradient among 32, one lane a cell, then does each with one lane a channel.
__global__ void wide_variation_kernel(TotalVariation variation, int64_t first_cell, int64_t num_cells) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int lane = threadIdx.x & 31;
  int32_t own[4] = {-1, -1, -1, -1};
  if (i < num_cells && variation.begins_cell(first_cell + i)) variation.read_rows(first_cell + i, own);
  const bool mine = variation.has_gradient(own);
  if (mine) variation.touch(own);
  for (unsigned left = __ballot_sync(~0u, mine); left; left &= left - 1) {
    int32_t rows[4];
    for (int corner = 0; corner < 4; ++corner) rows[corner] = __shfl_sync(~0u, own[corner], __ffs(left) - 1);
    for (int channel = variation.channel_begin + lane; channel < variation.channel_end; channel += 32)
      variation.add(rows, channel);
  }
}

struct RmsProp {
  float learning_rate, beta, epsilon;

  __device__ __forceinline__ void update(float& value, float& mean_square, float& gradient) const {
    rmsprop_update(value, mean_square, gradient, learning_rate, beta, epsilon);
    gradient = 0;
  }
};

__global__ void rmsprop_kernel(RmsProp rule, float* param, float* grad, float* mean_square, const bool* touched,
                               int64_t first, int64_t count, int channels) {
  const int64_t i = first + int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < first + count && (!touched || touched[i / channels])) rule.update(param[i], mean_square[i], grad[i]);
}

// As above, four numbers a thread; tensors aligned to 16 bytes. kChannels: known when compiled, or 0.
template <int kChannels>
__global__ void rmsprop_vector_kernel(RmsProp rule, float4* param, float4* grad, float4* mean_square, const bool* touched,
                                      int64_t count, int any_channels) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  bool now[4] = {true, true, true, true};
  if (touched) {
    const int channels = kChannels ? kChannels : any_channels;
    for (int k = 0; k < 4; ++k) now[k] = touched[(4 * i + k) / channels];
    if (!(now[0] || now[1] || now[2] || now[3])) return;
  }
  float4 value = param[i], gradient = grad[i], square = mean_square[i];
  if (now[0]) rule.update(value.x, square.x, gradient.x);
  if (now[1]) rule.update(value.y, square.y, gradient.y);
  if (now[2]) rule.update(value.z, square.z, gradient.z);
  if (now[3]) rule.update(value.w, square.w, gradient.w);
  param[i] = value;
  grad[i] = gradient;
  mean_square[i] = square;
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

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % sizeof(float4) == 0; }

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

void total_variation(const int32_t* links, const int size[3], const float* data, int channels, int channel_begin,
                     int channel_end, int64_t first_cell, int64_t num_cells, float scale, bool ignore_edge, float* grad,
                     bool* touched, Stream stream) {
  if (num_cells == 0 || channel_begin == channel_end) return;
  const TotalVariation variation{links, data,    channels, channel_begin, channel_end, scale, ignore_edge,
                                 grad,  touched, {{size[0], size[1], size[2]}}};
  const auto kernel = channel_end - channel_begin <= 4 ? narrow_variation_kernel : wide_variation_kernel;
  kernel<<<blocks_for(num_cells), kThreads, 0, stream>>>(variation, first_cell, num_cells);
}

void rmsprop(float* param, float* grad, float* mean_square, const bool* touched, int64_t rows, int channels,
             float learning_rate, float beta, float epsilon, Stream stream) {
  const RmsProp rule{learning_rate, beta, epsilon};
  const int64_t count = rows * channels;
  const bool vectors = aligned(param) && aligned(grad) && aligned(mean_square);
  const int64_t in_vectors = vectors ? count / 4 * 4 : 0, rest = count - in_vectors;
  const auto kernel = channels == 1               ? rmsprop_vector_kernel<1>
                      : channels == kCoefficients ? rmsprop_vector_kernel<kCoefficients>
                                                  : rmsprop_vector_kernel<0>;
  if (in_vectors)
    kernel<<<blocks_for(in_vectors / 4), kThreads, 0, stream>>>(
        rule, reinterpret_cast<float4*>(param), reinterpret_cast<float4*>(grad), reinterpret_cast<float4*>(mean_square),
        touched, in_vectors / 4, channels);
  if (rest == 0) return;
  rmsprop_kernel<<<blocks_for(rest), kThreads, 0, stream>>>(rule, param, grad, mean_square, touched, in_vectors, rest,
                                                            channels);
}

void sample_grid(const Grid<float>& grid, const float* points, int64_t count, float* sigma, float* sh, Stream stream) {
  if (count == 0) return;
  sample_kernel<<<blocks_for(count * kOctet), kThreads, 0, stream>>>(grid, points, count, sigma, sh);
}

}  // namespace plenoxel::cuda
