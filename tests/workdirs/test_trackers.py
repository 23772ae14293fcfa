"""Experiment trackers: what they get, which process has them, and what a missing package says."""

import importlib
import importlib.util
import types

import pytest

from dbae_jax.errors import ConfigError
from dbae_jax.runtime import processes
from dbae_jax.workdirs import records, trackers
from tests.helpers import tiny


class Fake(types.ModuleType):
    """Stands for the packages wandb and trackio: records the calls of its functions."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


def _config(*names):
    return tiny.config(**{"train.trackers": names})


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_online_trackers_get_config_and_scalars_under_a_name_that_a_resumption_finds(
    name, tmp_path, monkeypatch
):
    fake = Fake(name)
    monkeypatch.setattr(importlib, "import_module", lambda wanted: {name: fake}[wanted])
    config = _config(name)
    for start in (0, 5):
        with records.Writer(tmp_path / "run", config, start_step=start) as writer:
            writer.write(start + 5, {"loss": 0.5})
    kinds = [call[0] for call in fake.calls]
    assert kinds == ["init", "log", "finish"] * 2
    first, second = (call[2] for call in fake.calls if call[0] == "init")
    assert first == second and first["resume"] == "allow" and "-run-" in first["name"]
    assert first["config"]["train"]["trackers"] == [name]
    assert ("id" in first) == (name == "wandb")  # Trackio finds a run by its name
    assert fake.calls[1][1:] == (({"loss": 0.5},), {"step": 5})
    rows = records.read(tmp_path / "run")
    assert [row["step"] for row in rows] == [5, 10]


def test_tensorboard_files_are_written_without_tensorflow(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")
    with records.Writer(tmp_path, _config("tensorboard"), start_step=0) as writer:
        writer.write(1, {"loss": 0.25, "z_variance": 2.0})
    (path,) = tmp_path.glob("events.out.tfevents*")
    assert b"loss" in path.read_bytes() and b"z_variance" in path.read_bytes()


def test_only_the_process_that_writes_files_has_trackers(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "is_writer", lambda: False)
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail("was imported"))
    with trackers.opened(_config("wandb"), tmp_path, 0) as opened:
        assert opened == []


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"'wandb', which needs .* pip install wandb"):
        trackers.check(_config("wandb"), tmp_path)
    trackers.check(_config(), tmp_path)


def test_other_trackers_are_refused():
    with pytest.raises(ConfigError, match=r"trackers\[0\]='mlflow' .* one of tensorboard, wandb"):
        _config("mlflow")
