"""Checkpoints of a run: the only file that imports orbax.

The checkpoint of a step is a folder with four items: "params" (raw weights and running statistics),
"ema" (EMA weights and statistics), "optimizer" (its state) and "meta" (JSON: step, config,
versions). A model can thus be rebuilt and read without the optimizer. Orbax writes a checkpoint
under a temporary name and renames it when it is complete; in a bucket, a marker is written last.
Incomplete checkpoints of a killed run are removed at the next start.
"""

import contextlib
import logging
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from dbae_jax.errors import CheckpointError
from dbae_jax.runtime import failures, processes, sharding
from dbae_jax.runtime.buckets import access
from dbae_jax.workdirs import bucket_checkpoints
from dbae_jax.workdirs.train_state import TrainState

FOLDER = "checkpoints"
FORMAT = 1  # version of "meta" and of the names of the items

ARRAYS = ("params", "ema", "optimizer")  # items that are trees of arrays
# Devices split the writing of an array if each part has at least this many bytes. Splitting
# hundreds of small arrays took seconds of every save.
MIN_SLICE_BYTES = 2**20

TEMPORARY = ".orbax-checkpoint-tmp"  # part of the name of an incomplete checkpoint
ATTEMPTS = 50  # to remove it
UNREADABLE = "torn"  # folder in a workdir to which unreadable checkpoints are moved

Read = TypeVar("Read")  # result of reading a checkpoint

log = logging.getLogger(__name__)


class UnreadableCheckpointError(CheckpointError):
    """A checkpoint cannot be read."""


class Writer:
    """Saves the states of a run in the background; a context manager that waits for the last."""

    def __init__(self, workdir: pathlib.Path, *, keep_last: int, keep_every_steps: int):
        """Opens (or makes) the folder of checkpoints.

        Args:
          workdir: folder of the run.
          keep_last: number of newest checkpoints to keep.
          keep_every_steps: checkpoints at multiples of this step are kept permanently; 0 for none.
        """
        keep = [policies.LatestN(keep_last)]
        if keep_every_steps:
            keep.append(policies.EveryNSteps(keep_every_steps))
        self._folder, self._uploads, uploaded = (workdir / FOLDER).absolute(), None, None
        if _through_a_disk(workdir):
            self._uploads = bucket_checkpoints.Uploads(
                self._folder, keep_last=keep_last, keep_every_steps=keep_every_steps
            )
            keep, uploaded = [policies.LatestN(1)], self._uploads.put
        self._saved = max(steps(workdir), default=None)
        self._manager = ocp.CheckpointManager(
            self._uploads.local if self._uploads else self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(keep),
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=uploaded),
            ),
            handler_registry=_registry(),
        )

    def preempted(self, step: int) -> bool:
        """Returns whether to save after this step and stop, because of a SIGTERM.

        Every process of the run must call this after every step; all get the same answer. Without
        `processes.start` the answer is always False. An error of a save in the background is
        raised here, and not only at the next save.
        """
        self._manager.check_for_errors()
        return self._manager.reached_preemption(step)

    def save(self, state: TrainState, step: int, meta: dict[str, Any]) -> None:
        """Saves a state; does nothing if its step is saved already.

        Returns when the arrays are copied, so that the state can be donated.
        """
        if step == self._saved:
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
        self._saved = step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if processes.is_loss(error):  # waiting would wait for the lost process
            return
        try:
            self._manager.wait_until_finished()
        finally:
            self._manager.close()
            if self._uploads:
                self._uploads.close()
            _remove_incomplete(self._folder)


def steps(workdir: pathlib.Path) -> list[int]:
    """Returns the steps of the complete checkpoints, oldest first; empty if there are none."""
    folder = workdir / FOLDER
    if access.is_bucket(folder):
        return sorted(bucket_checkpoints.steps(folder))
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def read_meta(workdir: pathlib.Path, step: int) -> dict[str, Any]:
    """Returns the item "meta" of a checkpoint.

    Raises:
      UnreadableCheckpointError: if the item cannot be read.
      CheckpointError: if the checkpoint has a different format.
    """
    meta = _restore(workdir, step, {"meta": ocp.args.JsonRestore()})["meta"]
    if meta.get("format") != FORMAT:
        raise CheckpointError(
            f"{_folder(workdir, step)} has checkpoint format {meta.get('format')}, and this "
            f"version of dbae_jax reads format {FORMAT}. Use the version that wrote it, or train "
            "in a new --workdir."
        )
    return meta


def read_variables(workdir: pathlib.Path, step: int, item: str, abstract: dict) -> dict:
    """Returns the variables of a checkpoint.

    Args:
      workdir: folder of the run.
      step: step of the checkpoint.
      item: "params" for the raw weights, "ema" for the EMA weights.
      abstract: shapes, dtypes and shardings of the variables.

    Raises:
      UnreadableCheckpointError: if the item cannot be read.
    """
    return _restore(workdir, step, {item: ocp.args.StandardRestore(abstract)})[item]


