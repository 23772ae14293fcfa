"""The lock of a workdir: one holder at a time, which goes away with its process."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from dbae_jax.errors import WorkdirInUseError
from dbae_jax.workdirs import lock
from tests.helpers.paths import ROOT

HOLD = """
import pathlib, sys, time
from dbae_jax.workdirs import lock
with lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_holder_is_refused_and_told_about_the_first(tmp_path):
    with lock.held(tmp_path):
        words = rf"is in use: process {os.getpid()} on host .* since 20.*another --workdir"
        with pytest.raises(WorkdirInUseError, match=words), lock.held(tmp_path):
            pass
        assert (tmp_path / lock.FILE).exists()  # the refused one has not removed it
    with lock.held(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_that_stays_empty_is_removed(tmp_path):
    with lock.held(tmp_path / "runs" / "a"):
        pass
    assert list(tmp_path.iterdir()) == []
    with lock.held(tmp_path / "b"):
        (tmp_path / "b" / "config.json").touch()
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["config.json"]


def test_a_folder_that_the_last_holder_removes_is_made_again(tmp_path, monkeypatch):
    made, mkdir = [], pathlib.Path.mkdir

    def removed_once(self, *args, **how):
        mkdir(self, *args, **how)
        if not made:
            made.append(self)
            self.rmdir()

    monkeypatch.setattr(pathlib.Path, "mkdir", removed_once)
    with lock.held(tmp_path / "run"):
        assert (tmp_path / "run" / lock.FILE).exists()
    assert made == [tmp_path / "run"]


def test_the_lock_goes_away_with_a_killed_process(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout.readline() == b"held\n"
    words = f"process {process.pid} on host"
    with pytest.raises(WorkdirInUseError, match=words), lock.held(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with lock.held(tmp_path):
        pass


def test_a_file_system_without_locks_gets_a_warning(tmp_path, monkeypatch, caplog):
    def flock(file, operation):
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with lock.held(tmp_path):
        pass
    assert "has no locks" in caplog.text


def test_a_damaged_lock_file_is_no_obstacle_to_its_message(tmp_path):
    with lock.held(tmp_path):
        (tmp_path / lock.FILE).write_text("{")
        with (
            pytest.raises(WorkdirInUseError, match="another process holds its lock"),
            lock.held(tmp_path),
        ):
            pass
