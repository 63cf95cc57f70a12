// One thread a face: most faces of a scan are out of view or cover a few pixels, which the thread draws itself. Faces
// of more pixels are drawn by a warp of the same block, and those of thousands, tile by tile, by the whole device.
// Pixels compete through atomicMax on a 64-bit key, so neither order nor schedule can change the result.
#include <algorithm>

#include "rasterize_cuda.h"

namespace raster {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
constexpr int kSmallPixels = 16;      // a thread draws bounding boxes up to this alone
constexpr int kLargePixels = 2048;    // from here on a face is cut into tiles
constexpr int kTile = 32;             // pixels a side
constexpr uint32_t kQueueSize = 1 << 16;
constexpr int kTileBits = 36;         // of the queue's counter; the bits above count faces
constexpr int64_t kPixelsAtOnce = 1 << 25;
constexpr int64_t kViewsAtOnce = 1 << 15;

struct VisibleFace {
  Point points[3];
  Bounds bounds;
  uint32_t face;  // counted from the mesh's first face
};

struct LargeFace {
  VisibleFace visible;
  uint32_t view;         // counted from the first view of the group
  uint64_t first_tile;  // number of tiles of all faces before it in the queue
};

struct Counters {
  long long bad_face;
  unsigned long long queue;  // faces << kTileBits | tiles
};

struct Workspace {
  Counters* counters;
  LargeFace* queue;
  unsigned long long* keys;  // [views of a group, H, W]
};

template <class Index>
struct Group {  // views that are drawn together
  Meshes<Index> meshes;
  DeviceViews views;
  Image image;
  Workspace workspace;
};

__device__ int tiles_along(int pixels) { return (pixels + kTile - 1) / kTile; }

__device__ uint64_t tile_count(const Bounds& b) {
  return static_cast<uint64_t>(tiles_along(b.x1 - b.x0)) * tiles_along(b.y1 - b.y0);
}

// The block's view's projection, in shared memory.
template <class Index>
__device__ void load_projection(const Group<Index>& group, int64_t view, Projection& projection) {
  if (threadIdx.x < 12) {
    const int row = threadIdx.x / 4, column = threadIdx.x % 4;
    projection.m[row][column] = projection_entry(group.views.world_to_camera + 16 * view,
                                                 group.views.intrinsics + 9 * view, row, column);
  }
  __syncthreads();
}

// Image positions of a face's vertices; false where one is outside the mesh.
template <class Index>
__device__ bool load_face(const Group<Index>& group, const Projection& projection, const int64_t* range, int64_t face,
                          Point* points) {
  for (int i = 0; i < 3; ++i) {
    const int64_t vertex = group.meshes.faces[3 * face + i];
    if (vertex < range[0] || vertex >= range[1]) return false;
    const float* position = group.meshes.vertices + 3 * vertex;
    points[i] = project(projection, position[0], position[1], position[2]);
  }
  return true;
}

__device__ void draw_pixel(const Triangle& triangle, const Image& image, int x, int y, uint32_t face,
                           unsigned long long* keys) {
  const float px = x + 0.5f, py = y + 0.5f;
  if (!covers(triangle, px, py)) return;
  const double depth = inverse_depth(triangle, px, py);
  if (depth > 1.0 / image.near) return;
  const unsigned long long key = fragment_key(depth, face);
  unsigned long long* stored = keys + static_cast<int64_t>(y) * image.width + x;
  if (*stored < key) atomicMax(stored, key);  // keys only grow, so an old value here is merely a wasted atomic
}

__device__ bool make_triangle(const VisibleFace& visible, const Image& image, Triangle& triangle) {
  return make_triangle(visible.points[0], visible.points[1], visible.points[2], image, triangle);
}

__device__ void draw_alone(const VisibleFace& visible, const Image& image, unsigned long long* keys) {
  Triangle triangle;
  if (!make_triangle(visible, image, triangle)) return;
  for (int y = visible.bounds.y0; y < visible.bounds.y1; ++y) {
    for (int x = visible.bounds.x0; x < visible.bounds.x1; ++x) {
      draw_pixel(triangle, image, x, y, visible.face, keys);
    }
  }
}

// A warp draws a rectangle, 8 x 4 pixels at a time.
__device__ void draw_with_warp(const VisibleFace& visible, const Bounds& bounds, const Image& image,
                               unsigned long long* keys) {
  Triangle triangle;
  if (!make_triangle(visible, image, triangle)) return;
  const int lane = threadIdx.x % kWarp;
  for (int y = bounds.y0 + lane / 8; y < bounds.y1; y += 4) {
    for (int x = bounds.x0 + lane % 8; x < bounds.x1; x += 8) {
      draw_pixel(triangle, image, x, y, visible.face, keys);
    }
  }
}

// Appends a face to the queue of large faces; false when it is full.
__device__ bool enqueue(const Workspace& workspace, const VisibleFace& visible, uint32_t view) {
  const uint64_t tiles = tile_count(visible.bounds);
  const uint64_t before = atomicAdd(&workspace.counters->queue, (1ull << kTileBits) + tiles);
  const uint64_t slot = before >> kTileBits;
  if (slot >= kQueueSize) return false;
  workspace.queue[slot] = {visible, view, before & ((1ull << kTileBits) - 1)};
  return true;
}

// Finds a face's pixels; false when it shows nothing.
template <class Index>
__device__ bool find_visible(const Group<Index>& group, const Projection& projection, const int64_t* range,
                             int64_t face, VisibleFace& visible) {
  if (face >= range[3]) return false;
  Point* p = visible.points;
  if (!load_face(group, projection, range, face, p)) {
    atomicMax(&group.workspace.counters->bad_face, static_cast<long long>(face));
    return false;
  }
  if (is_invisible(outcode(p[0], group.image), outcode(p[1], group.image), outcode(p[2], group.image))) return false;
  visible.bounds = pixel_bounds(p[0], p[1], p[2], group.image);
  visible.face = static_cast<uint32_t>(face - range[2]);
  return visible.bounds.x0 < visible.bounds.x1 && visible.bounds.y0 < visible.bounds.y1;
}

template <class Index>
__global__ void __launch_bounds__(kThreads) draw_faces(Group<Index> group) {
  __shared__ Projection projection;
  __shared__ VisibleFace for_warps[kThreads];
  __shared__ int num_for_warps;
  const int64_t view = blockIdx.y;
  const int64_t* range = group.views.mesh_ranges + 4 * view;
  const int64_t first = range[2] + static_cast<int64_t>(blockIdx.x) * kThreads;
  if (first >= range[3]) return;
  if (threadIdx.x == 0) num_for_warps = 0;
  load_projection(group, view, projection);

  unsigned long long* keys = group.workspace.keys + view * group.image.height * group.image.width;
  VisibleFace visible;
  if (find_visible(group, projection, range, first + threadIdx.x, visible)) {
    const int64_t pixels = static_cast<int64_t>(visible.bounds.x1 - visible.bounds.x0) *
                           (visible.bounds.y1 - visible.bounds.y0);
    if (pixels <= kSmallPixels) {
      draw_alone(visible, group.image, keys);
    } else if (pixels < kLargePixels || !enqueue(group.workspace, visible, static_cast<uint32_t>(view))) {
      for_warps[atomicAdd(&num_for_warps, 1)] = visible;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x / kWarp; i < num_for_warps; i += kWarps) {
    draw_with_warp(for_warps[i], for_warps[i].bounds, group.image, keys);
  }
}

// The queue's entry that holds a tile: the last that begins at or before it.
__device__ uint32_t find_entry(const LargeFace* queue, uint32_t count, uint64_t tile) {
  uint32_t low = 0, high = count - 1;
  while (low < high) {
    const uint32_t middle = (low + high + 1) / 2;
    if (queue[middle].first_tile <= tile) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

template <class Index>
__global__ void __launch_bounds__(kThreads) draw_tiles(Group<Index> group) {
  const uint64_t faces = group.workspace.counters->queue >> kTileBits;
  if (faces == 0) return;
  const LargeFace* queue = group.workspace.queue;
  const uint32_t count = static_cast<uint32_t>(faces < kQueueSize ? faces : kQueueSize);
  const uint64_t num_tiles = queue[count - 1].first_tile + tile_count(queue[count - 1].visible.bounds);
  const uint64_t stride = static_cast<uint64_t>(gridDim.x) * kWarps;
  for (uint64_t tile = blockIdx.x * kWarps + threadIdx.x / kWarp; tile < num_tiles; tile += stride) {
    const LargeFace& large = queue[find_entry(queue, count, tile)];
    const Bounds& all = large.visible.bounds;
    const uint64_t number = tile - large.first_tile;
    const int columns = tiles_along(all.x1 - all.x0);
    const int x0 = all.x0 + kTile * static_cast<int>(number % columns);
    const int y0 = all.y0 + kTile * static_cast<int>(number / columns);
    const Bounds bounds{x0, min(x0 + kTile, all.x1), y0, min(y0 + kTile, all.y1)};
    draw_with_warp(large.visible, bounds, group.image,
                   group.workspace.keys + static_cast<int64_t>(large.view) * group.image.height * group.image.width);
  }
}

template <class Index>
__global__ void __launch_bounds__(kThreads) read_pixels(Group<Index> group, Outputs outputs) {
  __shared__ Projection projection;
  const int64_t view = blockIdx.y;
  load_projection(group, view, projection);
  const int64_t pixels = static_cast<int64_t>(group.image.height) * group.image.width;
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pixel >= pixels) return;
  const int64_t* range = group.views.mesh_ranges + 4 * view;
  const int64_t out = view * pixels + pixel;
  const uint64_t key = group.workspace.keys[out];
  const int64_t face = key ? range[2] + face_of_key(key) : -1;
  float depth = 0.0f, weights[3] = {0.0f, 0.0f, 0.0f};
  if (key && (outputs.depth || outputs.barycentric)) {
    VisibleFace visible;
    Triangle triangle;
    load_face(group, projection, range, face, visible.points);
    make_triangle(visible, group.image, triangle);
    const double px = pixel % group.image.width + 0.5, py = pixel / group.image.width + 0.5;
    depth = static_cast<float>(1.0 / inverse_depth(triangle, px, py));
    if (outputs.barycentric) barycentric(triangle, px, py, weights);
  }
  outputs.face[out] = static_cast<int32_t>(face);
  if (outputs.depth) outputs.depth[out] = depth;
  if (outputs.barycentric) {
    for (int i = 0; i < 3; ++i) outputs.barycentric[3 * out + i] = weights[i];
  }
}

int64_t views_at_once(const Image& image, int64_t num_views) {
  const int64_t fitting = kPixelsAtOnce / (static_cast<int64_t>(image.height) * image.width);
  return std::max<int64_t>(1, std::min({fitting, kViewsAtOnce, num_views}));
}

template <class Index>
void draw_group(const Group<Index>& group, const Outputs& outputs, int num_blocks_of_tiles, cudaStream_t stream) {
  const unsigned views = static_cast<unsigned>(group.views.count);
  const int64_t pixels = static_cast<int64_t>(group.image.height) * group.image.width;
  cudaMemsetAsync(&group.workspace.counters->queue, 0, sizeof(unsigned long long), stream);
  cudaMemsetAsync(group.workspace.keys, 0, sizeof(unsigned long long) * pixels * views, stream);
  const unsigned face_blocks = static_cast<unsigned>((group.views.most_faces + kThreads - 1) / kThreads);
  if (face_blocks) {
    draw_faces<<<dim3(face_blocks, views), kThreads, 0, stream>>>(group);
    draw_tiles<<<num_blocks_of_tiles, kThreads, 0, stream>>>(group);
  }
  const unsigned pixel_blocks = static_cast<unsigned>((pixels + kThreads - 1) / kThreads);
  read_pixels<<<dim3(pixel_blocks, views), kThreads, 0, stream>>>(group, outputs);
}

}  // namespace

size_t workspace_bytes(const Image& image, int64_t num_views) {
  const size_t keys = sizeof(unsigned long long) * image.height * image.width * views_at_once(image, num_views);
  return sizeof(Counters) + kQueueSize * sizeof(LargeFace) + keys;
}

template <class Index>
cudaError_t rasterize_cuda(const Meshes<Index>& meshes, const DeviceViews& views, const Image& image,
                           const Outputs& outputs, void* workspace, const int64_t** bad_face, cudaStream_t stream) {
  char* memory = static_cast<char*>(workspace);
  Workspace parts;
  parts.counters = reinterpret_cast<Counters*>(memory);
  parts.queue = reinterpret_cast<LargeFace*>(memory + sizeof(Counters));
  parts.keys = reinterpret_cast<unsigned long long*>(parts.queue + kQueueSize);
  *bad_face = reinterpret_cast<const int64_t*>(&parts.counters->bad_face);
  cudaMemsetAsync(&parts.counters->bad_face, 0xFF, sizeof(long long), stream);  // -1
  int device = 0, processors = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);

  const int64_t step = views_at_once(image, views.count), pixels = static_cast<int64_t>(image.height) * image.width;
  for (int64_t first = 0; first < views.count; first += step) {
    DeviceViews part = views;
    part.world_to_camera += 16 * first, part.intrinsics += 9 * first, part.mesh_ranges += 4 * first;
    part.count = std::min(step, views.count - first);
    Outputs into = outputs;
    into.face += pixels * first;
    if (into.depth) into.depth += pixels * first;
    if (into.barycentric) into.barycentric += 3 * pixels * first;
    draw_group(Group<Index>{meshes, part, image, parts}, into, 4 * processors, stream);
  }
  return cudaGetLastError();
}

template cudaError_t rasterize_cuda(const Meshes<int32_t>&, const DeviceViews&, const Image&, const Outputs&, void*,
                                    const int64_t**, cudaStream_t);
template cudaError_t rasterize_cuda(const Meshes<int64_t>&, const DeviceViews&, const Image&, const Outputs&, void*,
                                    const int64_t**, cudaStream_t);

}  // namespace raster
