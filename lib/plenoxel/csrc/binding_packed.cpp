// Ops that exist on GPUs only: laying a grid out for rendering, and rendering it.
#ifdef WITH_CUDA
#include <ATen/ops/zeros.h>

#include "packed_tensors.h"

namespace {

using namespace plenoxel::binding;
namespace cuda = plenoxel::cuda;

// How far rays into each octant surely meet nothing, and where each occupied cell stands in the table of pack_grid.
std::tuple<Tensor, Tensor> cell_table(const Tensor& distance) {
  check_resolution("distance", distance.sizes());
  check(distance, "distance", at::kByte, distance.sizes());
  TORCH_CHECK(distance.numel() < int64_t(1) << 32, "at most 2^32 voxels can be packed, got ", distance.numel());
  const c10::cuda::CUDAGuard guard(distance.device());
  used_here({distance});
  const plenoxel::Box<float> box = box_of<float>(distance, {0., 0., 0.}, {1., 1., 1.}, 1);
  std::vector<int64_t> shape = distance.sizes().vec();
  shape.insert(shape.begin(), cuda::kOctants);
  const Tensor ahead = at::empty(shape, distance.options());
  const Tensor scratch = at::empty({2, distance.numel()}, distance.options());
  cuda::distance_ahead(data<uint8_t>(distance), grids_of(distance), box.size, data<uint8_t>(ahead), data<uint8_t>(scratch),
                       stream());
  const Tensor words = at::empty({words_of(distance.numel()), 2}, distance.options().dtype(at::kInt));
  const Tensor occupied = at::zeros({1}, words.options());
  cuda::number_cells(data<uint8_t>(distance), distance.numel(), data<cuda::CellWord>(words), data<uint32_t>(occupied),
                     stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  finish();
  return {ahead, words};
}

// `occupied`: number of occupied cells. `quantization` [2, 27], low and scale: rows become bytes. The last result, on the CPU,
// is whether any row may clamp.
std::tuple<Tensor, Tensor, Tensor> pack_grid(const Tensor& links, const Tensor& words, const Tensor& density,
                                             const Tensor& sh, const Tensor& may_clamp, int64_t occupied,
                                             const OptionalTensor& quantization) {
  check_links(links);
  check(words, "words", at::kInt, {words_of(links.numel()), 2});
  TORCH_CHECK(density.scalar_type() == at::kFloat, "float64 runs on the CPU only");
  check(density, "density", at::kFloat, {-1});
  check(sh, "sh", at::kFloat, {density.size(0), plenoxel::kCoefficients});
  check(may_clamp, "may_clamp", at::kBool, density.sizes());
  if (quantization) check(*quantization, "quantization", at::kFloat, {2, plenoxel::kCoefficients});
  check_device(links, {words, density, sh, may_clamp, quantization});
  TORCH_CHECK(occupied >= 0 && occupied <= links.numel(), "there cannot be ", occupied, " occupied cells");
  TORCH_CHECK(density.size(0) < cuda::kMayClamp, "at most 2^30 rows can be packed, got ", density.size(0));
  const c10::cuda::CUDAGuard guard(links.device());
  used_here({links, words, density, sh});
  const Tensor cells = at::empty({occupied, kCellNumbers}, links.options());
  const plenoxel::Grid<float> grid{box_of<float>(links, {0., 0., 0.}, {1., 1., 1.}, levels_of(links)), data<int32_t>(links), nullptr,
                                   data<float>(density), data<float>(sh), scenes_of(links)};
  cuda::pack_cells(grid, data<cuda::CellWord>(words), data<bool>(may_clamp), occupied, data<cuda::PackedCell>(cells),
                   stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  const auto numbers = quantization ? density.options().dtype(at::kByte) : density.options();
  const Tensor rows = at::zeros({density.size(0), cuda::kPackedRow}, numbers);
  if (quantization) {
    const float* low = data<float>(*quantization);
    cuda::pack_codes(data<float>(sh), low, low + plenoxel::kCoefficients, rows.size(0), data<uint8_t>(rows), stream());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  } else {
    rows.narrow(1, 0, plenoxel::kCoefficients).copy_(sh);
  }
  Tensor clamps = may_clamp.any().reshape({1}).cpu();
  finish();
  return {cells, rows, clamps};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> render_packed(const Tensor& ahead, const Tensor& words, const Tensor& cells,
                                                         const Tensor& rows, const Tensor& clamps,
                                                         const OptionalTensor& quantization, const Tensor& origins,
                                                         const Tensor& directions, const OptionalTensor& scene_index,
                                                         Numbers center, Numbers radius, Numbers options, int64_t outputs,
                                                         int64_t image_width) {
  const PackedScene scene{ahead, words, cells, origins, directions, scene_index, center, radius, options, image_width};
  scene.check_all();
  check_outputs(outputs);
  check(rows, "rows", quantization ? at::kByte : at::kFloat, {-1, cuda::kPackedRow});
  if (quantization) check(*quantization, "quantization", at::kFloat, {2, plenoxel::kCoefficients});
  check(clamps, "clamps", at::kBool, {1});
  TORCH_CHECK(clamps.is_cpu(), "clamps must be on the CPU, got ", clamps.device());
  check_device(ahead, {rows, quantization});
  const c10::cuda::CUDAGuard guard(ahead.device());
  used_here({rows});
  const Tensor rgb = empty_for_rays(origins, 3, outputs & kRgb), image = empty_for_rays(origins, 27, outputs & kSh),
               depth = empty_for_rays(origins, 0, outputs & kDepth), alpha = empty_for_rays(origins, 0, outputs & kAlpha);
  cuda::PackedGrid grid = scene.grid();
  if (quantization) {
    grid.codes = data<uint8_t>(rows);
    grid.low = data<float>(*quantization);
    grid.scale = grid.low + plenoxel::kCoefficients;
  } else {
    grid.rows = data<float>(rows);
  }
  grid.clamps = *data<bool>(clamps);
  cuda::render_packed(grid, scene.rays(), make_options<float>(options),
                      {outputs & kRgb ? data<float>(rgb) : nullptr, outputs & kSh ? data<float>(image) : nullptr,
                       outputs & kDepth ? data<float>(depth) : nullptr, outputs & kAlpha ? data<float>(alpha) : nullptr},
                      image_width, stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {rgb, image, depth, alpha};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(plenoxel, library) {
  library.def("cell_table(Tensor distance) -> (Tensor, Tensor)");
  library.def("pack_grid(Tensor links, Tensor words, Tensor density, Tensor sh, Tensor may_clamp, int occupied, "
              "Tensor? quantization)"
              " -> (Tensor, Tensor, Tensor)");
  library.def(
      "render_packed(" PLENOXEL_PACKED_CELLS ", Tensor rows, Tensor clamps, Tensor? quantization, " PLENOXEL_RAYS
      ", int outputs, int image_width) -> (Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(plenoxel, CUDA, library) {
  library.impl("cell_table", &cell_table);
  library.impl("pack_grid", &pack_grid);
  library.impl("render_packed", &render_packed);
}
#endif
