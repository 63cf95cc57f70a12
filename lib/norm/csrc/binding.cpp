// Registers torch.ops.norm; the only file of this extension that knows PyTorch. There are no CPU kernels: on a CPU the
// networks use PyTorch's own layers, which reference.py is made of.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

#ifdef WITH_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_bf16.h>

#include "cuda/norm.h"
#endif

#ifdef WITH_CUDA
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// The images of a call, and what they are normalised with.
struct Call {
  const Tensor &x, &weight, &bias, &mean, &inverse_std;
  const OptionalTensor &residual, &keep, &inner, &outer;
  double inner_slope, outer_slope;
};

void check_images(const Tensor& images, const Tensor& like, const char* name) {
  TORCH_CHECK(images.dim() == 4 && images.is_contiguous(at::MemoryFormat::ChannelsLast), name,
              " must be [B, C, H, W], channels last in memory");
  TORCH_CHECK(images.device() == like.device() && images.scalar_type() == like.scalar_type(), name,
              " must be of x's device and type");
  TORCH_CHECK(images.size(0) == like.size(0) && images.size(2) == like.size(2) && images.size(3) == like.size(3), name,
              " must have x's number and size of images");
  TORCH_CHECK(images.size(1) % 4 == 0 && images.size(1) > 0, name, " must have a multiple of 4 channels");
}

void check_floats(const Tensor& values, at::IntArrayRef shape, const Tensor& x, const char* name) {
  TORCH_CHECK(values.scalar_type() == at::kFloat && values.is_contiguous() && values.sizes() == shape &&
                  values.device() == x.device(),
              name, " must be contiguous float32 of shape ", shape, " on x's device");
}

norms::Shape check(const Call& call) {
  const Tensor& x = call.x;
  TORCH_CHECK(x.is_cuda() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16),
              "x must be float32 or bfloat16 on a CUDA device");
  TORCH_CHECK(x.dim() == 4 && x.numel() > 0, "x must be [B, C, H, W] and not empty");
  check_images(x, x, "x");
  const int64_t channels = x.size(1), pixels = x.size(2) * x.size(3), rows = x.size(0) * pixels;
  TORCH_CHECK(channels <= norms::kMostChannels && rows <= INT32_MAX, "x has too many channels or pixels");
  for (const auto& [values, name] : {std::pair{&call.weight, "weight"}, {&call.bias, "bias"}, {&call.mean, "mean"},
                                     {&call.inverse_std, "inverse_std"}}) {
    check_floats(*values, {channels}, x, name);
  }
  for (const auto& [slope, name] : {std::pair{&call.inner, "inner"}, {&call.outer, "outer"}}) {
    if (*slope) check_floats(**slope, {1}, x, name);
  }
  if (call.residual) {
    check_images(*call.residual, x, "residual");
    TORCH_CHECK(call.residual->size(1) <= channels, "residual must not have more channels than x");
  }
  TORCH_CHECK(call.residual || !(call.keep || call.outer), "keep and outer go with a residual");
  if (call.keep) check_floats(*call.keep, {x.size(0), channels}, x, "keep");
  return {rows, pixels, static_cast<int32_t>(channels),
          call.residual ? static_cast<int32_t>(call.residual->size(1)) : 0};
}

template <class T>
const T* pointer(const OptionalTensor& tensor) {
  return tensor ? reinterpret_cast<const T*>(tensor->const_data_ptr()) : nullptr;
}

template <class T>
norms::Tensors<T> pointers(const Call& call) {
  return {reinterpret_cast<const T*>(call.x.const_data_ptr()),
          pointer<T>(call.residual),
          pointer<float>(call.keep),
          call.weight.const_data_ptr<float>(),
          call.bias.const_data_ptr<float>(),
          const_cast<float*>(call.mean.const_data_ptr<float>()),
          const_cast<float*>(call.inverse_std.const_data_ptr<float>()),
          {pointer<float>(call.inner), static_cast<float>(call.inner_slope)},
          {pointer<float>(call.outer), static_cast<float>(call.outer_slope)}};
}

Tensor make_workspace(const norms::Shape& shape, const Tensor& x) {
  return at::empty({static_cast<int64_t>(norms::workspace_bytes(shape))}, x.options().dtype(at::kByte));
}

