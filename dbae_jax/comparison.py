"""Trains DBAE and DiffAE on the same data and compares how well z alone reconstructs images.

python -m dbae_jax.comparison --config=configs/digits.py --workdir=runs/comparison --seeds=0,1,2

trains both models for every seed in sub-folders of the workdir, measures them on test images, and
writes comparison.json, comparison_table.md and comparison.png into the workdir. A training that was
stopped resumes, and a finished training is not repeated.

Source: DBAE, figure 1.
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
from dbae_jax.runtime import files, kept, sharding
from dbae_jax.runtime.progress import track
from dbae_jax.training import jitted_step

flags.adopt_module_key_flags(command_line)  # --help shows them
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Both models are trained once per seed.")
TEST_IMAGES = flags.DEFINE_integer(
    "test_images", 128, "Number of test images; 0: all.", lower_bound=0
)
DRAWS = flags.DEFINE_integer("draws", 3, "Random reconstructions per image.", lower_bound=2)
EVALUATIONS = flags.DEFINE_list(
    "evaluations", ["5", "20", "100"], "Network evaluations per decoding."
)

RESULT, TABLE, PICTURE = "comparison.json", "comparison_table.md", "comparison.png"
MODELS = ("dbae", "diffae")
# The VP schedule of DDPM, on which DiffAE is trained: its x_T is noise.
FREE_BETA_D, FREE_BETA_MIN = 19.9, 0.1
# The figure: images to choose from, images, random reconstructions of each, and draws for the
# standard deviation.
AMONG, SHOWN, SHOWN_DRAWS, STD_DRAWS = 64, 8, 3, 8

log = logging.getLogger("dbae_jax.comparison")  # run as a command, __name__ is "__main__"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The amount of measurement.

    Attributes:
      num_images: number of test images; 0 for all.
      draws: random reconstructions per image.
      evaluations: numbers of network evaluations per decoding.
    """

    num_images: int
    draws: int
    evaluations: tuple[int, ...]


def gaussian_config(config: Config) -> Config:
    """Returns the config of DiffAE that differs from a DBAE config in x_T alone.

    DiffAE's x_T is Gaussian noise that is independent of z (bridge.endpoint="free").

    Raises:
      ConfigError: if the config is of a model with a Gaussian x_T.
    """
    if config.bridge.endpoint == "free":
        raise ConfigError(
            "--config must be the config of the DBAE (config.bridge.endpoint='decoded'); the "
            "config of the DiffAE is derived from this config."
        )
    values = to_dict(config)
    values["bridge"] |= {"endpoint": "free", "beta_d": FREE_BETA_D, "beta_min": FREE_BETA_MIN}
    return from_dict(values)


def compare(
    config: Config, directory: pathlib.Path, seeds: list[int], settings: Settings
) -> dict[str, Any]:
    """Trains and measures both models for every seed; writes the record, the table and the figure.

    Args:
      config: config of the DBAE; its seed is replaced.
      directory: the workdir. The models are in its folders dbae-0, diffae-0 and so on, and the
        results of seed 0 are in figures-0.json.
      seeds: seeds of the trainings.
      settings: amount of measurement.

    Returns:
      The content of comparison.json: settings, device, "seeds" (results of each seed) and
      "summary", see `summarised`.

    Raises:
      ConfigError: if the config is not of a DBAE, or the workdir holds models of another config.
    """
    configs = {"dbae": config, "diffae": gaussian_config(config)}
    # One object for all seeds, so that each model's training step compiles once.
    mesh = sharding.make_mesh()
    trainings = {name: jitted_step.make_training(base, mesh) for name, base in configs.items()}
    measured = []
    for seed in seeds:
        for name, base in configs.items():
            with_seed = dataclasses.replace(base, seed=seed)
            log.info("Training the model %s with seed %d.", name, seed)
            train.train(with_seed, directory / f"{name}-{seed}", trainings[name])
        measured.append(_measure_seed(config, directory, seed, settings))
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


def _measure_seed(
    config: Config, directory: pathlib.Path, seed: int, settings: Settings
) -> dict[str, Any]:
    """Returns the results of one seed's models, read from their file or measured."""
    source = registry.make_source(config.data, "test")
    models = _models(directory, seed)
    identity = {
        "seed": seed,
        "data": [config.data.name, config.data.lmdb, repr(source)],
        "settings": _plain(settings),
        "models": {name: _identity(model) for name, model in models.items()},
    }

    def make() -> dict[str, Any]:
        images = gather(source, settings.num_images or None)[0]
        rows, bounds = [], {}
        for name, model in models.items():
            log.info("Measuring the model %s of seed %d (%d test images).", name, seed, len(images))
            rows += measure(model, images, settings)
            points = model.config.eval.information_points
            with information.progress(len(images), points) as progress:
                found = information.measure(model, images, points=points, progress=progress)
            bounds[name] = information.summary(found)
        return {"rows": rows, "information": bounds}

    path = directory / f"figures-{seed}.json"
    return {"identity": identity} | kept.read_or_make(path, identity, make)


