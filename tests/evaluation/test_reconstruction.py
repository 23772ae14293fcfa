"""The suite of reconstructions: means over all images, seeds, baselines, what JSON can hold."""

import jax
import numpy as np
import pytest
from sklearn.decomposition import PCA

from dbae_jax.data import sources
from dbae_jax.errors import CheckpointError, ConfigError
from dbae_jax.evaluation import results, summary
from dbae_jax.evaluation.suites import generation, reconstruction
from dbae_jax.metrics import similarity, spectra
from dbae_jax.metrics.networks import alexnet_lpips
from dbae_jax.metrics.networks.published import Origin, PerceptualNet
from dbae_jax.report import cards
from tests.helpers import stubs, tiny

COLOUR = {
    "data.channels": 3,
    "data.image_size": 32,
    "eval.lpips": True,
}
IMAGES = {"train": stubs.Data(tiny.images(40)), "test": stubs.Data(tiny.images(70))}


def _measure(error=0.0, **overrides):
    context = stubs.context(IMAGES, **overrides)
    context.model.error = error
    return reconstruction.measure(context), context


def test_scores_are_those_of_all_images_at_once():
    """70 images are worked on in chunks of 64 and 6."""
    measured, context = _measure(0.1)
    images = np.float32(tiny.images(70)) / 127.5 - 1
    again = np.clip(images + 0.1, -1, 1)
    rounded = np.round((again + 1) * 127.5) / 127.5 - 1
    expected = {
        "mse": similarity.pixel_mse(again, images),
        "mse_8bit": similarity.pixel_mse(rounded, np.float64(images)),
        "psnr": similarity.psnr(again, images),
        "ssim": similarity.ssim(again, images),
        "ssim_zero_padded": similarity.ssim(again, images, padding="zero"),
        "ssim_swapped_axes": similarity.ssim_swapped_axes(again, images),
    }
    for name, value in expected.items():
        assert measured.scores[name]["value"] == pytest.approx(value, rel=1e-6), name
        assert "std" not in measured.scores[name]
    assert measured.counts == {"train": 40, "test": 70}
    assert measured.scores["mse"]["better"] == "lower"
    assert measured.scores["ssim"]["better"] == "higher"
    flat = [tiny.images(n).reshape(n, -1) / 255 for n in (40, 70)]
    pca = PCA(8, random_state=0).fit(flat[0])
    error = np.mean((pca.inverse_transform(pca.transform(flat[1])) - flat[1]) ** 2)
    assert measured.scores["pca_mse"]["value"] == pytest.approx(error, rel=1e-6)
    assert reconstruction.settings(context)["nfe"] == 3


def test_sharpness_is_that_of_all_images_at_once():
    measured, _ = _measure(0.1)
    images = np.float32(tiny.images(70)) / 127.5 - 1
    decoded = similarity.eight_bit(np.clip(images + 0.1, -1, 1))
    powers = [spectra.radial_power(x) for x in (decoded, images)]
    expected = spectra.sharpness(*powers)
    found = measured.scores["sharpness_error"]
    assert found["value"] == pytest.approx(expected.error, rel=1e-5)
    assert found["details"]["bias"] == pytest.approx(expected.bias, rel=1e-5)
    assert found["details"]["band"] == [4, 8] and len(found["details"]["log_ratio"]) == 9
    np.testing.assert_allclose(found["details"]["log_ratio"], expected.log_ratio, atol=1e-4)
    assert _measure()[0].scores["sharpness_error"]["value"] < 1e-6


def test_an_exact_reconstruction_has_no_psnr_but_a_reason():
    psnr = _measure()[0].scores["psnr"]
    assert psnr["value"] is None and "MSE of an image is 0" in psnr["details"]["reason"]


def test_pca_is_not_scored_on_images_that_it_learned(caplog):
    """CelebA-HQ trains and tests on the same images; everything but PCA is measured."""
    same = stubs.Data(tiny.images(40))
    context = stubs.context({"train": same, "test": same})
    context.model.error = 0.1
    measured = reconstruction.measure(context)
    baseline = measured.scores["pca_mse"]
    assert baseline["value"] is None and "digits share images" in baseline["details"]["reason"]
    assert measured.scores["mse"]["value"] > 0 and measured.counts == {"test": 40}
    entry = {"data": "digits", "settings": {"nfe": 3, "sampler": {}}}
    entry |= {"counts": measured.counts, "scores": measured.scores}
    with caplog.at_level("INFO", logger="dbae_jax"):
        summary.report({"reconstruction": entry})
    assert "  \u2193 pca_mse            undefined: config.data.train_split" in caplog.text
    assert "than PCA" not in caplog.text
    apart = _measure(0.1)[0]
    with caplog.at_level("INFO", logger="dbae_jax"):
        summary.report({"reconstruction": entry | {"scores": apart.scores}})
    less = 100 * (1 - apart.scores["mse"]["value"] / apart.scores["pca_mse"]["value"])
    assert f"{less:.0f}% lower reconstruction MSE than PCA with as many components" in caplog.text
    apart.scores["mse"]["value"] = 1.25 * apart.scores["pca_mse"]["value"]
    with caplog.at_level("INFO", logger="dbae_jax"):
        summary.report({"reconstruction": entry | {"scores": apart.scores}})
    assert "25% higher reconstruction MSE than PCA with as many components" in caplog.text
    for found, names in ((measured, []), (apart, ["this model", "PCA, 8 components"])):
        card = cards._reconstruction(found.scores, 8, seen=True)
        assert [bar.name for bar in card.bars] == names


