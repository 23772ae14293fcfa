"""Pixel metrics against scikit-image and closed forms, and the authors' SSIM of swapped axes."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from skimage.metrics import structural_similarity

from dbae_jax.errors import DataError
from dbae_jax.metrics.similarity import eight_bit, pixel_mse, psnr, ssim, ssim_swapped_axes


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    x = np.clip(rng.uniform(-1, 1, (3, 24, 20, 3)).cumsum(axis=1) / 8, -1, 1)
    return x, np.clip(x + 0.1 * rng.standard_normal(x.shape), -1, 1)


def _peer(x, y, *, zeros):
    """Returns the SSIM of scikit-image with the standard settings.

    Zero padding is a black border around the images, whose values are left out of the mean.
    """
    values = []
    for a, b in zip(x / 2 + 0.5, y / 2 + 0.5, strict=True):
        if zeros:
            a, b = (np.pad(image, ((10, 10), (10, 10), (0, 0))) for image in (a, b))
        full = structural_similarity(
            a,
            b,
            data_range=1,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )[1]
        edge = 10 if zeros else 5
        values.append(full[edge:-edge, edge:-edge].mean())
    return np.mean(values)


def test_ssim_agrees_with_scikit_image(pair):
    assert ssim(*pair) == pytest.approx(_peer(*pair, zeros=False), rel=1e-9)
    assert ssim(*pair, padding="zero") == pytest.approx(_peer(*pair, zeros=True), rel=1e-9)


@pytest.mark.parametrize(("padding", "edge"), [("valid", 0), ("zero", 5)])
def test_ssim_follows_its_definition_window_by_window(pair, padding, edge):
    """Weighted means and variances of every window of 11 x 11 pixels, without a filter."""
    x, y = (image[0, :14, :13, :1] / 2 + 0.5 for image in pair)
    bell = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = np.outer(bell, bell).ravel() / bell.sum() ** 2
    frame = [(edge, edge), (edge, edge)]
    a, b = (
        sliding_window_view(np.pad(image[..., 0], frame), (11, 11)).reshape(-1, 121)
        for image in (x, y)
    )
    (mean_a, mean_b), (var_a, var_b) = zip(
        *((w @ weights, (w - (w @ weights)[:, None]) ** 2 @ weights) for w in (a, b)), strict=True
    )
    both = ((a - mean_a[:, None]) * (b - mean_b[:, None])) @ weights
    luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
    structure = (2 * both + 9e-4) / (var_a + var_b + 9e-4)
    cut = [image[:1, :14, :13, :1] for image in pair]
    assert ssim(*cut, padding=padding) == pytest.approx(np.mean(luminance * structure), rel=1e-10)


def test_ssim_of_swapped_axes_is_the_authors_and_not_ssim(pair):
    """Rows as channels, the window over width and channels."""
    as_they_read_it = [np.moveaxis(x, 1, 3) for x in pair]  # [B, W, C, H]
    assert ssim_swapped_axes(*pair) == pytest.approx(_peer(*as_they_read_it, zeros=True), rel=1e-9)
    smooth = np.broadcast_to(np.linspace(-1, 1, 32)[None, :, None, None], (1, 32, 32, 3))
    noisy = smooth + 0.1 * np.random.default_rng(1).standard_normal(smooth.shape)
    assert ssim_swapped_axes(smooth, noisy) - ssim(smooth, noisy, padding="zero") > 0.1


def test_ssim_of_equal_images_is_one_and_it_is_symmetric(pair):
    x, y = pair
    for measure in (ssim, lambda a, b: ssim(a, b, padding="zero"), ssim_swapped_axes):
        assert measure(x, x) == pytest.approx(1)
        assert measure(x, y) == pytest.approx(measure(y, x), rel=1e-12)
        assert measure(x, y) < 0.99


def test_ssim_of_constant_images_is_the_luminance_term():
    x, y = np.full((1, 16, 16, 1), 0.2), np.full((1, 16, 16, 1), -0.4)
    a, b, c = 0.6, 0.3, 0.01**2
    assert ssim(x, y) == pytest.approx((2 * a * b + c) / (a * a + b * b + c))


@pytest.mark.parametrize("size", [64, 128])
def test_errors_are_in_units_of_zero_to_one_at_every_size(size):
    x = np.zeros((2, size, size, 3), np.float32)
    assert pixel_mse(x, x + 1) == pytest.approx(0.25)
    assert psnr(x, x + 0.2) == pytest.approx(20)
    uneven = x + np.float32([0.2, 0.02])[:, None, None, None]
    assert psnr(x, uneven) == pytest.approx(30)  # the mean over images, not of the mean error
    assert psnr(x, x) == np.inf


def test_eight_bits_round_to_nearest_and_truncation_darkens():
    x = np.random.default_rng(0).uniform(-1, 1, (50, 20, 20, 3))
    error = eight_bit(x) - x
    assert abs(error).max() <= 1 / 255 and abs(error.mean()) < 1e-5
    assert pixel_mse(x, eight_bit(x)) == pytest.approx(1.3e-6, rel=0.03)
    down = eight_bit(x, truncate=True)
    assert (down <= x).all() and np.mean(x - down) == pytest.approx(1 / 255, rel=0.01)
    assert pixel_mse(x, down) == pytest.approx(5.1e-6, rel=0.03)
    levels = np.arange(256) / 127.5 - 1
    np.testing.assert_array_equal(eight_bit(levels), levels)


def test_images_that_cannot_be_compared_are_refused(pair):
    x, y = pair
    broken = y.copy()
    broken[0, 0, 0, 0] = np.nan
    for measure in (pixel_mse, psnr, ssim, ssim_swapped_axes):
        for other, words in (
            (y[:2], "same shape"),
            (broken, "not finite"),
            (np.zeros(x.shape, np.uint8), "floats"),
        ):
            with pytest.raises(DataError, match=words):
                measure(x, other)
    with pytest.raises(DataError, match=">= 11"):
        ssim(x[:, :10], y[:, :10])
    with pytest.raises(DataError, match="padding"):
        ssim(x, y, padding="same")
