"""Records of a run: metrics.jsonl, and TensorBoard files too if TensorFlow is installed."""

import importlib.util
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Self

from dbae_jax.runtime import files, processes
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
    """Appends rows to metrics.jsonl; a context manager.

    Only process 0 of a run does this.
    """

    def __init__(self, workdir: pathlib.Path, *, start_step: int):
        """Opens the records of a run.

        Args:
          workdir: folder of the run.
          start_step: step that the run starts or resumes from. Rows after this step are removed,
            since the resumed run writes them again.
        """
        kept = [row for row in read(workdir) if row["step"] <= start_step]
        path = workdir / METRICS
        files.write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        writes = processes.is_writer()
        self._file = (path if writes else pathlib.Path(os.devnull)).open("a")
        self._board = _tensorboard(workdir) if writes else None

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one row."""
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        self._file.flush()
        if self._board:
            self._board.write_scalars(step, dict(scalars))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._board:
            self._board.close()


def _tensorboard(workdir: pathlib.Path) -> Any:
    """Returns a writer of TensorBoard files, or None without TensorFlow."""
    if importlib.util.find_spec("tensorflow") is None:
        return None
    from clu import metric_writers  # imports TensorFlow, which is optional

    return metric_writers.SummaryWriter(str(workdir))
