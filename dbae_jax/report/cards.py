"""The numbers at the top of the page."""

from typing import Any, NamedTuple

import jax

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.config import Config
from dbae_jax.evaluation import results
from dbae_jax.evaluation.registry import SUITES
from dbae_jax.report import wording
from dbae_jax.report.about import Entries
from dbae_jax.report.tables import NONE, format_number
from dbae_jax.runtime.progress import duration

NOT_MEASURED = "not measured yet"


class Bar(NamedTuple):
    """A value next to others of its card: name, text, and length as a share of the longest."""

    name: str
    text: str
    share: float


class Card(NamedTuple):
    """A number at the top of the page: name, value, a sentence that explains it, and bars."""

    name: str
    value: str
    detail: str
    bars: tuple[Bar, ...] = ()


def cards(
    config: Config, model: DBAE, entries: Entries, rows: list[dict[str, Any]], *, seen: bool
) -> list[Card]:
    """Returns the numbers at the top of the page.

    Args:
      config: the current config.
      model: a trained model.
      entries: results of this model.
      rows: rows of metrics.jsonl.
      seen: whether the model was trained on test images, or may have been.
    """
    data = config.data.name
    scores = {
        suite: entries.get(results.name_of(suite, data), {}).get("scores", {}) for suite in SUITES
    }
    return [
        _reconstruction(scores["reconstruction"], model.latent_dim, seen),
        _similarity(scores["reconstruction"]),
        _probe(scores["probe"]),
        _generation(scores["generation"]),
        _information(scores["information"]),
        _size(config, model, rows),
    ]


def _reconstruction(scores: dict[str, Any], latent_dim: int, seen: bool) -> Card:
    name = "Reconstruction error, training images" if seen else "Reconstruction error, held out"
    if "mse" not in scores:
        return Card(name, NONE, NOT_MEASURED)
    detail = "mean squared error, pixels in [0, 1]; lower is better"
    named = {"this model": scores["mse"]["value"]}
    if scores.get("pca_mse", {}).get("value") is not None:
        named[f"PCA, {latent_dim} components"] = scores["pca_mse"]["value"]
    return Card(name, format_number(scores["mse"]["value"], 3), detail, _bars(named))


def _similarity(scores: dict[str, Any]) -> Card:
    psnr, ssim = (scores.get(name, {}).get("value") for name in ("psnr", "ssim"))
    if psnr is None:
        return Card("PSNR and SSIM", NONE, NOT_MEASURED if "mse" not in scores else "not defined")
    value = f"{psnr:.1f} dB"
    if ssim is not None:
        value += f" · {ssim:.3f}"
    detail = "peak signal-to-noise ratio, and structural similarity (at most 1); higher is better"
    return Card("PSNR and SSIM", value, detail)


def _generation(scores: dict[str, Any]) -> Card:
    """Returns the Fréchet distance of the samples, published features first."""
    found = {k: v for k, v in scores.items() if k == "fid" or k.startswith("fd_")}
    base = next((k for k in ("fid", *found) if k in found and "_floor" not in k), None)
    if base is None or found[base]["value"] is None:
        return Card("Fréchet distance of samples", NONE, NOT_MEASURED)
    named = {"samples": found[base]["value"]}
    floor = found.get(f"{base}_floor", {}).get("value")
    if floor is not None:
        named["real training images"] = floor
    features = "Inception features" if base == "fid" else "features of a classifier of these data"
    detail = f"to test images, {features}; lower is better"
    value = format_number(found[base]["value"], 3)
    return Card("Fréchet distance of samples", value, detail, _bars(named))


def _information(scores: dict[str, Any]) -> Card:
    name, score = "Entropy given z", scores.get("unexplained_bits_per_dim")
    if score is None:
        return Card(name, NONE, NOT_MEASURED)
    bits = format_number(score["value"], 3)
    detail = (
        "per pixel value of 8 bits: an upper bound on H(x_0 given z), which compares models of the "
        "same data; lower is better"
    )
    return Card(name, f"\N{LESS-THAN OR EQUAL TO} {bits} bits", detail)


def _probe(scores: dict[str, Any]) -> Card:
    kinds = {
        "logistic_accuracy": (
            "Accuracy of logistic regression",
            "fraction of test labels that it predicts correctly from z",
        ),
        "ap": ("Probe AP", "average precision of a linear probe of z, mean over attributes"),
        "r": ("Probe r", "correlation of a linear probe of z, mean over attributes"),
    }
    for key, (name, detail) in kinds.items():
        score = scores.get(key)
        if score is not None and score["value"] is not None:
            return Card(name, format_number(score["value"], 3), f"{detail}; higher is better")
    return Card("Probe", NONE, NOT_MEASURED)


def _size(config: Config, model: DBAE, rows: list[dict[str, Any]]) -> Card:
    seconds = [row["train_seconds"] for row in rows if "train_seconds" in row]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model.variables["params"]))
    spent = f" in {duration(seconds[-1])}" if seconds else ""
    return Card(
        "Parameters",
        f"{parameters / 1e6:.3g} M",
        f"in {wording.words(model).networks}; trained for {model.step:,} steps of "
        f"{config.train.batch_size} images{spent}; {model.nfe(plan=config.sample)} network "
        "evaluations (NFE) to decode an image",
    )


def _bars(values: dict[str, float]) -> tuple[Bar, ...]:
    if len(values) < 2:
        return ()
    longest = max(*values.values(), 1e-30)
    return tuple(Bar(n, format_number(v, 3), max(v, 0) / longest) for n, v in values.items())
