"""Power spectra of images whose spectra are known, and of blurred and sharpened images."""

import numpy as np
import pytest

from dbae_jax.errors import DataError
from dbae_jax.metrics import spectra

SIZE = 32


def _noise(seed=0, count=64, channels=2):
    return np.random.default_rng(seed).standard_normal((count, SIZE, SIZE, channels))


def _filtered(images, response):
    """Returns images with each frequency of radius r multiplied by response(r)."""
    frequencies = np.fft.fftfreq(SIZE, 1 / SIZE)
    radius = np.hypot(frequencies[:, None], frequencies)
    spectrum = np.fft.fft2(images, axes=(1, 2)) * response(radius)[None, :, :, None]
    return np.fft.ifft2(spectrum, axes=(1, 2)).real


def test_the_power_of_white_noise_is_flat_and_sums_to_its_variance():
    power = spectra.radial_power(_noise(count=400))
    np.testing.assert_allclose(power, SIZE**2, rtol=0.05)


def test_a_wave_has_power_at_its_frequency_alone():
    angle = 2 * np.pi * 5 * np.arange(SIZE) / SIZE
    wave = np.broadcast_to(np.sin(angle)[:, None], (SIZE, SIZE))[None, :, :, None]
    for images in (wave, wave.transpose(0, 2, 1, 3)):
        power = spectra.radial_power(images)
        frequencies = np.fft.fftfreq(SIZE, 1 / SIZE)
        same = np.rint(np.hypot(frequencies[:, None], frequencies)) == 5
        assert power[5] == pytest.approx(2 * (SIZE**2 / 2) ** 2 / same.sum())
        assert np.delete(power, 5).max() < 1e-20


def test_an_image_is_as_sharp_as_itself():
    power = spectra.radial_power(_noise())
    found = spectra.sharpness(power, power)
    assert (found.error, found.bias, found.band) == (0, 0, (8, 16))


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_filters_have_the_error_of_their_gain(gain):
    images = _noise()
    changed = _filtered(images, lambda radius: np.where(np.rint(radius) >= 8, gain, 1.0))
    found = spectra.sharpness(spectra.radial_power(changed), spectra.radial_power(images))
    assert found.error == pytest.approx(abs(np.log(gain**2)))
    assert found.bias == pytest.approx(np.log(gain**2))
    np.testing.assert_allclose(found.log_ratio[:8], 0, atol=1e-12)


def test_opposite_errors_do_not_cancel():
    images = _noise()
    changed = _filtered(images, lambda radius: np.where(np.rint(radius) >= 12, 2.0, 0.5))
    found = spectra.sharpness(spectra.radial_power(changed), spectra.radial_power(images))
    assert found.error == pytest.approx(np.log(4))
    assert found.bias == pytest.approx(np.log(4) / 9)  # 5 frequencies up, 4 down


def test_a_gaussian_blur_has_its_known_spectrum():
    images, width = _noise(), 0.7
    blurred = _filtered(images, lambda r: np.exp(-2 * (np.pi * width * r / SIZE) ** 2))
    found = spectra.sharpness(spectra.radial_power(blurred), spectra.radial_power(images))
    expected = -4 * (np.pi * width * np.arange(17) / SIZE) ** 2
    np.testing.assert_allclose(found.log_ratio, expected, atol=0.1)
    assert found.bias < -1


def test_means_of_parts_are_the_mean_of_all():
    images = _noise()
    parts = [spectra.radial_power(images[:16]), spectra.radial_power(images[16:])]
    np.testing.assert_allclose(
        (16 * parts[0] + 48 * parts[1]) / 64, spectra.radial_power(images), rtol=1e-12
    )


def test_what_has_no_spectrum_is_refused():
    for shape in ((2, 8, 16, 1), (8, 8, 1), (2, 4, 4, 1)):
        with pytest.raises(DataError, match="square images"):
            spectra.radial_power(np.zeros(shape))
    power = spectra.radial_power(_noise())
    with pytest.raises(DataError, match="of one size"):
        spectra.sharpness(power, power[:-1])
    with pytest.raises(DataError, match="no power at high frequencies"):
        spectra.sharpness(power, spectra.radial_power(np.ones((2, SIZE, SIZE, 1))))
