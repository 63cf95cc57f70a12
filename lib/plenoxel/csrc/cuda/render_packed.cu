// Rendering of a packed grid, a thread a ray, in two alternating phases per warp.
//
// March: each lane walks its ray. In a cell it needs only the 8 densities; what the samples weigh is summed per corner, since
// the SH image is linear in the coefficients. A voxel's sum follows it from cell to cell; when the ray leaves the voxel
// behind, (row, weight) goes into a short list in shared memory.
// Gather: when a list may overflow, the warp turns to the lists together, 8 lanes a row, so that rows are read in whole
// lines, and adds the rows to the rays' sums in shared memory.
// Colour needs no sample of its own: it is a product of the SH image as long as no colour is clamped at 0. Rows that could
// be clamped from some direction are marked when the grid is packed; cells with such a corner are looked at more closely
// (clamping.cuh).
#include "clamping.cuh"

namespace plenoxel::cuda {
namespace {

constexpr int kWarps = kThreads / 32;

// Blocks that share a multiprocessor; the compiler fits the registers to it.
constexpr int kBlocks = 5, kClampingBlocks = 4;

__device__ __forceinline__ void write_pixel(const RenderOptions<float>& options, const float* direction, int64_t i,
                                            const Walker& walker, const float values[kPackedRow], const Image<float>& out) {
  const float remaining = walker.compositor.remaining();
  if (out.rgb) {
    float basis[kBasis];
    sh_basis(direction, basis);
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      float color = walker.correction[c] + 0.5f * (1 - walker.compositor.transmittance);
      for (int b = 0; b < kBasis; ++b) color = __fmaf_rn(values[c * kBasis + b], basis[b], color);
      out.rgb[3 * i + c] = color + remaining * options.background_brightness;
    }
  }
  if (out.depth) out.depth[i] = walker.depth;
  if (out.alpha) out.alpha[i] = 1 - remaining;
}

// Writes the SH images of a warp's rays, 27 numbers each, neighbouring numbers by neighbouring lanes.
__device__ __forceinline__ void write_images(const WarpMemory& memory, int64_t own_ray, int64_t count, float* sh) {
  const int lane = threadIdx.x & 31;
  __syncwarp();
  for (int at = lane; at < 32 * kCoefficients; at += 32) {
    const int ray = at / kCoefficients, k = at % kCoefficients;
    const int64_t i = __shfl_sync(~0u, own_ray, ray);
    const float value = reinterpret_cast<const float*>(memory.sum)[4 * quarter_of(ray, k / 4) + k % 4];
    if (i < count) __stcs(sh + i * kCoefficients + k, value);
  }
}

template <bool kRows, bool kClamp, bool kNested, bool kCodes>
__global__ void __launch_bounds__(kThreads, kClamp ? kClampingBlocks : kBlocks)
    render_packed_kernel(const __grid_constant__ PackedGrid grid, const Rays<float> rays,
                         const __grid_constant__ RenderOptions<float> options, const Image<float> out, int64_t width) {
  __shared__ WarpMemory shared[kRows ? kWarps : 1];
  __shared__ ClampQueue queues[kClamp ? kWarps : 1];
  const int lane = threadIdx.x & 31;
  WarpMemory& memory = shared[kRows ? threadIdx.x / 32 : 0];
  const int64_t i = WarpTiles::ray(int64_t(blockIdx.x) * kThreads + threadIdx.x, rays.count, width);
  const bool exists = i < rays.count;
  Walker walker;
  const bool hits = start_walk(grid, rays, options, i, walker);
  Skipper skipper(walker.ray, options.step_size);
  if (kRows)
    for (int quarter = 0; quarter < kQuarters; ++quarter) memory.sum[quarter_of(lane, quarter)] = float4{0, 0, 0, 0};
  Clamping clamping(queues[kClamp ? threadIdx.x / 32 : 0]);
  int count = 0;
  for (bool walking = true; walking;) {
    int index[3];
    uint32_t number, samples = 0;
    const bool found = find_next_cell<kNested>(grid, rays, options, i, skipper, walker, index, number);
    walking = __any_sync(~0u, found);
    ClampJob job{0, walker.t, walker.compositor.optical_depth, 0};
    if (found)
      samples = cross_cell<kRows, kClamp>(grid, options, index, number, walker, memory.list + lane, count, job.cell);
    if (kClamp) {
      job.walk = samples << 9 | uint32_t(walker.level) << 5 | uint32_t(lane);
      clamping.add(samples > 0, job);
      if (clamping.due(!walking)) clamping.template look<kCodes>(grid, rays, options, i, walker.correction);
    }
    if (kRows && __any_sync(~0u, count > kSlots - kCorners)) {
      gather<kCodes>(grid, memory, count);
      count = 0;
    }
  }
  float values[kPackedRow] = {};
  if (kRows) {
    list_corners(walker, 0xff, memory.list + lane, count);
    gather<kCodes>(grid, memory, count);
    float4* quarters = reinterpret_cast<float4*>(values);
#pragma unroll
    for (int quarter = 0; quarter < kQuarters - 1; ++quarter) quarters[quarter] = memory.sum[quarter_of(lane, quarter)];
    if constexpr (kCodes)
#pragma unroll
      for (int k = 0; k < kCoefficients; ++k)
        values[k] = __fmaf_rn(values[k], __ldg(grid.scale + k), __ldg(grid.low + k) * values[kUnit]);
  }
  if (exists) write_pixel(options, rays.directions + 3 * i, i, walker, values, out);
  if (!kRows || !out.sh) return;
  const bool shines = options.sh_background && hits;
  const float background = shines ? walker.compositor.remaining() * options.background_brightness : 0;
#pragma unroll
  for (float& value : values) value += background;
#pragma unroll
  for (int quarter = 0; quarter < kQuarters - 1; ++quarter)
    memory.sum[quarter_of(lane, quarter)] = reinterpret_cast<const float4*>(values)[quarter];
  write_images(memory, i, rays.count, out.sh);
}

template <bool kNested, bool kCodes>
auto kernel_for(const PackedGrid& grid, const Image<float>& image) {
  return !image.rgb && !image.sh    ? render_packed_kernel<false, false, kNested, false>
         : grid.clamps && image.rgb ? render_packed_kernel<true, true, kNested, kCodes>
                                    : render_packed_kernel<true, false, kNested, kCodes>;
}

template <bool kNested>
auto kernel_for(const PackedGrid& grid, const Image<float>& image) {
  return grid.scale ? kernel_for<kNested, true>(grid, image) : kernel_for<kNested, false>(grid, image);
}

}  // namespace

void render_packed(const PackedGrid& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                   const Image<float>& image, int64_t image_width, Stream stream) {
  if (rays.count == 0) return;
  const int64_t threads = WarpTiles::places(rays.count, image_width);
  const auto kernel = grid.levels > 1 ? kernel_for<true>(grid, image) : kernel_for<false>(grid, image);
  kernel<<<blocks_for(threads), kThreads, 0, stream>>>(grid, rays, options, image, image_width);
}

}  // namespace plenoxel::cuda
