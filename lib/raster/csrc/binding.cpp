// Registers torch.ops.raster; the only file of this extension that knows PyTorch.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <tuple>
#include <vector>

#include "rasterize_cpu.h"

#ifdef WITH_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/rasterize_cuda.h"
#endif

namespace {

using at::Tensor;
using raster::View;

std::vector<View> make_views(const Tensor& world_to_camera, const Tensor& intrinsics,
                             const Tensor& mesh_ranges) {
  const double* camera = world_to_camera.const_data_ptr<double>();
  const double* k = intrinsics.const_data_ptr<double>();
  const int64_t* range = mesh_ranges.const_data_ptr<int64_t>();
  const int64_t next = mesh_ranges.size(0) == 1 ? 0 : 4;
  std::vector<View> views(world_to_camera.size(0));
  for (size_t i = 0; i < views.size(); ++i, camera += 16, k += 9, range += next) {
    views[i] = {camera, k, range[0], range[1], range[2], range[3]};
  }
  return views;
}

constexpr int64_t kLargestImage = 16384;  // LARGEST_IMAGE of ops.py
constexpr int64_t kMostItems = (int64_t(1) << 31) - 1;

// A size below 0 stands for any.
void check_shape(const Tensor& tensor, const char* name, std::initializer_list<int64_t> shape) {
  bool fits = tensor.is_contiguous() && tensor.dim() == static_cast<int64_t>(shape.size());
  int64_t dimension = 0;
  for (const int64_t size : shape) {
    fits = fits && (size < 0 || tensor.size(dimension) == size);
    ++dimension;
  }
  TORCH_CHECK(fits, name, " must be contiguous and of the shape ", at::IntArrayRef(shape), " (-1: any), got ",
              tensor.sizes());
}

// Every view's vertices and faces are among those given.
void check_ranges(const Tensor& mesh_ranges, int64_t views, int64_t vertices, int64_t faces) {
  TORCH_CHECK(mesh_ranges.scalar_type() == at::kLong && mesh_ranges.is_cpu(), "mesh_ranges must be int64 on the CPU");
  check_shape(mesh_ranges, "mesh_ranges", {-1, 4});
  TORCH_CHECK(mesh_ranges.size(0) == 1 || mesh_ranges.size(0) == views,
              "mesh_ranges must be one for all views or one for each");
  const int64_t* range = mesh_ranges.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < mesh_ranges.size(0); ++i, range += 4)
    TORCH_CHECK(0 <= range[0] && range[0] <= range[1] && range[1] <= vertices && 0 <= range[2] && range[2] <= range[3] &&
                    range[3] <= faces,
                "mesh_ranges name vertices ", range[0], " to ", range[1], " of ", vertices, " and faces ", range[2], " to ",
                range[3], " of ", faces);
}

void check_inputs(const Tensor& vertices, const Tensor& faces, const Tensor& world_to_camera,
                  const Tensor& intrinsics, const Tensor& mesh_ranges, int64_t height, int64_t width, double near) {
  TORCH_CHECK(vertices.scalar_type() == at::kFloat, "vertices must be float32, got ", vertices.scalar_type());
  check_shape(vertices, "vertices", {-1, 3});
  TORCH_CHECK(faces.scalar_type() == at::kInt || faces.scalar_type() == at::kLong,
              "faces must be int32 or int64, got ", faces.scalar_type());
  check_shape(faces, "faces", {-1, 3});
  TORCH_CHECK(vertices.size(0) <= kMostItems && faces.size(0) <= kMostItems,
              "at most 2^31 - 1 vertices and faces in one call, got ", vertices.size(0), " and ", faces.size(0));
  TORCH_CHECK(world_to_camera.scalar_type() == at::kDouble && intrinsics.scalar_type() == at::kDouble,
              "world_to_camera and intrinsics must be float64, got ", world_to_camera.scalar_type(), " and ",
              intrinsics.scalar_type());
  check_shape(world_to_camera, "world_to_camera", {-1, 4, 4});
  check_shape(intrinsics, "intrinsics", {world_to_camera.size(0), 3, 3});
  for (const Tensor* tensor : {&faces, &world_to_camera, &intrinsics})
    TORCH_CHECK(tensor->device() == vertices.device(), "all tensors but mesh_ranges must be on one device, got ",
                vertices.device(), " and ", tensor->device());
  check_ranges(mesh_ranges, world_to_camera.size(0), vertices.size(0), faces.size(0));
  TORCH_CHECK(1 <= height && height <= kLargestImage && 1 <= width && width <= kLargestImage, "image size ", height, " x ",
              width, " is outside 1 to ", kLargestImage, " pixels");
  TORCH_CHECK(std::isfinite(static_cast<float>(near)) && static_cast<float>(near) > 0,
              "near must be positive and finite in float32, got ", near);
}

struct Fragments {
  Tensor face, depth, barycentric, bad_face;