std::tuple<Tensor, Tensor, Tensor> forward(
    const Tensor& x, const OptionalTensor& residual, const OptionalTensor& keep, const Tensor& weight,
    const Tensor& bias, const OptionalTensor& inner, double inner_slope, const OptionalTensor& outer,
    double outer_slope, const Tensor& running_mean, const Tensor& running_variance, const Tensor& batches,
    double momentum, double epsilon) {
  const c10::cuda::CUDAGuard guard(x.device());
  const Tensor mean = at::empty(weight.sizes(), weight.options()), inverse_std = at::empty_like(mean);
  const Call call{x, weight, bias, mean, inverse_std, residual, keep, inner, outer, inner_slope, outer_slope};
  const norms::Shape shape = check(call);
  check_floats(running_mean, {shape.channels}, x, "running_mean");
  check_floats(running_variance, {shape.channels}, x, "running_variance");
  TORCH_CHECK(batches.scalar_type() == at::kLong && batches.numel() == 1 && batches.device() == x.device(),
              "batches must be one int64 on x's device");
  const norms::Running running{running_mean.mutable_data_ptr<float>(), running_variance.mutable_data_ptr<float>(),
                              batches.mutable_data_ptr<int64_t>(), static_cast<float>(momentum),
                              static_cast<float>(epsilon)};
  const Tensor out = at::empty_like(x), workspace = make_workspace(shape, x);
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream().stream();
  const auto run = [&](auto type) {
    using T = decltype(type);
    C10_CUDA_CHECK(norms::forward<T>(shape, pointers<T>(call), running, reinterpret_cast<T*>(out.mutable_data_ptr()),
                                    workspace.mutable_data_ptr(), stream));
  };
  x.scalar_type() == at::kFloat ? run(float{}) : run(__nv_bfloat16{});
  return {out, mean, inverse_std};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& gradient, const Tensor& x, const OptionalTensor& residual, const OptionalTensor& keep,
    const Tensor& weight, const Tensor& bias, const OptionalTensor& inner, double inner_slope,
    const OptionalTensor& outer, double outer_slope, const Tensor& mean, const Tensor& inverse_std) {
  const c10::cuda::CUDAGuard guard(x.device());
  const Call call{x, weight, bias, mean, inverse_std, residual, keep, inner, outer, inner_slope, outer_slope};
  const norms::Shape shape = check(call);
  check_images(gradient, x, "gradient");
  TORCH_CHECK(gradient.size(1) == x.size(1), "gradient must have x's channels");
  const Tensor to_x = at::empty_like(x);
  const Tensor to_residual = residual ? at::empty_like(*residual) : at::empty({0}, x.options());
  const Tensor to_weight = at::empty_like(weight), to_bias = at::empty_like(bias);
  const Tensor to_inner = at::empty({1}, weight.options()), to_outer = at::empty({1}, weight.options());
  const Tensor workspace = make_workspace(shape, x);
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream().stream();
  const auto run = [&](auto type) {
    using T = decltype(type);
    const norms::Gradients<T> gradients{reinterpret_cast<const T*>(gradient.const_data_ptr()),
                                       reinterpret_cast<T*>(to_x.mutable_data_ptr()),
                                       reinterpret_cast<T*>(to_residual.mutable_data_ptr()),
                                       to_weight.mutable_data_ptr<float>(), to_bias.mutable_data_ptr<float>(),
                                       to_inner.mutable_data_ptr<float>(), to_outer.mutable_data_ptr<float>()};
    C10_CUDA_CHECK(norms::backward<T>(shape, pointers<T>(call), gradients, workspace.mutable_data_ptr(), stream));
  };
  x.scalar_type() == at::kFloat ? run(float{}) : run(__nv_bfloat16{});
  return {to_x, to_residual, to_weight, to_bias, to_inner, to_outer};
}

}  // namespace
#endif

TORCH_LIBRARY(norm, m) {
  m.def(
      "forward(Tensor x, Tensor? residual, Tensor? keep, Tensor weight, Tensor bias, Tensor? inner, float inner_slope, "
      "Tensor? outer, float outer_slope, Tensor(a!) running_mean, Tensor(b!) running_variance, Tensor(c!) batches, "
      "float momentum, float epsilon) -> (Tensor, Tensor, Tensor)");
  m.def(
      "backward(Tensor gradient, Tensor x, Tensor? residual, Tensor? keep, Tensor weight, Tensor bias, Tensor? inner, "
      "float inner_slope, Tensor? outer, float outer_slope, Tensor mean, Tensor inverse_std) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(norm, CUDA, m) {
  m.impl("forward", &forward);
  m.impl("backward", &backward);
}
#endif