def _models(directory: pathlib.Path, seed: int) -> dict[str, DBAE]:
    """Returns both models of a seed, by name, on all devices."""
    mesh = sharding.make_mesh()
    return {name: DBAE.load(directory / f"{name}-{seed}", mesh=mesh) for name in MODELS}


def _identity(model: DBAE) -> dict[str, Any]:
    """Returns everything about a model that its results depend on."""
    section = model.config.model
    return {
        "step": model.step,
        "fingerprint": model.fingerprint,
        "dtype": section.dtype,
        "matmul_precision": section.precision,
        "information_points": model.config.eval.information_points,
    }


def measure(model: DBAE, images: np.ndarray, settings: Settings) -> list[dict[str, Any]]:
    """Returns the results of a model, one row per kind and number of evaluations.

    Args:
      model: a DBAE or a DiffAE.
      images: test images, uint8 [N, H, W, C].
      settings: amount of measurement.
    """
    gaussian = model.gaussian_endpoint
    split = endpoint_split.with_decoded_endpoint
    if gaussian:
        split = endpoint_split.with_gaussian_endpoint
    rows, every = [], settings.evaluations
    for steps in track(every, "Reconstructing images", total=len(every), unit="evaluation budgets"):
        for measured in split(model, images, steps=steps, draws=settings.draws):
            figures = endpoint_split.figures(measured, images)
            rows.append({"model": MODELS[gaussian], "evaluations": steps} | figures)
            log.info("%(model)s, %(how)s, %(nfe)d network evaluations: MSE %(mse).5f", rows[-1])
    return rows


