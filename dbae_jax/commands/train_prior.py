"""Trains the latent prior of a trained model, on the latent codes of its training images.

The records hold `loss`, the mean of |eps - eps_hat|, and three figures of the normalised codes of
test images, in nats:

prior_nll_nats: upper bound on the negative log-likelihood E[-log p_prior(z)]; see
  `dbae_jax.prior.likelihood`.
gaussian_nll_nats: negative log-likelihood under a Gaussian with the codes' means and variances.
l_pr_nats: upper bound on L_PR = E KL(q(z | x_0) || p_prior(z)), with z drawn from q. Only a
  stochastic encoder has it: the q of a deterministic encoder is a point, whose entropy is minus
  infinity, and `prior_nll_nats` is then the whole part of L_PR that depends on the prior.
"""

import functools
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax

from dbae_jax.api.dbae import DBAE
from dbae_jax.commands import trained_model
from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config
from dbae_jax.data import codes as codes_lib
from dbae_jax.data import identity, registry
from dbae_jax.data.codes import Codes
from dbae_jax.prior import prior
from dbae_jax.prior.diffusion import LatentDiffusion
from dbae_jax.prior.likelihood import make_measure
from dbae_jax.prior.step import create_state, make_step
from dbae_jax.runtime import failures, files, sharding
from dbae_jax.training import determinism, hooks, jitted_step, loop
from dbae_jax.training.optimizer import make_prior_optimizer
from dbae_jax.workdirs import checkpoint, lock, records, trackers, workdir
from dbae_jax.workdirs.train_state import TrainState

CODES_FILE = "codes.npz"  # latent codes of both splits, in the folder of the prior
REMEDY = "Try a smaller config.prior.learning_rate."

log = logging.getLogger(__name__)


def train_prior(config: Config, directory: pathlib.Path) -> TrainState:
    """Trains until `config.prior.num_steps`, from scratch or from the last checkpoint.

    Args:
      config: checked config, which must fit the model in the workdir; its section `prior`
        describes the latent prior.
      directory: the workdir of a trained model; all files go into its folder "prior".

    Returns:
      The state after the last step.

    Raises:
      CheckpointError: if there is no model, or the prior there was trained on codes of different
        weights.
      ConfigError: if the config does not fit the model or the prior in the workdir.
      DataError: if the prior there was trained on another number or size of images.
      NonFiniteError: if the loss or a gradient is not finite; the last checkpoint stays.
      PreemptedError: after a SIGTERM or Ctrl-C, once the state is saved (see `processes.start`).
    """
    mesh = sharding.make_mesh()
    sharding.check_batch_size(config.prior.batch_size, mesh, "prior.batch_size")
    files.check_folder(directory, "--workdir")
    trackers.check(config, directory)
    workdir.check_exists(directory)
    checkpoint.check_processes(directory)
    folder = directory / prior.FOLDER
    kept = functools.partial(workdir.last_checkpoint, folder)
    with lock.held(folder), failures.explaining(kept):
        return _train(config, directory, mesh)


def _train(config: Config, directory: pathlib.Path, mesh: jax.sharding.Mesh) -> TrainState:
    folder = directory / prior.FOLDER
    model = trained_model.open_model(config, directory).model
    autoencoder = prior.identity_of(model.step, model.variables)
    codes = _codes(model, directory / prior.FOLDER / CODES_FILE, autoencoder)
    run = set_up(config, folder, codes["train"], autoencoder, mesh)
    data = identity.of(registry.make_source(config.data, "train"))
    _check_data(folder, int(run.state.step), data)
    start, stop = int(run.state.step), config.prior.num_steps
    if start >= stop:
        log.info(
            "The latent prior in %s has taken %d steps already. To train longer, raise "
            "config.prior.num_steps.",
            *(folder, start),
        )
        return run.state
    workdir.write_config(folder, config)
    batches = codes_lib.batches(
        codes["train"],
        batch_size=config.prior.batch_size,
        seed=config.seed,
        start_step=start,
        mesh=mesh,
    )
    with (
        determinism.programs_kept(config, folder),
        checkpoint.Writer(
            folder, keep_last=config.checkpoint.keep_last, keep_every_steps=0
        ) as checkpoints,
        records.Writer(folder, config, start_step=start) as scalars,
    ):
        meta = workdir.meta(config, data=data, **{prior.AUTOENCODER: autoencoder})
        measure = make_measure(config, codes["test"], mesh)
        actions = _make_hooks(config, folder, meta, measure, checkpoints, scalars)
        return loop.run_loop(run, batches, actions, stop=stop, directory=folder)


