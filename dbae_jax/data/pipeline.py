"""From a source to training batches: the only file that imports grain.

The order is a pure function of (seed, step): no iterator state needs saving, and a run resumes
exactly, whatever the number of threads, workers or hosts.

Indices are shuffled, drawn for and batched first; images are read last, a chunk of a batch at a
time. So threads and workers share even a single batch, and what is in memory is counted in batches.
"""

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from dbae_jax.data.sources import Source, read
from dbae_jax.errors import DataError

ON_DEVICE = 2  # batches that wait on the device
_ENDLESS = 2**62  # examples; grain's own endless overflows when batches hold one example


class Batches(Iterator[Any]):
    """Batches without end, read ahead in the background until `close`, or the end of a `with`."""

    def __init__(self, dataset: grain.IterDataset):
        iterator = iter(dataset)
        iterator.start_prefetch()
        self._iterators = [iterator]
        # Called at exit if nobody did: grain's threads complain when they outlive the interpreter.
        self._end = weakref.finalize(self, _end, self._iterators)

    def __next__(self) -> Any:
        if not self._iterators:
            raise DataError("The batches were closed; make new ones with train_batches.")
        return next(self._iterators[0])

    def close(self) -> None:
        """Ends the threads and workers; a second time it does nothing."""
        self._end()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _end(iterators: list[grain.DatasetIterator]) -> None:
    """Closes an iterator and lets go of it: what is left of it complains if it dies at exit."""
    iterators.pop().close()


class _DrawFlip(grain.transforms.RandomMap):
    """Puts beside an index whether to mirror its image: at random, one half of the time."""

    def random_map(self, index: int, rng: np.random.Generator) -> tuple[int, bool]:
        return index, rng.random() < 0.5


@dataclasses.dataclass(frozen=True)
class _Part:
    """Which examples of the endless order a process reads: `chunks` a step, of `size` each.

    They lie together in the global batch, so that it is the same array for any number of
    processes: its examples meet the same times and noises.
    """

    batch_size: int
    first: int  # in the global batch
    chunks: int
    size: int

    def positions(self, chunk: int) -> range:
        """Returns the places in the order of the examples of this process's n-th chunk."""
        step, within = divmod(chunk, self.chunks)
        start = step * self.batch_size + self.first + within * self.size
        return range(start, start + self.size)


class _Read(grain.transforms.Map):
    """Number of a chunk -> {"image": [size, H, W, C]}."""

    def __init__(self, source: Source, order: grain.MapDataset, part: _Part, *, flip: bool):
        self._source, self._order, self._part, self._flip = source, order, part, flip

    def map(self, chunk: int) -> dict[str, np.ndarray]:
        drawn = [self._order[position] for position in self._part.positions(chunk)]
        if not self._flip:
            return {"image": read(self._source, np.array(drawn), ("image",))["image"]}
        indices, mirrored = (np.array(column) for column in zip(*drawn, strict=True))
        images = read(self._source, indices, ("image",))["image"]
        return {"image": np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)}


def _joined(chunks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    flip: bool = False,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
    num_workers: int = 0,
    prefetch_batches: int = 2,
    to_device: Callable[[dict[str, np.ndarray]], Any] | None = None,
) -> Batches:
    """Yields this process's part of the batches of steps start_step, start_step + 1, ...

    Args:
      source: examples.
      batch_size: of the global batch, over all processes.
      seed: of the order and of the flips.
      start_step: batches before this one are skipped without being read.
      flip: mirrors images at random.
      process_index: which part of each global batch to give.
      process_count: how many parts there are.
      num_threads: that read, in this process or in each worker.
      num_workers: processes that read, spawned; 0 reads in this one.
      prefetch_batches: read ahead of the last one given. Workers hold up to five chunks each
        besides, `to_device` three batches.
      to_device: applied to each batch, in a thread of its own, ahead of its use.

    Returns:
      {"image": uint8 [batch_size / process_count, H, W, C]}, or what `to_device` makes of it,
      without end.

    Raises:
      DataError: if there are no images, or the batch cannot be shared evenly.
    """
    if not len(source):
        raise DataError(f"{source!r} holds no images to train on.")
    if batch_size % process_count:
        raise DataError(
            f"A batch of {batch_size} images cannot be shared by {process_count} processes: set "
            f"config.train.batch_size to a multiple of {process_count}."
        )
    local = batch_size // process_count
    chunks = _num_chunks(local, -(-num_threads * max(1, num_workers) // prefetch_batches))
    indices = grain.MapDataset.range(len(source)).seed(seed).shuffle()
    indices = indices.repeat(_ENDLESS // len(source))
    if flip:
        indices = indices.random_map(_DrawFlip())
    part = _Part(batch_size, process_index * local, chunks, local // chunks)
    numbers = grain.MapDataset.range(start_step * chunks, _ENDLESS // local)
    read = numbers.map(_Read(source, indices, part, flip=flip))
    ahead = -(-prefetch_batches * chunks // max(1, num_workers))
    options = grain.ReadOptions(min(num_threads, ahead), prefetch_buffer_size=ahead)
    batches = _in_workers(read.to_iter_dataset(options), num_workers)
    batches = batches.batch(chunks, batch_fn=_joined)
    if to_device is not None:
        batches = grain.experimental.ThreadPrefetchIterDataset(
            batches.map(to_device), prefetch_buffer_size=ON_DEVICE
        )
    return Batches(batches)


def _num_chunks(size: int, wanted: int) -> int:
    """Returns the least divisor of a batch's size that is `wanted` or more, or the size."""
    return next((n for n in range(wanted, size) if size % n == 0), size)


def _in_workers(chunks: grain.IterDataset, num_workers: int) -> grain.IterDataset:
    """Deals chunks out to worker processes in turn; their order stays."""
    if not num_workers:
        return chunks
    if not flags.FLAGS.is_parsed():  # in notebooks; grain hands its own flags on to its workers
        flags.FLAGS.mark_as_parsed()
    return chunks.mp_prefetch(grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=1))
