"""Trains DBAE and DiffAE alike, and compares what z alone gives back: the paper's figure 1.

python -m dbae_jax.comparison --config=configs/digits.py --workdir=runs/comparison --seeds=0,1,2

trains both models for every seed in sub-folders of the workdir (a run goes on where it was stopped,
and one that is finished is not trained again), measures them on test images, and writes
comparison.json, comparison_table.md and comparison.png there.
"""

import dataclasses
import json
import logging
import pathlib
from typing import Any

import jax
import numpy as np
from absl import flags

from dbae_jax.api.dbae import DBAE
from dbae_jax.commands import train
from dbae_jax.configuration import command_line
from dbae_jax.configuration.config import Config, from_dict, to_dict
from dbae_jax.data import registry
from dbae_jax.data.images import to_float
from dbae_jax.data.sources import gather
from dbae_jax.errors import ConfigError
from dbae_jax.evaluation import endpoint_split, pictures
from dbae_jax.evaluation.suites import information
from dbae_jax.runtime import files, processes, sharding
from dbae_jax.training import jitted_step

flags.adopt_module_key_flags(command_line)  # --help shows them
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Of the trainings: both models once for each.")
TEST_IMAGES = flags.DEFINE_integer("test_images", 128, "How many; 0: all.", lower_bound=0)
DRAWS = flags.DEFINE_integer("draws", 3, "Reconstructions an image by chance.", lower_bound=2)
EVALUATIONS = flags.DEFINE_list("evaluations", ["5", "20", "100"], "Of the U-Net, a decoding.")

RESULT, TABLE, PICTURE = "comparison.json", "comparison_table.md", "comparison.png"
MODELS = ("dbae", "diffae")
# The VP of DDPM, whose x_T is noise (with beta_min = 0.1): what DiffAE is trained on.
FREE_BETA_D, FREE_BETA_MIN = 19.9, 0.1
# Of the picture: images, reconstructions of each by chance, and those that their std is over.
SHOWN, SHOWN_DRAWS, SPREAD_DRAWS = 8, 3, 8

log = logging.getLogger("dbae_jax.comparison")  # run as a command, __name__ is "__main__"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured: test images (0: all), draws by chance, evaluations a decoding."""

    num_images: int
    draws: int
    evaluations: tuple[int, ...]


def free_config(config: Config) -> Config:
    """Returns the config of the same model with a free x_T: all else is equal.

    Raises:
      ConfigError: if its x_T is free already.
    """
    if config.bridge.endpoint == "free":
        raise ConfigError(
            "--config is to be that of the DBAE (config.bridge.endpoint='decoded'); the DiffAE's "
            "is derived from it."
        )
    values = to_dict(config)
    values["bridge"] |= {"endpoint": "free", "beta_d": FREE_BETA_D, "beta_min": FREE_BETA_MIN}
    return from_dict(values)


def compare(
    config: Config, directory: pathlib.Path, seeds: list[int], settings: Settings
) -> dict[str, Any]:
    """Trains and measures both models for every seed; writes the record, the table, the picture.

    Args:
      config: of the DBAE; its seed is replaced.
      directory: the workdir; models lie in dbae-0, diffae-0 and so on, figures of a seed beside
        them.
      seeds: of the trainings.
      settings: of the measurement.

    Returns:
      What is written as comparison.json: settings, the devices, "seeds" (figures of each) and
      "summary", see `summarised`.

    Raises:
      ConfigError: for a wrong config, or a workdir with models of another.
    """
    configs = {"dbae": config, "diffae": free_config(config)}
    # One object for all seeds, so that each model's training step compiles once.
    mesh = sharding.make_mesh()
    trainings = {name: jitted_step.make_training(base, mesh) for name, base in configs.items()}
    measured = []
    for seed in seeds:
        for name, base in configs.items():
            with_seed = dataclasses.replace(base, seed=seed)
            log.info("%s, seed %d", name, seed)
            train.train(with_seed, directory / f"{name}-{seed}", trainings[name])
        measured.append(_of_seed(config, directory, seed, settings))
    record = {
        "config": to_dict(config),
        "settings": _plain(settings),
        "device": jax.devices()[0].device_kind,
        "seeds": measured,
        "summary": summarised(measured),
    }
    files.write_json(directory / RESULT, record)
    files.write_text(directory / TABLE, table(record))
    _paint(configs["dbae"], directory, seeds[0], settings)
    log.info("%s, %s and %s are in %s.", RESULT, TABLE, PICTURE, directory)
    return record


