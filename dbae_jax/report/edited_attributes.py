"""Which attributes the page edits, and how far."""

from typing import NamedTuple

import numpy as np

from dbae_jax.editing import Directions
from dbae_jax.evaluation import attribute_directions
from dbae_jax.evaluation.context import Context

FARTHEST = 1.5  # of an edit, in distances between the mean codes with and without an attribute


class Chosen(NamedTuple):
    """Attributes to edit.

    directions: of those that the codes tell best. known: how many there are. apart: median over the
    directions of the distance between the mean codes with and without the attribute, in scales.
    """

    directions: Directions
    known: int
    apart: float

    def scales(self, count: int) -> np.ndarray:
        """Returns scales from one side to the other, an odd number `count`, of two digits."""
        farthest = float(f"{FARTHEST * self.apart:.1g}")
        return np.linspace(-farthest, farthest, count).round(6)


def choose(context: Context, count: int) -> Chosen | None:
    """Returns the `count` attributes or classes that codes tell best, or None if there are none.

    How well is the distance of the mean codes with and without it, in standard deviations of the
    codes along the line between them. Of attributes that are real numbers, those above the median
    count as with.
    """
    names, values = attribute_directions.targets(context)
    z = context.codes("train").mean.astype(np.float64)
    groups = [_there(column) for column in values.T]
    sharp = {
        name: _sharpness(z, there)
        for name, there in zip(names, groups, strict=True)
        if 1 < there.sum() < len(there) - 1
    }
    kept = sorted(sharp, key=lambda name: -sharp[name])[:count]
    kept = [name for name in names if name in kept]  # in the data's order
    if not kept:
        return None
    found = attribute_directions.find(context, kept)
    apart = [
        np.abs(_difference(z, groups[names.index(name)]) @ step) / np.sum(step.astype(float) ** 2)
        for name, step in zip(kept, found.steps, strict=True)
    ]
    return Chosen(found, len(names), float(np.median(apart)))


def _there(column: np.ndarray) -> np.ndarray:
    binary = np.isin(column, (0, 1)).all()
    return column > (0 if binary else np.median(column))


def _difference(z: np.ndarray, there: np.ndarray) -> np.ndarray:
    return z[there].mean(axis=0) - z[~there].mean(axis=0)


def _sharpness(z: np.ndarray, there: np.ndarray) -> float:
    difference = _difference(z, there)
    along = z @ difference
    spread = np.sqrt(np.mean([along[group].var() for group in (there, ~there)]))
    return float(difference @ difference / spread) if spread else 0.0
