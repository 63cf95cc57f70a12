// Total variation and RMSProp, each in one launch for densities and coefficients together.
#include "../regularizer.h"
#include "kernels.h"
#include "skip.cuh"

namespace plenoxel::cuda {
namespace {

constexpr unsigned kWarp = ~0u;
constexpr int kLanes = 32;

struct Size {
  int of[3];
};

// One tensor's part in a total variation.
struct VariationLayer {
  const float* data;  // [V, channels]
  float* grad;
  int channels;  // 0: takes no part
  float scale;
  bool ignore_edge;
};

constexpr int kCellsPerWarp = 8;  // a lane reads one of a cell's four links

__device__ __forceinline__ bool begins_cell(const Size& size, int64_t cell) {
  int64_t column;  // cell / size.of[2]
  int y;
  if (cell < int64_t(1) << 32) {
    column = uint32_t(cell) / uint32_t(size.of[2]);
    y = int(uint32_t(column) % uint32_t(size.of[1]));
  } else {
    column = cell / size.of[2];
    y = int(column % size.of[1]);
  }
  return cell - column * size.of[2] < size.of[2] - 1 && y < size.of[1] - 1 &&
         column / size.of[1] % size.of[0] < size.of[0] - 1;
}

// Channel `channel` of the four voxels in `rows`: a cell's own and its +x, +y and +z neighbours.
__device__ __forceinline__ void read_channel(const VariationLayer& layer, const int32_t (&rows)[4], int channel,
                                             float (&values)[4]) {
#pragma unroll
  for (int k = 0; k < 4; ++k)
    values[k] = rows[k] >= 0 ? __ldg(layer.data + int64_t(rows[k]) * layer.channels + channel)
                : layer.ignore_edge && k ? values[0]
                                         : 0;
}

__device__ __forceinline__ void add_variation(const VariationLayer& layer, const Size& size, const int32_t (&rows)[4],
                                              int channel, const float (&values)[4]) {
  if (layer.ignore_edge && rows[0] == 0) return;  // svox2 takes row 0 for "empty" here
  float gradient[3];
  total_variation_gradient(size.of, values[0], values + 1, gradient);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const float value = k ? gradient[k - 1] : -(gradient[0] + gradient[1] + gradient[2]);
    if (rows[k] >= 0) atomicAdd(layer.grad + int64_t(rows[k]) * layer.channels + channel, layer.scale * value);
  }
}

// A warp does kCellsPerWarp consecutive cells, a lane a channel of either layer.
__global__ void __launch_bounds__(kThreads)
    variation_kernel(const int32_t* links, Size size, VariationLayer first, VariationLayer second, int64_t first_cell,
                     int64_t num_cells, bool* touched) {
  const int lane = threadIdx.x % kLanes;
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 4, cell = first_cell + i;
  const int corner = lane % 4;
  const int64_t offset = corner == 0   ? 0
                         : corner == 1 ? int64_t(size.of[1]) * size.of[2]
                         : corner == 2 ? size.of[2]
                                       : 1;
  const int32_t row = i < num_cells && begins_cell(size, cell) ? __ldg(links + cell + offset) : -1;
  if (row >= 0) touched[row] = true;
  const unsigned occupied = __ballot_sync(kWarp, row >= 0);
  if (!occupied) return;
  const int channels = first.channels + second.channels;
  for (int c = lane; c - lane < channels; c += kLanes) {
    const VariationLayer layer = c < first.channels ? first : second;
    const int channel = c < first.channels ? c : c - first.channels;
    for (int begin = 0; begin < kCellsPerWarp; begin += 4) {  // four cells' reads are under way together
      if (!(occupied >> (4 * begin) & 0xffffu)) continue;
      int32_t rows[4][4];
      float values[4][4];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int m = 0; m < 4; ++m) {
          rows[k][m] = __shfl_sync(kWarp, row, 4 * (begin + k) + m);
          if (c >= channels) rows[k][m] = -1;
        }
        read_channel(layer, rows[k], channel, values[k]);
      }
#pragma unroll
      for (int k = 0; k < 4; ++k) add_variation(layer, size, rows[k], channel, values[k]);
    }
  }
}

struct RmsProp {
  float beta, epsilon;
};

// One tensor's part in an RMSProp step.
struct UpdateLayer {
  float *param, *grad, *square;  // [V, channels]
  int channels;
  float rate;
  bool aligned;  // to 16 bytes

  __device__ __forceinline__ void update(const RmsProp& rule, float& value, float& gradient, float& mean_square) const {
    rmsprop_update(value, mean_square, gradient, rate, rule.beta, rule.epsilon);
    gradient = 0;
  }
};

constexpr int kRowsPerWarp = 32;

