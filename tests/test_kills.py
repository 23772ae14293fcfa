"""A run killed (kill -9) at twelve random moments ends as the run that nobody touched."""

import random
import time

import jax
import numpy as np
import pytest

from dbae_jax.commands import train
from dbae_jax.data import identity, registry
from dbae_jax.runtime import sharding
from dbae_jax.training.jitted_step import make_training
from dbae_jax.workdirs import checkpoint, records, workdir
from dbae_jax.workdirs.train_state import TrainState
from tests.helpers import commands, tiny

pytestmark = pytest.mark.slow

MOMENTS = ("load", "step", "save", "evaluate")
KILLS = 11  # and one before them; the campaign of kills makes a hundred
PATIENCE_SECONDS = 300
NEVER = 10_000  # steps


def _config(num_steps):
    overrides = {
        "train.num_steps": num_steps,
        "train.evaluate_every_steps": 2,
        "checkpoint.every_steps": 1,
        "checkpoint.keep_last": 2,
        "eval.num_images": 8,
    }
    return tiny.config(**overrides)


def _train(directory, num_steps):
    """Runs in a process of its own; shows that it begins to load."""
    read_state = checkpoint.read_state

    def shown(*args):
        _loading(directory).touch()
        return read_state(*args)

    checkpoint.read_state = shown
    train.train(_config(num_steps), directory)


def _loading(directory):
    return directory.with_name("loading")


def _newest(directory):
    return (checkpoint.steps(directory) or [0])[-1]


def _logged(directory):
    return {row["step"] for row in records.read(directory) if "loss" in row}


def _reached(moment, directory, process, rng):
    """Waits until the process is loading, stepping, saving or evaluating, and a little more."""
    begun = time.monotonic()
    start = _newest(directory)
    signs = {
        "first": lambda: start < _newest(directory),
        "load": _loading(directory).exists,
        "step": lambda: max(_logged(directory), default=0) > start + 1,
        "save": lambda: any("tmp" in p.name for p in (directory / checkpoint.FOLDER).glob("*")),
        "evaluate": lambda: any(s > start and s % 2 == 0 for s in _logged(directory)),
    }
    while not signs[moment]():
        assert process.is_alive(), "the run ended by itself"
        assert time.monotonic() - begun < PATIENCE_SECONDS, f"no sign of {moment}"
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.1))


def _state(directory, step):
    config = _config(step)
    training = make_training(config, sharding.make_mesh())
    data = identity.of(registry.make_source(config.data, "train"))
    run, _ = train.set_up(config, directory, training, data)
    assert isinstance(run.state, TrainState) and int(run.state.step) == step
    return jax.device_get(run.state)


def _records(directory):
    """Returns what a run recorded, without what depends on the clock."""
    clocked = {"images_per_second", "data_wait_share", "train_seconds"}
    rows = records.read(directory)
    return [{k: v for k, v in row.items() if k not in clocked} for row in rows]


def test_killed_at_twelve_random_moments_it_ends_as_if_untouched(tmp_path):
    seed = time.time_ns()
    rng = random.Random(seed)
    killed = tmp_path / "killed"
    moments = [MOMENTS[i % len(MOMENTS)] for i in range(KILLS)]
    rng.shuffle(moments)
    happened = [seed]
    for moment in ["first", *moments]:  # without a checkpoint there is nothing to load
        _loading(killed).unlink(missing_ok=True)
        process = commands.CONTEXT.Process(target=_train, args=(killed, NEVER))
        process.start()
        _reached(moment, killed, process, rng)
        process.kill()
        process.join()
        happened.append((moment, _newest(killed)))
    last = _newest(killed) + 2
    train.train(_config(last), killed)
    whole = tmp_path / "whole"
    train.train(_config(last), whole)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b, err_msg=str(happened)),
        _state(killed, last),
        _state(whole, last),
    )
    assert _records(killed) == _records(whole), happened
    assert not [p.name for p in (killed / checkpoint.FOLDER).iterdir() if "tmp" in p.name]
    assert workdir.load(killed).step == last
