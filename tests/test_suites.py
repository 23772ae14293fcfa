"""The suites "disentanglement" and "generation" on a model and data whose answers are known."""

import types

import jax
import numpy as np
import pytest

from dbae_jax.errors import CheckpointError, DataError
from dbae_jax.evaluators import disentanglement_suite, generation_suite, judge
from dbae_jax.evaluators.label_net import LabelNet
from dbae_jax.metrics.networks import label_net as network
from dbae_jax.sample_files import batches
from tests import stubs

RNG = np.random.default_rng(0)


def _factors(count, seed):
    """Images whose code holds two factors of three values in two dimensions, noise in others."""
    rng = np.random.default_rng(seed)
    factors = rng.integers(0, 3, (count, 2))
    codes = rng.uniform(-0.9, 0.9, (count, 8))
    codes[:, :2] = 0.4 * (factors - 1)
    data = stubs.Data(
        stubs.images(codes),
        ("low", "high"),
        factors=factors.astype(np.int32),
        attributes=np.int8(factors == 0),
    )
    data.factor_names = ("first", "second")
    return data


def test_codes_that_hold_one_factor_a_dimension_are_disentangled():
    context = stubs.context({"train": _factors(400, 1), "test": _factors(200, 2)})
    assert disentanglement_suite.obstacle(context) is None
    measured = disentanglement_suite.measure(context)
    scores = measured.scores
    assert measured.counts == {"train": 400, "test": 200}
    assert scores["attrs"]["value"] == 2 and len(scores["tad"]["values"]) == 5
    assert scores["mig"]["value"] > 0.8 > 0.5 > scores["mig_rotated"]["value"]
    assert scores["dci_disentanglement"]["value"] > 0.9
    assert set(scores["tad"]["details"]["attributes"]) == {"low", "high"}
    found = disentanglement_suite.settings(context)
    assert found["images"] == {"train": 400, "test": 200} and found["rows"] == 10_000


def test_draws_of_stochastic_codes_are_scored_if_asked_for():
    stochastic = {"model.stochastic": True, "eval.sample_codes": True}
    context = stubs.context({"train": _factors(400, 1), "test": _factors(200, 2)}, **stochastic)
    context.model.scale = 1.0
    drawn = context.z("train")
    np.testing.assert_array_equal(drawn, context.z("train"))
    assert np.std(drawn - context.codes("train").mean) == pytest.approx(1, rel=0.05)


def test_data_of_which_nothing_is_known_are_not_scored():
    bare = {name: stubs.Data(stubs.images(np.zeros((9, 8)))) for name in ("train", "test")}
    assert "neither factors nor attributes" in disentanglement_suite.obstacle(stubs.context(bare))
    one = stubs.context(bare, **{"model.latent_dim": 1})
    assert "one dimension" in disentanglement_suite.obstacle(one)
    real = {n: stubs.Data(d.images, attributes=RNG.random((9, 3), "f4")) for n, d in bare.items()}
    assert "attributes that are 0 or 1" in disentanglement_suite.obstacle(stubs.context(real))
    assert "neither labels nor attributes" in judge.obstacle(stubs.context(real))


class Painter(stubs.Model):
    """A model with a prior: an image is noise, its first pixel bright three times of four."""

    def __init__(self, config):
        super().__init__(config)
        self.prior, self.drawn = types.SimpleNamespace(step=3), 0

    def sample(self, num, keys, **how):
        self.drawn += num
        images = np.array(jax.vmap(lambda k: jax.random.uniform(k, (16, 16, 1), minval=-1))(keys))
        numbers = np.asarray(jax.random.key_data(keys))[:, 0]
        images[:, 0, 0, 0] = np.where(numbers % 4 == 0, -1, 1)
        return images


def _first_pixel_net(*arguments, **keywords):
    params = {k: np.zeros(v, np.float32) for k, v in network.shapes(16, 1, 2).items()}
    params["conv0.weight"][0, 0, 0, 0] = 1
    params["conv0.bias"][0] = 1
    params["conv1.weight"][0, 0, 0, 0] = 1
    params["hidden.weight"][0, 0] = 4
    params["labels.weight"][0, 1] = 1
    params["labels.bias"][0] = 4
    return LabelNet("labelnet-first", "classes", ("0", "1"), (16, 16, 1), params, {})


def _halves(count):
    """Noise with a dark or a bright first pixel, which is the label."""
    images = RNG.integers(0, 256, (count, 16, 16, 1)).astype(np.uint8)
    labels = np.arange(count) % 2
    images[:, 0, 0, 0] = 255 * labels
    return stubs.Data(images, label=labels)


@pytest.fixture
def drawing(monkeypatch, tmp_path):
    monkeypatch.setattr(judge.label_net_fit, "load_or_fit", _first_pixel_net)
    splits = {"train": _halves(300), "test": _halves(100)}

    def make(**overrides):
        context = stubs.context(splits, cache=tmp_path, **{"eval.num_generated": 200} | overrides)
        context.model = Painter(context.config)
        return context

    return make


def test_drawn_images_are_judged_and_kept(drawing, tmp_path):
    context = drawing()
    assert generation_suite.obstacle(context) is None
    measured = generation_suite.measure(context)
    assert measured.counts == {"generated": 200, "train": 300, "test": 100}
    (folder,) = tmp_path.glob("samples_*")
    shown = np.concatenate(list(batches(folder, 200)))
    bright = (shown[:, 0, 0, 0] == 255).mean()
    distance = measured.scores["class_distance"]
    assert distance["value"] == pytest.approx(abs(bright - 0.5))
    assert measured.scores["confidence"]["value"] > 0.9
    names = set(measured.scores)
    assert {n for n in names if n.startswith("fd_labelnet-first")} and "fid" not in names
    assert any(name.endswith("_floor") for name in names)

    again = drawing()
    repeated = generation_suite.measure(again)
    assert again.model.drawn == 0 and repeated.scores == measured.scores
    other = drawing(**{"prior.sample_steps": 3})
    generation_suite.measure(other)
    assert other.model.drawn == 200 and len(list(tmp_path.glob("samples_*"))) == 2


def test_what_generation_needs_is_told_before(drawing, tmp_path):
    with pytest.raises(DataError, match="FID by diffae is of 50000 generated and 50000 real"):
        generation_suite.settings(drawing(**{"eval.fid": "diffae"}))
    absent = {"eval.fid": "any", "eval.weights_dir": str(tmp_path / "weights")}
    with pytest.raises(CheckpointError, match=r"6726825d\.pth is missing; download"):
        generation_suite.settings(drawing(**absent))
    bare = drawing()
    bare.splits = {k: stubs.Data(d.images) for k, d in bare.splits.items()}
    assert generation_suite.obstacle(bare).endswith("config.eval.fid asks for no other")

    class Priorless(stubs.Model):
        @property
        def prior(self):
            raise CheckpointError("This model has no latent prior.")

    bare.model = Priorless(bare.config)
    assert generation_suite.obstacle(bare) == "This model has no latent prior"
