"""Writes the reference of config keys from configs/base.py and the rules of their sections.

A line that begins with `<!-- config keys -->` is replaced by the list. The explanation of a key is
the comment at the end of its line, or the comment above it.
"""

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dbae_jax.configs import base

from dbae_jax.configuration.config import Config

MARK = "<!-- config keys -->"
_LINE = re.compile(r"    c\.(?P<key>[\w.]+) = (?P<value>.+?)(?:  # (?P<comment>.*))?$")


class Key(NamedTuple):
    """A config key, such as "train.batch_size"."""

    name: str
    value: str  # its default, as Python
    allowed: str  # allowed values, in words; "" if its type says all
    explanation: str


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Returns the page with the list of keys in place of the line of the mark."""
    return re.sub(f"{MARK}.*", lambda _: as_markdown(), markdown)


def as_markdown() -> str:
    """Returns all keys as definition lists, with a heading for each section."""
    lines, section = [], ""
    for key in keys():
        name = key.name.rpartition(".")[0]
        if name != section:
            section = name
            lines += [f"## {section}", ""]
        allowed = f"; {key.allowed}" if key.allowed else ""
        lines += [f"`{key.name}` = `{key.value}`{allowed}", f":   {key.explanation}", ""]
    return "\n".join(lines)


def keys() -> Iterator[Key]:
    """Yields the keys of configs/base.py in order.

    Raises:
      ValueError: if a key has no explanation.
    """
    rules = dict(_rules(Config))
    above: list[str] = []
    for line in Path(base.__file__).read_text().splitlines():
        if line.startswith("    # "):
            above.append(line[6:])
            continue
        found = _LINE.match(line)
        if found and found["value"] != "ConfigDict()":
            explanation = [_sentence(text) for text in (found["comment"], " ".join(above)) if text]
            if not explanation:
                raise ValueError(f"configs/base.py does not explain {found['key']}")
            value = "None" if "placeholder" in found["value"] else found["value"]
            yield Key(found["key"], value, rules[found["key"]], " ".join(explanation))
        above = []


def _rules(section: type, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields the full name and the allowed values of each key of a section."""
    hints = typing.get_type_hints(section, include_extras=True)
    for field in dataclasses.fields(section):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _rules(hint, f"{path}{field.name}.")
        else:
            of_each = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None
            rules = getattr(hint, "__metadata__", None) or getattr(of_each, "__metadata__", ())
            allowed = ", ".join(rule.allowed for rule in rules)
            yield f"{path}{field.name}", f"each {allowed}" if allowed and of_each else allowed


def _sentence(text: str) -> str:
    """Returns a comment as text: with links, a capital letter and a full stop."""
    text = re.sub(r"docs/([\w/]+\.md)", r"[docs/\1](../\1)", text)
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")
