"""Error of reconstruction against the number of network evaluations of this model's sampler."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.evaluation.context import Context
from dbae_jax.report.charts import Chart, Series, chart
from dbae_jax.report.curves import CaptionedChart
from dbae_jax.report.sections.reconstructions import decode
from dbae_jax.runtime import kept
from dbae_jax.sampling.plan import Plan


def curve(context: Context, count: int, steps: Sequence[int]) -> CaptionedChart | None:
    """Returns the chart of the error against the network evaluations (NFE) per image.

    The errors are measured once for a model and kept in the cache of the workdir.

    Args:
      context: model and data.
      count: number of test images.
      steps: numbers of steps of the sampler; that of the config comes on top.

    Returns:
      None if an error is 0 or undefined at all numbers of steps but one.
    """
    images = context.images("test", min(count, context.limit("test")))
    model, sample = context.model, context.config.sample
    numbers = sorted({*steps, sample.steps})

    def measure() -> dict[str, Any]:
        return _measure(model, images, sample, numbers)

    if context.cache is None:
        found = measure()
    else:
        path = context.cache / f"{context.config.data.name}_nfe.json"
        found = kept.read_or_make(path, _identity(context, len(images), numbers), measure)
    return draw(found, sample, len(images))


def draw(found: dict[str, Any], sample: Plan, images: int) -> CaptionedChart | None:
    """Returns the chart of measured errors.

    Args:
      found: "nfe", "mse" and "standard_error", each a list.
      sample: the sampler of the config.
      images: number of test images.
    """
    made: Chart | None = chart(
        [Series("MSE \u00d7 1,000", found["nfe"], [1000 * mse for mse in found["mse"]])],
        title="Error against network evaluations",
        x_label="network evaluations (NFE) per image, log scale",
        y_label="MSE \u00d7 1,000, pixels in [0, 1], log scale",
        log_x=True,
        log_y=True,
    )
    if made is None:
        return None
    values = zip(found["nfe"], found["mse"], found["standard_error"], strict=True)
    listed = ", ".join(
        f"{n}: {1000 * mse:.3g} \u00b1 {1000 * error:.1g}" for n, mse, error in values
    )
    return CaptionedChart(
        made,
        f"The sampler {sample.sampler} on the {sample.grid} grid with different numbers of steps, "
        f"over {images} test images (NFE: MSE \u00d7 1,000 \u00b1 standard error): {listed}.",
    )


def _measure(model: DBAE, images: np.ndarray, sample: Plan, steps: list[int]) -> dict[str, Any]:
    found: dict[str, Any] = {"nfe": [], "mse": [], "standard_error": []}
    for number in steps:
        plan = dataclasses.replace(sample, steps=number)
        errors = decode(model, images, plan).errors
        found["nfe"].append(int(model.nfe(plan=plan)))
        found["mse"].append(float(errors.mean()))
        found["standard_error"].append(float(errors.std(ddof=1) / np.sqrt(len(errors))))
    return found


def _identity(context: Context, images: int, steps: list[int]) -> dict[str, Any]:
    return context.identity_of("test") | {
        "fingerprint": context.model.fingerprint,
        "sampler": dataclasses.asdict(context.config.sample),
        "images": images,
        "steps": steps,
    }
