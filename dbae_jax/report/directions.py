"""Directions of codes that the page edits along, found on training images."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Direction(NamedTuple):
    """A direction of codes: its name, and [D], from the mean of those without it to that of with.

    sharpness: its length in standard deviations of the codes along it, within the two groups.
    """

    name: str
    vector: np.ndarray
    sharpness: float


def of_labels(z: np.ndarray, labels: np.ndarray) -> list[Direction]:
    """Returns a direction a label, away from all others: z [N, D], labels int [N]."""
    found = [_between(f"towards {label}", z, labels == label) for label in np.unique(labels)]
    return [direction for direction in found if direction]


def of_attributes(z: np.ndarray, attributes: np.ndarray, names: Sequence[str]) -> list[Direction]:
    """Returns a direction an attribute: z [N, D], attributes [N, K].

    Attributes that are not 0 or 1 count as there above their median.
    """
    found = []
    for name, column in zip(names, attributes.T, strict=True):
        binary = np.isin(column, (0, 1)).all()
        found.append(_between(name, z, column > (0 if binary else np.median(column))))
    return [direction for direction in found if direction]


def sharpest(found: Sequence[Direction], count: int) -> list[Direction]:
    """Returns the `count` directions that tell their groups best apart, in the order given."""
    kept = sorted(found, key=lambda direction: -direction.sharpness)[:count]
    return [direction for direction in found if any(direction is one for one in kept)]


def _between(name: str, z: np.ndarray, there: np.ndarray) -> Direction | None:
    if there.sum() < 2 or (~there).sum() < 2:
        return None
    with_it, without = z[there].astype(np.float64), z[~there].astype(np.float64)
    vector = with_it.mean(axis=0) - without.mean(axis=0)
    length = np.linalg.norm(vector)
    if length == 0:
        return None
    along = [(group - group.mean(axis=0)) @ vector / length for group in (with_it, without)]
    spread = np.concatenate(along).std()
    return Direction(name, vector, float(length / spread) if spread else np.inf)
