"""Sources that read prepared data sets and LMDB files.

A source gives random access to decoded examples; threads and processes can share it.
"""

import dataclasses
import pathlib
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from dbae_jax.configuration import paths
from dbae_jax.data import lmdb_files, transforms
from dbae_jax.data.builders.preparation_file import (
    PREPARATION,
    enlarged,
    of_images,
    read_preparation,
)
from dbae_jax.data.files.prepared_folders import find
from dbae_jax.errors import ConfigError, DataError

Range = tuple[str, int, int]  # (stored split, first index, index after the last)

# Data sets whose images also belong to a larger data set: name -> larger data set.
PART_OF = {"celeb_a": "celeba", "celebahq": "celeba"}

# Splits of DiffAE's LMDB files, which store none: data set -> images in the file -> split -> range.
LMDB_SPLITS = {
    "ffhq": {70_000: {"test": (0, 10_000), "train60k": (10_000, 70_000)}},
    "celeba": {
        202_599: {
            "train": (0, 162_770),
            "validation": (162_770, 182_637),
            "test": (182_637, 202_599),
        }
    },
}


@dataclasses.dataclass(frozen=True)
class View:
    """Crop and size of the images that a source returns.

    Attributes:
      crop: crop rule, a key of `transforms.CROPS`.
      size: side of the square images in pixels.
      channels: 1 (gray) or 3 (colour).
      background: colour under transparent parts of images.
    """

    crop: str
    size: int
    channels: int
    background: str = "white"


class ImageSource:
    """Examples of a split, which are decoded, cropped and resized when they are read.

    `source[i]` is {"image": uint8 [size, size, channels], "id": str} and, where known, "label": int
    and "attributes": int8 or float32 [K], whose names are `attribute_names`. Instances can be
    pickled and shared between threads. Their repr holds no path, so that results do not depend on
    where the data set lies.
    """

    def __init__(self, title: str, ranges: Sequence[Range], view: View):
        """Stores which examples the source holds.

        Args:
          title: name of the data set, for the repr and error messages.
          ranges: ranges of stored examples, which the source concatenates.
          view: crop and size of the images.
        """
        self.title, self.ranges, self.view = title, tuple(ranges), view
        self.attribute_names: tuple[str, ...] = ()
        self.class_names: tuple[str, ...] = ()
        self._ends = np.cumsum([stop - start for _, start, stop in self.ranges])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]  # negative indices and IndexError as in a list
        part = int(np.searchsorted(self._ends, index, side="right"))
        split, _, stop = self.ranges[part]
        example = self._fetch(split, stop - int(self._ends[part]) + index)
        view = self.view
        try:
            image = transforms.load(
                example["image"],
                crop=view.crop,
                size=view.size,
                channels=view.channels,
                background=view.background,
            )
        except DataError as error:
            raise DataError(f"{self.title}, {example['id']}: {error}") from error
        return example | {"image": image}

    def __repr__(self) -> str:
        parts = "+".join(f"{split}[{start}:{stop}]" for split, start, stop in self.ranges)
        view = self.view
        shape = f"{view.size}x{view.size}x{view.channels}"
        on = "" if view.background == "white" else f", on {view.background}"
        return f"{self.title}({parts}, {view.crop}, {shape}{on})"

    def overlaps(self, other: Any) -> bool:
        """Returns whether another source shares images with this one.

        Two sources of the same images in different orders count as sharing images.

        Args:
          other: any source.
        """
        if not isinstance(other, ImageSource):
            return False
        if self.title != other.title:
            names = (re.split(r"/|\.lmdb", source.title)[0] for source in (self, other))
            return same_images(*names)
        return any(
            split == other_split and max(start, other_start) < min(stop, other_stop)
            for split, start, stop in self.ranges
            for other_split, other_start, other_stop in other.ranges
        )

    def _fetch(self, split: str, index: int) -> dict[str, Any]:
        """Returns an example whose "image" is the bytes of the image file."""
        raise NotImplementedError


