// The exact sign of a 3x3 determinant of float32 numbers, the one predicate that rasterization rests on.
//
// Everything here also compiles with nvcc. Products go through multiply(), which no compiler may fuse with an
// addition (on the host this relies on -ffp-contract=off).
#pragma once

#include <cmath>

#ifdef __CUDACC__
#define RASTER_HD __host__ __device__ __forceinline__
#define RASTER_HD_RARE __host__ __device__ __noinline__ inline
#else
#define RASTER_HD inline
#define RASTER_HD_RARE inline
#endif

namespace raster {

// Homogeneous image position of a vertex: it appears at pixel (x/w, y/w), and w is its depth in metres.
struct Point {
  float x, y, w;
};

RASTER_HD double multiply(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

// Adds `value` to a nonoverlapping expansion of `count` terms (Shewchuk 1997, grow-expansion).
RASTER_HD void grow_expansion(double* expansion, int& count, double value) {
  for (int i = 0; i < count; ++i) {
    const double term = expansion[i];
    const double sum = value + term;
    const double from_term = sum - value;
    expansion[i] = (value - (sum - from_term)) + (term - from_term);
    value = sum;
  }
  expansion[count++] = value;
}

// Adds factor * a * b * c of three float32 numbers and factor = +1 or -1; every step is exact.
RASTER_HD void add_product(double* expansion, int& count, double factor, float a, float b, float c) {
  const double pair = multiply(factor * a, b);
  const double high = multiply(pair, c);
  const double low = std::fma(pair, static_cast<double>(c), -high);
  grow_expansion(expansion, count, low);
  grow_expansion(expansion, count, high);
}

// Sign of det [a; b; c] = a . (b x c), without rounding.
RASTER_HD_RARE int determinant_sign(const Point& a, const Point& b, const Point& c) {
  double expansion[12];
  int count = 0;
  add_product(expansion, count, 1.0, a.x, b.y, c.w);
  add_product(expansion, count, -1.0, a.x, b.w, c.y);
  add_product(expansion, count, 1.0, a.y, b.w, c.x);
  add_product(expansion, count, -1.0, a.y, b.x, c.w);
  add_product(expansion, count, 1.0, a.w, b.x, c.y);
  add_product(expansion, count, -1.0, a.w, b.y, c.x);
  for (int i = count - 1; i >= 0; --i) {
    if (expansion[i] != 0.0) return expansion[i] > 0.0 ? 1 : -1;
  }
  return 0;
}

}  // namespace raster
