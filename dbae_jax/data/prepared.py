"""Prepared data sets and LMDB files as sources: random access, for threads and processes."""

import dataclasses
import pathlib
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from dbae_jax.data import lmdb_files, transforms
from dbae_jax.data.builders.base import PREPARATION, read_preparation
from dbae_jax.errors import ConfigError, DataError

Range = tuple[str, int, int]  # split, start, stop

# What TFDS itself calls a data set of ours; its images are the same, hashed into another order.
TFDS_NAMES = {"celeba": "celeb_a"}

# Data sets whose images are images of another one as well: name -> that one.
PART_OF = {"celeb_a": "celeba", "celebahq": "celeba"}

# Data sets with a builder of their own; other names are folders of images.
KNOWN = ("ffhq", "celeba", "celebahq", "bedroom", "horse", "lfw", "folder")

# Parts of a DiffAE LMDB, which knows no splits: number of its images -> name -> (start, stop).
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
    """How images are shown: a crop rule of `transforms.CROPS`, size in pixels, 1 or 3 channels."""

    crop: str
    size: int
    channels: int


class ImageSource:
    """Examples of a split, decoded, cropped and resized when they are asked for.

    `source[i]` gives {"image": uint8 [size, size, channels], "id": str} and, where known, "label":
    int and "attributes": int8 or float32 [K], whose names are `attribute_names`. Instances pickle,
    and are safe to share between threads; their repr holds no path.
    """

    def __init__(self, title: str, ranges: Sequence[Range], view: View):
        """Takes a name for the repr, the parts that follow each other, and how to show them."""
        self.title, self.ranges, self.view = title, tuple(ranges), view
        self.attribute_names: tuple[str, ...] = ()
        self.class_names: tuple[str, ...] = ()
        self._ends = np.cumsum([stop - start for _, start, stop in self.ranges])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]  # negative indices and IndexError as of a list
        part = int(np.searchsorted(self._ends, index, side="right"))
        split, _, stop = self.ranges[part]
        example = self._fetch(split, stop - int(self._ends[part]) + index)
        view = self.view
        try:
            image = transforms.load(
                example["image"], crop=view.crop, size=view.size, channels=view.channels
            )
        except DataError as error:
            raise DataError(f"{self.title}, {example['id']}: {error}") from error
        return example | {"image": image}

    def __repr__(self) -> str:
        parts = "+".join(f"{split}[{start}:{stop}]" for split, start, stop in self.ranges)
        view = self.view
        return f"{self.title}({parts}, {view.crop}, {view.size}x{view.size}x{view.channels})"

    def overlaps(self, other: Any) -> bool:
        """Whether the other source shares images; True if it keeps them in another order."""
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
        """Returns an example whose "image" is the bytes of the file."""
        raise NotImplementedError


class PreparedSource(ImageSource):
    """Examples of an array_record data set, written by `data.prepare` or by TFDS."""

    def __init__(self, folder: pathlib.Path, title: str, ranges: Sequence[Range], view: View):
        super().__init__(title, ranges, view)
        self._folder = folder
        self._open()
        features = self._builder.info.features
        if "label" in features:
            self.class_names = tuple(features["label"].names)
        if (folder / PREPARATION).is_file():
            self.attribute_names = tuple(read_preparation(folder)["attribute_names"])
        elif "attributes" in features:
            # TFDS restores them in no fixed order; CelebA's own is the alphabetical one.
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

    def _vector(self, attributes: Any) -> np.ndarray:
        if isinstance(attributes, dict):  # as TFDS keeps those of CelebA
            return np.array([attributes[name] for name in self.attribute_names], np.int8)
        return np.asarray(attributes)


class LmdbSource(ImageSource):
    """Images of a DiffAE or LSUN LMDB, which knows neither labels nor attributes."""

    def __init__(self, path: pathlib.Path, title: str, ranges: Sequence[Range], view: View):
        super().__init__(title, ranges, view)
        self._images = lmdb_files.open_images(path)
        self._keys = None
        if isinstance(self._images, lmdb_files.HashedImages):
            self._keys = self._images.keys()

    def _fetch(self, split: str, index: int) -> dict[str, Any]:
        key = index if self._keys is None else self._keys[index]
        return {"image": self._images.read(key), "id": str(key)}


def same_images(first: str, second: str) -> bool:
    """Whether two data sets, by name, are of the same images, all or some."""
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
) -> ImageSource:
    """Opens a split of a prepared data set, or of an LMDB file.

    Args:
      name: of the data set: what `data.prepare` called it.
      data_dir: folder of all prepared data sets.
      lmdb: LMDB file to read instead; "": none.
      split: TFDS split expression, such as "train", "test[:100]", "train+validation".
      crop: rule of `transforms.CROPS`.
      image_size: pixels.
      channels: 3 for colour, 1 for gray; what the images have.

    Raises:
      DataError: if the data set is not prepared, half prepared, or not readable at random.
      ConfigError: for an unknown split or crop, or channels that the images do not have.
    """
    if crop not in transforms.CROPS:
        raise ConfigError(
            f"config.data.crop={crop!r} is not allowed: it must be one of "
            f"{', '.join(transforms.CROPS)}."
        )
    view = View(crop, image_size, channels)
    if lmdb:
        source = _open_lmdb(name, pathlib.Path(lmdb).expanduser(), split, view)
    else:
        source = _open_prepared(name, pathlib.Path(data_dir).expanduser(), split, view)
    source[0]  # what is wrong with all images is told now
    return source


