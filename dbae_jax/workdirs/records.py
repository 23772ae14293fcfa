"""Records of a run: metrics.jsonl, and the experiment trackers of its config."""

import contextlib
import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Self

from dbae_jax.configuration.config import Config
from dbae_jax.runtime import files, processes
from dbae_jax.workdirs import trackers
from dbae_jax.workdirs.workdir import METRICS

log = logging.getLogger(__name__)


def read(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl, oldest first.

    Lines that are no rows are left out with a warning: a run that was killed may leave an
    incomplete line, and a disk that was full may leave anything.
    """
    path = workdir / METRICS
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [row for row in map(_row, lines) if row is not None]
    if len(rows) < len(lines):
        log.warning(
            "%d of the %d lines of %s cannot be read; they are left out.",
            *(len(lines) - len(rows), len(lines), path),
        )
    return rows


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


class Writer:
    """Appends rows to metrics.jsonl, and sends them to trackers; a context manager.

    Only process 0 of a run does this.
    """

    def __init__(self, workdir: pathlib.Path, config: Config, *, start_step: int):
        """Opens the records of a run.

        Args:
          workdir: folder of the run.
          config: config of the run, whose trackers get the rows too.
          start_step: step that the run starts or resumes from. Rows after this step are removed,
            since the resumed run writes them again.
        """
        kept = [row for row in read(workdir) if row["step"] <= start_step]
        path = workdir / METRICS
        files.write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        writes = processes.is_writer()
        self._file = (path if writes else pathlib.Path(os.devnull)).open("a")
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(self._file)
        self._trackers = self._stack.enter_context(trackers.opened(config, workdir, start_step))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one row."""
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        self._file.flush()
        for tracker in self._trackers:
            tracker.write(step, scalars)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
