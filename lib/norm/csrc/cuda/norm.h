// Batch normalisation with what follows it: activation, dropout of channels, residual and second activation.
// CUDA driver: raw pointers on the device and a stream, no PyTorch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace norms {

// An activation max(x, 0) + slope * min(x, 0). The slope is read from the device where there is a pointer.
struct Slope {
  const float* learned;  // or null
  float fixed;           // where it is null: 0 is ReLU, 1 the identity
};

// Images as rows of channels: [B * pixels, channels], as channels-last tensors lie in memory.
struct Shape {
  int64_t rows;      // B * pixels
  int64_t pixels;    // of an image
  int32_t channels;  // a multiple of 4, at most kMostChannels
  int32_t residual_channels;  // 0 without a residual; a multiple of 4; channels beyond them have residual 0
};

constexpr int32_t kMostChannels = 1024;

// Of one call, all on the device. Float32 but for T.
template <class T>
struct Tensors {
  const T* x;            // [rows, channels]
  const T* residual;     // [rows, residual_channels] or null
  const float* keep;     // [B, channels], 0 or 1 / (1 - p), or null: no channel is dropped
  const float* weight;   // [channels]
  const float* bias;     // [channels]
  float* mean;           // [channels], of the batch
  float* inverse_std;    // [channels]
  Slope inner;           // of the normalised values
  Slope outer;           // of the sum with the residual
};

// Running statistics that a forward call updates.
struct Running {
  float* mean;
  float* variance;
  int64_t* batches;
  float momentum;
  float epsilon;
};

template <class T>
struct Gradients {
  const T* out;       // [rows, channels]: of the result
  T* x;               // [rows, channels]
  T* residual;        // [rows, residual_channels] or null
  float* weight;      // [channels]
  float* bias;        // [channels]
  float* inner;       // [1]
  float* outer;       // [1]
};

// Bytes of device memory that a call needs.
size_t workspace_bytes(const Shape& shape);

// out = outer(residual + keep * inner(normalised x)), or inner(normalised x) without a residual.
template <class T>
cudaError_t forward(const Shape& shape, const Tensors<T>& tensors, const Running& running, T* out, void* workspace,
                    cudaStream_t stream);

template <class T>
cudaError_t backward(const Shape& shape, const Tensors<T>& tensors, const Gradients<T>& gradients, void* workspace,
                     cudaStream_t stream);

}  // namespace norms
