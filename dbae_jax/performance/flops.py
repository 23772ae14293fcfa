"""FLOPs of a function, counted on its jaxpr: convolutions and matrix products, as in papers."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def count_flops(function: Callable, *args: Any) -> float:
    """Returns the FLOPs of convolutions and matrix products; a multiply-add counts as 2.

    Padding counts as data, as in textbooks. Element-wise operations are left out. So are
    operations that no result needs, because compilers drop them. Where a program has different
    operations for different platforms, those with the most FLOPs count.

    Args:
      function: any traceable function.
      *args: arguments of the function, or their shapes (`jax.ShapeDtypeStruct`).
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def repeated(jaxpr: Jaxpr) -> float:
    """Returns the FLOPs of all iterations of a program's loops except the first iterations.

    XLA's compiler for TPUs counts the body of a loop once, so its count lacks these FLOPs.
    Element-wise operations are left out; padding, which XLA leaves out, counts.
    """
    return _count(jaxpr) - _count(jaxpr, loops_once=True)


def _count(jaxpr: Jaxpr, *, loops_once: bool = False) -> float:
    total, needed = 0.0, set(map(id, jaxpr.outvars))
    for eqn in reversed(jaxpr.eqns):
        if not any(id(out) in needed for out in eqn.outvars):
            continue
        needed.update(map(id, eqn.invars))
        if eqn.primitive.name == "conv_general_dilated":
            total += _convolution(eqn)
        elif eqn.primitive.name == "dot_general":
            total += _product(eqn)
        elif eqn.primitive.name == "cond":
            branches = eqn.params["branches"]
            total += max(_count(branch.jaxpr, loops_once=loops_once) for branch in branches)
        else:
            is_loop = eqn.primitive.name == "scan" and not loops_once
            times = eqn.params["length"] if is_loop else 1
            total += times * sum(_count(inner, loops_once=loops_once) for inner in _inner(eqn))
    return total


def _convolution(eqn) -> float:
    kernel = eqn.invars[1].aval.shape
    out_channels = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) / out_channels


def _product(eqn) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    summed = math.prod(left[axis] for axis in contracted)
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * summed


def _inner(eqn) -> Iterator[Jaxpr]:
    for value in eqn.params.values():
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
