// A grid's packed cells and rays as ops on GPUs are given them, in tensors and numbers.
#pragma once
#ifdef WITH_CUDA
#include "backend.h"

#define PLENOXEL_PACKED_CELLS "Tensor ahead, Tensor words, Tensor cells"

namespace plenoxel::binding {

constexpr int64_t kCellNumbers = sizeof(cuda::PackedCell) / sizeof(int32_t);

inline int64_t words_of(int64_t cells) { return (cells + 31) / 32; }

// What ops that march through packed cells are given, in the order of their schemas.
struct PackedScene {
  const Tensor &ahead, &words, &cells, &origins, &directions;
  const OptionalTensor& scene_index;
  Numbers center, radius, options;
  int64_t image_width;

  void check_all() const {
    TORCH_CHECK(ahead.dim() >= 4 && ahead.dim() <= 6 && ahead.size(0) == cuda::kOctants,
                "ahead must be [8, ...], with the dimensions of links, got ", ahead.sizes());
    check_resolution("ahead", ahead.sizes().slice(1));
    check(ahead, "ahead", at::kByte, ahead.sizes());
    check(words, "words", at::kInt, {words_of(ahead.numel() / cuda::kOctants), 2});
    check(cells, "cells", at::kInt, {-1, kCellNumbers});
    check_rays(origins, directions, at::kFloat);
    check_device(ahead, {words, cells, origins, directions, scene_index});
    check_scene_index(scene_index, origins.size(0), scenes());
    check_options(center, radius, options);
    TORCH_CHECK(image_width >= 0, "image_width must not be negative, got ", image_width);
    used_here({ahead, words, cells});
  }
  int64_t scenes() const { return ahead.dim() > 4 ? ahead.size(1) : 1; }
  int levels() const { return ahead.dim() > 5 ? int(ahead.size(2)) : 1; }
  // Without rows.
  cuda::PackedGrid grid() const {
    return {box_of<float>(ahead, center, radius, levels()), data<uint8_t>(ahead), data<cuda::CellWord>(words),
            data<cuda::PackedCell>(cells), nullptr, nullptr, nullptr, nullptr, false, scenes()};
  }
  Rays<float> rays() const {
    return {data<float>(origins), data<float>(directions), data<int32_t>(scene_index), origins.size(0)};
  }
};

}  // namespace plenoxel::binding
#endif
