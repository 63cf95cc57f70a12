// Gradients of one ray by a warp, four consecutive cells at a time, eight lanes (an octet) a cell and a lane a corner.
//
// With g the loss's gradient by the ray's colour and distance, q_i = g . (colour, distance)_i, and the notation of
// compositing.h, dL/dtau_i = q_i T_{i+1} + sum_{j <= i} q_j w_j - (what the whole ray gives) is linear in g. So the sums that
// multiply g can be collected for each voxel before g is known: one walk composites the ray and collects, and each voxel's
// gradients are added to memory at its end. Within a cell all is linear in the transmittance before it, and what lies before
// it adds a multiple of the corner weights, so cells are independent, too.
#pragma once

#include "../interpolation.h"
#include "../loss.h"
#include "../nested.h"
#include "scene.cuh"
#include "voxel_sums.cuh"

namespace plenoxel::cuda {

// kImage: there is a cotangent of the SH image.
template <bool kImage>
class RayWalk : FourOctets {
 public:
  float optical_depth = 0;
  bool stopped = false;
  bool spilled = false;  // it met more voxels than are kept

  __device__ __forceinline__ RayWalk(const Grid<float>& grid, const Rays<float>& rays, int64_t i,
                                     const RenderOptions<float>& options, const float* cotangent,
                                     const KnownGradient& known, RayMemory<kImage>& memory)
      : grid_(grid), origin_(rays.origins + 3 * i), direction_(rays.directions + 3 * i), scene_(first_cell(grid, rays, i)),
        options_(options), known_(known), memory_(memory), stop_depth_(-logf(options.stop_thresh)) {
    float basis[kBasis];
    sh_basis(direction_, basis);
    const int lane = lane_of_thread();
    band_ = pick(basis, corner());
    last_band_ = corner() < 3 ? basis[kBasis - 1] : 0;
    basis_ = lane < kCoefficients ? pick(basis, lane % kBasis) : 0;
    for (int c = 0; kImage && c < 3; ++c) cotangent_[c] = __ldg(cotangent + c * kBasis + corner());
    if (kImage && corner() < 3) cotangent_[3] = __ldg(cotangent + corner() * kBasis + kBasis - 1);
    if (kImage && lane < kCoefficients) own_cotangent_ = __ldg(cotangent + lane);
  }

  // The whole ray's sum number k of CellSums::ray.
  __device__ __forceinline__ float sum(int k) const { return __shfl_sync(kWarp, sums_, k); }

  // Walks the ray and collects; `full` is called before the voxels collected so far are forgotten.
  template <typename Full>
  __device__ __forceinline__ void run(Full&& full) {
    optical_depth = sums_ = 0;
    stopped = false;
    used_ = 0;
    for (int part = 0; !stopped;) {
      const int level = next_part(grid_, options_.near_clip, origin_, direction_, part, ray_);
      if (level < 0) break;
      first_ = scene_ + level * cells_of(grid_);
      float begin = ray_.entry;
      while (begin <= ray_.exit && !stopped) {
        const int count = find_cells(grid_, first_, ray_, options_.step_size, memory_.cells, begin);
        for (int entry = 0; entry < count && !stopped; entry += kOctets) visit(entry, count, full);
        __syncwarp();
      }
    }
  }

  // Adds what was collected to the gradients in memory; `behind`: what the whole ray gives.
  __device__ __forceinline__ void flush(const RayGradient<float>& gradient, float behind, const GradientRows& out) {
    const int lane = lane_of_thread();
    const bool density = lane == kCoefficients;
    const float length = density ? options_.step_size * ray_.delta : 0, by_color = basis_ * pick(gradient.rgb, lane / kBasis);
    const float4 of_parts = make_float4(lane / kBasis == 0 ? by_color : 0, lane / kBasis == 1 ? by_color : 0,
                                        lane / kBasis == 2 ? by_color : 0, density ? 1 : 0);
    const float4 of_ahead = make_float4(length * gradient.rgb[0], length * gradient.rgb[1], length * gradient.rgb[2],
                                        length * gradient.depth);
    const float of_share = -length * behind;
    float* const target = density ? out.density : out.sh + lane;
    const int64_t stride = density ? 1 : kCoefficients;
    __syncwarp();
    for (int slot = 0; slot < used_; ++slot) {
      const int32_t row = memory_.row[slot];
      if (row < 0) continue;
      const VoxelSums& voxel = memory_.voxels[slot];
      float value = dot(of_parts, voxel.parts) + dot(of_ahead, voxel.ahead) + of_share * voxel.look.w;
      if (kImage) value = __fmaf_rn(own_cotangent_, memory_.image[slot].y, value);
      if (lane <= kCoefficients) atomicAdd(target + row * stride, value);
      if (lane == kLanes - 1 && out.touched) out.touched[row] = true;
    }
    __syncwarp();
    used_ = 0;
  }

 private:
  static constexpr int kUsedSums = kImage ? kSums : kSums - 1;

