// Rasterization mathematics shared by the CPU and CUDA drivers: projection, coverage, depth, barycentrics.
//
// Vertices are projected to homogeneous image positions and rounded to float32 once per view. A pixel centre
// p = (px, py, 1) lies in a triangle when the edge functions det[v1; v2; p], det[v2; v0; p], det[v0; v1; p] all
// have the sign of det[v0; v1; v2] (Olano & Greer 1997, "Triangle scan conversion using 2D homogeneous
// coordinates"). That needs no clipping: what lies behind the camera comes out with non-positive inverse depth.
// Edge functions are evaluated in double; where rounding could decide their sign, exact.h decides. So coverage is
// that of the float32 vertices exactly, and triangles that share an edge never overlap and never leave a gap.
#pragma once

#include <cstdint>

#include "exact.h"

namespace raster {

struct Projection {  // camera rows times intrinsics: Point = m * (x, y, z, 1)
  double m[3][4];
};

struct Image {
  int height, width;
  float near;  // metres: anything closer along the optical axis is invisible
  double inverse_near;

  Image(int64_t height, int64_t width, double near)
      : height(static_cast<int>(height)), width(static_cast<int>(width)), near(static_cast<float>(near)),
        inverse_near(1.0 / static_cast<float>(near)) {}
};

struct Bounds {  // pixels [x0, x1) x [y0, y1)
  int x0, x1, y0, y1;
};

struct Edge {     // value(px, py) = a px + b py + c, positive inside
  double a, b, c;
  double slack;  // more than the rounding error of value() anywhere in the image
};

struct Triangle {
  Edge edges[3];                 // edges[i] lies opposite vertex i
  double inverse_depth[3];       // 1/depth = i[0] px + i[1] py + i[2]
  double farthest, nearest;      // smallest and largest inverse depth of its vertices
  Point vertices[3];
  int orientation;               // sign of det[v0; v1; v2]
};

// [row][column] of K [R | t]; the last row of K is taken to be (0, 0, 1).
RASTER_HD double projection_entry(const double* world_to_camera, const double* intrinsics, int row, int column) {
  const double* camera = world_to_camera + column;
  if (row == 2) return camera[8];
  const double* k = intrinsics + 3 * row;
  return (multiply(k[0], camera[0]) + multiply(k[1], camera[4])) + multiply(k[2], camera[8]);
}

RASTER_HD float project_row(const double* m, float x, float y, float z) {
  return static_cast<float>(((multiply(m[0], x) + multiply(m[1], y)) + multiply(m[2], z)) + m[3]);
}

RASTER_HD Point project(const Projection& projection, float x, float y, float z) {
  return {project_row(projection.m[0], x, y, z), project_row(projection.m[1], x, y, z),
          project_row(projection.m[2], x, y, z)};
}

// Half-spaces that a vertex lies outside of. A face whose vertices share a bit is invisible.
enum Outcode : uint8_t { kLeft = 1, kRight = 2, kAbove = 4, kBelow = 8, kNear = 16, kNotFinite = 32 };

RASTER_HD uint8_t outcode(const Point& p, const Image& image) {
  const double x = p.x, y = p.y, w = p.w;  // comparisons are exact: 24-bit factors, 53-bit products
  const bool finite = (x - x == 0.0) & (y - y == 0.0) & (w - w == 0.0);
  return static_cast<uint8_t>((x < 0.5 * w) * kLeft | (x > (image.width - 0.5) * w) * kRight |
                              (y < 0.5 * w) * kAbove | (y > (image.height - 0.5) * w) * kBelow |
                              (p.w < image.near) * kNear | !finite * kNotFinite);
}

RASTER_HD bool is_invisible(uint8_t a, uint8_t b, uint8_t c) {
  return (a & b & c) != 0 || ((a | b | c) & kNotFinite) != 0;
}

RASTER_HD float smaller(float a, float b) { return a < b ? a : b; }
RASTER_HD float larger(float a, float b) { return a > b ? a : b; }

// Extends [low, high] by pixel coordinates of a point in front of the near plane.
RASTER_HD void extend(float x, float y, float w, float* low, float* high) {
  const float u = x / w, v = y / w;
  low[0] = smaller(low[0], u), high[0] = larger(high[0], u);
  low[1] = smaller(low[1], v), high[1] = larger(high[1], v);
}

// First pixel whose centre is at or right of `low`, kept within [0, size].
RASTER_HD int first_pixel(float low, int size) {
  const float clamped = larger(smaller(low, size + 1.0f), -1.0f);
  const int pixel = static_cast<int>(ceilf(clamped - 0.5f));
  return pixel < 0 ? 0 : (pixel > size ? size : pixel);
}

// Pixels that the part of a triangle beyond the near plane can cover; generous by 1/64 pixel, which is more than
// float32 rounding for images of up to 16384 pixels a side.
RASTER_HD Bounds pixel_bounds(const Point& p0, const Point& p1, const Point& p2, const Image& image) {
  float low[2] = {3e38f, 3e38f}, high[2] = {-3e38f, -3e38f};
  const Point* points[4] = {&p0, &p1, &p2, &p0};
  for (int i = 0; i < 3; ++i) {
    const Point &a = *points[i], &b = *points[i + 1];
    const bool a_visible = a.w >= image.near, b_visible = b.w >= image.near;
    if (a_visible) extend(a.x, a.y, a.w, low, high);
    if (a_visible != b_visible) {
      const double t = (static_cast<double>(image.near) - a.w) / (static_cast<double>(b.w) - a.w);
      extend(static_cast<float>(a.x + t * (static_cast<double>(b.x) - a.x)),
             static_cast<float>(a.y + t * (static_cast<double>(b.y) - a.y)), image.near, low, high);
    }
  }
  const float margin = 1.0f / 64.0f;
  return {first_pixel(low[0] - margin, image.width), first_pixel(high[0] + margin, image.width),
          first_pixel(low[1] - margin, image.height), first_pixel(high[1] + margin, image.height)};
}

// sign * (a x b) as an edge function.
RASTER_HD Edge make_edge(const Point& a, const Point& b, const Image& image) {
  const double ax = a.x, ay = a.y, aw = a.w, bx = b.x, by = b.y, bw = b.w;  // 24 bits: products are exact
  Edge edge{multiply(ay, bw) - multiply(aw, by), multiply(aw, bx) - multiply(ax, bw),
            multiply(ax, by) - multiply(ay, bx), 0.0};
  const double magnitude =
      std::fabs(edge.a) * (image.width + 16) + std::fabs(edge.b) * image.height + std::fabs(edge.c);
  edge.slack = magnitude * 0x1p-50;
  return edge;
}

// False when the triangle is degenerate or seen exactly edge-on: it covers nothing.
RASTER_HD bool make_triangle(const Point& p0, const Point& p1, const Point& p2, const Image& image, Triangle& t) {
  t.vertices[0] = p0, t.vertices[1] = p1, t.vertices[2] = p2;
  t.edges[0] = make_edge(p1, p2, image);
  t.edges[1] = make_edge(p2, p0, image);
  t.edges[2] = make_edge(p0, p1, image);
  const double along_x = multiply(p0.x, t.edges[0].a), along_y = multiply(p0.y, t.edges[0].b);
  const double along_w = multiply(p0.w, t.edges[0].c);
  const double determinant = (along_x + along_y) + along_w;
  const double error = (std::fabs(along_x) + std::fabs(along_y) + std::fabs(along_w)) * 0x1p-50;
  t.orientation = determinant > error ? 1 : (determinant < -error ? -1 : determinant_sign(p0, p1, p2));
  if (t.orientation == 0) return false;
  for (int i = 0; i < 3; ++i) {
    Edge& edge = t.edges[i];
    edge.a *= t.orientation, edge.b *= t.orientation, edge.c *= t.orientation;
  }
  const double size = std::fabs(determinant) > 1e-300 ? std::fabs(determinant) : 1e-300;
  const double scale = 1.0 / size;
  t.inverse_depth[0] = multiply((t.edges[0].a + t.edges[1].a) + t.edges[2].a, scale);
  t.inverse_depth[1] = multiply((t.edges[0].b + t.edges[1].b) + t.edges[2].b, scale);
  t.inverse_depth[2] = multiply((t.edges[0].c + t.edges[1].c) + t.edges[2].c, scale);
  const float closest = smaller(p0.w, smaller(p1.w, p2.w));
  t.farthest = 1.0 / static_cast<double>(larger(p0.w, larger(p1.w, p2.w)));
  t.nearest = closest > 0.0f ? 1.0 / static_cast<double>(closest) : HUGE_VAL;
  return true;
}

RASTER_HD double edge_value(const Edge& edge, double px, double py) {
  return multiply(edge.a, px) + (multiply(edge.b, py) + edge.c);
}

// Kept within the range of the vertices, since the plane of a triangle seen almost edge-on is mostly rounding.
RASTER_HD double inverse_depth(const Triangle& t, double px, double py) {
  double value = multiply(t.inverse_depth[0], px) + (multiply(t.inverse_depth[1], py) + t.inverse_depth[2]);
  value = value < t.farthest ? t.farthest : value;
  return value > t.nearest ? t.nearest : value;
}

// Whether pixel centre (px, py) is inside, exactly. A centre on an edge counts as if moved right, and infinitely
// less down: the top-left rule.
RASTER_HD bool covers(const Triangle& t, float px, float py) {
  const Point centre{px, py, 1.0f};
  for (int i = 0; i < 3; ++i) {
    const Edge& edge = t.edges[i];
    const double value = edge_value(edge, px, py);
    if (value > edge.slack) continue;
    if (value < -edge.slack) return false;
    const int first = i == 2 ? 0 : i + 1, second = i == 0 ? 2 : i - 1;
    const int side = t.orientation * determinant_sign(t.vertices[first], t.vertices[second], centre);
    if (side < 0) return false;
    if (side == 0 && !(edge.a > 0.0 || (edge.a == 0.0 && edge.b > 0.0))) return false;
  }
  return true;
}

// What competes for a pixel: the largest inverse depth wins, then the smallest face id. 0 means nothing.
RASTER_HD uint64_t fragment_key(double inverse_depth, uint32_t face) {
  union {
    float value;
    uint32_t bits;
  } depth;
  depth.value = static_cast<float>(inverse_depth);
  return static_cast<uint64_t>(depth.bits) << 32 | (0xFFFFFFFFu - face);
}

RASTER_HD uint32_t face_of_key(uint64_t key) { return 0xFFFFFFFFu - static_cast<uint32_t>(key); }

// Perspective-correct weights of the three vertices at a covered pixel centre.
RASTER_HD void barycentric(const Triangle& t, double px, double py, float* weights) {
  double values[3];
  for (int i = 0; i < 3; ++i) {
    const double value = edge_value(t.edges[i], px, py);
    values[i] = value > 0.0 ? value : 0.0;
  }
  const double sum = (values[0] + values[1]) + values[2];
  const double scale = 1.0 / sum;  // a sliver may have lost all its digits: then any point of it will do
  for (int i = 0; i < 3; ++i) weights[i] = static_cast<float>(sum > 0.0 ? multiply(values[i], scale) : 1.0 / 3.0);
}

}  // namespace raster
