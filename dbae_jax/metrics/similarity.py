"""Distances of images: mean squared error and structural similarity."""

import numpy as np
from scipy.ndimage import gaussian_filter1d

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5  # a window of 11 pixels


def pixel_mse(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the mean squared error of images in [-1, 1], in units of pixels in [0, 1]."""
    return float(np.mean((np.float64(x) - np.float64(y)) ** 2) / 4)


def ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the mean structural similarity of images in [-1, 1].

    Gaussian window of 11 pixels (sigma 1.5), K1 = 0.01, K2 = 0.03, each channel by itself, only
    where the window lies inside the image.

    Args:
      x: [B, H, W, C], H and W at least 11.
      y: the same shape.

    Raises:
      ValueError: for images smaller than the window, or of different shapes.

    Source: Wang et al. (2004).
    """
    if x.shape != y.shape or x.ndim != 4 or min(x.shape[1:3]) <= 2 * SSIM_RADIUS:
        raise ValueError(f"ssim compares images [B, >= 11, >= 11, C], got {x.shape} and {y.shape}.")
    x, y = (np.float64(a) / 2 + 0.5 for a in (x, y))
    mean_x, mean_y = _windowed(x), _windowed(y)
    var_x, var_y = _windowed(x * x) - mean_x**2, _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    c_1, c_2 = 0.01**2, 0.03**2
    top = (2 * mean_x * mean_y + c_1) * (2 * covariance + c_2)
    bottom = (mean_x**2 + mean_y**2 + c_1) * (var_x + var_y + c_2)
    return float(np.mean(top / bottom))


def _windowed(x: np.ndarray) -> np.ndarray:
    for axis in (1, 2):
        x = gaussian_filter1d(x, SSIM_SIGMA, axis=axis, radius=SSIM_RADIUS)
    inside = slice(SSIM_RADIUS, -SSIM_RADIUS)
    return x[:, inside, inside]
