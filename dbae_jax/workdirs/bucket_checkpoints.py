"""Checkpoints in buckets, where no folder can be renamed.

The objects of a checkpoint have their final names from the beginning; the object `MARKER` comes
last and makes them a checkpoint. To remove or move a checkpoint, the marker goes first.
"""

import hashlib
import os
import pathlib
import shutil
import tempfile

from dbae_jax.runtime import files
from dbae_jax.runtime.buckets import access

MARKER = "commit_success.txt"  # orbax's name
ABOUT = "_CHECKPOINT_METADATA"  # of orbax; a checkpoint is read without it


def steps(folder: pathlib.Path) -> list[int]:
    """Returns the steps of the complete checkpoints in a folder, in no order."""
    return [int(path.name) for path in _inside(folder) if _is_complete(path)]


def remove_incomplete(folder: pathlib.Path) -> None:
    """Removes what a killed run, or one that could not write, has left in a folder."""
    for path in _inside(folder):
        if not _is_complete(path):
            access.remove_tree(path)


def remove(checkpoint: pathlib.Path) -> None:
    """Removes a checkpoint."""
    (checkpoint / MARKER).unlink(missing_ok=True)
    access.remove_tree(checkpoint)


def move(checkpoint: pathlib.Path, target: pathlib.Path) -> None:
    """Moves an unreadable checkpoint to another folder, where it counts no more."""
    (checkpoint / MARKER).unlink(missing_ok=True)
    access.move_tree(checkpoint, target)


def _inside(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _is_complete(checkpoint: pathlib.Path) -> bool:
    return checkpoint.name.isdigit() and (checkpoint / MARKER).exists()


class Uploads:
    """Uploads the checkpoints that orbax writes on this machine, for buckets that it cannot write.

    Attributes:
      local: temporary folder for orbax.
    """

    def __init__(self, folder: pathlib.Path, *, keep_last: int, keep_every_steps: int):
        """Makes the temporary folder, and removes incomplete checkpoints from the bucket.

        Args:
          folder: folder of the checkpoints in the bucket.
          keep_last: number of newest checkpoints to keep.
          keep_every_steps: checkpoints at multiples of this step are kept permanently; 0 for none.
        """
        self._folder = folder
        self._keep_last, self._keep_every = keep_last, keep_every_steps
        self._done: set[str] = set()
        remove_incomplete(folder)
        # The same for all commands that write this run, so that a killed one leaves no second.
        name = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        self.local = pathlib.Path(tempfile.gettempdir(), f"dbae_jax-{os.getuid()}-{name}")
        self.close()
        self.local.mkdir(mode=0o700)

    def put(self) -> None:
        """Uploads the checkpoint that orbax has written, and removes old ones from the bucket.

        All items are written then; the folder has the step and a suffix as its name, which orbax
        removes afterwards.
        """
        for path in self.local.iterdir():
            step = path.name.partition(".")[0]
            if step not in self._done:
                access.put_tree(path, self._folder / step, but=(MARKER, ABOUT))
                files.write_text(self._folder / step / MARKER, "complete\n")
                self._done.add(step)
        for old in sorted(steps(self._folder))[: -self._keep_last]:
            if not self._keep_every or old % self._keep_every:
                remove(self._folder / str(old))

    def close(self) -> None:
        """Removes the temporary folder."""
        shutil.rmtree(self.local, ignore_errors=True)
