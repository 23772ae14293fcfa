"""What the networks compute differently on CPUs, GPUs and TPUs.

Every choice is a function of this module. The results of all platforms agree up to rounding.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.typing import DTypeLike

ANY = "any"  # networks that every platform can compile
CUDNN_HEAD_CHANNELS = 128  # largest width of a head in cuDNN's attention, backward pass included


def platform_of(device: jax.Device) -> str:
    """Returns the platform that programs for a device are compiled for.

    Args:
      device: a device, which may be one that this machine does not have.

    Returns:
      "cpu", "tpu", "cuda" for GPUs of NVIDIA, "rocm" for GPUs of AMD.
    """
    if device.platform != "gpu":
        return device.platform
    return "cuda" if device.device_kind.startswith(("NVIDIA", "Tesla", "GeForce")) else "rocm"


def has_cudnn_attention(platform: str, dtype: str, head_channels: int) -> bool:
    """Returns whether cuDNN's attention computes heads of a width on a platform.

    It writes no array over pairs of positions, and needs a fifth of the memory traffic.
    """
    return platform == "cuda" and dtype == "bfloat16" and head_channels <= CUDNN_HEAD_CHANNELS


def is_tpu(device: jax.Device) -> bool:
    """Returns whether a device is a TPU, which this machine need not have."""
    return platform_of(device) == "tpu"


def lacks_cudnn(platform: str) -> bool:
    """Returns whether programs for a platform cannot call cuDNN."""
    return platform not in ("cuda", ANY)


def deterministic_options(platform: str) -> dict[str, bool] | None:
    """Returns compiler options for programs that give the same numbers at each run, or None.

    Only programs for GPUs need one: XLA's and cuDNN's fastest gradients of convolutions add numbers
    in the order in which threads finish.
    """
    return {"xla_gpu_exclude_nondeterministic_ops": True} if platform in ("cuda", "rocm") else None


def by_gpu(on_cuda: Callable, otherwise: Callable, *args: Any) -> Any:
    """Returns on_cuda(*args) in programs for NVIDIA's GPUs, and otherwise(*args) in others.

    The choice is made when a program is compiled, so both functions must be traceable everywhere.
    """
    return lax.platform_dependent(*args, cuda=on_cuda, default=otherwise)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def by_cpu(on_cpu: Callable, otherwise: Callable, *args: Any) -> Any:
    """Returns on_cpu(*args) in programs for CPUs, and otherwise(*args) in others, see `by_gpu`.

    The backward pass stores the arguments and chooses for each gradient on its own. An automatic
    one would store what each of both functions needs.
    """
    return lax.platform_dependent(*args, cpu=on_cpu, default=otherwise)


def _by_cpu_forward(on_cpu, otherwise, *args):
    return by_cpu(on_cpu, otherwise, *args), args


def _by_cpu_backward(on_cpu, otherwise, args, grad):
    def pulled_back(function, index):
        def gradient(grad, *args):
            def of_one(arg):
                return function(*args[:index], arg, *args[index + 1 :])

            return jax.vjp(of_one, args[index])[1](grad)[0]

        return gradient

    return tuple(
        lax.platform_dependent(
            grad, *args, cpu=pulled_back(on_cpu, i), default=pulled_back(otherwise, i)
        )
        for i in range(len(args))
    )


by_cpu.defvjp(_by_cpu_forward, _by_cpu_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def cast_kernel(kernel: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Returns the kernel of a convolution in the number format of the computation.

    In programs for NVIDIA's GPUs, its gradient is brought to the order of the kernel's axes in the
    narrow format. cuDNN returns it in a different order, and XLA would otherwise run the whole
    optimizer in that order, and copy weights, moments and EMA weights in float32.
    """
    return kernel.astype(dtype)


def _cast_forward(kernel, dtype):
    return kernel.astype(dtype), jax.numpy.zeros((), kernel.dtype)


def _cast_backward(dtype, like, grad):
    del dtype

    def in_order(grad):
        return with_layout_constraint(grad, Layout(major_to_minor=tuple(range(grad.ndim))))

    return (by_gpu(in_order, lambda grad: grad, grad).astype(like.dtype),)


cast_kernel.defvjp(_cast_forward, _cast_backward)
