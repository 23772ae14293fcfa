"""What the page says of the model in words and numbers: the headline, where it comes from."""

import datetime
import itertools
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
from dbae_jax.report.page import Figure
from dbae_jax.report.tables import NONE, Missing, figure
from dbae_jax.workdirs import checkpoint

TIMES = "\N{MULTIPLICATION SIGN}"
Entries = dict[str, dict[str, Any]]  # of results.json


class Command(NamedTuple):
    """Writes the commands of a workdir: `command("evaluate")`.

    overrides: keys of the config, such as "data.data_dir" -> value, that every command repeats
    but where it names another value.
    """

    config_path: str
    workdir: pathlib.Path
    overrides: Mapping[str, Any] = types.MappingProxyType({})

    def __call__(self, mode: str, *flags: str) -> str:
        parts = [f"--config={self.config_path}", f"--workdir={self.workdir}", f"--mode={mode}"]
        named = {flag.partition("=")[0] for flag in flags}
        repeated = {f"--config.{key}": value for key, value in self.overrides.items()}
        parts += [f"{name}={value}" for name, value in repeated.items() if name not in named]
        return shlex.join(["python", "-m", "dbae_jax.main", *parts, *flags])


def lead(context: Context, *, seen: bool) -> str:
    """Returns what the model is and what is shown of it.

    Args:
      context: model and data.
      seen: whether the model was trained on images of the test split, or may have been.
    """
    config, model = context.config, context.model
    size, channels = config.data.image_size, config.data.channels
    kind = "stochastic" if config.model.stochastic else "deterministic"
    shape = f"{size} {TIMES} {size} {TIMES} {channels}"
    return (
        f"A {kind} encoder keeps {model.latent_dim} numbers, the code z, of an image of {shape} = "
        f"{size * size * channels:,} values. "
        f"{wording.words(free=model.gaussian_endpoint).decoding} "
        f"{_shown(context, seen)} The weights are the averaged ones of step {model.step:,}."
    )


def _shown(context: Context, seen: bool) -> str:
    data = context.config.data
    shown = f"({len(context.splits['test']):,} in the split {data.test_split!r} of {data.name})"
    if not seen:
        return f"The test images shown are held out, not seen in training {shown}."
    return (
        f"The test images shown {shown} are not held out: the model was trained on them, or on "
        f"some of them (the split {data.train_split!r} of {data.name})."
    )


def sampler(config: Config, model: DBAE) -> str:
    """Returns the sampler of reconstructions, interpolations, edits and samples."""
    sample = config.sample
    extras = [f"{key} {value:g}" for key in ("churn", "eta") if (value := getattr(sample, key))]
    return ", ".join(
        [
            f"{sample.sampler} with {sample.steps} steps on the {sample.grid} grid",
            *extras,
            f"{model.nfe(plan=sample)} network evaluations an image",
        ]
    )


def figures(
    config: Config, model: DBAE, entries: Entries, rows: list[dict], *, seen: bool
) -> list[Figure]:
    """Returns the numbers at the top of the page.

    Args:
      config: of now.
      model: which.
      entries: of results.json, of this model.
      rows: of metrics.jsonl.
      seen: see `lead`.
    """
    data = config.data.name
    scores = {
        suite: entries.get(results.name_of(suite, data), {}).get("scores", {}) for suite in SUITES
    }
    seconds = [row["train_seconds"] for row in rows if "train_seconds" in row]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model.variables["params"]))
    return [
        _reconstruction(scores["reconstruction"], model.latent_dim, seen),
        _information(scores["information"]),
        _probe(scores["probe"]),
        Figure("To decode", str(model.nfe(plan=config.sample)), "network evaluations an image"),
        Figure(
            "Parameters",
            f"{parameters / 1e6:.3g} M",
            wording.words(free=model.gaussian_endpoint).networks,
        ),
        Figure(
            "Training",
            duration(seconds[-1]) if seconds else NONE,
            f"{model.step:,} steps of {config.train.batch_size} images",
        ),
    ]


