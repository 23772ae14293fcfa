"""Tables of measured scores: results.json in, rows of text out."""

from typing import Any, NamedTuple

from dbae_jax.evaluation.registry import SUITES
from dbae_jax.report import glossary, paper
from dbae_jax.report.paper import Comparison

NONE = "\N{EN DASH}"
ARROWS = {"higher": "↑ higher", "lower": "↓ lower", None: NONE}


class Row(NamedTuple):
    """A row of a table: its name, its other cells, and an explanation below the name."""

    name: str
    cells: list[str]
    meaning: str = ""


class FoldedTable(NamedTuple):
    """A table that opens on a click; without a header its cells are text, not numbers."""

    title: str
    header: list[str]
    rows: list[Row]


class Table(NamedTuple):
    """A table with a sentence above it, and sentences and folded tables below it."""

    title: str
    caption: str
    header: list[str]
    rows: list[Row]
    notes: list[str]
    folded: list[FoldedTable]


class Missing(NamedTuple):
    """A part that the page lacks: the reason, and the command that makes it, or ""."""

    sentence: str
    command: str = ""


def scores(entries: dict[str, dict[str, Any]]) -> list[Table]:
    """Returns a table for every entry of results.json's "results", by suite."""
    order = {suite: place for place, suite in enumerate(SUITES)}
    return [
        _table(entry)
        for entry in sorted(entries.values(), key=lambda e: order.get(e["suite"], len(order)))
    ]


def compare_with_paper(found: dict[str, Any], trained_on: str) -> list[Table]:
    """Returns the paper's tables, each with a column for this model.

    Args:
      found: results.json.
      trained_on: name of the data set of the model.

    Returns:
      No tables if the paper has no models of this data set, latent dimension and image size.
    """
    comparisons = paper.compare(found, trained_on)
    made = []
    for number in dict.fromkeys(one.quantity.table for one in comparisons):
        rows = [one for one in comparisons if one.quantity.table == number]
        methods = list(dict.fromkeys(m for one in rows for m in one.quantity.published))
        made.append(
            Table(
                title=f"Table {number} of the paper, models of {trained_on}",
                caption=f"The paper calls this kind of model {rows[0].method}.",
                header=["score", "this model", *methods, "better"],
                rows=[_compared(one, methods) for one in rows],
                notes=list(dict.fromkeys(one.quantity.caveat for one in rows)),
                folded=[],
            )
        )
    return made


def _compared(one: Comparison, methods: list[str]) -> Row:
    quantity = one.quantity
    meaning = f"{quantity.suite} on {quantity.data}"
    value = NONE
    if one.value is not None:
        meaning += f"; this model: {one.score}" + (f", {one.how}" if one.how else "")
        value = format_number(one.value, 3) + (
            "" if one.std is None else f" ± {format_number(one.std, 1)}"
        )
    published = [_cell(quantity.published.get(method)) for method in methods]
    return Row(quantity.name, [value, *published, ARROWS[quantity.better]], meaning)


def _table(entry: dict[str, Any]) -> Table:
    suite = entry["suite"]
    label = f", {entry['label']}" if entry.get("label") else ""
    counts = ", ".join(f"{count:,} {split}" for split, count in entry["counts"].items())
    rows, notes = [], []
    for name, score in entry["scores"].items():
        term, details = glossary.explain(suite, name), score.get("details", {})
        rows.append(Row(term.name, [*_cells(score), ARROWS[score["better"]]], term.meaning))
        if score["value"] is None:
            reason = details.get("reason", "no reason").removesuffix(".")
            notes.append(f"{term.name} is not defined here: {reason}.")
    return Table(
        title=f"{suite.capitalize()} on {entry['data']}{label}",
        caption=f"Images: {counts}. Measured in {entry['seconds']:,.0f} s.",
        header=["score", "value", "uncertainty", "better"],
        rows=rows,
        notes=notes,
        folded=[*_by_attribute(entry), FoldedTable("Settings", [], settings(entry["settings"]))],
    )


def _by_attribute(entry: dict[str, Any]) -> list[FoldedTable]:
    """Returns a table of the scores that are known per attribute, if there are any."""
    columns = {
        glossary.explain(entry["suite"], name).name: score["details"]["per_attribute"]
        for name, score in entry["scores"].items()
        if score.get("details", {}).get("per_attribute")
    }
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [Row(name, [_cell(c.get(name)) for c in columns.values()]) for name in names]
    return [FoldedTable("Scores per attribute", ["attribute", *columns], rows)] if rows else []


def _cells(score: dict[str, Any]) -> list[str]:
    """Returns the value and the uncertainty of a score, as text."""
    if score["value"] is None:
        return [NONE, NONE]
    error = score.get("details", {}).get("standard_error")
    if "std" in score:
        uncertainty = f"± {format_number(score['std'], 2)} (std of {len(score['values'])})"
    else:
        uncertainty = NONE if error is None else f"± {format_number(error, 2)} (standard error)"
    return [format_number(score["value"]), uncertainty]


def format_number(value: float, digits: int = 4) -> str:
    """Formats a number with `digits` significant digits: 0.9556, 1.23e-05, 15.5, 12,345."""
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.{digits - 1}e}"
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def _cell(value: float | None) -> str:
    return NONE if value is None else format_number(value, 3)


def settings(values: dict[str, Any], prefix: str = "") -> list[Row]:
    """Returns nested settings as rows of a dotted name and a value."""
    rows = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += settings(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            rows.append(Row(prefix + key, [", ".join(str(item) for item in value) or NONE]))
        else:
            rows.append(Row(prefix + key, [NONE if value in (None, "") else str(value)]))
    return rows
