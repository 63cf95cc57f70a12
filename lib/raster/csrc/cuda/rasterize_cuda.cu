// One thread a face: most faces of a scan are out of view or cover a few pixels, which the thread draws itself. Larger
// faces are queued and drawn tile by tile, a warp a tile, so that a wall before the camera keeps all processors busy.
// Pixels compete through atomicMax on a 64-bit key: neither order nor schedule can change the result.
#include <algorithm>

#include "rasterize_cuda.h"

namespace raster {
namespace {

constexpr int kThreads = 128;
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
constexpr int kSmallPixels = 16;  // a thread draws bounding boxes up to this alone
constexpr int kTile = 16;         // pixels a side
constexpr int kTileBits = 36;     // of the queue's counter; the bits above count faces
constexpr int64_t kPixelsAtOnce = 1 << 25;  // these three bound the workspace
constexpr int64_t kFacesAtOnce = 1 << 23;
constexpr int64_t kViewsAtOnce = 1 << 15;

struct VisibleFace {
  Point points[3];
  Bounds bounds;
};

struct QueuedFace {
  uint64_t first_tile;  // number of tiles of all faces before it in the queue
  uint32_t face;        // counted from the mesh's first face
  uint32_t view;        // counted from the first view of the group
  Bounds bounds;
};

struct Workspace {
  unsigned long long* queued;  // faces << kTileBits | tiles
  Projection* projections;     // [views of a group]
  QueuedFace* queue;           // [views of a group * most faces]
  unsigned long long* keys;    // [views of a group, H, W]
};

template <class Index>
struct Group {  // views that are drawn together
  Meshes<Index> meshes;
  DeviceViews views;
  Image image;
  long long* bad_face;
  Workspace workspace;

