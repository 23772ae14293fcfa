"""Sharpness of images: their radially averaged power spectra compared with those of real images.

Blur removes power at high frequencies, and noise or halos add it. Frequencies are in cycles per
image side, from 0 to half the side (the Nyquist frequency).
"""

from typing import NamedTuple

import numpy as np

from dbae_jax.errors import DataError


class Sharpness(NamedTuple):
    """How the power spectrum of images differs from that of real images.

    Attributes:
      error: mean absolute log-ratio of power over the band; 0: as sharp as real images.
      bias: mean log-ratio over the band; negative for blurred images.
      band: first and last frequency of the band, the upper half of all frequencies.
      log_ratio: natural logarithm of the ratio of power, by frequency [S // 2 + 1].
    """

    error: float
    bias: float
    band: tuple[int, int]
    log_ratio: np.ndarray


def radial_power(images: np.ndarray) -> np.ndarray:
    """Returns the power of images by frequency, float64 [S // 2 + 1].

    The squared magnitudes of the discrete Fourier transform are averaged over images and channels,
    and over all frequencies whose distance from 0 rounds to the same whole number. The corners of
    the transform, beyond S / 2, are left out.

    Args:
      images: [N, S, S, C], float.

    Raises:
      DataError: if the images are not square, or smaller than 8 pixels.
    """
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[1] < 8:
        raise DataError(
            "a power spectrum needs square images [N, S, S, C] of 8 pixels or more, got shape "
            f"{list(images.shape)}."
        )
    size = images.shape[1]
    spectrum = np.fft.rfft2(images.astype(np.float64), axes=(1, 2))
    power = np.mean(spectrum.real**2 + spectrum.imag**2, axis=(0, 3))  # [S, S // 2 + 1]
    rows, columns = np.fft.fftfreq(size, 1 / size), np.arange(size // 2 + 1)
    radius = np.rint(np.hypot(rows[:, None], columns)).astype(int)
    # The real transform holds one of each pair of opposite frequencies.
    pairs = np.where((columns == 0) | (2 * columns == size), 1, 2) * np.ones_like(radius)
    sums, counts = (
        np.bincount(radius.ravel(), weights=weights.ravel())[: size // 2 + 1]
        for weights in (power * pairs, pairs)
    )
    return sums / counts


def sharpness(power: np.ndarray, real: np.ndarray) -> Sharpness:
    """Compares the power of images with that of real images; see `Sharpness`.

    Args:
      power: power of reconstructions or samples by frequency, from `radial_power`.
      real: power of real images of the same size and range.

    Raises:
      DataError: if the sizes differ, or real images have no power at a frequency of the band.
    """
    if power.shape != real.shape:
        raise DataError(
            f"power spectra must be of images of one size, got {len(power)} and {len(real)} "
            "frequencies."
        )
    first = len(real) // 2
    if not (real[first:] > 0).all():
        raise DataError("the images have no power at high frequencies, so sharpness is undefined.")
    tiny = np.finfo(np.float64).tiny
    log_ratio = np.log(np.maximum(power, tiny)) - np.log(np.maximum(real, tiny))
    band = log_ratio[first:]
    return Sharpness(
        error=float(np.abs(band).mean()),
        bias=float(band.mean()),
        band=(first, len(real) - 1),
        log_ratio=log_ratio,
    )
