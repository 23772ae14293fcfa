"""Pictures of a model and of its training, as PNG files."""

import pathlib

import numpy as np
from matplotlib.figure import Figure

from dbae_jax.api import DBAE
from dbae_jax.config import SampleConfig
from dbae_jax.evaluators import reconstruction
from dbae_jax.evaluators.reconstruction import noise_seed
from dbae_jax.images import save_grid, to_float


def reconstructions(
    path: pathlib.Path, model: DBAE, images: np.ndarray, sample: SampleConfig
) -> None:
    """Writes three rows: inputs, endpoints x_T, reconstructions."""
    save_grid(path, reconstruction.picture_rows(model, images, sample))


def interpolation(
    path: pathlib.Path,
    model: DBAE,
    images: np.ndarray,
    labels: np.ndarray | None,
    sample: SampleConfig,
    *,
    pairs: int = 6,
    points: int = 9,
) -> None:
    """Writes a row a pair: a real image, decodings of codes on the line between, a real image.

    The ends of a pair are of different classes where labels are known.
    """
    z, rows = model.encode(images), []
    real = np.asarray(to_float(images))
    for first, second in _different(labels, len(images), pairs):
        weights = np.linspace(0, 1, points, dtype=np.float32)[:, None]
        line = (1 - weights) * z[first] + weights * z[second]
        decoded = model.decode(line, rng=noise_seed(sample), **vars(sample))
        rows.append(np.concatenate([real[[first]], decoded, real[[second]]]))
    save_grid(path, rows)


def trajectory(
    path: pathlib.Path, model: DBAE, images: np.ndarray, sample: SampleConfig, *, columns: int = 9
) -> None:
    """Writes a row an image: states from x_T (left) to the reconstruction (right)."""
    walked = model.trajectory(model.encode(images), rng=noise_seed(sample), **vars(sample)).path
    at = np.linspace(0, len(walked) - 1, min(columns, len(walked))).round().astype(int)
    save_grid(path, list(np.moveaxis(walked[at], 1, 0)))


def loss_curve(path: pathlib.Path, rows: list[dict]) -> None:
    """Writes loss (and held-out loss) against steps, from the rows of metrics.jsonl."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, label in (("loss", "training"), ("eval_loss", "held out, averaged weights")):
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=120)


def _different(labels: np.ndarray | None, count: int, pairs: int) -> list[tuple[int, int]]:
    if labels is None:
        return [(i, i + 1) for i in range(0, min(2 * pairs, count - 1), 2)]
    chosen, used = [], set()
    for first in range(count):
        for second in range(first + 1, count):
            if labels[first] != labels[second] and not used & {first, second}:
                chosen.append((first, second))
                used |= {first, second}
                break
    return chosen[:pairs]
