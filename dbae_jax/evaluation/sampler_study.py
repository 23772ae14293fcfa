"""Compares samplers and grids on trained models: error, SSIM, sharpness and time against NFE.

python -m dbae_jax.evaluation.sampler_study --workdirs=runs/digits,runs/digits-1 --output=study

writes samplers_DATA.json, samplers_DATA.md (a table) and images/samplers_DATA.png into the output
folder; DATA is the name of the data set. --distilled=runs/digits_sharp,... adds models that were
distilled from those of --workdirs.
"""

import itertools
import logging
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration import command_line, paths
from dbae_jax.configuration.config import to_dict
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.data import registry
from dbae_jax.data.images import to_float
from dbae_jax.data.sources import gather
from dbae_jax.errors import ConfigError
from dbae_jax.evaluation import pictures
from dbae_jax.metrics import spectra
from dbae_jax.metrics.similarity import eight_bit, pixel_mse, ssim
from dbae_jax.runtime import files, processes, sharding
from dbae_jax.runtime.progress import track
from dbae_jax.sampling.plan import CONSISTENCY, RECOMMENDED, Plan
from dbae_jax.workdirs import workdir

WORKDIRS = flags.DEFINE_list("workdirs", None, "Workdirs of one config with different seeds.")
NUM_IMAGES = flags.DEFINE_integer(
    "num_images", 0, "Held-out images to decode; 0: all.", lower_bound=0
)
OUTPUT = flags.DEFINE_string(
    "output", "docs/results", "Folder for the table, the figure and the results."
)

DISTILLED = flags.DEFINE_list(
    "distilled", None, "Workdirs of models that were distilled from those of --workdirs."
)

EVALUATIONS = (3, 5, 10)  # at which all grids are compared
GRIDS = ("karras", "uniform", "power", "lambda")
SAMPLERS = ("euler", "heun", "dbim", "multistep2", "multistep3")
# The sampler that the authors use for reconstructions.
BASELINE: dict[str, Any] = {"sampler": "euler", "grid": "karras", "steps": 100}
# Samplers that are compared from few evaluations to many, each on its recommended grid.
MANY = (1, 2, 3, 5, 10, 20, 50, 100, 666)  # 666: the plan "sharp"
VARIANTS: tuple[dict[str, Any], ...] = (
    *({"sampler": sampler} for sampler in SAMPLERS),
    {"sampler": "euler", "churn": 0.33},
    {"sampler": "heun", "churn": 0.33},
    {"sampler": "dbim", "eta": 1.0},
    {"sampler": "dbim", "boot": True},
    {"sampler": "multistep2", "boot": True},
)
OF_DISTILLED = (1, 2, 3, 4)  # evaluations of distilled models

log = logging.getLogger("dbae_jax.evaluation.sampler_study")  # as a command: not "__main__"


class HeldOut(NamedTuple):
    """Held-out images x_0 in [-1, 1] with their latent codes z and endpoints x_T."""

    x_0: np.ndarray
    z: np.ndarray
    x_T: np.ndarray


def measure(model: DBAE, held_out: HeldOut, **plan: Any) -> dict[str, Any]:
    """Returns mse, ssim, sharpness, nfe and seconds per image of decoding with one sampler.

    The seconds are those of all devices together.

    Args:
      model: a trained model.
      held_out: images to decode.
      **plan: fields of `Plan`.
    """
    rng = 0 if Plan(**plan).needs_noise else None
    started = time.perf_counter()
    decoded = model.decode(held_out.z, held_out.x_T, rng=rng, **plan)
    seconds = time.perf_counter() - started
    rounded = eight_bit(decoded)  # as the images are
    found = spectra.sharpness(spectra.radial_power(rounded), spectra.radial_power(held_out.x_0))
    return {
        "sampler": label(plan),
        "grid": plan["grid"],
        "steps": plan["steps"],
        "nfe": model.nfe(**plan),
        "mse": pixel_mse(decoded, held_out.x_0),
        "ssim": ssim(decoded, held_out.x_0),
        "sharpness_error": found.error,
        "sharpness_bias": found.bias,
        "seconds_per_image": seconds / len(decoded),
    }


def label(plan: dict[str, Any]) -> str:
    """Returns the sampler's name with its special settings, as in "dbim eta=1"."""
    extra = [f"{name}={plan[name]:g}" for name in ("churn", "eta") if name in plan]
    return " ".join([plan["sampler"], *extra, *["boot"] * plan.get("boot", False)])


