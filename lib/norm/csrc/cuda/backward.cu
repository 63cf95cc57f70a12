// The gradient, in two passes over the data as the forward call: one sums over all rows, one transforms.
#include "pixels.cuh"

namespace norms {
namespace {

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

}  // namespace

template <class T>
cudaError_t backward(const Shape& shape, const Tensors<T>& tensors, const Gradients<T>& gradients, void* workspace,
                     cudaStream_t stream) {
  auto* const partial = static_cast<float*>(workspace);
  return by_sixteen_bytes<T>(shape) ? backward_vectors<T, 16 / sizeof(T)>(shape, tensors, gradients, partial, stream)
                                    : backward_vectors<T, 4>(shape, tensors, gradients, partial, stream);
}

template cudaError_t backward<float>(const Shape&, const Tensors<float>&, const Gradients<float>&, void*,
                                     cudaStream_t);
template cudaError_t backward<__nv_bfloat16>(const Shape&, const Tensors<__nv_bfloat16>&,
                                             const Gradients<__nv_bfloat16>&, void*, cudaStream_t);

}  // namespace norms
