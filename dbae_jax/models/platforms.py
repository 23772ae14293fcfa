"""What the networks compute differently on CPUs, GPUs and TPUs.

Every choice is a function of this module. The results of all platforms agree up to rounding.
`runtime.sharding.platform_of` names the platforms.
"""

from collections.abc import Callable
from typing import Any

from jax import lax

ANY = "any"  # networks that every platform can compile
CUDNN_HEAD_CHANNELS = 128  # largest width of a head in cuDNN's attention, backward pass included


def has_cudnn_attention(platform: str, dtype: str, head_channels: int) -> bool:
    """Returns whether cuDNN's attention computes heads of a width on a platform.

    It writes no array over pairs of positions, and needs a fifth of the memory traffic.
    """
    return platform == "cuda" and dtype == "bfloat16" and head_channels <= CUDNN_HEAD_CHANNELS


def by_gpu(on_cuda: Callable, otherwise: Callable, *args: Any) -> Any:
    """Returns on_cuda(*args) in programs for NVIDIA's GPUs, and otherwise(*args) in others.

    The choice is made when a program is compiled, so both functions must be traceable everywhere.
    """
    return lax.platform_dependent(*args, cuda=on_cuda, default=otherwise)
