"""The TFDS builder that all data sets share.

A data set's own class only lists the published files: it overrides `list_images`.
"""

import collections
import contextlib
import dataclasses
import functools
import io
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from dbae_jax.data import transforms
from dbae_jax.data.builders import preparation_file
from dbae_jax.data.builders.listing import Listing, Options
from dbae_jax.data.builders.preparation_file import PREPARATION
from dbae_jax.data.builders.shards import ShardRecord, Staging
from dbae_jax.errors import DataError
from dbae_jax.runtime.files import write_json
from dbae_jax.runtime.progress import Progress

SHARD_BYTES = 128 * 2**20  # small, so that an interruption loses little work
MAX_IMAGES_PER_SHARD = 8192
SAMPLED_IMAGES = 32  # images that are decoded first to estimate sizes and channels


@dataclasses.dataclass(frozen=True)
class Storage:
    """How images are stored.

    Attributes:
      size: side of the stored square copies in pixels; 0: the published files are stored.
      encoding: file format of the copies: "png" (lossless) or "webp" (quality 90).
    """

    size: int = 0
    encoding: str = "png"

    def name(self) -> str:
        """Returns the name of the TFDS config, such as "original", "256" or "256_webp"."""
        if not self.size:
            return "original"
        return str(self.size) + ("_webp" if self.encoding == "webp" else "")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Properties of all images, estimated from `SAMPLED_IMAGES` of them.

    Attributes:
      mean_bytes: mean size of a stored image.
      channels: 1 (gray) or 3 (colour).
    """

    mean_bytes: int
    channels: int


class Encoded(NamedTuple):
    """What is stored for an image: bytes of a file, its channels, and what was found in it."""

    data: bytes
    channels: int
    findings: tuple[str, ...]


class ImageBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Writes the images of a listing, as encoded bytes and in order, to array_record files.

    An interrupted preparation resumes after the last finished shard. Features of an example are
    `image`, `id`, and, where known, `label` and `attributes`. The file preparation.json next to the
    records holds attribute names, named splits, checksums and the images that were left out.
    """

    VERSION = tfds.core.Version("1.0.0")
    EXPECTED: ClassVar[Mapping[str, int]] = {}  # published images per split; empty: unknown
    STORAGE: ClassVar[Storage] = Storage()  # default of the data set
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
        """Decodes a few images to estimate sizes; nothing is written yet.

        Args:
          listing: images of the data set.
          data_dir: folder of all prepared data sets.
          storage: how images are stored; None: the default of the data set.
          allow_broken: largest number of images that may be broken; these are left out.
          num_threads: number of threads that decode images.
          images_per_shard: largest number of images per shard; None: about 128 MiB per shard.

        Raises:
          DataError: if a split has no images, or none of the first sampled images can be decoded.
        """
        empty = [name for name, split in listing.splits.items() if not len(split.names)]
        if empty or not listing.splits:
            raise DataError(
                f"the split {', '.join(empty) or 'train'} would hold no images; add images for it "
                "to --source."
            )
        self.listing = listing
        self.storage = storage or self.STORAGE
        self.estimate = self._estimate()
        self._allow_broken, self._num_threads = allow_broken, num_threads
        per_shard = SHARD_BYTES // self.estimate.mean_bytes
        self._per_shard = images_per_shard or min(max(per_shard, 1), MAX_IMAGES_PER_SHARD)
        super().__init__(
            data_dir=str(data_dir),
            config=tfds.core.BuilderConfig(name=self.storage.name(), version=self.VERSION),
            file_format="array_record",
        )
        self.final_path = pathlib.Path(self.data_dir)
        self.staging_path = self.final_path.with_name(f"{self.final_path.name}.partial")
        self._broken: dict[str, list[tuple[str, str]]] = {}
        self._seen: dict[str, collections.Counter[str]] = {}

    @classmethod
    def list_images(cls, source: pathlib.Path, options: Options) -> Listing:
        """Returns the list of the images in the published files.

        Args:
          source: path of the published files: a folder, an archive or an LMDB.
          options: how the files are read.

        Raises:
          DataError: if files are missing, are wrong, or do not fit each other.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """Writes the data set; resumes a preparation that was interrupted.

        Raises:
          DataError: if the disk is full, more images than allowed are broken, or a shard differs
            when it is read back. The folder of the finished data set then does not exist.
        """
        self.final_path.parent.mkdir(parents=True, exist_ok=True)
        plan = {
            # Without the bytes of images: a user may fix broken images between two runs.
            "outline": self.listing.outline_hash(),
            "version": str(self.VERSION),
            "storage": dataclasses.asdict(self.storage),
        }
        tfds.disable_progress_bar()  # `Progress` shows the progress instead
        self._staging = Staging(self.staging_path, plan, self._per_shard)
        try:  # This process holds the lock, so no running process uses the folders below.
            for stale in self.final_path.parent.glob(f"incomplete.*_{self.final_path.name}"):
                shutil.rmtree(stale)  # left by a run that was killed while TFDS wrote its metadata
            self._image_hashes = self._hash_images()
            for shard, image_hash in self._image_hashes.items():
                self._staging.require_same_images(shard, image_hash)
            with (
                self._start_progress() as self._progress,
                contextlib.redirect_stdout(io.StringIO()),  # TFDS prints about a download
            ):
                self.download_and_prepare(
                    download_dir=str(self.staging_path / "downloads"),  # stays empty
                    download_config=tfds.download.DownloadConfig(try_download_gcs=False),
                )
            self._staging.remove()
        finally:
            self._staging.close()

    def expected_bytes(self) -> int:
        """Returns the estimated size of the prepared data set in bytes."""
        return int(1.05 * self.estimate.mean_bytes * self.listing.count())

    def _info(self) -> tfds.core.DatasetInfo:
        listing = self.listing
        features: dict[str, Any] = {
            "image": tfds.features.Image(shape=(None, None, self.estimate.channels)),
            "id": tfds.features.Text(),
        }
        if listing.class_names:
            features["label"] = tfds.features.ClassLabel(names=list(listing.class_names))
        if listing.attribute_names:
            dtype = np.asarray(next(iter(listing.splits.values())).attributes).dtype
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
        return _StagedWriter(self._staging, self._broken, self._seen, self._image_hashes)

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Callable[[], Iterator]]]:
        del dl_manager  # Nothing is downloaded.
        return {
            split: [
                functools.partial(self._shard_examples, name, split, start, stop)
                for name, start, stop in self._plan(split)
            ]
            for split in self.listing.splits
        }

    def _plan(self, split: str) -> list[tuple[str, int, int]]:
        """Returns (file name, first index, index after the last) of every shard of a split."""
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

    def _hash_images(self) -> dict[str, str]:
        """Returns the hash of the published images of every shard, by the shard's file name."""
        return {
            name: self.listing.contents_hash(split, start, stop)
            for split in self.listing.splits
            for name, start, stop in self._plan(split)
        }

    def _start_progress(self) -> Progress:
        finished = [self._staging.finished(name) for name in self._image_hashes]
        done = sum(record.records for record in finished if record is not None)
        return Progress("Writing images", self.listing.count(), "images", initial=done)

    def _shard_examples(self, shard: str, split: str, start: int, stop: int) -> Iterator:
        finished = self._staging.finished(shard)
        if finished is not None:  # TFDS counts these examples and does not read them.
            yield from ((start + i, None) for i in range(finished.records))
            return
        broken = self._broken[shard] = []
        seen = self._seen[shard] = collections.Counter()
        part = self.listing.splits[split]
        with ThreadPoolExecutor(self._num_threads) as pool:
            images = _ordered(pool, self._stored, part.names[start:stop], 4 * self._num_threads)
            for index, image in zip(range(start, stop), images, strict=True):
                self._progress.advance()
                if isinstance(image, Exception):
                    broken.append((part.names[index], _sentence(image)))
                else:
                    seen.update(image.findings)
                    yield index, self._example(split, index, image.data)

    def _example(self, split: str, index: int, image: bytes) -> dict[str, Any]:
        part = self.listing.splits[split]
        example: dict[str, Any] = {"image": io.BytesIO(image), "id": part.ids[index]}
        if self.listing.class_names:
            example["label"] = int(np.asarray(part.labels)[index])
        if self.listing.attribute_names:
            example["attributes"] = np.asarray(part.attributes)[index]
        return example

    def _stored(self, name: str) -> Encoded | Exception:
        """Returns what is stored for an image, or the error of a broken image."""
        try:
            encoded = self._encode(name)
            if encoded.channels > self.estimate.channels:
                raise DataError(
                    "the image has colour, and all images that were sampled before are gray; "
                    "convert all images to RGB, or all to gray."
                )
        except (DataError, OSError) as error:
            return error
        return encoded

    def _encode(self, name: str) -> Encoded:
        """Returns what is stored for an image."""
        data = self.listing.store.read(name)
        # Finds broken images, also where the file itself is stored.
        image, findings = transforms.examine(data)
        channels = transforms.channels_of(image)
        transforms.convert(image, channels)
        if self.storage.size:
            data = transforms.shrink(image, self.storage.size, self.storage.encoding) or data
        side = preparation_file.side_of(image.size)
        return Encoded(data, channels, (*findings, side))

    def _estimate(self) -> Estimate:
        names = [name for split in self.listing.splits.values() for name in split.names]
        chosen = np.unique(np.linspace(0, len(names) - 1, SAMPLED_IMAGES).astype(int))
        sizes, channels, error = [], [], None
        for index in chosen:
            try:
                encoded = self._encode(names[index])
            except (DataError, OSError) as caught:
                error = f"{names[index]}: {_sentence(caught)}"
            else:
                sizes.append(len(encoded.data))
                channels.append(encoded.channels)
        if not sizes:
            raise DataError(
                f"none of {len(chosen)} sampled images of --source can be decoded. The last error "
                f"is: {error} Check that --source names the right files, and copy them again."
            )
        return Estimate(int(np.mean(sizes)) + 1, max(channels))

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        found = {name: self._staging.finished(name) for name in self._image_hashes}
        records = {name: record for name, record in found.items() if record is not None}
        broken = [entry for record in records.values() for entry in record.broken]
        if len(broken) > self._allow_broken:
            report = self.staging_path / "broken.json"
            write_json(report, [{"name": name, "reason": reason} for name, reason in broken])
            raise DataError(
                f"{len(broken):,} of {self.listing.count():,} images are broken, such as "
                f"{broken[0][0]}; {report} lists all of them with reasons; fix these images, or "
                f"leave them out with --allow_broken={len(broken)}."
            )
        write_json(pathlib.Path(self.data_dir) / PREPARATION, self._preparation(records, broken))

    def _preparation(
        self, records: Mapping[str, ShardRecord], broken: Sequence[tuple[str, str]]
    ) -> dict[str, Any]:
        return {
            "dataset": self.name,
            "fingerprint": self.listing.fingerprint(),
            "storage": dataclasses.asdict(self.storage),
            "channels": self.estimate.channels,
            **preparation_file.about_listing(self.listing, broken),
            "seen": preparation_file.total(record.seen for record in records.values()),
            "shards": {
                name: {"records": r.records, "bytes": r.bytes, "sha256": r.sha256}
                for name, r in records.items()
            },
        }


