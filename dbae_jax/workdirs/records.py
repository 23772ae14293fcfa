"""Records of a run: metrics.jsonl, and the experiment trackers of its config."""

import contextlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Self

from dbae_jax.configuration.config import Config
from dbae_jax.runtime import files, processes
from dbae_jax.workdirs import trackers
from dbae_jax.workdirs.workdir import METRICS


def read(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl, oldest first.

    A run that was killed may leave an incomplete line; it is left out.
    """
    path = workdir / METRICS
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


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
