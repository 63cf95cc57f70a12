// Ray tracing shared by the CPU and CUDA drivers: intersection with a triangle, and the walk through a tree of boxes.
//
// The test is Woop, Benthin and Wald's (2013, "Watertight ray/triangle intersection") in double: a ray through an edge
// gets opposite signs, or 0, from the two faces there, so it never passes between them. Where several faces are
// equally near, the one of the smallest index counts; what is hit depends neither on the tree nor on its order.
#pragma once

#include <cstdint>

#include "exact.h"

namespace raster {

struct Node {          // 32 bytes; the children of an inner node stand side by side
  float low[3], high[3];
  int32_t first;       // a leaf's first entry in `order`, or an inner node's first child
  int32_t count;       // faces of a leaf; 0: inner node
};

struct Tree {
  const float* vertices;  // [Nv, 3]
  const int32_t* faces;   // [F, 3]
  const Node* nodes;      // the root first
  const int32_t* order;   // face indices, leaf by leaf
  int64_t num_nodes;
};

struct Hit {
  double t;             // in lengths of the direction
  double weights[3];    // of the face's vertices
  int32_t face;         // -1: none
};

struct Ray {
  double origin[3], direction[3], inverse[3];
  int x, y, z;                // z: the axis along which it runs fastest
  double shear_x, shear_y, shear_z;
};

constexpr int kDeepest = 48;  // levels split by cost; below, by number, which ends after at most 31 more
constexpr int kStack = kDeepest + 40;

RASTER_HD double magnitude(double value) { return value < 0 ? -value : value; }

RASTER_HD Ray make_ray(const double* origin, const double* direction) {
  Ray ray;
  for (int axis = 0; axis < 3; ++axis) {
    ray.origin[axis] = origin[axis];
    ray.direction[axis] = direction[axis];
    ray.inverse[axis] = 1.0 / direction[axis];
  }
  const double a = magnitude(direction[0]), b = magnitude(direction[1]), c = magnitude(direction[2]);
  ray.z = a >= b ? (a >= c ? 0 : 2) : (b >= c ? 1 : 2);
  ray.x = ray.z == 2 ? 0 : ray.z + 1;
  ray.y = ray.x == 2 ? 0 : ray.x + 1;
  ray.shear_x = direction[ray.x] / direction[ray.z];
  ray.shear_y = direction[ray.y] / direction[ray.z];
  ray.shear_z = 1.0 / direction[ray.z];
  return ray;
}

// Where the ray enters a box: at most `far`, or larger than that when it misses. Generous by more than rounding; a ray
// within a face of the box, whose difference is 0 * infinity = NaN, is not held back by it.
RASTER_HD double entry(const Ray& ray, const Node& node, double near, double far) {
  double from = near, to = far;
  for (int axis = 0; axis < 3; ++axis) {
    double first = multiply(node.low[axis] - ray.origin[axis], ray.inverse[axis]);
    double second = multiply(node.high[axis] - ray.origin[axis], ray.inverse[axis]);
    if (first != first || second != second) continue;
    if (first > second) {
      const double other = first;
      first = second, second = other;
    }
    first -= 1e-14 * magnitude(first), second += 1e-14 * magnitude(second);
    if (first > from) from = first;
    if (second < to) to = second;
  }
  return from <= to ? from : far * 2 + 1;
}

// Replaces `hit` when the face is nearer, or as near and of a smaller index.
RASTER_HD void intersect(const Ray& ray, const Tree& tree, int32_t face, double near, Hit& hit) {
  double sheared[3][3];
  for (int corner = 0; corner < 3; ++corner) {
    const float* vertex = tree.vertices + 3 * static_cast<int64_t>(tree.faces[3 * static_cast<int64_t>(face) + corner]);
    const double along = vertex[ray.z] - ray.origin[ray.z];
    sheared[corner][0] = (vertex[ray.x] - ray.origin[ray.x]) - multiply(ray.shear_x, along);
    sheared[corner][1] = (vertex[ray.y] - ray.origin[ray.y]) - multiply(ray.shear_y, along);
    sheared[corner][2] = multiply(ray.shear_z, along);
  }
  double edge[3];
  for (int corner = 0; corner < 3; ++corner) {
    const double* b = sheared[corner == 2 ? 0 : corner + 1];
    const double* c = sheared[corner == 0 ? 2 : corner - 1];
    edge[corner] = multiply(c[0], b[1]) - multiply(c[1], b[0]);
  }
  if ((edge[0] < 0 || edge[1] < 0 || edge[2] < 0) && (edge[0] > 0 || edge[1] > 0 || edge[2] > 0)) return;
  const double determinant = (edge[0] + edge[1]) + edge[2];
  if (determinant == 0) return;
  const double sum = (multiply(edge[0], sheared[0][2]) + multiply(edge[1], sheared[1][2])) + multiply(edge[2], sheared[2][2]);
  const double t = sum / determinant;
  if (!(t >= near) || t > hit.t || (t == hit.t && hit.face >= 0 && face > hit.face)) return;
  hit.t = t, hit.face = face;
  for (int corner = 0; corner < 3; ++corner) hit.weights[corner] = edge[corner] / determinant;
}

RASTER_HD Hit trace(const Tree& tree, const double* origin, const double* direction, double near) {
  Hit hit{1e300, {0, 0, 0}, -1};
  const Ray ray = make_ray(origin, direction);
  if (tree.num_nodes == 0 || ray.shear_z - ray.shear_z != 0.0) return hit;  // no direction at all
  int32_t stack[kStack];
  int size = 0;
  stack[size++] = 0;
  while (size > 0) {
    const Node& node = tree.nodes[stack[--size]];
    if (entry(ray, node, near, hit.t) > hit.t) continue;
    if (node.count > 0) {
      for (int32_t i = 0; i < node.count; ++i) intersect(ray, tree, tree.order[node.first + i], near, hit);
      continue;
    }
    const int32_t left = node.first, right = node.first + 1;
    const bool left_first = entry(ray, tree.nodes[left], near, hit.t) <= entry(ray, tree.nodes[right], near, hit.t);
    stack[size++] = left_first ? right : left;
    stack[size++] = left_first ? left : right;
  }
  return hit;
}

}  // namespace raster
