// Finds where rays enter occupied cells, a thread a ray, for kernels that walk each ray more than once with eight lanes.
#include "kernels.h"
#include "octet.cuh"

namespace plenoxel::cuda {
namespace {

__global__ void __launch_bounds__(kThreads)
    trace_kernel(Grid<float> grid, Rays<float> rays, RenderOptions<float> options, Trace trace) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rays.count) return;
  const Ray<float> ray = make_ray(grid.size, options, rays.origins + 3 * i, rays.directions + 3 * i);
  const int64_t first = (rays.scene ? rays.scene[i] : 0) * (int64_t(grid.size[0]) * grid.size[1] * grid.size[2]);
  Skipper skipper(ray, options.step_size);
  int count = 0, index[3], after[3];
  int64_t number;
  for (float t = ray.entry; find_cell(grid, first, ray, skipper, t, index, number);) {
    if (count == kTraceCells) {
      trace.counts[i] = kTraceCells + 1;
      return;
    }
    trace.entries[count++ * rays.count + i] = t;
    do {  // through this one cell
      float cell[3];
      locate(grid.size, ray, t, cell, after);
      if (!same_cell(after, index)) break;
      t = skipper.leap(ray, t, cell, 1);
    } while (t <= ray.exit);
  }
  trace.counts[i] = count;
}

}  // namespace

void trace_rays(const Grid<float>& grid, const Rays<float>& rays, const RenderOptions<float>& options, const Trace& trace,
                Stream stream) {
  if (rays.count == 0) return;
  trace_kernel<<<blocks_for(rays.count), kThreads, 0, stream>>>(grid, rays, options, trace);
}

}  // namespace plenoxel::cuda
