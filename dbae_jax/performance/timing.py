"""Timing on a machine whose speed drifts: each sample is taken between two of a reference.

The reference is a large matrix product on the same devices, in the same number format. Other load
on the machine slows both, so the ratio of their rates is more reliable than seconds.
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
# Runs a program a number of times, and waits for the last run.
Run = Callable[[int], None]

MATMUL_SIZES = (1024, 2048, 4096, 8192)
MIN_REPEATS = 5
MAX_REPEATS = 100
# Shorter samples would measure the dispatch and the clock.
SAMPLE_SECONDS = 0.1
# No larger product is tried after one that takes this long.
LONG_MATMUL_SECONDS = 0.2
# Time per reference, as a fraction of the time per sample.
REFERENCE_FRACTION = 0.1


class Matmul(NamedTuple):
    """A chain of matrix products, [size, size] by [size, size] on every device."""

    size: int
    flops: float  # of one product on all devices; a multiply-add counts as 2
    run: Run


class Pair(NamedTuple):
    """Seconds per call of a program, and per call of the reference before and after it."""

    seconds: float
    reference: float


class Spread(NamedTuple):
    """Median, quartiles and number of samples."""

    median: float
    lower: float
    upper: float
    repeats: int


def spread(values: list[float]) -> Spread:
    """Returns the median and the quartiles, interpolated between samples."""
    lower, median, upper = np.quantile(values, (0.25, 0.5, 0.75))
    return Spread(float(median), float(lower), float(upper), len(values))


def interleave(
    run: Run, reference: Run, *, seconds: float, clock: Clock = time.perf_counter
) -> list[Pair]:
    """Times a program and a reference alternately, after a warm-up of both.

    Args:
      run: program to time.
      reference: program to compare with.
      seconds: approximate duration; `MIN_REPEATS` to `MAX_REPEATS` samples are taken.
      clock: function that returns the time in seconds.

    Returns:
      One pair per sample. Its reference is the mean of the times just before and just after it.
    """
    run(1)
    reference(1)
    estimate = _time(run, 1, clock)
    calls = _calls(SAMPLE_SECONDS, estimate)
    wanted = max(SAMPLE_SECONDS, REFERENCE_FRACTION * calls * estimate)
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
    """Returns the matrix product that runs at the highest rate on the devices of a mesh.

    Args:
      mesh: devices; each multiplies its own matrices.
      dtype: number format of the matrices.
      precision: jax's matmul precision.
      sizes: rising sizes to try; the first that takes `LONG_MATMUL_SECONDS` is the last.
      clock: function that returns the time in seconds.
    """
    best, best_rate = None, 0.0
    for size in sizes:
        candidate = _matmul(mesh, size, dtype, precision)
        candidate.run(1)
        calls = _calls(SAMPLE_SECONDS, _time(candidate.run, 1, clock))
        seconds = min(_time(candidate.run, calls, clock) for _ in range(3))
        if candidate.flops / seconds > best_rate:
            best, best_rate = candidate, candidate.flops / seconds
        if seconds > LONG_MATMUL_SECONDS:
            break
    assert best is not None  # every rate is above 0
    return best


def _matmul(mesh: jax.sharding.Mesh, size: int, dtype: str, precision: str) -> Matmul:
    split, everywhere = sharding.batched(mesh), sharding.replicated(mesh)

    def chain(x: jax.Array, w: jax.Array, count: jax.Array) -> jax.Array:
        with jax.default_matmul_precision(precision):
            return jax.lax.fori_loop(0, count, lambda _, x: jnp.einsum("dij,jk->dik", x, w), x)

    jitted = jax.jit(chain, in_shardings=(split, everywhere, everywhere), out_shardings=split)
    draw = np.random.default_rng(0)
    # With variance 1 / size, the entries of the chain neither grow nor vanish.
    w = draw.normal(0, size**-0.5, (size, size)).astype(jnp.dtype(dtype))
    count = mesh.devices.size
    # x has unit variance on every device.
    x = sharding.spread(mesh, np.broadcast_to(w * size**0.5, (count, size, size)))
    w = jax.device_put(w, everywhere)

    def run(calls: int) -> None:
        jax.block_until_ready(jitted(x, w, np.int32(calls)))

    return Matmul(size, 2.0 * count * size**3, run)


def _time(run: Run, calls: int, clock: Clock) -> float:
    """Returns the seconds per call of a number of calls in a row."""
    started = clock()
    run(calls)
    return (clock() - started) / calls


def _calls(wanted: float, seconds: float) -> int:
    """Returns how many calls of the given seconds fill the wanted time."""
    return max(1, math.ceil(wanted / max(seconds, 1e-9)))