// Updates the rows base + k of which bit k is set in `rows`. kChannels: layer.channels where known when compiled, else 0.
template <int kChannels>
__device__ __forceinline__ void update_rows(const UpdateLayer& layer, const RmsProp& rule, int64_t base, unsigned rows,
                                            bool whole) {
  const int lane = threadIdx.x % kLanes, channels = kChannels ? kChannels : layer.channels;
  const int64_t start = base * channels;
  const int count = kRowsPerWarp * channels;
  if (!whole || !layer.aligned) {
    for (int j = lane; j < count; j += kLanes)
      if (rows >> (j / channels) & 1)
        layer.update(rule, layer.param[start + j], layer.grad[start + j], layer.square[start + j]);
    return;
  }
  float4* const param = reinterpret_cast<float4*>(layer.param + start);
  float4* const grad = reinterpret_cast<float4*>(layer.grad + start);
  float4* const square = reinterpret_cast<float4*>(layer.square + start);
  constexpr int kBatch = 4;  // reads under way together
  for (int begin = lane; begin < count / 4; begin += kBatch * kLanes) {
    float4 values[kBatch], gradients[kBatch], squares[kBatch];
    unsigned now[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int j = begin + k * kLanes;
      now[k] = 0;
      if (j < count / 4)
        for (int m = 0; m < 4; ++m) now[k] |= (rows >> ((4 * j + m) / channels) & 1) << m;
      if (now[k]) values[k] = param[j], gradients[k] = grad[j], squares[k] = square[j];
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      if (!now[k]) continue;
      if (now[k] & 1) layer.update(rule, values[k].x, gradients[k].x, squares[k].x);
      if (now[k] & 2) layer.update(rule, values[k].y, gradients[k].y, squares[k].y);
      if (now[k] & 4) layer.update(rule, values[k].z, gradients[k].z, squares[k].z);
      if (now[k] & 8) layer.update(rule, values[k].w, gradients[k].w, squares[k].w);
      const int j = begin + k * kLanes;
      param[j] = values[k], grad[j] = gradients[k], square[j] = squares[k];
    }
  }
}

constexpr int kAbsent = -1;

// A warp looks at 32 rows. kFirst, kSecond: channels of the layers where known, else 0; kAbsent: there is no second layer.
template <int kFirst, int kSecond>
__global__ void __launch_bounds__(kThreads)
    update_kernel(UpdateLayer first, UpdateLayer second, RmsProp rule, int64_t rows, const bool* touched, bool* clear) {
  const int lane = threadIdx.x % kLanes;
  const int64_t row = int64_t(blockIdx.x) * kThreads + threadIdx.x, base = row - lane;
  const bool mine = row < rows && (!touched || touched[row]);
  const unsigned all = __ballot_sync(kWarp, mine);
  if (!all) return;
  if (mine && clear) clear[row] = false;
  const bool whole = base + kRowsPerWarp <= rows;
  update_rows<kFirst>(first, rule, base, all, whole);
  if (kSecond != kAbsent) update_rows<kSecond>(second, rule, base, all, whole);
}

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % sizeof(float4) == 0; }

UpdateLayer update_layer(float* param, float* grad, float* square, int channels, float rate) {
  return {param, grad, square, channels, rate, aligned(param) && aligned(grad) && aligned(square)};
}

}  // namespace

void rmsprop(float* param, float* grad, float* mean_square, const bool* touched, int64_t rows, int channels,
             float learning_rate, float beta, float epsilon, Stream stream) {
  if (rows == 0) return;
  const auto kernel = channels == 1               ? update_kernel<1, kAbsent>
                      : channels == kCoefficients ? update_kernel<kCoefficients, kAbsent>
                                                  : update_kernel<0, kAbsent>;
  kernel<<<blocks_for(rows), kThreads, 0, stream>>>(update_layer(param, grad, mean_square, channels, learning_rate),
                                                    UpdateLayer{}, RmsProp{beta, epsilon}, rows, touched, nullptr);
}

void update_grid(const FitState<float>& state, const UpdateOptions<float>& options, Stream stream) {
  if (options.num_cells > 0 && (options.density_variation != 0 || options.sh_variation != 0)) {
    const VariationLayer density{state.density, state.grad_density, options.density_variation != 0 ? 1 : 0,
                                 options.density_variation, false};
    const VariationLayer sh{state.sh, state.grad_sh, options.sh_variation != 0 ? kCoefficients : 0, options.sh_variation,
                            true};
    variation_kernel<<<blocks_for(4 * options.num_cells), kThreads, 0, stream>>>(
        state.links, {{state.size[0], state.size[1], state.size[2]}}, sh, density, options.first_cell, options.num_cells,
        state.touched);
  }
  if (state.rows == 0) return;
  update_kernel<kCoefficients, 1><<<blocks_for(state.rows), kThreads, 0, stream>>>(
      update_layer(state.sh, state.grad_sh, state.square_sh, kCoefficients, options.sh_rate),
      update_layer(state.density, state.grad_density, state.square_density, 1, options.density_rate),
      RmsProp{options.beta, options.epsilon}, state.rows, state.touched, state.touched);
}

}  // namespace plenoxel::cuda
