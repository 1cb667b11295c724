# syntax=docker/dockerfile:1
# CPU:  docker build -t relume .
# CUDA: docker build -t relume:cuda --build-arg TORCH=https://download.pytorch.org/whl/cu126 .
# Run:  docker run --rm -v "$PWD:/work" relume train -opt relume:quickstart.yml      (CUDA: --gpus all --shm-size 8g)
FROM python:3.12-slim

ARG TORCH=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# What OpenCV loads, which slim images lack. Debian keeps one version of each, so that none can be named.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY constraints.txt ./
RUN pip install torch torchvision --index-url "$TORCH" -c constraints.txt
COPY . .
RUN pip install ".[hdr,video]" -c constraints.txt && relume list archs

RUN useradd --create-home --uid 1000 relume
USER 1000
WORKDIR /work
ENV RELUME_HOME=/work/.relume
ENTRYPOINT ["relume"]
CMD ["--help"]
