"""A Gaussian world (Gaussian data, linear networks), in which the bridge has closed forms.

x_0 ~ N(m, S), z = E x_0 + e + N(0, R), x_T = W z + b. Then (x_0, z, x_T, x_t) are jointly Gaussian
at every t, and x_0 | z ~ N(code_mean(z), U diag(l) U'). With the bridge marginal of the project,
  x_t | z ~ N(A x_T + B code_mean(z), U diag(B^2 l + C) U'),
from which denoiser, score, entropies, and the path of the probability-flow ODE follow.

All quantities here are conditioned on the latent code z. A quantity that is conditioned on x_T
alone, for instance E[x_0 | x_t, x_T], is the same formula in `world.with_endpoint_as_code()`, the
world whose code is x_T.

Arrays are float64 numpy arrays if nothing else is stated. Letters: d dimension of x_0, x_t and x_T;
k latent dimension; n number of samples. The data are well inside [-1, 1], so the clipping of
samplers has no effect.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from scipy.integrate import solve_ivp

from dbae_jax.bridge import schedules
from dbae_jax.bridge.marginals import expand, marginal_coefficients, marginal_mean
from dbae_jax.bridge.preconditioning import At
from dbae_jax.bridge.schedules import Schedule, namespace

SCHEDULES = {"vp": schedules.VP(), "ve": schedules.VE()}

# (t, x_t [n, d], z [n, k]) -> [n, d]: a denoiser, a score or a drift; t a scalar or [n]
StateFn = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Gaussian(NamedTuple):
    """N(mean, cov); mean: [n], cov: [n, n]."""

    mean: np.ndarray
    cov: np.ndarray

    def entropy(self) -> float:
        """Returns the differential entropy in nats."""
        return 0.5 * np.linalg.slogdet(2 * np.pi * np.e * self.cov)[1]

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Returns samples [count, n]; cov may be singular."""
        return rng.multivariate_normal(self.mean, self.cov, count, method="eigh")

    def block(self, start: int, stop: int) -> "Gaussian":
        """Returns the marginal distribution of the entries start, ..., stop - 1."""
        return Gaussian(self.mean[start:stop], self.cov[start:stop, start:stop])


def cross_entropy(q: Gaussian, p: Gaussian) -> float:
    """Returns -E_q log p."""
    shift = q.mean - p.mean
    quadratic = np.trace(np.linalg.solve(p.cov, q.cov + np.outer(shift, shift)))
    return 0.5 * (np.linalg.slogdet(2 * np.pi * p.cov)[1] + quadratic)


def kl(q: Gaussian, p: Gaussian) -> float:
    """Returns KL(q || p) in nats."""
    return cross_entropy(q, p) - q.entropy()


class Affine(NamedTuple):
    """x [..., n] -> matrix x + offset [..., m]; matrix: [m, n]."""

    matrix: np.ndarray
    offset: np.ndarray

    def __call__(self, x):
        xp = namespace(x)
        offset = self.offset.reshape((1,) * (x.ndim - 1) + (-1,))
        return x @ xp.asarray(self.matrix.T, x.dtype) + xp.asarray(offset, x.dtype)

    def push(self, x: Gaussian) -> Gaussian:
        """Returns the distribution of matrix x + offset for a Gaussian x."""
        return Gaussian(self.matrix @ x.mean + self.offset, self.matrix @ x.cov @ self.matrix.T)

    def mean_square(self, x: Gaussian) -> float:
        """Returns E |matrix x + offset|^2 for a Gaussian x."""
        image = self.push(x)
        return image.mean @ image.mean + np.trace(image.cov)


def affine_of(fn: Callable[[np.ndarray], np.ndarray], width: int) -> Affine:
    """Returns an affine function [n, width] -> [n, m], from its values at 0 and unit vectors."""
    values = fn(np.concatenate([np.zeros((1, width)), np.eye(width)]))
    return Affine((values[1:] - values[0]).T, values[0])


