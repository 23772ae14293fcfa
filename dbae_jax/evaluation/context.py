"""What a suite of measurements works on: a model, splits of a data set, and their codes.

A suite is three functions of a `Context`. It knows neither workdirs nor how sources are made.
"""

import dataclasses
import functools
import itertools
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.config import Config
from dbae_jax.data import codes, sources
from dbae_jax.data.codes import Codes
from dbae_jax.data.sources import Source
from dbae_jax.errors import DataError
from dbae_jax.evaluation.results import Measured
from dbae_jax.metrics.networks import published
from dbae_jax.metrics.networks.published import FeatureNet, PerceptualNet

# Keys of `Context.settings` that codes depend on beside the images.
OF_CODES = ("step", "weights", "fingerprint", "dtype", "matmul_precision")

log = logging.getLogger(__name__)


class Context:
    """A model, with its config as it is evaluated, and the splits "train", "test" of a data set.

    Where the config names one, there is a split "validation" too.
    """

    def __init__(
        self,
        model: DBAE,
        config: Config,
        splits: Mapping[str, Source],
        *,
        cache: pathlib.Path | None = None,
    ):
        """Takes what is measured.

        Args:
          model: with averaged weights.
          config: `data`, `sample` and `eval` are followed.
          splits: name -> source; none may be empty.
          cache: folder for files of codes; None: codes are kept in memory alone.

        Raises:
          DataError: if a split holds fewer than two images.
        """
        self.model, self.config, self.splits = model, config, splits
        self.cache = cache
        self._weights_dir = pathlib.Path(config.eval.weights_dir).expanduser()
        self._download = config.eval.download_weights
        self._codes: dict[tuple[str, bool], Codes] = {}
        for name, source in splits.items():
            if len(source) < 2:
                raise DataError(
                    f"{source!r}, the {name} split, holds {len(source)} images; 2 are needed."
                )

    @functools.cached_property
    def known(self) -> frozenset[str]:
        """Names of what examples hold beside images: of `codes.KNOWN`, in every split."""
        held = [set(source[0]) for source in self.splits.values()]
        return frozenset(set.intersection(*held) & set(codes.KNOWN))

    @functools.cached_property
    def perceptual_net(self) -> PerceptualNet:
        """The published network of LPIPS.

        Raises:
          CheckpointError: if its files are missing or wrong.
        """
        return published.load_lpips(self._weights_dir, download=self._download)

    def inception_net(self, preparation: str) -> FeatureNet:
        """Returns the published network of FID; `preparation`: of images for it.

        Raises:
          CheckpointError: if its file is missing or wrong.
        """
        return published.load_inception(self._weights_dir, preparation, download=self._download)

    @functools.cached_property
    def vgg16_net(self) -> FeatureNet:
        """The published network of improved precision and recall.

        Raises:
          CheckpointError: if its file is missing or wrong.
        """
        return published.load_vgg16(self._weights_dir, download=self._download)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attributes, in their order; empty where there are none."""
        return tuple(getattr(self.splits["test"], "attribute_names", ()))

    def limit(self, split: str) -> int:
        """Returns how many images of a split are used: as the config says, of those there are."""
        section = self.config.eval
        wanted = {"train": section.num_probe_images, "test": section.num_images}.get(split, 0)
        count = len(self.splits[split])
        return min(wanted or count, count)

    def overlap(self, first: str, second: str) -> bool:
        """Whether two splits share images, or may, see `sources.overlap`."""
        return sources.overlap(self.splits[first], self.splits[second])

    def leak(self, *names: str) -> str | None:
        """Returns a sentence on the first two of these splits that share images, or None.

        What learns on one of them and is scored on the other knows images that it is scored on.
        """
        data = self.config.data
        said = {
            "train": f"data.train_split={data.train_split!r}",
            "test": f"data.test_split={data.test_split!r}",
            "validation": f"eval.validation_split={self.config.eval.validation_split!r}",
        }
        parts = ("train", "test")
        if data.name not in sources.IN_MEMORY:
            parts = ("train[:90%]", "train[90%:]")
        for first, second in itertools.combinations([n for n in names if n in self.splits], 2):
            if self.overlap(first, second):
                return (
                    f"config.{said[first]} and config.{said[second]} of {data.name} share images, "
                    "so that scores would be of images that were learned; name splits that share "
                    f"none, such as --config.data.train_split={parts[0]!r} "
                    f"--config.data.test_split={parts[1]!r}"
                )
        return None

    def settings(self) -> dict[str, Any]:
        """Returns what determines the numbers of every suite: the model and the images.

        `sources`: the splits as their data call themselves: prepared images name the stored size
        that they are read from and the ranges, none names a folder.
        """
        data, model = self.config.data, self.config.model
        return {
            "step": self.model.step,
            "weights": "ema",
            "fingerprint": self.model.fingerprint,
            "dtype": model.dtype,
            "matmul_precision": model.matmul_precision,
            "crop": data.crop,
            "image_size": data.image_size,
            "lmdb": data.lmdb,
            "train_split": data.train_split,
            "test_split": data.test_split,
            "sources": {name: repr(self.splits[name]) for name in ("train", "test")},
        }

    def chunks(self, split: str) -> Iterator[np.ndarray]:
        """Yields the images of a split (see `limit`), uint8 [n, H, W, C], a few batches a time."""
        size = codes.READ_BATCHES * self.model.batch_size
        threads = self.config.data.num_threads
        count = self.limit(split)
        for chunk in sources.chunks(self.splits[split], size, count=count, num_threads=threads):
            yield chunk["image"]

    def images(self, split: str, count: int | None = None) -> np.ndarray:
        """Returns the first `count` images (default: see `limit`), uint8 [N, H, W, C]."""
        return self.some(split, self.limit(split) if count is None else count)[0]

    def some(self, split: str, count: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the first `count` images, and their labels [N] or None."""
        return sources.gather(self.splits[split], count)

    def codes(self, split: str, *, flip: bool = False) -> Codes:
        """Returns the codes of a split's images (see `limit`), with what is known of them.

        They are computed once, and kept in a file of the cache: whoever asks next reads it.

        Args:
          split: its name.
          flip: of the mirrored images; without what is known.
        """
        if (split, flip) not in self._codes:
            self._codes[split, flip] = self._read_or_encode(split, flip=flip)
        return self._codes[split, flip]

    def _read_or_encode(self, split: str, *, flip: bool) -> Codes:
        data = self.config.data
        identity = {
            **{key: self.settings()[key] for key in OF_CODES},
            "data": [data.name, data.lmdb, data.crop, data.image_size],
            "split": [getattr(data, f"{split}_split", self.config.eval.validation_split)],
            "source": repr(self.splits[split]),
            "images": self.limit(split),
            "flip": flip,
        }

        def encode() -> dict[str, Codes]:
            encoded = codes.encode(
                self.model,
                self.splits[split],
                count=self.limit(split),
                num_threads=data.num_threads,
                flip=flip,
                with_known=not flip,
            )
            return {split: encoded}

        if self.cache is None:
            return encode()[split]
        path = self.cache / f"{data.name}_{split}{'_flipped' * flip}.npz"
        return codes.load_or_make(path, identity, encode)[split]


@dataclasses.dataclass(frozen=True)
class Suite:
    """Measurements that belong together.

    obstacle: why they cannot be made of this model and data, a sentence; None if they can.
    settings: what determines the numbers beside `Context.settings`; raises for what would stop
    them, and does no long work. measure: does it.
    """

    obstacle: Callable[[Context], str | None]
    settings: Callable[[Context], dict[str, Any]]
    measure: Callable[[Context], Measured]


def always(context: Context) -> None:
    """The obstacle of suites that any model and data will do for."""
