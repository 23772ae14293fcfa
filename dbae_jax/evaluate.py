"""Evaluates a trained model: figures to summary.json, pictures beside it."""

import logging
import pathlib
from typing import Any

import numpy as np

from dbae_jax import build, files, sharding, summaries, workdir
from dbae_jax.api import DBAE
from dbae_jax.config import Config, to_dict
from dbae_jax.data.sources import gather
from dbae_jax.evaluators import information, pictures, probe, reconstruction

SUMMARY = "summary.json"

log = logging.getLogger(__name__)


def evaluate(config: Config, directory: pathlib.Path) -> dict[str, Any]:
    """Measures and shows the model of a workdir, with its averaged weights.

    Writes reconstructions.png, interpolation.png, trajectory.png, loss_curve.png,
    loss_by_time.png and summary.json into the workdir.

    Args:
      config: must fit the run's; `sample` and `eval` are followed.
      directory: the workdir.

    Returns:
      The summary: test_mse and pca_mse (pixels in [0, 1]), probe_accuracy (None without labels),
      nfe, train_seconds, images_per_second (None for a model not trained here), latent_dim,
      num_steps, the information bound (see `evaluators.information`), and what they were
      measured with.

    Raises:
      CheckpointError, ConfigError: if the workdir holds no model, or another one.
    """
    mesh = sharding.make_mesh()
    loaded = workdir.load(directory, sharding=sharding.replicated(mesh))
    workdir.check_same_model(directory, to_dict(loaded.config), config)
    model = DBAE(config, loaded.variables, mesh=mesh)
    source, held_out = (build.make_source(config.data, split) for split in ("train", "test"))
    train, train_labels = gather(source, config.eval.num_train_images or None)
    test, labels = gather(held_out, config.eval.num_images or None)

    summary = {
        "test_mse": reconstruction.mse(model, test, config.sample),
        "pca_mse": reconstruction.pca_mse(train, test, config.model.latent_dim),
        "probe_accuracy": None,
        "nfe": model.nfe(**vars(config.sample)),
        **_training_record(directory),
        "latent_dim": config.model.latent_dim,
        "num_steps": loaded.step,
        "test_images": len(test),
        "sampler": vars(config.sample),
    }
    if labels is not None:
        codes = model.encode(train), train_labels, model.encode(test), labels
        summary["probe_accuracy"] = probe.accuracy(*codes)
    measured = information.measure(model, test, points=config.eval.information_points)
    summary |= information.summary(measured)
    pictures.loss_by_time(directory / "loss_by_time.png", measured)
    _paint(config, directory, model, test, labels)
    files.write_json(directory / SUMMARY, summary)
    _report(summary, directory)
    return summary


def _training_record(directory: pathlib.Path) -> dict[str, float | None]:
    rows = [row for row in summaries.read(directory) if "images_per_second" in row]
    if not rows:
        return {"train_seconds": None, "images_per_second": None}
    return {
        "train_seconds": rows[-1]["train_seconds"],
        "images_per_second": float(np.median([row["images_per_second"] for row in rows])),
    }


def _paint(
    config: Config,
    directory: pathlib.Path,
    model: DBAE,
    test: np.ndarray,
    labels: np.ndarray | None,
) -> None:
    shown = test[: config.eval.num_pictures]
    pictures.reconstructions(directory / "reconstructions.png", model, shown, config.sample)
    pictures.trajectories(directory / "trajectory.png", model, shown)
    pairs = slice(0, 4 * config.eval.num_pictures)
    some_labels = None if labels is None else labels[pairs]
    pictures.interpolation(
        directory / "interpolation.png", model, test[pairs], some_labels, config.sample
    )
    pictures.loss_curve(directory / "loss_curve.png", summaries.read(directory))


def _report(summary: dict[str, Any], directory: pathlib.Path) -> None:
    ratio = summary["test_mse"] / summary["pca_mse"]
    log.info(
        "test MSE %.5f at %d evaluations: %.2f of PCA's %.5f with as many components (%d)",
        *(summary["test_mse"], summary["nfe"], ratio, summary["pca_mse"], summary["latent_dim"]),
    )
    if summary["probe_accuracy"] is not None:
        log.info("probe accuracy %.3f", summary["probe_accuracy"])
    log.info(
        "z leaves at most %.3f bits a dimension of 8-bit pixels open (standard error %.3f)",
        *(summary["unexplained_bits_per_dim"], summary["unexplained_bits_per_dim_se"]),
    )
    log.info("pictures and %s are in %s", SUMMARY, directory)
