"""Compares samplers and time grids on trained models: error, similarity and time against NFE.

python -m dbae_jax.sampler_study --workdirs=runs/digits,runs/digits-1 --output=docs

writes samplers.json, samplers_table.md and images/samplers.png into the output folder.
"""

import itertools
import json
import logging
import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from dbae_jax import build, command_line, time_grids
from dbae_jax.api import DBAE
from dbae_jax.data.sources import gather
from dbae_jax.errors import ConfigError
from dbae_jax.evaluators import pictures
from dbae_jax.images import to_float
from dbae_jax.metrics.similarity import pixel_mse, ssim

WORKDIRS = flags.DEFINE_list("workdirs", None, "Workdirs of one config, trained with other seeds.")
NUM_IMAGES = flags.DEFINE_integer("num_images", 0, "Held-out images to decode; 0: all.")
OUTPUT = flags.DEFINE_string("output", "docs", "Folder for the table, the plot and the figures.")

EVALUATIONS = (3, 5, 10, 20)
SAMPLERS = ("euler", "heun", "dbim", "multistep2", "multistep3")
# The authors' choice for reconstructions.
BASELINE = {"sampler": "euler", "grid": "karras", "steps": 100}

log = logging.getLogger(__name__)


class Codes(NamedTuple):
    """Held-out images x_0 in [-1, 1] with their codes z and endpoints x_T."""

    x_0: np.ndarray
    z: np.ndarray
    x_T: np.ndarray


def measure(model: DBAE, codes: Codes, **plan) -> dict[str, Any]:
    """Decodes codes by one plan; returns its mse, ssim, nfe and seconds an image."""
    started = time.perf_counter()
    again = model.decode(codes.z, codes.x_T, **plan)
    seconds = time.perf_counter() - started
    return plan | {
        "nfe": model.nfe(**plan),
        "mse": pixel_mse(again, codes.x_0),
        "ssim": ssim(again, codes.x_0),
        "seconds_per_image": seconds / len(again),
    }


def plans() -> list[dict[str, Any]]:
    """Returns every sampler on every grid, at about equal numbers of evaluations; the baseline."""
    compared = [
        # Heun evaluates twice a step: 2 N - 1.
        {"sampler": sampler, "grid": grid, "steps": (nfe + 1) // 2 if sampler == "heun" else nfe}
        for nfe, sampler, grid in itertools.product(EVALUATIONS, SAMPLERS, time_grids.GRIDS)
    ]
    return [BASELINE, *compared]


def study(workdirs: list[pathlib.Path], num_images: int = 0) -> list[dict[str, Any]]:
    """Measures every plan on every model; a row a plan, with means and ranges over models.

    The first `num_images` held-out images are decoded; 0 for all.

    mse_ratio is the mean over models of the plan's error divided by the baseline's on the same
    model.
    """
    first = DBAE.load(workdirs[0])
    images, _ = gather(build.make_source(first.config.data, "test"), num_images or None)
    rows: list[list[dict[str, Any]]] = [[] for _ in plans()]
    for directory in workdirs:
        model = first.with_variables(DBAE.load(directory).variables)
        z = model.encode(images)
        codes = Codes(np.asarray(to_float(images)), z, model.endpoint(z))
        for group, plan in zip(rows, plans(), strict=True):
            if not group:
                measure(model, codes, **plan)  # compiles: its time does not count
            group.append(measure(model, codes, **plan))
        base = rows[0][-1]["mse"]
        for group in rows:
            group[-1]["mse_ratio"] = group[-1]["mse"] / base
        log.info("%s: the baseline's MSE is %.5f", directory, base)
    return [_summarised(group) for group in rows]


def _summarised(group: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = ("mse", "ssim", "seconds_per_image", "mse_ratio")
    values = {name: np.array([row[name] for row in group]) for name in numbers}
    spread = {f"{name}_range": [float(v.min()), float(v.max())] for name, v in values.items()}
    kept = {name: group[0][name] for name in ("sampler", "grid", "steps", "nfe")}
    return kept | {name: float(v.mean()) for name, v in values.items()} | spread


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the best grid of every sampler at every NFE as Markdown."""
    lines = [
        "| NFE | sampler | grid | MSE / baseline's (range) | MSE | SSIM | ms an image |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = itertools.groupby(
        sorted(rows, key=lambda row: (row["nfe"], row["sampler"], row["mse_ratio"])),
        key=lambda row: (row["nfe"], row["sampler"]),
    )
    for _, group in groups:
        row = next(group)
        low, high = row["mse_ratio_range"]
        lines.append(
            f"| {row['nfe']} | {row['sampler']} | {row['grid']} | {row['mse_ratio']:.3f} "
            f"({low:.3f} to {high:.3f}) | {row['mse']:.5f} | {row['ssim']:.3f} "
            f"| {1e3 * row['seconds_per_image']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
    """Studies the models of --workdirs."""
    del argv
    if not WORKDIRS.value:
        raise ConfigError("--workdirs is missing; name one or more workdirs, comma between.")
    rows = study([pathlib.Path(directory) for directory in WORKDIRS.value], NUM_IMAGES.value)
    output = pathlib.Path(OUTPUT.value)
    (output / "images").mkdir(parents=True, exist_ok=True)
    pictures.samplers(output / "images" / "samplers.png", rows)
    record = {
        "device": jax.devices()[0].device_kind,
        "models": len(WORKDIRS.value),
        "num_images": NUM_IMAGES.value,
        "rows": rows,
    }
    (output / "samplers.json").write_text(json.dumps(record, indent=1) + "\n")
    (output / "samplers_table.md").write_text(table(rows))
    log.info("Wrote samplers.json, samplers_table.md and images/samplers.png to %s", output)


if __name__ == "__main__":
    command_line.run(main)
