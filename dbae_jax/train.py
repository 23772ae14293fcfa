"""Training: set a run up, walk its steps, and let hooks do the rest."""

import functools
import logging
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax

from dbae_jax import checkpoint, compiled_step, hooks, rngs, sharding, summaries, workdir
from dbae_jax.config import Config
from dbae_jax.data import pipeline, registry
from dbae_jax.data.pipeline import Batches
from dbae_jax.data.sources import Source
from dbae_jax.errors import NonFiniteError, PreemptedError
from dbae_jax.train_state import TrainState
from dbae_jax.train_step import StepFn

log = logging.getLogger(__name__)

REMEDY = (
    "Try a smaller config.optim.learning_rate, config.optim.grad_clip_norm=1.0, a longer "
    "config.optim.warmup_steps, or config.model.dtype=float32."
)


class Run(NamedTuple):
    """A run that is ready to go on: everything the loop needs."""

    train_step: StepFn  # jitted; donates its state
    state: TrainState
    key: jax.Array  # root of all draws in training
    mesh: jax.sharding.Mesh
    remedy: str  # what to try when the loss is not finite


def train(config: Config, directory: pathlib.Path) -> TrainState:
    """Trains until `config.train.num_steps`, from scratch or from the workdir's last checkpoint.

    Args:
      config: checked config.
      directory: the workdir, made if missing; checkpoints, metrics.jsonl and pictures go there.

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
    run = set_up(config, directory)
    start = int(run.state.step)
    if start >= config.train.num_steps:
        log.info("The run in %s is at step %d already; nothing to do.", directory, start)
        return run.state
    workdir.write_config(directory, config)
    with (
        _checkpoints(config, directory) as checkpoints,
        summaries.Writer(directory, start_step=start) as scalars,
        _batches(config, source, run.mesh, start) as batches,
    ):
        actions = hooks.make_hooks(config, directory, run, held_out, checkpoints, scalars)
        return run_loop(run, batches, actions, stop=config.train.num_steps, directory=directory)


def _checkpoints(config: Config, directory: pathlib.Path) -> checkpoint.Writer:
    keep = config.checkpoint
    return checkpoint.Writer(
        directory, keep_last=keep.keep_last, keep_every_steps=keep.keep_every_steps
    )


def set_up(config: Config, directory: pathlib.Path) -> Run:
    """Builds the step and finds or draws the state; torn checkpoints are moved aside."""
    mesh = sharding.make_mesh()
    return start_run(
        compiled_step.make_init(config),
        compiled_step.make_jitted_step(config, mesh),
        directory,
        resume=functools.partial(workdir.resume, directory, config),
        seed=config.seed,
        mesh=mesh,
        remedy=REMEDY,
    )


def start_run(
    init: Callable[[jax.Array], TrainState],
    train_step: StepFn,
    directory: pathlib.Path,
    *,
    resume: Callable[[TrainState], TrainState | None],
    seed: int,
    mesh: jax.sharding.Mesh,
    remedy: str,
) -> Run:
    """Goes on from the state in a folder, or from a new one, on all devices of a mesh.

    Args:
      init: draws a new state.
      train_step: (state, batch, key) -> (state, metrics), jitted for the mesh.
      directory: of the checkpoints.
      resume: reads the state, given its shapes and shardings; None where there is none.
      seed: of all draws.
      mesh: devices that share every batch.
      remedy: see `Run`.
    """
    count, kind = mesh.devices.size, mesh.devices.flat[0].device_kind
    log.info("%d devices (%s), %d processes.", count, kind, jax.process_count())
    everywhere = sharding.replicated(mesh)
    key = sharding.replicate(jax.random.key(seed), everywhere)
    state = resume(workdir.placed(jax.eval_shape(init, key), everywhere))
    if state is None:
        options = compiled_step.run_once()
        state = jax.jit(init, out_shardings=everywhere, compiler_options=options)(key)
    else:
        log.info("Going on from step %d of %s.", int(state.step), directory)
    return Run(train_step, state, rngs.stream(key, "train"), mesh, remedy)


def run_loop(
    run: Run,
    batches: Iterator[dict[str, jax.Array]],
    actions: hooks.Hooks,
    *,
    stop: int,
    directory: pathlib.Path,
) -> TrainState:
    """Walks the steps to `stop`; metrics of a step are read after the next is dispatched.

    At steps with a due hook the metrics are read at once, so no hook (no checkpoint above all)
    ever sees a state whose loss or gradient was not finite.
    """
    state, pending = run.state, None
    start = int(state.step)
    actions.clock.start()
    for step in range(start + 1, stop + 1):
        with actions.clock.waiting():
            batch = next(batches)
        state, metrics = run.train_step(state, batch, run.key)
        if pending is not None:
            actions.record(_fetch(*pending, run, directory))
        pending = (step, metrics)
        halt = actions.preempted(step)
        if halt or actions.due(step):
            actions.record(_fetch(*pending, run, directory))
            pending = None
            actions.run(step, state)
        if halt and step < stop:
            actions.save(step, state)
            raise PreemptedError(
                f"SIGTERM came; step {step} of {stop} is saved in {directory}. The same command "
                "goes on from there."
            )
    return state


def _fetch(
    step: int, metrics: dict[str, jax.Array], run: Run, directory: pathlib.Path
) -> dict[str, float]:
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    for name in ("loss", "grad_norm", "param_norm"):
        if not math.isfinite(values[name]):
            saved = checkpoint.steps(directory)
            kept = "no checkpoint was due yet"
            if saved:
                kept = f"the checkpoint of step {saved[-1]} is kept"
            raise NonFiniteError(
                f"{name} became {values[name]} at step {step}; training stopped, {kept}. "
                f"{run.remedy}"
            )
    return values


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
