// What works on voxels rather than rays, on the CPU.
#include <algorithm>
#include <vector>

#include "cpu.h"
#include "interpolation.h"
#include "ray.h"
#include "regularizer.h"
#include "row.h"

// Where a function is inlined, GCC forgets that its pointers do not overlap, and does one number at a time.
#define NOT_INLINED __attribute__((noinline))

namespace plenoxel::cpu {
namespace {

// For each cell that begins in a row of voxels, but the last: 0 where it has an occupied corner, else 255. Returns whether any
// has one.
NOT_INLINED bool occupied_cells(const int32_t* __restrict links, const int size[3], uint8_t* __restrict row) {
  const int32_t* __restrict rows[4] = {links, links + size[2], links + int64_t(size[1]) * size[2],
                                       links + int64_t(size[1] + 1) * size[2]};
  const int count = size[2] - 1;
  int32_t all = -1;
#pragma omp simd reduction(& : all)
  for (int z = 0; z < count; ++z) {
    const int32_t lower = rows[0][z] & rows[1][z] & rows[2][z] & rows[3][z];
    const int32_t upper = rows[0][z + 1] & rows[1][z + 1] & rows[2][z + 1] & rows[3][z + 1];
    row[z] = uint8_t((lower & upper) >> 31);  // all ones if all corners are negative
    all &= lower & upper;
  }
  return all >= 0;
}

// Lowers values [count] to others [count] + step; 255 stands for all above.
NOT_INLINED void lower_to(uint8_t* __restrict values, const uint8_t* __restrict others, int count, uint8_t step) {
  const uint8_t most = 255 - step;
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const uint8_t grown = uint8_t(smaller(others[i], most) + step);
    values[i] = smaller(values[i], grown);
  }
}

// Chebyshev distances that grow along a row: row[z] becomes the smallest of row[z - k direction] + k over k from 0 on. Eight
// steps that double the reach, each of them on many numbers at once. `scratch` has the row's length.
void grow_along(uint8_t* row, uint8_t* scratch, int depth, int direction) {
  for (int step = 1; step < 256 && step < depth; step *= 2) {
    std::copy_n(row, depth, scratch);
    lower_to(row + (direction > 0 ? step : 0), scratch + (direction > 0 ? 0 : step), depth - step, uint8_t(step));
  }
}

// One of the two raster sweeps of a Chebyshev distance transform over one grid; direction is +1 or -1. A cell takes one more
// than the smallest of the 13 neighbours that the sweep has passed. `near` [Rx, Ry]: whether a row holds anything but 255.
void distance_sweep(uint8_t* distance, uint8_t* near, const int size[3], int direction) {
  const int depth = size[2];
  std::vector<uint8_t> nearest(depth + 2, 255);  // one cell of margin on both sides
  std::vector<uint8_t> scratch(depth);
  const auto number_of = [&](int x, int y) { return int64_t(x) * size[1] + y; };
  for (int i = 0; i < size[0]; ++i) {
    const int x = direction > 0 ? i : size[0] - 1 - i;
    for (int j = 0; j < size[1]; ++j) {
      const int y = direction > 0 ? j : size[1] - 1 - j;
      const int64_t number = number_of(x, y);
      bool passed = false;
      const auto include = [&](int other_x, int other_y) {
        if (other_x < 0 || other_x >= size[0] || other_y < 0 || other_y >= size[1]) return;
        const int64_t other = number_of(other_x, other_y);
        if (!near[other]) return;
        if (!passed) std::fill(nearest.begin(), nearest.end(), uint8_t(255));
        passed = true;
        lower_to(nearest.data() + 1, distance + other * depth, depth, 0);
      };
      for (int side = -1; side <= 1; ++side) include(x - direction, y + side);
      include(x, y - direction);
      if (!passed && !near[number]) continue;
      near[number] = true;
      uint8_t* row = distance + number * depth;
      for (int side = 0; passed && side <= 2; ++side) lower_to(row, nearest.data() + side, depth, 1);
      grow_along(row, scratch.data(), depth, direction);
    }
  }
}

// Adds one voxel's total-variation gradient, gathered from its own cell and the three it is the neighbour of.
template <typename T>
class TotalVariation {
 public:
  TotalVariation(const int32_t* links, const int size[3], const T* data, int channels, bool ignore_edge)
      : links_(links), size_(size), data_(data), channels_(channels), ignore_edge_(ignore_edge) {}

  // Adds to out [channels] cell's gradient by its corner `part`: 0, 1, 2 its neighbour along that axis, 3 itself.
  void add_cell(int64_t cell, int part, T scale, T* out) const {
    const int64_t stride[3] = {int64_t(size_[1]) * size_[2], size_[2], 1};
    const int32_t own_row = links_[cell];
    if (ignore_edge_ && own_row == 0) return;  // svox2 takes row 0 for "empty" here; kept, so that gradients agree with its
    int32_t neighbor_row[3];
    for (int axis = 0; axis < 3; ++axis) neighbor_row[axis] = links_[cell + stride[axis]];
    for (int channel = 0; channel < channels_; ++channel) {
      const T own = own_row >= 0 ? data_[int64_t(own_row) * channels_ + channel] : T(0);
      T neighbor[3], gradient[3];
      for (int axis = 0; axis < 3; ++axis)
        neighbor[axis] = neighbor_row[axis] >= 0 ? data_[int64_t(neighbor_row[axis]) * channels_ + channel]
                         : ignore_edge_          ? own
                                                 : T(0);
      total_variation_gradient(size_, own, neighbor, gradient);
      out[channel] += scale * (part < 3 ? gradient[part] : -(gradient[0] + gradient[1] + gradient[2]));
    }
  }

