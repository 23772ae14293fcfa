"""Published scores of the paper, and the scores of this model next to them.

Each published score is a mean over five evaluations, from the authors' repository. The
authors' repository has no scores of disentanglement or unconditional generation, so this file
lacks them.

Source: Kim et al., ICLR 2025, tables 1 and 2.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

LATENT_DIM = 512  # of the models of tables 1 and 2

# (endpoint, encoder) in results.json -> the paper's name of this kind of model. The endpoint "free"
# is a Gaussian x_T.
METHODS = {
    ("decoded", "deterministic"): "DBAE-d",
    ("decoded", "stochastic"): "DBAE",
    ("free", "deterministic"): "DiffAE",
}


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A column of a published table.

    Attributes:
      table: number of the paper's table.
      name: name of the score in the table.
      trained_on: data set that the models were trained on.
      image_size: height and width of its images, in pixels.
      suite: suite of the comparable entries in results.json.
      data: data set of these entries.
      scores: names of the comparable scores.
      better: "higher" or "lower".
      published: method -> value.
      labels: labels of the entries, the most comparable one first.
      caveat: reasons why the scores may not be comparable.
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
    """A published score and the score of this model.

    Attributes:
      quantity: the published score.
      method: the paper's name for this kind of model.
      score: name of this model's score.
      value: this model's value; None if it was not measured or is undefined.
      std: standard deviation over seeds, or None.
      how: number of images, sampler, network evaluations and label of the measurement.
    """

    quantity: Quantity
    method: str
    score: str
    value: float | None
    std: float | None
    how: str = ""


_SELECTION = (
    "The authors' scripts scale training images to a different range than test images, and do not "
    "run as published. This repository scales all images in the same way."
)
_ON_TEST = (
    " Published values use the epoch that is best on the test images. This repository's "
    "_best_on_test does the same; its other scores choose the epoch on validation images."
)
_RANDOM = "DiffAE and PDAE sample x_T; the columns named inferred x_T infer it from the image."
_SSIM = (
    "The SSIM of DBAE probably comes from a function that moves its window over width and channels "
    "and hardly depends on lost texture; this repository calls it ssim_swapped_axes. The SSIM of "
    "the other methods uses zero padding; this repository calls it ssim_zero_padded."
)

_COLUMNS_1 = (
    ("AP", "celeba", ("ap",), "higher", _SELECTION),
    ("Pearson r", "lfw", ("r_best_on_test", "r"), "higher", _SELECTION + _ON_TEST),
    ("MSE", "lfw", ("mse_best_on_test", "mse"), "lower", _SELECTION + _ON_TEST),
)
# (data set, image size) of the models -> {method: values of _COLUMNS_1}
_TABLE_1 = {
    ("celeba", 64): {
        "DiffAE": (0.603, 0.598, 0.421),
        "PDAE": (0.602, 0.596, 0.410),
        "DiTi": (0.623, 0.617, 0.392),
        "DBAE-d": (0.650, 0.635, 0.413),
        "DBAE": (0.655, 0.643, 0.369),
    },
    ("ffhq", 128): {
        "DiffAE": (0.605, 0.606, 0.410),
        "PDAE": (0.597, 0.603, 0.416),
        "DiTi": (0.614, 0.622, 0.384),
        "DBAE-d": (0.656, 0.638, 0.404),
        "DBAE": (0.664, 0.675, 0.332),
    },
}
_COLUMNS_2 = (
    (
        "SSIM",
        ("ssim_swapped_axes", "ssim_zero_padded", "ssim"),
        "higher",
        "ode",
        f"{_SSIM} {_RANDOM}",
    ),
    (
        "LPIPS",
        ("lpips",),
        "lower",
        "sde",
        f"The table gives LPIPS with the SDE sampler, and SSIM and MSE with the ODE. {_RANDOM}",
    ),
    (
        "MSE",
        ("mse", "mse_8bit"),
        "lower",
        "ode",
        f"The authors round pixels down to 8 bits, which adds about 5e-6. {_RANDOM}",
    ),
)
# Method -> values of _COLUMNS_2.
_TABLE_2 = {
    "DiffAE": (0.677, 0.073, 7.0e-3),
    "DiffAE, inferred x_T": (0.991, 0.011, 6.07e-5),
    "PDAE": (0.689, 0.098, 5.01e-3),
    "PDAE, inferred x_T": (0.994, 0.007, 3.84e-5),
    "DBAE-d": (0.953, 0.072, 2.49e-3),
    "DBAE": (0.920, 0.094, 4.81e-3),
}

QUANTITIES: tuple[Quantity, ...] = (
    *(
        Quantity(
            table="1",
            name=name,
            trained_on=trained_on,
            image_size=image_size,
            suite="probe",
            data=data,
            scores=scores,
            better=better,
            published={method: values[i] for method, values in rows.items()},
            labels=("sampled", ""),
            caveat=caveat,
        )
        for (trained_on, image_size), rows in _TABLE_1.items()
        for i, (name, data, scores, better, caveat) in enumerate(_COLUMNS_1)
    ),
    *(
        Quantity(
            table="2",
            name=name,
            trained_on="ffhq",
            image_size=128,
            suite="reconstruction",
            data="celebahq",
            scores=scores,
            better=better,
            published={method: values[i] for method, values in _TABLE_2.items()},
            labels=(f"{label}-sampled", label, ""),
            caveat=caveat,
        )
        for i, (name, scores, better, label, caveat) in enumerate(_COLUMNS_2)
    ),
)


def compare(found: Mapping[str, Any], trained_on: str) -> list[Comparison]:
    """Returns the published scores of models of a data set, with the scores of this model.

    Args:
      found: the content of results.json, see `results.read`.
      trained_on: name of the data set that the model was trained on.

    Returns:
      A comparison per published score and comparable score of this model. A published score
      without any has one comparison without a value. The list is empty if the paper has no
      models of this kind, latent dimension, data set and image size.
    """
    model = found["model"]
    encoder = "stochastic" if model["stochastic"] else "deterministic"
    method, rows = METHODS.get((model.get("endpoint", "decoded"), encoder)), []
    if method is None or model.get("latent_dim") != LATENT_DIM:
        return []
    for quantity in QUANTITIES:
        if (quantity.trained_on, quantity.image_size) != (trained_on, model.get("image_size")):
            continue
        entry, scores = _measured(found["results"], quantity)
        how = _how(entry) if scores else ""
        rows += [
            Comparison(quantity, method, name, value.get("value"), value.get("std"), how)
            for name, value in (scores or {quantity.scores[0]: {}}).items()
        ]
    return rows


def _measured(
    entries: Mapping[str, Any], quantity: Quantity
) -> tuple[Mapping[str, Any], dict[str, dict[str, Any]]]:
    """Returns the entry with the most comparable label that has scores of a quantity, and these."""
    by_label = {
        entry.get("label", ""): entry
        for entry in entries.values()
        if (entry["suite"], entry["data"]) == (quantity.suite, quantity.data)
    }
    for label in quantity.labels:
        entry = by_label.get(label, {})
        measured = entry.get("scores", {})
        scores = {name: measured[name] for name in quantity.scores if name in measured}
        if scores:
            return entry, scores
    return {}, {}


def _how(entry: Mapping[str, Any]) -> str:
    """Returns the number of images, the sampler and the label of an entry, as text."""
    settings, parts = entry["settings"], [f"{entry['counts']['test']:,} images"]
    if "sampler" in settings:
        sampler = settings["sampler"]
        extras = [f"{key} {sampler[key]:g}" for key in ("churn", "eta") if sampler.get(key)]
        parts += [f"{sampler['sampler']} on the {sampler['grid']} grid", *extras]
        parts += [f"{settings['nfe']} network evaluations"]
    if settings.get("sample_codes"):
        parts += ["sampled z"]
    if entry.get("label"):
        parts += [f"label {entry['label']}"]
    return ", ".join(parts)
