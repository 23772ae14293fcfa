"""Latent codes in files: to which model and images they belong, and that they are made together."""

import types

import numpy as np
import pytest

from dbae_jax.commands import train_prior
from dbae_jax.data import codes, registry
from dbae_jax.data.codes import Codes
from dbae_jax.data.sources import ArraySource
from dbae_jax.runtime import kept
from tests.helpers import stubs, tiny

IDENTITY = {"step": 1, "counts": {"train": 3}}


@pytest.fixture
def encoded(monkeypatch):
    """Replaces the encoder; returns the list of the sources that were encoded."""
    done = []

    def encode(model, source, *, count=None, **how):
        done.append(repr(source))
        total = len(source) if count is None else min(count, len(source))
        return Codes(np.zeros((total, 8), np.float32), None)

    monkeypatch.setattr(codes, "encode", encode)
    return done


@pytest.fixture
def prior_codes(tmp_path):
    """Returns a function of a config that returns the codes for the training of a prior."""
    config = tiny.config()
    whose, path = {"step": 1, "weights": "ema", "fingerprint": "x"}, tmp_path / "codes.npz"
    return lambda config=config: train_prior._codes(stubs.Model(config), path, whose)


def _alone(value):
    """Stands in for `processes.agree` where this process has a valid file and another has none."""
    return value == 0


@pytest.mark.parametrize("sigma", [None, np.ones((3, 2), np.float32)])
def test_codes_are_read_from_their_file_as_they_were_made(tmp_path, sigma):
    known = {"id": np.array(["a", "b", "c"]), "label": np.arange(3)}
    made = {
        "train": Codes(np.ones((3, 2), np.float32), sigma, known),
        "test": Codes(np.zeros((1, 2), np.float32), None),
    }
    path = tmp_path / "codes.npz"
    codes.load_or_make(path, IDENTITY, lambda: made)
    found = codes.load_or_make(path, IDENTITY, lambda: pytest.fail("encoded again"))
    assert list(found) == ["train", "test"] and found["test"].known == {}
    np.testing.assert_array_equal(found["train"].mean, made["train"].mean)
    np.testing.assert_equal(found["train"].sigma, sigma)
    np.testing.assert_equal(found["train"].known, known)


def test_codes_of_a_prior_and_of_suites_are_made_together(
    prior_codes, encoded, tmp_path, monkeypatch
):
    """If another process has no file, this process encodes too."""
    splits = {name: registry.make_source(tiny.config().data, name) for name in ("train", "test")}

    def both():
        encoded.clear()
        prior_codes()
        stubs.context(splits, cache=tmp_path / "suites").codes("test")
        return len(encoded)

    assert both() == 3 and both() == 0
    monkeypatch.setattr(kept, "processes", types.SimpleNamespace(agree=_alone))
    assert both() == 3


class Stored(ArraySource):
    """A source whose name holds the stored size of its images."""

    size = 256

    def __repr__(self):
        return f"ffhq/{self.size}({len(self)})"


def test_images_that_are_prepared_again_are_encoded_and_measured_again(
    prior_codes, encoded, monkeypatch
):
    config, make, settings = tiny.config(), registry.make_source, []
    monkeypatch.setattr(registry, "make_source", lambda *a: Stored(make(*a).images))
    for size, expected in ((256, 2), (256, 0), (512, 2)):
        monkeypatch.setattr(Stored, "size", size)
        encoded.clear()
        assert len(prior_codes()["test"].mean) == 16 and len(encoded) == expected
        splits = {name: registry.make_source(config.data, name) for name in ("train", "test")}
        settings.append(stubs.context(splits).settings())
    assert settings[0] == settings[1] != settings[2]
    assert settings[2]["sources"] == {"train": "ffhq/512(1437)", "test": "ffhq/512(360)"}
    encoded.clear()
    fewer = prior_codes(tiny.config(**{"eval.num_images": 8}))
    assert len(fewer["test"].mean) == 8 and len(encoded) == 2
