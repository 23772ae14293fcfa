"""The suite "generation": images drawn from the prior, against real ones, by `generation`'s scores.

Judges: a network trained on labels of the data, against held-out images, where there are labels;
Inception, against training images, where `config.eval.fid` asks for it. Images are drawn into the
cache, a part at a time: what is there is not drawn again.
"""

import dataclasses
import hashlib
import json
import pathlib
import tempfile
from typing import Any

from dbae_jax import draw, sample_files
from dbae_jax.data import sources
from dbae_jax.errors import CheckpointError
from dbae_jax.evaluators import generation, judge, label_net_fit
from dbae_jax.evaluators.context import Context, Suite
from dbae_jax.metrics.generation import PRESETS, preset_images
from dbae_jax.metrics.scores import provenance
from dbae_jax.results import Measured

SEED = 0  # of the drawn images
AT_ONCE = 256  # real images


def obstacle(context: Context) -> str | None:
    """Returns why no images can be drawn or judged, or None."""
    try:
        _ = context.model.prior
    except CheckpointError as error:
        return str(error).rstrip(".")
    reason = judge.obstacle(context)
    if reason and not context.config.eval.fid:
        return f"{reason}, and config.eval.fid asks for no other"
    return None


def settings(context: Context) -> dict[str, Any]:
    """Returns what determines the numbers.

    Raises:
      DataError: if a protocol of FID is asked for with other numbers of images than it has.
      CheckpointError: if Inception's weights are missing.
    """
    section = context.config.eval
    found = {
        "prior_step": context.model.prior.step,
        "how": _how(context),
        "seed": SEED,
        "generated_images": section.num_generated,
        "fid": section.fid,
        "images": {split: context.limit(split) for split in ("train", "test")},
    }
    if judge.obstacle(context) is None:
        found["judge"] = dataclasses.asdict(label_net_fit.FitSettings())
    if section.fid:
        preset, real = _preset(context), len(context.splits["train"])
        generation.check_preset(preset, section.num_generated, real)
        found["inception"] = provenance(context.inception.origin)
    return found


def measure(context: Context) -> Measured:
    """Draws the images and scores them."""
    if context.cache is not None:
        return _measure_in(context, context.cache)
    with tempfile.TemporaryDirectory() as folder:
        return _measure_in(context, pathlib.Path(folder))


SUITE = Suite(obstacle, settings, measure)


def _measure_in(context: Context, folder: pathlib.Path) -> Measured:
    section = context.config.eval
    out = folder / f"samples_{_fingerprint(context)}"
    draw.draw(context.model, out, num=section.num_generated, seed=SEED, how=_how(context))
    scores, counts = {}, {"generated": section.num_generated}
    if judge.obstacle(context) is None:
        scores |= _by_judge(context, out)
        counts |= {"train": judge.num_images(context), "test": context.limit("test")}
    if section.fid:
        found, real = _by_inception(context, out)
        scores |= found
        counts["train_inception"] = real
    return Measured(scores, counts)


def _by_judge(context: Context, out: pathlib.Path) -> dict[str, Any]:
    net, known = judge.make(context), context.codes("test").known
    images = context.images("test")
    labels = known["attributes" if net.kind == "attributes" else "label"]
    drawn = sample_files.batches(out, context.config.eval.num_generated, shape=images.shape[1:])
    generated = generation.look("generated", drawn, net.features)
    real = generation.look("real", [images], net.features)
    train = context.images("train", judge.num_images(context))
    other = generation.look("training", [train], net.features)
    return generation.label_net_scores(generated, real, net, images, labels) | (
        generation.noise_floor(real, other, most=context.config.eval.num_generated)
    )


def _by_inception(context: Context, out: pathlib.Path) -> tuple[dict[str, Any], int]:
    """Returns the scores, and how many real images there were."""
    net, preset = context.inception, _preset(context)
    threads = context.config.data.num_threads
    chunks = sources.chunks(context.splits["train"], AT_ONCE, num_threads=threads)
    images = (chunk["image"] for chunk in chunks)
    if preset:
        images = preset_images(images, preset)
    real = generation.look("real", images, net)
    drawn = sample_files.batches(out, context.config.eval.num_generated)
    generated = generation.look("generated", drawn, net)
    found = generation.inception_scores(generated, real, preset=preset)
    return found, real.statistics.moments.count


def _preset(context: Context) -> str:
    return context.config.eval.fid if context.config.eval.fid in PRESETS else ""


def _how(context: Context) -> dict[str, Any]:
    prior = context.config.prior
    how = {"prior_sampler": prior.sampler, "prior_steps": prior.sample_steps}
    return how | vars(context.config.sample)


def _fingerprint(context: Context) -> str:
    """Returns what tells a folder of images from those drawn otherwise."""
    model = context.model
    parts = [model.step, model.prior.step, SEED, _how(context), context.config.model.dtype]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
