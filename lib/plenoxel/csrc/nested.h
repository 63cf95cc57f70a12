// Rays through nested grids: `levels` grids of one resolution about one centre, each reaching half as far as the next. Level 0
// is the innermost, level levels - 1 the whole box. A ray is in the innermost grid in whose box it is, so it has at most
// 2 levels - 1 parts: inwards through one shell after another, through the innermost box, and out again.
//
// Density is per world length as if every voxel had the outermost ones' size: voxels of the same density have the same opacity
// in all levels. So a ray's direction and `delta` are the same in all of them; its origin, `world` and range of t are not.
#pragma once

#include "ray.h"

namespace plenoxel {

// The ray in the whole box of a level.
template <typename T>
PLENOXEL_HD Ray<T> level_ray(const Box<T>& box, T near_clip, const T* origin, const T* direction, int level) {
  return make_ray(box, near_clip, origin, direction, T(1 << (box.levels - 1 - level)));
}

// Makes `ray` the next of the ray's parts, front to back, and returns its level; -1 where there are no more. `part`: 0 at first.
template <typename T>
PLENOXEL_HD int next_part(const Box<T>& box, T near_clip, const T* origin, const T* direction, int& part, Ray<T>& ray) {
  for (const int last = 2 * box.levels - 2; part <= last;) {
    const int own = part++;
    const bool inwards = own < box.levels;
    const int level = inwards ? box.levels - 1 - own : own - (box.levels - 1);
    ray = level_ray(box, near_clip, origin, direction, level);
    if (level > 0) {
      const Ray<T> inner = level_ray(box, near_clip, origin, direction, level - 1);
      if (inwards && inner.starts_inside()) continue;
      if (!inner.hits()) part = last - own + 1;  // the whole box in one part; then out of the next
      else if (inwards) ray.exit = inner.entry / 2;
      else ray.entry = inner.exit / 2;
    }
    if (ray.hits()) return level;
  }
  return -1;
}

}  // namespace plenoxel
