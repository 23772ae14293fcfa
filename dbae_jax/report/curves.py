"""Charts of metrics.jsonl and of the loss by diffusion time."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dbae_jax.report.charts import Chart, Series, chart, short

# (title, label of the y axis, logarithmic, {key of metrics.jsonl: name of the line})
_CHARTS = (
    ("Loss during training", "loss", True, {"loss": "training", "eval_loss": "test"}),
    (
        "Reconstruction error of test images during training",
        "MSE, pixels in [0, 1]",
        True,
        {"test_mse": "test"},
    ),
    (
        "Loss increase with shuffled latent codes",
        "increase of the test loss",
        False,
        {"code_gap": "test"},
    ),
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
_SHUFFLED = (
    "How much the loss rises if every image gets the latent code of a different one: a value of 0 "
    "would mean that the model ignores z."
)


class CaptionedChart(NamedTuple):
    """A chart and the caption below it."""

    chart: Chart
    caption: str


def training(rows: list[dict[str, Any]]) -> list[CaptionedChart]:
    """Returns the charts that the rows of a run's metrics.jsonl have points for."""
    captions = {_CHARTS[0][0]: _gap(rows), _CHARTS[2][0]: _SHUFFLED}
    return _charts(_CHARTS, rows, captions)


def prior(rows: list[dict[str, Any]]) -> list[CaptionedChart]:
    """Returns the charts that the rows of the prior's metrics.jsonl have points for."""
    return _charts(_PRIOR_CHARTS, rows, {})


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
        Series("squared error of the denoiser", found["t"], found["error"]),
    ]
    made = chart(
        lines,
        title="Loss of test images by diffusion time",
        x_label="diffusion time t, log scale (small: nearly the image)",
        y_label="loss, log scale",
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


def compared(runs: Mapping[str, list[dict[str, Any]]]) -> list[CaptionedChart]:
    """Returns the training charts of two runs over each other.

    Args:
      runs: name of a run -> rows of its metrics.jsonl.
    """
    found = []
    for title, axis, log, lines in _CHARTS:
        series = [
            one._replace(name=f"{run}, {one.name}")
            for run, rows in runs.items()
            for one in _series(rows, lines)
        ]
        found += _captioned(series, title, axis, log, "")
    return found


def _charts(
    charts: tuple, rows: list[dict[str, Any]], captions: Mapping[str, str]
) -> list[CaptionedChart]:
    found = []
    for title, axis, log, lines in charts:
        found += _captioned(_series(rows, lines), title, axis, log, captions.get(title, ""))
    return found


def _series(rows: list[dict[str, Any]], lines: Mapping[str, str]) -> list[Series]:
    return [
        Series(name, [row["step"] for row in there], [row[key] for row in there])
        for key, name in lines.items()
        if (there := [row for row in rows if row.get(key) is not None])
    ]


def _captioned(
    series: list[Series], title: str, axis: str, log: bool, caption: str
) -> list[CaptionedChart]:
    label = f"{axis}, log scale" if log else axis
    made = chart(series, title=title, x_label="training step", y_label=label, log_y=log)
    return [CaptionedChart(made, caption)] if made else []


def _gap(rows: list[dict[str, Any]]) -> str:
    """Returns sentences on the loss of training images and of test images."""
    test = [(row["step"], row["eval_loss"]) for row in rows if row.get("eval_loss") is not None]
    train = [row["loss"] for row in rows if row.get("loss") is not None]
    if not test or not train:
        return ""
    (step, last), (best_step, best) = test[-1], min(test, key=lambda pair: pair[1])
    said = (
        f"The test loss at step {step:,} (EMA weights) is {short(last)}, the training loss "
        f"{short(train[-1])}: the ratio is {last / train[-1]:.2g}."
    )
    if len(test) < 2:
        return said
    if best_step == step:
        return f"{said} The test loss was smallest at the end, so longer training may help."
    return (
        f"{said} The test loss was smallest at step {best_step:,} ({short(best)}); a test loss "
        "that rises while the training loss falls is overfitting."
    )
