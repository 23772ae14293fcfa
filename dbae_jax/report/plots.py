"""Charts that are no lines: histograms, and points in a plane."""

from collections.abc import Mapping, Sequence

import numpy as np

from dbae_jax.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Bars,
    Chart,
    Dots,
    Hover,
    Tick,
    short,
)

BINS = 24


def histogram(
    values: np.ndarray, *, title: str, x_label: str, y_label: str, bins: int = BINS
) -> Chart | None:
    """Returns a histogram of values [N], with a hint for every bin.

    Args:
      values: the values; infinite ones and NaN are left out.
      title: title of the chart.
      x_label: label of the horizontal axis.
      y_label: label of the vertical axis.
      bins: number of bins of equal width.

    Returns:
      None for fewer than two values.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return None
    counts, edges = np.histogram(values, bins)
    x = Axis([edges[0], edges[-1]], LEFT, WIDTH - RIGHT, log=False)
    y = Axis([0, int(counts.max())], HEIGHT - BOTTOM, TOP, log=False)
    path = outline([x.place(e) for e in edges], [y.place(c) for c in counts], y.place(0))
    hints = [
        Hover((x.place(low) + x.place(high)) / 2, f"{short(low)} to {short(high)}: {count}")
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    ticks = [tick for tick in y.ticks() if float(tick.text.rstrip("kM")).is_integer()]
    return Chart(title, x_label, y_label, x.ticks(), ticks, bars=[Bars("", path)], hover=hints)


def outline(edges: Sequence[float], tops: Sequence[float], ground: float) -> str:
    """Returns the SVG path of bars: edges [N + 1] and upper ends [N], in pixels."""
    steps = "".join(f"V{top:g}H{right:g}" for top, right in zip(tops, edges[1:], strict=True))
    return f"M{edges[0]:g},{ground:g}{steps}V{ground:g}Z"


def scatter(
    groups: Mapping[str, np.ndarray], *, title: str, x_label: str, y_label: str
) -> Chart | None:
    """Returns points in a plane; both axes have the same unit.

    Args:
      groups: name of a group -> points [N, 2].
      title: title of the chart.
      x_label: label of the horizontal axis.
      y_label: label of the vertical axis.

    Returns:
      None for fewer than two points.
    """
    points = np.concatenate(list(groups.values())) if groups else np.zeros((0, 2))
    if len(points) < 2:
        return None
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    unit = max(float(np.max(np.ptp(points, axis=0) / (width, height))), 1e-9)
    reach = unit * np.array([width, height]) / 2
    x = Axis([middle[0] - reach[0], middle[0] + reach[0]], LEFT, WIDTH - RIGHT, log=False)
    y = Axis([middle[1] - reach[1], middle[1] + reach[1]], HEIGHT - BOTTOM, TOP, log=False)
    dots = [
        Dots(name, "".join(_dot(x.place(a), y.place(b)) for a, b in there))
        for name, there in groups.items()
    ]
    return Chart(title, x_label, y_label, x.ticks(), _few(y.ticks()), dots=dots)


def _dot(x: float, y: float) -> str:
    """Returns a dot as a line without length, which a round line cap makes visible."""
    return f"M{x:g},{y:g}h0"


def _few(ticks: list[Tick]) -> list[Tick]:
    return ticks[:: 1 + len(ticks) // 8]
