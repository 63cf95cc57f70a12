// The gradient of a loss by the outputs of one ray, and of fit_gradients' loss in particular (stated in ops.py).
#pragma once

#include "compositing.h"

namespace plenoxel {

template <typename T>
struct RayGradient {
  T rgb[3] = {};
  T depth = 0;
  T transmittance = 0;      // by what reaches the background, beyond its part in rgb
  T log_transmittance = 0;  // by log T, also where the ray was stopped
  T sparsity = 0;           // factor of the sparsity loss on each sample
  T free_space = 0;         // by the weight of each sample nearer than free_until
  T free_until = 0;         // world
};

// World distance up to which ray i is known to be free.
template <typename T>
PLENOXEL_HD T free_until(const FitLoss<T>& loss, int64_t i) {
  return loss.depth_target && loss.depth_target[i] > 0 ? loss.depth_target[i] - loss.free_space_margin : T(0);
}

// The colour behind the grid on ray i: a row of `colors`, or grey where there are none.
template <typename T>
PLENOXEL_HD void background_of(const T* colors, T brightness, int64_t i, T background[3]) {
  for (int c = 0; c < 3; ++c) background[c] = colors ? colors[3 * i + c] : brightness;
}

// For ray i of `count`, composited to `rgb` and the expected distance `depth`.
template <typename T>
PLENOXEL_HD RayGradient<T> loss_gradient(const FitLoss<T>& loss, const Compositor<T>& compositor, const T rgb[3], T depth,
                                         int64_t count, int64_t i) {
  RayGradient<T> gradient;
  for (int c = 0; c < 3; ++c) {
    const T weight = loss.ray_weights ? loss.ray_weights[3 * i + c] : T(1);
    gradient.rgb[c] = weight * 2 * (rgb[c] - loss.target[3 * i + c]) / (3 * count);
  }
  if (loss.beta_lambda > 0) gradient.log_transmittance = loss.beta_lambda / count * beta_gradient(compositor);
  gradient.sparsity = loss.sparsity_lambda;
  if (loss.depth_target && loss.depth_target[i] > 0) {
    gradient.depth = loss.depth_lambda * 2 * (depth - loss.depth_target[i]) / count;
    gradient.free_space = loss.free_space_lambda / count;
    gradient.free_until = free_until(loss, i);
  }
  return gradient;
}

}  // namespace plenoxel
