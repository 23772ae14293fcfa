"""Figures of a model's images and samplers, as PNG files."""

import io
import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dbae_jax.api.dbae import DBAE
from dbae_jax.data.images import save_grid, to_float, to_uint8
from dbae_jax.evaluation.suites import reconstruction
from dbae_jax.runtime import files
from dbae_jax.sampling.plan import Plan


def reconstructions(path: pathlib.Path, model: DBAE, images: np.ndarray, sample: Plan) -> None:
    """Writes three rows of images: inputs, endpoints x_T, reconstructions.

    Args:
      path: the PNG file.
      model: the model.
      images: uint8 [N, H, W, C].
      sample: the sampler of the reconstructions.
    """
    save_grid(path, reconstruction.picture_rows(model, images, sample))


def trajectories(
    path: pathlib.Path, model: DBAE, images: np.ndarray, *, columns: int = 9, steps: int = 50
) -> None:
    """Writes two rows per image: states of the ODE and of the SDE, from x_T (left) to x_0.

    Both start from the same x_T. The SDE is the Markov bridge (dbim with eta = 1). The last column
    shows the image itself.

    Args:
      path: the PNG file.
      model: the model.
      images: uint8 [N, H, W, C].
      columns: states per row, at evenly spaced steps.
      steps: steps of the samplers.

    Source: DBAE, figure 5.
    """
    z = model.encode(images)
    grid: dict[str, Any] = {"steps": steps, "grid": "uniform"}
    runs = {
        "ODE": model.trajectory(z, rng=0, sampler="dbim", **grid),
        "SDE": model.trajectory(
            z, rng=0, sampler="dbim", eta=1.0, boot=not model.gaussian_endpoint, **grid
        ),
    }
    at = np.linspace(0, steps, columns).round().astype(int)
    figure = Figure(figsize=(columns + 1, 2 * len(images)), layout="compressed")
    axes = figure.subplots(2 * len(images), columns + 1, squeeze=False)
    for i, image in enumerate(images):
        for j, (name, run) in enumerate(runs.items()):
            row = axes[2 * i + j]
            row[0].set_ylabel(name, rotation=0, ha="right", va="center")
            for cell, k in zip(row, at, strict=False):
                title = f"t = {run.times[k]:.2g}" if i + j == 0 else ""
                _show(cell, np.asarray(run.path)[k, i], title)
            _show(row[-1], np.asarray(to_float(image)), "image" if i + j == 0 else "")
    _save(figure, path, dpi=80)


def samplers(path: pathlib.Path, rows: list[dict]) -> None:
    """Writes plots of relative error and SSIM against NFE, one column per time grid.

    The error is divided by that of the baseline. Ratios above 5 are outside the plot.

    Args:
      path: the PNG file.
      rows: the rows that `sampler_study.study` returns.
    """
    grids = list(dict.fromkeys(row["grid"] for row in rows))
    names = list(dict.fromkeys(row["sampler"] for row in rows))
    figure = Figure(figsize=(3 * len(grids), 6), layout="constrained")
    panels = figure.subplots(2, len(grids), sharey="row", sharex=True)
    for j, grid in enumerate(grids):
        for i, value in enumerate(("mse_ratio", "ssim")):
            for k, name in enumerate(names):
                chosen = [row for row in rows if (row["sampler"], row["grid"]) == (name, grid)]
                points = sorted((row["nfe"], row[value]) for row in chosen)
                x, y = zip(*points, strict=True) if points else ((), ())
                panels[i, j].plot(x, y, f"C{k}o-", markersize=3, label=name)
        panels[0, j].axhline(1, color="gray", linewidth=0.8)
        panels[0, j].set(title=grid, ylim=(0.8, 5), yscale="log")
        panels[1, j].set(xlabel="network evaluations", xscale="log", ylim=(0.9, 1))
    panels[0, 0].set_ylabel("MSE / the baseline's")
    panels[1, 0].set_ylabel("SSIM")
    panels[0, -1].legend(fontsize=8)
    _save(figure, path, dpi=100)


def labelled_rows(path: pathlib.Path, rows: dict[str, np.ndarray]) -> None:
    """Writes rows of images, each with its name on the left.

    Args:
      path: the PNG file.
      rows: name -> images [columns, H, W, C] in [-1, 1].
    """
    columns = len(next(iter(rows.values())))
    figure = Figure(figsize=(columns + 2, len(rows)), layout="compressed")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for cells, (name, images) in zip(axes, rows.items(), strict=True):
        cells[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for cell, image in zip(cells, images, strict=True):
            _show(cell, image, "")
    _save(figure, path, dpi=80)


def _save(figure: Figure, path: pathlib.Path, *, dpi: int) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    files.write_bytes(path, content.getvalue())


def _show(cell, image: np.ndarray, title: str) -> None:
    pixels = to_uint8(image)
    cell.imshow(pixels if pixels.shape[-1] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=255)
    cell.set(xticks=[], yticks=[])
    cell.set_title(title, fontsize=8)
