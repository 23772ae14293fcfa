"""The short digest of an evaluation: summary.json, and what is said when it ends."""

import logging
import pathlib
from typing import Any

import numpy as np

from dbae_jax import files, summaries

FILE = "summary.json"

# Keys of the digest -> (suite, score) that they are the values of.
VALUES = {
    "test_mse": ("reconstruction", "mse"),
    "pca_mse": ("reconstruction", "pca_mse"),
    "probe_accuracy": ("probe", "logistic_accuracy"),
    "information_bound_nats": ("information", "information_bound_nats"),
    "unexplained_bits_per_dim": ("information", "unexplained_bits_per_dim"),
}

log = logging.getLogger(__name__)


def training_record(directory: pathlib.Path) -> dict[str, float | None]:
    """Returns train_seconds and images_per_second (median); None for a model not trained here."""
    rows = [row for row in summaries.read(directory) if "images_per_second" in row]
    if not rows:
        return {"train_seconds": None, "images_per_second": None}
    return {
        "train_seconds": rows[-1]["train_seconds"],
        "images_per_second": float(np.median([row["images_per_second"] for row in rows])),
    }


def summary(model: dict[str, Any], entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the digest of what was measured on one data set.

    Args:
      model: the block "model" of results.json.
      entries: suite -> its entry; those that were never measured are absent.

    Returns:
      latent_dim, num_steps, train_seconds, images_per_second; and of the suites that are there:
      test_mse and pca_mse (pixels in [0, 1]; pca_mse is None where the splits share images),
      test_images, nfe, sampler; probe_accuracy (None without labels); the information bound with
      its standard errors.
    """
    found: dict[str, Any] = {
        "latent_dim": model["latent_dim"],
        "num_steps": model["step"],
        **{key: model[key] for key in ("train_seconds", "images_per_second")},
    }
    if "reconstruction" in entries:
        entry = entries["reconstruction"]
        found["test_images"] = entry["counts"]["test"]
        found |= {key: entry["settings"][key] for key in ("nfe", "sampler")}
    found["probe_accuracy"] = None
    for key, (suite, name) in VALUES.items():
        if suite in entries and name in entries[suite]["scores"]:
            found[key] = entries[suite]["scores"][name]["value"]
            details = entries[suite]["scores"][name]["details"]
            if "standard_error" in details:
                found[f"{key}_se"] = details["standard_error"]
    return found


def write(directory: pathlib.Path, found: dict[str, Any]) -> None:
    """Writes summary.json."""
    files.write_json(directory / FILE, found)


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