def plans() -> list[dict[str, Any]]:
    """Returns the baseline, every sampler on every grid, and all variants at many evaluations.

    Except for the baseline, plans with the same number in `EVALUATIONS` or `MANY` have about the
    same NFE.
    """
    compared = [
        {"sampler": sampler, "grid": grid, "steps": _steps({"sampler": sampler}, nfe)}
        for nfe, sampler, grid in itertools.product(EVALUATIONS, SAMPLERS, GRIDS)
    ]
    for nfe, variant in itertools.product(MANY, VARIANTS):
        plan = variant | {"grid": RECOMMENDED.get(variant["sampler"], RECOMMENDED["dbim"])[0]}
        plan["steps"] = _steps(variant, nfe)
        # With one evaluation, the answer at T, all samplers that begin at T are the same.
        if (plan["steps"] >= 2 or variant == {"sampler": "dbim"}) and plan not in compared:
            compared.append(plan)
    return [BASELINE, *(plan for plan in compared if plan != BASELINE)]


def _steps(variant: dict[str, Any], nfe: int) -> int:
    """Returns the steps of a sampler that has `nfe` network evaluations, or at most two fewer."""
    per_step = 1 + (variant["sampler"] == "heun") + ("churn" in variant)
    return (nfe + (variant["sampler"] == "heun")) // per_step


def plans_of_distilled() -> list[dict[str, Any]]:
    """Returns plans of the sampler that distilled models are trained for."""
    grid = RECOMMENDED[CONSISTENCY][0]
    return [{"sampler": CONSISTENCY, "grid": grid, "steps": nfe} for nfe in OF_DISTILLED]


def study(
    workdirs: list[pathlib.Path], num_images: int = 0, distilled: Sequence[pathlib.Path] = ()
) -> list[dict[str, Any]]:
    """Measures every plan on every model.

    Args:
      workdirs: workdirs of models with the same config but for the seed.
      num_images: number of held-out images to decode; 0 for all.
      distilled: workdirs of models that were distilled from some of these models.

    Returns:
      One row per plan, with means and ranges over the models. mse_ratio is the plan's error
      divided by the baseline's error on the same model, or on the teacher of a distilled model.

    Raises:
      ConfigError: if the models do not belong together.
    """
    teachers = _teachers(workdirs, distilled)
    rows = _measured(workdirs, plans(), num_images)
    bases = [row["mse"] for row in rows[0]]
    log.info("The baseline's MSE is %s.", ", ".join(f"{base:.5f}" for base in bases))
    for group in rows:
        _add_ratios(group, bases)
    if distilled:
        of_distilled = _measured(list(distilled), plans_of_distilled(), num_images)
        for group in of_distilled:
            _add_ratios(group, [bases[index] for index in teachers])
        rows += of_distilled
    return [_summarised(group) for group in rows]


def _teachers(workdirs: list[pathlib.Path], distilled: Sequence[pathlib.Path]) -> list[int]:
    """Returns which of the workdirs has the encoder of each distilled model."""
    encoders = []
    for directory in workdirs:
        model = DBAE.load(directory)
        if is_distilled(model.config):
            raise ConfigError(f"{directory} in --workdirs is distilled; name it in --distilled.")
        encoders.append(model.encoder_fingerprint)
    found = []
    for directory in distilled:
        model = DBAE.load(directory)
        if not is_distilled(model.config):
            raise ConfigError(
                f"{directory} in --distilled is not distilled; name it in --workdirs."
            )
        if model.encoder_fingerprint not in encoders:
            raise ConfigError(
                f"{directory} in --distilled was not distilled from a model of --workdirs "
                f"({', '.join(map(str, workdirs))}): its encoder is another one. Its teacher is "
                f"{model.config.train.init_from}; name it in --workdirs too."
            )
        found.append(encoders.index(model.encoder_fingerprint))
    return found


def _add_ratios(group: list[dict[str, Any]], bases: list[float]) -> None:
    for row, base in zip(group, bases, strict=True):
        row["mse_ratio"] = row["mse"] / base


