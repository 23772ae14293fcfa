"""Keeps jax's plugin for CUDA quiet on a machine without an NVIDIA GPU."""

import os

# One of these files exists where there is an NVIDIA GPU: Linux, containers, Windows' WSL 2.
GPU_FILES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")


def skip_version_check_without_gpu() -> None:
    """Tells the plugin not to check the versions of CUDA's libraries if there is no GPU.

    The extra `plan-gpu` installs the plugin without these libraries. The plugin would then report
    with a traceback that cuDNN is missing, whenever jax starts, although a CPU needs no cuDNN. jax
    reads the variable when it first looks for devices.
    """
    if not any(os.path.exists(path) for path in GPU_FILES):
        os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
