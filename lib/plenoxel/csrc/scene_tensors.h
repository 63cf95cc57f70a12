// A grid and rays as ray ops are given them, in tensors and numbers.
#pragma once

#include "backend.h"

#define PLENOXEL_GRID "Tensor links, Tensor distance, Tensor density"

namespace plenoxel::binding {

// The tensors and numbers that every ray op is given, in the order of its schema.
struct Scene {
  const Tensor &links, &distance, &density;
  const OptionalTensor& sh;
  const Tensor &origins, &directions;
  const OptionalTensor& scene_index;
  Numbers center, radius, options;

  void check_all() const {
    check_links(links);
    check(distance, "distance", at::kByte, links.sizes());
    const at::ScalarType type = density.scalar_type();
    check(density, "density", type, {-1});
    if (sh) check(*sh, "sh", type, {density.size(0), plenoxel::kCoefficients});
    check_rays(origins, directions, type);
    check_device(density, {links, distance, sh, origins, directions, scene_index});
    check_scene_index(scene_index, origins.size(0), scenes_of(links));
    check_options(center, radius, options);
    used_here({links, distance, density, sh});
  }
  template <typename T>
  plenoxel::Grid<T> grid() const {
    return {box_of<T>(links, center, radius, levels_of(links)),
            data<int32_t>(links),
            data<uint8_t>(distance),
            data<T>(density),
            data<T>(sh),
            scenes_of(links)};
  }
  template <typename T>
  plenoxel::Rays<T> rays() const {
    return {data<T>(origins), data<T>(directions), data<int32_t>(scene_index), origins.size(0)};
  }
};

}  // namespace plenoxel::binding
