// The CPU backend: multi-threaded drivers without torch. Every result is the same for any number of threads.
#pragma once

#include "types.h"

namespace plenoxel::cpu {

// distance[c]: Chebyshev distance (at most 255, in cells) from the cell with lowest corner c to the nearest cell that has
// an occupied corner; 0 if it has one itself. Marching leaps over what is surely empty.
void cell_distance(const int32_t* links, int64_t scenes, const int size[3], uint8_t* distance, int threads);

template <typename T>
void render(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, const Image<T>& image, int threads);

// Adds to grad_density [V] and grad_sh [V, 27] the gradient for the image's `cotangent`; null members count as zero.
template <typename T>
void render_backward(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, const Image<T>& cotangent,
                     T* grad_density, T* grad_sh, int threads);

// Renders rgb [count, 3] and adds the loss's gradient; sets touched [V] (may be null) where a row's gradient was added to.
template <typename T>
void fit_gradients(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, const FitLoss<T>& loss, T* rgb,
                   T* grad_density, T* grad_sh, bool* touched, int threads);

// weights [V]: raised to the largest weight of any sample that reads the row.
template <typename T>
void max_weight(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, T* weights, int threads);

// One RMSProp step of param [rows, channels] on the rows set in `touched` (null: all); zeroes their gradient.
template <typename T>
void rmsprop(T* param, T* grad, T* mean_square, const bool* touched, int64_t rows, int channels, T learning_rate, T beta,
             T epsilon, int threads);

// Adds the gradient of the total variation (of coefficients with ignore_edge), then steps and clears the rows in `touched`.
template <typename T>
void update_grid(const FitState<T>& state, const UpdateOptions<T>& options, int threads);

// Trilinear sigma [count] and sh [count, 27] at points [count, 3] in grid coordinates, clamped to the grid.
template <typename T>
void sample_grid(const Grid<T>& grid, const T* points, int64_t count, T* sigma, T* sh, int threads);

}  // namespace plenoxel::cpu