def summarised(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the results over all seeds; each one is a list [mean, minimum, maximum].

    Args:
      measured: results of each seed.

    Returns:
      rows: the results of each model, kind of decoding and number of evaluations.
      compared: number of evaluations -> ratios of the models' errors.
        ratio: the MSE of DiffAE with a random x_T divided by the MSE of DBAE from z alone.
        ratio_of_draws: the same with the SDE's noise in DBAE's decoding.
        ratio_of_means: ratio_of_draws for the means over the draws, which depend on z alone.
        explained_by_x_T: fraction of DiffAE's MSE with a random x_T that the inferred x_T removes.
      information: the bounds that `information.summary` returns.
    """
    groups: dict[tuple, list[dict]] = {}
    for one in measured:
        for row in one["rows"]:
            groups.setdefault((row["model"], row["how"], row["evaluations"]), []).append(row)
    scores = ("mse", "mse_of_mean", "ssim", "variance_share")
    common = ("model", "how", "plan", "evaluations", "nfe", "draws")
    rows = [
        {key: group[0][key] for key in common}
        | {name: _mean_and_range([row[name] for row in group]) for name in scores}
        for group in groups.values()
    ]

    names = ("information_bound_nats", "unexplained_bits_per_dim")
    return {
        "rows": rows,
        "compared": {str(n): _compared(groups, n) for n in sorted({key[2] for key in groups})},
        "information": {
            model: {
                name: _mean_and_range([one["information"][model][name] for one in measured])
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
            ("diffae", endpoint_split.Z_RANDOM_ENDPOINT),
            ("diffae", endpoint_split.Z_INFERRED_ENDPOINT),
        )
    )

    def ratio(first: list[dict], second: list[dict], name: str = "mse") -> list[float]:
        return [a[name] / b[name] for a, b in zip(first, second, strict=True)]

    return {
        "ratio": _mean_and_range(ratio(random, ode)),
        "ratio_of_draws": _mean_and_range(ratio(random, sde)),
        "ratio_of_means": _mean_and_range(ratio(random, sde, "mse_of_mean")),
        "explained_by_x_T": _mean_and_range([1 - r for r in ratio(inferred, random)]),
    }


def _mean_and_range(values: list[float]) -> list[float]:
    """Returns [mean, minimum, maximum]."""
    return [float(np.mean(values)), float(min(values)), float(max(values))]


def table(record: dict[str, Any]) -> str:
    """Returns the summary of a record as Markdown: means over the seeds, ranges in brackets."""
    summary = record["summary"]
    lines = [
        "| model | decoded from | sampler | NFE | MSE | MSE of the mean | SSIM "
        "| fraction of variance not from z |",
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
        "| NFE | MSE of DiffAE, random x_T / DBAE | / DBAE, SDE noise | / DBAE, means over draws "
        "| fraction of DiffAE's MSE that x_T explains |",
        "|---|---|---|---|---|",
    ]
    for evaluations, one in summary["compared"].items():
        lines.append(
            f"| {evaluations} | {_show(one['ratio'], 2)} | {_show(one['ratio_of_draws'], 2)} "
            f"| {_show(one['ratio_of_means'], 2)} | {_show(one['explained_by_x_T'], 3)} |"
        )
    lines += ["", "| model | upper bound on H(x_0 given z), bits per dimension |", "|---|---|"]
    for model, bounds in summary["information"].items():
        lines.append(f"| {model} | {_show(bounds['unexplained_bits_per_dim'], 2)} |")
    return "\n".join(lines) + "\n"


def _show(values: list[float], digits: int) -> str:
    mean, low, high = (f"{value:.{digits}f}" for value in values)
    return mean if low == high else f"{mean} [{low}, {high}]"


def _paint(config: Config, directory: pathlib.Path, seed: int, settings: Settings) -> None:
    """Writes the figure: images, reconstructions by both models, and how far they differ.

    Of the first test images, it shows those whose DiffAE reconstructions depend most on x_T.
    """
    source = registry.make_source(config.data, "test")
    images = gather(source, min(AMONG, settings.num_images or AMONG))[0]
    dbae, diffae = _models(directory, seed).values()
    steps = max(settings.evaluations)
    how = endpoint_split.plan_of(diffae, steps)
    z = diffae.encode(images)
    draws = diffae.decode(np.concatenate([z] * STD_DRAWS), rng=0, **how)
    std = draws.reshape(STD_DRAWS, *images.shape).std(axis=0, ddof=1)
    chosen = np.argsort(-std.mean(axis=(1, 2, 3)), kind="stable")[:SHOWN]
    images, z, std = images[chosen], z[chosen], std[chosen]
    draws = draws.reshape(STD_DRAWS, -1, *images.shape[1:])[:, chosen]
    x_0 = np.asarray(to_float(images))
    reconstructed = dbae.reconstruct(images, **endpoint_split.plan_of(dbae, steps))
    x_T = diffae.invert(images, z, steps=steps, grid=how["grid"])
    rows = {"image": x_0, "DBAE, z alone": reconstructed}
    for k in range(SHOWN_DRAWS):
        rows[f"DiffAE, x_T no. {k + 1}"] = draws[k]
    rows["DiffAE, inferred x_T"] = diffae.decode(z, x_T, **how)
    errors = {"DBAE": np.abs(reconstructed - x_0), "DiffAE, x_T no. 1": np.abs(draws[0] - x_0)}
    rows |= _differences({f"|error|, {name}": error for name, error in errors.items()})
    rows |= _differences({"DiffAE, std over x_T": std})
    pictures.labelled_grid(directory / PICTURE, list(rows.items()))


def _differences(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns differences of pixels as images on one scale, whose largest value is white."""
    largest = max(row.max() for row in rows.values()) or 1.0
    # The pixels are in [-1, 1]; the titles are for pixels in [0, 1].
    return {
        f"{name}\n(white: {largest / 2:.2f})": 2 * row / largest - 1 for name, row in rows.items()
    }


def _plain(settings: Settings) -> dict[str, Any]:
    """Returns the settings in the types that a JSON file returns."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def _integers(name: str, values: list[str], low: int) -> list[int]:
    """Returns the integers of a flag without duplicates.

    Raises:
      ConfigError: if a value is not an integer of at least `low`.
    """
    if not values or not all(value.strip().isdecimal() and int(value) >= low for value in values):
        raise ConfigError(f"--{name} must be integers, {low} or more, separated by commas.")
    return list(dict.fromkeys(int(value) for value in values))


def main(argv: list[str]) -> None:
    """Runs the comparison that the flags ask for."""
    del argv
    config, directory = command_line.read_config(), command_line.read_workdir()
    seeds = _integers("seeds", SEEDS.value, 0)
    evaluations = tuple(_integers("evaluations", EVALUATIONS.value, 2))
    gaussian_config(config)
    # SIGTERM ends the process at once; the next run resumes from the last checkpoint.
    command_line.start_processes()
    settings = Settings(TEST_IMAGES.value, DRAWS.value, evaluations)
    print(table(compare(config, directory, seeds, settings)))


if __name__ == "__main__":
    command_line.run(main)
