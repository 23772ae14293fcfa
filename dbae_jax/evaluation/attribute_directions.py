"""Finds the directions of attributes in latent space and keeps them in a file."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from dbae_jax import editing
from dbae_jax.api.directions import file_of
from dbae_jax.editing import Directions
from dbae_jax.errors import DataError
from dbae_jax.evaluation.context import Context
from dbae_jax.runtime import kept
from dbae_jax.runtime.progress import track

log = logging.getLogger(__name__)


def obstacle(context: Context) -> str | None:
    """Returns why the data have no attribute to find a direction for, or None."""
    if context.known & {"label", "attributes"}:
        return None
    data = context.config.data
    if data.lmdb:
        return f"{data.lmdb} is an LMDB file, which holds neither labels nor attributes"
    return (
        f"the images of {data.name} have no labels and no attributes: the data set has none, or "
        "its attribute files were missing when it was prepared; docs/reference/data_sets.md lists "
        "the data sets that have them"
    )


def check(context: Context, name: str) -> None:
    """Refuses the name of an unknown attribute, before any image is encoded.

    Unknown numbers of classes are not found here, because the labels have not been read yet.

    Args:
      context: the data.
      name: name of an attribute or a class.

    Raises:
      DataError: if the data have no such attribute.
    """
    reason = obstacle(context)
    if reason:
        raise DataError(f"There is no attribute {name!r}: {reason}.")
    classes = tuple(getattr(context.splits["train"], "class_names", ()))
    names = (*context.attribute_names, *classes)
    if "label" not in context.known or classes:
        editing.check_name(name, names)
    elif not name.isdigit() and name not in names:
        others = f"{', '.join(names)}, and " if names else ""
        raise DataError(
            f"There is no attribute {name!r}: there are {others}the classes of "
            f"{context.config.data.name}, which are named by their numbers."
        )


def targets(context: Context) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the names of attributes, and their values [N, K] for the encoded training images.

    The attributes come first. Each class of the labels follows as an attribute with the name of the
    class, or its number if it has no name. If two names are equal, the first one is used.
    """
    known = context.codes("train").known
    names: tuple[str, ...] = ()
    columns: list[np.ndarray] = []
    if "attributes" in known:
        width = known["attributes"].shape[1]
        names = context.attribute_names or tuple(f"attribute {i}" for i in range(width))
        columns = list(known["attributes"].T)
    if "label" in known and context.only_class is None:
        class_names = getattr(context.splits["train"], "class_names", ())
        classes, one_hot = editing.one_vs_rest(known["label"])
        for number, column in zip(classes, one_hot.T, strict=True):
            names = (*names, str(class_names[number]) if class_names else str(number))
            columns.append(column)
    return names, np.stack(columns, axis=1)


def find(context: Context, wanted: Sequence[str], *, probe: str = "logistic") -> Directions:
    """Returns the directions of attributes, from their file or found now.

    Args:
      context: model and data. The probe is trained on `eval.num_probe_images` images, and on
        standardised codes if `eval.normalise_codes` is set.
      wanted: names of attributes or classes.
      probe: kind of probe, see `editing.directions`.

    Raises:
      DataError: if a name is unknown, or `editing.directions` finds no direction.
    """
    names, values = targets(context)
    for name in wanted:
        editing.check_name(name, names)
    identity = _identity(context, probe)
    path, stored = None, None
    if context.cache is not None:
        path = file_of(context.cache, context.config.data.name)
        stored = kept.read(path, identity)
    steps = dict(zip(stored["names"].tolist(), stored["steps"], strict=True)) if stored else {}
    missing = [name for name in wanted if name not in steps]
    if missing:
        log.info("Finding the directions of %s.", ", ".join(missing))
        z, normalise = context.codes("train").mean, context.config.eval.normalise_codes
        for name in track(missing, "Finding directions", total=len(missing), unit="attributes"):
            target = values[:, [names.index(name)]]
            found = editing.directions(z, target, [name], probe=probe, normalise=normalise)
            steps[name] = found.steps[0]
        if path is not None:
            content = {"names": np.array(list(steps)), "steps": np.stack(list(steps.values()))}
            kept.write(path, identity, content)
    return Directions(tuple(wanted), np.stack([steps[name] for name in wanted]))


def _identity(context: Context, probe: str) -> dict[str, Any]:
    return context.identity_of("train") | {
        "images": context.limit("train"),
        "probe": probe,
        "normalise_codes": context.config.eval.normalise_codes,
    }
