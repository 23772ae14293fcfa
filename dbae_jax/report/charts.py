"""Line charts: the geometry of lines and ticks, which templates/parts.html writes as SVG."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 480, 290
LEFT, RIGHT, TOP, BOTTOM = 66, 12, 12, 44  # margins
MAX_POINTS = 400  # per line; a longer line is averaged over this number of parts


class Series(NamedTuple):
    """The data of a line: its name in the legend, x: [N], y: [N]."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


class Tick(NamedTuple):
    """A tick of an axis: its place in pixels, and its text."""

    place: float
    text: str


class Line(NamedTuple):
    """A line in pixels: its name, its points in SVG syntax, and its last point."""

    name: str
    points: str
    end: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart of WIDTH x HEIGHT pixels."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


class Axis:
    """Maps values to pixels, on a linear or logarithmic scale."""

    def __init__(self, values: Sequence[float], start: float, stop: float, *, log: bool):
        """Chooses a range that contains the values.

        Args:
          values: data along the axis.
          start: pixel of the lower end of the range.
          stop: pixel of the upper end of the range.
          log: whether the scale is logarithmic.
        """
        self.log = log
        low, high = (self._scaled(v) for v in (min(values), max(values)))
        margin = 0.04 * (high - low) or 0.5
        self._low, self._high = low - margin, high + margin
        self._start, self._stop = start, stop

    def place(self, value: float) -> float:
        """Returns the pixel of a value."""
        fraction = (self._scaled(value) - self._low) / (self._high - self._low)
        return round(self._start + fraction * (self._stop - self._start), 1)

    def ticks(self, wanted: int = 6) -> list[Tick]:
        """Returns about `wanted` ticks at round values; at powers of ten on a long log axis."""
        low, high = self._low, self._high
        if self.log and high - low >= 1.0:
            step = math.ceil((high - low) / (wanted + 2))
            decades = [n for n in range(math.ceil(low), math.floor(high) + 1) if n % step == 0]
            factors = (1, 2, 5) if len(decades) < 2 else (1,)
            every = range(math.floor(low), math.floor(high) + 1) if len(decades) < 2 else decades
            values = [factor * 10.0**n for n in every for factor in factors]
        else:
            ends = (10**low, 10**high) if self.log else (low, high)
            values = round_values(*ends, wanted)
        inside = [v for v in values if low <= self._scaled(v) <= high]
        return [Tick(self.place(v), number(v)) for v in inside]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else float(value)


def chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
) -> Chart | None:
    """Returns a chart of the finite points; on logarithmic axes, of the positive ones.

    Args:
      series: the lines.
      title: title of the chart.
      x_label: label of the horizontal axis.
      y_label: label of the vertical axis.
      log_x: whether the horizontal axis is logarithmic.
      log_y: whether the vertical axis is logarithmic.

    Returns:
      None if no series has two such points.
    """
    kept = [_thinned(_valid(one, log_x=log_x, log_y=log_y)) for one in series]
    kept = [one for one in kept if len(one.x) > 1]
    if not kept:
        return None
    x = Axis([v for one in kept for v in one.x], LEFT, WIDTH - RIGHT, log=log_x)
    y = Axis([v for one in kept for v in one.y], HEIGHT - BOTTOM, TOP, log=log_y)
    lines = []
    for one in kept:
        places = [(x.place(a), y.place(b)) for a, b in zip(one.x, one.y, strict=True)]
        lines.append(Line(one.name, " ".join(f"{a:g},{b:g}" for a, b in places), places[-1]))
    return Chart(title, x_label, y_label, x.ticks(), y.ticks(), lines)


def round_values(low: float, high: float, wanted: int) -> list[float]:
    """Returns about `wanted` values from low to high, evenly spaced by 1, 2 or 5 times 10^n."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def number(value: float) -> str:
    """Formats a number with few characters: 0.02, 800, 20k, 1.5M, 1e-5."""
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:.6g}".replace("e-0", "e-")


def _valid(series: Series, *, log_x: bool, log_y: bool) -> Series:
    x, y = np.asarray(series.x, float), np.asarray(series.y, float)
    keep = np.isfinite(x) & np.isfinite(y)
    for log, values in ((log_x, x), (log_y, y)):
        keep &= (values > 0) | (not log)
    return Series(series.name, x[keep].tolist(), y[keep].tolist())


def _thinned(series: Series) -> Series:
    if len(series.x) <= MAX_POINTS:
        return series
    parts = [np.array_split(np.asarray(v), MAX_POINTS) for v in (series.x, series.y)]
    x, y = ([float(part.mean()) for part in axis] for axis in parts)
    return Series(series.name, x, y)
