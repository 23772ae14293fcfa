"""Latent codes in files: their identity, and reading by all processes of a run or by none."""

import types

import numpy as np
import pytest

from dbae_jax.commands import train_prior
from dbae_jax.data import codes, registry
from dbae_jax.data.codes import Codes
from dbae_jax.data.sources import ArraySource
from tests.helpers import stubs, tiny

IDENTITY = {"step": 1, "counts": {"train": 3}}


@pytest.fixture
def encoded(monkeypatch):
    """Replaces the encoder and returns the list of the sources that were encoded."""
    done = []

    def encode(model, source, *, count=None, **how):
        done.append(repr(source))
        total = len(source) if count is None else min(count, len(source))
        return Codes(np.zeros((total, 8), np.float32), None)

    monkeypatch.setattr(codes, "encode", encode)
    return done


@pytest.fixture
def prior_codes(tmp_path):
    """Returns a function from a config to the codes that a latent prior trains on."""
    config = tiny.config()
    whose, path = {"step": 1, "weights": "ema", "fingerprint": "x"}, tmp_path / "codes.npz"
    return lambda config=config: train_prior._codes(stubs.Model(config), path, whose)


def _alone(value):
    """Returns what `processes.agree` returns if only this process finds the file."""
    return value == 0


def test_a_file_is_read_by_all_processes_or_by_none(tmp_path, monkeypatch):
    path, made = tmp_path / "codes.npz", []

    def make():
        made.append(Codes(np.full((3, 2), len(made), np.float32), None))
        return {"train": made[-1]}

    for calls, identity in ((1, IDENTITY), (1, IDENTITY), (2, IDENTITY | {"step": 2})):
        found = codes.kept(path, identity, make)["train"]
        np.testing.assert_array_equal(found.mean, made[-1].mean)
        assert len(made) == calls
    monkeypatch.setattr(codes, "processes", types.SimpleNamespace(agree=_alone))
    codes.kept(path, IDENTITY | {"step": 2}, make)
    assert len(made) == 3


def test_codes_of_a_latent_prior_and_of_suites_are_encoded_by_all_processes(
    prior_codes, encoded, tmp_path, monkeypatch
):
    """If another process lacks the file, this process encodes too."""
    splits = {name: registry.make_source(tiny.config().data, name) for name in ("train", "test")}

    def both():
        encoded.clear()
        prior_codes()
        stubs.context(splits, cache=tmp_path / "suites").codes("test")
        return len(encoded)

    assert both() == 3 and both() == 0
    monkeypatch.setattr(codes, "processes", types.SimpleNamespace(agree=_alone))
    assert both() == 3


class Stored(ArraySource):
    """A source whose repr names the stored size of its images."""

    size = 256

    def __repr__(self):
        return f"ffhq/{self.size}({len(self)})"


def test_images_of_a_different_stored_size_have_different_codes_and_results(
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
