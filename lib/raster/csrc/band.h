// A horizontal band of the image, small enough for the L2 cache: triangles are drawn into it, then read out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "triangle.h"

namespace raster {

constexpr int kBlock = 8;         // pixels evaluated together: one AVX-512 register of doubles
constexpr int kWideTriangle = 4 * kBlock;

class Band {
 public:
  Band(const Image& image, int row_begin, int row_end, std::vector<uint64_t>& storage)
      : image_(image), row_begin_(row_begin), row_end_(row_end),
        stride_((image.width + kBlock - 1) / kBlock * kBlock), inverse_near_(1.0 / image.near) {
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
    uint64_t* keys = mutable_row(y);
    for (int x = x0 / kBlock * kBlock; x < x1; x += kBlock) {
      if (draw_block(triangle, x, y, face, keys + x)) draw_block_exactly(triangle, x, y, face, keys + x);
    }
  }

  // Draws the pixels that are surely covered; returns whether there are others that rounding leaves open.
  bool draw_block(const Triangle& triangle, int x, int y, uint32_t face, uint64_t* keys) const {
    const double py = y + 0.5;
    const Edge &e0 = triangle.edges[0], &e1 = triangle.edges[1], &e2 = triangle.edges[2];
    const double r0 = e0.b * py + e0.c, r1 = e1.b * py + e1.c, r2 = e2.b * py + e2.c;
    const double depth_row = triangle.inverse_depth[1] * py + triangle.inverse_depth[2];
    uint64_t open = 0;
#pragma omp simd reduction(| : open)
    for (int i = 0; i < kBlock; ++i) {
      const double px = (x + i) + 0.5;
      const double v0 = e0.a * px + r0, v1 = e1.a * px + r1, v2 = e2.a * px + r2;
      double depth = triangle.inverse_depth[0] * px + depth_row;
      depth = depth < triangle.farthest ? triangle.farthest : depth;
      depth = depth > triangle.nearest ? triangle.nearest : depth;
      const bool inside = (v0 > e0.slack) & (v1 > e1.slack) & (v2 > e2.slack);
      const bool possible = (v0 >= -e0.slack) & (v1 >= -e1.slack) & (v2 >= -e2.slack);
      const bool visible = inside & (depth <= inverse_near_);
      const uint64_t key = visible ? fragment_key(depth, face) : 0;
      keys[i] = keys[i] > key ? keys[i] : key;
      open |= possible & !inside;
    }
    return open != 0;
  }

  void draw_block_exactly(const Triangle& triangle, int x, int y, uint32_t face, uint64_t* keys) const {
    for (int i = 0; i < kBlock; ++i) {
      const double depth = inverse_depth(triangle, x + i + 0.5, y + 0.5);
      if (depth <= inverse_near_ && covers_exactly(triangle, x + i + 0.5f, y + 0.5f)) {
        keys[i] = std::max(keys[i], fragment_key(depth, face));
      }
    }
  }

  const Image image_;
  const int row_begin_, row_end_, stride_;
  const double inverse_near_;
  uint64_t* keys_;
};

}  // namespace raster