def _reconstruction(scores: dict, latent_dim: int, seen: bool) -> Figure:
    name = "Error on seen images" if seen else "Held-out error"
    if "mse" not in scores:
        return Figure(name, NONE, "not measured yet")
    detail = "mean squared error, pixels in [0, 1]; lower is better"
    if scores.get("pca_mse", {}).get("value") is not None:
        detail += f". PCA with {latent_dim} numbers: {figure(scores['pca_mse']['value'], 3)}"
    return Figure(name, figure(scores["mse"]["value"], 3), detail)


def _information(scores: dict) -> Figure:
    name, score = "z leaves open, at most", scores.get("unexplained_bits_per_dim")
    if score is None:
        return Figure(name, NONE, "not measured yet")
    return Figure(
        name, f"{figure(score['value'], 3)} bits", "of the 8 of a pixel value; lower is better"
    )


def _probe(scores: dict) -> Figure:
    kinds = {
        "logistic_accuracy": ("Probe accuracy", "of labels by logistic regression on z"),
        "ap": ("Probe AP", "average precision over attributes, by a linear map of z"),
        "r": ("Probe r", "correlation over attributes, by a linear map of z"),
    }
    for key, (name, detail) in kinds.items():
        score = scores.get(key)
        if score is not None and score["value"] is not None:
            return Figure(name, figure(score["value"], 3), f"{detail}; higher is better")
    return Figure("Probe", NONE, "not measured yet")


def measurements(context: Context, measured: dict | None) -> list[tables.Table]:
    """Returns the tables of what was measured of this model, and beside the paper's figures.

    Args:
      context: model and data, those that it was trained on.
      measured: results.json, or None.
    """
    entries = current(measured, context.model)
    if not entries:
        return []
    return tables.scores(entries) + tables.beside_paper(measured, context.config.data.name)


def unmeasured(context: Context, measured: dict | None, command: Command) -> list[Missing]:
    """Returns what there is no measurement of, with the commands that make one.

    Args:
      context: model and data.
      measured: results.json, or None.
      command: of the workdir.
    """
    if measured is None:
        return [Missing("Nothing has been measured yet.", command("evaluate"))]
    if not _is_current(measured, context.model):
        there, step = measured["model"]["step"], context.model.step
        which = f"of step {there:,}, the model of step {step:,}"
        if there == step:
            which = f"of other weights of step {there:,} than the model's"
        return [
            Missing(
                f"results.json is {which}: nothing of the model has been measured yet.",
                command("evaluate"),
            )
        ]
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


def current(measured: dict | None, model: DBAE) -> Entries:
    """Returns the entries of results.json, if they are of this model's weights."""
    if measured is None or not _is_current(measured, model):
        return {}
    return measured["results"]


def _is_current(measured: dict, model: DBAE) -> bool:
    return results.is_of(measured, {"step": model.step, "fingerprint": model.fingerprint})


def provenance(
    config: Config, directory: pathlib.Path, model: DBAE, command: Command
) -> tables.Pairs:
    """Returns where the page comes from: model, sampler, software, devices, date."""
    meta = checkpoint.read_meta(directory, model.step)
    devices = jax.devices()
    now = datetime.datetime.now(datetime.UTC)
    return [
        ("made by", command("report")),
        ("date", now.strftime("%Y-%m-%d %H:%M UTC")),
        ("weights", f"average over the training steps up to step {model.step:,}"),
        ("encoder", "stochastic, its mean" if config.model.stochastic else "deterministic"),
        ("sampler", sampler(config, model)),
        ("seed", f"{config.seed} of training, 0 of all draws on this page"),
        ("dbae_jax", dbae_jax.__version__),
        ("jax", f"{jax.__version__}; in training {meta['jax']}"),
        ("python", platform.python_version()),
        ("devices", f"{len(devices)} {TIMES} {devices[0].device_kind}"),
    ]


def duration(seconds: float) -> str:
    """Writes a time span in two units: 5 min 13 s, 3 h 20 min, 4 d 2 h."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    for (large, size), (small, part) in itertools.pairwise(units):
        if seconds >= size:
            return f"{seconds // size:.0f} {large} {seconds % size // part:.0f} {small}"
    return f"{seconds:.0f} s"
