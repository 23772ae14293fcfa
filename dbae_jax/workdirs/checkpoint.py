"""Checkpoints of a run: the only file that imports orbax.

A step is a folder of separate items: "params" (raw weights and statistics), "ema" (their averages),
"optimizer" (its state) and "meta" (JSON: step, config, versions), so that a model is rebuilt and
read without the optimizer. Orbax writes a step beside its final name and renames it when whole;
what a killed run left half-written is removed at the next start.
"""

import logging
import pathlib
from collections.abc import Callable
from typing import Any, Self, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from dbae_jax.errors import CheckpointError
from dbae_jax.runtime import processes, sharding
from dbae_jax.workdirs.train_state import TrainState

FOLDER = "checkpoints"
FORMAT = 1  # of "meta" and of the items' names

ARRAYS = ("params", "ema", "optimizer")  # items that are trees of arrays
# Devices write an array together if the part of each has so many bytes: cutting hundreds of small
# arrays into parts took seconds of every save.
MIN_SLICE_BYTES = 2**20

TORN = "torn"  # folder of a workdir to which unreadable checkpoints are moved

Read = TypeVar("Read")  # what is read of a step

log = logging.getLogger(__name__)


class TornCheckpointError(CheckpointError):
    """A checkpoint cannot be read."""


class Writer:
    """Saves a run's states in the background; a context manager that waits for the last one."""

    def __init__(self, workdir: pathlib.Path, *, keep_last: int, keep_every_steps: int):
        """Opens (or makes) the folder of checkpoints.

        Args:
          workdir: the run's folder.
          keep_last: how many of the newest stay.
          keep_every_steps: multiples of this stay for good; 0 for none.
        """
        keep = [policies.LatestN(keep_last)]
        if keep_every_steps:
            keep.append(policies.EveryNSteps(keep_every_steps))
        self._manager = ocp.CheckpointManager(
            (workdir / FOLDER).absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(keep),
                cleanup_tmp_directories=True,
            ),
            handler_registry=_registry(),
        )

    def preempted(self, step: int) -> bool:
        """Whether a SIGTERM has come and all processes agreed to save after this step and stop.

        To be asked after every step on every process; never true without `processes.start`.
        """
        return self._manager.reached_preemption(step)

    def save(self, state: TrainState, step: int, meta: dict[str, Any]) -> None:
        """Saves a step, once; blocks until the arrays are copied, so the state may be donated."""
        if step == self._manager.latest_step():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.PyTreeSave(state.variables),
                ema=ocp.args.PyTreeSave(state.ema),
                optimizer=ocp.args.PyTreeSave(state.opt_state),
                meta=ocp.args.JsonSave({"format": FORMAT, "step": step, **meta}),
            ),
            force=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if not processes.is_loss(error):  # a lost process would be waited for
            self._manager.wait_until_finished()
            self._manager.close()


def steps(workdir: pathlib.Path) -> list[int]:
    """Returns the steps of whole checkpoints, oldest first; empty where there are none."""
    folder = workdir / FOLDER
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def read_meta(workdir: pathlib.Path, step: int) -> dict[str, Any]:
    """Returns the JSON saved with a step.

    Raises:
      TornCheckpointError: if it cannot be read.
      CheckpointError: if it is of another format.
    """
    meta = _restore(workdir, step, {"meta": ocp.args.JsonRestore()})["meta"]
    if meta.get("format") != FORMAT:
        raise CheckpointError(
            f"{_folder(workdir, step)} has checkpoint format {meta.get('format')}, "
            f"this version of dbae_jax reads {FORMAT}."
        )
    return meta


def read_variables(workdir: pathlib.Path, step: int, item: str, abstract: dict) -> dict:
    """Returns the item "params" or "ema" of a step, in the shape of `abstract`.

    Raises:
      TornCheckpointError: if it cannot be read.
    """
    return _restore(workdir, step, {item: ocp.args.StandardRestore(abstract)})[item]