def _of_seed(
    config: Config, directory: pathlib.Path, seed: int, settings: Settings
) -> dict[str, Any]:
    """Returns the figures of one seed's models, measured or as measured before."""
    path = directory / f"figures-{seed}.json"
    source = registry.make_source(config.data, "test")
    models = _models(directory, seed)
    identity = {
        "seed": seed,
        "data": [config.data.name, config.data.lmdb, repr(source)],
        "settings": _plain(settings),
        "models": {name: _whose(model) for name, model in models.items()},
    }
    # Measuring is work of all processes: what one of them finds holds for all.
    there = processes.from_writer(lambda: _kept(path, identity))
    if there is not None:
        return there
    images = gather(source, settings.num_images or None)[0]
    rows, bounds = [], {}
    for name, model in models.items():
        rows += measure(model, images, settings)
        points = model.config.eval.information_points
        bounds[name] = information.summary(information.measure(model, images, points=points))
    there = {"identity": identity, "rows": rows, "information": bounds}
    files.write_json(path, there)
    processes.wait_for_all("the figures of a seed are written")
    return there


def _models(directory: pathlib.Path, seed: int) -> dict[str, DBAE]:
    """Returns both models of a seed, by name, on all devices."""
    mesh = sharding.make_mesh()
    return {name: DBAE.load(directory / f"{name}-{seed}", mesh=mesh) for name in MODELS}


def _whose(model: DBAE) -> dict[str, Any]:
    """Returns what a model's figures depend on beside the images and the settings."""
    section = model.config.model
    return {
        "step": model.step,
        "fingerprint": model.fingerprint,
        "dtype": section.dtype,
        "matmul_precision": section.matmul_precision,
        "information_points": model.config.eval.information_points,
    }


