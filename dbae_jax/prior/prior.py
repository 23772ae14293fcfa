"""The trained prior of the codes: where it lies, how it is read, how codes are drawn from it."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config, from_dict, upgrade
from dbae_jax.errors import CheckpointError, DataError
from dbae_jax.models.latent_net import LatentNetwork
from dbae_jax.prior import diffusion
from dbae_jax.prior.diffusion import LatentDiffusion
from dbae_jax.runtime import batching, fingerprint, rngs, sharding
from dbae_jax.workdirs import checkpoint, workdir

FOLDER = "prior"  # of a workdir: the prior's checkpoints, records and codes
# In a checkpoint's meta: {"step", "weights", "fingerprint"} of the model whose codes it learned.
AUTOENCODER = "autoencoder"

# A prior goes on training only with the same values of these.
FIXED = (
    *("seed", "data.", "model.", "bridge."),
    *(f"prior.{key}" for key in ("num_layers", "width", "timesteps", "beta", "sample_codes")),
    *(f"prior.{key}" for key in ("optimizer", "batch_size")),
)


class Prior:
    """Draws codes z from a trained network."""

    def __init__(
        self,
        config: Config,
        network: LatentNetwork,
        variables: dict,
        *,
        step: int,
        mesh: jax.sharding.Mesh | None = None,
    ):
        """Wraps variables {"params", "stats": {"mean": [D], "std": [D]}} of the codes.

        `step`: that they were trained to. `mesh`: devices that share the work; the variables must
        lie on all of them.
        """
        self.step = step
        self.config = config.prior
        self.variables = variables
        self._network = network
        self._diffusion = LatentDiffusion(config.prior.timesteps, config.prior.beta)
        self._mesh = mesh
        self._draw = jax.jit(
            self._draw_batch, out_shardings=None if mesh is None else sharding.replicated(mesh)
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """A short name of the weights, see `fingerprint.of`."""
        return fingerprint.of(self.variables)

    def sample(
        self,
        num: int,
        key: jax.Array,
        *,
        batch_size: int,
        sampler: str | None = None,
        steps: int | None = None,
        eta: float = 0.0,
    ) -> np.ndarray:
        """Draws codes: [num, D], float32.

        Args:
          num: how many.
          key: one key, folded with each code's place, or keys [num].
          batch_size: codes at a time.
          sampler: "ancestral" or "ddim"; default what the config says, as for `steps`.
          steps: evaluations of the network.
          eta: ddim: from 0, deterministic but for its start, to 1.

        Raises:
          DataError: for a sampler that there is not, or values out of range.
        """
        sampler = self.config.sampler if sampler is None else sampler
        steps = self.config.sample_steps if steps is None else steps
        try:
            table = self._diffusion.table(sampler, steps, eta)
        except ValueError as error:
            raise DataError(str(error)) from error
        size = batching.whole_size(batch_size, self._mesh)

        def draw(indices):
            return self._draw(self.variables, key, indices, table)

        return batching.run(draw, np.arange(num), size=size, mesh=self._mesh)

    def _draw_batch(self, variables, key, indices, table):
        keys = jax.vmap(lambda k: rngs.stream(k, "prior"))(rngs.per_example(key, indices))
        shape = (self._network.latent_dim,)

        def noise_fn(index):  # the start has a number that no step has
            return jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, index), shape))(keys)

        eps_fn = functools.partial(self._network.predict, variables["params"])
        start = noise_fn(self._diffusion.timesteps)
        z = diffusion.sample(eps_fn, start, table, noise_fn)
        return denormalised(variables["stats"], z)


def normalised(stats: dict, z: jax.Array) -> jax.Array:
    """Returns (z - mean) / std of codes [B, D]."""
    return (z - stats["mean"]) / stats["std"]


def denormalised(stats: dict, z: jax.Array) -> jax.Array:
    """Undoes `normalised`."""
    return z * stats["std"] + stats["mean"]


def load(
    directory: pathlib.Path,
    weights: dict[str, Any],
    model_fingerprint: str,
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> Prior:
    """Reads the prior of a workdir, its averaged weights.

    Args:
      directory: the workdir of the model.
      weights: {"step", "weights"} of the model that decodes the codes.
      model_fingerprint: of that model, see `fingerprint.of`: with `weights` all that AUTOENCODER
        names in the prior's meta.
      mesh: devices that share the work; default the first.

    Raises:
      CheckpointError: if there is none, or it was trained on the codes of other weights.
    """
    folder = directory / FOLDER
    if not checkpoint.steps(folder):
        raise CheckpointError(
            f"The model in {directory} has no latent prior to sample from; train one with "
            "--mode=train_prior."
        )
    placed = None if mesh is None else sharding.replicated(mesh)
    autoencoder = weights | {"fingerprint": model_fingerprint}

    def read(step: int) -> Prior:
        meta = checkpoint.read_meta(folder, step)
        check_same_codes(folder, meta, autoencoder)
        config = from_dict(upgrade(meta["config"]))
        network = build.make_latent_network(config)
        abstract = jax.eval_shape(lambda key: first_variables(network, key), jax.random.key(0))
        abstract = workdir.placed(abstract, placed)
        variables = checkpoint.read_variables(folder, step, "ema", abstract)
        return Prior(config, network, variables, step=step, mesh=mesh)

    return checkpoint.newest_readable(folder, read)[1]


def check_same_codes(
    folder: pathlib.Path, meta: dict[str, Any], autoencoder: dict[str, Any]
) -> None:
    """Refuses a prior that was trained on the codes of other weights.

    Raises:
      CheckpointError: naming both.
    """
    there = meta[AUTOENCODER]  # of older versions: without a fingerprint
    if any(autoencoder[key] != value for key, value in there.items()):
        raise CheckpointError(
            f"The prior in {folder} was trained on the codes of {_whose(there)}, not of "
            f"{_whose(autoencoder)}: load those, or move the folder away and train a prior anew "
            "with --mode=train_prior."
        )


def _whose(autoencoder: dict[str, Any]) -> str:
    weights = f"the {autoencoder['weights']} weights of step {autoencoder['step']}"
    return f"{weights} ({autoencoder.get('fingerprint', 'fingerprint unknown')})"


def first_variables(network: LatentNetwork, key: jax.Array) -> dict:
    """Draws weights; mean and std of the codes are placeholders, to be replaced."""
    nothing = jnp.zeros(network.latent_dim)
    return {"params": network.init(key), "stats": {"mean": nothing, "std": nothing}}
