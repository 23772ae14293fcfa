"""Selection of the attributes that the page edits, and of the scales of the edits."""

from typing import NamedTuple

import numpy as np

from dbae_jax.editing import Directions
from dbae_jax.evaluation import attribute_directions
from dbae_jax.evaluation.context import Context

# Largest scale, in distances between the mean codes with and without an attribute.
FARTHEST = 1.5


class Chosen(NamedTuple):
    """The attributes or classes that the page edits.

    Attributes:
      directions: directions of the attributes that are best separated in the codes.
      known: number of attributes of the data set.
      apart: distance between the mean codes with and without the attribute, in units of the
        scale; median over the directions.
    """

    directions: Directions
    known: int
    apart: float

    def scales(self, count: int) -> np.ndarray:
        """Returns an odd number of evenly spaced scales [count], symmetric around 0."""
        farthest = float(f"{FARTHEST * self.apart:.1g}")
        return np.linspace(-farthest, farthest, count).round(6)


def choose(context: Context, count: int) -> Chosen | None:
    """Chooses the `count` attributes or classes that are best separated in the codes.

    The separation is the distance of the mean codes with and without the attribute, divided by
    the standard deviation of the codes along the line between them. An attribute with real
    values counts as present above its median.

    Returns:
      None if no attribute varies over the training images.
    """
    names, values = attribute_directions.targets(context)
    z = context.codes("train").mean.astype(np.float64)
    present = [_present(column) for column in values.T]
    separation = {
        name: _separation(z, mask)
        for name, mask in zip(names, present, strict=True)
        if 1 < mask.sum() < len(mask) - 1
    }
    best = sorted(separation, key=lambda name: -separation[name])[:count]
    kept = [name for name in names if name in best]  # in the order of the data set
    if not kept:
        return None
    found = attribute_directions.find(context, kept)
    apart = [
        np.abs(_difference(z, present[names.index(name)]) @ step) / np.sum(step.astype(float) ** 2)
        for name, step in zip(kept, found.steps, strict=True)
    ]
    return Chosen(found, len(names), float(np.median(apart)))


def _present(column: np.ndarray) -> np.ndarray:
    binary = np.isin(column, (0, 1)).all()
    return column > (0 if binary else np.median(column))


def _difference(z: np.ndarray, present: np.ndarray) -> np.ndarray:
    return z[present].mean(axis=0) - z[~present].mean(axis=0)


def _separation(z: np.ndarray, present: np.ndarray) -> float:
    difference = _difference(z, present)
    along = z @ difference
    std = np.sqrt(np.mean([along[mask].var() for mask in (present, ~present)]))
    return float(difference @ difference / std) if std else 0.0
