"""Likelihood of latent codes under the prior: an upper bound on the NLL, in nats."""

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
    """Returns measure(variables) -> what the module reports of codes, at fixed draws."""
    diffusion = LatentDiffusion(config.prior.timesteps, config.prior.beta)
    uniform = np.random.default_rng(0).random((len(codes.mean), config.prior.bound_points))
    bound = diffusion.bound(config.prior.bound_points, uniform)
    batch = jax.jit(
        functools.partial(_measure_batch, build.make_latent_network(config), diffusion),
        out_shardings=sharding.replicated(mesh),
    )
    key = jax.random.key(0)
    size = batching.whole_size(config.prior.batch_size, mesh)

    def measure(variables: dict) -> dict[str, float]:
        def run(part, t, indices):
            return batch(variables, part, bound._replace(t=t), key, indices)

        everything = np.arange(len(codes.mean))
        parts = codes.at(everything), bound.t, everything
        rows = batching.run(run, *parts, size=size, mesh=mesh)
        values = {name: float(row.mean(dtype=np.float64)) for name, row in rows.items()}
        error = rows["prior_nll_nats"].std() / math.sqrt(len(everything))
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
    """Returns, for each code, what `make_measure` takes the means of: [B] each."""
    keys, shape = rngs.per_example(key, indices), batch["mean"].shape[1:]

    def noise_fn(index):
        return jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, index), shape))(keys)

    z, stats = batch["mean"], variables["stats"]
    if "sigma" in batch:
        z = z + batch["sigma"] * noise_fn(diffusion.timesteps)  # a number that no step has
    z_0 = prior.normalised(stats, z)
    eps_fn = functools.partial(network.predict, variables["params"])
    nll = diffusion.bound_terms(eps_fn, z_0, bound, noise_fn)
    rows = {
        "prior_nll_nats": nll,
        "gaussian_nll_nats": 0.5 * jnp.sum(z_0**2 + LOG_2_PI, axis=-1),
    }
    if "sigma" in batch:
        entropy = jnp.sum(jnp.log(batch["sigma"] / stats["std"]) + 0.5 * (LOG_2_PI + 1), axis=-1)
        rows["l_pr_nats"] = nll - entropy
    return rows
