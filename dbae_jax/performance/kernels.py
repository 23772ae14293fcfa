"""Kernels of a program that is compiled for GPUs: their work, and the least time that they take.

A GPU runs the kernels of a step one after another. So a step takes at least the sum of their least
times. XLA computes FLOPs for none of the libraries that it calls; here they follow from the shapes.
Collectives are no kernels here, see `hlo.collectives`.
"""

import collections
import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dbae_jax.performance import hlo, memory_traffic
from dbae_jax.performance.chips import Chip
from dbae_jax.performance.hlo import Instruction
from dbae_jax.performance.memory_traffic import Types

# cuDNN has fast convolutions for small windows. The widest window of a layer of the networks has 4
# positions. XLA expresses some gradients of weights as convolutions whose window is a whole feature
# map; such kernels were reported to take about thirty times as long as others of the same FLOPs.
WIDEST_FAST_WINDOW = 4

CONVOLUTION = "convolution"
INPUT_GRADIENT = "convolution: gradient of the input"
KERNEL_GRADIENT = "convolution: gradient of the weights"
PRODUCT = "matrix product"
ATTENTION = "fused attention"
ATTENTION_GRADIENT = "fused attention: gradient"
# Part of the name of a library's function -> kind. The first one that fits counts.
LIBRARY = {
    "convBackwardInput": INPUT_GRADIENT,
    "convBackwardFilter": KERNEL_GRADIENT,
    "conv": CONVOLUTION,
    "cublas": PRODUCT,
    "fmhaSoftmaxBackward": ATTENTION_GRADIENT,
    "fmha": ATTENTION,
}
FUSIONS = {
    "kLoop": "element-wise fusion",
    "kInput": "fusion with a reduction or transpose",
    "kCustom": "fusion with code of its own",
}

_TARGET = re.compile(r'custom_call_target="([^"]+)"')
_FUSION = re.compile(r"\bkind=(\w+)")
_WINDOW = re.compile(r"window=\{size=([\dx]+)")
_LABELS = re.compile(r"dim_labels=\w+_\w+->(\w+)")
_CONTRACTED = re.compile(r'lhs_contracting_dim(?:ension)?s"?[:=][{\[]([^}\]]*)[}\]]')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
# Parts of a path that jax adds for loops and rematerialization.
_CONTROL = {"while", "body", "cond", "closed_call", "checkpoint", "rematted_computation"}
_TRANSFORMATION = re.compile(r"[\w.]*\([^()]*\)")


class Kernel(NamedTuple):
    """A kernel and how often one run of the program runs it."""

    kind: str
    layer: str  # such as "unet/up_3_upsample/conv_in, backward", or "" if XLA does not know it
    flops: int  # of matrix products and convolutions, in one run of the kernel
    num_bytes: int  # of device memory, in one run of the kernel
    dtype: str  # of its matrix products: "bfloat16" or "float32"
    window: tuple[int, ...]  # of a convolution
    runs: int


class KernelKind(NamedTuple):
    """All kernels of one kind in one run of a program."""

    kind: str
    count: int  # type: ignore[assignment]  # a key of the JSON, and not tuple.count
    flops: int
    num_bytes: int
    seconds: float  # the sum of the least times


class SlowKernel(NamedTuple):
    """A kernel for which no fast implementation exists."""

    layer: str
    kind: str
    window: str  # such as "8x8"
    runs: int


def find(program: hlo.Computations) -> list[Kernel]:
    """Returns the kernels of a program that is compiled for a GPU."""
    found = []
    for name, times in hlo.runs(program).items():
        types = {i.name: i.type for i in program[name]}
        found += [
            _kernel(instruction, types, program, times)
            for instruction in program[name]
            if _is_kernel(instruction)
        ]
    return found


def by_kind(kernels: Iterable[Kernel], chip: Chip, precision: str) -> list[KernelKind]:
    """Returns the sums over the kernels of each kind, the kind with the longest time first.

    Args:
      kernels: kernels of a program.
      chip: the GPU.
      precision: jax's matmul precision.
    """
    groups = collections.defaultdict(list)
    for kernel in kernels:
        groups[kernel.kind].append(kernel)
    kinds = [
        KernelKind(
            kind,
            sum(k.runs for k in group),
            sum(k.runs * k.flops for k in group),
            sum(k.runs * k.num_bytes for k in group),
            sum(
                k.runs * chip.kernel_seconds(k.flops, k.num_bytes, k.dtype, precision)
                for k in group
            ),
        )
        for kind, group in groups.items()
    ]
    return sorted(kinds, key=lambda kind: -kind.seconds)


def slow(kernels: Iterable[Kernel]) -> list[SlowKernel]:
    """Returns the kernels for which no fast implementation exists."""
    return [
        SlowKernel(k.layer, k.kind, "x".join(map(str, k.window)), k.runs)
        for k in kernels
        if max(k.window, default=0) > WIDEST_FAST_WINDOW
    ]


