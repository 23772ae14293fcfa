"""A training that is interrupted or suspended.

The first Ctrl-C saves a checkpoint, and the second ends the process.
"""

import subprocess
import sys

import jax
import pytest

from dbae_jax.runtime import processes

PROGRAM = """
import os, signal, time
from jax.experimental import multihost_utils
from dbae_jax.runtime import processes
signal.signal(signal.SIGINT, signal.default_int_handler)
processes.start(save_on_sigterm=True)
os.kill(os.getpid(), signal.SIGINT)
for step in range(600):
    if multihost_utils.reached_preemption_sync_point(step):
        print("save", flush=True)
        break
    time.sleep(0.05)
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)
except KeyboardInterrupt:
    print("stop")
"""
IGNORING = """
import signal
from dbae_jax.runtime import processes
signal.signal(signal.SIGINT, signal.SIG_IGN)
processes.start(save_on_sigterm=True)
print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)
"""


def _run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_the_first_ctrl_c_saves_and_the_second_stops():
    done = _run(PROGRAM)
    assert done.stdout.split() == ["save", "stop"], done.stderr
    assert "Press Ctrl-C again to stop without it." in done.stderr


def test_a_process_that_ignores_ctrl_c_goes_on_to_ignore_it():
    assert _run(IGNORING).stdout.split() == ["True"]


@pytest.mark.parametrize(("cluster", "alone"), [(None, True), ("1", True), ("2", False)])
def test_a_process_that_is_alone_may_be_suspended_for_a_day(monkeypatch, cluster, alone):
    """jax ends a process that misses heartbeats, even if no other process waits for it."""
    calls = []
    in_cluster = cluster is not None
    if in_cluster:
        monkeypatch.setenv("SLURM_NTASKS", cluster)

    def initialize(coordinator, *_, heartbeat_timeout_seconds):
        if coordinator is None and not in_cluster:
            raise ValueError("coordinator_address should be defined.")
        calls.append(heartbeat_timeout_seconds)

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(processes, "_handles_interrupts", lambda: False)
    try:
        processes.start(save_on_sigterm=True)
    finally:
        jax.config.update("jax_enable_preemption_service", False)
    assert len(calls) == 1 and (calls[0] > 24 * 3600) == alone
