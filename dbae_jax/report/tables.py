"""Tables of measured scores: results.json in, rows of text out."""

from typing import Any, NamedTuple

from dbae_jax.evaluation import results
from dbae_jax.evaluation.registry import SUITES
from dbae_jax.report import glossary, paper
from dbae_jax.report.paper import Comparison

NONE = "\N{EN DASH}"
ARROWS = {better: f" {arrow}".rstrip() for better, arrow in results.ARROWS.items()}
# Endings of pairs of scores that share a row -> the column of each.
PAIRS = {"_following": "x_T recomputed", "_fixed": "x_T fixed"}
FLOOR, FLOOR_COLUMN = "_floor", "real images"


class Row(NamedTuple):
    """A row of a table: its name, its other cells, and an explanation in the last column."""

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
                header=["score", "this model", *methods],
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
    return Row(quantity.name + ARROWS[quantity.better], [value, *published], meaning)


def _table(entry: dict[str, Any]) -> Table:
    suite, measured = entry["suite"], entry["scores"]
    label = f", {entry['label']}" if entry.get("label") else ""
    counts = ", ".join(f"{count:,} {split}" for split, count in entry["counts"].items())
    names = glossary.in_order(measured)
    main = [name for name in names if not glossary.is_minor(name)]
    minor = [name for name in names if glossary.is_minor(name)]
    header, rows = _rows(suite, measured, main)
    folded = [*_by_attribute(entry)]
    if minor:
        folded.insert(0, FoldedTable("Further scores", *_rows(suite, measured, minor)))
    folded.append(FoldedTable("Settings", [], settings(entry["settings"])))
    return Table(
        title=f"{suite.capitalize()} on {entry['data']}{label}",
        caption=f"Images: {counts}. {_networks(measured)}Measured in {entry['seconds']:,.0f} s.",
        header=header,
        rows=rows,
        notes=_undefined(suite, measured),
        folded=folded,
    )


def _networks(scores: dict[str, Any]) -> str:
    """Returns a sentence that names the networks that judged the images, or ""."""
    details = [score.get("details", {}) for score in scores.values()]
    named = [found.get("net") or found.get("classifier") for found in details]
    names = list(dict.fromkeys(name for name in named if name))
    return f"Judged by {', '.join(names)}. " if names else ""


def _undefined(suite: str, scores: dict[str, Any]) -> list[str]:
    """Returns a sentence for every score that has no value."""
    notes = []
    for name, score in scores.items():
        if score["value"] is None:
            reason = score.get("details", {}).get("reason", "no reason").removesuffix(".")
            notes.append(f"{glossary.explain(suite, name).name} is not defined here: {reason}.")
    return notes


def _rows(suite: str, scores: dict[str, Any], names: list[str]) -> tuple[list[str], list[Row]]:
    """Returns the header and the rows of scores; scores that belong together share a row."""
    lists: dict[str, dict[str, str]] = {}  # name of a row -> column -> name of the score
    for name in names:
        ending = next((e for e in (*PAIRS, FLOOR) if name.endswith(e)), "")
        column = FLOOR_COLUMN if ending == FLOOR else PAIRS.get(ending, "value")
        lists.setdefault(name.removesuffix(ending), {})[column] = name
    columns = [
        column
        for column in ("value", *PAIRS.values(), FLOOR_COLUMN)
        if any(column in row for row in lists.values())
    ]
    rows = []
    for base, row in lists.items():
        term = glossary.explain(suite, base if base in scores or len(row) > 1 else row[columns[0]])
        first = scores[next(iter(row.values()))]
        spread = "; ".join(
            text for n in dict.fromkeys(row.values()) if (text := _kind_of_spread(scores[n]))
        )
        meaning = "; ".join(part for part in (term.meaning, spread) if part)
        cells = [_value(scores[row[c]]) if c in row else NONE for c in columns]
        rows.append(Row(term.name + ARROWS[first["better"]], cells, meaning))
    return ["score", *columns], rows


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


def _value(score: dict[str, Any]) -> str:
    if score["value"] is None:
        return NONE
    known = results.spread(score)
    return format_number(score["value"]) + (
        "" if known is None else f" ± {format_number(known, 2)}"
    )


def _kind_of_spread(score: dict[str, Any]) -> str:
    """Returns what the number after ± is, or "" if there is none."""
    details = score.get("details", {})
    if "std" in score:
        return f"± is the standard deviation over {len(score['values'])} seeds"
    if "standard_error" in details:
        return "± is the standard error over images"
    if "std" in details:
        of = f" of {details['subset_size']} images" if "subset_size" in details else ""
        return f"± is the standard deviation over subsets{of}"
    return ""


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