class _StagedWriter(tfds.core.ExampleWriter):
    """Writes the missing shards into the staging folder and links all shards to their places."""

    def __init__(
        self,
        staging: Staging,
        broken: Mapping[str, list[tuple[str, str]]],
        seen: Mapping[str, Mapping[str, int]],
        image_hashes: Mapping[str, str],
    ):
        super().__init__(file_format=tfds.core.FileFormat.ARRAY_RECORD)
        self._staging, self._broken, self._seen = staging, broken, seen
        self._image_hashes = image_hashes

    def write(self, path: Any, examples: Iterable[tuple[int, bytes]]) -> None:
        """Writes the shard of this file name if the staging folder lacks it, and links it."""
        path = pathlib.Path(path)
        if self._staging.finished(path.name) is None:
            records = (record for _, record in examples)
            self._staging.write(
                path.name,
                records,
                broken=lambda: self._broken[path.name],
                source=self._image_hashes[path.name],
                seen=lambda: self._seen[path.name],
            )
        self._staging.place(path.name, path)


def _ordered(
    pool: ThreadPoolExecutor, function: Callable, items: Iterable, ahead: int
) -> Iterator[Any]:
    """Yields function(item) in order, computed in threads at most `ahead` items in advance."""
    pending: collections.deque[Future] = collections.deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) >= ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _sentence(error: Exception) -> str:
    """Returns why an image is broken; an error of the system does not repeat its path."""
    if isinstance(error, OSError):
        return f"the file cannot be read: {error.strerror or error}."
    return str(error)
