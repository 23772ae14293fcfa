"""Line charts: the geometry of lines and ticks, which templates/parts.html writes as SVG."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 480, 340
LEFT, RIGHT, TOP, BOTTOM = 66, 58, 12, 44  # margins; the last values stand on the right
MAX_POINTS = 200  # per line; a longer line is averaged over this number of parts


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
    """A line in pixels: its name, points in SVG syntax, last point, and the text of its value."""

    name: str
    points: str
    end: tuple[float, float]
    value: Tick  # place of the text along the vertical axis


class Dots(NamedTuple):
    """Points that no line joins: their name, and an SVG path of all of them."""

    name: str
    path: str


class Bars(NamedTuple):
    """The outline of a histogram, as an SVG path, and its name."""

    name: str
    path: str


class Hover(NamedTuple):
    """What the page says of a point along the horizontal axis: its place in pixels, and a text."""

    place: float
    text: str


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart of WIDTH x HEIGHT pixels, of lines, dots or bars."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line] = dataclasses.field(default_factory=list)
    dots: list[Dots] = dataclasses.field(default_factory=list)
    bars: list[Bars] = dataclasses.field(default_factory=list)
    hover: list[Hover] = dataclasses.field(default_factory=list)
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
    kept = [_thinned(_sorted(_valid(one, log_x=log_x, log_y=log_y))) for one in series]
    kept = [one for one in kept if len(one.x) > 1]
    if not kept:
        return None
    x = Axis([v for one in kept for v in one.x], LEFT, WIDTH - RIGHT, log=log_x)
    y = Axis([v for one in kept for v in one.y], HEIGHT - BOTTOM, TOP, log=log_y)
    lines = []
    heights = _apart([y.place(one.y[-1]) for one in kept])
    for one, height in zip(kept, heights, strict=True):
        places = [(x.place(a), y.place(b)) for a, b in zip(one.x, one.y, strict=True)]
        joined = " ".join(f"{a:g},{b:g}" for a, b in places)
        lines.append(Line(one.name, joined, places[-1], Tick(height, short(one.y[-1]))))
    ticks = (x.ticks(), y.ticks())
    return Chart(title, x_label, y_label, *ticks, lines, hover=_hover(kept, x, x_label))


def _apart(places: list[float], least: float = 13.0) -> list[float]:
    """Returns places of texts that are at least `least` pixels apart."""
    moved = list(places)
    order = sorted(range(len(places)), key=lambda i: places[i])
    for upper, lower in itertools.pairwise(order):
        moved[lower] = max(moved[lower], moved[upper] + least)
    return [round(place, 1) for place in moved]


def _hover(series: Sequence[Series], axis: Axis, x_label: str) -> list[Hover]:
    """Returns a text with the values of all lines for every x that one of them has."""
    name = x_label.partition(",")[0].partition(" (")[0]
    texts: dict[float, list[str]] = {}
    for one in series:
        for a, b in zip(one.x, one.y, strict=True):
            texts.setdefault(a, []).append(f"{one.name} {short(b)}")
    return [
        Hover(axis.place(x), f"{name} {number(float(short(x)))}: {'; '.join(texts[x])}")
        for x in sorted(texts)
    ]


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


def short(value: float) -> str:
    """Formats a value with three significant digits: 0.0377, 12.5, 850, 1.23e-05."""
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.2e}"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")


def _valid(series: Series, *, log_x: bool, log_y: bool) -> Series:
    x, y = np.asarray(series.x, float), np.asarray(series.y, float)
    keep = np.isfinite(x) & np.isfinite(y)
    for log, values in ((log_x, x), (log_y, y)):
        keep &= (values > 0) | (not log)
    return Series(series.name, x[keep].tolist(), y[keep].tolist())


def _sorted(series: Series) -> Series:
    order = np.argsort(series.x, kind="stable")
    x, y = (np.asarray(values)[order].tolist() for values in (series.x, series.y))
    return Series(series.name, x, y)


def _thinned(series: Series) -> Series:
    if len(series.x) <= MAX_POINTS:
        return series
    parts = [np.array_split(np.asarray(v), MAX_POINTS) for v in (series.x, series.y)]
    x, y = ([float(part.mean()) for part in axis] for axis in parts)
    return Series(series.name, x, y)