def layer(instruction: Instruction) -> str:
    """Returns the layer of the networks that an instruction comes from.

    In the metadata, jit(f)/transpose(jvp(Net))/unet/unet._stage/conv/conv_general_dilated is the
    gradient of unet/conv. A part with a dot is a method, and the last part is the operation of jax.
    """
    found = _OP_NAME.search(instruction.rest)
    if not found:
        return ""
    path, before = found[1], ""
    while path != before:
        before, path = path, _TRANSFORMATION.sub("", path)
    parts = [p for p in path.split("/")[:-1] if p and "." not in p and p not in _CONTROL]
    return "/".join(parts) + (", backward" if "transpose(" in found[1] else "")


def _is_kernel(instruction: Instruction) -> bool:
    kind = instruction.kind.removesuffix("-start")
    is_work = kind not in memory_traffic.FREE and not kind.endswith("-done")
    return is_work and kind not in hlo.KINDS


def _kernel(i: Instruction, types: Types, program: hlo.Computations, times: int) -> Kernel:
    kind, flops = i.kind, 0
    operands = [types[name] for name in i.operands if name in types]
    window = _WINDOW.search(i.rest)
    if i.kind == "custom-call":
        (target,) = _TARGET.findall(i.rest)
        kind = next((kind for part, kind in LIBRARY.items() if part in target), target)
        flops = _library_flops(kind, i, operands)
    elif i.kind == "fusion":
        (fusion,) = _FUSION.findall(i.rest)
        flops = sum(_fused_flops(program[i.named("calls")[0]], program))
        kind = "fusion with a matrix product" if flops else FUSIONS.get(fusion, fusion)
    elif i.kind in ("dot", "convolution"):
        kind = PRODUCT if i.kind == "dot" else CONVOLUTION
        flops = _library_flops(kind, i, operands)
    return Kernel(
        kind=kind,
        layer=layer(i),
        flops=flops,
        num_bytes=memory_traffic.instruction_bytes(i, types, program),
        dtype="float32" if operands and _shape(operands[0])[0] == "f32" else "bfloat16",
        window=tuple(map(int, window[1].split("x"))) if window else (),
        runs=times,
    )


def _library_flops(kind: str, call: Instruction, operands: list[str]) -> int:
    """Returns the FLOPs of a call of a library, 0 if they are unknown."""
    if kind == PRODUCT:
        return _product_flops(call, operands)
    if kind in (ATTENTION, ATTENTION_GRADIENT):
        _, (batch, length, heads, width) = _shape(operands[0])  # of the queries
        products = 2 if kind == ATTENTION else 5  # the gradient computes the weights again
        return products * 2 * batch * heads * width * length**2
    if kind in (CONVOLUTION, INPUT_GRADIENT, KERNEL_GRADIENT):
        return _convolution_flops(kind, call, operands)
    return 0


def _convolution_flops(kind: str, call: Instruction, operands: list[str]) -> int:
    """Returns the FLOPs of y = convolution(x, weights), or of a gradient of that convolution.

    Each entry of y is a sum over all weights of its output feature. The gradients have the same
    products: that of the input gets y's gradient instead of x, that of the weights gets x and y's
    gradient.
    """
    outputs, weights = {
        CONVOLUTION: (call.type, operands[1]),
        INPUT_GRADIENT: (operands[0], operands[1]),
        KERNEL_GRADIENT: (operands[1], call.type),
    }[kind]
    (labels,) = _LABELS.findall(call.rest)
    sizes = _shape(outputs)[1]
    return 2 * math.prod(sizes) * math.prod(_shape(weights)[1]) // sizes[labels.index("f")]


def _product_flops(product: Instruction, operands: list[str]) -> int:
    """Returns the FLOPs of a matrix product, "dot" or a call of cuBLAS."""
    (axes,) = _CONTRACTED.findall(product.rest)
    sizes = _shape(operands[0])[1]
    length = math.prod(sizes[int(axis)] for axis in re.findall(r"\d+", axes))
    return 2 * math.prod(_shape(product.type)[1]) * length


def _fused_flops(fused: list[Instruction], program: hlo.Computations) -> Iterator[int]:
    """Yields the FLOPs of the matrix products in a fused computation."""
    types = {i.name: i.type for i in fused}
    for i in fused:
        operands = [types[name] for name in i.operands if name in types]
        if i.kind in ("dot", "convolution"):
            yield _library_flops(PRODUCT if i.kind == "dot" else CONVOLUTION, i, operands)
        elif i.kind == "fusion":
            yield from _fused_flops(program[i.named("calls")[0]], program)


def _shape(type_text: str) -> tuple[str, list[int]]:
    """Returns the number format and the sizes of the first array in a type."""
    found = _SHAPE.search(type_text)
    assert found is not None  # every operand has the type of an array
    return found[1], [int(size) for size in found[2].split(",") if size]
