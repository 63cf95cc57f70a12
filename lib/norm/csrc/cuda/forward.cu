// Two passes over the data, the least that batch normalisation needs: one sums over all rows, one transforms.
#include "pixels.cuh"

namespace norms {
namespace {

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

template cudaError_t forward<float>(const Shape&, const Tensors<float>&, const Running&, float*, void*, cudaStream_t);
template cudaError_t forward<__nv_bfloat16>(const Shape&, const Tensors<__nv_bfloat16>&, const Running&,
                                            __nv_bfloat16*, void*, cudaStream_t);

}  // namespace norms
