// Features of any number of channels on the CPU. Every result is the same for any number of threads.
//
// W [count, V] is what a ray weighs at a voxel: the sum over its samples of weight times the voxel's trilinear share.
#pragma once

#include "types.h"

namespace plenoxel::cpu {

// out [count, channels] = W features [V, channels].
template <typename T>
void render_features(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, const T* features,
                     int64_t channels, T* out, int threads);

// Adds W^T values [count, channels] to sums [rows, channels], and W^T 1 to weights [rows].
template <typename T>
void spread_features(const Grid<T>& grid, const Rays<T>& rays, const RenderOptions<T>& options, const T* values,
                     int64_t channels, int64_t rows, T* sums, T* weights, int threads);

}  // namespace plenoxel::cpu
