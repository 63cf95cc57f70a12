// Rays that are the pixels of images, walked in tiles: neighbours meet the same voxels, which are then still in a cache.
#pragma once

#include "types.h"

namespace plenoxel {

template <int kWidth, int kHeight>
struct Tiles {
  static constexpr int kPixels = kWidth * kHeight;

  // The ray at a place of the walk: in scan order, or in tiles of images of that width stacked in one tall image; `count` where
  // a tile reaches beyond the images.
  PLENOXEL_HD static int64_t ray(int64_t place, int64_t count, int64_t width) {
    if (width == 0) return place < count ? place : count;
    const int64_t tile = place / kPixels, tiles_across = (width + kWidth - 1) / kWidth;
    const int64_t column = tile % tiles_across * kWidth + place % kWidth;
    const int64_t number = (tile / tiles_across * kHeight + place % kPixels / kWidth) * width + column;
    return column < width && number < count ? number : count;
  }

  // Over how many places `ray` spreads the rays.
  static int64_t places(int64_t count, int64_t width) {
    if (width == 0) return count;
    const int64_t height = (count + width - 1) / width;
    return (width + kWidth - 1) / kWidth * ((height + kHeight - 1) / kHeight) * kPixels;
  }
};

}  // namespace plenoxel
