"""The file preparation.json next to the records of a prepared data set, and what it tells."""

import json
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dbae_jax.data.builders.listing import Listing
from dbae_jax.data.files import file_names
from dbae_jax.data.transforms import FINDINGS
from dbae_jax.errors import DataError

PREPARATION = "preparation.json"
SHOWN = 8  # classes that a line names
_SIDE = "side "  # "side 64": the short side has 64 to 127 pixels


def read_preparation(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the content of the preparation.json that `ImageBuilder.prepare` wrote.

    Args:
      folder: folder of a prepared data set.

    Raises:
      DataError: if the folder has no preparation.json because another program wrote it, or the file
        is damaged.
    """
    path = folder / PREPARATION
    if not path.is_file():
        raise DataError(
            f"{folder} was not written by dbae_jax.data.prepare: it has no {path.name}; name a "
            "different --data_dir, or delete the folder and prepare the data set again."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not {"attribute_names", "named_splits", "storage", "shards"} <= found.keys():
            raise ValueError("entries are missing")
    except (ValueError, AttributeError, OSError) as error:
        raise DataError(
            f"{path} is damaged: {error}; delete {folder} and prepare the data set again."
        ) from error
    return found


def about_listing(listing: Listing, broken: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """Returns what preparation.json says about the images of a source.

    Args:
      listing: images of the source.
      broken: (name, reason) of the images that were left out.
    """
    without = {name for name, _ in broken}

    def stored(split: str, index: int) -> int:
        """Returns the index among the stored images, which leave out broken images."""
        before = listing.splits[split].names[:index] if without else ()
        return index - sum(name in without for name in before)

    counts: dict[str, dict[str, int]] = {}
    for split, part in listing.splits.items() if listing.class_names else ():
        kept = [i for i, name in enumerate(part.names) if name not in without]
        number = np.bincount(np.asarray(part.labels)[kept], minlength=len(listing.class_names))
        counts[split] = dict(zip(listing.class_names, number.tolist(), strict=True))
    names = [name for part in listing.splits.values() for name in part.names]
    return {
        "attribute_names": list(listing.attribute_names),
        "named_splits": {
            name: [split, stored(split, start), stored(split, stop)]
            for name, (split, start, stop) in listing.named_splits.items()
        },
        "images": {split: stored(split, len(p.names)) for split, p in listing.splits.items()},
        "classes": counts,
        "suffixes": dict(file_names.suffixes(names)),
        "left_aside": {kind: n for kind, n in listing.store.aside.items() if n},
        "broken": [{"name": name, "reason": reason} for name, reason in broken],
        "left_out": list(listing.left_out),
        "notes": list(listing.notes),
    }


def side_of(size: tuple[int, int]) -> str:
    """Returns the class of an image by its short side: the power of two at or below it."""
    return f"{_SIDE}{1 << (min(size).bit_length() - 1)}"


def total(seen: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Returns the sums of numbers of images by finding."""
    counts = Counter[str]()
    for part in seen:
        counts.update(part)
    return dict(sorted(counts.items()))


def of_source(report: Mapping[str, Any]) -> list[str]:
    """Returns sentences about the files of a source, for a report as `about_listing` makes it."""
    aside = file_names.counted(Counter(report.get("left_aside", {})))
    lines = [f"Images: {file_names.counted(Counter(report.get('suffixes', {})))}."]
    if aside:
        lines.append(f"Left aside, since they are no images: {aside}.")
    return [*lines, *report.get("notes", ()), *of_splits(report)]


def of_splits(report: Mapping[str, Any]) -> list[str]:
    """Returns a sentence about each split: its number of images, in total and by class."""
    lines = []
    for split, count in report["images"].items():
        classes = report.get("classes", {}).get(split, {})
        largest = sorted(classes.items(), key=lambda item: -item[1])[:SHOWN]
        shown = ", ".join(f"{name} {number:,}" for name, number in largest)
        more = f" and {len(classes) - SHOWN:,} more classes" if len(classes) > SHOWN else ""
        lines.append(f"{split}: {count:,} images{f': {shown}{more}' if shown else ''}.")
    return lines


def of_images(report: Mapping[str, Any]) -> list[str]:
    """Returns a sentence about what was found in the image files; none if nothing is unusual."""
    seen = dict(report.get("seen", {}))
    if report.get("channels") == 1:
        seen.pop("gray", None)
    found = [f"{seen[key]:,} are {text}" for key, text in FINDINGS.items() if seen.get(key)]
    return [f"Of the images, {'; '.join(found)}."] if found else []


def enlarged(report: Mapping[str, Any], image_size: int) -> int:
    """Returns how many images are smaller than a size and are enlarged when they are read.

    Args:
      report: content of preparation.json.
      image_size: side in pixels, a power of two.
    """
    stored = report["storage"]["size"]
    if 0 < stored < image_size:
        return sum(report.get("images", {}).values())
    sides = {k: n for k, n in report.get("seen", {}).items() if k.startswith(_SIDE)}
    return sum(n for side, n in sides.items() if int(side.removeprefix(_SIDE)) < image_size)
