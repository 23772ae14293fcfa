"""The TFDS builder that all our data sets share; what differs is how their files are listed."""

import collections
import contextlib
import dataclasses
import functools
import io
import json
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from dbae_jax.data import transforms
from dbae_jax.data.builders.listing import Listing, Options
from dbae_jax.data.builders.progress import Progress
from dbae_jax.data.builders.shards import ShardRecord, Staging
from dbae_jax.errors import DataError
from dbae_jax.runtime.files import write_json

PREPARATION = "preparation.json"
SHARD_BYTES = 128 * 2**20  # small enough that an interruption costs little
MAX_IMAGES_PER_SHARD = 8192
SAMPLED_IMAGES = 32


@dataclasses.dataclass(frozen=True)
class Storage:
    """How images are stored: size 0 as they are, else shrunk to a square, as "png" or "webp"."""

    size: int = 0
    encoding: str = "png"

    def name(self) -> str:
        """Returns the name of the TFDS config: "original", "256" or "256_webp"."""
        if not self.size:
            return "original"
        return str(self.size) + ("_webp" if self.encoding == "webp" else "")


@dataclasses.dataclass(frozen=True)
class Sample:
    """What a few images say of all: mean bytes of a stored image, and 1 or 3 channels."""

    mean_bytes: int
    channels: int


class ImageBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Writes a listing as array_record: images as encoded bytes, in order, resumable by shards.

    Features: `image`, `id`, and where known `label` and `attributes`. Beside the records lies
    preparation.json: names of the attributes, named splits, checksums, what was left out.
    """

    VERSION = tfds.core.Version("1.0.0")
    EXPECTED: ClassVar[Mapping[str, int]] = {}  # images a split, as published; empty: unknown
    STORAGE: ClassVar[Storage] = Storage()  # unless asked for otherwise
    HOMEPAGE: ClassVar[str] = ""
    DESCRIPTION: ClassVar[str] = ""

    def __init__(
        self,
        *,
        listing: Listing,
        data_dir: pathlib.Path,
        storage: Storage | None = None,
        allow_broken: int = 0,
        num_threads: int = 4,
        images_per_shard: int | None = None,
    ):
        """Takes the images and where to write them; nothing is written yet.

        Args:
          listing: of the images.
          data_dir: folder of all data sets.
          storage: how images are stored; None: the data set's own way.
          allow_broken: how many images may be broken, and are then left out.
          num_threads: that decode.
          images_per_shard: None: what makes shards of about 128 MiB.

        Raises:
          DataError: if there are no images, or none of a sample can be decoded.
        """
        empty = [name for name, split in listing.splits.items() if not len(split.names)]
        if empty or not listing.splits:
            raise DataError(f"the split {', '.join(empty) or 'train'} would hold no images.")
        self.listing = listing
        self.storage = storage or self.STORAGE
        self.sample = self._take_sample()
        self._allow_broken, self._num_threads = allow_broken, num_threads
        per_shard = SHARD_BYTES // self.sample.mean_bytes
        self._per_shard = images_per_shard or min(max(per_shard, 1), MAX_IMAGES_PER_SHARD)
        super().__init__(
            data_dir=str(data_dir),
            config=tfds.core.BuilderConfig(name=self.storage.name(), version=self.VERSION),
            file_format="array_record",
        )
        self.final_path = pathlib.Path(self.data_dir)
        self.staging_path = self.final_path.with_name(f"{self.final_path.name}.partial")
        self._broken: dict[str, list[tuple[str, str]]] = {}

    @classmethod
    def list_images(cls, source: pathlib.Path, options: Options) -> Listing:
        """Returns what the files at `source` hold.

        Raises:
          DataError: if files are missing, wrong, or do not fit each other.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """Writes the data set, or what an interrupted run has not yet written.

        Raises:
          DataError: if the disk is full, more images than allowed are broken, or what is read
            back differs from what was written; the data set then does not exist.
        """
        self.final_path.parent.mkdir(parents=True, exist_ok=True)
        plan = {
            "outline": self.listing.outline(),  # broken images may be mended between two runs
            "version": str(self.VERSION),
            "storage": dataclasses.asdict(self.storage),
        }
        tfds.disable_progress_bar()  # `Progress` counts images
        self._staging = Staging(self.staging_path, plan, self._per_shard)
        try:  # the lock is held: what lies there is of no process that still runs
            for stale in self.final_path.parent.glob(f"incomplete.*_{self.final_path.name}"):
                shutil.rmtree(stale)  # of a run that was killed while TFDS wrote its metadata
            self._sources = self._contents()
            for shard, source in self._sources.items():
                self._staging.require_source(shard, source)
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of a download
                self.download_and_prepare(
                    download_dir=str(self.staging_path / "downloads"),  # made, and stays empty
                    download_config=tfds.download.DownloadConfig(try_download_gcs=False),
                )
            self._staging.remove()
        finally:
            self._staging.close()

    def expected_bytes(self) -> int:
        """Returns about how many bytes the data set will take."""
        return int(1.05 * self.sample.mean_bytes * self.listing.count())

    def _info(self) -> tfds.core.DatasetInfo:
        listing = self.listing
        features: dict[str, Any] = {
            "image": tfds.features.Image(shape=(None, None, self.sample.channels)),
            "id": tfds.features.Text(),
        }
        if listing.class_names:
            features["label"] = tfds.features.ClassLabel(names=list(listing.class_names))
        if listing.attribute_names:
            dtype = next(iter(listing.splits.values())).attributes.dtype
            shape = (len(listing.attribute_names),)
            features["attributes"] = tfds.features.Tensor(shape=shape, dtype=dtype.type)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            homepage=self.HOMEPAGE,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(attribute_names=list(listing.attribute_names)),
            disable_shuffling=True,
        )

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return _StagedWriter(self._staging, self._broken, self._sources)

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Callable[[], Iterator]]]:
        del dl_manager  # nothing is downloaded
        self._progress = Progress(self.listing.count())
        return {
            split: [
                functools.partial(self._shard_examples, name, split, start, stop)
                for name, start, stop in self._plan(split)
            ]
            for split in self.listing.splits
        }

    def _plan(self, split: str) -> list[tuple[str, int, int]]:
        """Returns (file name, first image, end) of the shards of a split."""
        count = len(self.listing.splits[split].names)
        shards = -(-count // self._staging.images_per_shard)
        template = tfds.core.ShardedFileTemplate(
            data_dir=self.staging_path,
            dataset_name=self.name,
            split=split,
            filetype_suffix="array_record",
        )
        edges = [i * count // shards for i in range(shards + 1)]
        return [
            (template.sharded_filepath(shard_index=i, num_shards=shards).name, *edges[i : i + 2])
            for i in range(shards)
        ]

    def _contents(self) -> dict[str, str]:
        """Returns what tells the images of each shard from those of another source."""
        return {
            name: self.listing.contents(split, start, stop)
            for split in self.listing.splits
            for name, start, stop in self._plan(split)
        }

    def _shard_examples(self, shard: str, split: str, start: int, stop: int) -> Iterator:
        finished = self._staging.finished(shard)
        if finished is not None:  # TFDS only counts these
            self._progress.skip(finished.records)
            yield from ((start + i, None) for i in range(finished.records))
            return
        broken = self._broken[shard] = []
        part = self.listing.splits[split]
        with ThreadPoolExecutor(self._num_threads) as pool:
            images = _ordered(pool, self._stored, part.names[start:stop], 4 * self._num_threads)
            for index, image in zip(range(start, stop), images, strict=True):
                self._progress.step()
                if isinstance(image, bytes):
                    yield index, self._example(split, index, image)
                else:
                    broken.append((part.names[index], str(image)))

    def _example(self, split: str, index: int, image: bytes) -> dict[str, Any]:
        part = self.listing.splits[split]
        example: dict[str, Any] = {"image": io.BytesIO(image), "id": part.ids[index]}
        if self.listing.class_names:
            example["label"] = int(part.labels[index])
        if self.listing.attribute_names:
            example["attributes"] = part.attributes[index]
        return example

    def _stored(self, name: str) -> bytes | Exception:
        """Returns the bytes to store of an image that can be decoded, or what is wrong with it."""
        try:
            data, channels = self._encode(name)
            if channels > self.sample.channels:
                raise DataError("the image has colour, the others have none.")
        except (DataError, OSError) as error:
            return error
        return data

    def _encode(self, name: str) -> tuple[bytes, int]:
        """Returns the bytes to store of an image, and its channels."""
        data = self.listing.store.read(name)
        image = transforms.decode(data)  # also of images that are kept: they must not be broken
        if self.storage.size:
            data = transforms.shrink(image, self.storage.size, self.storage.encoding) or data
        return data, transforms.channels_of(image)

    def _take_sample(self) -> Sample:
        names = [name for split in self.listing.splits.values() for name in split.names]
        chosen = np.unique(np.linspace(0, len(names) - 1, SAMPLED_IMAGES).astype(int))
        sizes, channels, error = [], [], None
        for index in chosen:
            try:
                data, colours = self._encode(names[index])
            except (DataError, OSError) as caught:
                error = f"{names[index]}: {caught}"
            else:
                sizes.append(len(data))
                channels.append(colours)
        if not sizes:
            raise DataError(f"none of {len(chosen)} images can be decoded, such as {error}")
        return Sample(int(np.mean(sizes)) + 1, max(channels))

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        records = {name: self._staging.finished(name) for name in self._sources}
        broken = [entry for record in records.values() for entry in record.broken]
        if len(broken) > self._allow_broken:
            report = self.staging_path / "broken.json"
            write_json(report, [{"name": name, "reason": reason} for name, reason in broken])
            raise DataError(
                f"{len(broken):,} of {self.listing.count():,} images are broken, such as "
                f"{broken[0][0]}: all are listed in {report}; mend them, or leave them out with "
                f"--allow_broken={len(broken)}."
            )
        write_json(pathlib.Path(self.data_dir) / PREPARATION, self._report(records, broken))

    def _report(
        self, records: Mapping[str, ShardRecord], broken: Sequence[tuple[str, str]]
    ) -> dict[str, Any]:
        names = {name for name, _ in broken}

        def stored(split: str, index: int) -> int:
            """Position among the stored images: what is broken leaves no gap."""
            before = self.listing.splits[split].names[:index] if names else ()
            return index - sum(name in names for name in before)

        return {
            "dataset": self.name,
            "fingerprint": self.listing.fingerprint(),
            "storage": dataclasses.asdict(self.storage),
            "channels": self.sample.channels,
            "attribute_names": list(self.listing.attribute_names),
            "named_splits": {
                name: [split, stored(split, start), stored(split, stop)]
                for name, (split, start, stop) in self.listing.named_splits.items()
            },
            "images": {
                split: stored(split, len(part.names)) for split, part in self.listing.splits.items()
            },
            "broken": [{"name": name, "reason": reason} for name, reason in broken],
            "left_out": list(self.listing.left_out),
            "shards": {
                name: {"records": r.records, "bytes": r.bytes, "sha256": r.sha256}
                for name, r in records.items()
            },
        }


def read_preparation(folder: pathlib.Path) -> dict[str, Any]:
    """Returns what a preparation wrote of itself.

    Raises:
      DataError: if the folder has no such file, as that of another program.
    """
    path = folder / PREPARATION
    if not path.is_file():
        raise DataError(
            f"{folder} was not written by dbae_jax.data.prepare: it has no {path.name}."
        )
    return json.loads(path.read_text())


class _StagedWriter(tfds.core.ExampleWriter):
    """Writes shards into the staging folder, those that are missing there, and links them."""

    def __init__(
        self,
        staging: Staging,
        broken: Mapping[str, list[tuple[str, str]]],
        sources: Mapping[str, str],
    ):
        super().__init__(file_format=tfds.core.FileFormat.ARRAY_RECORD)
        self._staging, self._broken, self._sources = staging, broken, sources

    def write(self, path: Any, examples: Iterable[tuple[int, bytes]]) -> None:
        path = pathlib.Path(path)
        if self._staging.finished(path.name) is None:
            records = (record for _, record in examples)
            self._staging.write(
                path.name,
                records,
                broken=lambda: self._broken[path.name],
                source=self._sources[path.name],
            )
        self._staging.place(path.name, path)


def _ordered(
    pool: ThreadPoolExecutor, function: Callable, items: Iterable, ahead: int
) -> Iterator[Any]:
    """Maps in threads, in order, at most `ahead` items ahead of the consumer."""
    pending = collections.deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) >= ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
