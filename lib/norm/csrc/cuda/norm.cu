// Two passes over the data each way, the least that batch normalisation needs: one sums over all rows, one transforms.
//
// A thread keeps V neighbouring channels (16 bytes) and walks down the rows, so that a warp reads whole rows, the
// channels' constants stay in registers, and sums need no atomics: each block adds its threads' in a fixed order, and
// a small kernel adds the blocks'. The same input gives the same bits.
#include <cuda_bf16.h>

#include "norm.h"

namespace norms {
namespace {

constexpr int kThreads = 256;
constexpr int kMostBlocks = 528;  // four on each of an H100's multiprocessors
constexpr int kStatistics = 2;

template <class T, int V>
struct alignas(sizeof(T) * V) Vector {
  T values[V];
};

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline void store(float value, float& to) { to = value; }
__device__ inline void store(float value, __nv_bfloat16& to) { to = __float2bfloat16(value); }

template <class T, int V>
__device__ inline void load(const T* from, float (&to)[V]) {
  const auto raw = *reinterpret_cast<const Vector<T, V>*>(from);
#pragma unroll
  for (int i = 0; i < V; ++i) to[i] = to_float(raw.values[i]);
}

template <class T, int V>
__device__ inline void save(const float (&from)[V], T* to) {
  Vector<T, V> raw;
#pragma unroll
  for (int i = 0; i < V; ++i) store(from[i], raw.values[i]);
  *reinterpret_cast<Vector<T, V>*>(to) = raw;
}

__device__ inline float slope_of(const Slope& slope) { return slope.learned ? *slope.learned : slope.fixed; }
__device__ inline float activate(float x, float slope) { return x > 0 ? x : slope * x; }

// Which channels and rows a thread has.
template <int V>
struct Walk {
  int groups, lane, row_in_block, rows_of_block;
  int channel;
  bool idle;

  __device__ explicit Walk(int channels) {
    groups = channels / V;
    rows_of_block = kThreads / groups;
    lane = threadIdx.x % groups;
    row_in_block = threadIdx.x / groups;
    channel = lane * V;
    idle = row_in_block >= rows_of_block;
  }
  __device__ int64_t first() const { return static_cast<int64_t>(blockIdx.x) * rows_of_block + row_in_block; }
  __device__ int64_t stride() const { return static_cast<int64_t>(gridDim.x) * rows_of_block; }
};

// Adds a block's sums of each channel and writes them to partial[channel][block].
template <int V>
__device__ void sum_of_block(const Walk<V>& walk, float (&sums)[V], int channels, float* partial) {
  __shared__ float shared[kThreads * V];
  const bool by_warps = 32 % walk.groups == 0;
  int rows = walk.rows_of_block;
  int row = walk.row_in_block;
  bool writes = !walk.idle;
  if (by_warps) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      for (int offset = walk.groups; offset < 32; offset *= 2) {
        sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], offset);
      }
    }
    rows = kThreads / 32;
    row = threadIdx.x / 32;
    writes = threadIdx.x % 32 < walk.groups;
  }
  __syncthreads();
  if (writes) {
#pragma unroll
    for (int i = 0; i < V; ++i) shared[row * channels + walk.channel + i] = sums[i];
  }
  __syncthreads();
  for (int channel = threadIdx.x; channel < channels; channel += kThreads) {
    float sum = 0;
    for (int r = 0; r < rows; ++r) sum += shared[r * channels + channel];
    partial[static_cast<int64_t>(channel) * gridDim.x + blockIdx.x] = sum;
  }
}

__device__ void sum_of_block(float value, float* partial) {
  __shared__ float shared[kThreads / 32];
  for (int offset = 16; offset; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x == 0) {
    float sum = 0;
    for (int warp = 0; warp < kThreads / 32; ++warp) sum += shared[warp];
    partial[blockIdx.x] = sum;
  }
}

// The sum of a block-wide kernel's partial sums, in every thread of the first warp.
__device__ double sum_of_partials(const float* partial, int count) {
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += 32) sum += partial[i];
  for (int offset = 16; offset; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  return sum;
}