 private:
  const int32_t* links_;
  const int* size_;
  const T* data_;
  int channels_;
  bool ignore_edge_;
};

// Adds weight * the total variation's gradient of data [V, channels] to grad, and sets the rows that took part in `touched`.
template <typename T>
void add_variation(const FitState<T>& state, const UpdateOptions<T>& options, const T* data, T* grad, int channels,
                   T weight, bool ignore_edge, int threads) {
  const int* const size = state.size;
  const int64_t stride[3] = {int64_t(size[1]) * size[2], size[2], 1};
  const int64_t voxels = state.levels * size[0] * stride[0], last_cell = options.first_cell + options.num_cells;
  const TotalVariation<T> variation(state.links, size, data, channels, ignore_edge);
  const auto in_range = [&](int64_t cell) {
    return cell >= options.first_cell && cell < last_cell && cell / stride[0] % size[0] < size[0] - 1 &&
           cell / stride[1] % size[1] < size[1] - 1 && cell % size[2] < size[2] - 1;
  };
#pragma omp parallel num_threads(threads)
  {
    std::vector<T> sum(channels);
#pragma omp for schedule(dynamic, 1024)
    for (int64_t voxel = options.first_cell; voxel < std::min(voxels, last_cell + stride[0]); ++voxel) {
      const int32_t row = state.links[voxel];
      if (row < 0) continue;
      std::fill(sum.begin(), sum.end(), T(0));
      bool any = false;
      for (int part = 0; part <= 3; ++part) {
        const int64_t cell = part < 3 ? voxel - stride[part] : voxel;
        if (!in_range(cell)) continue;
        any = true;
        variation.add_cell(cell, part, weight, sum.data());
      }
      T* out = grad + int64_t(row) * channels;
      for (int channel = 0; channel < channels; ++channel) out[channel] += sum[channel];
      if (any) state.touched[row] = true;
    }
  }
}

}  // namespace

void cell_distance(const int32_t* links, int64_t scenes, const int size[3], uint8_t* distance, int threads) {
  const int64_t rows = int64_t(size[0]) * size[1], depth = size[2];
  std::vector<uint8_t> near(scenes * rows);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t number = 0; number < scenes * rows; ++number) {
    uint8_t* const row = distance + number * depth;
    std::fill_n(row, depth, uint8_t(255));
    const bool begins_cells = number % rows < rows - size[1] && number % size[1] < size[1] - 1;
    if (begins_cells) near[number] = occupied_cells(links + number * depth, size, row);
  }
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t scene = 0; scene < scenes; ++scene)
    for (const int direction : {1, -1})
      distance_sweep(distance + scene * rows * depth, near.data() + scene * rows, size, direction);
}

template <typename T>
void rmsprop(T* param, T* grad, T* mean_square, const bool* touched, int64_t rows, int channels, T learning_rate, T beta,
             T epsilon, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    if (touched && !touched[row]) continue;
    for (int64_t i = row * channels; i < (row + 1) * channels; ++i) {
      rmsprop_update(param[i], mean_square[i], grad[i], learning_rate, beta, epsilon);
      grad[i] = 0;
    }
  }
}

template <typename T>
void update_grid(const FitState<T>& state, const UpdateOptions<T>& options, int threads) {
  if (options.density_variation != 0)
    add_variation(state, options, state.density, state.grad_density, 1, options.density_variation, false, threads);
  if (options.sh_variation != 0)
    add_variation(state, options, state.sh, state.grad_sh, kCoefficients, options.sh_variation, true, threads);
  rmsprop(state.density, state.grad_density, state.square_density, state.touched, state.rows, 1, options.density_rate,
          options.beta, options.epsilon, threads);
  rmsprop(state.sh, state.grad_sh, state.square_sh, state.touched, state.rows, kCoefficients, options.sh_rate, options.beta,
          options.epsilon, threads);
  std::fill_n(state.touched, state.rows, false);
}

template <typename T>
void sample_grid(const Grid<T>& grid, const T* points, int64_t count, T* sigma, T* sh, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < count; ++i) {
    const Cell<T> cell = cell_at(grid.size, points + 3 * i);
    T weights[kCorners];
    trilinear_weights(cell.fraction, weights);
    const int64_t index = (int64_t(cell.index[0]) * grid.size[1] + cell.index[1]) * grid.size[2] + cell.index[2];
    Row<T> row;
    sigma[i] = 0;
    for (int corner = 0; corner < kCorners; ++corner) {
      const int32_t link = grid.links[index + corner_offset(grid.size, corner)];
      if (link < 0) continue;
      sigma[i] += weights[corner] * grid.density[link];
      row.add_scaled(weights[corner], grid.sh + int64_t(link) * kCoefficients);
    }
    row.store(sh + i * kCoefficients);
  }
}

#define INSTANTIATE(T)                                                                        \
  template void rmsprop(T*, T*, T*, const bool*, int64_t, int, T, T, T, int);                 \
  template void update_grid(const FitState<T>&, const UpdateOptions<T>&, int);                \
  template void sample_grid(const Grid<T>&, const T*, int64_t, T*, T*, int);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace plenoxel::cpu
