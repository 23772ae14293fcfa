"""Writes a data set as array_record, once, for training to read.

python -m dbae_jax.data.prepare --dataset=celeba --source=FOLDER --data_dir=data

An interrupted preparation goes on when the same command is given again: shards that are done are
kept. docs/data.md says where each data set comes from and what its folder must hold.
"""

import logging
import pathlib
import shutil
from collections.abc import Mapping

from absl import flags
from absl import logging as absl_logging

from dbae_jax.configuration import command_line
from dbae_jax.data.builders.base import PREPARATION, ImageBuilder, Storage, read_preparation
from dbae_jax.data.builders.celeba import Celeba
from dbae_jax.data.builders.celebahq import Celebahq
from dbae_jax.data.builders.ffhq import Ffhq
from dbae_jax.data.builders.folder import Folder
from dbae_jax.data.builders.lfw import Lfw
from dbae_jax.data.builders.listing import Listing, Options
from dbae_jax.data.builders.lsun import Bedroom, Horse
from dbae_jax.data.builders.shards import ShardRecord, explain, is_intact
from dbae_jax.data.prepared import TFDS_NAMES
from dbae_jax.data.sources import IN_MEMORY
from dbae_jax.errors import ConfigError, DataError

BUILDERS = {b.name: b for b in (Ffhq, Celeba, Celebahq, Bedroom, Horse, Lfw, Folder)}

DATASET = flags.DEFINE_enum("dataset", None, list(BUILDERS), "Data set.")
SOURCE = flags.DEFINE_string("source", None, "Folder, zip, tgz or LMDB with the images.")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of all prepared data sets.")
NAME = flags.DEFINE_string("name", None, "What a folder of images is called; default: folder.")
ANNOTATIONS = flags.DEFINE_string("annotations", None, "Folder of attribute and split files.")
ATTRIBUTES = flags.DEFINE_string("attributes", None, "CSV of attributes for a folder of images.")
STORE_SIZE = flags.DEFINE_integer(
    "store_size",
    None,
    "Pixels of the square copies (LANCZOS) that are stored; 0: images as they are; "
    "default: 256 for ffhq, celebahq, horse and bedroom, else 0.",
    lower_bound=0,
)
STORE_FORMAT = flags.DEFINE_enum(
    "store_format", None, ["png", "webp"], "Of the copies: png, lossless, or webp, quality 90."
)
ALLOW_PARTIAL = flags.DEFINE_bool("allow_partial", False, "A part of the data set will do.")
EXPECTED_COUNT = flags.DEFINE_integer(
    "expected_count", None, "Images that the source must hold; default: as published."
)
SKIP_CHECKSUMS = flags.DEFINE_bool("skip_checksums", False, "Files may differ from the published.")
ALLOW_BROKEN = flags.DEFINE_integer(
    "allow_broken", 0, "How many images that cannot be decoded are left out.", lower_bound=0
)
THREADS = flags.DEFINE_integer("threads", 8, "Threads that decode images.", lower_bound=1)

log = logging.getLogger("dbae_jax.data.prepare")  # run as a command, __name__ is "__main__"


def prepare(builder: ImageBuilder, expected: int | Mapping[str, int] | None) -> pathlib.Path:
    """Writes a data set, unless it is there, and returns its folder.

    Args:
      builder: of the data set.
      expected: images that the source must hold, in all or by split; None: not checked.

    Raises:
      DataError: if the count differs, another data set is there, the disk is or becomes full, or
        images are broken; nothing that is not whole is then found under the data set's name.
    """
    check_count(builder.listing, expected)
    final = builder.final_path
    if final.exists():
        _check_existing(builder)
        log.info("%s is there and whole; nothing to do.", final)
        return final
    check_space(builder)
    log.info("Writing %s images to %s.", f"{builder.listing.count():,}", final)
    builder.prepare()
    report = read_preparation(final)
    for name in ("left_out", "broken"):
        if report[name]:
            log.warning("%d images are %s: see %s.", len(report[name]), name, final / PREPARATION)
    for split, count in report["images"].items():
        log.info("%s: %s images.", split, f"{count:,}")
    log.info("%s is whole; config.data.name=%r reads it.", final, builder.name)
    return final


