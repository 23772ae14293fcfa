"""Texts that describe the model, its data, its sampler and its scores; commands of the workdir."""

import pathlib
import shlex
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.config import Config
from dbae_jax.configuration.config_files import SAVED_NAME
from dbae_jax.evaluation import results
from dbae_jax.evaluation.context import Context
from dbae_jax.evaluation.registry import SUITES
from dbae_jax.report import tables, wording
from dbae_jax.report.tables import Missing

TIMES = "\N{MULTIPLICATION SIGN}"
Entries = dict[str, dict[str, Any]]  # "results" of results.json


class Command(NamedTuple):
    """Writes the commands of a workdir: `command("evaluate")`.

    Attributes:
      config_path: file or name of the config.
      workdir: the workdir.
      overrides: keys of the config, such as "data.data_dir" -> value. Each command repeats them,
        unless it names a different value.
    """

    config_path: str
    workdir: pathlib.Path
    overrides: Mapping[str, Any] = types.MappingProxyType({})

    def __call__(self, mode: str, *flags: str) -> str:
        """Returns the command of a mode with further flags, quoted for a shell."""
        parts = [f"--workdir={self.workdir}"]
        if pathlib.Path(self.config_path) != self.workdir / SAVED_NAME:  # read without --config
            parts.insert(0, f"--config={self.config_path}")
        named = {flag.partition("=")[0] for flag in flags}
        repeated = {f"--config.{key}": value for key, value in self.overrides.items()}
        parts += [f"{name}={value}" for name, value in repeated.items() if name not in named]
        return shlex.join(["dbae", mode, *parts, *flags])


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


def data_note(config: Config) -> str:
    """Returns a sentence on the images that explains what is not the model's, or ""."""
    if config.data.name == "digits" and config.data.image_size > 8:
        size = config.data.image_size
        return (
            f"The digits are images of 8 {TIMES} 8 pixels enlarged to {size} {TIMES} {size}: the "
            "data are blurred, too."
        )
    return ""


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


def samples_log_ratio(entries: Entries, data_name: str) -> list[float] | None:
    """Returns the log-ratio of the power of samples and images by frequency, if it was measured."""
    scores = entries.get(f"generation/{data_name}", {}).get("scores", {})
    return scores.get("sharpness_error", {}).get("details", {}).get("log_ratio")


def _is_current(measured: dict[str, Any], model: DBAE) -> bool:
    return results.is_of(measured, {"step": model.step, "fingerprint": model.fingerprint})
