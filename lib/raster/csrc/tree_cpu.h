// Builds the tree that trace.h walks: plain pointers, no PyTorch.
#pragma once

#include <cstdint>
#include <vector>

#include "trace.h"

namespace raster {

struct BuiltTree {
  std::vector<Node> nodes;
  std::vector<int32_t> order;
  int64_t bad_face;  // the largest index of a face that names a vertex that is not there, or -1; such are left out
};

// Faces with a vertex that is not finite are left out: they show nothing. At most 2^30 faces.
BuiltTree build_tree(const float* vertices, int64_t num_vertices, const int32_t* faces, int64_t num_faces);

}  // namespace raster