  // Cells entry .. entry + 3 of the list.
  template <typename Full>
  __device__ __forceinline__ void visit(int entry, int count, Full&& full) {
    const int mine = entry + octet();
    const bool valid = mine < count;
    const float* const list = memory_.cells.entry;
    const float t = list[min(mine, count - 1)];
    float nearby[3];
    int index[3], before[3];
    locate(grid_.size, ray_, t, nearby, index);
    const int64_t number = first_ + cell_number(grid_, index) + corner_offset(grid_.size, corner());
    int32_t row = valid ? __ldg(grid_.links + number) : -1;
    const float density = row >= 0 ? __ldg(grid_.density + row) : 0;
    // Cells without density hold no samples: their voxels are not read and take no slots.
    const unsigned denses = __ballot_sync(kWarp, density > 0);
    const bool dense = in_octet(denses, octet());
    const bool linked = octet() ? in_octet(denses, octet() - 1) : last_dense_;
    last_dense_ = in_octet(denses, kOctets - 1);
    if (denses == 0) return;
    if (!dense) row = -1;
    int from = -1;
    if (valid && mine > 0 && linked) {
      locate(grid_.size, ray_, list[mine - 1], nearby, before);
      from = corner_before(before, index, corner());
    }
    const int fresh = take_slots(row, from, full);
    read_rows(fresh);

    const float4 look = row >= 0 ? memory_.voxels[slot_].look : make_float4(0.5f, 0.5f, 0.5f, 0);
    const float color[3] = {look.x, look.y, look.z};
    const float image = kImage && row >= 0 ? memory_.image[slot_].x : 0;
    CellSums sums;
    float start;
    for (bool again = false;; again = true) {
      sums = integrate(t, index, dense, density, color, image, again ? start : optical_depth);
      if (again) {
        const unsigned stops = __ballot_sync(kWarp, sums.stopped);
        stopped = stops != 0;
        if (stopped && octet() > (__ffs(stops) - 1) / kOctet) sums = CellSums();
      }
      float total;
      start = optical_depth + sum_before(sums.optical_depth, total);
      const bool stops = sums.stopped || start + sums.optical_depth > stop_depth_;
      if (again || !__any_sync(kWarp, stops)) {
        optical_depth += total;
        break;
      }
    }
    collect(sums, row, start);
  }

  // Finds this lane's voxel among those of the cell before, or takes a new slot for it. Returns the first new slot.
  template <typename Full>
  __device__ __forceinline__ int take_slots(int32_t row, int from, Full&& full) {
    const int lane = lane_of_thread();
    bool fresh = row >= 0 && from < 0;
    unsigned all = __ballot_sync(kWarp, fresh);
    if (used_ + __popc(all) > kVoxels) {
      full();
      used_ = 0;
      spilled = true;
      fresh = row >= 0 && (from < 0 || octet() == 0);
      all = __ballot_sync(kWarp, fresh);
    }
    const int source = (lane - corner() - kOctet + max(from, 0)) & (kLanes - 1);
    const int carried = __shfl_sync(kWarp, slot_, source);  // for the first octet: from the last one's cell before
    slot_ = fresh ? used_ + __popc(all & ((1u << lane) - 1)) : octet() == 0 ? carried : -1;
    for (int k = 1; k < kOctets; ++k) {
      const int other = __shfl_sync(kWarp, slot_, source);
      if (octet() == k && !fresh) slot_ = other;
    }
    if (fresh) memory_.row[slot_] = ~row;
    const int first = used_;
    used_ += __popc(all);
    __syncwarp();
    return first;
  }

