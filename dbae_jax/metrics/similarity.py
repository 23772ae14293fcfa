"""Distances between images by their pixels: mean squared error, PSNR and structural similarity."""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter1d

from dbae_jax.errors import DataError
from dbae_jax.metrics import checks

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5  # a window of 11 pixels

Window = Callable[[np.ndarray], np.ndarray]  # images -> weighted means around each pixel


def pixel_mse(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the mean squared error of images in [-1, 1], in the units of images in [0, 1]."""
    return float(np.mean(_mse_of_images(*checks.image_pair(x, y))))


def psnr(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio in dB, as the mean over images in [-1, 1].

    The ratio is infinite if the images of a pair are equal.

    Args:
      x: images [B, ...].
      y: images of the same shape.
    """
    with np.errstate(divide="ignore"):
        return float(np.mean(-10 * np.log10(_mse_of_images(*checks.image_pair(x, y)))))


def eight_bit(x: np.ndarray, *, truncate: bool = False) -> np.ndarray:
    """Returns images in [-1, 1] rounded to 256 levels, as an image file stores them.

    Args:
      x: images of any shape.
      truncate: whether to round down, as the authors' evaluation does, instead of to the nearest
        level. Rounding down darkens by half a level on average. In units of images in [0, 1], it
        adds about 5e-6 to the mean squared error, and rounding to the nearest level 1.3e-6.
    """
    levels = np.clip((np.asarray(x, np.float64) + 1) * 127.5, 0, 255)
    return (np.floor(levels) if truncate else np.round(levels)) / 127.5 - 1


def ssim(x: np.ndarray, y: np.ndarray, *, padding: str = "valid") -> float:
    """Returns the mean structural similarity of images in [-1, 1].

    The window is Gaussian with 11 pixels and sigma 1.5. The constants are K1 = 0.01 and K2 = 0.03.
    Variances are biased, and each channel is measured separately.

    Args:
      x: images [B, H, W, C], H and W at least 11.
      y: images of the same shape.
      padding: "valid" averages the positions where the window lies inside the image, as in the
        original paper. "zero" surrounds the images with zeros (black) and averages all positions,
        as DiffAE and PDAE do; the result is usually a little higher.

    Raises:
      DataError: if the images are smaller than the window, have different shapes, or are not
        finite.

    Source: Wang et al. (2004).
    """
    x, y = checks.image_pair(x, y)
    if padding not in ("valid", "zero"):
        raise DataError(f"the padding of ssim must be 'valid' or 'zero', got {padding!r}.")
    if x.ndim != 4 or min(x.shape[1:3]) <= 2 * SSIM_RADIUS:
        raise DataError(f"ssim compares images [B, >= 11, >= 11, C], got {list(x.shape)}.")
    window = _window_inside if padding == "valid" else _window_on_zeros
    return _mean_ssim(x, y, lambda images: window(images, axes=(1, 2)))


def ssim_swapped_axes(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the number that the authors of DBAE publish as SSIM, only for comparison with it.

    Their function expects [B, C, H, W] and receives [B, H, W, C]. Its window therefore covers width
    and channels, padded with zeros. The number hardly depends on texture: a blurred face scores
    0.98 instead of 0.76.

    Args:
      x: images [B, H, W, C] in [-1, 1].
      y: images of the same shape.

    Source: eval_reconstruction.py of the authors' repository.
    """
    x, y = checks.image_pair(x, y)
    if x.ndim != 4:
        raise DataError(f"ssim compares images [B, H, W, C], got {list(x.shape)}.")
    return _mean_ssim(x, y, lambda images: _window_on_zeros(images, axes=(2, 3)))


def _mean_ssim(x: np.ndarray, y: np.ndarray, window: Window) -> float:
    # One image at a time: ten float64 copies of a whole test split would not fit in memory.
    pairs = zip(x[:, None], y[:, None], strict=True)
    return float(np.mean([np.mean(_ssim_map(a, b, window)) for a, b in pairs]))


def _ssim_map(x: np.ndarray, y: np.ndarray, window: Window) -> np.ndarray:
    x, y = (a.astype(np.float64) / 2 + 0.5 for a in (x, y))
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
    return np.array([np.mean((a.astype(np.float64) - b) ** 2) / 4 for a, b in pairs])