// Sums and sums of squares of what each channel differs from its first row's value, so that little cancels.
template <class T, int V>
__global__ void __launch_bounds__(kThreads) statistics(Shape shape, const T* x, float* partial) {
  const Walk<V> walk(shape.channels);
  float sums[V] = {}, squares[V] = {};
  if (!walk.idle) {
    float shift[V];
    load<T, V>(x + walk.channel, shift);
#pragma unroll 4
    for (int64_t row = walk.first(); row < shape.rows; row += walk.stride()) {
      float value[V];
      load<T, V>(x + row * shape.channels + walk.channel, value);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const float difference = value[i] - shift[i];
        sums[i] += difference;
        squares[i] += difference * difference;
      }
    }
  }
  sum_of_block<V>(walk, sums, shape.channels, partial);
  sum_of_block<V>(walk, squares, shape.channels, partial + static_cast<int64_t>(shape.channels) * gridDim.x);
}

template <class T>
__global__ void finish_statistics(Shape shape, const T* x, const float* partial, int blocks, float* mean,
                                  float* inverse_std, Running running) {
  const int channel = blockIdx.x;
  const double count = static_cast<double>(shape.rows);
  const double sum = sum_of_partials(partial + static_cast<int64_t>(channel) * blocks, blocks) / count;
  const double squares =
      sum_of_partials(partial + static_cast<int64_t>(shape.channels + channel) * blocks, blocks) / count;
  if (threadIdx.x) return;
  const double center = to_float(x[channel]) + sum;
  const double variance = fmax(squares - sum * sum, 0.0);
  mean[channel] = static_cast<float>(center);
  inverse_std[channel] = static_cast<float>(1.0 / sqrt(variance + running.epsilon));
  const double unbiased = variance * (count / fmax(count - 1, 1.0));
  const float momentum = running.momentum;
  running.mean[channel] += momentum * (static_cast<float>(center) - running.mean[channel]);
  running.variance[channel] += momentum * (static_cast<float>(unbiased) - running.variance[channel]);
  if (channel == 0) ++*running.batches;
}

// A channel's constants, and what a pixel of it becomes.
template <class T, int V>
struct Channels {
  float mean[V], inverse_std[V], weight[V], bias[V];
  float inner, outer;

  __device__ Channels(const Tensors<T>& tensors, int channel) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      mean[i] = tensors.mean[channel + i];
      inverse_std[i] = tensors.inverse_std[channel + i];
      weight[i] = tensors.weight[channel + i];
      bias[i] = tensors.bias[channel + i];
    }
    inner = slope_of(tensors.inner);
    outer = slope_of(tensors.outer);
  }
  __device__ float normalised(float x, int i) const { return (x - mean[i]) * inverse_std[i]; }
};

template <class T, int V>
__device__ inline void load_keep(const Tensors<T>& tensors, const Shape& shape, int64_t row, int channel,
                                 float (&keep)[V]) {
  const int64_t image = tensors.keep ? static_cast<uint32_t>(row) / static_cast<uint32_t>(shape.pixels) : 0;
#pragma unroll
  for (int i = 0; i < V; ++i) keep[i] = tensors.keep ? tensors.keep[image * shape.channels + channel + i] : 1.0f;
}

template <class T, int V>
__device__ inline void load_residual(const Tensors<T>& tensors, const Shape& shape, int64_t row, int channel,
                                     float (&residual)[V]) {
  if (channel < shape.residual_channels) {
    load<T, V>(tensors.residual + row * shape.residual_channels + channel, residual);
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) residual[i] = 0;
  }
}

template <class T, int V, bool Residual>
__global__ void __launch_bounds__(kThreads) transform(Shape shape, Tensors<T> tensors, T* out) {
  const Walk<V> walk(shape.channels);
  if (walk.idle) return;
  const Channels<T, V> channels(tensors, walk.channel);
#pragma unroll 2
  for (int64_t row = walk.first(); row < shape.rows; row += walk.stride()) {
    float value[V];
    load<T, V>(tensors.x + row * shape.channels + walk.channel, value);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      value[i] = activate(channels.normalised(value[i], i) * channels.weight[i] + channels.bias[i], channels.inner);
    }
    if (Residual) {
      float residual[V], keep[V];
      load_residual<T, V>(tensors, shape, row, walk.channel, residual);
      load_keep<T, V>(tensors, shape, row, walk.channel, keep);
#pragma unroll
      for (int i = 0; i < V; ++i) value[i] = activate(residual[i] + keep[i] * value[i], channels.outer);
    }
    save<T, V>(value, out + row * shape.channels + walk.channel);
  }
}

// The gradient at a pixel on its way back to the normalised values.
struct Pixel {
  float normalised;        // value of x
  float to_normalised;     // gradient of weight * normalised + bias
  float to_sum;            // of residual + keep * inner(...)
  float to_inner, to_outer;  // this pixel's part in the slopes' gradients
};

