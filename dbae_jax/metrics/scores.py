"""Numbers with their names: what was measured, by which network, on how many images."""

import dataclasses
from typing import Any

from dbae_jax.metrics.networks.published import Origin


@dataclasses.dataclass(frozen=True)
class Score:
    """A number, the name it may be called by, and what one needs to know to compare it."""

    name: str
    value: float
    details: dict[str, Any]


def provenance(origin: Origin) -> dict[str, Any]:
    """Returns the details that tell which network made a number."""
    return {"net": origin.net, "weights_sha256": list(origin.sha256)}


def named(value: float, name: str, neutral: str, origin: Origin, **details: Any) -> Score:
    """Returns a score under its well-known name if the network is the published one.

    Args:
      value: the number.
      name: what it is called by everybody, for published weights alone.
      neutral: what it is called otherwise; the network's name is added.
      origin: of the network.
      details: to be kept with the number.
    """
    known = name if origin.published else f"{neutral}_{origin.net}"
    return Score(known, value, provenance(origin) | details)
