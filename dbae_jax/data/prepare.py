"""Prepares a data set: writes published image files as array_record files, which training reads.

python -m dbae_jax.data.prepare --dataset=celeba --source=FOLDER --data_dir=data

The same command resumes an interrupted preparation after the last finished shard.
docs/reference/data_sets.md describes where to download each data set and which files its folder
must hold.
"""

import logging
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from absl import flags
from absl import logging as absl_logging

from dbae_jax.configuration import command_line, paths
from dbae_jax.data.builders import preparation_file
from dbae_jax.data.builders.base import ImageBuilder, Storage
from dbae_jax.data.builders.celeba import Celeba
from dbae_jax.data.builders.celebahq import Celebahq
from dbae_jax.data.builders.emoji import Emoji
from dbae_jax.data.builders.ffhq import Ffhq
from dbae_jax.data.builders.folder import Folder
from dbae_jax.data.builders.lfw import Lfw
from dbae_jax.data.builders.listing import Listing, Options
from dbae_jax.data.builders.lsun import Bedroom, Horse
from dbae_jax.data.builders.preparation_file import PREPARATION, read_preparation
from dbae_jax.data.builders.shards import ShardRecord, explain, is_intact
from dbae_jax.data.files.prepared_folders import TFDS_NAMES
from dbae_jax.data.sources import IN_MEMORY
from dbae_jax.errors import ConfigError, DataError
from dbae_jax.runtime.progress import track

BUILDERS = {b.name: b for b in (Ffhq, Celeba, Celebahq, Bedroom, Horse, Lfw, Emoji, Folder)}

DATASET = flags.DEFINE_enum("dataset", None, list(BUILDERS), "Data set to prepare.")
SOURCE = flags.DEFINE_string(
    "source", None, "Folder, zip, tar (also compressed) or LMDB of the images."
)
DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of all prepared data sets.")
NAME = flags.DEFINE_string(
    "name", None, "Name of the prepared data set, for --dataset=folder; default: folder."
)
ANNOTATIONS = flags.DEFINE_string("annotations", None, "Folder of attribute and split files.")
ATTRIBUTES = flags.DEFINE_string("attributes", None, "CSV of attributes, for --dataset=folder.")
STORE_SIZE = flags.DEFINE_integer(
    "store_size",
    None,
    "Side in pixels of the square copies (LANCZOS) that are stored; 0: the published files are "
    "stored; default: 256 for ffhq, celebahq, horse and bedroom, else 0.",
    lower_bound=0,
)
STORE_FORMAT = flags.DEFINE_enum(
    "store_format",
    None,
    ["png", "webp"],
    "File format of the copies: png (lossless) or webp (quality 90).",
)
ALLOW_PARTIAL = flags.DEFINE_bool(
    "allow_partial", False, "Accept a source that lacks some of the published images."
)
EXPECTED_COUNT = flags.DEFINE_integer(
    "expected_count", None, "Number of images in --source; default: as published."
)
SKIP_CHECKSUMS = flags.DEFINE_bool(
    "skip_checksums", False, "Accept files whose checksums differ from the published ones."
)
ALLOW_BROKEN = flags.DEFINE_integer(
    "allow_broken", 0, "Largest number of broken images, which are left out.", lower_bound=0
)
THREADS = flags.DEFINE_integer("threads", 8, "Number of threads that decode images.", lower_bound=1)

NO_TEST = (
    "There is no split test. Training and evaluation use training images in its place, and the "
    "suites that need images of their own do not apply; hold some out with "
    "--config.data.train_split='train[:90%]' --config.data.test_split='train[90%:]'."
)

log = logging.getLogger("dbae_jax.data.prepare")  # __name__ would be "__main__"


def prepare(builder: ImageBuilder, expected: int | Mapping[str, int] | None) -> pathlib.Path:
    """Writes a data set, unless its folder already exists, and returns the folder.

    Args:
      builder: builder of the data set.
      expected: number of images in the source, in total or by split; None: not checked.

    Raises:
      DataError: if the number of images differs, the folder holds a different data set, the disk is
        full, or images are broken. An incomplete data set never gets the name of a finished one.
    """
    for line in preparation_file.of_source(preparation_file.about_listing(builder.listing)):
        log.info("%s", line)
    check_count(builder.listing, expected)
    final = builder.final_path
    if final.exists():
        _check_existing(builder)
        log.info("%s exists and is complete; nothing to do.", final)
        return final
    check_space(builder)
    log.info("Writing %s images to %s.", f"{builder.listing.count():,}", final)
    builder.prepare()
    report = read_preparation(final)
    for key, state in (("left_out", "left out"), ("broken", "broken and left out")):
        if report[key]:
            path = final / PREPARATION
            log.warning("%d images are %s: see %r in %s.", len(report[key]), state, key, path)
    for line in (_about_storage(builder), *preparation_file.of_images(report)):
        log.info("%s", line)
    if "test" not in report["images"] and "test" not in report["named_splits"]:
        log.info("%s", NO_TEST)
    log.info("%s is complete; train on it with config.data.name=%r.", final, builder.name)
    return final


def _about_storage(builder: ImageBuilder) -> str:
    """Returns a sentence about what is stored of each image."""
    storage, kind = builder.storage, {1: "gray", 3: "in colour"}[builder.estimate.channels]
    if not storage.size:
        return f"The files are stored as they are; the images are {kind}."
    return (
        f"Square copies of at most {storage.size} pixels are stored as {storage.encoding.upper()}; "
        f"the images are {kind}. Smaller images keep their size."
    )