def read_state(workdir: pathlib.Path, step: int, abstract: TrainState) -> TrainState:
    """Returns the whole state of a step, each array where `abstract` says (its sharding).

    Raises:
      TornCheckpointError: if an item cannot be read.
    """
    items = _restore(
        workdir,
        step,
        {
            "params": ocp.args.StandardRestore(abstract.variables),
            "ema": ocp.args.StandardRestore(abstract.ema),
            "optimizer": ocp.args.StandardRestore(abstract.opt_state),
        },
    )
    count = sharding.replicate(np.int32(step), abstract.step.sharding)
    return TrainState(count, items["params"], items["ema"], items["optimizer"])


def newest_readable(
    workdir: pathlib.Path, read: Callable[[int], Read], *, move_torn: bool = False
) -> tuple[int, Read] | None:
    """Returns (step, read(step)) of the newest step that can be read, or None if there is none.

    Args:
      workdir: the run's folder.
      read: reads a step, raising TornCheckpointError if it is torn.
      move_torn: moves torn steps to the workdir's folder "torn", so that the run can write them
        anew.

    Raises:
      CheckpointError: if there are checkpoints and not one can be read.
    """
    found = steps(workdir)
    problem = None
    for step in reversed(found):
        try:
            answer = step, read(step)
        except TornCheckpointError as error:
            problem = problem or error
            log.warning("%s It is skipped; the one before it is tried.", error)
            continue
        _check_agreed(workdir, step)
        if move_torn:
            _move_aside(workdir, [s for s in found if s > step])
        return answer
    _check_agreed(workdir, -1)
    if problem:
        raise CheckpointError(f"No checkpoint under {workdir / FOLDER} can be read: {problem}")
    return None


def _check_agreed(workdir: pathlib.Path, step: int) -> None:
    """Refuses what cannot be: that processes of a run found other checkpoints than this one."""
    if not processes.agree(step):
        raise CheckpointError(
            f"The run's processes do not find the same checkpoints in {workdir}; it must be one "
            "folder, on a file system that all of them share."
        )


def _move_aside(workdir: pathlib.Path, torn: list[int]) -> None:
    """Moves torn checkpoints out of the way, beside earlier ones of the same steps."""
    processes.wait_for_all("all have read the checkpoints")
    folder = workdir / TORN
    for step in torn if processes.is_writer() else ():
        folder.mkdir(exist_ok=True)
        target = folder / f"{step}-{len(list(folder.iterdir()))}"
        log.warning("Moving the unreadable checkpoint of step %d to %s.", step, target)
        _folder(workdir, step).rename(target)
    processes.wait_for_all("torn checkpoints are moved")


def _registry() -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    """Says what writes each item of a step; `_restore`, which reads them, needs none."""
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item in ARRAYS:
        registry.add(item, ocp.args.PyTreeSave, _array_handler())
    registry.add("meta", ocp.args.JsonSave, ocp.JsonCheckpointHandler())
    return registry


def _array_handler() -> ocp.PyTreeCheckpointHandler:
    """Writes small arrays whole, from one device: see MIN_SLICE_BYTES."""
    handlers = ocp.type_handlers
    arrays = handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=MIN_SLICE_BYTES)
    registry = handlers.create_type_handler_registry((jax.Array, arrays))
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


def _folder(workdir: pathlib.Path, step: int) -> pathlib.Path:
    return workdir / FOLDER / str(step)


def _restore(workdir: pathlib.Path, step: int, items: dict) -> dict:
    folder = _folder(workdir, step)
    if not folder.is_dir():
        raise CheckpointError(
            f"{workdir} has no checkpoint of step {step}; there are {steps(workdir) or 'none'}."
        )
    handler = ocp.CompositeCheckpointHandler()
    with ocp.Checkpointer(handler) as checkpointer:
        try:
            return dict(
                checkpointer.restore(folder.absolute(), args=ocp.args.Composite(**items)).items()
            )
        except Exception as error:  # orbax and tensorstore raise many types for a torn file
            if processes.is_loss(error):
                raise
            reason = " ".join(str(error).split())[:160]
            raise TornCheckpointError(
                f"The checkpoint {folder} is unreadable ({type(error).__name__}: {reason})."
            ) from error
