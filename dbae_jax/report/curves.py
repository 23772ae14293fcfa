"""Training as the run's records tell it: charts of metrics.jsonl and of the loss over time."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dbae_jax.report.charts import Chart, Series, chart

# (title, axis, logarithmic, {key of metrics.jsonl: name of the line})
_CHARTS = (
    (
        "Loss",
        "loss",
        True,
        {"loss": "training", "eval_loss": "test images, averaged weights"},
    ),
    (
        "Reconstruction error of test images",
        "MSE, pixels in [0, 1]",
        True,
        {"test_mse": "test images"},
    ),
    (
        "What the code is worth",
        "rise of the loss of test images",
        False,
        {"code_gap": "when images get each other's codes"},
    ),
    ("Speed", "images/s", False, {"images_per_second": "training"}),
)
_PRIOR_CHARTS = (
    ("Loss of the prior", "mean |eps - eps_hat|", False, {"loss": "training"}),
    (
        "Codes of test images under the prior",
        "nats a code",
        False,
        {"prior_nll_nats": "prior, at most", "gaussian_nll_nats": "a Gaussian of their moments"},
    ),
)


class Drawn(NamedTuple):
    """A chart and the sentence below it."""

    chart: Chart
    caption: str


def training(rows: list[dict[str, Any]]) -> list[Drawn]:
    """Returns the charts that the rows of a run's metrics.jsonl have points for."""
    return _drawn(_CHARTS, rows)


def prior(rows: list[dict[str, Any]]) -> list[Drawn]:
    """As `training`, for the rows of the prior's metrics.jsonl."""
    return _drawn(_PRIOR_CHARTS, rows)


def loss_by_time(found: Mapping[str, Sequence[float]], images: int) -> Drawn | None:
    """Returns the chart of the loss of test images at each time; None if it is of one time.

    Args:
      found: as `information.curves` gives it.
      images: that it is of.
    """
    lines = [
        Series("training loss", found["t"], found["training_loss"]),
        Series("squared error of D, a pixel value", found["t"], found["error"]),
    ]
    title = "Loss of test images over time"
    drawn = chart(
        lines,
        title=title,
        x_label="t (0: the image, T: the endpoint x_T)",
        y_label="loss",
        log_x=True,
        log_y=True,
    )
    return drawn and Drawn(
        drawn,
        f"Of {images:,} images. The error of the denoiser D falls as t nears 0, where the "
        "state x_t nearly is the image. The training loss is that error times the weight that "
        "makes all times count alike.",
    )


def _drawn(charts: tuple, rows: list[dict[str, Any]]) -> list[Drawn]:
    found = []
    for title, axis, log, lines in charts:
        series = [
            Series(name, [row["step"] for row in there], [row[key] for row in there])
            for key, name in lines.items()
            if (there := [row for row in rows if row.get(key) is not None])
        ]
        drawn = chart(series, title=title, x_label="step", y_label=axis, log_y=log)
        if drawn:
            found.append(Drawn(drawn, _ends(series)))
    return found


def _ends(series: list[Series]) -> str:
    """Says where each line ends."""
    parts = [
        f"{one.name}: {_short(one.y[-1])} at step {one.x[-1]:,}" for one in series if len(one.x)
    ]
    return "Last values: " + "; ".join(parts) + "."


def _short(value: float) -> str:
    return np.format_float_positional(value, precision=4, fractional=False, trim="-")
