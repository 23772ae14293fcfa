"""Charts of metrics.jsonl and of the loss by diffusion time."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dbae_jax.report.charts import Chart, Series, chart

# (title, label of the y axis, logarithmic, {key of metrics.jsonl: name of the line})
_CHARTS = (
    ("Loss", "loss", True, {"loss": "training", "eval_loss": "test images, EMA weights"}),
    (
        "Reconstruction error of test images",
        "MSE, pixels in [0, 1]",
        True,
        {"test_mse": "test images"},
    ),
    (
        "Loss increase with shuffled latent codes",
        "increase of the loss",
        False,
        {"code_gap": "test images"},
    ),
    ("Training speed", "images per second", False, {"images_per_second": "training"}),
)
_PRIOR_CHARTS = (
    ("Loss of the latent prior", "mean |eps - eps_hat|", False, {"loss": "training"}),
    (
        "Negative log-likelihood of the codes of test images",
        "nats per code",
        False,
        {
            "prior_nll_nats": "latent prior, upper bound",
            "gaussian_nll_nats": "Gaussian with the codes' means and variances",
        },
    ),
)


class CaptionedChart(NamedTuple):
    """A chart and the caption below it."""

    chart: Chart
    caption: str


def training(rows: list[dict[str, Any]]) -> list[CaptionedChart]:
    """Returns the charts that the rows of a run's metrics.jsonl have points for."""
    return _charts(_CHARTS, rows)


def prior(rows: list[dict[str, Any]]) -> list[CaptionedChart]:
    """Returns the charts that the rows of the prior's metrics.jsonl have points for."""
    return _charts(_PRIOR_CHARTS, rows)


def loss_by_time(found: Mapping[str, Sequence[float]], images: int) -> CaptionedChart | None:
    """Returns the chart of the loss of test images by diffusion time.

    Args:
      found: the result of `information.curves`.
      images: number of test images.

    Returns:
      None if the loss was measured at a single time.
    """
    lines = [
        Series("training loss", found["t"], found["training_loss"]),
        Series("squared error of the denoiser, per pixel value", found["t"], found["error"]),
    ]
    made = chart(
        lines,
        title="Loss of test images by diffusion time",
        x_label="diffusion time t (0: the image, T: the endpoint x_T)",
        y_label="loss",
        log_x=True,
        log_y=True,
    )
    if made is None:
        return None
    return CaptionedChart(
        made,
        f"Means over {images:,} images. The error of the denoiser falls as t approaches 0, where "
        "the state x_t is nearly the image. The training loss multiplies this error by a weight "
        "that balances the errors at all times.",
    )


def _charts(charts: tuple, rows: list[dict[str, Any]]) -> list[CaptionedChart]:
    found = []
    for title, axis, log, lines in charts:
        series = [
            Series(name, [row["step"] for row in there], [row[key] for row in there])
            for key, name in lines.items()
            if (there := [row for row in rows if row.get(key) is not None])
        ]
        made = chart(series, title=title, x_label="training step", y_label=axis, log_y=log)
        if made:
            found.append(CaptionedChart(made, _last_values(series)))
    return found


def _last_values(series: list[Series]) -> str:
    parts = [f"{one.name}: {_short(one.y[-1])} at step {one.x[-1]:,}" for one in series]
    return "Last values: " + "; ".join(parts) + "."


def _short(value: float) -> str:
    return np.format_float_positional(value, precision=4, fractional=False, trim="-")
