"""Scores with their names and details: the network, the number of images and the settings."""

import dataclasses
from typing import Any

from dbae_jax.metrics.networks.published import Origin


@dataclasses.dataclass(frozen=True)
class Score:
    """A number, its name, and the details that a comparison with other numbers needs."""

    name: str
    value: float
    details: dict[str, Any]


def provenance(origin: Origin) -> dict[str, Any]:
    """Returns the details that identify the network behind a score."""
    return {"net": origin.net, "weights_sha256": list(origin.sha256)}


def named(value: float, name: str, neutral: str, origin: Origin, **details: Any) -> Score:
    """Returns a score under its well-known name if the network is the published one.

    Args:
      value: value of the score.
      name: well-known name, used only for published weights.
      neutral: prefix of the name for other weights; the network's name follows.
      origin: name and weight hashes of the network.
      details: further details of the score.
    """
    known = name if origin.published else f"{neutral}_{origin.net}"
    return Score(known, value, provenance(origin) | details)
