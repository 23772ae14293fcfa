"""Figures of a model's images and samplers, as PNG files."""

import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dbae_jax.api.dbae import DBAE
from dbae_jax.data.images import grid, save_grid, to_float
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
    plan: dict[str, Any] = {"steps": steps, "grid": "uniform"}
    runs = {
        "ODE": model.trajectory(z, rng=0, sampler="dbim", **plan),
        "SDE": model.trajectory(
            z, rng=0, sampler="dbim", eta=1.0, boot=not model.gaussian_endpoint, **plan
        ),
    }
    at = np.linspace(0, steps, columns).round().astype(int)
    shown = [
        (name, np.concatenate([np.asarray(run.path)[at, i], to_float(images[[i]])]))
        for i in range(len(images))
        for name, run in runs.items()
    ]
    times = [f"t = {runs['ODE'].times[k]:.2g}" for k in at]
    labelled_grid(path, shown, (*times, "image"))


# The samplers of the figure; the table has all of them.
SHOWN = (
    *("dbim", "euler", "heun", "multistep3", "dbim eta=1", "dbim boot", "euler churn=0.33"),
    "consistency",
)
MARKERS = "os^vDPX*"
SHARPNESS = "sharpness error (0: as sharp)"
DPI = 64  # of grids of images; a power of two, so that sizes in pixels are exact


def samplers(path: pathlib.Path, rows: list[dict]) -> None:
    """Writes four plots with a line for each sampler of `SHOWN`.

    Three have MSE, SSIM and sharpness against NFE. The last one has sharpness against MSE, from few
    evaluations to many. Where a sampler was measured on several grids, the line is that of the
    least error. Errors above 20 times the least error, in the last plot 4 times, are outside.

    Args:
      path: the PNG file.
      rows: the rows that `sampler_study.study` returns.
    """
    best: dict[tuple[str, int], dict] = {}
    for row in sorted(rows, key=lambda row: row["mse"], reverse=True):
        best[row["sampler"], row["nfe"]] = row
    lines = {name: [best[key] for key in sorted(best) if key[0] == name] for name in SHOWN}
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    _lines(panels[0], lines, "nfe", "mse")
    _lines(panels[1], lines, "nfe", "ssim")
    _lines(panels[2], lines, "nfe", "sharpness_error")
    _lines(panels[3], lines, "mse", "sharpness_error")
    evaluations = "network evaluations per image"
    for axes, title in zip(panels, ("MSE", "SSIM", SHARPNESS), strict=False):
        axes.set(title=title, xlabel=evaluations)
        axes.xaxis.set_major_formatter("{x:g}")
    panels[3].set(title="sharpness error against MSE", xlabel="MSE", ylabel=SHARPNESS)
    least, most = min(row["mse"] for row in rows), max(row["ssim"] for row in rows)
    panels[0].set_ylim(0.8 * least, 20 * least)
    panels[1].set(yscale="linear", ylim=(most - 0.2, most + 0.01))
    panels[2].set_ylim(top=3)
    panels[3].set(xlim=(0.9 * least, 4 * least), ylim=(None, 3))
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    _save(figure, path, dpi=100)


def _lines(axes: Axes, lines: dict[str, list[dict]], x: str, y: str) -> None:
    for k, (name, rows) in enumerate(lines.items()):
        if rows:
            points = [row[x] for row in rows], [row[y] for row in rows]
            axes.plot(*points, f"C{k}{MARKERS[k]}-", markersize=5, label=name)
    axes.set(xscale="log", yscale="log")
    axes.grid(visible=True, alpha=0.3)


def labelled_grid(
    path: pathlib.Path, rows: list[tuple[str, np.ndarray]], columns: Sequence[str] = ()
) -> None:
    """Writes rows of images with their names on the left, and names of columns at the top.

    Args:
      path: the PNG file.
      rows: names and images [columns, H, W, C] in [-1, 1].
      columns: names of the columns; none: no names.
    """
    names, images = zip(*rows, strict=True)
    pixels = grid(images, scale=max(1, 64 // images[0].shape[1]))
    height, width = pixels.shape[:2]
    left = 8 + 6 * max(len(line) for name in names for line in name.split("\n"))
    top = 20 if columns else 0
    # One pixel of the file for each pixel of the images.
    figure = Figure(figsize=((left + width) / DPI, (top + height) / DPI))
    axes = figure.add_axes(
        (left / (left + width), 0, width / (left + width), height / (top + height))
    )
    axes.imshow(pixels, interpolation="nearest")
    axes.set_yticks((np.arange(len(rows)) + 0.5) * height / len(rows), names, parse_math=False)
    axes.set_xticks(
        (np.arange(len(columns)) + 0.5) * width / len(images[0]), columns, parse_math=False
    )
    axes.tick_params(length=0, labelsize=10, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    _save(figure, path, dpi=DPI)


def _save(figure: Figure, path: pathlib.Path, *, dpi: int) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    files.write_bytes(path, content.getvalue())
