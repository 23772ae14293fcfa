"""Texts and numbers that describe the model: lead, cards, scores, provenance."""

import datetime
import pathlib
import platform
import shlex
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

import dbae_jax
from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.config import Config
from dbae_jax.evaluation import results
from dbae_jax.evaluation.context import Context
from dbae_jax.evaluation.registry import SUITES
from dbae_jax.report import tables, wording
from dbae_jax.report.page import Card
from dbae_jax.report.tables import NONE, Missing, Row, format_number
from dbae_jax.runtime.progress import duration
from dbae_jax.workdirs import checkpoint

TIMES = "\N{MULTIPLICATION SIGN}"
Entries = dict[str, dict[str, Any]]  # "results" of results.json


class Command(NamedTuple):
    """Writes the commands of a workdir: `command("evaluate")`.

    Attributes:
      config_path: file name of the config.
      workdir: the workdir.
      overrides: keys of the config, such as "data.data_dir" -> value. Each command repeats them,
        unless it names a different value.
    """

    config_path: str
    workdir: pathlib.Path
    overrides: Mapping[str, Any] = types.MappingProxyType({})

    def __call__(self, mode: str, *flags: str) -> str:
        """Returns the command of a mode with further flags, quoted for a shell."""
        parts = [f"--config={self.config_path}", f"--workdir={self.workdir}", f"--mode={mode}"]
        named = {flag.partition("=")[0] for flag in flags}
        repeated = {f"--config.{key}": value for key, value in self.overrides.items()}
        parts += [f"{name}={value}" for name, value in repeated.items() if name not in named]
        return shlex.join(["python", "-m", "dbae_jax.main", *parts, *flags])


def lead(context: Context, *, seen: bool) -> str:
    """Returns the paragraph that explains the model and the images of the page.

    Args:
      context: model and data.
      seen: whether the model was trained on images of the test split, or may have been.
    """
    config, model = context.config, context.model
    size, channels = config.data.image_size, config.data.channels
    kind = "stochastic" if config.model.stochastic else "deterministic"
    shape = f"{size} {TIMES} {size} {TIMES} {channels}"
    return (
        f"A {kind} encoder compresses an image of {shape} = {size * size * channels:,} values into "
        f"a latent code z of dimension {model.latent_dim}. {wording.words(model).decoding} "
        f"{_shown(context, seen)} The page uses the EMA weights of step {model.step:,}."
    )


def _shown(context: Context, seen: bool) -> str:
    data = context.config.data
    count = f"({len(context.splits['test']):,} in the split {data.test_split!r} of {data.name})"
    if not seen:
        return f"The test images are held out: they were not used in training {count}."
    return (
        f"The test images {count} are not held out: the model was trained on all or some of them "
        f"(the split {data.train_split!r} of {data.name})."
    )


def sampler(config: Config, model: DBAE) -> str:
    """Describes the sampler of reconstructions, interpolations, edits and samples."""
    sample = config.sample
    extras = [f"{key} {value:g}" for key in ("churn", "eta") if (value := getattr(sample, key))]
    return ", ".join(
        [
            f"{sample.sampler} with {sample.steps} steps on the {sample.grid} grid",
            *extras,
            f"{model.nfe(plan=sample)} network evaluations (NFE) per image",
        ]
    )


def cards(
    config: Config, model: DBAE, entries: Entries, rows: list[dict[str, Any]], *, seen: bool
) -> list[Card]:
    """Returns the numbers at the top of the page.

    Args:
      config: the current config.
      model: a trained model.
      entries: results of this model.
      rows: rows of metrics.jsonl.
      seen: whether the model was trained on test images, see `lead`.
    """
    data = config.data.name
    scores = {
        suite: entries.get(results.name_of(suite, data), {}).get("scores", {}) for suite in SUITES
    }
    seconds = [row["train_seconds"] for row in rows if "train_seconds" in row]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model.variables["params"]))
    nfe = model.nfe(plan=config.sample)
    return [
        _reconstruction(scores["reconstruction"], model.latent_dim, seen),
        _information(scores["information"]),
        _probe(scores["probe"]),
        Card("Sampling cost", str(nfe), "network evaluations (NFE) per image"),
        Card("Parameters", f"{parameters / 1e6:.3g} M", f"in {wording.words(model).networks}"),
        Card(
            "Training time",
            duration(seconds[-1]) if seconds else NONE,
            f"{model.step:,} steps of {config.train.batch_size} images",
        ),
    ]