def _measured(
    workdirs: list[pathlib.Path], compared: list[dict[str, Any]], num_images: int
) -> list[list[dict[str, Any]]]:
    """Returns a list per plan, with what `measure` returns for every model."""
    mesh = sharding.make_mesh()
    most = DBAE.load(workdirs[0]).batch_size
    # Few images are one batch without padding: each of them has thousands of evaluations.
    first = DBAE.load(workdirs[0], mesh=mesh, batch_size=min(num_images, most) or None)
    images, _ = gather(registry.make_source(first.config.data, "test"), num_images or None)
    rows: list[list[dict[str, Any]]] = [[] for _ in compared]
    seed = {"seed": first.config.seed}  # the only key that may differ
    for directory in workdirs:
        other = DBAE.load(directory, mesh=mesh)
        workdir.check_same_model(directory, to_dict(other.config) | seed, first.config)
        model = first.with_variables(other.variables)
        z = model.encode(images)
        held_out = HeldOut(np.asarray(to_float(images)), z, model.endpoint(z))
        measure(model, held_out, **compared[0] | {"steps": 2})  # compiles the program of all plans
        pairs = zip(rows, compared, strict=True)
        for group, plan in track(pairs, "Measuring samplers", total=len(rows), unit="samplers"):
            group.append(measure(model, held_out, **plan))
    return rows


def _summarised(group: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = (
        *("mse", "ssim", "sharpness_error", "sharpness_bias", "seconds_per_image", "mse_ratio"),
    )
    values = {name: np.array([row[name] for row in group]) for name in numbers}
    ranges = {f"{name}_range": [float(v.min()), float(v.max())] for name, v in values.items()}
    plan = {name: group[0][name] for name in ("sampler", "grid", "steps", "nfe")}
    return plan | {name: float(v.mean()) for name, v in values.items()} | ranges


def table(rows: list[dict[str, Any]]) -> str:
    """Returns a Markdown table of the best grid of every sampler at every NFE."""
    lines = [
        "| NFE | sampler | grid | MSE / baseline's | MSE | SSIM | sharpness error (bias) "
        "| ms per image |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups = itertools.groupby(
        sorted(rows, key=lambda row: (row["nfe"], row["sampler"], row["mse_ratio"])),
        key=lambda row: (row["nfe"], row["sampler"]),
    )
    for _, group in groups:
        row = next(group)
        low, high = row["mse_ratio_range"]
        spread = f" ({low:.3f} to {high:.3f})" if low < high else ""  # of several models
        lines.append(
            f"| {row['nfe']} | {row['sampler']} | {row['grid']} | {row['mse_ratio']:.3f}"
            f"{spread} | {row['mse']:.5f} | {row['ssim']:.3f} "
            f"| {row['sharpness_error']:.3f} ({row['sharpness_bias']:+.3f}) "
            f"| {1e3 * row['seconds_per_image']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def page(data: str, setting: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Returns a Markdown page with the table, and with what was measured on which device."""
    return (
        f"# Samplers on {data}\n\n"
        f"- Held-out images: {setting['num_images']}.\n"
        f"- Models: {setting['models']}; distilled models: {setting['distilled']}.\n"
        f"- Device: {setting['devices']} x {setting['device']}.\n"
        "- The baseline is Euler with 100 evaluations on the `karras` grid. If there are several "
        "models, values are means over them; the ratios to the baseline are given with their "
        "range.\n\n" + table(rows)
    )


def main(argv: list[str]) -> None:
    """Compares samplers on the models of --workdirs."""
    del argv
    if not WORKDIRS.value:
        raise ConfigError("--workdirs is missing; name one or more workdirs, separated by commas.")
    directories = [paths.read(name, "--workdirs", buckets=True) for name in WORKDIRS.value]
    distilled = [paths.read(name, "--distilled", buckets=True) for name in DISTILLED.value or ()]
    output = paths.read(OUTPUT.value, "--output", buckets=True)
    processes.start(device_per_core=True)
    rows = study(directories, NUM_IMAGES.value, distilled)
    data = DBAE.load(directories[0]).config.data
    available = len(registry.make_source(data, "test"))
    name = f"samplers_{data.name}"
    (output / "images").mkdir(parents=True, exist_ok=True)
    pictures.samplers(output / "images" / f"{name}.png", rows)
    setting = {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "models": len(directories),
        "distilled": len(distilled),
        "num_images": min(NUM_IMAGES.value or available, available),
    }
    files.write_json(output / f"{name}.json", setting | {"rows": rows})
    files.write_text(output / f"{name}.md", page(data.name, setting, rows))
    log.info("%s.json, %s.md and images/%s.png are in %s.", name, name, name, output)


if __name__ == "__main__":
    command_line.run(main)
