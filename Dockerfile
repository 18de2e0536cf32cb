# syntax=docker/dockerfile:1
# hier-jax in an image: for CPUs, for NVIDIA GPUs, and for Cloud TPUs.
#
#   docker build --tag hier-jax .
#   docker build --tag hier-jax:cuda --build-arg JAX='jax[k8s,cuda13]' .
#   docker build --tag hier-jax:tpu --build-arg JAX='jax[tpu]' .
#
#   docker run --rm --init --volume "$PWD/runs:/runs" hier-jax \
#     train --config quickstart --workdir /runs/quickstart
#
# GPUs also need `docker run --gpus all`. CUDA comes with jax[cuda13]: the host
# has to have the driver and the NVIDIA container toolkit.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
# The requirement that brings JAX, and the extras of hier_jax (setup.cfg).
ARG JAX=jax
ARG EXTRAS=evaluation,gs,plots
# setup.cfg bounds the versions.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
  pip install --no-cache-dir "$(echo /wheels/hier_jax-*.whl)[${EXTRAS}]" "${JAX}"
ENTRYPOINT ["hier-jax"]
CMD ["--help"]
