"""Several processes as one run, for real: the same losses, SIGTERM, a lost process, evaluation."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from dbae_jax.errors import (
    CheckpointError,
    ConfigError,
    DBAEError,
    DeviceMemoryError,
    LostProcessError,
)
from dbae_jax.evaluation import sample_files
from dbae_jax.runtime import failures, host, processes
from dbae_jax.workdirs import checkpoint, records, workdir
from tests.helpers import commands

PATIENCE_SECONDS = 300
# Tolerances: of scores that differ only by the order of sums, and of scores of probes and
# classifiers, which learn from numbers that differ in this way.
EXACT, LEARNED = {"rel": 1e-4, "abs": 0}, {"rel": 2e-3, "abs": 0.02}
STEPS = 12  # of the run that others are compared with
TINY = {
    "model.latent_dim": 8,
    "model.encoder.channel_mult": (1,),
    "model.decoder.base_channels": 4,
    "model.unet.channel_mult": (1,),
    "model.unet.attention_resolutions": (),
    "model.unet.dropout": 0.1,
    "data.flip": True,
    "train.batch_size": 8,
    "train.num_steps": 3,
    "train.log_every_steps": 1,
    "train.diagnose_every_steps": 0,
    "train.picture_every_steps": 0,
    "train.evaluate_every_steps": 0,
    "checkpoint.every_steps": 3,
    "optim.optimizer": "radam",  # as in `tiny`
    "optim.warmup_steps": 0,
    "optim.schedule": "constant",
    "sample.steps": 3,
    "eval.num_images": 10,
    "eval.num_train_images": 32,
    "eval.batch_size": 8,
    "eval.num_pictures": 2,
    "eval.information_points": 2,
    "eval.num_probe_images": 200,
    "eval.probe_epochs": 3,
    "eval.num_generated": 10,
    "prior.width": 16,
    "prior.num_steps": 3,
    "prior.sample_steps": 3,
}


class Launch:
    """The processes of one run, `devices` virtual ones each; their messages go to files."""

    def __init__(self, directory, *more, count=1, devices=1, mode="train", cold=False, **overrides):
        flags, values = [f"--workdir={directory}", f"--mode={mode}", *more], overrides
        if mode != "distill":  # which takes the config of its teacher
            flags, values = ["--config=configs/digits.py", *flags], TINY | overrides
        flags += [f"--config.{key}={value}" for key, value in values.items()]
        self.logs = [directory.with_name(f"{directory.name}.{mode}.{i}.log") for i in range(count)]
        self.processes = [
            commands.start(
                *("main", *flags, *(_place(i, count) if count > 1 else [])),
                out=log,
                err=log,
                cold=cold,
                XLA_FLAGS=_flags(devices),
            )
            for i, log in enumerate(self.logs)
        ]

    def wait(self):
        """Returns the exit codes."""
        return [commands.wait(process, PATIENCE_SECONDS) for process in self.processes]

    def messages(self, index=0):
        return self.logs[index].read_text()


def _place(index, count):
    if index == 0:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            _place.port = probe.getsockname()[1]
    return [
        f"--coordinator=127.0.0.1:{_place.port}",
        f"--num_processes={count}",
        f"--process_id={index}",
    ]


def _flags(devices):
    kept = [f for f in os.environ["XLA_FLAGS"].split() if "device_count" not in f]
    return " ".join([*kept, f"--xla_force_host_platform_device_count={devices}"])


def _losses(directory):
    return [row["loss"] for row in records.read(directory) if "loss" in row]


def _params(directory, step=None):
    return jax.device_get(workdir.load(directory, "raw", step).variables)


def _until(happened, launch):
    begun = time.monotonic()
    while not happened():
        assert time.monotonic() - begun < PATIENCE_SECONDS, launch.messages()
        assert commands.code(launch.processes[0]) is None, launch.messages()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A run of two processes with four devices each, longer than the others."""
    directory = tmp_path_factory.mktemp("processes") / "two"
    longer = {"train.num_steps": STEPS, "checkpoint.keep_last": STEPS}
    launch = Launch(directory, count=2, devices=4, **longer)
    assert launch.wait() == [0, 0], launch.messages()
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_the_losses_do_not_depend_on_how_the_work_is_shared(shared, tmp_path, devices):
    alone = tmp_path / "alone"
    launch = Launch(alone, devices=devices)
    assert launch.wait() == [0], launch.messages()
    assert len(_losses(alone)) == 3
    np.testing.assert_allclose(_losses(alone), _losses(shared)[:3], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), _params(alone), _params(shared, 3)
    )


@pytest.fixture(scope="module")
def with_prior(shared):
    launch = Launch(shared, count=2, devices=4, mode="train_prior")
    assert launch.wait() == [0, 0], launch.messages()
    return shared


