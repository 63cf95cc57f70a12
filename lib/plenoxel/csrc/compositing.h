// Front-to-back compositing, its derivative, and the regularizers that live on samples and rays.
//
// Sample i has optical depth tau_i = sigma_i * step * delta and weight w_i = T_i (1 - exp(-tau_i)), T_{i+1} = T_i exp(-tau_i).
// A loss reaches the samples through q_i = dL/dw_i and q_T = dL/dT of the transmittance that is left at the end:
//   dL/dtau_i = q_i T_{i+1} - sum_{j > i} q_j w_j - q_T T_end - dL/dlog T_end.
#pragma once

#include <cmath>

#include "types.h"

namespace plenoxel {

template <typename T>
struct Compositor {
  T optical_depth = 0, transmittance = 1;
  bool stopped = false;

  // Passes a sample of optical depth tau; returns its weight.
  PLENOXEL_HD T pass(T tau, T stop_thresh) {
    optical_depth += tau;
    const T before = transmittance;
    transmittance = std::exp(-optical_depth);
    stopped = transmittance < stop_thresh;
    return before - transmittance;
  }
  // What reaches the background: nothing once the ray was stopped.
  PLENOXEL_HD T remaining() const { return stopped ? T(0) : transmittance; }
};

// Walks a ray's samples back to front, collecting what lies behind each.
template <typename T>
struct BackwardCompositor {
  T behind;  // starts as q_T T_end + dL/dlog T_end

  // dL/dtau of a sample with this dL/dw, weight, and transmittance just after it.
  PLENOXEL_HD T pass(T weight_gradient, T weight, T transmittance_after) {
    const T gradient = weight_gradient * transmittance_after - behind;
    behind += weight_gradient * weight;
    return gradient;
  }
};

// Beta loss log T + log(1 - T + 1e-3), which drives a ray's final transmittance to 0 or 1: its derivative by log T. Takes
// the optical depth, because 1 - T cancels where T is close to 1, just where the derivative is largest.
template <typename T>
PLENOXEL_HD T beta_gradient(const Compositor<T>& compositor) {
  if (compositor.stopped) return T(1);
  return 1 - compositor.transmittance / (T(1e-3) - std::expm1(-compositor.optical_depth));
}

// Cauchy sparsity log(1 + 2 sigma^2) on samples (SNeRG): its derivative by sigma.
template <typename T>
PLENOXEL_HD T sparsity_gradient(T sigma) {
  return 4 * sigma / (1 + 2 * sigma * sigma);
}

}  // namespace plenoxel
