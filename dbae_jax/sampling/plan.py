"""Chooses a sampler, its time grid and its options, and recommends values for them.

`SAMPLERS` maps names to samplers. To add a sampler, write a function in `tables` and add an entry
to `SAMPLERS`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import jax
import numpy as np

from dbae_jax.bridge.marginals import has_gaussian_endpoint
from dbae_jax.bridge.preconditioning import Bridge
from dbae_jax.errors import ConfigError, DataError
from dbae_jax.sampling import grids
from dbae_jax.sampling.tables import (
    Table,
    consistency_table,
    dbim_table,
    euler_table,
    heun_table,
    multistep_table,
)

CONSISTENCY = "consistency"  # for models that are trained for it, see `training.consistency`
# Sampler -> recommended grid and steps; docs/results/samplers.md. Others have those of dbim.
RECOMMENDED = {
    "euler": ("karras", 50),
    "heun": ("karras", 50),
    "dbim": ("lambda", 5),
    CONSISTENCY: ("near_end", 2),
}
NAMES = ("accurate", "sharp")  # of plans, see `Plan.named`
DRIFTS = ("euler", "heun")  # samplers that evaluate the drift of the ODE


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to sample; the section `sample` of a config is a plan.

    Attributes:
      sampler: one of `SAMPLERS`.
      steps: number of intervals of the time grid; 2 or more for euler and heun. A single step of
        the others is the denoiser at T, the mean of the images that fit the latent code. No effect
        if `grid` holds times.
      grid: one of `grids.GRIDS`, or an array of times that fall to 0.
      rho: exponent of the karras and power grids.
      churn: euler and heun: fraction in [0, 1) of every interval that is integrated with the
        reverse SDE before the ODE.
      eta: dbim: from 0, deterministic, to 1, a Markov bridge.
      boot: dbim and multistep: whether the first step adds noise (DBIM's booting noise).
    """

    sampler: str
    steps: int = 10
    grid: str | np.ndarray = "karras"
    rho: float = 7.0
    churn: float = 0.0
    eta: float = 0.0
    boot: bool = False

    @classmethod
    def named(cls, name: str, default: str = "dbim") -> Self:
        """Returns the plan with a name; docs/results/samplers.md compares them.

        "accurate" has a low squared error, and fine detail is blurred. "sharp" gives images with
        the detail of real ones: the stochastic sampler of the paper, with 666 network evaluations,
        or the two evaluations of a distilled model. The accurate plan of a distilled model is one
        evaluation, which is near the mean of the images that fit the latent code. Which of its two
        plans has the lower error depends on the data.

        Args:
          name: one of `NAMES`.
          default: sampler that the model was trained for; `CONSISTENCY` for a distilled model.

        Raises:
          DataError: for another name.
        """
        if name not in NAMES:
            raise DataError(f"There is no plan {name!r}: the names are {', '.join(NAMES)}.")
        if default == CONSISTENCY:
            return cls.recommended(default=default, steps=1 if name == "accurate" else None)
        if name == "accurate":
            return cls.recommended()
        return cls("euler", 333, "karras", churn=0.33)

    @classmethod
    def recommended(
        cls,
        plan: Self | str | None = None,
        default: str = "dbim",
        *,
        sampler: str | None = None,
        steps: int | None = None,
        grid: str | np.ndarray | None = None,
        rho: float = 7.0,
        churn: float = 0.0,
        eta: float = 0.0,
        boot: bool = False,
    ) -> Self:
        """Returns `plan` if it is given, otherwise a plan with recommended values.

        Each argument that is None gets the value that docs/results/samplers.md recommends.

        Args:
          plan: plan that is returned unchanged, one of `NAMES`, or None.
          default: sampler if none is named; with churn it is heun instead.
          sampler: one of `SAMPLERS`, or None.
          steps: number of intervals of the time grid, or None.
          grid: one of `grids.GRIDS`, an array of times, or None.
          rho: see `Plan`, like the rest.
          churn: see `Plan`.
          eta: see `Plan`.
          boot: see `Plan`.

        Raises:
          DataError: if `plan` is neither a plan nor one of `NAMES`, or other options come with it.
            `check` checks the ranges.
        """
        others: dict[str, Any] = {"rho": rho, "churn": churn, "eta": eta, "boot": boot}
        if plan is not None:
            _check_left_out({"sampler": sampler, "steps": steps, "grid": grid, **others})
            if isinstance(plan, str):
                return cls.named(plan, default)
            if not isinstance(plan, cls):
                raise DataError(
                    f"plan={plan!r} ({type(plan).__name__}) is not allowed: it must be a "
                    f"dbae_jax.Plan, or one of {', '.join(NAMES)}."
                )
            return plan
        if sampler is None:
            sampler = "heun" if churn else default
        if grid is None:
            grid = RECOMMENDED.get(sampler, RECOMMENDED["dbim"])[0]
        if steps is None:
            steps = RECOMMENDED.get(sampler, RECOMMENDED["dbim"])[1]
        return cls(sampler, steps, grid, **others)

    @property
    def needs_noise(self) -> bool:
        """Whether the sampler adds noise, so that it needs a random key."""
        # Noise enters between evaluations. Given times may begin below T, which is one more step.
        several = not isinstance(self.grid, str) or self.steps > 1
        between = self.sampler == CONSISTENCY and several
        return self.churn > 0 or self.eta > 0 or self.boot or between

    def check(self, path: str = "") -> None:
        """Refuses values that are out of range or do not go together.

        Args:
          path: what goes before the names in the error, such as "config.sample".

        Raises:
          ConfigError: naming the value and what is allowed.
        """
        self._check_types(path)
        named = isinstance(self.grid, str)
        for key, condition, allowed in (
            (
                "sampler",
                self.sampler in SAMPLERS,
                f"one of {', '.join(SAMPLERS)} (DDIM is dbim with eta=0); "
                f"{' and '.join(NAMES)} are {'values too' if path else 'plans: pass plan=NAME'}",
            ),
            ("grid", not named or self.grid in grids.GRIDS, f"one of {', '.join(grids.GRIDS)}"),
            ("steps", not named or self.steps >= 1, "at least 1"),
            (
                "steps",
                not named or self.steps >= 2 or self.sampler not in DRIFTS,
                "at least 2 for euler and heun",
            ),
            ("rho", self.rho > 0, "positive"),
            ("churn", 0 <= self.churn < 1, "in [0, 1)"),
            ("eta", 0 <= self.eta <= 1, "in [0, 1]"),
            ("churn", self.sampler in DRIFTS or not self.churn, "0 except for euler and heun"),
            (
                "boot",
                self.sampler not in (*DRIFTS, CONSISTENCY) or not self.boot,
                "False except for dbim and the multistep samplers",
            ),
            ("eta", self.sampler == "dbim" or not self.eta, "0 except for dbim"),
        ):
            if not condition:
                name = f"{path}.{key}" if path else key
                raise ConfigError(
                    f"{name}={getattr(self, key)!r} is not allowed: it must be {allowed}."
                )

    def _check_types(self, path: str) -> None:
        """Refuses values of another type than the attribute has, such as steps=5.0."""
        numbers = (int, float, np.integer, np.floating)
        arrays = (np.ndarray, list, tuple, jax.Array)
        is_times = isinstance(self.grid, arrays) and _holds_numbers(self.grid)
        for key, types, allowed in (
            ("sampler", (str,), "a name"),
            ("steps", (int, np.integer), "an integer"),
            ("grid", arrays if is_times else (str,), "a name or an array of times"),
            ("rho", numbers, "a number"),
            ("churn", numbers, "a number"),
            ("eta", numbers, "a number"),
            ("boot", (bool, np.bool_), "True or False"),
        ):
            value = getattr(self, key)
            if not isinstance(value, types) or (key != "boot" and isinstance(value, bool)):
                name = f"{path}.{key}" if path else key
                raise ConfigError(
                    f"{name}={value!r} ({type(value).__name__}) is not allowed: it must be "
                    f"{allowed}."
                )

    def table(self, bridge: Bridge) -> Table:
        """Returns the sampler's table of coefficients on its grid.

        Raises:
          ConfigError: for values that `check` refuses.
          ValueError: for a grid that does not fit the bridge.
        """
        self.check()
        from_end = self.sampler not in DRIFTS or has_gaussian_endpoint(bridge.schedule)
        return SAMPLERS[self.sampler](bridge, self._times(bridge, from_end=from_end), self)

    def _times(self, bridge: Bridge, *, from_end: bool) -> np.ndarray:
        if not isinstance(self.grid, str):
            return np.asarray(self.grid)
        start = bridge.schedule.t_max - (0 if from_end else grids.DISTANCE_TO_END)
        if self.steps == 1:
            return np.array([start, 0.0])
        make = grids.GRIDS[self.grid]
        return make(bridge.schedule, self.steps, start=start, rho=self.rho)


