// One thread a ray; neighbouring rays walk the tree together.
#include "trace_cuda.h"

namespace raster {
namespace {

constexpr int kThreads = 128;

__global__ void trace_kernel(Tree tree, const double* origins, const double* directions, int64_t rays, double near,
                             int32_t* face, float* depth, float* barycentric) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rays) return;
  const Hit hit = trace(tree, origins + 3 * i, directions + 3 * i, near);
  face[i] = hit.face;
  depth[i] = hit.face < 0 ? 0.0f : static_cast<float>(hit.t);
  for (int corner = 0; corner < 3; ++corner) barycentric[3 * i + corner] = static_cast<float>(hit.weights[corner]);
}

}  // namespace

cudaError_t trace_cuda(const Tree& tree, const double* origins, const double* directions, int64_t rays, double near,
                       int32_t* face, float* depth, float* barycentric, cudaStream_t stream) {
  if (rays == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((rays + kThreads - 1) / kThreads);
  trace_kernel<<<blocks, kThreads, 0, stream>>>(tree, origins, directions, rays, near, face, depth, barycentric);
  return cudaGetLastError();
}

}  // namespace raster
