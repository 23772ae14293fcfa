"""Tables of what was measured: results.json in, rows of text out."""

from typing import Any, NamedTuple

from dbae_jax.evaluation.registry import SUITES
from dbae_jax.report import glossary, paper
from dbae_jax.report.glossary import Term
from dbae_jax.report.paper import Comparison

NONE = "\N{EN DASH}"
ARROWS = {"higher": "↑ higher", "lower": "↓ lower", None: NONE}

Pairs = list[tuple[str, str]]


class Row(NamedTuple):
    """A score: what it is, and its cells."""

    term: Term
    cells: list[str]


class Folded(NamedTuple):
    """A table that is shown on demand; the first cell of a row is its name."""

    title: str
    header: list[str]
    rows: list[list[str]]


class Table(NamedTuple):
    """A table: title, a sentence above, the cells, sentences below, and what can be unfolded."""

    title: str
    caption: str
    header: list[str]
    rows: list[Row]
    notes: list[str]
    folded: list[Folded]


class Missing(NamedTuple):
    """What the page could show and does not: why, and the command that makes it."""

    sentence: str
    command: str = ""


def scores(entries: dict[str, dict[str, Any]]) -> list[Table]:
    """Returns a table for every entry of results.json's "results", by suite."""
    order = {suite: place for place, suite in enumerate(SUITES)}
    return [
        _table(entry)
        for entry in sorted(entries.values(), key=lambda e: order.get(e["suite"], len(order)))
    ]


def beside_paper(found: dict[str, Any], trained_on: str) -> list[Table]:
    """Returns the paper's figures with ours beside them, a table for each of its tables.

    Args:
      found: results.json.
      trained_on: name of the data set of the model; empty answer if the paper has none of
        it, or none of models of this width of z and image size.
    """
    comparisons = paper.beside(found, trained_on)
    made = []
    for number in dict.fromkeys(one.quantity.table for one in comparisons):
        rows = [one for one in comparisons if one.quantity.table == number]
        methods = list(dict.fromkeys(m for one in rows for m in one.quantity.published))
        made.append(
            Table(
                title=f"Table {number} of the paper, models of {trained_on}",
                caption=f"A model like this one is called {rows[0].method} there.",
                header=["figure", "ours", *methods, "better"],
                rows=[_compared(one, methods) for one in rows],
                notes=list(dict.fromkeys(one.quantity.caveat for one in rows)),
                folded=[],
            )
        )
    return made


def _compared(one: Comparison, methods: list[str]) -> Row:
    quantity = one.quantity
    meaning = f"{quantity.suite} on {quantity.data}"
    ours = NONE
    if one.value is not None:
        meaning += f"; ours: {one.score}" + (f", {one.how}" if one.how else "")
        ours = figure(one.value, 3) + ("" if one.std is None else f" ± {figure(one.std, 1)}")
    published = [quantity.published.get(method) for method in methods]
    cells = [NONE if value is None else figure(value, 3) for value in published]
    return Row(Term(quantity.name, meaning), [ours, *cells, ARROWS[quantity.better]])


def _table(entry: dict[str, Any]) -> Table:
    suite = entry["suite"]
    label = f", {entry['label']}" if entry.get("label") else ""
    counts = ", ".join(f"{count:,} {split}" for split, count in entry["counts"].items())
    rows, notes = [], []
    for name, score in entry["scores"].items():
        term, details = glossary.explain(suite, name), score.get("details", {})
        rows.append(Row(term, [*_cells(score), ARROWS[score["better"]]]))
        if score["value"] is None:
            notes.append(f"{term.name} is not defined here: {details.get('reason', 'no reason')}.")
    return Table(
        title=f"{suite.capitalize()} on {entry['data']}{label}",
        caption=f"Images: {counts}. Measured in {entry['seconds']:,.0f} s.",
        header=["score", "value", "spread", "better"],
        rows=rows,
        notes=notes,
        folded=[*_each_attribute(entry), Folded("Settings", [], settings(entry["settings"]))],
    )


def _each_attribute(entry: dict[str, Any]) -> list[Folded]:
    """Returns a table of the scores that are known of each attribute, if there are any."""
    columns = {
        glossary.explain(entry["suite"], name).name: score["details"]["per_attribute"]
        for name, score in entry["scores"].items()
        if score.get("details", {}).get("per_attribute")
    }
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [
        [name, *(figure(c[name], 3) if name in c else NONE for c in columns.values())]
        for name in names
    ]
    return [Folded("Each attribute", ["attribute", *columns], rows)] if rows else []


def _cells(score: dict[str, Any]) -> list[str]:
    """Returns value and spread of a score, as text."""
    if score["value"] is None:
        return [NONE, NONE]
    error = score.get("details", {}).get("standard_error")
    if "std" in score:
        spread = f"± {figure(score['std'], 2)} (std of {len(score['values'])})"
    else:
        spread = NONE if error is None else f"± {figure(error, 2)} (standard error)"
    return [figure(score["value"]), spread]


def figure(value: float, digits: int = 4) -> str:
    """Writes a measured number with so many significant digits: 0.9556, 1.23e-05, 15.5, 12,345."""
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.{digits - 1}e}"
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def settings(values: dict[str, Any], prefix: str = "") -> Pairs:
    """Returns nested settings as pairs of a dotted name and a value, as text."""
    rows = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += settings(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            rows.append((prefix + key, ", ".join(str(item) for item in value) or NONE))
        else:
            rows.append((prefix + key, NONE if value in (None, "") else str(value)))
    return rows