@pytest.mark.slow
def test_evaluation_is_shared_and_written_once(with_prior):
    """All suites, the images they draw among them."""
    found, results = {}, with_prior / "results.json"
    for count, devices in ((2, 2), (1, 1)):
        suites = {"eval.suite": "all"}
        launch = Launch(with_prior, count=count, devices=devices, mode="evaluate", **suites)
        assert launch.wait() == [0] * count, launch.messages()
        found[count] = {
            (entry["suite"], name): score["value"]
            for entry in json.loads(results.read_text())["results"].values()
            for name, score in entry["scores"].items()
        }
        results.unlink()  # all of it is measured again
        shutil.rmtree(with_prior / "evaluation")
    suites = {suite for suite, _ in found[1]}
    assert suites == {"reconstruction", "information", "probe", "generation", "editing"}
    assert found[1].keys() == found[2].keys()
    for name, value in found[1].items():
        if value is None:  # of so few images
            assert found[2][name] is None, name
        else:
            close = LEARNED if name[0] in ("probe", "generation", "editing") else EXACT
            assert found[2][name] == pytest.approx(value, **close), name
    assert found[1]["generation", "confidence"] and found[1]["editing", "target_following"]
    assert (with_prior / "trajectory.png").is_file()


@pytest.mark.slow
def test_samples_are_shared_and_written_once(with_prior, tmp_path):
    drawn = {}
    for count, devices in ((2, 2), (1, 1)):
        out = tmp_path / str(count)
        more = ("--num=11", f"--out={out}")
        launch = Launch(with_prior, *more, count=count, devices=devices, mode="sample")
        assert launch.wait() == [0] * count, launch.messages()
        drawn[count] = np.concatenate(list(sample_files.batches(out, 11))).astype(int)
        assert len(list(out.glob("*.png"))) == 12 and not list(out.glob("*.tmp"))
    assert np.abs(drawn[1] - drawn[2]).max() <= 1 and drawn[1].std() > 1


@pytest.mark.slow
def test_a_distillation_is_shared_and_keeps_the_prior(with_prior, tmp_path):
    for count, devices in ((2, 2), (1, 1)):
        directory = tmp_path / str(count)
        launch = Launch(
            *(directory, f"--teacher={with_prior}"),
            **{"count": count, "devices": devices, "mode": "distill"},
            **{"distill.num_steps": 3, "distill.batch_size": 8, "distill.stages": 2},
        )
        assert launch.wait() == [0] * count, launch.messages()
        assert checkpoint.steps(directory / "prior") == checkpoint.steps(with_prior / "prior")
    shared, alone = tmp_path / "2", tmp_path / "1"
    assert len(_losses(alone)) == 3
    np.testing.assert_allclose(_losses(shared), _losses(alone), rtol=1e-3)
    same = jax.tree.map(np.array_equal, _params(shared)["params"], _params(alone)["params"])
    assert all(jax.tree.leaves([same["encoder"], same["decoder"]]))


def test_what_the_writer_sees_holds_for_all(monkeypatch):
    """The others get the writer's list, whatever they would find themselves."""
    assert processes.from_writer(lambda: [1, None, "two"]) == [1, None, "two"]
    sent = []

    def broadcast(value):  # as of process 0
        sent.append(np.asarray(value))
        return sent[-1]

    monkeypatch.setattr(processes, "several", lambda: True)
    monkeypatch.setattr(processes.multihost_utils, "broadcast_one_to_all", broadcast)
    found = {"missing": [3, 4], "problem": None}
    assert processes.from_writer(lambda: found) == found
    replies = iter(sent)
    monkeypatch.setattr(processes, "is_writer", lambda: False)
    monkeypatch.setattr(
        processes.multihost_utils, "broadcast_one_to_all", lambda value: next(replies)
    )
    assert processes.from_writer(lambda: pytest.fail("looked")) == found


def test_an_error_of_the_writer_ends_all(monkeypatch):
    sent = []

    def broadcast(value):  # as of process 0
        sent.append(np.asarray(value))
        return sent[-1]

    def full():
        raise OSError(errno.ENOSPC, "No space left on device", "run/.lock")

    monkeypatch.setattr(processes, "several", lambda: True)
    monkeypatch.setattr(processes.multihost_utils, "broadcast_one_to_all", broadcast)
    with pytest.raises(OSError, match="No space left"):
        processes.from_writer(full)
    replies = iter(sent)
    monkeypatch.setattr(processes, "is_writer", lambda: False)
    monkeypatch.setattr(
        processes.multihost_utils, "broadcast_one_to_all", lambda value: next(replies)
    )
    with pytest.raises(DBAEError, match=r"because process 0 had an error \(OSError: .*No space"):
        processes.from_writer(full)


@pytest.mark.slow
def test_a_lost_process_stops_the_other_and_the_restart_goes_on(shared, tmp_path):
    directory = tmp_path / "run"
    often = {"checkpoint.every_steps": 1, "train.num_steps": 10_000}
    to_end = {"checkpoint.every_steps": STEPS, "train.num_steps": STEPS}
    launch = Launch(directory, count=2, devices=4, **often)
    # A loss of a step says nothing about its checkpoint, which is written while training goes on.
    _until(lambda: checkpoint.steps(directory), launch)
    launch.processes[1].kill()
    code, _ = launch.wait()
    # Whoever sees it first says so: the step that waits for the other, or jax's own watch.
    words = {76: "error: Process 0 of 2 stops: ", -signal.SIGABRT: "another task died"}
    assert words[code] in launch.messages()

    reached = checkpoint.steps(directory)[-1]
    assert reached < STEPS
    again = Launch(directory, count=2, devices=4, **to_end)
    assert again.wait() == [0, 0], again.messages()
    assert f"Resuming from step {reached}" in again.messages()
    assert _losses(directory) == _losses(shared)
    jax.tree.map(np.testing.assert_array_equal, _params(directory), _params(shared))


