"""The loop of any training: start or resume a run, take its steps, and let hooks do the rest."""

import logging
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax

from dbae_jax.errors import NonFiniteError, PreemptedError
from dbae_jax.runtime import rngs, sharding
from dbae_jax.training import hooks, jitted_step
from dbae_jax.training.step import StepFn
from dbae_jax.workdirs import checkpoint, workdir
from dbae_jax.workdirs.train_state import TrainState

log = logging.getLogger(__name__)


class Run(NamedTuple):
    """A run that is ready to go on: everything the loop needs."""

    train_step: StepFn  # jitted; donates its state
    state: TrainState
    key: jax.Array  # root of all draws in training
    mesh: jax.sharding.Mesh
    remedy: str  # what to try when the loss is not finite


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
        options = jitted_step.run_once()
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
