"""A bug ends in a traceback and leaves a file for its report; errors of the user do not."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

PROGRAM = """
import errno
import logging
import os

from absl import flags

from dbae_jax.configuration import command_line
from dbae_jax.errors import ConfigError
from dbae_jax.runtime import processes

ENDS = {
    "user": lambda: ConfigError("config.seed=-1 is not allowed: it must be 0 or more."),
    "disk": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/runs/results.json"),
    "ctrl-c": lambda: KeyboardInterrupt("run the same command again to resume"),
    "bug": lambda: KeyError("missing"),
}
END = flags.DEFINE_enum("end", "bug", [*ENDS, "device"], "How the program ends.")


def main(argv):
    logging.getLogger("dbae_jax").info("The last thing that worked.")
    if END.value == "device":
        processes.check_devices()
    raise ENDS[END.value]()


command_line.run(main)
"""


def _run(tmp_path, *flags, **changed):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)} | changed
    command = [sys.executable, str(program), *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_bug_leaves_a_file_for_its_report(tmp_path):
    done = _run(tmp_path)
    assert done.returncode == 1 and "KeyError: 'missing'" in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: this is a bug of dbae_jax. Please open an issue")
    path = pathlib.Path(re.search(r"the file (\S+);", last)[1])
    assert path.parent == tmp_path
    text = path.read_text()
    for part in ("command: ", "program.py", "dbae_jax ", "jaxlib ", "Traceback", "KeyError"):
        assert part in text
    assert text.rstrip().endswith("The last thing that worked.")


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("user", 2, "error: config.seed=-1 is not allowed: it must be 0 or more."),
        ("disk", 2, "error: /runs/results.json cannot be read or written: No space left on device"),
        ("ctrl-c", 130, "error: interrupted; run the same command again to resume."),
        ("device", 2, "error: JAX_PLATFORMS=cuda asks for devices that JAX cannot use here"),
    ],
)
def test_what_is_no_bug_ends_every_command_with_a_sentence(tmp_path, end, code, said):
    done = _run(tmp_path, f"--end={end}", JAX_PLATFORMS="cuda" if end == "device" else "cpu")
    assert done.returncode == code and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(said)
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]
