"""Modes that write refuse a place they cannot write into, before they read a model."""

import functools
import os
import pathlib

import pytest

from dbae_jax import DBAE
from dbae_jax.commands import edit, evaluate, interpolate, report, sample, train_prior
from dbae_jax.errors import ConfigError
from dbae_jax.runtime import files
from dbae_jax.workdirs import workdir
from tests.helpers import tiny

INTO_WORKDIR = (evaluate.evaluate, report.report, train_prior.train_prior)
INTO_OUT = (
    functools.partial(sample.sample, num=1),
    functools.partial(interpolate.interpolate, first="1", second="2"),
    functools.partial(edit.edit, attribute="7", image="1", scales=["0"]),
)


@pytest.fixture
def nothing_is_read(monkeypatch):
    def read(*args, **kwargs):
        pytest.fail("a model was read")

    monkeypatch.setattr(workdir, "load", read)
    monkeypatch.setattr(DBAE, "load", read)


@pytest.mark.parametrize("mode", INTO_WORKDIR, ids=lambda mode: mode.__name__)
def test_a_workdir_that_cannot_be_written(mode, nothing_is_read, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, how: pathlib.Path(path) != tmp_path)
    with pytest.raises(ConfigError, match=f"--workdir={tmp_path} cannot be written: .* is not wr"):
        mode(tiny.config(), tmp_path)


@pytest.mark.parametrize("mode", INTO_OUT, ids=lambda mode: mode.func.__name__)
def test_a_folder_that_cannot_be_written(mode, nothing_is_read, tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    with pytest.raises(ConfigError, match=f"--out={out} cannot be written: {out.parent} is a file"):
        mode(tiny.config(), tmp_path / "run", out=out)
    with pytest.raises(ConfigError, match="--out="):
        mode(tiny.config(), tmp_path / "run", out=tmp_path / "file")


def test_a_folder_that_can_be_made(tmp_path):
    files.check_folder(tmp_path / "a" / "b", "--out")
    assert not list(tmp_path.iterdir())
