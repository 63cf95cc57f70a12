// How a block's threads share rows of channels, and how their sums are added.
//
// A thread keeps V neighbouring channels (16 bytes) and walks down the rows, so that a warp reads whole rows, the
// channels' constants stay in registers, and sums need no atomics: each block adds its threads' in a fixed order, and
// a small kernel adds the blocks'. The same input gives the same bits.
#pragma once

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

int blocks_of(const Shape& shape, int vector) {
  const int64_t rows_of_block = kThreads / (shape.channels / vector);
  const int64_t blocks = (shape.rows + rows_of_block - 1) / rows_of_block;
  return static_cast<int>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

template <class T>
bool by_sixteen_bytes(const Shape& shape) {
  constexpr int vector = 16 / sizeof(T);
  return shape.channels % vector == 0 && shape.residual_channels % vector == 0;
}

}  // namespace
}  // namespace norms
