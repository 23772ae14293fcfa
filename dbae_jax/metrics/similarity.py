"""Distances of images pixel by pixel: mean squared error, PSNR and structural similarity."""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter1d

from dbae_jax.errors import DataError
from dbae_jax.metrics import checks

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5  # a window of 11 pixels


def pixel_mse(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the mean squared error of images in [-1, 1], in units of pixels in [0, 1]."""
    return float(np.mean(_mse_of_images(*checks.image_pair(x, y))))


def psnr(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio in dB, the mean over images in [-1, 1].

    Infinite if an image is met exactly.

    Args:
      x: [B, ...].
      y: the same shape.
    """
    with np.errstate(divide="ignore"):
        return float(np.mean(-10 * np.log10(_mse_of_images(*checks.image_pair(x, y)))))


def eight_bit(x: np.ndarray, *, truncate: bool = False) -> np.ndarray:
    """Returns images in [-1, 1] after a passage through 256 levels, as a file would give them.

    Rounds to nearest. `truncate` rounds down, as the authors' evaluation does: it darkens by half a
    level on average, which adds about 5e-6 to the mean squared error instead of 1.3e-6.
    """
    levels = np.clip((np.float64(x) + 1) * 127.5, 0, 255)
    return (np.floor(levels) if truncate else np.round(levels)) / 127.5 - 1


def ssim(x: np.ndarray, y: np.ndarray, *, padding: str = "valid") -> float:
    """Returns the mean structural similarity of images in [-1, 1].

    Gaussian window of 11 pixels (sigma 1.5), K1 = 0.01, K2 = 0.03, biased variances, each channel
    by itself.

    Args:
      x: [B, H, W, C], H and W at least 11.
      y: the same shape.
      padding: "valid" averages the places where the window lies inside the image, as the standard
        has it; "zero" surrounds the images with zeros (black) and averages all places, as DiffAE
        and PDAE do, and is usually a little higher.

    Raises:
      DataError: for images smaller than the window, of different shapes, or not finite.

    Source: Wang et al. (2004).
    """
    x, y = checks.image_pair(x, y)
    if padding not in ("valid", "zero"):
        raise DataError(f"ssim knows padding 'valid' and 'zero', not {padding!r}.")
    if x.ndim != 4 or min(x.shape[1:3]) <= 2 * SSIM_RADIUS:
        raise DataError(f"ssim compares images [B, >= 11, >= 11, C], got {list(x.shape)}.")
    window = _window_inside if padding == "valid" else _window_on_zeros
    return _mean_ssim(x, y, lambda images: window(images, axes=(1, 2)))


def ssim_swapped_axes(x: np.ndarray, y: np.ndarray) -> float:
    """Returns what the authors of DBAE publish as SSIM: for comparison with their table alone.

    Their function for [B, C, H, W] is given [B, H, W, C], so that its window lies over width and
    channels, surrounded by zeros. It hardly sees lost texture: a blurred face scores .98, not .76.

    Args:
      x: [B, H, W, C] in [-1, 1].
      y: the same shape.

    Source: eval_reconstruction.py of the authors' repository.
    """
    x, y = checks.image_pair(x, y)
    if x.ndim != 4:
        raise DataError(f"ssim compares images [B, H, W, C], got {list(x.shape)}.")
    return _mean_ssim(x, y, lambda images: _window_on_zeros(images, axes=(2, 3)))


def _mean_ssim(x: np.ndarray, y: np.ndarray, window: Callable[[np.ndarray], np.ndarray]) -> float:
    # Image by image: ten float64 copies of a whole test split would not fit in memory.
    pairs = zip(x[:, None], y[:, None], strict=True)
    return float(np.mean([np.mean(_ssim_map(a, b, window)) for a, b in pairs]))


def _ssim_map(
    x: np.ndarray, y: np.ndarray, window: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    x, y = (np.float64(a) / 2 + 0.5 for a in (x, y))
    mean_x, mean_y = window(x), window(y)
    var_x, var_y = window(x * x) - mean_x**2, window(y * y) - mean_y**2
    covariance = window(x * y) - mean_x * mean_y
    c_1, c_2 = 0.01**2, 0.03**2
    top = (2 * mean_x * mean_y + c_1) * (2 * covariance + c_2)
    return top / ((mean_x**2 + mean_y**2 + c_1) * (var_x + var_y + c_2))


def _window_inside(x: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    inside = [slice(None)] * x.ndim
    for axis in axes:
        inside[axis] = slice(SSIM_RADIUS, -SSIM_RADIUS)
    return _window_on_zeros(x, axes)[tuple(inside)]


def _window_on_zeros(x: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    for axis in axes:
        x = gaussian_filter1d(x, SSIM_SIGMA, axis=axis, radius=SSIM_RADIUS, mode="constant")
    return x


def _mse_of_images(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    pairs = zip(x, y, strict=True)
    return np.array([np.mean((np.float64(a) - np.float64(b)) ** 2) / 4 for a, b in pairs])
