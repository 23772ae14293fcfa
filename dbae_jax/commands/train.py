"""Training: set a run up, walk its steps, and let hooks do the rest."""

import functools
import logging
import pathlib

import jax
import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.config import Config
from dbae_jax.data import images, pipeline, registry
from dbae_jax.data.pipeline import Batches
from dbae_jax.data.sources import Source, gather
from dbae_jax.evaluation.suites import reconstruction
from dbae_jax.runtime import rngs, sharding
from dbae_jax.training.hooks import Clock, Hook, Hooks, Meter, make_logger
from dbae_jax.training.jitted_step import Training, make_training
from dbae_jax.training.loop import Run, run_loop, start_run
from dbae_jax.workdirs import checkpoint, records, workdir
from dbae_jax.workdirs.train_state import TrainState

log = logging.getLogger(__name__)

# A shuffled code that raises the loss by less than this share of it is not used.
MIN_CODE_SHARE = 0.02
REMEDY = (
    "Try a smaller config.optim.learning_rate, config.optim.grad_clip_norm=1.0, a longer "
    "config.optim.warmup_steps, or config.model.dtype=float32."
)


def train(config: Config, directory: pathlib.Path, training: Training | None = None) -> TrainState:
    """Trains until `config.train.num_steps`, from scratch or from the workdir's last checkpoint.

    Args:
      config: checked config.
      directory: the workdir, made if missing; checkpoints, metrics.jsonl and pictures go there.
      training: `make_training` of this config or of the same config with a different seed, if it
        is built already.

    Returns:
      The state after the last step.

    Raises:
      ConfigError: before anything is written, if the config and the devices or the run in the
        workdir do not fit.
      CheckpointError: if the workdir cannot be used.
      NonFiniteError: if the loss or a gradient leaves the finite numbers; the last checkpoint
        stays.
      PreemptedError: after a SIGTERM, once the state is saved (see `processes.start`).
    """
    workdir.check_usable(directory)
    source = registry.make_source(config.data, "train")
    held_out = registry.make_source(config.data, "test")
    training = training or make_training(config, sharding.make_mesh())
    run = set_up(config, directory, training)
    start = int(run.state.step)
    if start >= config.train.num_steps:
        log.info("The run in %s is at step %d already; nothing to do.", directory, start)
        return run.state
    workdir.write_config(directory, config)
    with (
        _checkpoints(config, directory) as checkpoints,
        records.Writer(directory, start_step=start) as scalars,
        _batches(config, source, run.mesh, start) as batches,
    ):
        actions = make_hooks(config, directory, training, run, held_out, checkpoints, scalars)
        return run_loop(run, batches, actions, stop=config.train.num_steps, directory=directory)


def _checkpoints(config: Config, directory: pathlib.Path) -> checkpoint.Writer:
    keep = config.checkpoint
    return checkpoint.Writer(
        directory, keep_last=keep.keep_last, keep_every_steps=keep.keep_every_steps
    )


def set_up(config: Config, directory: pathlib.Path, training: Training) -> Run:
    """Finds or draws the state; damaged checkpoints are moved aside."""
    return start_run(
        training.init,
        training.train_step,
        directory,
        resume=functools.partial(workdir.resume, directory, config),
        seed=config.seed,
        mesh=training.mesh,
        remedy=REMEDY,
    )


def _batches(config: Config, source: Source, mesh: jax.sharding.Mesh, start_step: int) -> Batches:
    """Returns this process's batches, put on its devices ahead of their steps."""
    return pipeline.train_batches(
        source,
        batch_size=config.train.batch_size,
        seed=config.seed,
        start_step=start_step,
        flip=config.data.flip,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=config.data.num_threads,
        num_workers=config.data.num_workers,
        prefetch_batches=config.data.prefetch_batches,
        to_device=lambda batch: sharding.to_global(mesh, batch),
    )


def make_hooks(
    config: Config,
    directory: pathlib.Path,
    training: Training,
    run: Run,
    held_out: Source,
    checkpoints: checkpoint.Writer,
    scalars: records.Writer,
) -> Hooks:
    """Builds the hooks that a config asks for; see `configs/base.py` for their intervals."""
    meter, clock = Meter(), Clock.going_on(directory)
    meta = workdir.meta(config)
    model = DBAE(config, run.state.ema, networks=training.networks, mesh=run.mesh)

    def save(step: int, state: TrainState) -> None:
        checkpoints.save(state, step, meta)

    logger = make_logger(
        meter,
        clock,
        scalars,
        rate_schedule=training.learning_rate,
        batch_size=config.train.batch_size,
        num_steps=config.train.num_steps,
    )
    hooks = [
        Hook(config.train.log_every_steps, logger),
        Hook(config.train.diagnose_every_steps, _diagnoser(config, training, held_out, scalars)),
        Hook(config.train.evaluate_every_steps, _evaluator(config, model, held_out, scalars)),
        Hook(config.train.picture_every_steps, _painter(config, model, held_out, directory)),
        Hook(config.checkpoint.every_steps, save),
    ]
    return Hooks(
        hooks,
        config.train.num_steps,
        meter=meter,
        clock=clock,
        save=save,
        preempted=checkpoints.preempted,
    )


def _diagnoser(config: Config, training: Training, held_out: Source, scalars: records.Writer):
    """Is the code used? On one fixed batch of test images, at fixed times and noises."""
    everywhere = sharding.replicated(training.mesh)
    size = config.train.batch_size
    taken = functools.cache(lambda: gather(held_out, size)[0])  # a run that shows none reads none
    key = sharding.replicate(rngs.stream(jax.random.key(config.seed), "diagnose"), everywhere)

    def action(step: int, state: TrainState) -> None:
        batch = np.resize(taken(), (size, *taken().shape[1:]))
        placed = {"image": sharding.spread(training.mesh, batch)}
        values = {
            k: float(v) for k, v in jax.device_get(training.diagnose(state, placed, key)).items()
        }
        scalars.write(step, values)
        log.info(
            "step %d  latent variance %.3g  loss on test images %.4f, with shuffled codes %+.4f",
            *(step, values["z_variance"], values["eval_loss"], values["code_gap"]),
        )
        if values["code_gap"] < MIN_CODE_SHARE * values["eval_loss"]:
            log.warning(
                "step %d: the code is hardly used: giving images each other's codes changes the "
                "loss by %+.2f%% only. If this lasts, train longer, raise "
                "config.optim.learning_rate, or use --config.model.encoder.pool=flatten.",
                *(step, 100 * values["code_gap"] / values["eval_loss"]),
            )

    return action


def _evaluator(config: Config, model: DBAE, held_out: Source, scalars: records.Writer):
    taken = functools.cache(lambda: gather(held_out, config.eval.num_images or None)[0])

    def action(step: int, state: TrainState) -> None:
        error = reconstruction.mse(model.with_variables(state.ema), taken(), config.sample)
        scalars.write(step, {"test_mse": error})
        log.info("step %d  reconstruction MSE of test images %.5f (pixels in [0, 1])", step, error)

    return action


def _painter(config: Config, model: DBAE, held_out: Source, directory: pathlib.Path):
    shown = functools.cache(lambda: gather(held_out, config.eval.num_pictures)[0])

    def action(step: int, state: TrainState) -> None:
        rows = reconstruction.picture_rows(model.with_variables(state.ema), shown(), config.sample)
        images.save_grid(directory / "pictures" / f"reconstructions_{step:08d}.png", rows)

    return action