def _open_lmdb(name: str, path: pathlib.Path, split: str, view: View) -> LmdbSource:
    if not path.exists():
        raise DataError(f"config.data.lmdb={path} does not exist.")
    images = lmdb_files.open_images(path)
    numbered = isinstance(images, lmdb_files.NumberedImages)
    count = len(images) if numbered else len(images.file)
    named = LMDB_SPLITS.get(name, {}).get(count, {})
    splits = {"train": ("all", 0, count)}
    splits |= {part: ("all", start, stop) for part, (start, stop) in named.items()}
    first = images.read(0) if numbered else images.file.get(next(iter(images.file)))
    _check_channels(name, transforms.channels_of(transforms.decode(first)), view.channels)
    return LmdbSource(path, f"{name}.lmdb", resolve(split, splits, name), view)


def _open_prepared(name: str, data_dir: pathlib.Path, split: str, view: View) -> PreparedSource:
    folder = find(name, data_dir, view.size)
    builder = tfds.builder_from_directory(str(folder))
    infos = builder.info.splits
    missing = [path for info in infos.values() for path in info.filepaths if not path.exists()]
    format_name = builder.info.file_format.value
    if format_name != "array_record":
        raise DataError(
            f"{folder} was prepared as {format_name}, which has no random access; prepare it again "
            "with --file_format=array_record (tfds build) or with dbae_jax.data.prepare."
        )
    if missing:
        raise DataError(f"{folder} is not whole: {missing[0].name} is missing; prepare it again.")
    splits = {part: (part, 0, info.num_examples) for part, info in infos.items()}
    if (folder / PREPARATION).is_file():
        report = read_preparation(folder)
        splits |= {part: tuple(where) for part, where in report["named_splits"].items()}
    _check_channels(name, builder.info.features["image"].shape[-1], view.channels)
    return PreparedSource(folder, builder.info.full_name, resolve(split, splits, name), view)


def find(name: str, data_dir: pathlib.Path, image_size: int) -> pathlib.Path:
    """Returns the folder of a prepared data set.

    Of several stored sizes, the smallest that is no smaller than `image_size` is taken; images as
    they were published count as larger than all.

    Raises:
      DataError: if there is none, or only an unfinished one.
    """
    found = _versions(data_dir / name) or _versions(data_dir / TFDS_NAMES.get(name, name))
    whole = [folder for folder in found if (folder / "dataset_info.json").is_file()]
    if whole:
        return min(whole, key=lambda folder: _preference(folder, image_size))
    dataset = name if name in KNOWN else f"folder --name={name}"
    command = (
        f"python -m dbae_jax.data.prepare --dataset={dataset} --source=... --data_dir={data_dir}"
    )
    if found:
        raise DataError(
            f"{found[0]} is not whole: its preparation was interrupted; finish it with {command}"
        )
    raise DataError(
        f"config.data.name={name!r} is not prepared in config.data.data_dir={str(data_dir)!r}; run "
        f"{command} (docs/data.md says what the source is)."
    )


def resolve(split: str, splits: Mapping[str, Range], name: str) -> list[Range]:
    """Returns the ranges of a TFDS split expression.

    Args:
      split: the expression.
      splits: what there is: name -> (stored split, start, stop).
      name: of the data set, for messages.

    Raises:
      ConfigError: if the expression is wrong, names what is not there, or holds no images.
    """
    have = ", ".join(f"{part} ({stop - start:,})" for part, (_, start, stop) in splits.items())
    infos = tfds.core.SplitDict(
        [
            tfds.core.SplitInfo(name=part, shard_lengths=[stop - start], num_bytes=0)
            for part, (_, start, stop) in splits.items()
        ]
    )
    ranges = []
    try:
        if "all" in re.split(r"[\s+]+", split):  # would hold named parts twice
            raise ValueError(split)
        for piece in tfds.core.ReadInstruction.from_spec(split).to_absolute(infos):
            base, start, _ = splits[piece.splitname]
            count = infos[piece.splitname].num_examples
            low, high = piece.from_ or 0, count if piece.to is None else piece.to
            ranges.append((base, start + low, start + high))
    except (ValueError, KeyError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"the split {split!r} does not fit {name}: write such as 'train', 'train[1000:]' or "
            f"'train[:10%]+test'; it has {have}."
        ) from error
    ranges = [part for part in ranges if part[1] < part[2]]
    if not ranges:
        raise ConfigError(f"the split {split!r} of {name} holds no images; it has {have}.")
    return ranges


def _versions(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders of versions, finished or not, one or two levels down."""
    below = sorted(p for level in ("*", "*/*") for p in folder.glob(level) if p.is_dir())
    return [p for p in below if re.fullmatch(r"\d+\.\d+\.\d+(\.partial)?", p.name)]


def _preference(folder: pathlib.Path, image_size: int) -> tuple:
    size = 0
    if (folder / PREPARATION).is_file():
        size = read_preparation(folder)["storage"]["size"]
    too_small = 0 < size < image_size
    version = tuple(-int(part) for part in folder.name.split("."))
    return (too_small, size or float("inf"), "webp" in folder.parent.name, version)


def _check_channels(name: str, have: int | None, want: int) -> None:
    if have is not None and have != want:
        raise ConfigError(
            f"config.data.channels={want} is not allowed: the images of {name} have {have}."
        )
