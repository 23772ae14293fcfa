"""The latent diffusion model: forward process, L1 loss, likelihood bound, samplers.

z_0 [B, D] is a normalised latent code, without noise. Steps are counted from 0, and the state at
step t of 0 ... T - 1 is z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps, where
abar_t = (1 - beta)^(t + 1). So the state at step 0, written z_{t=0}, holds noise and is not the
code z_0. The reverse chain of the model is p(z_{t-1} | z_t) = N(mu(z_t, eps_hat), beta I), from
p(z_{T-1}) = N(0, I). Its last step is p(z_0 | z_{t=0}).

Coefficients are computed in float64 on the host. `eps_fn(z_t, t)` estimates eps from z_t [B, D]
and steps t [B].

Source: DDPM (Ho et al., 2020), with the larger of its two variances, as in DiffAE; DDIM (Song et
al., 2021).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# (z_t [B, D], steps t [B]) -> estimate of eps [B, D]
EpsFn = Callable[[jax.Array, jax.Array], jax.Array]
# index of a random draw -> standard normal noise [B, D]
NoiseFn = Callable[[jax.Array], jax.Array]

SAMPLERS = ("ancestral", "ddim")


class Table(NamedTuple):
    """The coefficients of a sampler: row by row, z <- w_z z + w_eps eps_hat + w_noise noise."""

    t: np.ndarray  # [S], int32, falling to 0
    w_z: np.ndarray  # [S]
    w_eps: np.ndarray  # [S]
    w_noise: np.ndarray  # [S]


class Bound(NamedTuple):
    """The coefficients of the likelihood bound; see `LatentDiffusion.bound_terms`."""

    t: np.ndarray  # [B, N], int32, the steps at which eps_hat is evaluated, for each code
    weight: np.ndarray  # [N], the weight of |eps - eps_hat|^2
    constant: float  # nats per dimension that depend neither on z nor on the network


@dataclasses.dataclass(frozen=True)
class LatentDiffusion:
    """The diffusion of normalised latent codes: T = `timesteps` steps with a constant `beta`."""

    timesteps: int = 1000
    beta: float = 0.008

    @functools.cached_property
    def log_abar(self) -> np.ndarray:
        """Logarithms of abar_t: [T], float64."""
        return np.arange(1, self.timesteps + 1) * math.log1p(-self.beta)

    def noised(self, z_0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
        """Returns z_t: [B, D] for z_0: [B, D], steps t: [B] and noise eps: [B, D]."""
        signal = jnp.asarray(np.exp(0.5 * self.log_abar), jnp.float32)[t][:, None]
        noise = jnp.asarray(np.sqrt(-np.expm1(self.log_abar)), jnp.float32)[t][:, None]
        return signal * z_0 + noise * eps

    def loss(self, eps_fn: EpsFn, z_0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
        """Returns the mean over D of |eps - eps_hat| for each code: [B]."""
        return jnp.abs(eps_fn(self.noised(z_0, t, eps), t) - eps).mean(axis=-1)

    def table(self, sampler: str, steps: int, eta: float = 0.0) -> Table:
        """Returns the table of a sampler.

        Args:
          sampler: "ancestral", the reverse chain of the model without noise in its last step, or
            "ddim".
          steps: number of network evaluations, at most T. The steps are evenly spaced from T - 1
            to 0, both included; a single step is T - 1.
          eta: amount of noise of "ddim", from 0 (deterministic) to 1 (the variance of the posterior
            q(z_{t-1} | z_t, z_0)). It must be 0 for "ancestral".

        Raises:
          ValueError: for an unknown sampler, or a value out of range.
        """
        if sampler not in SAMPLERS:
            names = ", ".join(SAMPLERS)
            raise ValueError(
                f"the sampler {sampler!r} of the latent prior is not allowed: it must be one of "
                f"{names}."
            )
        if not 1 <= steps <= self.timesteps:
            raise ValueError(
                f"steps={steps} of the latent prior is not allowed: it must be 1 to "
                f"{self.timesteps}."
            )
        if not 0 <= eta <= 1 or (eta and sampler == "ancestral"):
            raise ValueError(
                f"eta={eta} of the latent prior is not allowed: it must be in [0, 1], and 0 for "
                "ancestral."
            )
        t = np.round(np.linspace(self.timesteps - 1, 0, steps)).astype(np.int32)
        abar = np.exp(self.log_abar[t])
        next_abar = np.append(abar[1:], 1.0)
        # The variance that the forward process adds from the next step to this one, and the
        # variance of the forward process's posterior of the next state.
        added = -np.expm1(self.log_abar[t] - np.append(self.log_abar[t[1:]], 0.0))
        posterior = (1 - next_abar) / (1 - abar) * added
        variance = {"ancestral": added, "ddim": eta**2 * posterior}[sampler]
        # An ancestral step has the mean of the posterior, which is the mean of DDIM at eta = 1.
        eps_scale = np.sqrt(1 - next_abar - (posterior if sampler == "ancestral" else variance))
        w_z = np.sqrt(next_abar / abar)
        w_eps = eps_scale - w_z * np.sqrt(1 - abar)
        w_noise = np.where(np.arange(steps) == steps - 1, 0.0, np.sqrt(variance))
        return Table(t, *(w.astype(np.float32) for w in (w_z, w_eps, w_noise)))

    def bound(self, points: int, uniform: np.ndarray) -> Bound:
        """Returns the coefficients of the variational bound on -log p(z_0).

        With fewer than T points, the sum over steps in the bound is estimated from random steps:
        the total weight is cut into `points` equal strata, and one step is drawn from each stratum
        in proportion to the weights of the steps.

        Args:
          points: number of steps per code. T or more means every step.
          uniform: random numbers [B, points] in [0, 1), the position of each step in its stratum.
        """
        # |mu_posterior - mu|^2 / (2 beta) = weight * |eps - eps_hat|^2. At step 0,
        # |z_0 - mu|^2 / (2 beta) is the same expression.
        weight = self.beta / (2 * (1 - self.beta) * -np.expm1(self.log_abar))
        t = np.broadcast_to(np.arange(self.timesteps), (len(uniform), self.timesteps))
        if points < self.timesteps:
            fraction = (np.arange(points) + uniform) / points  # of the total weight
            t = np.searchsorted(np.cumsum(weight), fraction * weight.sum(), side="right")
            t = np.minimum(t, self.timesteps - 1)  # rounding could give T
            weight = np.full(points, weight.sum() / points)
        return Bound(t.astype(np.int32), weight.astype(np.float32), self._constant())

    def _constant(self) -> float:
        """Returns, per dimension, the KL terms of the variances and the normaliser of step 0."""
        noise_var = -np.expm1(self.log_abar)  # 1 - abar
        ratio = noise_var[:-1] / noise_var[1:]  # variance of the posterior divided by beta
        kl_of_variances = 0.5 * np.sum(ratio - 1 - np.log(ratio))
        return float(kl_of_variances + 0.5 * math.log(2 * math.pi * self.beta))

    def bound_terms(
        self, eps_fn: EpsFn, z_0: jax.Array, bound: Bound, noise_fn: NoiseFn
    ) -> jax.Array:
        """Returns estimates of an upper bound on the NLL -log p(z_0) of each code, in nats: [B].

        The estimate is unbiased, with one noise per step. It is of the variational bound
        KL(q(z_{T-1} | z_0) || N(0, I)) - log p(z_0 | z_{t=0})
        + sum over t = 1 ... T - 1 of KL(q(z_{t-1} | z_t, z_0) || p(z_{t-1} | z_t)),
        where z_{t-1} at t = 1 is z_{t=0}. p is a density, so the bound may be negative.

        Args:
          eps_fn: the network's estimate of eps.
          z_0: normalised codes [B, D].
          bound: coefficients that `bound` returns.
          noise_fn: function that returns the i-th noise, [B, D].
        """
        dim = z_0.shape[-1]

        def add(total, row):
            t, weight, index = row
            eps = noise_fn(index)
            error = eps_fn(self.noised(z_0, t, eps), t) - eps
            return total + weight * jnp.sum(error**2, axis=-1), None

        rows = (bound.t.T, bound.weight, np.arange(len(bound.weight)))
        total, _ = lax.scan(add, jnp.zeros(z_0.shape[0]), rows)
        last = self.log_abar[-1]
        # Twice KL(q(z_{T-1} | z_0) || N(0, I)).
        first_kl = math.exp(last) * jnp.sum(z_0**2, axis=-1)
        first_kl = first_kl + dim * (-math.exp(last) - math.log(-math.expm1(last)))
        return total + 0.5 * first_kl + dim * bound.constant


def sample(eps_fn: EpsFn, z: jax.Array, table: Table, noise_fn: NoiseFn) -> jax.Array:
    """Returns sampled normalised codes [B, D]: one scan over the rows of a table.

    Args:
      eps_fn: the network's estimate of eps.
      z: the initial state z_{T-1}, standard normal, [B, D].
      table: coefficients that `LatentDiffusion.table` returns; may be traced.
      noise_fn: function that returns the noise of the i-th row, [B, D].
    """

    def step(z, row):
        index, t, w_z, w_eps, w_noise = row
        eps = eps_fn(z, jnp.full(z.shape[0], t))
        return w_z * z + w_eps * eps + w_noise * noise_fn(index), None

    return lax.scan(step, z, (np.arange(len(table.t)), *table))[0]
