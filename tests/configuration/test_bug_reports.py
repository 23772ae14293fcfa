"""A bug ends in a traceback and leaves a file for its report; errors of the user do not."""

import os
import pathlib
import re
import subprocess
import sys

from tests.helpers.paths import ROOT

PROGRAM = """
import logging
import sys

from dbae_jax.configuration import command_line
from dbae_jax.errors import ConfigError


def main(argv):
    logging.getLogger("dbae_jax").info("The last thing that worked.")
    if sys.argv[-1] == "--nowrong":
        raise ConfigError("config.seed=-1 is not allowed: it must be 0 or more.")
    {}["missing"]


from absl import flags

flags.DEFINE_bool("wrong", True, "Whether the program has a bug.")
command_line.run(main)
"""


def _run(tmp_path, *flags):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
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


def test_an_error_of_the_user_leaves_none(tmp_path):
    done = _run(tmp_path, "--nowrong")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]