template <class T, int V, bool Residual>
__device__ inline Pixel backward_pixel(const Channels<T, V>& channels, int i, float x, float residual, float keep,
                                       float gradient) {
  Pixel pixel{};
  pixel.normalised = channels.normalised(x, i);
  const float y = pixel.normalised * channels.weight[i] + channels.bias[i];
  if (Residual) {
    const float sum = residual + keep * activate(y, channels.inner);
    if (!(sum > 0)) {
      pixel.to_outer = gradient * sum;
      gradient *= channels.outer;
    }
    pixel.to_sum = gradient;
    gradient *= keep;
  }
  if (!(y > 0)) {
    pixel.to_inner = gradient * y;
    gradient *= channels.inner;
  }
  pixel.to_normalised = gradient;
  return pixel;
}

template <class T, int V, bool Residual>
__global__ void __launch_bounds__(kThreads) backward_sums(Shape shape, Tensors<T> tensors, const T* gradient,
                                                          float* partial) {
  const Walk<V> walk(shape.channels);
  float sums[V] = {}, products[V] = {};
  float inner = 0, outer = 0;
  if (!walk.idle) {
    const Channels<T, V> channels(tensors, walk.channel);
#pragma unroll 2
    for (int64_t row = walk.first(); row < shape.rows; row += walk.stride()) {
      float x[V], out[V], residual[V] = {}, keep[V] = {};
      load<T, V>(tensors.x + row * shape.channels + walk.channel, x);
      load<T, V>(gradient + row * shape.channels + walk.channel, out);
      if (Residual) {
        load_residual<T, V>(tensors, shape, row, walk.channel, residual);
        load_keep<T, V>(tensors, shape, row, walk.channel, keep);
      }
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const Pixel pixel = backward_pixel<T, V, Residual>(channels, i, x[i], residual[i], keep[i], out[i]);
        sums[i] += pixel.to_normalised;
        products[i] += pixel.to_normalised * pixel.normalised;
        inner += pixel.to_inner;
        outer += pixel.to_outer;
      }
    }
  }
  const int64_t all = static_cast<int64_t>(shape.channels) * gridDim.x;
  sum_of_block<V>(walk, sums, shape.channels, partial);
  sum_of_block<V>(walk, products, shape.channels, partial + all);
  sum_of_block(inner, partial + kStatistics * all);
  if (Residual) sum_of_block(outer, partial + kStatistics * all + gridDim.x);
}

template <class T>
__global__ void finish_backward(int channels, const float* partial, int blocks, Gradients<T> gradients) {
  const int index = blockIdx.x;
  const double sum = sum_of_partials(partial + static_cast<int64_t>(index) * blocks, blocks);
  if (threadIdx.x) return;
  float* const to = index < channels       ? gradients.bias + index
                    : index < 2 * channels ? gradients.weight + (index - channels)
                    : index == 2 * channels ? gradients.inner
                                            : gradients.outer;
  *to = static_cast<float>(sum);
}

template <class T, int V, bool Residual>
__global__ void __launch_bounds__(kThreads) backward_transform(Shape shape, Tensors<T> tensors,
                                                               Gradients<T> gradients) {
  const Walk<V> walk(shape.channels);
  if (walk.idle) return;
  const Channels<T, V> channels(tensors, walk.channel);
  const float share = 1.0f / static_cast<float>(shape.rows);
  float mean[V], product[V];
#pragma unroll
  for (int i = 0; i < V; ++i) {
    mean[i] = gradients.bias[walk.channel + i] * share;
    product[i] = gradients.weight[walk.channel + i] * share;
  }
#pragma unroll 2
  for (int64_t row = walk.first(); row < shape.rows; row += walk.stride()) {
    float x[V], out[V], residual[V] = {}, keep[V] = {};
    load<T, V>(tensors.x + row * shape.channels + walk.channel, x);
    load<T, V>(gradients.out + row * shape.channels + walk.channel, out);
    if (Residual) {
      load_residual<T, V>(tensors, shape, row, walk.channel, residual);
      load_keep<T, V>(tensors, shape, row, walk.channel, keep);
    }
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const Pixel pixel = backward_pixel<T, V, Residual>(channels, i, x[i], residual[i], keep[i], out[i]);
      x[i] = channels.weight[i] * channels.inverse_std[i] *
             (pixel.to_normalised - mean[i] - pixel.normalised * product[i]);
      residual[i] = pixel.to_sum;
    }
    save<T, V>(x, gradients.x + row * shape.channels + walk.channel);
    if (Residual && walk.channel < shape.residual_channels) {
      save<T, V>(residual, gradients.residual + row * shape.residual_channels + walk.channel);
    }
  }
}

