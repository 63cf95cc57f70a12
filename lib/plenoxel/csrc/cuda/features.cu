// Rendering features, and spreading values back, from a packed grid. Marching is that of render_packed.cu: a thread a ray,
// which lists (row, weight) of the voxels it leaves behind. When a list may overflow, the warp turns to the lists together,
// eight lanes a row, lane l for channels l, l + 8, l + 16 and l + 24 of a chunk; a block of the grid's second dimension takes
// one chunk, and marches for itself.
#include "features_cuda.h"
#include "packed_walk.cuh"

namespace plenoxel::cuda {
namespace {

constexpr int kWarps = kThreads / 32;
constexpr int kBlocks = 5;  // that share a multiprocessor: as many as shared memory holds
constexpr int kOctet = 8;
constexpr int kChunk = 32;  // channels
constexpr int kParts = kChunk / kOctet;

struct FeatureMemory {
  float number[32 * kChunk];  // of the warp's rays, see number_at
  Entry list[kSlots * 32];    // [slot][lane]
};

// Where a number of a ray lies: shifted from ray to ray, so that four neighbouring rays' octets are in different banks.
__device__ __forceinline__ int number_at(int ray, int channel) { return ray * kChunk + (channel ^ ((ray & 3) * kOctet)); }

__device__ __forceinline__ float read(const float* number) { return __ldg(number); }
__device__ __forceinline__ float read(const __half* number) { return __half2float(__ldg(number)); }

// Calls visit(ray, slots, channel of this lane) for each of the warp's rays whose list has entries.
template <typename Visit>
__device__ __forceinline__ void for_listed_rays(int count, Visit&& visit) {
  const int lane = threadIdx.x & 31;
  __syncwarp();
#pragma unroll 1
  for (int group = 0; group < 32 / (32 / kOctet); ++group) {
    const int ray = group * (32 / kOctet) + lane / kOctet;
    const int slots = __shfl_sync(~0u, count, ray);
    if (slots) visit(ray, slots, lane % kOctet);
  }
  __syncwarp();
}

// Marches a warp's rays, thread by thread ray i, and calls flush(entries of this lane) when lists are full and at the end.
template <typename Flush>
__device__ __forceinline__ void walk(const PackedGrid& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                                     int64_t i, FeatureMemory& memory, Flush&& flush) {
  Walker walker;
  start_walk(grid, rays, options, i, walker);
  Skipper skipper(walker.ray, options.step_size);
  Entry* const list = memory.list + (threadIdx.x & 31);
  int count = 0;
  for (;;) {
    int index[3];
    uint32_t number, entry;
    const bool found = find_next_cell<true>(grid, rays, options, i, skipper, walker, index, number);
    if (!__any_sync(~0u, found)) break;
    if (found) cross_cell<true, false>(grid, options, index, number, walker, list, count, entry);
    if (__any_sync(~0u, count > kSlots - kCorners)) {
      flush(count);
      count = 0;
    }
  }
  list_corners(walker, 0xff, list, count);
  flush(count);
}

// The chunk of channels of a block.
struct Chunk {
  int64_t first;
  int width;

