"""The paper's published figures, as data with what one must know to compare them, beside ours.

D = 512; means of five evaluations; from the authors' repository. The figures of disentanglement and
of unconditional generation are not part of that repository and not held here.

Source: Kim et al., ICLR 2025, tables 1 and 2.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

OURS = {False: "DBAE-d", True: "DBAE"}  # whether the encoder is stochastic -> the paper's name


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A column of a table.

    table: of the paper. name: of the figure there. trained_on: the model's data set. suite, data,
    label: of our entries in results.json (labels first, the one without label at last). scores: of
    ours that compare, the best comparison first. better: "higher" or "lower". published: method ->
    value. caveat: why the figures may not compare.
    """

    table: str
    name: str
    trained_on: str
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
    None where ours was not measured, or is undefined.
    """

    quantity: Quantity
    method: str
    score: str
    value: float | None
    std: float | None


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


def _table_1(trained_on: str, **rows: tuple[float, float, float]) -> tuple[Quantity, ...]:
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
            suite="probe",
            data=data,
            scores=scores,
            better=better,
            published={method.replace("_", "-"): row[i] for method, row in rows.items()},
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
        suite="reconstruction",
        data="celebahq",
        scores=scores,
        better=better,
        published=published,
        labels=(*labels, ""),
        caveat=caveat,
    )


_METHODS = (
    *("DiffAE", "DiffAE, inferred x_T", "PDAE", "PDAE, inferred x_T"),
    *("DBAE-d", "DBAE"),
)

QUANTITIES: tuple[Quantity, ...] = (
    *_table_1(
        "celeba",
        DiffAE=(0.603, 0.598, 0.421),
        PDAE=(0.602, 0.596, 0.410),
        DiTi=(0.623, 0.617, 0.392),
        DBAE_d=(0.650, 0.635, 0.413),
        DBAE=(0.655, 0.643, 0.369),
    ),
    *_table_1(
        "ffhq",
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
      value for a quantity of which none was.
    """
    method = OURS[bool(found["model"]["stochastic"])]
    rows = []
    for quantity in QUANTITIES:
        if quantity.trained_on != trained_on:
            continue
        ours = _ours(found["results"], quantity)
        rows += [
            Comparison(quantity, method, name, value.get("value"), value.get("std"))
            for name, value in (ours or {quantity.scores[0]: {}}).items()
        ]
    return rows


def _ours(entries: Mapping[str, Any], quantity: Quantity) -> dict[str, dict[str, Any]]:
    """Returns our scores of a quantity, from the entry of the first label that has any."""
    where = {
        entry.get("label", ""): entry["scores"]
        for entry in entries.values()
        if (entry["suite"], entry["data"]) == (quantity.suite, quantity.data)
    }
    for label in quantity.labels:
        scores = where.get(label, {})
        measured = {name: scores[name] for name in quantity.scores if name in scores}
        if measured:
            return measured
    return {}
