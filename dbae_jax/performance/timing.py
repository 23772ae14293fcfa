"""Timing on a machine whose speed drifts: every sample lies between two of a reference.

The reference is a large matrix product on the same devices, in the same format: what a program
reaches of its rate says more than seconds do, and a neighbour's load slows both.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.runtime import sharding

Clock = Callable[[], float]
# Runs a program so many times, and waits for the last.
Run = Callable[[int], None]

MATMUL_SIZES = (1024, 2048, 4096, 8192)
MIN_REPEATS = 5
MAX_REPEATS = 100
# A sample shorter than this would time the dispatch and the clock.
SAMPLE_SECONDS = 0.1
# Products that run this long belong to no larger size.
LONG_PRODUCT_SECONDS = 0.2
# Of a sample, each time the reference is timed: short enough to be cheap, long enough to average.
REFERENCE_SHARE = 0.1


class Matmul(NamedTuple):
    """A chain of products, one [size, size] by [size, size] on every device."""

    size: int
    flops: float  # of one product on all devices, a multiply-add counted as 2
    run: Run


class Pair(NamedTuple):
    """Seconds of one call, and of one call of the reference around it."""

    seconds: float
    reference: float


class Spread(NamedTuple):
    """Median, quartiles, and number of samples."""

    median: float
    lower: float
    upper: float
    repeats: int


def spread(values: list[float]) -> Spread:
    """Returns median and quartiles, interpolated between samples."""
    lower, median, upper = np.quantile(values, (0.25, 0.5, 0.75))
    return Spread(float(median), float(lower), float(upper), len(values))


def interleave(
    run: Run, reference: Run, *, seconds: float, clock: Clock = time.perf_counter
) -> list[Pair]:
    """Times a program between calls of a reference, in turn, after a warm-up of both.

    Args:
      run: the program.
      reference: what it is compared with.
      seconds: to spend, about; at least `MIN_REPEATS` and at most `MAX_REPEATS` samples are taken.
      clock: seconds from any start.

    Returns:
      One pair a sample; its reference is the mean of those just before and just after.
    """
    run(1)
    reference(1)
    estimate = _time(run, 1, clock)
    calls = _calls(SAMPLE_SECONDS, estimate)
    wanted = max(SAMPLE_SECONDS, REFERENCE_SHARE * calls * estimate)
    reference_calls = _calls(wanted, _time(reference, 1, clock))
    pairs: list[Pair] = []
    started = clock()
    before = _time(reference, reference_calls, clock)
    while len(pairs) < MIN_REPEATS or (clock() - started < seconds and len(pairs) < MAX_REPEATS):
        own = _time(run, calls, clock)
        after = _time(reference, reference_calls, clock)
        pairs.append(Pair(own, (before + after) / 2))
        before = after
    return pairs


def make_matmul(
    mesh: jax.sharding.Mesh,
    *,
    dtype: str,
    precision: str,
    sizes: tuple[int, ...] = MATMUL_SIZES,
    clock: Clock = time.perf_counter,
) -> Matmul:
    """Returns the product that runs at the highest rate on the devices of a mesh.

    Args:
      mesh: of `sharding.make_mesh`; every device multiplies matrices of its own.
      dtype: of the matrices.
      precision: jax's matmul precision.
      sizes: to choose from, rising; stops at the first that takes `LONG_PRODUCT_SECONDS`.
      clock: seconds from any start.
    """
    best, best_rate = None, 0.0
    for size in sizes:
        candidate = _matmul(mesh, size, dtype, precision)
        candidate.run(1)
        calls = _calls(SAMPLE_SECONDS, _time(candidate.run, 1, clock))
        seconds = min(_time(candidate.run, calls, clock) for _ in range(3))
        if candidate.flops / seconds > best_rate:
            best, best_rate = candidate, candidate.flops / seconds
        if seconds > LONG_PRODUCT_SECONDS:
            break
    return best


def _matmul(mesh: jax.sharding.Mesh, size: int, dtype: str, precision: str) -> Matmul:
    split, everywhere = sharding.batched(mesh), sharding.replicated(mesh)

    def chain(x: jax.Array, w: jax.Array, count: jax.Array) -> jax.Array:
        with jax.default_matmul_precision(precision):
            return jax.lax.fori_loop(0, count, lambda _, x: jnp.einsum("dij,jk->dik", x, w), x)

    jitted = jax.jit(chain, in_shardings=(split, everywhere, everywhere), out_shardings=split)
    draw = np.random.default_rng(0)
    # Of variance 1 / size, so that the entries of the chain neither grow nor vanish.
    w = draw.normal(0, size**-0.5, (size, size)).astype(jnp.dtype(dtype))
    count = mesh.devices.size
    # Every device's x is of unit variance.
    x = sharding.spread(mesh, np.broadcast_to(w * size**0.5, (count, size, size)))
    w = jax.device_put(w, everywhere)

    def run(calls: int) -> None:
        jax.block_until_ready(jitted(x, w, np.int32(calls)))

    return Matmul(size, 2.0 * count * size**3, run)


def _time(run: Run, calls: int, clock: Clock) -> float:
    """Returns the seconds of one call of `calls` in a row."""
    started = clock()
    run(calls)
    return (clock() - started) / calls


def _calls(wanted: float, seconds: float) -> int:
    """Returns how many calls of some seconds fill the time wanted."""
    return max(1, math.ceil(wanted / max(seconds, 1e-9)))
