"""Runs in buckets, of emulated stores: killed, resumed, locked, measured and used."""

import json
import os
import time

import jax
import numpy as np
import pytest

import dbae_jax
from dbae_jax.commands import evaluate, report, sample, train, train_prior
from dbae_jax.configuration import paths
from dbae_jax.errors import CheckpointError, ConfigError, StorageError, WorkdirInUseError
from dbae_jax.evaluation import sample_files
from dbae_jax.runtime import processes
from dbae_jax.runtime.buckets import access
from dbae_jax.training import determinism
from dbae_jax.workdirs import bucket_checkpoints, checkpoint, lock, records, workdir
from tests.helpers import commands, tiny
from tests.helpers.report_workdirs import AMOUNTS

PATIENCE_SECONDS = 600
STEPS = 12  # of the whole run; the first process saves every second step and is killed before
CONFIG = """
from tests.helpers import tiny

get_config = tiny.config_dict
"""
WHOLE = {"train.num_steps": STEPS, "checkpoint.every_steps": STEPS, "train.batch_size": 8}
SMALL = WHOLE | {
    "eval.suite": "reconstruction",
    "eval.num_train_images": 32,
    "prior.num_steps": 2,
}


def _path(store, name):
    return paths.read(f"{store}/{name}", "--workdir", buckets=True)


class Launch:
    """A training in a process of its own, with one device."""

    def __init__(self, folder, workdir, *, saved=False, **overrides):
        config, self.log = folder / "tiny_run.py", folder / "log"
        config.write_text(CONFIG)
        flags = [] if saved else [f"--config={config}"]  # otherwise the config.json of the workdir
        flags += [f"--config.{key}={value}" for key, value in overrides.items()]
        kept = [f for f in os.environ["XLA_FLAGS"].split() if "device_count" not in f]
        self.process = commands.start(
            *("main", "--mode=train", f"--workdir={workdir}", *flags),
            out=self.log,
            err=self.log,
            XLA_FLAGS=" ".join(kept),
        )

    def until(self, happened):
        begun = time.monotonic()
        while not happened():
            assert time.monotonic() - begun < PATIENCE_SECONDS, self.log.read_text()
            assert commands.code(self.process) is None, self.log.read_text()
            time.sleep(0.05)

    def wait(self):
        """Returns what the training has said."""
        code = commands.wait(self.process, PATIENCE_SECONDS)
        assert code == 0, self.log.read_text()
        return self.log.read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run on the disk, which nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    Launch(folder, folder / "run", **WHOLE).wait()
    return folder / "run"


@pytest.fixture(scope="module")
def resumed(store, tmp_path_factory):
    """A run in the bucket that was killed; then the config.json of the bucket resumes it."""
    folder, url = tmp_path_factory.mktemp("logs"), f"{store}/runs/a"
    directory = _path(store, "runs/a")
    often = WHOLE | {"checkpoint.every_steps": 2, "train.num_steps": 10_000}
    launch = Launch(folder, url, **often)
    launch.until(lambda: checkpoint.steps(directory))
    words = f"process {launch.process.pid} on host"
    with pytest.raises(WorkdirInUseError, match=words), lock.held(directory):
        pass
    launch.process.kill()
    launch.process.join()
    reached = checkpoint.steps(directory)[-1]
    assert reached < STEPS
    said = Launch(folder, url, saved=True, **WHOLE).wait()
    assert f"Resuming from step {reached} of {url}" in said
    assert "checkpoint.every_steps (2 in the workdir" in said
    return directory


