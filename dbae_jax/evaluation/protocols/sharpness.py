"""Sharpness of reconstructions and samples as a score: their power spectra against real images."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dbae_jax.data.images import to_float
from dbae_jax.errors import DataError
from dbae_jax.evaluation.results import score
from dbae_jax.metrics import spectra


def mean_power(batches: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the power spectrum of images that come in batches, see `spectra.radial_power`.

    Args:
      batches: images [n, S, S, C], uint8 or float in [-1, 1].
    """
    parts = [
        (len(images), spectra.radial_power(np.asarray(to_float(images)))) for images in batches
    ]
    counts, powers = zip(*parts, strict=True)
    return np.average(powers, axis=0, weights=counts)


def score_of(powers: Sequence[np.ndarray], real: np.ndarray) -> dict[str, Any]:
    """Returns the score "sharpness_error", with the log-ratio of every frequency in its details.

    Args:
      powers: power spectra of reconstructions or samples, one per seed.
      real: power spectrum of real images.
    """
    try:
        found = [spectra.sharpness(power, real) for power in powers]
    except DataError as error:
        return score(math.nan, "lower", reason=str(error).rstrip("."))
    log_ratio = np.mean([each.log_ratio for each in found], axis=0)
    return score(
        [each.error for each in found],
        "lower",
        bias=float(np.mean([each.bias for each in found])),
        band=list(found[0].band),
        log_ratio=[round(float(value), 4) for value in log_ratio],
    )
