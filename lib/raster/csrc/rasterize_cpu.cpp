#include "rasterize_cpu.h"

#include <omp.h>

#include "band.h"

namespace raster {
namespace {

constexpr size_t kBandBytes = 512 * 1024;

struct ProjectedVertex {  // 16 bytes, so that one load fetches it
  Point point;
  float unused;
};

struct VisibleFace {
  int32_t vertices[3];  // counted from the mesh's first vertex
  uint32_t face;        // counted from the mesh's first face
  Bounds bounds;
};

// Rasterizes one view after another with a team of threads, in three passes: project all vertices, sort the
// faces in view into bands of rows, draw each band.
template <class Index>
class ViewRasterizer {
 public:
  ViewRasterizer(const Meshes<Index>& meshes, const Image& image, int num_threads, const Outputs& outputs,
                 int64_t& bad_face)
      : meshes_(meshes), image_(image), outputs_(outputs), bad_face_(bad_face), num_threads_(num_threads) {
    const size_t row_bytes = sizeof(uint64_t) * (image.width + kBlock);
    band_rows_ = static_cast<int>(std::max<size_t>(1, kBandBytes / row_bytes));
    if (num_threads > 1) band_rows_ = std::min(band_rows_, std::max(8, image.height / (4 * num_threads)));
    num_bands_ = (image.height + band_rows_ - 1) / band_rows_;
    bins_.resize(static_cast<size_t>(num_threads) * num_bands_);
    keys_.resize(num_threads);
  }

  void run(const View& view, int64_t view_index) {
    vertices_.resize(view.vertex_end - view.vertex_begin);
    outcodes_.resize(vertices_.size());
    for (auto& bin : bins_) bin.clear();
    Projection projection;
    for (int row = 0; row < 3; ++row) {
      for (int column = 0; column < 4; ++column) {
        projection.m[row][column] = projection_entry(view.world_to_camera, view.intrinsics, row, column);
      }
    }
#pragma omp parallel num_threads(num_threads_)
    {
      project_vertices(view, projection);
      sort_faces(view);
#pragma omp for schedule(dynamic, 1) nowait
      for (int band = 0; band < num_bands_; ++band) draw_band(view, view_index, band);
    }
  }

 private:
  void project_vertices(const View& view, const Projection& projection) {
    const float* source = meshes_.vertices + 3 * view.vertex_begin;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < static_cast<int64_t>(vertices_.size()); ++i) {
      const Point point = project(projection, source[3 * i], source[3 * i + 1], source[3 * i + 2]);
      vertices_[i] = {point, 0.0f};
      outcodes_[i] = outcode(point, image_);
    }
  }

  void sort_faces(const View& view) {
    std::vector<VisibleFace>* bins = &bins_[static_cast<size_t>(omp_get_thread_num()) * num_bands_];
    const uint64_t num_vertices = vertices_.size();
#pragma omp for schedule(static)
    for (int64_t face = view.face_begin; face < view.face_end; ++face) {
      const Index* corners = meshes_.faces + 3 * face;
      // Unsigned: whatever a face names wraps around instead of overflowing.
      const uint64_t first = view.vertex_begin, v0 = corners[0] - first, v1 = corners[1] - first, v2 = corners[2] - first;
      const uint64_t largest = std::max({v0, v1, v2});
      if (largest >= num_vertices) {
#pragma omp critical(raster_bad_face)
        bad_face_ = std::max(bad_face_, face);
        continue;
      }
      if (is_invisible(outcodes_[v0], outcodes_[v1], outcodes_[v2])) continue;
      const Bounds bounds =
          pixel_bounds(vertices_[v0].point, vertices_[v1].point, vertices_[v2].point, image_);
      if (bounds.x0 >= bounds.x1 || bounds.y0 >= bounds.y1) continue;
      const VisibleFace visible{{static_cast<int32_t>(v0), static_cast<int32_t>(v1), static_cast<int32_t>(v2)},
                                static_cast<uint32_t>(face - view.face_begin), bounds};
      for (int band = bounds.y0 / band_rows_; band <= (bounds.y1 - 1) / band_rows_; ++band) {
        bins[band].push_back(visible);
      }
    }
  }

