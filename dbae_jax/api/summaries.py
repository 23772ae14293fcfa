"""A model in words: `repr` and `summary` of `DBAE`."""

import jax

from dbae_jax.configuration.config import Config
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.prior.prior import Prior

_PARTS = {
    "encoder": "x_0 -> z",
    "decoder": "z -> x_T",
    "unet": "x_t, x_T, t, z -> x_0",
}


def describe(config: Config, variables: dict) -> str:
    """Returns the data, latent dimension, encoder, endpoint and number of parameters, in a line."""
    data, model = config.data, config.model
    encoder = "stochastic" if model.stochastic else "deterministic"
    endpoint = "Gaussian" if config.bridge.endpoint == "free" else "decoded"
    return (
        f"{data.name} {data.image_size}x{data.image_size}x{data.channels}, "
        f"{model.latent_dim}-dimensional z, {encoder} encoder, {endpoint} x_T, "
        f"{_count(variables.get('params', {})) / 1e6:.3g}M parameters"
    )


def table(config: Config, variables: dict, latent_prior: Prior | None) -> str:
    """Returns a line for each network, and lines about bridge, latent prior and sampler."""
    params = variables["params"]
    rows = [
        f"  {part:8}{_count(params[part]):>14,} parameters  {what}"
        for part, what in _PARTS.items()
        if part in params
    ]
    bridge, sample = config.bridge, config.sample
    return "\n".join(
        [
            *rows,
            f"  bridge  {bridge.schedule}, data_std={bridge.data_std:g}",
            f"  prior   {_of_prior(latent_prior)}",
            f"  sampler {sample.sampler}, {sample.steps} steps, {sample.grid} grid (config.sample)",
            f"  numbers {config.model.dtype}, weights {config.model.param_dtype}",
            *([f"  teacher {config.train.init_from}"] if is_distilled(config) else []),
        ]
    )


def _of_prior(latent_prior: Prior | None) -> str:
    if latent_prior is None:
        return "none"
    return f"{_count(latent_prior.variables['params']):,} parameters, step {latent_prior.step:,}"


def _count(tree: dict) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
