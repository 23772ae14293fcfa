"""The loop of every training: starts or resumes a run, takes its steps and runs its hooks."""

import contextlib
import logging
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax

from dbae_jax.errors import NonFiniteError, PreemptedError
from dbae_jax.runtime import initial_weights, rngs, sharding
from dbae_jax.training import hooks
from dbae_jax.training.step import StepFn
from dbae_jax.workdirs import checkpoint
from dbae_jax.workdirs.train_state import TrainState

log = logging.getLogger(__name__)

# Scalars that must be finite, and their names in errors.
FINITE = {
    "loss": "loss",
    "grad_norm": "norm of the gradient",
    "param_norm": "norm of the weights",
}


class Description(NamedTuple):
    """A training in words, for the log and for errors."""

    what: str  # beginning of the first line, such as "Training the latent prior"
    data: str  # name of the data set
    length: str  # such as "800 steps of 64 images"
    remedy: str  # sentence: what to try when the loss is not finite


class Run(NamedTuple):
    """A run that is ready to start or to resume: everything that the loop needs."""

    train_step: StepFn  # jitted; donates its state
    state: TrainState
    key: jax.Array  # root of all random draws in training
    mesh: jax.sharding.Mesh
    description: Description


def start_run(
    init: Callable[[jax.Array], TrainState],
    train_step: StepFn,
    directory: pathlib.Path,
    *,
    resume: Callable[[TrainState], TrainState | None],
    seed: int,
    mesh: jax.sharding.Mesh,
    description: Description,
) -> Run:
    """Resumes from the state in a folder, or draws a new one, on all devices of a mesh.

    Args:
      init: key -> new state, traceable for a CPU.
      train_step: (state, batch, key) -> (state, metrics), jitted for the mesh.
      directory: folder of the run, which holds its checkpoints.
      resume: reads the state, given its shapes and shardings; returns None if there is none.
      seed: seed of all random draws.
      mesh: devices that share every batch.
      description: the training in words.
    """
    everywhere = sharding.replicated(mesh)
    key = sharding.replicate(jax.random.key(seed), everywhere)
    abstract = sharding.placed(jax.eval_shape(init, key), everywhere)
    _announce(description, abstract, mesh, directory)
    state = resume(abstract)
    if state is None:
        state = initial_weights.draw(init, seed, mesh)
    else:
        log.info("Resuming from step %d of %s.", int(state.step), directory)
    return Run(train_step, state, rngs.stream(key, "train"), mesh, description)


def _announce(
    description: Description, abstract: TrainState, mesh: jax.sharding.Mesh, directory: pathlib.Path
) -> None:
    """Logs what is trained, where, on what devices and for how long."""
    devices, processes = mesh.devices.size, jax.process_count()
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract.variables["params"]))
    log.info(
        "%s on %d device%s (%s), %d process%s, jax %s: %s, %.3gM parameters, %s. The workdir "
        "is %s.",
        *(description.what, devices, "" if devices == 1 else "s"),
        *(mesh.devices.flat[0].device_kind, processes, "" if processes == 1 else "es"),
        *(jax.__version__, description.data, size / 1e6, description.length, directory),
    )


def run_loop(
    run: Run,
    batches: Iterator[dict[str, jax.Array]],
    actions: hooks.Hooks,
    *,
    stop: int,
    directory: pathlib.Path,
) -> TrainState:
    """Takes the steps up to `stop` and returns the last state.

    The metrics of a step are read after the next step is dispatched, so that the devices never
    wait for the host. At steps with a due hook they are read at once: no hook, and no checkpoint,
    then gets a state whose loss, gradient or weights are not finite.

    Args:
      run: the run, ready to start.
      batches: batches for the steps that follow the state, on the devices.
      actions: hooks and log of the run.
      stop: step after which training ends.
      directory: folder of the run.

    Raises:
      NonFiniteError: if the loss, or the norm of the gradient or of the weights, is not finite.
      PreemptedError: after a SIGTERM or Ctrl-C, once the state is saved.
    """
    state, pending = run.state, None
    start, shown = int(state.step), actions.training_log
    with shown.running(start):
        for step in range(start + 1, stop + 1):
            with shown.clock.waiting():
                batch = next(batches)
            with shown.compiling() if step == start + 1 else contextlib.nullcontext():
                state, metrics = run.train_step(state, batch, run.key)
            if pending is not None:
                shown.add(_fetch(*pending, run, directory))
            pending = (step, metrics)
            halt = actions.preempted(step)
            if halt or actions.due(step):
                shown.add(_fetch(*pending, run, directory))
                pending = None
                actions.run(step, state)
            if halt and step < stop:
                actions.save(step, state)
                raise PreemptedError(
                    f"Training was stopped by a SIGTERM or Ctrl-C; step {step} of {stop} is saved "
                    f"in {directory}. The same command resumes from there."
                )
    return state


def _fetch(
    step: int, metrics: dict[str, jax.Array], run: Run, directory: pathlib.Path
) -> dict[str, float]:
    """Returns the metrics of a step as Python floats, or raises NonFiniteError."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    for name, words in FINITE.items():
        if not math.isfinite(values[name]):
            saved = checkpoint.steps(directory)
            kept = "no checkpoint had been saved"
            if saved:
                kept = f"the checkpoint of step {saved[-1]} is kept"
            raise NonFiniteError(
                f"The {words} became {values[name]} at step {step}, so the training stopped; "
                f"{kept}. "
                f"{run.description.remedy}"
            )
    return values