class PreparedSource(ImageSource):
    """Examples of an array_record data set that `data.prepare` or TFDS wrote."""

    def __init__(self, folder: pathlib.Path, title: str, ranges: Sequence[Range], view: View):
        """Opens the data set in `folder`; see `ImageSource` for the other arguments."""
        super().__init__(title, ranges, view)
        self._folder = folder
        self._open()
        features = self._builder.info.features
        if "label" in features:
            self.class_names = tuple(features["label"].names)
        if (folder / PREPARATION).is_file():
            self.attribute_names = tuple(read_preparation(folder)["attribute_names"])
        elif "attributes" in features:
            # TFDS restores attributes in no fixed order; CelebA's order is alphabetical.
            self.attribute_names = tuple(sorted(features["attributes"]))

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, Any] = {}
        self._builder = tfds.builder_from_directory(str(self._folder))

    def __getstate__(self) -> dict:
        return {k: v for k, v in vars(self).items() if k not in ("_lock", "_records", "_builder")}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._open()

    def _fetch(self, split: str, index: int) -> dict[str, Any]:
        with self._lock:
            if split not in self._records:
                decoders = {"image": tfds.decode.SkipDecoding()}
                self._records[split] = self._builder.as_data_source(split, decoders=decoders)
        stored = self._records[split][index]
        name = stored["id"].decode() if "id" in stored else f"{split}/{index}"
        example = {"image": stored["image"], "id": name}
        if "label" in stored:
            example["label"] = int(stored["label"])
        if "attributes" in stored:
            example["attributes"] = self._vector(stored["attributes"])
        return example

    def about(self) -> list[str]:
        """Returns sentences about the images of all splits, where `data.prepare` recorded them."""
        if not (self._folder / PREPARATION).is_file():
            return []
        report, size = read_preparation(self._folder), self.view.size
        small = enlarged(report, size)
        lines = of_images(report)
        if small:
            lines.append(f"{small:,} images are smaller than {size} pixels and are enlarged.")
        return lines

    def _vector(self, attributes: Any) -> np.ndarray:
        if isinstance(attributes, dict):  # TFDS stores the attributes of CelebA by name.
            return np.array([attributes[name] for name in self.attribute_names], np.int8)
        return np.asarray(attributes)


class LmdbSource(ImageSource):
    """Images of a DiffAE or LSUN LMDB, which stores neither labels nor attributes."""

    def __init__(self, path: pathlib.Path, title: str, ranges: Sequence[Range], view: View):
        """Opens the LMDB file at `path`; see `ImageSource` for the other arguments."""
        super().__init__(title, ranges, view)
        self._images: Any = lmdb_files.open_images(path)
        self._keys: Sequence[str] | None = None
        if isinstance(self._images, lmdb_files.HashedImages):
            self._keys = self._images.keys()

    def _fetch(self, split: str, index: int) -> dict[str, Any]:
        key = index if self._keys is None else self._keys[index]
        return {"image": self._images.read(key), "id": str(key)}


def same_images(first: str, second: str) -> bool:
    """Returns whether two data sets hold the same images, or one holds some images of the other.

    Args:
      first: name of a data set.
      second: name of a data set.
    """
    return PART_OF.get(first, first) == PART_OF.get(second, second)


def open_source(
    name: str,
    *,
    data_dir: str,
    lmdb: str,
    split: str,
    crop: str,
    image_size: int,
    channels: int,
    background: str = "white",
) -> ImageSource:
    """Opens a split of a prepared data set, or of an LMDB file.

    Args:
      name: name that `data.prepare` gave the data set.
      data_dir: folder of all prepared data sets.
      lmdb: path of an LMDB file that is read instead; "": none.
      split: TFDS split expression, such as "train", "test[:100]", "train+validation".
      crop: crop rule, a key of `transforms.CROPS`.
      image_size: side of the square images in pixels.
      channels: number of channels that the images have: 3 (colour) or 1 (gray).
      background: colour under transparent parts of images.

    Returns:
      A source of examples {"image": uint8 [image_size, image_size, channels], "id": str, ...}.

    Raises:
      DataError: if the data set is missing or incomplete, or its format has no random access.
      ConfigError: if the split or crop is unknown, or the images have other channels.
    """
    if crop not in transforms.CROPS:
        raise ConfigError(
            f"config.data.crop={crop!r} is not allowed: it must be one of "
            f"{', '.join(transforms.CROPS)}."
        )
    view = View(crop, image_size, channels, background)
    source: ImageSource
    if lmdb:
        source = _open_lmdb(name, paths.read(lmdb, "config.data.lmdb"), split, view)
    else:
        folder = paths.read(data_dir, "config.data.data_dir")
        source = _open_prepared(name, folder, split, view)
    source[0]  # An error that concerns all images is reported now.
    return source


