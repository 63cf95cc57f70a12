// A warp as four octets of lanes: an octet a cell, a lane a corner. Every function is for the whole warp at once.
#pragma once

#include "cells.cuh"

namespace plenoxel::cuda {

constexpr int kOctet = 8;  // lanes
constexpr int kOctets = kLanes / kOctet;

struct FourOctets {
  __device__ __forceinline__ static int corner() { return threadIdx.x % kOctet; }
  __device__ __forceinline__ static int octet() { return lane_of_thread() / kOctet; }
  template <typename T>
  __device__ __forceinline__ static T from_corner(T value, int corner) {
    return __shfl_sync(kWarp, value, octet() * kOctet + corner);
  }
  // Whether any lane of an octet is set in a ballot.
  __device__ __forceinline__ static bool in_octet(unsigned ballot, int octet) {
    return (ballot >> (octet * kOctet) & 0xffu) != 0;
  }
  // The sum over the octets before this one, and over all.
  __device__ __forceinline__ static float sum_before(float value, float& total) {
    float sum = value;
    for (int step = kOctet; step < kLanes; step <<= 1) {
      const float other = __shfl_up_sync(kWarp, sum, step);
      if (lane_of_thread() >= step) sum += other;
    }
    total = __shfl_sync(kWarp, sum, kLanes - kOctet + corner());
    const float before = __shfl_up_sync(kWarp, sum, kOctet);
    return octet() ? before : 0;
  }

  // Corner of the cell before where this lane's corner was, or -1.
  __device__ __forceinline__ static int corner_before(const int before[3], const int after[3], int corner) {
    int from = 0;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
      const int source = (corner >> (2 - axis) & 1) + after[axis] - before[axis];
      from = from >= 0 && (source == 0 || source == 1) ? from * 2 + source : -1;
    }
    return from;
  }

  // Sums four numbers over each octet; lane l gets the sum of number l % 4.
  __device__ __forceinline__ static float transposed_sum(const float (&values)[4]) {
    const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
    const float first = (odd ? values[1] : values[0]) + __shfl_xor_sync(kWarp, odd ? values[0] : values[1], 1);
    const float second = (odd ? values[3] : values[2]) + __shfl_xor_sync(kWarp, odd ? values[2] : values[3], 1);
    const float sum = (high ? second : first) + __shfl_xor_sync(kWarp, high ? first : second, 2);
    return sum + __shfl_xor_sync(kWarp, sum, 4);
  }

  __device__ __forceinline__ static float corner_share(const float fraction[3]) {
    float share = 1;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) share *= corner() >> (2 - axis) & 1 ? fraction[axis] : 1 - fraction[axis];
    return share;
  }
};

}  // namespace plenoxel::cuda
