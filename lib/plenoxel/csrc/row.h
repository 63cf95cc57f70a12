// A row of 27 coefficients in two 16-wide vectors (CPU): `low` holds 0..15 and `high` 11..26, so five stand in both and a
// row of exactly 27 numbers is read without touching its neighbour.
#pragma once

#include "interpolation.h"

namespace plenoxel {

template <typename T>
struct Wide;
template <>
struct Wide<float> {
  typedef float vector __attribute__((vector_size(64)));
  typedef float unaligned __attribute__((vector_size(64), aligned(4), may_alias));
};
template <>
struct Wide<double> {
  typedef double vector __attribute__((vector_size(128)));
  typedef double unaligned __attribute__((vector_size(128), aligned(8), may_alias));
};

constexpr int kHigh = kCoefficients - 16;  // first coefficient of `high`

template <typename T>
struct Row {
  typename Wide<T>::vector low{}, high{};

  void add_scaled(T factor, const T* row) {
    low += factor * *reinterpret_cast<const typename Wide<T>::unaligned*>(row);
    high += factor * *reinterpret_cast<const typename Wide<T>::unaligned*>(row + kHigh);
  }
  void add_scaled(T factor, const Row& other) {
    low += factor * other.low;
    high += factor * other.high;
  }
  T dot(const T* row) const {
    T sum = 0;
    for (int i = 0; i < kHigh; ++i) sum += low[i] * row[i];
    for (int i = 0; i < 16; ++i) sum += high[i] * row[i + kHigh];
    return sum;
  }
  void store(T* out) const {
    for (int i = 0; i < 16; ++i) out[i] = low[i];
    for (int i = 16; i < kCoefficients; ++i) out[i] = high[i - kHigh];
  }
};

// The basis laid out against a Row, one channel at a time, zero where a lane belongs to another channel.
template <typename T>
struct RowBasis {
  typename Wide<T>::vector red{}, green_low{}, green_high{}, blue{};
  T values[kBasis];

  explicit RowBasis(const T direction[3]) {
    sh_basis(direction, values);
    for (int b = 0; b < kBasis; ++b) {
      red[b] = values[b];
      const int green = kBasis + b;
      if (green < 16) green_low[green] = values[b];
      else green_high[green - kHigh] = values[b];
      blue[2 * kBasis + b - kHigh] = values[b];
    }
  }

  // sum_b coefficient_b Y_b per channel.
  void dot(const Row<T>& row, T out[3]) const {
    const typename Wide<T>::vector products[3] = {row.low * red, row.low * green_low + row.high * green_high,
                                                  row.high * blue};
    for (int channel = 0; channel < 3; ++channel) {
      T eight[8], four[4];
      for (int i = 0; i < 8; ++i) eight[i] = products[channel][i] + products[channel][i + 8];
      for (int i = 0; i < 4; ++i) four[i] = eight[i] + eight[i + 4];
      out[channel] = (four[0] + four[2]) + (four[1] + four[3]);
    }
  }
};

}  // namespace plenoxel
