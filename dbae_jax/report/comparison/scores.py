"""Scores of two runs side by side, with their difference."""

from typing import Any

from dbae_jax.evaluation import results
from dbae_jax.report import glossary
from dbae_jax.report.about import Entries
from dbae_jax.report.tables import (
    ARROWS,
    FLOOR,
    NONE,
    FoldedTable,
    Row,
    Table,
    format_number,
)

FACTOR = 2.0  # a difference exceeds the spread beyond this multiple of it
# Settings that every run has for itself; a difference in others makes scores hard to compare.
OWN = ("step", "fingerprint", "weights", "prior_step", "prior_fingerprint")


def tables(first: Entries, second: Entries, names: tuple[str, str]) -> list[Table]:
    """Returns a table for every entry of results.json that both runs have.

    Args:
      first: results of the first run.
      second: results of the second run.
      names: names of the runs.
    """
    return [_table(first[key], second[key], names) for key in first if key in second]


def only_one(first: Entries, second: Entries, names: tuple[str, str]) -> list[str]:
    """Returns a sentence for every entry that one of the runs lacks."""
    found = [(key, names[0], names[1]) for key in first if key not in second]
    found += [(key, names[1], names[0]) for key in second if key not in first]
    return [f"{key} was measured for {one}, but not for {other}." for key, one, other in found]


def verdict(first: dict[str, Any], second: dict[str, Any]) -> str:
    """Says whether the difference of two scores exceeds their spread, and which is better.

    The spread of a difference is the root of the sum of the squares of both spreads. A difference
    exceeds it from FACTOR times the spread on.
    """
    a, b = first["value"], second["value"]
    if a is None or b is None:
        return NONE
    if a == b:
        return "equal"
    sides = {"higher": b > a, "lower": b < a}
    word = "differs" if first["better"] is None else "better" if sides[first["better"]] else "worse"
    known = [results.spread(score) for score in (first, second)]
    if None in known:
        return f"{word}; spread unknown"
    both = sum(float(value) ** 2 for value in known if value is not None) ** 0.5
    beyond = abs(b - a) > FACTOR * both
    return f"{word}, beyond the spread" if beyond else "within the spread"


def _table(first: dict[str, Any], second: dict[str, Any], names: tuple[str, str]) -> Table:
    suite = first["suite"]
    label = f", {first['label']}" if first.get("label") else ""
    shared = glossary.in_order(name for name in first["scores"] if name in second["scores"])
    rows = {
        minor: [
            _row(suite, name, first["scores"][name], second["scores"][name])
            for name in shared
            if (glossary.is_minor(name) or name.endswith(FLOOR)) == minor
        ]
        for minor in (False, True)
    }
    header = ["score", *names, "difference", f"{names[1]} is"]
    return Table(
        title=f"{suite.capitalize()} on {first['data']}{label}",
        caption="",
        header=header,
        rows=rows[False],
        notes=_other_settings(first["settings"], second["settings"], names),
        folded=[FoldedTable("Further scores", header, rows[True])] if rows[True] else [],
    )


def _row(suite: str, name: str, first: dict[str, Any], second: dict[str, Any]) -> Row:
    values = [_value(first), _value(second)]
    difference = NONE
    if first["value"] is not None and second["value"] is not None:
        number = second["value"] - first["value"]
        difference = f"{'+' if number > 0 else ''}{format_number(number, 3)}"
    term = glossary.explain(suite, name)
    return Row(term.name + ARROWS[first["better"]], [*values, difference, verdict(first, second)])


def _value(score: dict[str, Any]) -> str:
    if score["value"] is None:
        return NONE
    known = results.spread(score)
    text = format_number(score["value"])
    return text if known is None else f"{text} \N{PLUS-MINUS SIGN} {format_number(known, 2)}"


def _other_settings(
    first: dict[str, Any], second: dict[str, Any], names: tuple[str, str]
) -> list[str]:
    """Returns a sentence on settings of the measurement that differ, if any do."""
    keys = [k for k in {**first, **second} if k not in OWN and first.get(k) != second.get(k)]
    if not keys:
        return []
    return [
        f"The measurements of {names[0]} and {names[1]} differ in their settings: "
        f"{', '.join(keys)}. The scores may not be comparable."
    ]