  bool triangle_of(const int32_t* v, Triangle& triangle) const {
    return make_triangle(vertices_[v[0]].point, vertices_[v[1]].point, vertices_[v[2]].point, image_, triangle);
  }

  void draw_band(const View& view, int64_t view_index, int band_index) {
    const int row_begin = band_index * band_rows_, row_end = std::min(row_begin + band_rows_, image_.height);
    Band band(image_, row_begin, row_end, keys_[omp_get_thread_num()]);
    Triangle triangle;
    for (int thread = 0; thread < num_threads_; ++thread) {
      for (const VisibleFace& visible : bins_[static_cast<size_t>(thread) * num_bands_ + band_index]) {
        if (triangle_of(visible.vertices, triangle)) band.draw(triangle, visible.bounds, visible.face);
      }
    }
    for (int y = row_begin; y < row_end; ++y) read_row(view, view_index, y, band.row(y));
  }

  // Writes the outputs of a row, run by run of pixels that show the same face.
  void read_row(const View& view, int64_t view_index, int y, const uint64_t* keys) const {
    const int64_t row = (view_index * image_.height + y) * image_.width;
    for (int x = 0; x < image_.width;) {
      const uint32_t face = face_of_key(keys[x]);
      const bool hit = keys[x] != 0;
      int end = x + 1;
      while (end < image_.width && (hit ? keys[end] != 0 && face_of_key(keys[end]) == face : keys[end] == 0)) ++end;
      const int64_t face_index = hit ? view.face_begin + face : -1;
      std::fill(outputs_.face + row + x, outputs_.face + row + end, static_cast<int32_t>(face_index));
      write_run(view, row, x, end, y, face_index);
      x = end;
    }
  }

  void write_run(const View& view, int64_t row, int x0, int x1, int y, int64_t face) const {
    float* depth = outputs_.depth ? outputs_.depth + row : nullptr;
    float* weights = outputs_.barycentric ? outputs_.barycentric + 3 * row : nullptr;
    if (face < 0) {
      if (depth) std::fill(depth + x0, depth + x1, 0.0f);
      if (weights) std::fill(weights + 3 * x0, weights + 3 * x1, 0.0f);
      return;
    }
    if (!depth && !weights) return;
    int32_t corners[3];
    for (int i = 0; i < 3; ++i) corners[i] = static_cast<int32_t>(meshes_.faces[3 * face + i] - view.vertex_begin);
    Triangle triangle{};
    triangle_of(corners, triangle);
    for (int x = x0; x < x1 && depth; ++x) {
      depth[x] = static_cast<float>(1.0 / inverse_depth(triangle, x + 0.5, y + 0.5));
    }
    for (int x = x0; x < x1 && weights; ++x) barycentric(triangle, x + 0.5, y + 0.5, weights + 3 * x);
  }

  const Meshes<Index>& meshes_;
  const Image image_;
  const Outputs& outputs_;
  int64_t& bad_face_;
  const int num_threads_;
  int band_rows_, num_bands_;
  std::vector<ProjectedVertex> vertices_;
  std::vector<uint8_t> outcodes_;
  std::vector<std::vector<VisibleFace>> bins_;  // [thread][band]
  std::vector<std::vector<uint64_t>> keys_;     // [thread]
};

}  // namespace

template <class Index>
int64_t rasterize_cpu(const Meshes<Index>& meshes, const View* views, int64_t num_views, const Image& image,
                      int num_threads, const Outputs& outputs) {
  int64_t bad_face = kNoBadFace;
  const bool share_views = num_views < num_threads;  // few views: all threads work on each in turn
  const int teams = share_views ? 1 : num_threads;
#pragma omp parallel num_threads(teams) if (teams > 1)
  {
    ViewRasterizer<Index> rasterizer(meshes, image, share_views ? num_threads : 1, outputs, bad_face);
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < num_views; ++i) rasterizer.run(views[i], i);
  }
  return bad_face;
}

template int64_t rasterize_cpu(const Meshes<int32_t>&, const View*, int64_t, const Image&, int, const Outputs&);
template int64_t rasterize_cpu(const Meshes<int64_t>&, const View*, int64_t, const Image&, int, const Outputs&);

}  // namespace raster
