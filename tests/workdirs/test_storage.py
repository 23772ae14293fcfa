"""A file system that refuses a checkpoint: one sentence, nothing half-written, and a later resume.

A limit on the size of files stands for a full disk, which needs the right to mount;
tests/campaigns/full_disk.py has that.
"""

import os
import shlex
import subprocess
import sys

from dbae_jax.workdirs import checkpoint, records
from tests.helpers.paths import ROOT

CONFIG = """
from tests.helpers import tiny

get_config = tiny.config_dict
"""


def _train(limit, folder):
    words = [sys.executable, "-m", "dbae_jax", "train", f"--config={folder / 'tiny_run.py'}"]
    words += [f"--workdir={folder / 'run'}"]
    command = f"ulimit -f {limit}; exec {shlex.join(words)}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=300
    )


def test_a_checkpoint_that_cannot_be_written_ends_the_run_with_a_sentence(tmp_path):
    (tmp_path / "tiny_run.py").write_text(CONFIG)
    refused = _train("100", tmp_path)  # KiB; the weights need more
    assert refused.returncode == 2, refused.stderr
    last = refused.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and "File too large" in last and "ulimit -f" in last
    assert "Traceback" not in refused.stderr
    run = tmp_path / "run"
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "config.json",
        "metrics.jsonl",
    ]
    assert list((run / "checkpoints").iterdir()) == []
    again = _train("unlimited", tmp_path)
    assert again.returncode == 0, again.stderr
    assert checkpoint.steps(run)[-1] == 4
    assert [row["step"] for row in records.read(run)] == [1, 2, 3, 4]