def _check_data(folder: pathlib.Path, step: int, now: dict[str, Any]) -> None:
    """Checks that a prior that resumes gets the latent codes of the images that it had."""
    if checkpoint.steps(folder):
        saved = checkpoint.read_meta(folder, step).get("data")
        identity.check(folder, saved, now, f"delete {folder} to train a new prior")


def _codes(model: DBAE, path: pathlib.Path, autoencoder: dict[str, Any]) -> dict[str, Codes]:
    """Returns the latent codes of both splits, by split.

    Reads them from a file, or encodes the images and writes the file.

    Args:
      model: model whose encoder is used.
      path: path of the file.
      autoencoder: identity of the model's weights.
    """
    config, data = model.config, model.config.data
    sources = trained_model.open_splits(config)
    counts = {split: len(source) for split, source in sources.items()}
    counts["test"] = min(config.eval.num_images or counts["test"], counts["test"])
    of_codes = autoencoder | {
        "computed": [config.model.dtype, config.model.precision],
        "data": [data.name, data.lmdb, data.train_split, data.test_split, data.crop],
        "sources": {split: repr(source) for split, source in sources.items()},
        "sha256": {split: identity.of(source)["sha256"] for split, source in sources.items()},
        "counts": counts,
    }

    def encode() -> dict[str, Codes]:
        return {
            split: codes_lib.encode(
                model, source, count=counts[split], num_threads=data.num_threads
            )
            for split, source in sources.items()
        }

    return codes_lib.load_or_make(path, of_codes, encode)


def set_up(
    config: Config,
    folder: pathlib.Path,
    codes: Codes,
    autoencoder: dict[str, Any],
    mesh: jax.sharding.Mesh,
) -> loop.Run:
    """Builds the training step, and reads the state of the last checkpoint or draws a new one.

    Args:
      config: checked config.
      folder: folder of the prior.
      codes: latent codes to train on.
      autoencoder: identity of the weights that the codes are of.
      mesh: devices that share every batch.
    """
    network, optimizer = build.make_latent_network(config), make_prior_optimizer(config)
    stats = codes.statistics()
    step = make_step(
        network,
        LatentDiffusion(config.prior.timesteps, config.prior.beta),
        optimizer,
        ema_decay=config.prior.ema_decay,
        sample_codes=config.prior.sample_codes,
    )

    def read(abstract: TrainState, at: int) -> TrainState:
        meta = checkpoint.read_meta(folder, at)
        prior.check_same_codes(folder, meta, autoencoder)
        workdir.check_same_model(folder, meta["config"], config, prior.FIXED)
        return checkpoint.read_state(folder, at, abstract)

    def resume(abstract: TrainState) -> TrainState | None:
        found = checkpoint.newest_readable(
            folder, functools.partial(read, abstract), move_unreadable=True
        )
        return None if found is None else found[1]

    return loop.start_run(
        lambda key: create_state(network, optimizer, key, stats),
        jitted_step.jit_step(step, mesh, determinism.compiler_options(config, mesh)),
        folder,
        resume=resume,
        seed=config.seed,
        mesh=mesh,
        description=loop.Description(
            what="Training the latent prior",
            data=config.data.name,
            length=f"{config.prior.num_steps} steps of {config.prior.batch_size} codes",
            remedy=REMEDY,
        ),
    )


def _make_hooks(
    config: Config,
    folder: pathlib.Path,
    meta: dict[str, Any],
    measure: Callable[[dict], dict[str, float]],
    checkpoints: checkpoint.Writer,
    scalars: records.Writer,
) -> hooks.Hooks:
    """Returns the hooks that a config asks for; configs/base.py explains their intervals."""
    section = config.prior

    def save(step: int, state: TrainState) -> None:
        scalars.flush()
        checkpoints.save(state, step, meta)

    def evaluate(step: int, state: TrainState) -> None:
        values = measure(state.ema)
        scalars.write(step, values)
        log.info(
            "step %d: negative log-likelihood of test codes at most %.2f nats (standard error "
            "%.2f); a fitted Gaussian has %.2f nats",
            *(step, values["prior_nll_nats"], values["prior_nll_se"]),
            values["gaussian_nll_nats"],
        )

    training_log = hooks.TrainingLog(
        folder,
        scalars,
        learning_rate=lambda step: section.learning_rate,
        batch_size=section.batch_size,
        num_steps=section.num_steps,
        unit="codes",
    )
    actions = [
        hooks.Hook(section.log_every_steps, training_log.write),
        hooks.Hook(section.evaluate_every_steps or section.num_steps, evaluate),
        hooks.Hook(section.checkpoint_every_steps, save),
    ]
    return hooks.Hooks(
        actions,
        section.num_steps,
        training_log=training_log,
        save=save,
        preempted=checkpoints.preempted,
    )
