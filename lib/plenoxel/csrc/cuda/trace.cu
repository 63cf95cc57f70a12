// Finds where rays enter occupied cells, a thread a ray, for kernels that walk each ray more than once with eight lanes.
#include "kernels.h"
#include "octet.cuh"

namespace plenoxel::cuda {
namespace {

constexpr int kTraceThreads = 32;  // few rays a block, so that few rays reach all multiprocessors

__global__ void __launch_bounds__(kTraceThreads)
    trace_kernel(Grid<float> grid, Rays<float> rays, RenderOptions<float> options, Trace trace) {
  const int64_t i = int64_t(blockIdx.x) * kTraceThreads + threadIdx.x;
  if (i >= rays.count) return;
  const Ray<float> ray = make_ray(grid.size, options, rays.origins + 3 * i, rays.directions + 3 * i);
  const int64_t first = (rays.scene ? rays.scene[i] : 0) * (int64_t(grid.size[0]) * grid.size[1] * grid.size[2]);
  Skipper skipper(ray, options.step_size);
  int count = 0;
  int64_t last = -1;
  // One loop for empty cells and occupied ones (which are left as if the next occupied cell were one away), because the rays
  // of a warp come to them at different times.
  for (float t = ray.entry; t <= ray.exit && count <= kTraceCells;) {
    float cell[3];
    int index[3];
    locate(grid.size, ray, t, cell, index);
    const int64_t number = first + (int64_t(index[0]) * grid.size[1] + index[1]) * grid.size[2] + index[2];
    const int distance = __ldg(grid.distance + number);
    if (distance == 0 && number != last) {
      if (count < kTraceCells) trace.entries[count * rays.count + i] = t;
      ++count;
      last = number;
    }
    t = skipper.leap(ray, t, cell, max(distance, 1));
  }
  trace.counts[i] = count;
}

}  // namespace

void trace_rays(const Grid<float>& grid, const Rays<float>& rays, const RenderOptions<float>& options, const Trace& trace,
                Stream stream) {
  if (rays.count == 0) return;
  const unsigned blocks = unsigned((rays.count + kTraceThreads - 1) / kTraceThreads);
  trace_kernel<<<blocks, kTraceThreads, 0, stream>>>(grid, rays, options, trace);
}

}  // namespace plenoxel::cuda