@pytest.mark.slow
def test_sigterm_saves_at_the_next_step_and_other_devices_go_on(shared, tmp_path):
    """In interpreters of their own, which no test has prepared."""
    directory = tmp_path / "run"
    rarely = {"checkpoint.every_steps": 5_000, "train.num_steps": 10_000}
    launch = Launch(directory, cold=True, **rarely)
    _until(lambda: len(_losses(directory)) >= 2, launch)
    launch.processes[0].terminate()
    assert launch.wait() == [75]
    (reached,) = checkpoint.steps(directory)
    assert reached == len(_losses(directory)) >= 2
    assert f"stopped by a SIGTERM or Ctrl-C; step {reached} of 10000 is saved" in launch.messages()

    again = Launch(directory, cold=True, devices=8, **rarely | {"train.num_steps": reached + 2})
    assert again.wait() == [0], again.messages()
    assert f"Resuming from step {reached}" in again.messages()
    losses = _losses(directory)
    assert len(losses) == reached + 2
    both = min(len(losses), STEPS)
    np.testing.assert_allclose(losses[:both], _losses(shared)[:both], rtol=1e-3)


DEVICES = """
import sys, jax
from dbae_jax.runtime import processes
processes.start(device_per_core=sys.argv[1] == "per core")
print(jax.device_count())
"""
BY_FLAG = {"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}


@pytest.mark.parametrize(
    ("asked", "environment", "count"),
    [
        ("one", {}, 1),
        ("per core", {}, min(host.cores(), processes.MOST_CPU_DEVICES)),
        ("per core", {"JAX_NUM_CPU_DEVICES": "3"}, 3),
        ("per core", BY_FLAG, 5),
        ("per core", {"SLURM_NTASKS": "2"}, 1),  # without the variables by which jax would join
    ],
)
def test_each_core_is_a_device_unless_the_environment_sets_their_number(asked, environment, count):
    inherited = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    environment = inherited | {"XLA_FLAGS": ""} | environment
    done = subprocess.run(
        [sys.executable, "-c", DEVICES, asked], capture_output=True, text=True, env=environment
    )
    assert done.stdout.split() == [str(count)], done.stderr


@pytest.mark.parametrize(
    ("environment", "given", "words"),
    [
        ({}, ("10.0.0.1:1", 2, None), "go together"),
        ({"JAX_PROCESS_ID": "1"}, (), "go together"),
        ({"JAX_NUM_PROCESSES": "two"}, (), "whole numbers"),
        ({}, ("127.0.0.1:1", 2, 5), "cannot find each other"),
        ({}, ("127.0.0.1", 2, 0), "must be HOST:PORT"),
    ],
)
def test_wrong_places_are_refused(environment, given, words, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words):
        processes.start(*given)


GLOO = "UNKNOWN: Gloo all-reduce failed: Connection closed by peer"
FULL = "RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"


@pytest.mark.parametrize(
    ("message", "count", "kind"),
    [
        (GLOO, 2, LostProcessError),
        (GLOO, 1, ValueError),
        (FULL, 2, DeviceMemoryError),
        (FULL, 1, DeviceMemoryError),
        ("INVALID_ARGUMENT: a bug", 2, ValueError),
    ],
)
def test_errors_of_the_runtime_are_told_apart(message, count, kind, monkeypatch):
    monkeypatch.setattr(processes, "several", lambda: count > 1)
    with pytest.raises(ValueError) as caught, failures.explaining():
        try:
            raise ValueError(message)
        except ValueError as error:
            raise ValueError("orbax gives up") from error
    assert type(caught.value) is kind


@pytest.mark.slow
def test_a_process_lost_while_loading_leaves_the_checkpoint_alone(shared, monkeypatch):
    step = checkpoint.steps(shared)[-1]

    def restore(*args, **kwargs):
        raise ValueError(GLOO)

    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "restore", restore)
    with pytest.raises(CheckpointError, match="unreadable"):
        checkpoint.read_meta(shared, step)
    monkeypatch.setattr(processes, "several", lambda: True)
    with pytest.raises(ValueError, match="Gloo") as caught:
        checkpoint.read_meta(shared, step)
    assert type(caught.value) is ValueError


@pytest.mark.slow
def test_processes_that_find_other_checkpoints_are_refused(shared, monkeypatch):
    monkeypatch.setattr(processes, "agree", lambda step: step != checkpoint.steps(shared)[-1])
    with pytest.raises(CheckpointError, match="do not find the same checkpoints"):
        workdir.load(shared)
