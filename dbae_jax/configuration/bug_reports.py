"""Files about bugs of this package: the traceback, the command, versions and the last log lines."""

import collections
import logging
import pathlib
import platform
import shlex
import sys
import tempfile
import traceback
from importlib import metadata

import dbae_jax

KEPT_LINES = 200  # lines of the log


class LastLines(logging.Handler):
    """Keeps the last lines of the log in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the line of a record."""
        self.lines.append(self.format(record))


def write(error: BaseException, last: LastLines) -> pathlib.Path:
    """Writes a file about an error into the folder of temporary files.

    Args:
      error: the error, with its traceback.
      last: the last lines of the log.
    """
    versions = [f"dbae_jax {dbae_jax.__version__}", f"Python {platform.python_version()}"]
    versions += [f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib", "flax")]
    parts = [
        f"command: {shlex.join(sys.argv)}",
        f"versions: {', '.join(versions)}; {platform.platform()}",
        "",
        *traceback.format_exception(error),
        "",
        "last lines of the log:",
        *last.lines,
    ]
    with tempfile.NamedTemporaryFile(
        "w", prefix="dbae_jax_bug_", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write("\n".join(part.rstrip("\n") for part in parts) + "\n")
    return pathlib.Path(file.name)
