"""The paper's published figures, as data with what one must know to compare them, beside ours.

Means of five evaluations; from the authors' repository. The figures of disentanglement and
of unconditional generation are not part of that repository and not held here.

Source: Kim et al., ICLR 2025, tables 1 and 2.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

LATENT_DIM = 512  # of the models of tables 1 and 2

# What `evaluate` says of a model's endpoint and encoder -> the paper's name.
OURS = {
    ("decoded", "deterministic"): "DBAE-d",
    ("decoded", "stochastic"): "DBAE",
    ("free", "deterministic"): "DiffAE",
}


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A column of a table.

    table: of the paper. name: of the figure there. trained_on: the model's data set; image_size: of
    its images, pixels. suite, data: of our entries in results.json; labels: theirs, the best
    comparison first. scores: of ours that compare, likewise. better: "higher" or "lower".
    published: method -> value. caveat: why the figures may not compare.
    """

    table: str
    name: str
    trained_on: str
    image_size: int
    suite: str
    data: str
    scores: tuple[str, ...]
    better: str
    published: Mapping[str, float]
    labels: tuple[str, ...] = ("",)
    caveat: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A quantity with ours beside it.

    method: the paper's name for a model like ours. score: the name of ours, std of several seeds;
    None where ours was not measured, or is undefined. how: ours was measured: images, label,
    sampler and network evaluations, where there are such.
    """

    quantity: Quantity
    method: str
    score: str
    value: float | None
    std: float | None
    how: str = ""


_SELECTION = (
    "The authors' scripts feed training images in another range than test images and do not run as "
    "published; ours treat all images alike."
)
_ON_TEST = (
    " Published values are of the epoch that is best on test images, as ours called _best_on_test; "
    "ours without that name are chosen on validation images."
)
_RANDOM = "DiffAE and PDAE: x_T drawn at random; with inferred x_T see the rows so named."
_SSIM = (
    "DBAE's values very probably come from an SSIM that slides its window over width and channels "
    "(ours called ssim_swapped_axes, which hardly sees lost texture), the others' from the usual "
    "one with zero padding (ours called ssim_zero_padded)."
)


def _table_1(
    trained_on: str, image_size: int, **rows: tuple[float, float, float]
) -> tuple[Quantity, ...]:
    columns = (
        ("AP", "celeba", ("ap",), "higher", _SELECTION),
        ("Pearson r", "lfw", ("r_best_on_test", "r"), "higher", _SELECTION + _ON_TEST),
        ("MSE", "lfw", ("mse_best_on_test", "mse"), "lower", _SELECTION + _ON_TEST),
    )
    return tuple(
        Quantity(
            table="1",
            name=name,
            trained_on=trained_on,
            image_size=image_size,
            suite="probe",
            data=data,
            scores=scores,
            better=better,
            published={method.replace("_", "-"): row[i] for method, row in rows.items()},
            labels=("sampled", ""),
            caveat=caveat,
        )
        for i, (name, data, scores, better, caveat) in enumerate(columns)
    )


def _table_2(
    name: str,
    scores: tuple[str, ...],
    better: str,
    labels: tuple[str, ...],
    caveat: str,
    published: Mapping[str, float],
) -> Quantity:
    return Quantity(
        table="2",
        name=name,
        trained_on="ffhq",
        image_size=128,
        suite="reconstruction",
        data="celebahq",
        scores=scores,
        better=better,
        published=published,
        labels=(*(f"{label}-sampled" for label in labels), *labels, ""),
        caveat=caveat,
    )


_METHODS = (
    *("DiffAE", "DiffAE, inferred x_T", "PDAE", "PDAE, inferred x_T"),
    *("DBAE-d", "DBAE"),
)

QUANTITIES: tuple[Quantity, ...] = (
    *_table_1(
        "celeba",
        64,
        DiffAE=(0.603, 0.598, 0.421),
        PDAE=(0.602, 0.596, 0.410),
        DiTi=(0.623, 0.617, 0.392),
        DBAE_d=(0.650, 0.635, 0.413),
        DBAE=(0.655, 0.643, 0.369),
    ),
    *_table_1(
        "ffhq",
        128,
        DiffAE=(0.605, 0.606, 0.410),
        PDAE=(0.597, 0.603, 0.416),
        DiTi=(0.614, 0.622, 0.384),
        DBAE_d=(0.656, 0.638, 0.404),
        DBAE=(0.664, 0.675, 0.332),
    ),
    _table_2(
        "SSIM",
        ("ssim_swapped_axes", "ssim_zero_padded", "ssim"),
        "higher",
        ("ode",),
        f"{_SSIM} {_RANDOM}",
        dict(zip(_METHODS, (0.677, 0.991, 0.689, 0.994, 0.953, 0.920), strict=True)),
    ),
    _table_2(
        "LPIPS",
        ("lpips",),
        "lower",
        ("sde",),
        f"By the SDE, SSIM and MSE by the ODE: two samplers in one row of the table. {_RANDOM}",
        dict(zip(_METHODS, (0.073, 0.011, 0.098, 0.007, 0.072, 0.094), strict=True)),
    ),
    _table_2(
        "MSE",
        ("mse", "mse_8bit"),
        "lower",
        ("ode",),
        f"The authors round pixels down to 8 bits, which adds about 5e-6. {_RANDOM}",
        dict(zip(_METHODS, (7.0e-3, 6.07e-5, 5.01e-3, 3.84e-5, 2.49e-3, 4.81e-3), strict=True)),
    ),
)


def beside(found: Mapping[str, Any], trained_on: str) -> list[Comparison]:
    """Returns the paper's figures for models of a data set, ours beside them.

    Args:
      found: what `results.read` gives.
      trained_on: name of the data set that the model was trained on.

    Returns:
      A comparison for every quantity and every score of ours that was measured; one without a
      value for a quantity of which none was. None at all for a model of another kind or width of
      z, or of images of another size, than the paper's.
    """
    model = found["model"]
    encoder = "stochastic" if model["stochastic"] else "deterministic"
    method, rows = OURS.get((model.get("endpoint", "decoded"), encoder)), []
    if method is None or model.get("latent_dim") != LATENT_DIM:
        return []
    for quantity in QUANTITIES:
        if (quantity.trained_on, quantity.image_size) != (trained_on, model.get("image_size")):
            continue
        entry, ours = _ours(found["results"], quantity)
        how = _how(entry) if ours else ""
        rows += [
            Comparison(quantity, method, name, value.get("value"), value.get("std"), how)
            for name, value in (ours or {quantity.scores[0]: {}}).items()
        ]
    return rows


def _ours(
    entries: Mapping[str, Any], quantity: Quantity
) -> tuple[Mapping[str, Any], dict[str, dict[str, Any]]]:
    """Returns the entry of the first label that has scores of a quantity, and these."""
    where = {
        entry.get("label", ""): entry
        for entry in entries.values()
        if (entry["suite"], entry["data"]) == (quantity.suite, quantity.data)
    }
    for label in quantity.labels:
        entry = where.get(label, {})
        there = entry.get("scores", {})
        scores = {name: there[name] for name in quantity.scores if name in there}
        if scores:
            return entry, scores
    return {}, {}


def _how(entry: Mapping[str, Any]) -> str:
    """Says on how many images an entry was measured, under which label, by which sampler."""
    settings, said = entry["settings"], [f"{entry['counts']['test']:,} images"]
    if "sampler" in settings:
        sampler = settings["sampler"]
        extras = [f"{key} {sampler[key]:g}" for key in ("churn", "eta") if sampler.get(key)]
        said += [f"{sampler['sampler']} on the {sampler['grid']} grid", *extras]
        said += [f"{settings['nfe']} evaluations"]
    if settings.get("sample_codes"):
        said += ["z drawn"]
    if entry.get("label"):
        said += [f"label {entry['label']}"]
    return ", ".join(said)