  Fragments(int64_t views, int64_t height, int64_t width, bool with_depth, bool with_barycentric,
            const at::TensorOptions& options) {
    face = at::empty({views, height, width}, options.dtype(at::kInt));
    depth = at::empty({with_depth ? views : 0, height, width}, options.dtype(at::kFloat));
    barycentric = at::empty({with_barycentric ? views : 0, height, width, 3}, options.dtype(at::kFloat));
    bad_face = at::empty({1}, options.dtype(at::kLong));
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor> tensors() const { return {face, depth, barycentric, bad_face}; }

  raster::Outputs pointers() const {
    return {face.data_ptr<int32_t>(), depth.numel() ? depth.data_ptr<float>() : nullptr,
            barycentric.numel() ? barycentric.data_ptr<float>() : nullptr};
  }
};

using Result = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Result rasterize_cpu(const Tensor& vertices, const Tensor& faces, const Tensor& world_to_camera,
                     const Tensor& intrinsics, const Tensor& mesh_ranges, int64_t height, int64_t width, double near,
                     bool with_depth, bool with_barycentric) {
  check_inputs(vertices, faces, world_to_camera, intrinsics, mesh_ranges, height, width, near);
  const std::vector<View> views = make_views(world_to_camera, intrinsics, mesh_ranges);
  const raster::Image image(height, width, near);
  Fragments out(world_to_camera.size(0), height, width, with_depth, with_barycentric, vertices.options());
  const float* points = vertices.const_data_ptr<float>();
  const int64_t count = static_cast<int64_t>(views.size());
  const int threads = at::get_num_threads();
  int64_t& bad_face = *out.bad_face.mutable_data_ptr<int64_t>();
  if (faces.scalar_type() == at::kInt) {
    bad_face = raster::rasterize_cpu<int32_t>({points, faces.const_data_ptr<int32_t>()}, views.data(), count, image,
                                              threads, out.pointers());
  } else {
    bad_face = raster::rasterize_cpu<int64_t>({points, faces.const_data_ptr<int64_t>()}, views.data(), count, image,
                                              threads, out.pointers());
  }
  return out.tensors();
}

#ifdef WITH_CUDA
template <class Index>
void enqueue(const Tensor& vertices, const Tensor& faces, const raster::DeviceViews& views,
             const raster::Image& image, const Fragments& out) {
  const auto bytes = static_cast<int64_t>(raster::workspace_bytes(image, views.count, views.most_faces));
  const Tensor workspace = at::empty({bytes}, vertices.options().dtype(at::kByte));
  const raster::Meshes<Index> meshes{vertices.const_data_ptr<float>(), faces.const_data_ptr<Index>()};
  C10_CUDA_CHECK(raster::rasterize_cuda<Index>(meshes, views, image, out.pointers(),
                                               out.bad_face.mutable_data_ptr<int64_t>(), workspace.mutable_data_ptr(),
                                               c10::cuda::getCurrentCUDAStream().stream()));
}

Result rasterize_cuda(const Tensor& vertices, const Tensor& faces, const Tensor& world_to_camera,
                      const Tensor& intrinsics, const Tensor& mesh_ranges, int64_t height, int64_t width, double near,
                      bool with_depth, bool with_barycentric) {
  check_inputs(vertices, faces, world_to_camera, intrinsics, mesh_ranges, height, width, near);
  const c10::cuda::CUDAGuard guard(vertices.device());
  const raster::Image image(height, width, near);
  const int64_t count = world_to_camera.size(0);
  Fragments out(count, height, width, with_depth, with_barycentric, vertices.options());
  const int64_t* range = mesh_ranges.const_data_ptr<int64_t>();
  raster::MeshRange first{};
  if (mesh_ranges.size(0)) first = {range[0], range[1], range[2], range[3]};
  int64_t most_faces = 0;
  for (int64_t i = 0; i < mesh_ranges.size(0); ++i) {
    most_faces = std::max(most_faces, range[4 * i + 3] - range[4 * i + 2]);
  }
  // One range travels with the launches; a copy to the device would take as long as a kernel.
  Tensor ranges;
  const raster::MeshRange* device_ranges = nullptr;
  if (mesh_ranges.size(0) != 1) {
    ranges = mesh_ranges.to(vertices.device());
    device_ranges = reinterpret_cast<const raster::MeshRange*>(ranges.const_data_ptr<int64_t>());
  }
  const raster::DeviceViews views{world_to_camera.const_data_ptr<double>(), intrinsics.const_data_ptr<double>(),
                                  device_ranges, first, count, most_faces};
  if (faces.scalar_type() == at::kInt) {
    enqueue<int32_t>(vertices, faces, views, image, out);
  } else {
    enqueue<int64_t>(vertices, faces, views, image, out);
  }
  return out.tensors();
}
#endif

}  // namespace

TORCH_LIBRARY(raster, m) {
  m.def(
      "rasterize(Tensor vertices, Tensor faces, Tensor world_to_camera, Tensor intrinsics, Tensor mesh_ranges, "
      "int height, int width, float near, bool with_depth, bool with_barycentric) "
      "-> (Tensor face, Tensor depth, Tensor barycentric, Tensor bad_face)");
}

TORCH_LIBRARY_IMPL(raster, CPU, m) { m.impl("rasterize", &rasterize_cpu); }
#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(raster, CUDA, m) { m.impl("rasterize", &rasterize_cuda); }
#endif
