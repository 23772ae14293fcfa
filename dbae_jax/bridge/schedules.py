"""Noise schedules VP and VE of the reference diffusion, x_t | x_0 ~ N(a_t x_0, s_t^2 I).

VP and VE differ only in this file. `Free` wraps a schedule for a Gaussian x_T (DiffAE).

All formulas stay accurate in float32 near t = 0 and near t = T. Small quantities are computed
directly (expm1, factored differences), never as 1 minus a number near 1. Functions take jax or
numpy arrays and return arrays of the same library: the same formulas run in float32 on a device
and in float64 on the host.

Source: DBAE, section 2.1 and appendix; EDM (Karras et al., 2022) for the VE time range.
"""

import dataclasses
import math
from types import ModuleType
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Array = TypeVar("Array", jax.Array, np.ndarray)
Scalar = Any  # a float64 scalar of numpy, for which functions of arrays work too


def namespace(t: Array) -> ModuleType:
    """Returns jax.numpy for jax arrays (and tracers), numpy for everything else."""
    return jnp if isinstance(t, jax.Array) else np


class Schedule(Protocol):
    """A linear diffusion dx = f(t) x dt + g(t) dw on [0, t_max], with SNR_t = a_t^2 / s_t^2.

    T is `t_max`. Training draws t from [`t_min`, T]. The time grids of samplers fall from T, or
    just below it, to 0; most have `t_min` as their last time above 0. t: times in [0, t_max], of
    any shape. Every method of t returns an array of the shape of t.
    """

    @property
    def t_min(self) -> float: ...

    @property
    def t_max(self) -> float: ...

    def snr_end(self) -> float:
        """Returns SNR_T. It is 0 for a Gaussian x_T that is independent of z, see `Free`."""

    def alpha(self, t: Array) -> Array:
        """Returns a_t, the scale of x_0 in x_t."""

    def variance(self, t: Array) -> Array:
        """Returns s_t^2, the variance of x_t given x_0."""

    def snr_ratio(self, t: Array) -> Array:
        """Returns r_t = SNR_T / SNR_t, from 0 at t = 0 to 1 at T; 0 everywhere for `Free`."""

    def snr_gap(self, t: Array) -> Array:
        """Returns 1 - r_t, without cancellation near T."""

    def alpha_ratio(self, t: Array) -> Array:
        """Returns a_t / a_T."""

    def drift(self, t: Array) -> Array:
        """Returns f(t)."""

    def diffusion_squared(self, t: Array) -> Array:
        """Returns g(t)^2."""


@dataclasses.dataclass(frozen=True)
class VE:
    """Variance exploding: a = 1, s = t, f = 0, g^2 = 2 t."""

    t_min: float = 0.002
    t_max: float = 80.0

    def snr_end(self) -> float:
        return self.t_max**-2

    def alpha(self, t: Array) -> Array:
        return namespace(t).ones_like(t)

    def variance(self, t: Array) -> Array:
        return t * t

    def snr_ratio(self, t: Array) -> Array:
        return (t / self.t_max) ** 2

    def snr_gap(self, t: Array) -> Array:
        return ((self.t_max - t) / self.t_max) * ((self.t_max + t) / self.t_max)

    def alpha_ratio(self, t: Array) -> Array:
        return namespace(t).ones_like(t)

    def drift(self, t: Array) -> Array:
        return namespace(t).zeros_like(t)

    def diffusion_squared(self, t: Array) -> Array:
        return 2 * t


@dataclasses.dataclass(frozen=True)
class VP:
    """Variance preserving: beta(t) = beta_min + beta_d t, s^2 = 1 - a^2, f = -beta/2, g^2 = beta.

    With the default values a_T = 0.58, so x_T of the reference diffusion is not close to noise.
    """

    t_min: float = 1e-4
    t_max: float = 1.0
    beta_d: float = 2.0
    beta_min: float = 0.1

    def _m(self, t: Any) -> Any:
        """Returns m_t = -2 log a_t, the integral of beta from 0 to t; SNR_t = 1 / expm1(m_t)."""
        return t * (0.5 * self.beta_d * t + self.beta_min)

    def _m_to_end(self, t: Array) -> Array:
        """Returns m_T - m_t with the factor T - t, which is exact in floating point near T."""
        return (self.t_max - t) * (0.5 * self.beta_d * (self.t_max + t) + self.beta_min)

    def snr_end(self) -> float:
        return 1 / math.expm1(self._m(self.t_max))

    def alpha(self, t: Array) -> Array:
        return namespace(t).exp(-0.5 * self._m(t))

    def variance(self, t: Array) -> Array:
        return -namespace(t).expm1(-self._m(t))

    def snr_ratio(self, t: Array) -> Array:
        return namespace(t).expm1(self._m(t)) * self.snr_end()

    def snr_gap(self, t: Array) -> Array:
        xp = namespace(t)
        return xp.exp(self._m(t)) * xp.expm1(self._m_to_end(t)) * self.snr_end()

    def alpha_ratio(self, t: Array) -> Array:
        return namespace(t).exp(0.5 * self._m_to_end(t))

    def drift(self, t: Array) -> Array:
        return -0.5 * self.diffusion_squared(t)

    def diffusion_squared(self, t: Array) -> Array:
        return self.beta_min + self.beta_d * t


@dataclasses.dataclass(frozen=True)
class Free:
    """The schedule of DiffAE: x_T is Gaussian noise, independent of z (bridge.endpoint="free").

    The class wraps a diffusion and takes the limit SNR_T -> 0 of the bridge's coefficients. Then
    r = 0, so A = 0, B = a, C = s^2 and h = 0: q(x_t | x_0, x_T) does not depend on x_T, and equals
    q(x_t | x_0) of the wrapped diffusion. The wrapped diffusion's own SNR_T should be near 0, so
    that its x_T is nearly independent of x_0.
    """

    diffusion: Schedule

    @property
    def t_min(self) -> float:
        return self.diffusion.t_min

    @property
    def t_max(self) -> float:
        return self.diffusion.t_max

    def snr_end(self) -> float:
        return 0.0

    def alpha(self, t: Array) -> Array:
        return self.diffusion.alpha(t)

    def variance(self, t: Array) -> Array:
        return self.diffusion.variance(t)

    def snr_ratio(self, t: Array) -> Array:
        return namespace(t).zeros_like(t)

    def snr_gap(self, t: Array) -> Array:
        return namespace(t).ones_like(t)

    def alpha_ratio(self, t: Array) -> Array:
        return self.diffusion.alpha_ratio(t)

    def drift(self, t: Array) -> Array:
        return self.diffusion.drift(t)

    def diffusion_squared(self, t: Array) -> Array:
        return self.diffusion.diffusion_squared(t)