def check_count(listing: Listing, expected: int | Mapping[str, int] | None) -> None:
    """Checks the number of images in the published files.

    Args:
      listing: images of the published files.
      expected: total number of images, or the number of images of some splits; None or empty: not
        checked. Splits that are not named may hold any number of images.

    Raises:
      DataError: if there are more or fewer images than expected.
    """
    if not expected and not isinstance(expected, int):
        return
    counts = {split: len(part.names) for split, part in listing.splits.items()}
    total = sum(counts.values()) + len(listing.left_out)
    if isinstance(expected, int):
        pairs = [("the source", total, expected)]
    elif listing.left_out:  # The split of an image that is left out is unknown.
        others = sum(n for split, n in counts.items() if split not in expected)
        pairs = [("the source", total - others, sum(expected.values()))]
    else:
        pairs = [(f"the split {s!r}", counts.get(s, 0), want) for s, want in expected.items()]
    for part, count, want in pairs:
        if count != want:
            raise DataError(
                f"{part} holds {count:,} images, {want:,} are expected; complete --source, or pass "
                f"--expected_count={total} or --allow_partial if it is meant to differ."
            )


def check_space(builder: ImageBuilder) -> None:
    """Checks that the disk has room for the images that are not yet written.

    Args:
      builder: builder of the data set.

    Raises:
      DataError: if the free space is smaller than the estimated size.
    """
    staged = builder.staging_path.glob("*.array_record-*")
    need = builder.expected_bytes() - sum(path.stat().st_size for path in staged)
    existing = next(p for p in builder.final_path.parents if p.exists())
    free = shutil.disk_usage(existing).free
    log.info("Writing needs about %s GB; %s GB are free.", _gigabytes(need), _gigabytes(free))
    if need > free:
        raise DataError(
            f"the disk of {existing} has {_gigabytes(free)} GB free, and {builder.name} needs "
            f"about {_gigabytes(need)} GB; free some space, or name a different --data_dir."
        )


def main(argv: list[str]) -> None:
    """Prepares the data set that the flags describe."""
    del argv  # `command_line.run` has checked it.
    for name, value in (("dataset", DATASET.value), ("source", SOURCE.value)):
        if not value:
            raise ConfigError(
                f"--{name} is missing; docs/reference/data_sets.md shows the command of each data "
                "set."
            )
    absl_logging.set_verbosity(absl_logging.ERROR)  # TFDS warns about every config it did not make
    try:
        builder = _builder()
        expected: Any = EXPECTED_COUNT.value
        if expected is None and not ALLOW_PARTIAL.value:
            expected = builder.EXPECTED
        prepare(builder, expected)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("run the same command again to resume") from None
    except OSError as error:  # such as a folder without write permission
        raise explain(error, pathlib.Path(DATA_DIR.value)) from error


def _builder() -> ImageBuilder:
    kind: Any = BUILDERS[str(DATASET.value)]
    if NAME.value:
        kind = _named(kind, NAME.value)
    if ATTRIBUTES.value and DATASET.value != "folder":
        raise ConfigError(
            f"--attributes={ATTRIBUTES.value} is for --dataset=folder, not for {DATASET.value}; "
            "omit it, or name the folder of published attribute files with --annotations."
        )
    source = paths.read(str(SOURCE.value), "--source")
    options = Options(
        annotations=_optional(ANNOTATIONS),
        table=_optional(ATTRIBUTES),
        check=not SKIP_CHECKSUMS.value,
        allow_partial=ALLOW_PARTIAL.value,
    )
    default = kind.STORAGE
    storage = Storage(
        default.size if STORE_SIZE.value is None else STORE_SIZE.value,
        STORE_FORMAT.value or default.encoding,
    )
    if STORE_FORMAT.value and not storage.size:
        raise ConfigError(
            f"--store_format={STORE_FORMAT.value} needs --store_size=N: without a size, the "
            "published files are stored; add --store_size, or omit --store_format."
        )
    return kind(
        listing=kind.list_images(source, options),
        data_dir=paths.read(DATA_DIR.value, "--data_dir"),
        storage=storage,
        allow_broken=ALLOW_BROKEN.value,
        num_threads=THREADS.value,
    )


def _optional(flag: flags.FlagHolder) -> pathlib.Path | None:
    """Returns the path of a flag, or None if it is not given."""
    return paths.read(flag.value, f"--{flag.name}") if flag.value else None


def _named(kind: type[ImageBuilder], name: str) -> type[ImageBuilder]:
    if kind is not Folder:
        raise ConfigError(
            f"--name={name} is for --dataset=folder; the other data sets have fixed names; omit it."
        )
    taken = {*BUILDERS, *IN_MEMORY, *TFDS_NAMES.values()}
    if not name.isidentifier() or name in taken:
        raise ConfigError(
            f"--name={name} must consist of letters, digits and _, start with no digit, and be "
            f"none of the other data sets: {', '.join(sorted(taken))}."
        )

    class Named(Folder, skip_registration=True):
        pass

    Named.name = name
    return Named


def _check_existing(builder: ImageBuilder) -> None:
    final = builder.final_path
    log.info("Checking %s, which exists already.", final)
    report = read_preparation(final)
    if report["fingerprint"] != builder.listing.fingerprint():
        raise DataError(
            f"{final} was prepared from different files; delete it first, or name a different "
            "--data_dir."
        )
    shards = report["shards"]
    for name in track(shards, "Checking shards", total=len(shards), unit="shards"):
        if not is_intact(final / name, ShardRecord(**shards[name])):
            raise DataError(
                f"{final / name} is missing or changed; delete {final} and run the same command "
                "again."
            )


def _gigabytes(count: float) -> str:
    return f"{max(count, 0) / 1e9:,.2f}"


if __name__ == "__main__":
    command_line.run(main)
