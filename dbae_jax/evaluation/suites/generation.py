"""The suite "generation": images sampled from the latent prior, compared with real images.

Sampled images are kept in the cache, so an evaluation that was stopped resumes with the missing
images. The features of the data set's classifier compare them with the test split, and so do power
spectra, which need no network. Inception compares them with the training split, as is usual for
FID.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from dbae_jax.data import sources
from dbae_jax.data.images import to_uint8
from dbae_jax.errors import CheckpointError
from dbae_jax.evaluation import dataset_classifier, sample_files
from dbae_jax.evaluation.context import Context, Suite
from dbae_jax.evaluation.protocols import generation, sharpness
from dbae_jax.evaluation.protocols.generation import Entries, ImageSet
from dbae_jax.evaluation.results import Measured
from dbae_jax.metrics.generation import PRESETS, preset_images
from dbae_jax.metrics.networks.published import FeatureNet
from dbae_jax.metrics.scores import provenance
from dbae_jax.runtime import processes
from dbae_jax.runtime.progress import Progress

PREPARATION = "tensorflow_1"  # resizing of images for Inception without a preset

log = logging.getLogger(__name__)


def obstacle(context: Context) -> str | None:
    """Returns why no images can be sampled, or None."""
    try:
        _ = context.model.prior
    except CheckpointError as error:
        return str(error).rstrip(".")
    return None


def settings(context: Context) -> dict[str, Any]:
    """Returns the settings that determine the scores.

    Raises:
      DataError: if a preset needs a different number of images.
      CheckpointError: if the weights of a requested network are missing.
    """
    section = context.config.eval
    found: dict[str, Any] = {
        "generated": section.num_generated,
        "seeds": list(range(section.generated_sets)),
        "how": sample_files.how(context.config),
        "prior_step": context.model.prior.step,
        "prior_fingerprint": context.model.prior.fingerprint,
        "real": [len(context.splits["train"]), context.limit("test")],
        "spectra": "8 bit",
    }
    if dataset_classifier.obstacle(context) is None:
        found["classifier"] = dataset_classifier.settings(context)
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
    """Returns the scores of the sampled images of each seed."""
    section = context.config.eval
    sets: list[Entries] = [{} for _ in range(section.generated_sets)]
    once: Entries = {}
    counts = {"generated": section.num_generated, "test": context.limit("test")}
    if dataset_classifier.obstacle(context) is None:
        counts["test"] = _by_classifier(context, sets, once)
    else:
        reason = dataset_classifier.obstacle(context)
        log.info("Samples are compared without the classifier of the data set, since %s.", reason)
    if section.inception:
        net = context.inception_net(_preparation(context))
        real = _training_images(context, net, section.fid_preset, keep_halves=True)
        for sampled, part in zip(_generated(context, net), sets, strict=True):
            part |= generation.inception_scores(sampled, real, preset=section.fid_preset)
        once |= generation.noise_floor(real)
        counts["train"] = real.statistics.moments.count
    if section.vgg16:
        net = context.vgg16_net
        real = _training_images(context, net, section.fid_preset)
        for sampled, part in zip(_generated(context, net), sets, strict=True):
            part |= generation.precision_recall(sampled, real)
        counts["train"] = real.statistics.moments.count
    once["sharpness_error"] = _sharpness(context)
    return Measured(generation.over_sets(sets) | once, counts)


SUITE = Suite(obstacle, settings, measure)


def sampled_images(context: Context, seed: int) -> Iterator[np.ndarray]:
    """Yields images sampled from the latent prior, uint8 [n, H, W, C].

    The images are kept in the cache if there is one.
    """
    num, how = context.config.eval.num_generated, sample_files.how(context.config)
    if context.cache is None:
        yield to_uint8(context.model.sample(num, seed, **how))
        return
    # The name of the folder holds a hash of everything that its images depend on.
    identity = json.dumps([how, sample_files.model_identity(context.model)], sort_keys=True)
    name = f"generated_{hashlib.sha256(identity.encode()).hexdigest()[:8]}_{seed}"
    folder = context.cache / name
    sample_files.sample(context.model, folder, num=num, how=how, seed=seed)
    processes.wait_for_all(f"sampled {name}")
    size, channels = context.config.data.image_size, context.config.data.channels
    yield from sample_files.batches(folder, num, shape=(size, size, channels))


def _preparation(context: Context) -> str:
    preset = context.config.eval.fid_preset
    return PRESETS[preset].preparation if preset else PREPARATION


def _generated(context: Context, net: FeatureNet) -> Iterator[ImageSet]:
    """Yields the features of the sampled images of each seed."""
    section = context.config.eval
    for seed in range(section.generated_sets):
        images = sampled_images(context, seed)
        yield _image_set("generated", images, net, context, total=section.num_generated)


def _sharpness(context: Context) -> dict[str, Any]:
    """Returns how sharp the sampled images of each seed are, compared with test images."""
    seeds = range(context.config.eval.generated_sets)
    powers = [sharpness.mean_power(sampled_images(context, seed)) for seed in seeds]
    return sharpness.score_of(powers, sharpness.mean_power(context.chunks("test")))


def _by_classifier(context: Context, sets: Sequence[Entries], once: Entries) -> int:
    """Adds the scores by the data set's classifier to those of each set, and the noise floors.

    Returns:
      The number of held-out images with which the sets are compared.
    """
    net = dataset_classifier.make(context)
    images, labels = dataset_classifier.labelled(context, "test", context.limit("test"))
    real = _image_set("real", [images], net.features, context, total=len(images), keep_halves=True)
    for sampled, part in zip(_generated(context, net.features), sets, strict=True):
        part |= generation.classifier_scores(sampled, real, net, images, labels)
    most = context.config.eval.num_generated
    train = context.images("train", min(context.limit("train"), most))
    other = _image_set("training", [train], net.features, context, total=len(train))
    once |= generation.noise_floor(real, other) | generation.noise_floor(real)
    return len(images)


def _training_images(
    context: Context, net: FeatureNet, preset: str, *, keep_halves: bool = False
) -> ImageSet:
    """Returns the features of the training split, or of the images that a preset asks for.

    The features of single images are kept for the first images only, as many as are generated.
    """
    threads = context.config.data.num_threads
    chunks = sources.chunks(context.splits["train"], 512, num_threads=threads)
    images: Iterator[np.ndarray] = (chunk["image"] for chunk in chunks)
    chosen = preset_images(images, preset) if preset else images
    total = (PRESETS[preset].real if preset else None) or len(context.splits["train"])
    most = context.config.eval.num_generated
    return _image_set("real", chosen, net, context, total=total, most=most, keep_halves=keep_halves)


def _image_set(
    name: str,
    images: Iterable[np.ndarray],
    net: FeatureNet,
    context: Context,
    *,
    total: int,
    most: int | None = None,
    keep_halves: bool = False,
) -> ImageSet:
    """Returns the features of `total` images and shows the progress."""

    def counted() -> Iterator[np.ndarray]:
        what = f"Computing features of {name} images with {net.origin.net}"
        with Progress(what, total, "images") as progress:
            for batch in images:
                yield batch
                progress.advance(len(batch))

    size = context.config.eval.batch_size
    return generation.image_set(
        name, counted(), net, most=most, keep_halves=keep_halves, batch_size=size
    )
