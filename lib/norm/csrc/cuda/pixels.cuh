// What a pixel of a channel becomes: its constants, activations, dropout and residual.
#pragma once

#include "rows.cuh"

namespace norms {
namespace {

__device__ inline float slope_of(const Slope& slope) { return slope.learned ? *slope.learned : slope.fixed; }
__device__ inline float activate(float x, float slope) { return x > 0 ? x : slope * x; }

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

}  // namespace
}  // namespace norms