def _reconstruction(scores: dict[str, Any], latent_dim: int, seen: bool) -> Card:
    name = "Reconstruction error, training images" if seen else "Reconstruction error, held out"
    if "mse" not in scores:
        return Card(name, NONE, "not measured yet")
    detail = "mean squared error, pixels in [0, 1]; lower is better"
    if scores.get("pca_mse", {}).get("value") is not None:
        pca = format_number(scores["pca_mse"]["value"], 3)
        detail += f". PCA with {latent_dim} components: {pca}"
    return Card(name, format_number(scores["mse"]["value"], 3), detail)


def _information(scores: dict[str, Any]) -> Card:
    name, score = "Upper bound on H(x_0 given z)", scores.get("unexplained_bits_per_dim")
    if score is None:
        return Card(name, NONE, "not measured yet")
    bits = format_number(score["value"], 3)
    detail = "of the 8 bits of a pixel value: information that z lacks; lower is better"
    return Card(name, f"{bits} bits", detail)


def _probe(scores: dict[str, Any]) -> Card:
    kinds = {
        "logistic_accuracy": (
            "Probe accuracy",
            "fraction of labels that logistic regression on z predicts correctly",
        ),
        "ap": ("Probe AP", "average precision of a linear probe of z, mean over attributes"),
        "r": ("Probe r", "correlation of a linear probe of z, mean over attributes"),
    }
    for key, (name, detail) in kinds.items():
        score = scores.get(key)
        if score is not None and score["value"] is not None:
            return Card(name, format_number(score["value"], 3), f"{detail}; higher is better")
    return Card("Probe", NONE, "not measured yet")


def measurements(context: Context, measured: dict[str, Any] | None) -> list[tables.Table]:
    """Returns the tables of this model's scores, and of the paper's scores next to them.

    Args:
      context: model and its training data.
      measured: results.json, or None.
    """
    entries = current(measured, context.model)
    if measured is None or not entries:
        return []
    return tables.scores(entries) + tables.compare_with_paper(measured, context.config.data.name)


def missing_scores(
    context: Context, measured: dict[str, Any] | None, command: Command
) -> list[Missing]:
    """Returns the suites without results, with the commands that measure them.

    Args:
      context: model and data.
      measured: results.json, or None.
      command: writes commands of the workdir.
    """
    if measured is None:
        return [Missing("Nothing has been measured yet.", command("evaluate"))]
    if not _is_current(measured, context.model):
        there, step = measured["model"]["step"], context.model.step
        origin = f"step {there:,}, but the model is at step {step:,}"
        if there == step:
            origin = f"different weights of step {there:,}"
        sentence = (
            f"The scores in results.json belong to {origin}. This model has not been measured yet."
        )
        return [Missing(sentence, command("evaluate"))]
    made = {entry["suite"] for entry in measured["results"].values()}
    absent = {name: suite.obstacle(context) for name, suite in SUITES.items() if name not in made}
    wanted = [name for name, obstacle in absent.items() if obstacle is None]
    found = [
        Missing(f"The suite {name} does not apply: {why}.") for name, why in absent.items() if why
    ]
    if wanted:
        flag = f"--config.eval.suite={','.join(wanted)}"
        found.append(Missing(f"Not measured yet: {', '.join(wanted)}.", command("evaluate", flag)))
    return found


def current(measured: dict[str, Any] | None, model: DBAE) -> Entries:
    """Returns the entries of results.json if they belong to this model's weights, else {}."""
    if measured is None or not _is_current(measured, model):
        return {}
    return measured["results"]


def _is_current(measured: dict[str, Any], model: DBAE) -> bool:
    return results.is_of(measured, {"step": model.step, "fingerprint": model.fingerprint})


def provenance(config: Config, directory: pathlib.Path, model: DBAE, command: Command) -> list[Row]:
    """Returns the origin of the page: model, sampler, software, devices, date."""
    assert model.step is not None  # models of workdirs have one
    meta = checkpoint.read_meta(directory, model.step)
    devices = jax.devices()
    now = datetime.datetime.now(datetime.UTC)
    stochastic = "stochastic; the page uses the mean of q(z | x_0)"
    return [
        Row("command", [command("report")]),
        Row("date", [now.strftime("%Y-%m-%d %H:%M UTC")]),
        Row("weights", [f"EMA weights of step {model.step:,}"]),
        Row("encoder", [stochastic if config.model.stochastic else "deterministic"]),
        Row("sampler", [sampler(config, model)]),
        Row("seed", [f"{config.seed} in training, 0 for the random numbers of this page"]),
        Row("dbae_jax", [dbae_jax.__version__]),
        Row("jax", [f"{jax.__version__}; in training {meta['jax']}"]),
        Row("python", [platform.python_version()]),
        Row("devices", [f"{len(devices)} {TIMES} {devices[0].device_kind}"]),
    ]
