"""The input of a suite of measurements: a model, the splits of a data set, and their latent codes.

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
from dbae_jax.configuration import paths
from dbae_jax.configuration.config import Config
from dbae_jax.data import codes, identity, sources
from dbae_jax.data.codes import Codes
from dbae_jax.data.sources import Source
from dbae_jax.errors import DataError
from dbae_jax.evaluation.results import Measured
from dbae_jax.metrics.networks import published
from dbae_jax.metrics.networks.published import FeatureNet, PerceptualNet

# Keys of `Context.settings` on which latent codes depend, next to the encoder and the images.
OF_CODES = ("dtype", "matmul_precision")

log = logging.getLogger(__name__)


class Context:
    """A model, the config of its evaluation, and the splits "train" and "test" of a data set.

    There is a split "validation" too if the config names one.
    """

    def __init__(
        self,
        model: DBAE,
        config: Config,
        splits: Mapping[str, Source],
        *,
        cache: pathlib.Path | None = None,
    ):
        """Stores the model and the data, and checks the size of the splits.

        Args:
          model: the model with its EMA weights.
          config: the config whose sections `data`, `sample` and `eval` apply.
          splits: split name -> source.
          cache: folder for files with latent codes; None keeps the codes in memory only.

        Raises:
          DataError: if a split holds fewer than two images.
        """
        self.model, self.config, self.splits = model, config, splits
        self.cache = cache
        self._weights_dir = paths.read(config.eval.weights_dir, "config.eval.weights_dir")
        self._download = config.eval.download_weights
        self._codes: dict[tuple[str, bool], Codes] = {}
        for name, source in splits.items():
            if len(source) < 2:
                raise DataError(
                    f"{source!r}, the {name} split, holds {len(source)} images, and at least 2 are "
                    "needed; set another split in config.data or config.eval.validation_split."
                )

    @functools.cached_property
    def known(self) -> frozenset[str]:
        """The entries of `codes.KNOWN` that the examples of every split hold.

        Labels of one class only are none.
        """
        held = [set(source[0]) for source in self.splits.values()]
        known = set.intersection(*held) & set(codes.KNOWN)
        if "label" in known and self.only_class is not None:
            log.info(
                "All images are of one class, %s, so the class is not used as a label.",
                self.only_class,
            )
            known.discard("label")
        return frozenset(known)

    @property
    def only_class(self) -> str | None:
        """The name of the class of all images; None if there are several, or no named ones."""
        names = tuple(getattr(self.splits["train"], "class_names", ()))
        return names[0] if len(names) == 1 else None

    @functools.cached_property
    def identities(self) -> dict[str, dict[str, Any]]:
        """The identities of the splits, see `dbae_jax.data.identity`."""
        return {name: identity.of(source) for name, source in self.splits.items()}

    @functools.cached_property
    def perceptual_net(self) -> PerceptualNet:
        """The published network for LPIPS.

        Raises:
          CheckpointError: if its files are missing or wrong.
        """
        return published.load_lpips(self._weights_dir, download=self._download)

    def inception_net(self, preparation: str) -> FeatureNet:
        """Returns the published Inception network for FID.

        Args:
          preparation: name of the method that resizes images for the network.

        Raises:
          CheckpointError: if its file is missing or wrong.
        """
        return published.load_inception(self._weights_dir, preparation, download=self._download)

    @functools.cached_property
    def vgg16_net(self) -> FeatureNet:
        """The published network for improved precision and recall.

        Raises:
          CheckpointError: if its file is missing or wrong.
        """
        return published.load_vgg16(self._weights_dir, download=self._download)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The names of the attributes in the order of their columns; empty if there are none."""
        return tuple(getattr(self.splits["test"], "attribute_names", ()))

    def limit(self, split: str) -> int:
        """Returns the number of images of a split that are used: the config's, or all of them."""
        section = self.config.eval
        wanted = {"train": section.num_probe_images, "test": section.num_images}.get(split, 0)
        count = len(self.splits[split])
        return min(wanted or count, count)

    def overlap(self, first: str, second: str) -> bool:
        """Returns whether two splits share images or may share some, see `sources.overlap`."""
        return sources.overlap(self.splits[first], self.splits[second])

    def leak(self, *names: str) -> str | None:
        """Returns a sentence about the first two of these splits that share images, or None.

        A probe that is trained on one of them must not be scored on the other one.
        """
        data = self.config.data
        keys = {
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
                    f"config.{keys[first]} and config.{keys[second]} of {data.name} share images, "
                    "so scores would include training images; name splits that share no images, "
                    f"such as --config.data.train_split={parts[0]!r} "
                    f"--config.data.test_split={parts[1]!r}"
                )
        return None

    def settings(self) -> dict[str, Any]:
        """Returns the settings that determine the results of every suite: the model and the images.

        `sources` holds the representation of each split. For prepared images this names the stored
        size and the ranges; it never names a folder.
        """
        data, model = self.config.data, self.config.model
        return {
            "step": self.model.step,
            "weights": "ema",
            "fingerprint": self.model.fingerprint,
            "dtype": model.dtype,
            "matmul_precision": model.precision,
            "crop": data.crop,
            "image_size": data.image_size,
            "lmdb": data.lmdb,
            "train_split": data.train_split,
            "test_split": data.test_split,
            "sources": {name: repr(self.splits[name]) for name in ("train", "test")},
            "sha256": {name: self.identities[name]["sha256"] for name in ("train", "test")},
        }

    def chunks(self, split: str) -> Iterator[np.ndarray]:
        """Yields the images of a split (see `limit`) in chunks of a few batches.

        Each chunk is uint8 [n, H, W, C].
        """
        size = codes.READ_BATCHES * self.model.batch_size
        threads = self.config.data.num_threads
        count = self.limit(split)
        for chunk in sources.chunks(self.splits[split], size, count=count, num_threads=threads):
            yield chunk["image"]

    def images(self, split: str, count: int | None = None) -> np.ndarray:
        """Returns the first `count` images of a split (default: `limit`), uint8 [N, H, W, C]."""
        return self.some(split, self.limit(split) if count is None else count)[0]

    def some(self, split: str, count: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the first `count` images of a split, and their labels [N] or None."""
        return sources.gather(self.splits[split], count)

    def codes(self, split: str, *, flip: bool = False) -> Codes:
        """Returns the latent codes of a split's images (see `limit`), with their labels.

        The codes are computed once and kept in a file of the cache.

        Args:
          split: name of the split.
          flip: encodes the mirrored images; these codes come without labels.
        """
        if (split, flip) not in self._codes:
            self._codes[split, flip] = self._read_or_encode(split, flip=flip)
        return self._codes[split, flip]

    def identity_of(self, split: str) -> dict[str, Any]:
        """Returns everything that latent codes of a split depend on: the encoder and the images."""
        data = self.config.data
        return {
            "encoder": self.model.encoder_fingerprint,
            **{key: self.settings()[key] for key in OF_CODES},
            "data": [data.name, data.lmdb, data.crop, data.image_size],
            "split": [getattr(data, f"{split}_split", self.config.eval.validation_split)],
            "source": repr(self.splits[split]),
            "sha256": self.identities[split]["sha256"],
        }

    def _read_or_encode(self, split: str, *, flip: bool) -> Codes:
        data = self.config.data
        of_codes = self.identity_of(split) | {"images": self.limit(split), "flip": flip}

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
        return codes.load_or_make(path, of_codes, encode)[split]


@dataclasses.dataclass(frozen=True)
class Suite:
    """Measurements that belong together.

    Attributes:
      obstacle: returns why this model and data cannot be measured, as a clause; None if they can.
      settings: returns the settings that determine the results, next to `Context.settings`. Raises
        for everything that would stop the measurement, and does no long work.
      measure: measures.
    """

    obstacle: Callable[[Context], str | None]
    settings: Callable[[Context], dict[str, Any]]
    measure: Callable[[Context], Measured]


def always(context: Context) -> None:
    """Returns None: the obstacle of suites that can measure every model on all data."""