  __device__ unsigned long long* keys_of(int64_t view) const {
    return workspace.keys + view * image.height * image.width;
  }
};

__device__ int tiles_along(int pixels) { return (pixels + kTile - 1) / kTile; }

__device__ uint64_t tile_count(const Bounds& b) {
  return static_cast<uint64_t>(tiles_along(b.x1 - b.x0)) * tiles_along(b.y1 - b.y0);
}

template <class Index>
__global__ void project_views(Group<Index> group) {
  const int64_t view = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 12;
  const int entry = (blockIdx.x * blockDim.x + threadIdx.x) % 12;
  if (view >= group.views.count) return;
  group.workspace.projections[view].m[entry / 4][entry % 4] = projection_entry(
      group.views.world_to_camera + 16 * view, group.views.intrinsics + 9 * view, entry / 4, entry % 4);
}

__device__ MeshRange range_of(const DeviceViews& views, int64_t view) {
  return views.mesh_ranges ? views.mesh_ranges[view] : views.common_range;
}

// Image positions of a face's vertices; false where one is outside the mesh.
template <class Index>
__device__ bool load_face(const Group<Index>& group, int64_t view, int64_t face, Point* points) {
  const Projection& projection = group.workspace.projections[view];
  const MeshRange range = range_of(group.views, view);
  for (int i = 0; i < 3; ++i) {
    const int64_t vertex = group.meshes.faces[3 * face + i];
    if (vertex < range.vertex_begin || vertex >= range.vertex_end) return false;
    const float* position = group.meshes.vertices + 3 * vertex;
    points[i] = project(projection, position[0], position[1], position[2]);
  }
  return true;
}

// Finds the pixels that a face may cover; false when there are none.
template <class Index>
__device__ bool find_visible(const Group<Index>& group, int64_t view, int64_t face, VisibleFace& visible) {
  Point* p = visible.points;
  if (!load_face(group, view, face, p)) {
    atomicMax(group.bad_face, static_cast<long long>(face));
    return false;
  }
  if (is_invisible(outcode(p[0], group.image), outcode(p[1], group.image), outcode(p[2], group.image))) return false;
  visible.bounds = pixel_bounds(p[0], p[1], p[2], group.image);
  return visible.bounds.x0 < visible.bounds.x1 && visible.bounds.y0 < visible.bounds.y1;
}

__device__ void draw_pixel(const Triangle& triangle, const Image& image, int x, int y, uint32_t face,
                           unsigned long long* keys) {
  const float px = x + 0.5f, py = y + 0.5f;
  if (!covers(triangle, px, py)) return;
  const double depth = inverse_depth(triangle, px, py);
  if (depth > image.inverse_near) return;
  const unsigned long long key = fragment_key(depth, face);
  unsigned long long* stored = keys + static_cast<int64_t>(y) * image.width + x;
  if (*stored < key) atomicMax(stored, key);  // keys only grow, so an old value here is merely a wasted atomic
}

__device__ void draw_alone(const VisibleFace& visible, const Image& image, uint32_t face, unsigned long long* keys) {
  Triangle triangle;
  if (!make_triangle(visible.points[0], visible.points[1], visible.points[2], image, triangle)) return;
  for (int y = visible.bounds.y0; y < visible.bounds.y1; ++y) {
    for (int x = visible.bounds.x0; x < visible.bounds.x1; ++x) draw_pixel(triangle, image, x, y, face, keys);
  }
}

template <class Index>
__global__ void __launch_bounds__(kThreads) draw_faces(Group<Index> group) {
  __shared__ unsigned long long queued, queue_begin;  // of this block: faces << kTileBits | tiles
  const int64_t view = blockIdx.y;
  const MeshRange range = range_of(group.views, view);
  const int64_t face = range.face_begin + static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (threadIdx.x == 0) queued = 0;
  __syncthreads();

  VisibleFace visible;
  const uint32_t number = static_cast<uint32_t>(face - range.face_begin);
  bool large = false;
  unsigned long long place = 0;
  if (face < range.face_end && find_visible(group, view, face, visible)) {
    const Bounds& b = visible.bounds;
    large = static_cast<int64_t>(b.x1 - b.x0) * (b.y1 - b.y0) > kSmallPixels;
    if (large) {
      place = atomicAdd(&queued, (1ull << kTileBits) + tile_count(b));
    } else {
      draw_alone(visible, group.image, number, group.keys_of(view));
    }
  }
  __syncthreads();
  if (threadIdx.x == 0 && queued) queue_begin = atomicAdd(group.workspace.queued, queued);
  __syncthreads();
  if (large) {
    place += queue_begin;
    group.workspace.queue[place >> kTileBits] = {place & ((1ull << kTileBits) - 1), number,
                                                 static_cast<uint32_t>(view), visible.bounds};
  }
}

// The queue's entry that holds a tile: the last that begins at or before it.
__device__ uint32_t find_entry(const QueuedFace* queue, uint32_t count, uint64_t tile) {
  uint32_t low = 0, high = count - 1;
  while (low < high) {
    const uint32_t middle = low + (high - low + 1) / 2;
    if (queue[middle].first_tile <= tile) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

__device__ void draw_tile(const Triangle& triangle, const QueuedFace& entry, uint64_t tile, const Image& image,
                          unsigned long long* keys) {
  const Bounds& b = entry.bounds;
  const int number = static_cast<int>(tile - entry.first_tile), columns = tiles_along(b.x1 - b.x0);
  const int x0 = b.x0 + kTile * (number % columns), y0 = b.y0 + kTile * (number / columns);
  const int lane = threadIdx.x % kWarp;
  for (int y = y0 + lane / 8; y < min(y0 + kTile, b.y1); y += 4) {  // a warp covers 8 x 4 pixels
    for (int x = x0 + lane % 8; x < min(x0 + kTile, b.x1); x += 8) {
      draw_pixel(triangle, image, x, y, entry.face, keys);
    }
  }
}

// Each warp draws an equal share of consecutive tiles, so that it searches the queue once and prepares a face once.
template <class Index>
__global__ void __launch_bounds__(kThreads) draw_tiles(Group<Index> group) {
  const uint64_t queued = *group.workspace.queued, num_tiles = queued & ((1ull << kTileBits) - 1);
  const uint32_t num_faces = static_cast<uint32_t>(queued >> kTileBits);
  const uint64_t num_warps = static_cast<uint64_t>(gridDim.x) * kWarps;
  const uint64_t share = (num_tiles + num_warps - 1) / num_warps;
  uint64_t tile = share * (blockIdx.x * kWarps + threadIdx.x / kWarp);
  const uint64_t end = tile + share < num_tiles ? tile + share : num_tiles;
  if (tile >= end) return;
  uint32_t slot = find_entry(group.workspace.queue, num_faces, tile);
  while (tile < end) {
    const QueuedFace entry = group.workspace.queue[slot++];
    const uint64_t entry_end = entry.first_tile + tile_count(entry.bounds);
    const uint64_t stop = entry_end < end ? entry_end : end;
    Point p[3];
    Triangle triangle;
    load_face(group, entry.view, range_of(group.views, entry.view).face_begin + entry.face, p);
    if (make_triangle(p[0], p[1], p[2], group.image, triangle)) {
      for (uint64_t t = tile; t < stop; ++t) draw_tile(triangle, entry, t, group.image, group.keys_of(entry.view));
    }
    tile = stop;
  }
}

template <class Index>
__global__ void __launch_bounds__(kThreads) read_pixels(Group<Index> group, Outputs outputs) {
  const int64_t view = blockIdx.y, pixels = static_cast<int64_t>(group.image.height) * group.image.width;
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pixel >= pixels) return;
  const int64_t out = view * pixels + pixel;
  const uint64_t key = group.workspace.keys[out];
  const int64_t face = key ? range_of(group.views, view).face_begin + face_of_key(key) : -1;
  float depth = 0.0f, weights[3] = {0.0f, 0.0f, 0.0f};
  if (key && (outputs.depth || outputs.barycentric)) {
    Point p[3];
    Triangle triangle;
    load_face(group, view, face, p);
    make_triangle(p[0], p[1], p[2], group.image, triangle);
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

int64_t views_at_once(const Image& image, int64_t num_views, int64_t most_faces) {
  const int64_t pixels = static_cast<int64_t>(image.height) * image.width;
  const int64_t fitting = std::min(kPixelsAtOnce / pixels, kFacesAtOnce / std::max<int64_t>(1, most_faces));
  return std::max<int64_t>(1, std::min({fitting, kViewsAtOnce, num_views}));
}

unsigned blocks(int64_t items) { return static_cast<unsigned>((items + kThreads - 1) / kThreads); }

template <class Index>
void draw_group(const Group<Index>& group, const Outputs& outputs, int num_processors, cudaStream_t stream) {
  const unsigned views = static_cast<unsigned>(group.views.count);
  const int64_t pixels = static_cast<int64_t>(group.image.height) * group.image.width;
  cudaMemsetAsync(group.workspace.queued, 0, sizeof(unsigned long long), stream);
  cudaMemsetAsync(group.workspace.keys, 0, sizeof(unsigned long long) * pixels * views, stream);
  if (group.views.most_faces > 0) {
    project_views<<<blocks(12 * views), kThreads, 0, stream>>>(group);
    draw_faces<<<dim3(blocks(group.views.most_faces), views), kThreads, 0, stream>>>(group);
    draw_tiles<<<8 * num_processors, kThreads, 0, stream>>>(group);
  }
  read_pixels<<<dim3(blocks(pixels), views), kThreads, 0, stream>>>(group, outputs);
}

// Lays the workspace out; returns its size. With null, only that.
size_t lay_out(char* memory, const Image& image, int64_t views, int64_t most_faces, Workspace* workspace) {
  size_t used = 0;
  const auto take = [&](size_t bytes) {
    char* part = memory + used;
    used += (bytes + 255) / 256 * 256;
    return part;
  };
  workspace->queued = reinterpret_cast<unsigned long long*>(take(sizeof(unsigned long long)));
  workspace->projections = reinterpret_cast<Projection*>(take(sizeof(Projection) * views));
  workspace->queue = reinterpret_cast<QueuedFace*>(take(sizeof(QueuedFace) * views * most_faces));
  workspace->keys = reinterpret_cast<unsigned long long*>(
      take(sizeof(unsigned long long) * views * image.height * image.width));
  return used;
}

}  // namespace

size_t workspace_bytes(const Image& image, int64_t num_views, int64_t most_faces) {
  Workspace unused;
  return lay_out(nullptr, image, views_at_once(image, num_views, most_faces), most_faces, &unused);
}

template <class Index>
cudaError_t rasterize_cuda(const Meshes<Index>& meshes, const DeviceViews& views, const Image& image,
                           const Outputs& outputs, int64_t* bad_face, void* workspace, cudaStream_t stream) {
  const int64_t step = views_at_once(image, views.count, views.most_faces);
  Workspace parts;
  lay_out(static_cast<char*>(workspace), image, step, views.most_faces, &parts);
  cudaMemsetAsync(bad_face, 0xFF, sizeof *bad_face, stream);  // kNoBadFace
  int device = 0, num_processors = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&num_processors, cudaDevAttrMultiProcessorCount, device);

  const int64_t pixels = static_cast<int64_t>(image.height) * image.width;
  for (int64_t first = 0; first < views.count; first += step) {
    DeviceViews part = views;
    part.world_to_camera += 16 * first, part.intrinsics += 9 * first;
    if (part.mesh_ranges) part.mesh_ranges += first;
    part.count = std::min(step, views.count - first);
    Outputs into = outputs;
    into.face += pixels * first;
    if (into.depth) into.depth += pixels * first;
    if (into.barycentric) into.barycentric += 3 * pixels * first;
    draw_group(Group<Index>{meshes, part, image, reinterpret_cast<long long*>(bad_face), parts}, into, num_processors,
               stream);
  }
  return cudaGetLastError();
}

template cudaError_t rasterize_cuda(const Meshes<int32_t>&, const DeviceViews&, const Image&, const Outputs&, int64_t*,
                                    void*, cudaStream_t);
template cudaError_t rasterize_cuda(const Meshes<int64_t>&, const DeviceViews&, const Image&, const Outputs&, int64_t*,
                                    void*, cudaStream_t);

}  // namespace raster