def _holds_numbers(values: Any) -> bool:
    try:
        return np.asarray(values).dtype.kind in "fiu"
    except ValueError:  # rows of different lengths
        return False


def _check_left_out(options: dict[str, Any]) -> None:
    """Refuses sampler options next to a plan, which would not have an effect."""
    defaults = {"rho": Plan.rho, "churn": Plan.churn, "eta": Plan.eta, "boot": Plan.boot}
    given = [
        k for k, v in options.items() if v is not None and not (k in defaults and v == defaults[k])
    ]
    if given:
        raise DataError(
            f"A plan holds all sampler options: leave out {', '.join(given)}, or leave out plan."
        )


# Name -> function of (bridge, times, plan).
SAMPLERS: dict[str, Callable[[Bridge, np.ndarray, Plan], Table]] = {
    "euler": lambda b, times, plan: euler_table(b, times, churn=plan.churn),
    "heun": lambda b, times, plan: heun_table(b, times, churn=plan.churn),
    "dbim": lambda b, times, plan: dbim_table(b, times, eta=plan.eta, boot=plan.boot),
    "multistep2": lambda b, times, plan: multistep_table(b, times, order=2, boot=plan.boot),
    "consistency": lambda b, times, plan: consistency_table(b, times),
    "multistep3": lambda b, times, plan: multistep_table(b, times, order=3, boot=plan.boot),
}
