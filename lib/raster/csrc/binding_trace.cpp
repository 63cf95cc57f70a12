// Registers ray tracing in torch.ops.raster.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>
#include <cstring>
#include <tuple>

#include "tree_cpu.h"

#ifdef WITH_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "cuda/trace_cuda.h"
#endif

namespace {

using at::Tensor;

static_assert(sizeof(raster::Node) == 32, "nodes are stored as eight 32-bit words");
constexpr int64_t kRaysAtOnce = 256;
constexpr int64_t kMostFaces = int64_t(1) << 30;

void check(const Tensor& tensor, const char* name, at::ScalarType type, int64_t columns) {
  TORCH_CHECK(tensor.scalar_type() == type && tensor.is_contiguous() && tensor.dim() == 2 && tensor.size(1) == columns,
              name, " must be contiguous ", type, " [N, ", columns, "], got ", tensor.scalar_type(), " ", tensor.sizes());
}

void check_mesh(const Tensor& vertices, const Tensor& faces) {
  check(vertices, "vertices", at::kFloat, 3);
  check(faces, "faces", at::kInt, 3);
  TORCH_CHECK(faces.size(0) <= kMostFaces && vertices.size(0) < 2 * kMostFaces, "at most 2^30 faces");
}

std::tuple<Tensor, Tensor, Tensor> build_tree(const Tensor& vertices, const Tensor& faces) {
  check_mesh(vertices, faces);
  const raster::BuiltTree built = raster::build_tree(vertices.const_data_ptr<float>(), vertices.size(0),
                                                     faces.const_data_ptr<int32_t>(), faces.size(0));
  const auto words = faces.options();
  Tensor nodes = at::empty({static_cast<int64_t>(built.nodes.size()), 8}, words);
  Tensor order = at::empty({static_cast<int64_t>(built.order.size())}, words);
  Tensor bad_face = at::empty({1}, words.dtype(at::kLong));
  if (!built.nodes.empty()) {
    std::memcpy(nodes.mutable_data_ptr(), built.nodes.data(), built.nodes.size() * sizeof(raster::Node));
    std::memcpy(order.mutable_data_ptr(), built.order.data(), built.order.size() * sizeof(int32_t));
  }
  *bad_face.mutable_data_ptr<int64_t>() = built.bad_face;
  return {nodes, order, bad_face};
}

// Nodes and order are taken to be of build_tree() for this mesh: only their shapes are checked.
void check_trace(const Tensor& vertices, const Tensor& faces, const Tensor& nodes, const Tensor& order,
                 const Tensor& origins, const Tensor& directions, double near) {
  check_mesh(vertices, faces);
  check(nodes, "nodes", at::kInt, 8);
  TORCH_CHECK(order.scalar_type() == at::kInt && order.dim() == 1 && order.is_contiguous() &&
                  order.size(0) <= faces.size(0), "order must be contiguous int32 with at most an entry for each face");
  check(origins, "origins", at::kDouble, 3);
  check(directions, "directions", at::kDouble, 3);
  TORCH_CHECK(origins.size(0) == directions.size(0), "origins and directions must be as many");
  TORCH_CHECK(std::isfinite(near) && near > 0, "near must be positive and finite, got ", near);
  for (const Tensor* tensor : {&faces, &nodes, &order, &origins, &directions})
    TORCH_CHECK(tensor->device() == vertices.device(), "all tensors must be on one device");
}

raster::Tree tree_of(const Tensor& vertices, const Tensor& faces, const Tensor& nodes, const Tensor& order) {
  return {vertices.const_data_ptr<float>(), faces.const_data_ptr<int32_t>(),
          reinterpret_cast<const raster::Node*>(nodes.const_data_ptr<int32_t>()), order.const_data_ptr<int32_t>(),
          nodes.size(0)};
}

struct Hits {
  Tensor face, depth, barycentric;

  Hits(int64_t rays, const at::TensorOptions& options)
      : face(at::empty({rays}, options.dtype(at::kInt))),
        depth(at::empty({rays}, options.dtype(at::kFloat))),
        barycentric(at::empty({rays, 3}, options.dtype(at::kFloat))) {}

  std::tuple<Tensor, Tensor, Tensor> tensors() const { return {face, depth, barycentric}; }
};

using Result = std::tuple<Tensor, Tensor, Tensor>;

Result trace_cpu(const Tensor& vertices, const Tensor& faces, const Tensor& nodes, const Tensor& order,
                 const Tensor& origins, const Tensor& directions, double near) {
  check_trace(vertices, faces, nodes, order, origins, directions, near);
  const raster::Tree tree = tree_of(vertices, faces, nodes, order);
  Hits out(origins.size(0), vertices.options());
  const double *from = origins.const_data_ptr<double>(), *along = directions.const_data_ptr<double>();
  int32_t* face = out.face.mutable_data_ptr<int32_t>();
  float *depth = out.depth.mutable_data_ptr<float>(), *weights = out.barycentric.mutable_data_ptr<float>();
  at::parallel_for(0, origins.size(0), kRaysAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const raster::Hit hit = raster::trace(tree, from + 3 * i, along + 3 * i, near);
      face[i] = hit.face;
      depth[i] = hit.face < 0 ? 0.0f : static_cast<float>(hit.t);
      for (int corner = 0; corner < 3; ++corner) weights[3 * i + corner] = static_cast<float>(hit.weights[corner]);
    }
  });
  return out.tensors();
}

#ifdef WITH_CUDA
Result trace_cuda(const Tensor& vertices, const Tensor& faces, const Tensor& nodes, const Tensor& order,
                  const Tensor& origins, const Tensor& directions, double near) {
  check_trace(vertices, faces, nodes, order, origins, directions, near);
  const c10::cuda::CUDAGuard guard(vertices.device());
  Hits out(origins.size(0), vertices.options());
  C10_CUDA_CHECK(raster::trace_cuda(tree_of(vertices, faces, nodes, order), origins.const_data_ptr<double>(),
                                    directions.const_data_ptr<double>(), origins.size(0), near,
                                    out.face.mutable_data_ptr<int32_t>(), out.depth.mutable_data_ptr<float>(),
                                    out.barycentric.mutable_data_ptr<float>(),
                                    c10::cuda::getCurrentCUDAStream().stream()));
  return out.tensors();
}
#endif

}  // namespace

TORCH_LIBRARY_FRAGMENT(raster, m) {
  m.def("build_tree(Tensor vertices, Tensor faces) -> (Tensor nodes, Tensor order, Tensor bad_face)");
  m.def(
      "trace(Tensor vertices, Tensor faces, Tensor nodes, Tensor order, Tensor origins, Tensor directions, float near) "
      "-> (Tensor face, Tensor depth, Tensor barycentric)");
}

TORCH_LIBRARY_IMPL(raster, CPU, m) {
  m.impl("build_tree", &build_tree);
  m.impl("trace", &trace_cpu);
}
#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(raster, CUDA, m) { m.impl("trace", &trace_cuda); }
#endif
