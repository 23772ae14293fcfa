"""results.json: what was measured of the model of a workdir, with all that determines the numbers.

    {"model": {"step": 800, "weights": "ema", ...},
     "results": {"probe/celeba": {"suite": "probe", "data": "celeba", "settings": {...},
                                  "counts": {"train": 162770, ...}, "scores": {...},
                                  "seconds": 12.3}}}

A file describes one model: when the workdir's model has been trained further, or has other weights,
the file of the former ones is kept under another name. An entry whose settings are those of now is
not measured again; so an evaluation that was killed goes on.
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

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a suite gives. scores: name -> `score`; counts: split -> images really used."""

    scores: dict[str, dict[str, Any]]
    counts: dict[str, int]


def score(
    values: float | Sequence[float], better: str | None, *, reason: str = "", **details: Any
) -> dict[str, Any]:
    """Returns a score as results.json holds it.

    Args:
      values: one number, or those of several seeds or folds, of which mean and standard deviation
        (of a sample: divided by their number less one) are kept as well.
      better: "higher", "lower", or None where neither is better.
      reason: why the value may be undefined; for values that are not finite, which JSON has not.
      details: whatever else one needs to read the number; those that are None are left out.
    """
    several = isinstance(values, Sequence)
    found = [float(value) for value in (values if several else [values])]
    details = {name: value for name, value in details.items() if value is not None}
    if not all(math.isfinite(value) for value in found):
        details["reason"] = reason or "not a finite number"
        return {"value": None, "better": better, "details": details}
    mean = math.fsum(found) / len(found)
    spread = {}
    if len(found) > 1:
        squares = math.fsum((value - mean) ** 2 for value in found)
        spread = {"std": math.sqrt(squares / (len(found) - 1)), "values": found}
    return {"value": mean} | spread | {"better": better, "details": details}


def name_of(suite: str, data: str, label: str = "") -> str:
    """Returns the key of an entry: "<suite>/<data>", with ":<label>" where there is a label."""
    return f"{suite}/{data}" + (f":{label}" if label else "")


class Book:
    """The results of one model, in memory and in its workdir's file."""

    def __init__(self, directory: pathlib.Path, model: dict[str, Any]):
        """Reads what is there of this model; `model`: the block "model" of now.

        Raises:
          DataError: if the file there is not one of ours.
        """
        self._path = directory / FILE
        self.model, self._former = model, None
        self.entries: dict[str, dict[str, Any]] = {}
        there = read(directory)
        if there is None:
            return
        if is_of(there, model):
            self.entries = there["results"]
        else:
            self._former = there

    def has(self, key: str, settings: dict[str, Any]) -> bool:
        """Whether there is an entry with these settings."""
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
        """Puts an entry in, in place of an older one, and writes the file."""
        entry = {"suite": suite, "data": data} | ({"label": label} if label else {})
        entry |= {"settings": settings, "counts": measured.counts, "scores": measured.scores}
        self.entries[name_of(suite, data, label)] = as_json(entry | {"seconds": round(seconds, 2)})
        self._keep_former()
        files.write_json(self._path, {"model": self.model, "results": self.entries})

    def _keep_former(self) -> None:
        if self._former is None:
            return
        model = self._former["model"]
        weights = f"_{model['fingerprint']}" if "fingerprint" in model else ""
        path = self._path.with_name(f"results_{model['step']:08d}{weights}.json")
        log.info("What was measured of other weights, of step %d, is in %s.", model["step"], path)
        files.write_json(path, self._former)
        self._former = None


def is_of(found: dict[str, Any], model: Mapping[str, Any]) -> bool:
    """Whether results are of a model: the same step and the same weights.

    Args:
      found: what `read` gives.
      model: its "step" and "fingerprint".
    """
    return all(found["model"].get(key) == model.get(key) for key in ("step", "fingerprint"))


def read(directory: pathlib.Path) -> dict[str, Any] | None:
    """Returns what results.json of a workdir holds, or None if there is none.

    Raises:
      DataError: if the file is not one of ours.
    """
    path = directory / FILE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["model"]["step"], dict(found["results"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} holds no results of an evaluation ({type(error).__name__}); move it away."
        ) from error
    return found


def as_json(values: dict[str, Any]) -> dict[str, Any]:
    """Returns values as they come back from a file: tuples as lists, keys as text."""
    return json.loads(json.dumps(values, allow_nan=False))
