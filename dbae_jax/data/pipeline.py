"""From a source to training batches: the only file that imports grain.

The order is a pure function of (seed, step): no iterator state needs saving, and a run resumes
exactly, whatever the number of workers or hosts.
"""

from collections.abc import Iterator

import grain
import numpy as np

from dbae_jax.data.sources import Source


class _RandomFlip(grain.transforms.RandomMap):
    """Mirrors an image left to right with probability one half."""

    def random_map(self, example: dict, rng: np.random.Generator) -> dict:
        if rng.random() < 0.5:
            return example | {"image": example["image"][:, ::-1]}
        return example


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    flip: bool = False,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields this process's part of the batches of steps start_step, start_step + 1, ...

    Args:
      source: examples.
      batch_size: of the global batch, over all processes.
      seed: of the order and of the flips.
      start_step: batches before this one are skipped without being read.
      flip: mirrors images at random.
      process_index: which part of each global batch to give.
      process_count: how many parts there are.

    Yields:
      {"image": uint8 [batch_size / process_count, H, W, C]}, without end.
    """
    examples = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    examples = examples.map(lambda example: {"image": example["image"]})
    if flip:
        examples = examples.random_map(_RandomFlip())
    part = examples[process_index::process_count]
    batches = part.batch(batch_size // process_count)[start_step:]
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=64)))