def read_state(workdir: pathlib.Path, step: int, abstract: TrainState) -> TrainState:
    """Returns the complete state of a checkpoint.

    Args:
      workdir: folder of the run.
      step: step of the checkpoint.
      abstract: shapes, dtypes and shardings of the state.

    Raises:
      UnreadableCheckpointError: if an item cannot be read.
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
    workdir: pathlib.Path, read: Callable[[int], Read], *, move_unreadable: bool = False
) -> tuple[int, Read] | None:
    """Returns (step, read(step)) for the newest readable checkpoint; None without checkpoints.

    Args:
      workdir: folder of the run.
      read: reads the checkpoint of a step; raises UnreadableCheckpointError if this is impossible.
      move_unreadable: whether to move unreadable checkpoints to the folder "torn" of the workdir,
        so that the run can write these steps again.

    Raises:
      CheckpointError: if there are checkpoints and none of them can be read.
    """
    found = steps(workdir)
    problem = None
    for step in reversed(found):
        try:
            answer = step, read(step)
        except UnreadableCheckpointError as error:
            problem = problem or error
            log.warning("%s Trying the previous checkpoint.", error)
            continue
        _check_agreed(workdir, step)
        if move_unreadable:
            _move_aside(workdir, [s for s in found if s > step])
        return answer
    _check_agreed(workdir, -1)
    if problem:
        raise CheckpointError(
            f"No checkpoint under {workdir / FOLDER} can be read: {problem} Copy "
            "the checkpoints into the workdir again, or name a new --workdir."
        )
    return None


def _check_agreed(workdir: pathlib.Path, step: int) -> None:
    """Checks that all processes of the run found the same newest readable checkpoint."""
    if not processes.agree(step):
        raise CheckpointError(
            f"The processes of the run do not find the same checkpoints in {workdir}. This must be "
            "one folder, on a file system that all processes share."
        )


def _remove_incomplete(folder: pathlib.Path) -> None:
    """Removes a checkpoint that could not be written; it may fill the disk.

    Threads of orbax and tensorstore that are still writing make its folder again for a moment.
    """
    if not processes.is_writer():
        return
    if access.is_bucket(folder):
        bucket_checkpoints.remove_incomplete(folder)
        return
    for _ in range(ATTEMPTS):
        incomplete = list(folder.glob(f"*{TEMPORARY}*"))
        if not incomplete:
            return
        for path in incomplete:
            shutil.rmtree(path, ignore_errors=True)
        time.sleep(0.1)


def _move_aside(workdir: pathlib.Path, unreadable: list[int]) -> None:
    """Moves unreadable checkpoints to a folder of their own; their names stay unique there."""
    processes.wait_for_all("all processes have read the checkpoints")
    folder = workdir / UNREADABLE
    for step in unreadable if processes.is_writer() else ():
        folder.mkdir(exist_ok=True)
        there = list(folder.iterdir()) if folder.is_dir() else []
        target = folder / f"{step}-{len(there)}"
        log.warning("Moving the unreadable checkpoint of step %d to %s.", step, target)
        if access.is_bucket(folder):
            bucket_checkpoints.move(_folder(workdir, step), target)
        else:
            _folder(workdir, step).rename(target)
    processes.wait_for_all("unreadable checkpoints are moved")


def _registry() -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    """Returns the handlers that write the items of a checkpoint."""
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item in ARRAYS:
        registry.add(item, ocp.args.PyTreeSave, _array_handler())
    registry.add("meta", ocp.args.JsonSave, ocp.JsonCheckpointHandler())
    return registry


def _array_handler() -> ocp.PyTreeCheckpointHandler:
    """Returns a handler that writes each small array from one device; see MIN_SLICE_BYTES."""
    handlers = ocp.type_handlers
    arrays = handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=MIN_SLICE_BYTES)
    registry = handlers.create_type_handler_registry((jax.Array, arrays))
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


def _through_a_disk(workdir: pathlib.Path) -> bool:
    """Returns whether checkpoints pass through the disk of this machine: orbax knows no s3://."""
    return access.scheme_of(workdir) == "s3"


def check_processes(workdir: pathlib.Path) -> None:
    """Checks that a run of this many processes can write its checkpoints into a workdir.

    Raises:
      CheckpointError: if it cannot.
    """
    if _through_a_disk(workdir) and processes.several():
        raise CheckpointError(
            f"--workdir={workdir} is for trainings with one process: each checkpoint passes "
            "through the disk of one machine. Name a folder in gs://, or on a disk that all "
            "processes share."
        )


@contextlib.contextmanager
def _readable(folder: pathlib.Path, items: Iterable[str]) -> Iterator[pathlib.Path]:
    """Yields where orbax can read these items of a checkpoint."""
    if not _through_a_disk(folder):
        yield folder.absolute()
        return
    with access.local_copy(folder, items) as local:
        yield local


def _folder(workdir: pathlib.Path, step: int) -> pathlib.Path:
    return workdir / FOLDER / str(step)


def _restore(workdir: pathlib.Path, step: int, items: dict) -> dict:
    """Returns items of a checkpoint by name, given orbax's arguments for reading each."""
    folder = _folder(workdir, step)
    if step not in steps(workdir):
        raise CheckpointError(
            f"{workdir} has no checkpoint of step {step}; it has {steps(workdir) or 'none'}."
        )
    handler = ocp.CompositeCheckpointHandler()
    with ocp.Checkpointer(handler) as checkpointer:
        try:
            with _readable(folder, items) as local:
                return dict(checkpointer.restore(local, args=ocp.args.Composite(**items)).items())
        except Exception as error:  # orbax and tensorstore raise many types for damaged files
            if processes.is_loss(error):
                raise
            if cause := failures.explanation(error):  # the checkpoint itself may be fine
                raise cause from error
            reason = " ".join(str(error).split())[:160]
            raise UnreadableCheckpointError(
                f"The checkpoint {folder} is unreadable ({type(error).__name__}: {reason})."
            ) from error
