// Ops that exist on GPUs only: packing a grid for rendering, and rendering it.
#ifdef WITH_CUDA
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <vector>

#include "binding.h"
#include "cuda/kernels.h"

namespace {

using namespace plenoxel::binding;
namespace cuda = plenoxel::cuda;

constexpr int64_t kCellNumbers = sizeof(cuda::PackedCell) / sizeof(int32_t);

int64_t scenes_of(const Tensor& links) { return links.dim() == 4 ? links.size(0) : 1; }

// Waits for the GPU once, to learn how many cells are occupied.
std::tuple<Tensor, Tensor, Tensor> pack_cells(const Tensor& links, const Tensor& distance, const Tensor& density,
                                              const Tensor& may_clamp) {
  check_links(links);
  check(distance, "distance", at::kByte, links.sizes());
  check(density, "density", at::kFloat, {-1});
  check(may_clamp, "may_clamp", at::kBool, density.sizes());
  check_device(links, {distance, density, may_clamp});
  TORCH_CHECK(links.numel() < int64_t(1) << 32, "at most 2^32 voxels can be packed, got ", links.numel());
  TORCH_CHECK(density.size(0) < cuda::kMayClamp, "at most 2^30 rows can be packed, got ", density.size(0));
  const c10::cuda::CUDAGuard guard(links.device());
  const cuda::Stream stream = c10::cuda::getCurrentCUDAStream().stream();
  const int64_t last = links.dim();
  const int size[3] = {int(links.size(last - 3)), int(links.size(last - 2)), int(links.size(last - 1))};
  const Tensor scratch = at::empty({2, distance.numel()}, distance.options());
  const Tensor ahead = at::empty({cuda::kOctants, links.numel()}, distance.options());
  cuda::distance_ahead(data<uint8_t>(distance), scenes_of(links), size, data<uint8_t>(ahead), data<uint8_t>(scratch), stream);
  const Tensor words = at::empty({(links.numel() + 31) / 32, 2}, links.options());
  const Tensor occupied = at::zeros({1}, links.options());
  cuda::number_cells(data<uint8_t>(distance), links.numel(), data<cuda::CellWord>(words), data<uint32_t>(occupied), stream);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  const int64_t count = uint32_t(occupied.item<int32_t>());
  const Tensor cells = at::empty({count, kCellNumbers}, links.options());
  cuda::pack_cells(data<int32_t>(links), scenes_of(links), size, data<cuda::CellWord>(words), data<float>(density),
                   data<bool>(may_clamp), data<cuda::PackedCell>(cells), stream);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  std::vector<int64_t> shape = links.sizes().vec();
  shape.insert(shape.begin(), cuda::kOctants);
  return {ahead.view(shape), words, cells};
}

cuda::Storage storage_of(const Tensor& rows, const OptionalTensor& affine) {
  check(rows, "rows", rows.scalar_type(), {-1, cuda::kPackedRow});
  TORCH_CHECK(affine.has_value() == (rows.scalar_type() == at::kByte), "bytes, and only they, come with an affine map");
  if (affine) check(*affine, "affine", at::kFloat, {2, plenoxel::kCoefficients});
  switch (rows.scalar_type()) {
    case at::kFloat: return cuda::Storage::kFloat;
    case at::kHalf: return cuda::Storage::kHalf;
    case at::kByte: return cuda::Storage::kByte;
    default: TORCH_CHECK(false, "rows must be float32, float16 or uint8, got ", rows.scalar_type());
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> render_packed(const Tensor& ahead, const Tensor& words, const Tensor& cells,
                                                         const Tensor& rows, const OptionalTensor& affine,
                                                         bool clamps, const Tensor& origins, const Tensor& directions,
                                                         const OptionalTensor& scene_index, Numbers center, Numbers radius,
                                                         Numbers options, bool sh_background, int64_t outputs,
                                                         int64_t image_width) {
  TORCH_CHECK((ahead.dim() == 4 || ahead.dim() == 5) && ahead.size(0) == cuda::kOctants,
              "ahead must be [8, Rx, Ry, Rz] or [8, S, Rx, Ry, Rz], got ", ahead.sizes());
  check(ahead, "ahead", at::kByte, ahead.sizes());
  check(words, "words", at::kInt, {(ahead.numel() / cuda::kOctants + 31) / 32, 2});
  check(cells, "cells", at::kInt, {-1, kCellNumbers});
  check(origins, "origins", at::kFloat, {-1, 3});
  check(directions, "directions", at::kFloat, {origins.size(0), 3});
  if (scene_index) check(*scene_index, "scene_index", at::kInt, {origins.size(0)});
  check_device(ahead, {words, cells, rows, affine, origins, directions, scene_index});
  check_options(center, radius, options);
  TORCH_CHECK(image_width >= 0, "image_width must not be negative, got ", image_width);
  const cuda::Storage storage = storage_of(rows, affine);
  const c10::cuda::CUDAGuard guard(ahead.device());
  const Tensor rgb = empty_for_rays(origins, 3, outputs & kRgb), image = empty_for_rays(origins, 27, outputs & kSh),
               depth = empty_for_rays(origins, 0, outputs & kDepth), alpha = empty_for_rays(origins, 0, outputs & kAlpha);
  const int64_t last = ahead.dim();
  const cuda::PackedGrid grid{data<uint8_t>(ahead),
                              data<cuda::CellWord>(words),
                              data<cuda::PackedCell>(cells),
                              rows.data_ptr(),
                              data<float>(affine),
                              storage,
                              clamps,
                              last == 5 ? ahead.size(1) : 1,
                              {int(ahead.size(last - 3)), int(ahead.size(last - 2)), int(ahead.size(last - 1))}};
  cuda::render_packed(grid, {data<float>(origins), data<float>(directions), data<int32_t>(scene_index), origins.size(0)},
                      make_options<float>(center, radius, options, sh_background),
                      {outputs & kRgb ? data<float>(rgb) : nullptr, outputs & kSh ? data<float>(image) : nullptr,
                       outputs & kDepth ? data<float>(depth) : nullptr, outputs & kAlpha ? data<float>(alpha) : nullptr},
                      image_width, c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {rgb, image, depth, alpha};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(plenoxel, library) {
  library.def("pack_cells(Tensor links, Tensor distance, Tensor density, Tensor may_clamp) -> (Tensor, Tensor, Tensor)");
  library.def(
      "render_packed(Tensor ahead, Tensor words, Tensor cells, Tensor rows, Tensor? affine, bool clamps,"
      " Tensor origins, Tensor directions, Tensor? scene_index, float[] center, float[] radius, float[] options, bool sh_background,"
      " int outputs, int image_width) -> (Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(plenoxel, CUDA, library) {
  library.impl("pack_cells", &pack_cells);
  library.impl("render_packed", &render_packed);
}
#endif
