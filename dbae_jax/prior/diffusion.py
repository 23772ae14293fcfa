"""Diffusion of codes: forward process, L1 loss, bound on the likelihood, samplers.

z_0 [B, D] is a normalised code; step t of 0 ... T - 1 gives
z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps, abar_t the product of 1 - beta up to t. The reverse
chain of the model is p(z_{t-1} | z_t) = N(mu(z_t, eps_hat), beta), from p(z_{T-1}) = N(0, I).

Coefficients are made in float64 on the host; `eps_fn(z_t, t)` estimates eps from z_t [B, D] and
steps t [B].

Source: Ho et al. (2020), with the larger of its two variances, as DiffAE; DDIM: Song et al. (2021).
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

EpsFn = Callable[[jax.Array, jax.Array], jax.Array]

SAMPLERS = ("ancestral", "ddim")


class Table(NamedTuple):
    """A sampler on its steps: z <- w_z z + w_eps eps_hat + w_noise noise, row by row."""

    t: np.ndarray  # [S], int32, falling to 0
    w_z: np.ndarray  # [S]
    w_eps: np.ndarray  # [S]
    w_noise: np.ndarray  # [S]


class Bound(NamedTuple):
    """Coefficients of the bound; see `bound_terms`."""

    t: np.ndarray  # [B, N], steps at which the error of eps_hat is taken, for each code
    weight: np.ndarray  # [N], of |eps - eps_hat|^2
    constant: float  # nats a dimension, what does not depend on z or the network


@dataclasses.dataclass(frozen=True)
class LatentDiffusion:
    """The process: `timesteps` steps of one `beta`."""

    timesteps: int = 1000
    beta: float = 0.008

    @functools.cached_property
    def log_abar(self) -> np.ndarray:
        """log abar_t: [T], float64."""
        return np.arange(1, self.timesteps + 1) * math.log1p(-self.beta)

    def noised(self, z_0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
        """Returns z_t: [B, D] for z_0: [B, D], steps t: [B] and noise eps: [B, D]."""
        signal = jnp.asarray(np.exp(0.5 * self.log_abar), jnp.float32)[t][:, None]
        noise = jnp.asarray(np.sqrt(-np.expm1(self.log_abar)), jnp.float32)[t][:, None]
        return signal * z_0 + noise * eps

    def loss(self, eps_fn: EpsFn, z_0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
        """Returns the mean of |eps - eps_hat| for each code: [B]."""
        return jnp.abs(eps_fn(self.noised(z_0, t, eps), t) - eps).mean(axis=-1)

    def table(self, sampler: str, steps: int, eta: float = 0.0) -> Table:
        """Tabulates a sampler.

        Args:
          sampler: "ancestral", the model's own chain but for the noise of its last step, or "ddim".
          steps: evaluations of the network, at most T: spread evenly over 0 ... T - 1, both
            included (one step: T - 1).
          eta: ddim: from 0, deterministic, to 1, the noise of the posterior q(z_{t-1} | z_t, z_0).

        Raises:
          ValueError: for another sampler, or values out of range.
        """
        if sampler not in SAMPLERS:
            raise ValueError(f"prior sampler {sampler!r}: it must be one of {', '.join(SAMPLERS)}.")
        if not 1 <= steps <= self.timesteps:
            raise ValueError(f"prior steps {steps}: they must be 1 to {self.timesteps}.")
        if not 0 <= eta <= 1 or (eta and sampler == "ancestral"):
            raise ValueError(f"prior eta {eta}: it must be in [0, 1], and 0 for ancestral.")
        t = np.round(np.linspace(self.timesteps - 1, 0, steps)).astype(np.int32)
        abar = np.exp(self.log_abar[t])
        after = np.append(abar[1:], 1.0)
        # variance that the forward process adds between the two, and that of its posterior
        added = -np.expm1(self.log_abar[t] - np.append(self.log_abar[t[1:]], 0.0))
        posterior = (1 - after) / (1 - abar) * added
        variance = {"ancestral": added, "ddim": eta**2 * posterior}[sampler]
        # Ancestral steps have the posterior's mean, which is DDIM's at eta = 1.
        kept = np.sqrt(1 - after - (posterior if sampler == "ancestral" else variance))
        w_z = np.sqrt(after / abar)
        w_eps = kept - w_z * np.sqrt(1 - abar)
        w_noise = np.where(np.arange(steps) == steps - 1, 0.0, np.sqrt(variance))
        return Table(t, *(w.astype(np.float32) for w in (w_z, w_eps, w_noise)))

    def bound(self, points: int, uniform: np.ndarray) -> Bound:
        """Prepares the variational bound on -log p(z_0), its sum over steps taken at some of them.

        Args:
          points: steps drawn, in proportion to their weights, one from each of as many equal
            shares of the whole weight. T or more: every step.
          uniform: [B, points], in [0, 1): where in its share each drawn step lies.
        """
        # |mu_posterior - mu|^2 / (2 beta) is this times |eps - eps_hat|^2; so is, at step 0,
        # |z_0 - mu|^2 / (2 beta).
        weight = self.beta / (2 * (1 - self.beta) * -np.expm1(self.log_abar))
        t = np.broadcast_to(np.arange(self.timesteps), (len(uniform), self.timesteps))
        if points < self.timesteps:
            share = (np.arange(points) + uniform) / points
            t = np.searchsorted(np.cumsum(weight), share * weight.sum(), side="right")
            t = np.minimum(t, self.timesteps - 1)  # the last share's end may round beyond
            weight = np.full(points, weight.sum() / points)
        return Bound(t.astype(np.int32), weight.astype(np.float32), self._constant())

    def _constant(self) -> float:
        """Returns, for one dimension, the KLs of the variances and the normaliser of step 0."""
        left = -np.expm1(self.log_abar)
        ratio = left[:-1] / left[1:]  # variance of the posterior over beta
        variances = 0.5 * np.sum(ratio - 1 - np.log(ratio))
        return float(variances + 0.5 * math.log(2 * math.pi * self.beta))

    def bound_terms(
        self, eps_fn: EpsFn, z_0: jax.Array, bound: Bound, noise_fn: Callable
    ) -> jax.Array:
        """Returns an upper bound on -log p(z_0) for each code, in nats: [B].

        Unbiased for the variational bound
        KL(q(z_{T-1} | z_0) || N(0, I)) + sum_t KL(q(z_{t-1} | z_t, z_0) || p(z_{t-1} | z_t))
        - log p(z_0 | z_1), with one noise a step; p is a density, so it may be negative.

        Args:
          eps_fn: the network.
          z_0: [B, D].
          bound: of `LatentDiffusion.bound`.
          noise_fn: index of a noise -> standard normal [B, D].
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
        end = math.exp(last) * jnp.sum(z_0**2, axis=-1)
        end = end + dim * (-math.exp(last) - math.log(-math.expm1(last)))
        return total + 0.5 * end + dim * bound.constant


def sample(eps_fn: EpsFn, z: jax.Array, table: Table, noise_fn: Callable) -> jax.Array:
    """Runs a table from z: [B, D], standard normal, to normalised codes [B, D]: one scan.

    Args:
      eps_fn: the network.
      z: the start, z_{T-1}.
      table: of `LatentDiffusion.table`; may be traced.
      noise_fn: index of a step -> standard normal [B, D].
    """

    def step(z, row):
        index, t, w_z, w_eps, w_noise = row
        eps = eps_fn(z, jnp.full(z.shape[0], t))
        return w_z * z + w_eps * eps + w_noise * noise_fn(index), None

    return lax.scan(step, z, (np.arange(len(table.t)), *table))[0]
