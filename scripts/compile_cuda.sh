#!/usr/bin/env bash
# Compiles every CUDA source with nvcc alone (no PyTorch, no GPU), for all GPUs from Turing to Hopper.
# Without nvcc it says so and succeeds.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! command -v nvcc >/dev/null; then
    echo "CUDA sources not compiled: there is no nvcc"
    exit 0
fi
output="$(mktemp -d)"
trap 'rm -rf "$output"' EXIT
for source in lib/*/csrc/cuda/*.cu; do
    [ -e "$source" ] || continue
    echo "nvcc $source"
    nvcc -O1 --threads 2 -I"$(dirname "$(dirname "$source")")" \
        -gencode arch=compute_75,code=sm_75 -gencode arch=compute_80,code=sm_80 \
        -gencode arch=compute_86,code=sm_86 -gencode arch=compute_89,code=sm_89 \
        -gencode arch=compute_90,code=sm_90 \
        -c "$source" -o "$output/$(basename "$source").o"
done