int blocks_of(const Shape& shape, int vector) {
  const int64_t rows_of_block = kThreads / (shape.channels / vector);
  const int64_t blocks = (shape.rows + rows_of_block - 1) / rows_of_block;
  return static_cast<int>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

template <class T, int V>
cudaError_t forward_vectors(const Shape& shape, const Tensors<T>& tensors, const Running& running, T* out,
                            float* partial, cudaStream_t stream) {
  const int blocks = blocks_of(shape, V);
  statistics<T, V><<<blocks, kThreads, 0, stream>>>(shape, tensors.x, partial);
  finish_statistics<T><<<shape.channels, 32, 0, stream>>>(shape, tensors.x, partial, blocks, tensors.mean,
                                                          tensors.inverse_std, running);
  if (shape.residual_channels) {
    transform<T, V, true><<<blocks, kThreads, 0, stream>>>(shape, tensors, out);
  } else {
    transform<T, V, false><<<blocks, kThreads, 0, stream>>>(shape, tensors, out);
  }
  return cudaGetLastError();
}

template <class T, int V>
cudaError_t backward_vectors(const Shape& shape, const Tensors<T>& tensors, const Gradients<T>& gradients,
                             float* partial, cudaStream_t stream) {
  const int blocks = blocks_of(shape, V);
  const bool residual = shape.residual_channels > 0;
  const int sums = kStatistics * shape.channels + (residual ? 2 : 1);
  if (residual) {
    backward_sums<T, V, true><<<blocks, kThreads, 0, stream>>>(shape, tensors, gradients.out, partial);
  } else {
    backward_sums<T, V, false><<<blocks, kThreads, 0, stream>>>(shape, tensors, gradients.out, partial);
  }
  finish_backward<T><<<sums, 32, 0, stream>>>(shape.channels, partial, blocks, gradients);
  if (residual) {
    backward_transform<T, V, true><<<blocks, kThreads, 0, stream>>>(shape, tensors, gradients);
  } else {
    backward_transform<T, V, false><<<blocks, kThreads, 0, stream>>>(shape, tensors, gradients);
  }
  return cudaGetLastError();
}

template <class T>
bool by_sixteen_bytes(const Shape& shape) {
  constexpr int vector = 16 / sizeof(T);
  return shape.channels % vector == 0 && shape.residual_channels % vector == 0;
}

}  // namespace

size_t workspace_bytes(const Shape& shape) {
  return sizeof(float) * kMostBlocks * (kStatistics * static_cast<size_t>(shape.channels) + 2);
}

template <class T>
cudaError_t forward(const Shape& shape, const Tensors<T>& tensors, const Running& running, T* out, void* workspace,
                    cudaStream_t stream) {
  auto* const partial = static_cast<float*>(workspace);
  return by_sixteen_bytes<T>(shape)
             ? forward_vectors<T, 16 / sizeof(T)>(shape, tensors, running, out, partial, stream)
             : forward_vectors<T, 4>(shape, tensors, running, out, partial, stream);
}

template <class T>
cudaError_t backward(const Shape& shape, const Tensors<T>& tensors, const Gradients<T>& gradients, void* workspace,
                     cudaStream_t stream) {
  auto* const partial = static_cast<float*>(workspace);
  return by_sixteen_bytes<T>(shape) ? backward_vectors<T, 16 / sizeof(T)>(shape, tensors, gradients, partial, stream)
                                    : backward_vectors<T, 4>(shape, tensors, gradients, partial, stream);
}

template cudaError_t forward<float>(const Shape&, const Tensors<float>&, const Running&, float*, void*, cudaStream_t);
template cudaError_t forward<__nv_bfloat16>(const Shape&, const Tensors<__nv_bfloat16>&, const Running&,
                                            __nv_bfloat16*, void*, cudaStream_t);
template cudaError_t backward<float>(const Shape&, const Tensors<float>&, const Gradients<float>&, void*,
                                     cudaStream_t);
template cudaError_t backward<__nv_bfloat16>(const Shape&, const Tensors<__nv_bfloat16>&,
                                             const Gradients<__nv_bfloat16>&, void*, cudaStream_t);

}  // namespace norms
