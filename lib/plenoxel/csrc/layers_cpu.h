// Sphere layers on the CPU. Every result is the same for any number of threads.
#pragma once

#include "layers.h"

namespace plenoxel::cpu {

// rgb [count, 3]. Directions may have any length. Where `seen` [count] (may be null) is not set, a ray gets the brightness.
template <typename T>
void shade_layers(const SphereLayers<T>& spheres, const Rays<T>& rays, const bool* seen, T* rgb, int threads);

// Adds to grad_texels [rows, 2 rows, layers] the gradient for grad_rgb [count, 3]; sets touched [rows, 2 rows] (may be
// null) where a direction's gradient was added to.
template <typename T>
void shade_layers_gradients(const SphereLayers<T>& spheres, const Rays<T>& rays, const T* grad_rgb,
                            Texel<T>* grad_texels, bool* touched, int threads);

}  // namespace plenoxel::cpu
