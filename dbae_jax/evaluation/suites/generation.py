"""The suite "generation": images drawn from the prior against real ones.

Drawn images are kept in the cache, so that an evaluation that was stopped goes on with those that
are missing. Label networks compare them with the test split, Inception with the training split, as
is the custom of FID.
"""

import hashlib
import json
import logging
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from dbae_jax.api import sample_files
from dbae_jax.data import sources
from dbae_jax.data.images import to_uint8
from dbae_jax.errors import CheckpointError
from dbae_jax.evaluation import dataset_classifier
from dbae_jax.evaluation.context import Context, Suite
from dbae_jax.evaluation.protocols import generation
from dbae_jax.evaluation.protocols.generation import Entries, ImageSet
from dbae_jax.evaluation.results import Measured, score
from dbae_jax.metrics.generation import PRESETS, preset_images
from dbae_jax.metrics.networks.published import FeatureNet
from dbae_jax.metrics.scores import provenance
from dbae_jax.runtime import processes

PREPARATION = "tensorflow_1"  # of images for Inception, where no preset says otherwise

log = logging.getLogger(__name__)


def obstacle(context: Context) -> str | None:
    """Returns why nothing can be drawn or compared, or None."""
    try:
        _ = context.model.prior
    except CheckpointError as error:
        return str(error).rstrip(".")
    section = context.config.eval
    return None if section.inception or section.vgg16 else dataset_classifier.obstacle(context)


def settings(context: Context) -> dict[str, Any]:
    """Returns what determines the numbers.

    Raises:
      DataError: if a preset wants other numbers of images.
      CheckpointError: if Inception is asked for and its weights are missing.
    """
    section = context.config.eval
    found = {
        "generated": section.num_generated,
        "seeds": list(range(section.generated_sets)),
        "how": sample_files.how(context.config),
        "prior_step": context.model.prior.step,
        "prior_fingerprint": context.model.prior.fingerprint,
        "real": [len(context.splits["train"]), context.limit("test")],
    }
    if dataset_classifier.obstacle(context) is None:
        found["label_net"] = dataset_classifier.settings(context)
    if section.inception:
        count = len(context.splits["train"])
        generation.check_preset(section.fid_preset, section.num_generated, count)
        preparation = _preparation(context)
        found["inception"] = provenance(context.inception_net(preparation).origin)
        found["inception"] |= {"preset": section.fid_preset, "preparation": preparation}
    if section.vgg16:
        found["vgg16"] = provenance(context.vgg16_net.origin)
    return found


def measure(context: Context) -> Measured:
    """Draws images of each seed and compares them."""
    section = context.config.eval
    sets: list[Entries] = [{} for _ in range(section.generated_sets)]
    once: Entries = {}
    counts = {"generated": section.num_generated}
    if dataset_classifier.obstacle(context) is None:
        counts["test"] = _by_judge(context, sets, once)
    else:
        log.info("No scores of a label network: %s.", dataset_classifier.obstacle(context))
    if section.inception:
        net = context.inception_net(_preparation(context))
        real = _training_images(context, net, section.fid_preset, keep_halves=True)
        for made, part in zip(_generated(context, net), sets, strict=True):
            part |= generation.inception_scores(made, real, preset=section.fid_preset)
        once |= generation.noise_floor(real)
        counts["train"] = real.statistics.moments.count
    if section.vgg16:
        net = context.vgg16_net
        real = _training_images(context, net, section.fid_preset)
        for made, part in zip(_generated(context, net), sets, strict=True):
            part |= generation.precision_recall(made, real)
        counts["train"] = real.statistics.moments.count
    return Measured(over_sets(sets) | once, counts)


SUITE = Suite(obstacle, settings, measure)


def drawn(context: Context, seed: int) -> Iterator[np.ndarray]:
    """Yields images drawn from the prior, uint8 [n, H, W, C]: kept in the cache if there is one."""
    num, how = context.config.eval.num_generated, sample_files.how(context.config)
    if context.cache is None:
        yield to_uint8(context.model.sample(num, seed, **how))
        return
    # A folder holds images drawn in one way; others have another name.
    drawn_by = [how, sample_files.drawn_by(context.model)]
    digest = hashlib.sha256(json.dumps(drawn_by, sort_keys=True).encode()).hexdigest()
    folder = pathlib.Path(context.cache) / f"generated_{digest[:8]}_{seed}"
    sample_files.draw(context.model, folder, num=num, how=how, seed=seed)
    processes.wait_for_all(f"drawn {folder.name}")
    size, channels = context.config.data.image_size, context.config.data.channels
    yield from sample_files.batches(folder, num, shape=(size, size, channels))


def over_sets(parts: Sequence[Entries]) -> Entries:
    """Returns entries of several sets of images as one: values of each, details of the first.

    A score that one of the sets does not have, none has.
    """
    if len(parts) == 1:
        return dict(parts[0])
    joined = {}
    for name, first in parts[0].items():
        values = [part[name]["value"] for part in parts]
        lacking = [part[name] for part in parts if part[name]["value"] is None]
        if lacking:
            joined[name] = lacking[0]
        else:
            joined[name] = score(values, first["better"], **first["details"])
    return joined


def _preparation(context: Context) -> str:
    preset = context.config.eval.fid_preset
    return PRESETS[preset].preparation if preset else PREPARATION


def _generated(context: Context, net: FeatureNet) -> Iterator[ImageSet]:
    """Yields the images of each seed, seen by a network."""
    for seed in range(context.config.eval.generated_sets):
        yield _look("generated", drawn(context, seed), net, context)


def _by_judge(context: Context, sets: Sequence[Entries], once: Entries) -> int:
    """Adds the label network's scores to those of each set, and its floors.

    Returns:
      How many held-out images the sets are compared with.
    """
    net = dataset_classifier.make(context)
    images, labels = dataset_classifier.labelled(context, "test", context.limit("test"))
    real = _look("real", [images], net.features, context, keep_halves=True)
    for made, part in zip(_generated(context, net.features), sets, strict=True):
        part |= generation.label_net_scores(made, real, net, images, labels)
    most = context.config.eval.num_generated
    train = context.images("train", min(context.limit("train"), most))
    other = _look("training", [train], net.features, context)
    once |= generation.noise_floor(real, other) | generation.noise_floor(real)
    return len(images)


def _training_images(
    context: Context, net: FeatureNet, preset: str, *, keep_halves: bool = False
) -> ImageSet:
    """Returns the training split, or what of it a protocol wants, seen by a network.

    Features are kept of as many as there are generated ones, the first: single images are compared
    with those.
    """
    threads = context.config.data.num_threads
    chunks = sources.chunks(context.splits["train"], 512, num_threads=threads)
    images: Iterator[np.ndarray] = (chunk["image"] for chunk in chunks)
    wanted = preset_images(images, preset) if preset else images
    most = context.config.eval.num_generated
    return _look("real", wanted, net, context, most=most, keep_halves=keep_halves)


def _look(
    name: str,
    images: Iterable[np.ndarray],
    net: FeatureNet,
    context: Context,
    *,
    most: int | None = None,
    keep_halves: bool = False,
) -> ImageSet:
    log.info("%s looks at %s images.", net.origin.net, name)
    size = context.config.eval.batch_size
    return generation.look(name, images, net, most=most, keep_halves=keep_halves, batch_size=size)
