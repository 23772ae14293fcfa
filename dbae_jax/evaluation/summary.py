"""What an evaluation logs when it ends, and the record of training in results.json."""

import logging
import pathlib
from typing import Any

import numpy as np

from dbae_jax.workdirs import records

log = logging.getLogger(__name__)


def training_record(directory: pathlib.Path) -> dict[str, float | None]:
    """Returns train_seconds and images_per_second (median); None for a model not trained here."""
    rows = [row for row in records.read(directory) if "images_per_second" in row]
    if not rows:
        return {"train_seconds": None, "images_per_second": None}
    return {
        "train_seconds": rows[-1]["train_seconds"],
        "images_per_second": float(np.median([row["images_per_second"] for row in rows])),
    }


def report(entries: dict[str, dict[str, Any]]) -> None:
    """Logs the scores of every suite, a line each."""
    for suite, entry in entries.items():
        scores = ", ".join(f"{name} {_shown(value)}" for name, value in entry["scores"].items())
        log.info("%s of %s (%s): %s", suite, entry["data"], _counted(entry["counts"]), scores)
    if "reconstruction" in entries:
        scores = entries["reconstruction"]["scores"]
        ours, linear = (scores[name]["value"] for name in ("mse", "pca_mse"))
        if ours is not None and linear:  # where PCA has no value, or no error, there is no ratio
            log.info(
                "The reconstruction error is %.2f of PCA's with as many components.", ours / linear
            )


def _shown(value: dict[str, Any]) -> str:
    if value["value"] is None:
        return f"undefined ({value['details']['reason']})"
    return f"{value['value']:.4g}" + (f" (std {value['std']:.2g})" if "std" in value else "")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in counts.items()) + " images"
