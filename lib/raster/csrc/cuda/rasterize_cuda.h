// CUDA driver: raw pointers on the device and a stream, no PyTorch.
#pragma once

#include <cuda_runtime_api.h>

#include "../rasterize_cpu.h"

namespace raster {

// What a view shows: vertices from, to, faces from, to.
struct MeshRange {
  int64_t vertex_begin, vertex_end, face_begin, face_end;
};

struct DeviceViews {
  const double* world_to_camera;  // [B, 4, 4] on the device
  const double* intrinsics;       // [B, 3, 3] on the device
  const MeshRange* mesh_ranges;   // [B] on the device; null where all views show common_range
  MeshRange common_range;
  int64_t count;
  int64_t most_faces;  // of any view
};

// Bytes of device memory that rasterize_cuda() needs; bounded, whatever the number of views.
size_t workspace_bytes(const Image& image, int64_t num_views, int64_t most_faces);

// Enqueues everything. Afterwards *bad_face, on the device, is kNoBadFace or the largest index of a face that names a
// vertex outside its mesh; such faces are not drawn.
template <class Index>
cudaError_t rasterize_cuda(const Meshes<Index>& meshes, const DeviceViews& views, const Image& image,
                           const Outputs& outputs, int64_t* bad_face, void* workspace, cudaStream_t stream);

}  // namespace raster
