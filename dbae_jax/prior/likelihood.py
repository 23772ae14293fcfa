"""Negative log-likelihood (NLL) of latent codes under the latent prior: upper bounds, in nats."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config
from dbae_jax.data.codes import Codes
from dbae_jax.models.latent_net import LatentNetwork
from dbae_jax.prior import prior
from dbae_jax.prior.diffusion import Bound, LatentDiffusion
from dbae_jax.runtime import batching, rngs, sharding

LOG_2_PI = math.log(2 * math.pi)


def make_measure(
    config: Config, codes: Codes, mesh: jax.sharding.Mesh
) -> Callable[[dict], dict[str, float]]:
    """Returns measure(variables) -> likelihood results of `codes`, with fixed random numbers.

    The results are means over the codes, in nats:
      prior_nll_nats: upper bound on the NLL of normalised codes under the latent prior.
      prior_nll_se: standard error of that mean.
      gaussian_nll_nats: NLL of normalised codes under N(0, I).
      l_pr_nats: for a stochastic encoder, upper bound on L_PR = E KL(q(z | x_0) || p(z)).

    Args:
      config: the config, whose section `prior` describes the latent prior.
      codes: N latent codes; with the standard deviations of a stochastic encoder, z is sampled.
      mesh: devices that share the work.
    """
    diffusion = LatentDiffusion(config.prior.timesteps, config.prior.beta)
    uniform = np.random.default_rng(0).random((len(codes.mean), config.prior.bound_points))
    bound = diffusion.bound(config.prior.bound_points, uniform)
    measure_batch = jax.jit(
        functools.partial(_measure_batch, build.make_latent_network(config), diffusion),
        out_shardings=sharding.results(mesh),
    )
    key = jax.random.key(0)
    size = batching.whole_size(config.prior.batch_size, mesh)

    def measure(variables: dict) -> dict[str, float]:
        def run(batch, t, indices):
            return measure_batch(variables, batch, bound._replace(t=t), key, indices)

        indices = np.arange(len(codes.mean))
        arrays = codes.at(indices), bound.t, indices
        per_code = batching.run(run, *arrays, size=size, mesh=mesh)
        values = {name: float(nats.mean(dtype=np.float64)) for name, nats in per_code.items()}
        error = per_code["prior_nll_nats"].std() / math.sqrt(len(indices))
        return values | {"prior_nll_se": float(error)}

    return measure


def _measure_batch(
    network: LatentNetwork,
    diffusion: LatentDiffusion,
    variables: dict,
    batch: dict,
    bound: Bound,
    key: jax.Array,
    indices: jax.Array,
) -> dict[str, jax.Array]:
    """Returns the results of `make_measure` for each code of a batch: [B] each."""
    keys, shape = rngs.per_example(key, indices), batch["mean"].shape[1:]

    def noise_fn(index):
        return jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, index), shape))(keys)

    z, stats = batch["mean"], variables["stats"]
    if "sigma" in batch:
        # Noises 0 ... timesteps - 1 belong to the steps of the bound.
        z = z + batch["sigma"] * noise_fn(diffusion.timesteps)
    z_0 = prior.normalised(stats, z)
    eps_fn = functools.partial(network.predict, variables["params"])
    nll = diffusion.bound_terms(eps_fn, z_0, bound, noise_fn)
    nats = {
        "prior_nll_nats": nll,
        "gaussian_nll_nats": 0.5 * jnp.sum(z_0**2 + LOG_2_PI, axis=-1),
    }
    if "sigma" in batch:
        entropy = jnp.sum(jnp.log(batch["sigma"] / stats["std"]) + 0.5 * (LOG_2_PI + 1), axis=-1)
        nats["l_pr_nats"] = nll - entropy
    return nats
