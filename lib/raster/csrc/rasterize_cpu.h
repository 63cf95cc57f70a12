// CPU driver: plain pointers, no PyTorch.
#pragma once

#include <cstdint>

#include "triangle.h"

namespace raster {

template <class Index>
struct Meshes {           // one mesh after the other
  const float* vertices;  // [Nv, 3]
  const Index* faces;     // [F, 3], indices into all vertices
};

struct View {
  const double* world_to_camera;  // [4, 4]
  const double* intrinsics;       // [3, 3]
  int64_t vertex_begin, vertex_end, face_begin, face_end;
};

struct Outputs {       // [B, H, W] and [B, H, W, 3]; null where not wanted
  int32_t* face;
  float* depth;
  float* barycentric;
};

constexpr int64_t kNoBadFace = -1;

// Rasterizes all views. Returns kNoBadFace, or the largest index of a face that names a vertex outside its mesh; such
// faces are not drawn.
template <class Index>
int64_t rasterize_cpu(const Meshes<Index>& meshes, const View* views, int64_t num_views, const Image& image,
                      int num_threads, const Outputs& outputs);

}  // namespace raster