class Posterior(NamedTuple):
    """x_0 | z ~ N(code_mean(z), vectors diag(values) vectors')."""

    code_mean: Affine
    values: np.ndarray  # [d], may hold zeros
    vectors: np.ndarray  # [d, d], columns


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """The data distribution and two linear networks; an encoder without noise has covariance 0."""

    data: Gaussian
    encoder: Affine
    encoder_cov: np.ndarray
    decoder: Affine

    @property
    def widths(self) -> tuple[int, int]:
        """Dimensions d of x_0 and k of z."""
        return len(self.data.mean), len(self.encoder_cov)

    @functools.cached_property
    def code(self) -> Gaussian:
        """The aggregate posterior q(z)."""
        z = self.encoder.push(self.data)
        return Gaussian(z.mean, z.cov + self.encoder_cov)

    @functools.cached_property
    def posterior(self) -> Posterior:
        """The posterior q(x_0 | z); a pseudo-inverse, because z may have a singular covariance."""
        E = self.encoder.matrix
        gain = self.data.cov @ E.T @ np.linalg.pinv(self.code.cov, rcond=1e-12, hermitian=True)
        rest = np.eye(len(E.T)) - gain @ E
        # Joseph's form of the covariance is positive semidefinite even if S - gain E S cancels.
        cov = rest @ self.data.cov @ rest.T + gain @ self.encoder_cov @ gain.T
        values, vectors = np.linalg.eigh(cov)
        values = np.where(values > 1e-14, values, 0.0)
        return Posterior(Affine(gain, self.data.mean - gain @ self.code.mean), values, vectors)

    def with_endpoint_as_code(self) -> "World":
        """Returns the world whose code is x_T; it is equivalent if the decoder is injective."""
        W, b = self.decoder
        E, e = self.encoder
        d = len(b)
        return World(
            self.data,
            Affine(W @ E, W @ e + b),
            W @ self.encoder_cov @ W.T,
            Affine(np.eye(d), np.zeros(d)),
        )

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns x_0: [count, d] and z: [count, k]."""
        x_0 = self.data.sample(rng, count)
        noise = Gaussian(np.zeros(len(self.encoder_cov)), self.encoder_cov)
        return x_0, self.encoder(x_0) + noise.sample(rng, count)

    def joint(self, schedule: Schedule, t: float) -> Gaussian:
        """Returns the joint distribution of (x_0, x_t, z): [2 d + k]."""
        d, k = self.widths
        A, B, C = marginal_coefficients(schedule, np.float64(t))
        W, eye, cross = self.decoder.matrix, np.eye(d), self.data.cov @ self.encoder.matrix.T
        pair = Gaussian(
            np.r_[self.data.mean, self.code.mean],
            np.block([[self.data.cov, cross], [cross.T, self.code.cov]]),
        )
        to_joint = Affine(
            np.block([[eye, np.zeros((d, k))], [B * eye, A * W], [np.zeros((k, d)), np.eye(k)]]),
            np.r_[np.zeros(d), A * self.decoder.offset, np.zeros(k)],
        )
        mean, cov = to_joint.push(pair)
        cov[d : 2 * d, d : 2 * d] += C * eye
        return Gaussian(mean, cov)

    def state(self, schedule: Schedule, t: float) -> Gaussian:
        """Returns the joint distribution of (x_t, z): [d + k]."""
        d, k = self.widths
        return self.joint(schedule, t).block(d, 2 * d + k)

    def split(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns x_t and z from (x_t, z): [n, d + k]."""
        return state[:, : self.widths[0]], state[:, self.widths[0] :]

    def denoise(self, schedule: Schedule, t, x_t, x_T, code_mean):
        """Returns E[x_0 | x_t, z]: code_mean plus a gain of B l / (B^2 l + C) per eigenvector.

        Numerator and denominator of the gain are divided by 1 - r, so the gain is regular at T.
        t: scalar or [n]; x_t, x_T, code_mean: [n, ..., d]; numpy or jax arrays.
        """
        a, s2 = expand(schedule.alpha(t), x_t), expand(schedule.variance(t), x_t)
        gap = expand(schedule.snr_gap(t), x_t)
        values = self._values(x_t)
        residual = x_t - marginal_mean(schedule, t, code_mean, x_T)
        return code_mean + self._spectral(residual, a * values / (s2 + a * a * gap * values))

    def denoiser(self, schedule: Schedule) -> StateFn:
        """Returns (t, x_t, z) -> E[x_0 | x_t, z]."""

        def denoiser_fn(t, x_t, z):
            return self.denoise(schedule, t, x_t, self.decoder(z), self.posterior.code_mean(z))

        return denoiser_fn

    def score(self, schedule: Schedule) -> StateFn:
        """Returns (t, x_t, z) -> grad log q(x_t | z), computed without the denoiser."""

        def score_fn(t, x_t, z):
            residual = x_t - self.path_mean(schedule, t, z)
            return -self._spectral(residual, 1 / self._path_variances(schedule, t, x_t))

        return score_fn

    def path_mean(self, schedule: Schedule, t, z: np.ndarray) -> np.ndarray:
        """Returns E[x_t | z]: [n, d]."""
        return marginal_mean(schedule, t, self.posterior.code_mean(z), self.decoder(z))

    def path(self, schedule: Schedule, t, z: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Returns the state at t in [0, T] of the probability-flow path with label u: [n, d].

        Given z, all covariances commute, so the ODE's paths are E[x_t | z] + Cov[x_t | z]^(1/2) u.
        At T, the paths of all u meet in x_T. u ~ N(0, I) gives the marginals of x_t. u = 0 is the
        path of the mean, which a solver that starts at x_T at T follows.
        """
        scale = np.sqrt(self._path_variances(schedule, t, u))
        return self.path_mean(schedule, t, z) + self._spectral(u, scale)

    def path_label(self, schedule: Schedule, t, x_t: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Returns the label u of the path through x_t at t < T: the inverse of `path`."""
        scale = np.sqrt(self._path_variances(schedule, t, x_t))
        return self._spectral(x_t - self.path_mean(schedule, t, z), 1 / scale)

    def flow(self, schedule: Schedule, t_0, t, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Returns the exact solution of the probability-flow ODE at t in [0, T], from x at t_0."""
        return self.path(schedule, t, z, self.path_label(schedule, t_0, x, z))

    def entropy_given(self, schedule: Schedule, t: float) -> float:
        """Returns H(x_0 | x_t, z) in nats; for t = T, H(x_0 | z), as x_T is a function of z."""
        a, s2 = schedule.alpha(np.float64(t)), schedule.variance(np.float64(t))
        gap, values = schedule.snr_gap(np.float64(t)), self.posterior.values
        return 0.5 * np.sum(np.log(2 * np.pi * np.e * s2 * values / (s2 + a * a * gap * values)))

    def information(self) -> float:
        """Returns I(x_0; z) in nats."""
        values = self.posterior.values
        return 0.5 * (np.linalg.slogdet(self.data.cov)[1] - np.sum(np.log(values)))

    def information_at(self, schedule: Schedule, t: float) -> float:
        """Returns I(x_0; x_t | z) = 1/2 log det(1 + (B^2 / C) Cov[x_0 | z]) in nats."""
        _, B, C = marginal_coefficients(schedule, np.float64(t))
        return 0.5 * np.sum(np.log1p(B**2 / C * self.posterior.values))

    def _values(self, x):
        """Returns the eigenvalues of Cov[x_0 | z], as [1, ..., d] to scale x: [n, ..., d]."""
        values = self.posterior.values.reshape((1,) * (x.ndim - 1) + (-1,))
        return namespace(x).asarray(values, x.dtype)

    def _path_variances(self, schedule: Schedule, t, x: np.ndarray) -> np.ndarray:
        """Returns the eigenvalues of Cov[x_t | z], to scale x: [n, d]."""
        _, B, C = marginal_coefficients(schedule, t)
        return expand(B, x) ** 2 * self._values(x) + expand(C, x)

    def _spectral(self, x, scales):
        """Returns vectors diag(scales) vectors' x for x: [n, ..., d]."""
        vectors = namespace(x).asarray(self.posterior.vectors, x.dtype)
        return ((x @ vectors) * scales) @ vectors.T


def make_world(code_width: int, *, seed: int = 0, noise_free: bool = False) -> World:
    """Returns a random world with d = 3, data std 0.06 to 0.15 and endpoint std near 0.5.

    With latent dimension code_width = 2 the decoder is injective, and x_T lies in a plane. With 4
    the decoder loses one direction of z. Worlds of the same latent dimension have the same decoder
    for every seed.
    """
    rng, shared = np.random.default_rng([seed, code_width]), np.random.default_rng(code_width)
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    cov = rotation @ np.diag([0.15, 0.1, 0.06]) ** 2 @ rotation.T
    root = 0.4 * np.eye(code_width) + 0.1 * rng.standard_normal((code_width, code_width))
    return World(
        Gaussian(0.1 * rng.standard_normal(3), cov),
        Affine(5 * rng.standard_normal((code_width, 3)), 0.2 * rng.standard_normal(code_width)),
        (0 if noise_free else 1) * root @ root.T,
        Affine(0.25 * shared.standard_normal((3, code_width)), 0.2 * shared.standard_normal(3)),
    )


def make_denoise_fn(world: World, schedule: Schedule, z: np.ndarray | None = None):
    """Returns the exact denoiser for `integrate.integrate`: E[x_0 | x_t, x_T], or E[x_0 | x_t, z].

    The denoiser is (x_t [B, H, W, d], at, x_T [B, H, W, d]) -> [B, H, W, d], in jax and in the
    dtype of x_t. Every pixel is an independent sample of the world; its channels are the d
    coordinates. With z: [B, k], H and W must be 1.
    """
    given = world.with_endpoint_as_code() if z is None else world

    def denoise_fn(x_t: jax.Array, at: At, x_T: jax.Array) -> jax.Array:
        code = x_T if z is None else jax.numpy.asarray(z, x_t.dtype)[:, None, None, :]
        return given.denoise(schedule, at.t, x_t, x_T, given.posterior.code_mean(code))

    return denoise_fn


def time_at(schedule: Schedule, v):
    """Returns t = T / (1 + exp(-v)) and dt/dv. Equal steps of v are short steps near 0 and T."""
    t = schedule.t_max / (1 + np.exp(-v))
    return t, t / (1 + np.exp(v))


def place_of(schedule: Schedule, t):
    """Returns v, the inverse of `time_at`."""
    return np.log(t / (schedule.t_max - t))


def time_integral(fn: Callable[[float], float], schedule: Schedule, t_0: float, t_1: float):
    """Returns the integral of fn over [t_0, t_1], by order-16 Gauss-Legendre on panels of v."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    first, last = place_of(schedule, t_0), place_of(schedule, t_1)
    edges = np.linspace(first, last, int(np.ceil((last - first) / 1.5)) + 1)
    half = (edges[1] - edges[0]) / 2
    v = (edges[:-1, None] + half * (1 + nodes)).ravel()
    t, slope = time_at(schedule, v)
    values = np.array([fn(time) for time in t])
    return np.sum(values * slope * half * np.tile(weights, len(edges) - 1))


def propagate(
    world: World,
    schedule: Schedule,
    drift_fn: StateFn,
    start: Gaussian,
    times: list[float],
    *,
    noise: int,
) -> list[Gaussian]:
    """Returns the distributions of (x_t, z) under dx = drift dt + g dw with constant z.

    Solves d mean/dt = F mean + c, d cov/dt = F cov + cov F' + noise g^2 I with DOP853 in the
    variable v, to about 1e-9.

    Args:
      world: the world; its dimensions d and k are used.
      schedule: the noise schedule; its g^2 is used.
      drift_fn: drift of x_t, affine in (x_t, z).
      start: the distribution at times[0].
      times: times in (0, T), rising or falling.
      noise: 1 for a forward SDE, -1 for a reverse SDE (cov grows as t falls), 0 for an ODE.

    Returns:
      One Gaussian for each of times[1:].

    Raises:
      ArithmeticError: if the moments diverge, which means that the drift is wrong.
    """
    d, width, calls = world.widths[0], sum(world.widths), itertools.count()

    def slope_fn(v, packed):
        # A wrong drift may diverge or become stiff: raise an error instead of running for hours.
        if not np.abs(packed).max() < 1e8 or next(calls) > 20_000:
            raise ArithmeticError("the moments diverge, or the equations are stiff")
        t, slope = time_at(schedule, v)
        drift = affine_of(lambda state: drift_fn(t, *world.split(state)), width)
        mean, cov = packed[:width], packed[width:].reshape(width, width)
        F_cov, mean_slope = np.zeros((width, width)), np.zeros(width)
        F_cov[:d], mean_slope[:d] = drift.matrix @ cov, drift(mean)
        cov_slope = F_cov + F_cov.T
        cov_slope[range(d), range(d)] += noise * schedule.diffusion_squared(t)
        return slope * np.r_[mean_slope, cov_slope.ravel()]

    packed, out = np.r_[start.mean, start.cov.ravel()], []
    for t_0, t_1 in itertools.pairwise(times):
        span = place_of(schedule, t_0), place_of(schedule, t_1)
        packed = solve_ivp(slope_fn, span, packed, "DOP853", rtol=1e-11, atol=1e-15).y[:, -1]
        out.append(Gaussian(packed[:width], packed[width:].reshape(width, width)))
    return out