def check_count(listing: Listing, expected: int | Mapping[str, int] | None) -> None:
    """Checks the number of images of a source.

    Args:
      listing: of the source.
      expected: in all, or of the splits named; other splits may hold what they will.

    Raises:
      DataError: if there are more or fewer than expected.
    """
    if not expected and not isinstance(expected, int):
        return
    counts = {split: len(part.names) for split, part in listing.splits.items()}
    total = sum(counts.values()) + len(listing.left_out)
    if isinstance(expected, int):
        pairs = [("the source", total, expected)]
    elif listing.left_out:  # which split they are of is not known
        others = sum(n for split, n in counts.items() if split not in expected)
        pairs = [("the source", total - others, sum(expected.values()))]
    else:
        pairs = [(f"the split {s!r}", counts.get(s, 0), want) for s, want in expected.items()]
    for what, count, want in pairs:
        if count != want:
            raise DataError(
                f"{what} holds {count:,} images, {want:,} are expected; complete it, or pass "
                f"--expected_count={total} or --allow_partial if it is meant to differ."
            )


def check_space(builder: ImageBuilder) -> None:
    """Checks that the disk has room for what is still to be written.

    Raises:
      DataError: if it has not.
    """
    staged = builder.staging_path.glob("*.array_record-*")
    need = builder.expected_bytes() - sum(path.stat().st_size for path in staged)
    existing = next(p for p in builder.final_path.parents if p.exists())
    free = shutil.disk_usage(existing).free
    log.info("About %s GB to write, %s GB free.", _gigabytes(need), _gigabytes(free))
    if need > free:
        raise DataError(
            f"the disk of {existing} has {_gigabytes(free)} GB free, and {builder.name} needs "
            f"about {_gigabytes(need)} GB; free some, or name another --data_dir."
        )


def main(argv: list[str]) -> None:
    """Runs what the flags ask for."""
    del argv  # checked by command_line.run
    for name, value in (("dataset", DATASET.value), ("source", SOURCE.value)):
        if not value:
            raise ConfigError(
                f"--{name} is missing; docs/data.md has the command of each data set."
            )
    absl_logging.set_verbosity(absl_logging.ERROR)  # TFDS warns of every config that is not its own
    try:
        builder = _builder()
        expected = EXPECTED_COUNT.value
        if expected is None and not ALLOW_PARTIAL.value:
            expected = builder.EXPECTED
        prepare(builder, expected)
    except KeyboardInterrupt:
        raise DataError("interrupted; the same command goes on with what is done.") from None
    except OSError as error:  # such as a folder that must not be written
        raise explain(error, pathlib.Path(DATA_DIR.value)) from error


def _builder() -> ImageBuilder:
    kind = BUILDERS[DATASET.value]
    if NAME.value:
        kind = _named(kind, NAME.value)
    if ATTRIBUTES.value and DATASET.value != "folder":
        raise ConfigError("--attributes is for --dataset=folder; others have files of their own.")
    source = pathlib.Path(SOURCE.value).expanduser()
    options = Options(
        annotations=pathlib.Path(ANNOTATIONS.value).expanduser() if ANNOTATIONS.value else None,
        table=pathlib.Path(ATTRIBUTES.value).expanduser() if ATTRIBUTES.value else None,
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
            f"--store_format={STORE_FORMAT.value} needs --store_size=N: without it, images are "
            "stored as they are."
        )
    return kind(
        listing=kind.list_images(source, options),
        data_dir=pathlib.Path(DATA_DIR.value).expanduser(),
        storage=storage,
        allow_broken=ALLOW_BROKEN.value,
        num_threads=THREADS.value,
    )


def _named(kind: type[ImageBuilder], name: str) -> type[ImageBuilder]:
    if kind is not Folder:
        raise ConfigError("--name is for --dataset=folder; the other data sets have their names.")
    taken = {*BUILDERS, *IN_MEMORY, *TFDS_NAMES.values()}
    if not name.isidentifier() or name in taken:
        raise ConfigError(
            f"--name={name} must be of letters, digits and _, and none of the other data sets: "
            f"{', '.join(sorted(taken))}."
        )

    class Named(Folder, skip_registration=True):
        pass

    Named.name = name
    return Named


def _check_existing(builder: ImageBuilder) -> None:
    final = builder.final_path
    log.info("Checking %s, which is there already.", final)
    report = read_preparation(final)
    if report["fingerprint"] != builder.listing.fingerprint():
        raise DataError(
            f"{final} was prepared from other files; delete it first, or name another --data_dir."
        )
    for name, want in report["shards"].items():
        if not is_intact(final / name, ShardRecord(**want)):
            raise DataError(f"{final / name} is missing or changed; delete {final} and prepare it.")


def _gigabytes(count: float) -> str:
    return f"{max(count, 0) / 1e9:,.2f}"


if __name__ == "__main__":
    command_line.run(main)