def test_a_killed_run_resumes_bit_for_bit(resumed, whole):
    assert checkpoint.steps(resumed)[-1] == STEPS
    for weights in ("raw", "ema"):
        ours, theirs = (workdir.load(path, weights).variables for path in (resumed, whole))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    losses = [[row["loss"] for row in records.read(path)] for path in (resumed, whole)]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS
    names = {path.name for path in resumed.iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoints"} < names
    assert not [name for name in names if name.startswith(".")]  # the locks of both are gone
    assert len(checkpoint.steps(resumed)) <= tiny.config().checkpoint.keep_last


def test_a_model_in_a_bucket_is_measured_and_used(resumed):
    config = tiny.config(**SMALL)
    train_prior.train_prior(config, resumed)
    measured = evaluate.evaluate(config, resumed)
    written = json.loads((resumed / "results.json").read_text())["results"]
    assert written["reconstruction/digits"]["scores"] == measured["reconstruction"]["scores"]
    for file_format in ("png", "npz"):
        out = resumed / file_format
        sample.sample(config, resumed, num=3, out=out, file_format=file_format)
        sample.sample(config, resumed, num=3, out=out, file_format=file_format)
    shown, kept = (next(sample_files.batches(resumed / name, 3)) for name in ("png", "npz"))
    np.testing.assert_array_equal(shown, kept)
    assert report.report(config, resumed, amounts=AMOUNTS) == resumed / "report.html"
    assert "<html" in (resumed / "report.html").read_text()
    model = dbae_jax.DBAE.load(str(resumed))
    assert model.encode(tiny.images(2)).shape == (2, 8) and model.sample(1, 0).shape[0] == 1
    assert f"EMA weights of {resumed}" in repr(model)


def test_torn_checkpoints_do_not_count(resumed, store):
    directory, whole = _path(store, "runs/torn"), resumed / checkpoint.FOLDER / str(STEPS)
    folder = directory / checkpoint.FOLDER
    with access.local_copy(whole, ("ema", "meta")) as copy:
        access.put_tree(copy, folder / "1")
        access.put_tree(copy / "meta", folder / "2" / "meta")
        access.put_tree(copy / "meta", folder / "3" / "meta")  # without a marker
    for step in (1, 2):
        (folder / str(step) / bucket_checkpoints.MARKER).write_text("")
    (folder / "2" / "meta" / "metadata").write_text("{")
    assert checkpoint.steps(directory) == [1, 2]
    assert workdir.load(directory).step == 1
    with pytest.raises(CheckpointError, match=r"has no checkpoint of step 3; it has \[1, 2\]"):
        workdir.load(directory, step=3)

    found = checkpoint.newest_readable(
        directory, lambda step: checkpoint.read_meta(directory, step), move_unreadable=True
    )
    assert found[0] == 1 and checkpoint.steps(directory) == [1]
    assert (directory / checkpoint.UNREADABLE / "2-0" / "meta" / "metadata").read_text() == "{"
    with checkpoint.Writer(directory, keep_last=1, keep_every_steps=0):
        pass
    assert {path.name for path in folder.iterdir()} == {"1"}


def test_what_a_workdir_in_a_bucket_must_be(store, monkeypatch):
    other = _path(store, "other")
    (other / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="holds no run of dbae_jax but other files, such as"):
        workdir.check_usable(other)
    with pytest.raises(CheckpointError, match="rums does not exist; did you mean 'runs'"):
        workdir.check_exists(_path(store, "rums"))
    with pytest.raises(CheckpointError, match=f"There is no workdir {store}/runs/b"):
        dbae_jax.DBAE.load(f"{store}/runs/b")
    config = tiny.config(**{"train.trackers": ("tensorboard",)})
    with pytest.raises(ConfigError, match="appends to its files"):
        train.train(config, other / "run")
    monkeypatch.setattr(processes, "several", lambda: True)
    if store.startswith("s3"):
        with pytest.raises(CheckpointError, match="for trainings with one process"):
            checkpoint.check_processes(other)
    else:
        checkpoint.check_processes(other)


def test_compiled_programs_are_kept_in_a_bucket(store):
    directory = _path(store, "programs")
    with determinism.programs_kept(tiny.config(**{"train.deterministic": True}), directory):
        assert jax.config.jax_persistent_cache_enable_xla_caches == "none"
        jax.jit(lambda x: 3 * x + 1)(2.0)
    assert list((directory / determinism.FOLDER).iterdir())


def test_a_bucket_that_is_not_there_is_refused(store):
    with pytest.raises(ConfigError, match=r"there is no bucket .*://nothing\. Make it"):
        paths.read(f"{store.partition('://')[0]}://nothing/run", "--workdir", buckets=True)


def test_a_store_that_fails_is_told_apart_from_a_damaged_checkpoint(resumed, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("Forbidden: https://...\nno permission")

    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "restore", fail)
    with pytest.raises(StorageError, match="A bucket cannot be read or written"):
        checkpoint.read_meta(resumed, STEPS)


def test_empty_objects_that_stand_for_folders_are_no_files(store):
    folder = _path(store, "marked")
    access.filesystem(folder).pipe_file(f"{folder}/", b"")  # as consoles make them
    (folder / "a").write_text("x")
    assert [path.name for path in folder.iterdir()] == ["a"]
