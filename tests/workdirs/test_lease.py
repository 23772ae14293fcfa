"""The lock of a workdir in a bucket. It needs no bucket: a folder has the same methods."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

import pytest

from dbae_jax.runtime.buckets import lease

ABOUT = {"host": "here", "command": ["dbae", "train"], "since": "today"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Seconds of silence become milliseconds; nobody renews a sign unless a test does."""
    monkeypatch.setattr(lease, "BEAT", 600)
    monkeypatch.setattr(lease, "SILENCE", 0.03)


@pytest.fixture
def stack():
    with contextlib.ExitStack() as opened:
        yield opened


def _take(folder, stack):
    return lease.acquire(folder, ABOUT, stack)


def _leave(folder, **about):
    """Leaves the lock of another process."""
    (folder / ".lock-other").write_text(json.dumps(ABOUT | about))
    (folder / ".alive-other").write_text("1")


def _write_whole(path, text):
    """Writes as a bucket does: nobody sees an object that is there and has no content yet."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent.parent, delete=False) as part:
        part.write(text)
    os.replace(part.name, path)


def test_one_holder_at_a_time_and_nothing_is_left(tmp_path, stack):
    assert _take(tmp_path, stack) == ""
    holder = json.loads(_take(tmp_path, stack))
    assert holder["process"] == os.getpid() and holder["host"] == "here"
    stack.close()
    assert list(tmp_path.iterdir()) == []
    assert _take(tmp_path, stack) == ""


def test_the_lock_of_a_process_of_this_machine_that_has_ended_is_taken_at_once(
    tmp_path, stack, monkeypatch
):
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: pytest.fail("waited"))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    started = lease._started(ended.pid)
    _leave(tmp_path, machine=lease._machine(), process=ended.pid, started=started)
    ended.wait()
    assert _take(tmp_path, stack) == ""
    assert not (tmp_path / ".lock-other").exists() and not (tmp_path / ".alive-other").exists()


def test_a_process_that_has_not_been_waited_for_has_ended():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert lease._started(ended.pid) is None
    ended.wait()


def test_a_number_that_a_later_process_got_is_no_obstacle(tmp_path, stack):
    _leave(tmp_path, machine=lease._machine(), process=os.getpid(), started="1")
    assert _take(tmp_path, stack) == ""


def test_the_lock_of_a_silent_process_elsewhere_is_taken_over(tmp_path, stack):
    _leave(tmp_path, machine="another", process=1, started="1")
    assert _take(tmp_path, stack) == ""


def test_a_process_elsewhere_that_shows_signs_of_life_keeps_its_lock(tmp_path, stack, monkeypatch):
    _leave(tmp_path, machine="another", process=7, started="1")
    sign = tmp_path / ".alive-other"
    monkeypatch.setattr(
        lease.time, "sleep", lambda seconds: sign.write_text(sign.read_text() + "1")
    )
    assert json.loads(_take(tmp_path, stack))["process"] == 7
    assert (tmp_path / ".lock-other").exists() and len(list(tmp_path.iterdir())) == 2


def test_a_holder_that_wakes_up_at_the_last_moment_is_seen(tmp_path, stack, monkeypatch):
    """It renews its sign between the last look at it and the removal of its claim."""
    _leave(tmp_path, machine="another", process=7, started="1")
    sign, renewed = tmp_path / ".alive-other", lease._is_renewed

    def watch(*args):
        found = renewed(*args)
        sign.write_text("2")
        return found

    monkeypatch.setattr(lease, "_is_renewed", watch)
    assert json.loads(_take(tmp_path, stack))["process"] == 7
    assert not list(tmp_path.glob(".lock-*"))  # so that the other one sees that it has lost it


def test_a_holder_whose_lock_was_taken_over_ends(tmp_path, stack, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.01)
    lost = threading.Event()
    monkeypatch.setattr(lease, "_give_up", lambda folder: lost.set())
    assert _take(tmp_path, stack) == ""
    (claim,) = tmp_path.glob(".lock-*")
    claim.unlink()
    assert lost.wait(60)


def test_a_rival_that_claims_the_lock_at_the_same_moment_is_seen(tmp_path, stack, monkeypatch):
    """It comes after the first look at the folder and before this process has put its claim."""
    own = lease._process()

    def process():
        _leave(tmp_path, **own)
        return own

    monkeypatch.setattr(lease, "_process", process)
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: None)
    assert json.loads(_take(tmp_path, stack))["process"] == os.getpid()
    assert {path.name for path in tmp_path.iterdir()} == {".lock-other", ".alive-other"}


def test_of_many_that_start_at_once_at_most_one_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(pathlib.Path, "write_text", _write_whole)
    monkeypatch.setattr(lease, "ATTEMPTS", 1)
    stacks = [contextlib.ExitStack() for _ in range(8)]
    barrier, answers = threading.Barrier(len(stacks)), []

    def start(stack):
        barrier.wait()
        answers.append(_take(tmp_path, stack))

    threads = [threading.Thread(target=start, args=(stack,)) for stack in stacks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == len(stacks) and answers.count("") <= 1
    for stack in stacks:
        stack.close()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_claim_is_watched_as_one_of_elsewhere(tmp_path, stack, monkeypatch):
    (tmp_path / ".lock-other").write_text("")
    sign = tmp_path / ".alive-other"
    sign.write_text("1")
    with monkeypatch.context() as patch:
        patch.setattr(lease.time, "sleep", lambda seconds: sign.write_text("2"))
        assert _take(tmp_path, stack) == "{}"
    assert _take(tmp_path, stack) == ""
