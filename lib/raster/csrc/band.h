// A horizontal band of the image, small enough for the L2 cache: triangles are drawn into it, then read out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "triangle.h"

namespace raster {

constexpr int kBlock = 8;  // pixels evaluated together: one AVX-512 register of doubles
constexpr int kWideTriangle = 4 * kBlock;

// GCC and Clang vector extensions: they compile for any processor.
using Doubles = double __attribute__((vector_size(kBlock * sizeof(double))));
using Mask = int64_t __attribute__((vector_size(kBlock * sizeof(int64_t))));
using Keys = uint64_t __attribute__((vector_size(kBlock * sizeof(uint64_t))));
using Floats = float __attribute__((vector_size(kBlock * sizeof(float))));
using FloatBits = uint32_t __attribute__((vector_size(kBlock * sizeof(uint32_t))));

inline bool any(const Mask& mask) {
  int64_t bits = 0;
  for (int i = 0; i < kBlock; ++i) bits |= mask[i];
  return bits != 0;
}

struct RowEdge {  // an edge function along a row of pixels
  double a, rest, slack;
  RowEdge(const Edge& edge, double py) : a(edge.a), rest(multiply(edge.b, py) + edge.c), slack(edge.slack) {}
};

class Band {
 public:
  Band(const Image& image, int row_begin, int row_end, std::vector<uint64_t>& storage)
      : image_(image), row_begin_(row_begin), row_end_(row_end),
        stride_((image.width + kBlock - 1) / kBlock * kBlock) {
    storage.assign(static_cast<size_t>(stride_) * (row_end - row_begin), 0);
    keys_ = storage.data();
  }

  const uint64_t* row(int y) const { return keys_ + static_cast<size_t>(y - row_begin_) * stride_; }

  void draw(const Triangle& triangle, const Bounds& bounds, uint32_t face) {
    const int y_end = std::min(bounds.y1, row_end_);
    for (int y = std::max(bounds.y0, row_begin_); y < y_end; ++y) {
      int x0 = bounds.x0, x1 = bounds.x1;
      if (x1 - x0 > kWideTriangle) narrow(triangle, y + 0.5, x0, x1);
      draw_row(triangle, y, x0, x1, face);
    }
  }

 private:
  uint64_t* mutable_row(int y) { return keys_ + static_cast<size_t>(y - row_begin_) * stride_; }

  // Shrinks [x0, x1) to where no edge function is surely negative, with a pixel to spare on either side.
  static void narrow(const Triangle& triangle, double py, int& x0, int& x1) {
    double low = x0, high = x1;
    for (const Edge& edge : triangle.edges) {
      if (edge.a == 0.0) continue;
      const double crossing = -(edge.b * py + edge.c) / edge.a;
      if (edge.a > 0.0) low = std::max(low, crossing - 2.0);
      if (edge.a < 0.0) high = std::min(high, crossing + 2.0);
    }
    x0 = low < high ? static_cast<int>(low) : x1;
    x1 = low < high ? static_cast<int>(high) : x1;
  }

  void draw_row(const Triangle& triangle, int y, int x0, int x1, uint32_t face) {
    const double py = y + 0.5;
    const RowEdge e0(triangle.edges[0], py), e1(triangle.edges[1], py), e2(triangle.edges[2], py);
    const double depth_row = triangle.inverse_depth[1] * py + triangle.inverse_depth[2];
    const Keys face_bits = Keys{} + (0xFFFFFFFFu - face);
    const int first = x0 / kBlock * kBlock;
    Doubles px = (first + 0.5) + Doubles{0, 1, 2, 3, 4, 5, 6, 7};
    Mask open{};
    uint64_t* keys = mutable_row(y);
    for (int x = first; x < x1; x += kBlock, px += kBlock) {
      const Doubles v0 = e0.a * px + e0.rest, v1 = e1.a * px + e1.rest, v2 = e2.a * px + e2.rest;
      const Mask inside = (v0 > e0.slack) & (v1 > e1.slack) & (v2 > e2.slack);
      open |= (v0 >= -e0.slack) & (v1 >= -e1.slack) & (v2 >= -e2.slack) & ~inside;
      Doubles depth = triangle.inverse_depth[0] * px + depth_row;
      depth = depth < triangle.farthest ? triangle.farthest + Doubles{} : depth;
      depth = depth > triangle.nearest ? triangle.nearest + Doubles{} : depth;
      const Mask visible = inside & (depth <= image_.inverse_near);
      const Floats depth_float = __builtin_convertvector(depth, Floats);
      const Keys key = (__builtin_convertvector((FloatBits)depth_float, Keys) << 32 | face_bits) & (Keys)visible;
      Keys old;
      std::memcpy(&old, keys + x, sizeof old);
      old = old > key ? old : key;
      std::memcpy(keys + x, &old, sizeof old);
    }
    if (any(open)) draw_row_exactly(triangle, y, x0, x1, face);
  }

  // For rows with pixels whose centres lie so close to an edge that rounding could decide.
  void draw_row_exactly(const Triangle& triangle, int y, int x0, int x1, uint32_t face) {
    uint64_t* keys = mutable_row(y);
    for (int x = x0; x < x1; ++x) {
      const double depth = inverse_depth(triangle, x + 0.5, y + 0.5);
      if (depth <= image_.inverse_near && covers(triangle, x + 0.5f, y + 0.5f)) {
        keys[x] = std::max(keys[x], fragment_key(depth, face));
      }
    }
  }

  const Image image_;
  const int row_begin_, row_end_, stride_;
  uint64_t* keys_;
};

}  // namespace raster
