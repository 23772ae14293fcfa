"""Training batches from a source. This is the only file that imports grain.

The order of examples is a pure function of (seed, step). A run therefore resumes exactly without
any saved iterator state, also with different numbers of threads, workers or hosts.

Indices are shuffled and random flips are drawn before images are read. Images are read in chunks,
which are equal pieces of a process's batch. Several threads and workers can therefore read a single
batch together, and memory is proportional to the number of batches that are read ahead.
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

ON_DEVICE = 2  # batches that are on the device before they are used
_ENDLESS = 2**62  # examples; grain's infinite repeat overflows if batches hold one example


class Batches(Iterator[Any]):
    """An infinite iterator of batches, which reads ahead in the background.

    A context manager: the end of a `with` block calls `close`.
    """

    def __init__(self, dataset: grain.IterDataset):
        """Starts to read ahead.

        Args:
          dataset: grain data set of batches.
        """
        iterator = iter(dataset)
        iterator.start_prefetch()
        self._iterators = [iterator]
        # Python calls the finalizer at exit at the latest: grain's threads print errors if they
        # still run when the interpreter ends.
        self._finalizer = weakref.finalize(self, _close, self._iterators)

    def __next__(self) -> Any:
        if not self._iterators:
            raise DataError("The batches were closed; call train_batches again for new batches.")
        return next(self._iterators[0])

    def close(self) -> None:
        """Ends the threads and workers; further calls do nothing."""
        self._finalizer()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _close(iterators: list[grain.DatasetIterator]) -> None:
    """Closes the iterator and drops the last reference: grain's iterators print errors at exit."""
    iterators.pop().close()


class _DrawFlip(grain.transforms.RandomMap):
    """Returns an index together with a random decision, of probability 1/2, to mirror its image."""

    def random_map(self, index: int, rng: np.random.Generator) -> tuple[int, bool]:
        return index, rng.random() < 0.5


@dataclasses.dataclass(frozen=True)
class _ProcessPart:
    """The positions, in the infinite order of examples, that one process reads.

    A process reads a contiguous part of each global batch. The global batch is therefore the same
    array for any number of processes, and each example is trained with the same time and noise.

    Attributes:
      batch_size: size of the global batch.
      first: position of the process's first example in the global batch.
      chunks: number of chunks of this process per step.
      size: number of examples per chunk.
    """

    batch_size: int
    first: int
    chunks: int
    size: int

    def positions(self, chunk: int) -> range:
        """Returns the positions of the examples of this process's chunk number `chunk`."""
        step, within = divmod(chunk, self.chunks)
        start = step * self.batch_size + self.first + within * self.size
        return range(start, start + self.size)


class _ReadChunk(grain.transforms.Map):
    """Maps the number of a chunk to its images, {"image": [size, H, W, C]}."""

    def __init__(self, source: Source, order: grain.MapDataset, part: _ProcessPart, *, flip: bool):
        self._source, self._order, self._part, self._flip = source, order, part, flip

    def map(self, chunk: int) -> dict[str, np.ndarray]:
        entries = [self._order[position] for position in self._part.positions(chunk)]
        if not self._flip:
            return {"image": read(self._source, np.array(entries), ("image",))["image"]}
        indices, mirrored = (np.array(column) for column in zip(*entries, strict=True))
        images = read(self._source, indices, ("image",))["image"]
        return {"image": np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)}


def _concatenate(chunks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
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
    """Returns this process's part of the batches of steps start_step, start_step + 1, ...

    Args:
      source: source of the training examples.
      batch_size: size of the global batch over all processes.
      seed: seed of the order and of the flips.
      start_step: step of the first batch; earlier batches are skipped without reading them.
      flip: whether images are mirrored at random.
      process_index: index of this process, from 0.
      process_count: number of processes.
      num_threads: number of threads that read, in this process or in each worker.
      num_workers: number of spawned worker processes that read; 0: this process reads.
      prefetch_batches: number of batches that are read ahead. In addition, each worker holds up to
        five chunks, and `to_device` holds three batches.
      to_device: function that moves a batch to the devices. It runs in a thread of its own before
        the batch is used.

    Returns:
      An infinite iterator of {"image": uint8 [batch_size / process_count, H, W, C]}, or of the
      results of `to_device`.

    Raises:
      DataError: if the source is empty, or the batch cannot be divided evenly between processes.
    """
    if not len(source):
        raise DataError(f"{source!r} holds no images to train on; set config.data.train_split.")
    if batch_size % process_count:
        raise DataError(
            f"A batch of {batch_size} images cannot be divided between {process_count} processes: "
            f"set config.train.batch_size to a multiple of {process_count}."
        )
    local = batch_size // process_count
    chunks = _num_chunks(local, -(-num_threads * max(1, num_workers) // prefetch_batches))
    indices = grain.MapDataset.range(len(source)).seed(seed).shuffle()
    indices = indices.repeat(_ENDLESS // len(source))
    if flip:
        indices = indices.random_map(_DrawFlip())
    part = _ProcessPart(batch_size, process_index * local, chunks, local // chunks)
    chunk_numbers = grain.MapDataset.range(start_step * chunks, _ENDLESS // local)
    chunk_images = chunk_numbers.map(_ReadChunk(source, indices, part, flip=flip))
    ahead = -(-prefetch_batches * chunks // max(1, num_workers))
    options = grain.ReadOptions(min(num_threads, ahead), prefetch_buffer_size=ahead)
    batches = _in_workers(chunk_images.to_iter_dataset(options), num_workers)
    batches = batches.batch(chunks, batch_fn=_concatenate)
    if to_device is not None:
        batches = grain.experimental.ThreadPrefetchIterDataset(
            batches.map(to_device), prefetch_buffer_size=ON_DEVICE
        )
    return Batches(batches)


def _num_chunks(size: int, wanted: int) -> int:
    """Returns the smallest divisor of a batch's size that is at least `wanted`, else the size."""
    return next((n for n in range(wanted, size) if size % n == 0), size)


def _in_workers(chunks: grain.IterDataset, num_workers: int) -> grain.IterDataset:
    """Distributes chunks to worker processes in turn, and keeps their order."""
    if not num_workers:
        return chunks
    if not flags.FLAGS.is_parsed():  # As in notebooks; grain passes parsed flags to its workers.
        flags.FLAGS.mark_as_parsed()
    return chunks.mp_prefetch(grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=1))
