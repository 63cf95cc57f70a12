// Sphere layers on GPUs. Same meaning as layers_cpu.h, float32 only; see kernels.h on streams and errors.
#pragma once

#include "../layers.h"
#include "kernels.h"

namespace plenoxel::cuda {

void shade_layers(const SphereLayers<float>& spheres, const Rays<float>& rays, const bool* seen, float* rgb,
                  Stream stream);

void shade_layers_gradients(const SphereLayers<float>& spheres, const Rays<float>& rays, const float* grad_rgb,
                            Texel<float>* grad_texels, bool* touched, Stream stream);

}  // namespace plenoxel::cuda
