"""Samplers from x_T down to x_0: a table of coefficients, run by one scan on the device.

`SAMPLERS` names them; `sampler_tables` says what each does, and what it costs.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from dbae_jax.bridge.marginals import has_gaussian_endpoint
from dbae_jax.bridge.preconditioning import Bridge
from dbae_jax.sampling import grids
from dbae_jax.sampling.tables import Table, dbim_table, euler_table, heun_table, multistep_table


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to sample, as configs and callers say it.

    sampler: one of `SAMPLERS`. steps: intervals of the grid. grid: one of `time_grids.GRIDS`, or
    an array of times falling to 0. rho: bend of the karras and power grids. churn: share in [0, 1)
    of every interval that the reverse SDE walks first (euler, heun). eta: in [0, 1], 1 a Markov
    bridge (dbim). boot: draws the noise of the first step (dbim, multistep), which is 0 otherwise.
    """

    sampler: str
    steps: int = 10
    grid: str | np.ndarray = "karras"
    rho: float = 7.0
    churn: float = 0.0
    eta: float = 0.0
    boot: bool = False

    @classmethod
    def recommended(
        cls,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        grid: str | np.ndarray | None = None,
        churn: float = 0.0,
        **others: Any,
    ) -> Self:
        """Returns a plan with what docs/samplers.md recommends for all that is not given."""
        if sampler is None:
            sampler = "heun" if churn else "dbim"
        drifts = sampler in ("euler", "heun")
        if grid is None:
            grid = "karras" if drifts else "lambda"
        if steps is None:
            steps = 50 if drifts else 5
        return cls(sampler, steps, grid, churn=churn, **others)

    @property
    def needs_noise(self) -> bool:
        """Whether the sampler cannot do without random numbers."""
        return self.churn > 0 or self.eta > 0 or self.boot

    def table(self, bridge: Bridge) -> Table:
        """Tabulates the sampler on its grid.

        Raises:
          ValueError: for an unknown sampler or grid, a bad grid, or a value out of range.
        """
        if self.sampler not in SAMPLERS:
            raise ValueError(_not_among("sampler", self.sampler, SAMPLERS))
        implicit = self.sampler not in ("euler", "heun")
        if implicit and self.churn:
            raise ValueError(f"churn={self.churn}: {self.sampler} knows none, only euler and heun.")
        if self.sampler != "dbim" and self.eta:
            raise ValueError(f"eta={self.eta}: {self.sampler} knows none, only dbim.")
        if self.boot and not implicit:
            raise ValueError(f"boot=True: {self.sampler} has no first step of that kind.")
        times = self._times(bridge, from_end=implicit or has_gaussian_endpoint(bridge.schedule))
        return SAMPLERS[self.sampler](bridge, times, self)

    def _times(self, bridge: Bridge, *, from_end: bool) -> np.ndarray:
        if not isinstance(self.grid, str):
            return np.asarray(self.grid)
        if self.grid not in grids.GRIDS:
            raise ValueError(_not_among("grid", self.grid, grids.GRIDS))
        start = bridge.schedule.t_max - (0 if from_end else grids.DISTANCE_TO_END)
        make = grids.GRIDS[self.grid]
        return make(bridge.schedule, self.steps, start=start, rho=self.rho)


# Name -> function of (bridge, times, plan).
SAMPLERS: dict[str, Callable[[Bridge, np.ndarray, Plan], Table]] = {
    "euler": lambda b, times, plan: euler_table(b, times, churn=plan.churn),
    "heun": lambda b, times, plan: heun_table(b, times, churn=plan.churn),
    "dbim": lambda b, times, plan: dbim_table(b, times, eta=plan.eta, boot=plan.boot),
    "multistep2": lambda b, times, plan: multistep_table(b, times, order=2, boot=plan.boot),
    "multistep3": lambda b, times, plan: multistep_table(b, times, order=3, boot=plan.boot),
}


def _not_among(name: str, value: str, allowed) -> str:
    return f"{name}={value!r} is not allowed: it must be one of {', '.join(allowed)}."