  __device__ __forceinline__ static Chunk mine(int64_t channels) {
    const int64_t first = int64_t(blockIdx.y) * kChunk, left = channels - first;
    return {first, left < kChunk ? int(left) : kChunk};
  }
};

template <typename Number>
__global__ void __launch_bounds__(kThreads, kBlocks)
    render_features_kernel(const __grid_constant__ PackedGrid grid, const Rays<float> rays,
                           const __grid_constant__ RenderOptions<float> options, const Number* features, int64_t channels,
                           float* out, int64_t image_width) {
  __shared__ FeatureMemory shared[kWarps];
  FeatureMemory& memory = shared[threadIdx.x / 32];
  const int lane = threadIdx.x & 31;
  const int64_t i = WarpTiles::ray(int64_t(blockIdx.x) * kThreads + threadIdx.x, rays.count, image_width);
  const Chunk chunk = Chunk::mine(channels);
  for (int channel = 0; channel < kChunk; ++channel) memory.number[number_at(lane, channel)] = 0;
  walk(grid, rays, options, i, memory, [&](int count) {
    for_listed_rays(count, [&](int ray, int slots, int own) {
      float sum[kParts];
#pragma unroll
      for (int part = 0; part < kParts; ++part) sum[part] = memory.number[number_at(ray, part * kOctet + own)];
#pragma unroll 2
      for (int slot = 0; slot < slots; ++slot) {
        const Entry entry = memory.list[32 * slot + ray];
        const Number* const row = features + int64_t(entry.row) * channels + chunk.first + own;
#pragma unroll
        for (int part = 0; part < kParts; ++part)
          if (part * kOctet + own < chunk.width) sum[part] = __fmaf_rn(entry.weight, read(row + part * kOctet), sum[part]);
      }
#pragma unroll
      for (int part = 0; part < kParts; ++part) memory.number[number_at(ray, part * kOctet + own)] = sum[part];
    });
  });
  for (int at = lane, end = (32 * chunk.width + 31) / 32 * 32; at < end; at += 32) {
    const int ray = at / chunk.width, channel = at % chunk.width;
    const int64_t pixel = __shfl_sync(~0u, i, ray);
    if (pixel < rays.count) __stcs(out + pixel * channels + chunk.first + channel, memory.number[number_at(ray, channel)]);
  }
}

template <typename Number>
__global__ void __launch_bounds__(kThreads, kBlocks)
    spread_features_kernel(const __grid_constant__ PackedGrid grid, const Rays<float> rays,
                           const __grid_constant__ RenderOptions<float> options, const Number* values, int64_t channels,
                           float* sums, float* weights, int64_t image_width) {
  __shared__ FeatureMemory shared[kWarps];
  FeatureMemory& memory = shared[threadIdx.x / 32];
  const int lane = threadIdx.x & 31;
  const int64_t i = WarpTiles::ray(int64_t(blockIdx.x) * kThreads + threadIdx.x, rays.count, image_width);
  const Chunk chunk = Chunk::mine(channels);
  for (int at = lane, end = (32 * chunk.width + 31) / 32 * 32; at < end; at += 32) {
    const int ray = at / chunk.width, channel = at % chunk.width;
    const int64_t pixel = __shfl_sync(~0u, i, ray);
    if (pixel < rays.count) memory.number[number_at(ray, channel)] = read(values + pixel * channels + chunk.first + channel);
  }
  walk(grid, rays, options, i, memory, [&](int count) {
    for_listed_rays(count, [&](int ray, int slots, int own) {
      float value[kParts];
#pragma unroll
      for (int part = 0; part < kParts; ++part) value[part] = memory.number[number_at(ray, part * kOctet + own)];
#pragma unroll 2
      for (int slot = 0; slot < slots; ++slot) {
        const Entry entry = memory.list[32 * slot + ray];
        float* const row = sums + int64_t(entry.row) * channels + chunk.first + own;
#pragma unroll
        for (int part = 0; part < kParts; ++part)
          if (part * kOctet + own < chunk.width) atomicAdd(row + part * kOctet, entry.weight * value[part]);
        if (chunk.first == 0 && own == 0) atomicAdd(weights + entry.row, entry.weight);
      }
    });
  });
}

template <typename Kernel, typename... Arguments>
void launch(Kernel kernel, const PackedGrid& grid, const Rays<float>& rays, int64_t channels, int64_t image_width,
            Stream stream, Arguments... arguments) {
  if (rays.count == 0 || channels == 0) return;
  const dim3 blocks(blocks_for(WarpTiles::places(rays.count, image_width)), unsigned((channels + kChunk - 1) / kChunk));
  kernel<<<blocks, kThreads, 0, stream>>>(grid, rays, arguments...);
}

}  // namespace

template <typename Number>
void render_features(const PackedGrid& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                     const Number* features, int64_t channels, float* out, int64_t image_width, Stream stream) {
  launch(render_features_kernel<Number>, grid, rays, channels, image_width, stream, options, features, channels, out,
         image_width);
}

template <typename Number>
void spread_features(const PackedGrid& grid, const Rays<float>& rays, const RenderOptions<float>& options,
                     const Number* values, int64_t channels, float* sums, float* weights, int64_t image_width,
                     Stream stream) {
  launch(spread_features_kernel<Number>, grid, rays, channels, image_width, stream, options, values, channels, sums,
         weights, image_width);
}

#define INSTANTIATE(Number)                                                                                            \
  template void render_features(const PackedGrid&, const Rays<float>&, const RenderOptions<float>&, const Number*,     \
                                int64_t, float*, int64_t, Stream);                                                     \
  template void spread_features(const PackedGrid&, const Rays<float>&, const RenderOptions<float>&, const Number*,     \
                                int64_t, float*, float*, int64_t, Stream);
INSTANTIATE(float)
INSTANTIATE(__half)
#undef INSTANTIATE

}  // namespace plenoxel::cuda
