"""The trained latent prior: loading it from a workdir, and sampling latent codes from it."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config, from_dict, upgrade
from dbae_jax.errors import CheckpointError, DataError, MissingPriorError
from dbae_jax.models.latent_net import LatentNetwork
from dbae_jax.prior import diffusion
from dbae_jax.prior.diffusion import LatentDiffusion
from dbae_jax.runtime import batching, fingerprint, rngs, sharding
from dbae_jax.workdirs import checkpoint

# Folder of a workdir that holds the latent prior's checkpoints, records and latent codes.
FOLDER = "prior"
# Key in the meta of a latent prior's checkpoint. The value is the identity, see `identity_of`, of
# the autoencoder whose codes the latent prior was trained on.
AUTOENCODER = "autoencoder"

# Training of a latent prior resumes only if these config values are unchanged.
FIXED = (
    *("seed", "data.", "model.", "bridge."),
    *(f"prior.{key}" for key in ("num_layers", "width", "timesteps", "beta", "sample_codes")),
    *(f"prior.{key}" for key in ("optimizer", "batch_size")),
)


class Prior:
    """A trained latent prior p(z), from which latent codes z are sampled."""

    def __init__(
        self,
        config: Config,
        network: LatentNetwork,
        variables: dict,
        *,
        step: int,
        mesh: jax.sharding.Mesh | None = None,
    ):
        """Wraps a network and its weights.

        Args:
          config: the config, whose section `prior` describes the latent prior.
          network: the network that estimates eps.
          variables: {"params": weights, "stats": {"mean": [D], "std": [D]}}; "stats" are the
            statistics of the training codes.
          step: training step of the weights.
          mesh: devices that share the work. The variables must be replicated on all of them.
        """
        self.step = step
        self.config = config.prior
        self.variables = variables
        self._network = network
        self._diffusion = LatentDiffusion(config.prior.timesteps, config.prior.beta)
        self._mesh = mesh
        split = None if mesh is None else sharding.batched(mesh)
        self._keys = jax.jit(rngs.per_example, out_shardings=split)
        self._sample = jax.jit(self._sample_batch, out_shardings=sharding.results(mesh))

    @functools.cached_property
    def fingerprint(self) -> str:
        """A short hash of the weights, see `fingerprint.of`."""
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
        progress: batching.ProgressFn | None = None,
    ) -> np.ndarray:
        """Returns sampled latent codes: [num, D], float32.

        Args:
          num: number of codes.
          key: one random key, which is folded with the index of each code, or keys [num].
          batch_size: most codes per batch.
          sampler: "ancestral" or "ddim"; by default the sampler of the config.
          steps: number of network evaluations; by default the number of the config.
          eta: amount of noise of "ddim", in [0, 1]. With 0 only the initial state is random.
          progress: called after every batch with the numbers of finished and of all codes.

        Raises:
          DataError: for an unknown sampler, or a value out of range.
        """
        table = self.table(sampler, steps, eta)
        most = batching.whole_size(batch_size, self._mesh)
        size = batching.padded_size(num, most, self._mesh)
        key = batching.whole_keys(key, size)

        def sample_batch(indices):
            # The sampler gets the keys of one batch. With the keys of all codes as argument, it
            # would compile again for every number of codes.
            return self._sample(self.variables, self._keys(key, indices), table)

        return batching.run(
            sample_batch, np.arange(num), size=size, mesh=self._mesh, progress=progress
        )

    def table(
        self, sampler: str | None = None, steps: int | None = None, eta: float = 0.0
    ) -> diffusion.Table:
        """Returns the table of a sampler; the arguments and errors are those of `sample`."""
        sampler = self.config.sampler if sampler is None else sampler
        steps = self.config.sample_steps if steps is None else steps
        try:
            return self._diffusion.table(sampler, steps, eta)
        except ValueError as error:
            raise DataError(str(error)) from error

    def sample_batch(
        self,
        variables: dict,
        key: jax.Array,
        indices: jax.Array | np.ndarray,
        table: diffusion.Table,
    ) -> jax.Array:
        """Returns sampled latent codes: [B, D]; a pure function.

        Args:
          variables: a tree like `self.variables`.
          key: one random key, or keys [B].
          indices: [B], positions of the codes, which are folded into one key or select keys.
          table: coefficients of the sampler, see `table`.
        """
        return self._sample_batch(variables, rngs.per_example(key, indices), table)

    def _sample_batch(self, variables: dict, keys: jax.Array, table: diffusion.Table) -> jax.Array:
        keys = jax.vmap(lambda k: rngs.stream(k, "prior"))(keys)
        shape = (self._network.latent_dim,)

        def noise_fn(index):
            return jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, index), shape))(keys)

        eps_fn = functools.partial(self._network.predict, variables["params"])
        # Noises 0 ... timesteps - 1 belong to the steps of the sampler.
        initial = noise_fn(self._diffusion.timesteps)
        z = diffusion.sample(eps_fn, initial, table, noise_fn)
        return denormalised(variables["stats"], z)


def normalised(stats: dict, z: jax.Array) -> jax.Array:
    """Returns (z - mean) / std for latent codes z [B, D] and stats {"mean": [D], "std": [D]}."""
    return (z - stats["mean"]) / stats["std"]


def denormalised(stats: dict, z: jax.Array) -> jax.Array:
    """Returns z std + mean for normalised codes z [B, D]: the inverse of `normalised`."""
    return z * stats["std"] + stats["mean"]


def load(
    directory: pathlib.Path,
    weights: dict[str, Any],
    model_fingerprint: str,
    encoder_fingerprint: str,
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> Prior:
    """Reads the latent prior of a workdir, with its EMA weights.

    Args:
      directory: workdir of the autoencoder.
      weights: {"step", "weights"} of the loaded autoencoder, which decodes the sampled codes.
      model_fingerprint: hash of the weights of the loaded autoencoder, see `fingerprint.of`.
      encoder_fingerprint: hash of its encoder, see `fingerprint.of_encoder`.
      mesh: devices that share the work; by default the first device alone.

    Raises:
      CheckpointError: if the workdir has no latent prior, or if the latent prior was trained on the
        codes of another encoder.
    """
    folder = directory / FOLDER
    if not checkpoint.steps(folder):
        raise MissingPriorError(
            f"The model in {directory} has no latent prior to sample from; train one with "
            "`dbae train_prior`."
        )
    placed = None if mesh is None else sharding.replicated(mesh)
    autoencoder = weights | {"fingerprint": model_fingerprint, "encoder": encoder_fingerprint}

    def read(step: int) -> Prior:
        meta = checkpoint.read_meta(folder, step)
        check_same_codes(folder, meta, autoencoder)
        config = from_dict(upgrade(meta["config"]))
        network = build.make_latent_network(config)
        abstract = jax.eval_shape(lambda key: first_variables(network, key), jax.random.key(0))
        abstract = sharding.placed(abstract, placed)
        variables = checkpoint.read_variables(folder, step, "ema", abstract)
        return Prior(config, network, variables, step=step, mesh=mesh)

    found = checkpoint.newest_readable(folder, read)
    assert found is not None  # there are checkpoints, as checked above
    return found[1]


def identity_of(step: int | None, variables: dict) -> dict[str, Any]:
    """Returns the identity of an autoencoder: its step, and hashes of its weights.

    Args:
      step: training step of the weights.
      variables: {"params", "stats"}, its EMA weights.
    """
    return {
        "step": step,
        "weights": "ema",
        "fingerprint": fingerprint.of(variables),
        "encoder": fingerprint.of_encoder(variables),
    }


def check_same_codes(
    folder: pathlib.Path, meta: dict[str, Any], autoencoder: dict[str, Any]
) -> None:
    """Checks that a latent prior was trained on the codes of the loaded autoencoder.

    Codes depend on the encoder alone, so other networks may have other weights.

    Args:
      folder: folder of the latent prior's checkpoints.
      meta: meta of the latent prior's checkpoint.
      autoencoder: {"step", "weights", "fingerprint", "encoder"} of the loaded autoencoder.

    Raises:
      CheckpointError: if the encoders differ; the error names both models.
    """
    trained_on = meta[AUTOENCODER]
    # Older versions have written no fingerprint of the encoder, and still older ones none at all.
    keys = ("encoder",) if "encoder" in trained_on else tuple(trained_on)
    if any(autoencoder[key] != trained_on[key] for key in keys):
        raise CheckpointError(
            f"The latent prior in {folder} was trained on the codes of {_describe(trained_on)}, "
            f"not of {_describe(autoencoder)}. Load the weights that the latent prior was "
            "trained for, or move the folder away and train a new latent prior with "
            "`dbae train_prior`."
        )


def _describe(autoencoder: dict[str, Any]) -> str:
    weights = f"the {autoencoder['weights']} weights of step {autoencoder['step']}"
    return f"{weights} ({autoencoder.get('fingerprint', 'fingerprint unknown')})"


def first_variables(network: LatentNetwork, key: jax.Array) -> dict:
    """Returns initial variables; the caller replaces the placeholder mean and std of the codes."""
    placeholder = jnp.zeros(network.latent_dim)
    return {"params": network.init(key), "stats": {"mean": placeholder, "std": placeholder}}
