"""results.json: the results of a workdir's model, with all settings that determine them.

    {"model": {"step": 800, "weights": "ema", ...},
     "results": {"probe/celeba": {"suite": "probe", "data": "celeba", "settings": {...},
                                  "counts": {"train": 162770, ...}, "scores": {...},
                                  "seconds": 12.3}}}

A file describes one model. If the workdir's model has been trained further or has other weights,
the file of the previous weights is kept under another name. An entry with the current settings is
not measured again, so an evaluation that was stopped resumes with the missing suites.
"""

import dataclasses
import json
import logging
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from dbae_jax.errors import DataError
from dbae_jax.runtime import files

FILE = "results.json"

ARROWS = {"higher": "\u2191", "lower": "\u2193", None: " "}  # which values are better

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Measured:
    """The result of a suite.

    Attributes:
      scores: score name -> a dictionary that `score` returns.
      counts: split -> number of images that were used.
    """

    scores: dict[str, dict[str, Any]]
    counts: dict[str, int]


def spread(score: dict[str, Any]) -> float | None:
    """Returns the standard deviation or the standard error of a score, or None if unknown."""
    details = score.get("details", {})
    found = score.get("std", details.get("standard_error", details.get("std")))
    return None if found is None else float(found)


def score(
    values: float | Sequence[float], better: str | None, *, reason: str = "", **details: Any
) -> dict[str, Any]:
    """Returns a score in the form in which results.json holds it.

    Args:
      values: one number, or one per seed or fold. Several numbers are kept together with their
        mean and their sample standard deviation (divided by N - 1).
      better: "higher", "lower", or None if neither is better.
      reason: why a value is undefined. JSON has no number for a value that is not finite.
      **details: further facts that explain the number; None values are left out.
    """
    found = [float(v) for v in values] if isinstance(values, Sequence) else [float(values)]
    details = {name: value for name, value in details.items() if value is not None}
    if not all(math.isfinite(value) for value in found):
        details["reason"] = reason or "not a finite number"
        return {"value": None, "better": better, "details": details}
    mean = math.fsum(found) / len(found)
    more = {}
    if len(found) > 1:
        squares = math.fsum((value - mean) ** 2 for value in found)
        more = {"std": math.sqrt(squares / (len(found) - 1)), "values": found}
    return {"value": mean} | more | {"better": better, "details": details}


def name_of(suite: str, data: str, label: str = "") -> str:
    """Returns the key of an entry: "<suite>/<data>", or "<suite>/<data>:<label>" with a label."""
    return f"{suite}/{data}" + (f":{label}" if label else "")


class Book:
    """The results of one model, in memory and in its workdir's file."""

    def __init__(self, directory: pathlib.Path, model: dict[str, Any]):
        """Reads the entries of this model from the workdir.

        Args:
          directory: the workdir.
          model: the block "model" of results.json for the current weights.

        Raises:
          DataError: if results.json does not have the expected format.
        """
        self._path = directory / FILE
        self.model, self._previous = model, None
        self.entries: dict[str, dict[str, Any]] = {}
        found = read(directory)
        if found is None:
            return
        if is_of(found, model):
            self.entries = found["results"]
        else:
            self._previous = found

    def has(self, key: str, settings: dict[str, Any]) -> bool:
        """Returns whether there is an entry with these settings."""
        return key in self.entries and self.entries[key]["settings"] == as_json(settings)

    def add(
        self,
        suite: str,
        data: str,
        settings: dict[str, Any],
        measured: Measured,
        *,
        seconds: float,
        label: str = "",
    ) -> None:
        """Adds or replaces an entry and writes the file.

        Args:
          suite: name of the suite.
          data: name of the data set.
          settings: all settings that determine the scores.
          measured: the scores and counts.
          seconds: duration of the measurement.
          label: label of the entry; empty for none.
        """
        entry: dict[str, Any] = {"suite": suite, "data": data}
        entry |= {"label": label} if label else {}
        entry |= {"settings": settings, "counts": measured.counts, "scores": measured.scores}
        self.entries[name_of(suite, data, label)] = as_json(entry | {"seconds": round(seconds, 2)})
        self._keep_previous()
        files.write_json(self._path, {"model": self.model, "results": self.entries})

    def _keep_previous(self) -> None:
        if self._previous is None:
            return
        model = self._previous["model"]
        weights = f"_{model['fingerprint']}" if "fingerprint" in model else ""
        path = self._path.with_name(f"results_{model['step']:08d}{weights}.json")
        log.info("The results of the previous weights (step %d) are in %s.", model["step"], path)
        files.write_json(path, self._previous)
        self._previous = None


def is_of(found: dict[str, Any], model: Mapping[str, Any]) -> bool:
    """Returns whether results belong to a model: same step and same weights.

    Args:
      found: content of results.json, see `read`.
      model: a mapping with "step" and "fingerprint".
    """
    return all(found["model"].get(key) == model.get(key) for key in ("step", "fingerprint"))


def read(directory: pathlib.Path) -> dict[str, Any] | None:
    """Returns the content of a workdir's results.json, or None if there is no such file.

    Raises:
      DataError: if the file does not have the expected format.
    """
    path = directory / FILE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["model"]["step"], dict(found["results"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no valid file of results ({type(error).__name__}). Rename or delete it, "
            "and run dbae evaluate again."
        ) from error
    return found


def as_json(values: dict[str, Any]) -> dict[str, Any]:
    """Returns values as a JSON file returns them: tuples become lists, and keys become strings."""
    return json.loads(json.dumps(values, allow_nan=False))
