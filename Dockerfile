# The project with its environment; both stages end in /project, ready for `bash scripts/demo.sh`.
#   docker build --target cpu -t ssir .
#   docker build --target cuda --build-arg ARCHITECTURES="8.0;9.0" -t ssir-cuda .
#   docker run --rm --gpus all -v "$PWD/outputs:/project/outputs" ssir-cuda bash scripts/demo.sh
ARG CUDA=13.0.1

FROM python:3.11-slim-bookworm AS cpu
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python -m venv /environment
ENV VIRTUAL_ENV=/environment PATH=/environment/bin:$PATH SSIR_MARCH=x86-64-v3
WORKDIR /project
COPY . .
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' requirements.lock)" \
    && bash scripts/setup.sh && pip install --no-cache-dir --no-build-isolation --no-deps -e .

FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04 AS cuda
RUN apt-get update && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /environment
# No GPU is seen while an image is built, so those that it is for are named.
ARG ARCHITECTURES="8.0;8.6;8.9;9.0"
ENV VIRTUAL_ENV=/environment PATH=/environment/bin:$PATH SSIR_MARCH=x86-64-v3 REQUIREMENTS=requirements.txt \
    TORCH_CUDA_ARCH_LIST=${ARCHITECTURES}
WORKDIR /project
COPY . .
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cu130 torch \
    && bash scripts/setup.sh && pip install --no-cache-dir --no-build-isolation --no-deps -e .
