"""The tables that an evaluation logs when it ends, and the training record of results.json."""

import logging
import pathlib
from typing import Any

import numpy as np

from dbae_jax.evaluation import results
from dbae_jax.workdirs import records

log = logging.getLogger(__name__)


def training_record(directory: pathlib.Path) -> dict[str, float | None]:
    """Returns train_seconds and the median of images_per_second.

    Both are None if the workdir has no record of a training.
    """
    rows = [row for row in records.read(directory) if "images_per_second" in row]
    if not rows:
        return {"train_seconds": None, "images_per_second": None}
    return {
        "train_seconds": rows[-1]["train_seconds"],
        "images_per_second": float(np.median([row["images_per_second"] for row in rows])),
    }


def report(entries: dict[str, dict[str, Any]]) -> None:
    """Logs one table per suite, and how the reconstruction error compares with that of PCA.

    Args:
      entries: suite -> its entry in results.json.
    """
    for suite, entry in entries.items():
        log.info("%s", table(suite, entry))
    if "reconstruction" in entries:
        scores = entries["reconstruction"]["scores"]
        ours, pca = (scores[name]["value"] for name in ("mse", "pca_mse"))
        if ours is not None and pca:  # without a PCA error above 0 there is no ratio
            change = ours / pca - 1
            log.info(
                "The model has %.0f%% %s reconstruction MSE than PCA with as many components.",
                *(100 * abs(change), "lower" if change < 0 else "higher"),
            )


def table(suite: str, entry: dict[str, Any]) -> str:
    """Returns the scores of a suite as lines with aligned names and values.

    An arrow says whether a higher or a lower value is better. The number after +- is the standard
    deviation over seeds, the standard error over images, or for kernel distances the standard
    deviation over random subsets.
    """
    counts = ", ".join(f"{count} {split}" for split, count in entry["counts"].items())
    width = max(map(len, entry["scores"]), default=0)
    rows = [
        f"  {results.ARROWS[score['better']]} {name:<{width}}  {_shown(score)}"
        for name, score in entry["scores"].items()
    ]
    return "\n".join([f"{suite} on {entry['data']} ({counts} images):", *rows])


def _shown(score: dict[str, Any]) -> str:
    """Returns "value" or "value +- std"; the reason where a score has no value."""
    if score["value"] is None:
        return f"undefined: {score['details']['reason']}"
    known = results.spread(score)
    return f"{score['value']:.4g}" + ("" if known is None else f" +- {known:.2g}")