  // Looks at the voxels in the slots from `first` on, an octet a voxel, and clears their sums.
  __device__ __forceinline__ void read_rows(int first) {
    for (int begin = first; begin < used_; begin += 2 * kOctets) {
      float values[2][4];
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const int slot = begin + k * kOctets + octet();
        const float* const row = grid_.sh + int64_t(~memory_.row[min(slot, used_ - 1)]) * kCoefficients;
#pragma unroll
        for (int c = 0; c < 3; ++c) values[k][c] = __ldg(row + c * kBasis + corner());
        values[k][3] = corner() < 3 ? __ldg(row + corner() * kBasis + kBasis - 1) : 0;
      }
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const int slot = begin + k * kOctets + octet();
        const float last = last_band_ * values[k][3];
        float product[4] = {};
        for (int c = 0; c < 3; ++c) product[c] = __fmaf_rn(values[k][c], band_, corner() == c ? last : 0);
        for (int m = 0; kImage && m < 4; ++m) product[3] = __fmaf_rn(values[k][m], cotangent_[m], product[3]);
        const float sum = transposed_sum(product);
        if (slot >= used_) continue;
        float* const voxel = reinterpret_cast<float*>(memory_.voxels + slot);
        if (corner() < 4) voxel[corner()] = corner() < 3 ? sum + 0.5f : 0;
        voxel[4 + corner()] = 0;
        if (kImage && corner() == 3) memory_.image[slot] = make_float2(sum, 0);
      }
    }
    __syncwarp();
  }

  // The samples in this octet's cell from t on; `before`: optical depth in front of it, as far as known.
  __device__ __forceinline__ CellSums integrate(float t, const int index[3], bool dense, float density,
                                                const float (&color)[3], float image, float before) const {
    CellSums sums;
    bool inside = dense;
    Cell<float> cell = cell_on_ray(grid_.size, ray_, t);
    while (__any_sync(kWarp, inside)) {
      const float share = corner_share(cell.fraction);
      const float sum = transposed_sum({share * density, share * color[0], share * color[1], share * color[2]});
      const float sigma = from_corner(sum, 0);
      const float look[3] = {from_corner(sum, 1), from_corner(sum, 2), from_corner(sum, 3)};
      const float product = kImage ? from_corner(transposed_sum({share * image, 0, 0, 0}), 0) : 0;
      if (inside && sigma > options_.sigma_thresh) add_sample(sums, t, sigma, share, look, product, before);
      const float next = t + options_.step_size;
      inside = inside && !sums.stopped && next > t && next <= ray_.exit;  // next == t: a step is lost in rounding
      t = next;
      cell = cell_on_ray(grid_.size, ray_, t);
      inside = inside && cell.index[0] == index[0] && cell.index[1] == index[1] && cell.index[2] == index[2];
    }
    return sums;
  }

  __device__ __forceinline__ void add_sample(CellSums& sums, float t, float sigma, float share, const float (&look)[3],
                                             float product, float before) const {
    sums.optical_depth += sigma * (options_.step_size * ray_.delta);
    const float through = expf(-sums.optical_depth), weight = sums.transmittance - through, part = weight * share;
    sums.transmittance = through;
    sums.stopped = before + sums.optical_depth > stop_depth_;
    sums.sampled = true;
    const float distance = t * ray_.world;
    const float value[kSums] = {larger(look[0], 0.f), larger(look[1], 0.f), larger(look[2], 0.f), distance,
                                distance < known_.free_until ? 1.f : 0.f, product};
    for (int k = 0; k < kUsedSums; ++k) {
      sums.ray[k] = __fmaf_rn(weight, value[k], sums.ray[k]);
      sums.ahead[k] = __fmaf_rn(share, __fmaf_rn(value[k], through, sums.ray[k]), sums.ahead[k]);
    }
    for (int c = 0; c < 3; ++c) sums.by_color[c] += look[c] >= 0 ? part : 0;
    sums.share += share;
    if (kImage) sums.weight += part;
    if (known_.sparsity != 0) sums.sparsity = __fmaf_rn(share, sparsity_gradient(sigma), sums.sparsity);
  }

  // Adds a cell's sums to those of the ray and of its corners' voxels; `start`: optical depth in front of it.
  __device__ __forceinline__ void collect(const CellSums& sums, int32_t row, float start) {
    const float through = expf(-start);
    float total;
    const float before = sums_ + sum_before(through * pick(sums.ray, corner()), total);  // lane k has number k
    sums_ += total;
    float ahead[kSums] = {};
    for (int k = 0; k < kUsedSums; ++k) ahead[k] = __fmaf_rn(from_corner(before, k), sums.share, through * sums.ahead[k]);
    const float length = options_.step_size * ray_.delta;
    const float known = length * __fmaf_rn(known_.free_space, ahead[4], ahead[5]) + known_.sparsity * sums.sparsity;
    for (int k = 0; k < kOctets; ++k) {  // one after another, because cells share voxels
      if (octet() == k && row >= 0 && sums.sampled) {
        VoxelSums& voxel = memory_.voxels[slot_];
        voxel.look.w += sums.share;
        voxel.parts = voxel.parts + make_float4(through * sums.by_color[0], through * sums.by_color[1],
                                                through * sums.by_color[2], known);
        voxel.ahead = voxel.ahead + make_float4(ahead[0], ahead[1], ahead[2], ahead[3]);
        if (kImage) memory_.image[slot_].y += through * sums.weight;
        memory_.row[slot_] = row;
      }
      __syncwarp();
    }
  }

  const Grid<float>& grid_;
  const float *const origin_, *const direction_;
  const int64_t scene_;  // number of its first cell
  int64_t first_;        // likewise of the level that the ray is in
  Ray<float> ray_;       // there
  const RenderOptions<float>& options_;
  const KnownGradient& known_;
  RayMemory<kImage>& memory_;
  const float stop_depth_;            // optical depth beyond which a ray ends
  float basis_ = 0;                   // of coefficient number `lane`
  float band_, last_band_;            // basis function number `corner`; the ninth, in the lanes that add a channel's
  float cotangent_[4] = {};           // as `read_rows` reads a row
  float own_cotangent_ = 0;           // of coefficient number `lane`
  float sums_ = 0;                    // lane k: number k of CellSums::ray, over the ray so far
  int used_ = 0;                      // slots
  int slot_ = -1;                     // of this lane's corner, where its cell has density and its voxel isn't empty
  bool last_dense_ = false;           // whether the last octet's cell had density
};

}  // namespace plenoxel::cuda