def _kept(path: pathlib.Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the figures of a file; None if it is missing, torn or of other models or images."""
    if not path.exists():
        return None
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        return there if there["identity"] == identity else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("The figures in %s cannot be read (%s); measuring again.", path, error)
        return None


def measure(model: DBAE, images: np.ndarray, settings: Settings) -> list[dict[str, Any]]:
    """Returns the figures of a model at every number of evaluations: rows for the record."""
    split = (
        endpoint_split.from_free_end if model.gaussian_endpoint else endpoint_split.from_decoded_end
    )
    rows = []
    for steps in settings.evaluations:
        for measured in split(model, images, steps=steps, draws=settings.draws):
            figures = endpoint_split.figures(measured, images)
            rows.append({"model": MODELS[model.gaussian_endpoint], "evaluations": steps} | figures)
            log.info("%(model)s, %(how)s, %(nfe)d evaluations: MSE %(mse).5f", rows[-1])
    return rows


def summarised(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what the seeds have in common: each figure as [mean, least, greatest].

    rows: of every model, way and number of evaluations. compared, by evaluations: ratio, DiffAE's
    error from z and a random x_T over DBAE's from z alone; ratio_of_draws, the same over DBAE's
    with the SDE's noise, draws against draws; ratio_of_means, of the means over these draws, which
    is what each z knows; explained_by_x_T, share of DiffAE's error with a random x_T that the
    inferred one takes away. information: the bounds of `information.summary`.
    """
    groups: dict[tuple, list[dict]] = {}
    for one in measured:
        for row in one["rows"]:
            groups.setdefault((row["model"], row["how"], row["evaluations"]), []).append(row)
    spread = ("mse", "mse_of_mean", "ssim", "variance_share")
    kept = ("model", "how", "plan", "evaluations", "nfe", "draws")
    rows = [
        {key: group[0][key] for key in kept}
        | {name: _spread([row[name] for row in group]) for name in spread}
        for group in groups.values()
    ]

    names = ("information_bound_nats", "unexplained_bits_per_dim")
    return {
        "rows": rows,
        "compared": {str(n): _compared(groups, n) for n in sorted({key[2] for key in groups})},
        "information": {
            model: {
                name: _spread([one["information"][model][name] for one in measured])
                for name in names
            }
            for model in MODELS
        },
    }


def _compared(groups: dict[tuple, list[dict]], evaluations: int) -> dict[str, list[float]]:
    """Returns the ratios of the models at a number of evaluations."""
    ode, sde, random, inferred = (
        groups[key, how, evaluations]
        for key, how in (
            ("dbae", endpoint_split.Z_ALONE),
            ("dbae", endpoint_split.Z_AND_NOISE),
            ("diffae", endpoint_split.Z_RANDOM_END),
            ("diffae", endpoint_split.Z_INFERRED_END),
        )
    )

    def ratio(above: list[dict], below: list[dict], name: str = "mse") -> list[float]:
        return [a[name] / b[name] for a, b in zip(above, below, strict=True)]

    return {
        "ratio": _spread(ratio(random, ode)),
        "ratio_of_draws": _spread(ratio(random, sde)),
        "ratio_of_means": _spread(ratio(random, sde, "mse_of_mean")),
        "explained_by_x_T": _spread([1 - r for r in ratio(inferred, random)]),
    }


def _spread(values: list[float]) -> list[float]:
    return [float(np.mean(values)), float(min(values)), float(max(values))]


def table(record: dict[str, Any]) -> str:
    """Returns the summary of a record as Markdown: means over seeds, ranges in brackets."""
    summary = record["summary"]
    lines = [
        "| model | from | sampler | evaluations | MSE | MSE of the mean | SSIM "
        "| variance not from z |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in summary["rows"]:
        lines.append(
            f"| {row['model']} | {row['how']} | {row['plan']['sampler']} | {row['nfe']} "
            f"| {_show(row['mse'], 5)} | {_show(row['mse_of_mean'], 5)} | {_show(row['ssim'], 3)} "
            f"| {_show(row['variance_share'], 4)} |"
        )
    lines += [
        "",
        "| evaluations | MSE: DiffAE, random x_T / DBAE | / DBAE, SDE noise | means over draws "
        "| share of DiffAE's error that x_T explains |",
        "|---|---|---|---|---|",
    ]
    for evaluations, one in summary["compared"].items():
        lines.append(
            f"| {evaluations} | {_show(one['ratio'], 2)} | {_show(one['ratio_of_draws'], 2)} "
            f"| {_show(one['ratio_of_means'], 2)} | {_show(one['explained_by_x_T'], 3)} |"
        )
    lines += ["", "| model | z leaves open, bits a dimension, at most |", "|---|---|"]
    for model, bounds in summary["information"].items():
        lines.append(f"| {model} | {_show(bounds['unexplained_bits_per_dim'], 2)} |")
    return "\n".join(lines) + "\n"


def _show(spread: list[float], digits: int) -> str:
    mean, least, greatest = (f"{value:.{digits}f}" for value in spread)
    return mean if least == greatest else f"{mean} [{least}, {greatest}]"


def _paint(config: Config, directory: pathlib.Path, seed: int, settings: Settings) -> None:
    """Writes figure 1: images, DBAE's reconstructions, DiffAE's by several x_T, their spread."""
    source = registry.make_source(config.data, "test")
    images = gather(source, min(SHOWN, settings.num_images or SHOWN))[0]
    dbae, diffae = _models(directory, seed).values()
    steps = max(settings.evaluations)
    how = endpoint_split.plan_of(diffae, steps)
    again = dbae.reconstruct(images, **endpoint_split.plan_of(dbae, steps))
    z = diffae.encode(images)
    draws = diffae.decode(np.concatenate([z] * SPREAD_DRAWS), rng=0, **how)
    draws = draws.reshape(SPREAD_DRAWS, *images.shape)
    x_T = diffae.invert(images, z, steps=steps, grid=how["grid"])
    rows = {"image": np.asarray(to_float(images)), "DBAE, z alone": again}
    for k in range(SHOWN_DRAWS):
        rows[f"DiffAE, x_T no. {k + 1}"] = draws[k]
    rows["DiffAE, inferred x_T"] = diffae.decode(z, x_T, **how)
    rows["4 x std over x_T"] = 2 * np.clip(2 * draws.std(axis=0, ddof=1), 0, 1) - 1  # of [0, 1]
    pictures.labelled_rows(directory / PICTURE, rows)


def _plain(settings: Settings) -> dict[str, Any]:
    """Returns the settings as JSON gives them back."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def _integers(name: str, values: list[str], low: int) -> list[int]:
    """Returns a flag's integers, each at least `low`, or raises ConfigError."""
    if not values or not all(value.strip().isdecimal() and int(value) >= low for value in values):
        raise ConfigError(f"--{name} must be integers, {low} or more, with commas between.")
    return list(dict.fromkeys(int(value) for value in values))


def main(argv: list[str]) -> None:
    """Compares as the flags say."""
    del argv
    config, directory = command_line.read_config(), command_line.read_workdir()
    seeds = _integers("seeds", SEEDS.value, 0)
    evaluations = tuple(_integers("evaluations", EVALUATIONS.value, 2))
    free_config(config)
    # SIGTERM ends it at once, measuring or training: the last checkpoint is where it goes on.
    command_line.start_processes(save_on_sigterm=False)
    with processes.explaining():
        settings = Settings(TEST_IMAGES.value, DRAWS.value, evaluations)
        print(table(compare(config, directory, seeds, settings)))


if __name__ == "__main__":
    command_line.run(main)