def _open_lmdb(name: str, path: pathlib.Path, split: str, view: View) -> LmdbSource:
    if not path.exists():
        raise DataError(
            f"config.data.lmdb={path} does not exist; {paths.nearest(path)}name an LMDB file, or "
            "'' to read a prepared data set."
        )
    images = lmdb_files.open_images(path)
    if isinstance(images, lmdb_files.NumberedImages):
        count, first = len(images), images.read(0)
    else:
        count, first = len(images.file), images.file.get(next(iter(images.file))) or b""
    named = LMDB_SPLITS.get(name, {}).get(count, {})
    splits = {"train": ("all", 0, count)}
    splits |= {part: ("all", start, stop) for part, (start, stop) in named.items()}
    _check_channels(name, transforms.channels_of(transforms.decode(first)), view.channels)
    return LmdbSource(path, f"{name}.lmdb", resolve(split, splits, name), view)


def has_split(split: str, name: str, data_dir: str, image_size: int) -> bool:
    """Returns whether a prepared data set has a split of this name.

    Raises:
      DataError: if the data set is missing or incomplete.
    """
    folder = find(name, paths.read(data_dir, "config.data.data_dir"), image_size)
    return split in _splits(folder, tfds.builder_from_directory(str(folder)))


def _splits(folder: pathlib.Path, builder: Any) -> dict[str, Range]:
    """Returns the splits of a prepared data set, and its named parts of splits."""
    splits = {part: (part, 0, info.num_examples) for part, info in builder.info.splits.items()}
    if (folder / PREPARATION).is_file():
        named = read_preparation(folder)["named_splits"]
        splits |= {part: tuple(where) for part, where in named.items()}
    return splits


def _open_prepared(name: str, data_dir: pathlib.Path, split: str, view: View) -> PreparedSource:
    folder = find(name, data_dir, view.size)
    builder = tfds.builder_from_directory(str(folder))
    infos = builder.info.splits
    missing = [path for info in infos.values() for path in info.filepaths if not path.exists()]
    format_name = builder.info.file_format.value
    if format_name != "array_record":
        raise DataError(
            f"{folder} was prepared as {format_name}, which has no random access; prepare it as "
            "array_record, with tfds build --file_format=array_record or dbae_jax.data.prepare."
        )
    if missing:
        raise DataError(
            f"{folder} is incomplete: {missing[0].name} is missing; delete the folder and prepare "
            "the data set again."
        )
    _check_channels(name, builder.info.features["image"].shape[-1], view.channels)
    ranges = resolve(split, _splits(folder, builder), name)
    return PreparedSource(folder, builder.info.full_name, ranges, view)


def resolve(split: str, splits: Mapping[str, Range], name: str) -> list[Range]:
    """Returns the ranges of stored examples that a TFDS split expression names.

    Args:
      split: TFDS split expression, such as "train[:10%]+test".
      splits: known splits: name -> (stored split, start, stop).
      name: name of the data set, for error messages.

    Raises:
      ConfigError: if the expression is wrong, names an unknown split, or holds no images.
    """
    known = ", ".join(f"{part} ({stop - start:,})" for part, (_, start, stop) in splits.items())
    infos = tfds.core.SplitDict(
        [
            tfds.core.SplitInfo(name=part, shard_lengths=[stop - start], num_bytes=0)
            for part, (_, start, stop) in splits.items()
        ]
    )
    ranges = []
    try:
        if "all" in re.split(r"[\s+]+", split):  # "all" would hold images of named splits twice.
            raise ValueError(split)
        for piece in tfds.core.ReadInstruction.from_spec(split).to_absolute(infos):
            base, start, _ = splits[piece.splitname]
            count = infos[piece.splitname].num_examples
            low, high = piece.from_ or 0, count if piece.to is None else piece.to
            ranges.append((base, start + low, start + high))
    except (ValueError, KeyError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"the split {split!r} does not fit {name}, which has {known}; write a split "
            "expression such as 'train', 'train[1000:]' or 'train[:10%]+test'."
        ) from error
    ranges = [part for part in ranges if part[1] < part[2]]
    if not ranges:
        raise ConfigError(
            f"the split {split!r} of {name} holds no images; {name} has {known}; name a "
            "larger range."
        )
    return ranges


def _check_channels(name: str, found: int | None, wanted: int) -> None:
    if found is not None and found != wanted:
        raise ConfigError(
            f"config.data.channels={wanted} is not allowed: the images of {name} have {found} "
            f"channels; set config.data.channels={found}."
        )