def test_samplers_that_draw_noise_are_measured_with_several_seeds():
    measured, context = _measure(**{"sample.boot": True, "eval.seeds": 3})
    mse = measured.scores["mse"]
    assert len(set(mse["values"])) == 3 and mse["std"] > 0
    assert reconstruction.settings(context)["seeds"] == 3
    shorter, _ = _measure(**{"sample.boot": True, "eval.seeds": 1, "eval.num_images": 64})
    whole = mse["values"][0] * 70
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(np.arange(64, 70))
    rest = tiny.images(70)[64:]
    again = context.model.decode(context.model.encode(rest), rng=keys, plan=context.config.sample)
    last = similarity.pixel_mse(again, np.float32(rest) / 127.5 - 1) * 6
    assert shorter.scores["mse"]["value"] * 64 + last == pytest.approx(whole, rel=1e-5)


def test_lpips_is_refused_before_long_work(tmp_path):
    with pytest.raises(ConfigError, match="images of 16 pixels and 1 channels"):
        reconstruction.settings(stubs.context(IMAGES, **{"eval.lpips": True}))
    context = stubs.context(IMAGES, **COLOUR, **{"eval.weights_dir": str(tmp_path)})
    with pytest.raises(CheckpointError, match=r"alexnet-owt-7be5be79\.pth is missing; download"):
        reconstruction.settings(context)


def test_lpips_is_measured_and_names_its_network():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
    splits = {"train": stubs.Data(pictures), "test": stubs.Data(pictures)}
    context = stubs.context(splits, **COLOUR)
    context.model.error = 0.2
    shapes = alexnet_lpips.trunk_shapes() | alexnet_lpips.linear_shapes()
    params = {k: np.abs(rng.standard_normal(s, "f4")) * 0.05 for k, s in shapes.items()}
    context.perceptual_net = PerceptualNet(Origin("random-net"), params)
    measured = reconstruction.measure(context)
    lpips = measured.scores["lpips"]
    assert lpips["value"] > 0 and lpips["better"] == "lower"
    assert lpips["details"]["net"] == "random-net"
    assert reconstruction.settings(context)["lpips"]["net"] == "random-net"


def test_a_table_has_aligned_columns():
    scores = {"mse": results.score(0.0015178, "lower"), "ssim": results.score([0.9, 1.0], "higher")}
    entry = {"data": "digits", "counts": {"train": 1437, "test": 360}, "scores": scores}
    assert summary.table("reconstruction", entry).splitlines() == [
        "reconstruction on digits (1437 train, 360 test images):",
        "  \u2193 mse   0.001518",
        "  \u2191 ssim  0.95 +- 0.071",
    ]


def test_reconstructions_are_compared_by_the_features_of_the_classifier(tmp_path):
    """Labels make a classifier possible; exact reconstructions have the distance 0."""
    splits = {name: sources.digits(name, 16) for name in ("train", "test")}
    distances = {}
    for error in (0.0, 0.3):
        context = stubs.context(splits, cache=tmp_path, **{"eval.num_images": 0})
        context.model.error = error
        assert "classifier" in reconstruction.settings(context)
        scores = reconstruction.measure(context).scores
        (name,) = (name for name in scores if name.startswith("fd_classifier-digits"))
        assert scores[name.replace("fd_", "kd_")]["better"] == "lower"
        distances[error] = scores[name]["value"]
    assert abs(distances[0.0]) < 1e-3 and distances[0.3] > 1


def test_sharpness_of_samples_is_that_against_test_images(monkeypatch):
    context = stubs.context(IMAGES)
    half = np.uint8(np.round(64 + IMAGES["test"].images / 2))  # a quarter of the power
    monkeypatch.setattr(generation, "sampled_images", lambda context, seed: iter([half]))
    found = generation._sharpness(context)
    assert found["value"] == pytest.approx(np.log(4), abs=0.05)
    assert found["details"]["log_ratio"][-1] == pytest.approx(-np.log(4), abs=0.05)
