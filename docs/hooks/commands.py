"""Writes the reference of commands from the data of their --help.

A line that begins with `<!-- commands -->` is replaced by the list.
"""

import html
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from absl import flags

from dbae_jax import main

MARK = "<!-- commands -->"
# Commands of their own, in the order of the page.
MODULES = (
    "data.prepare",
    "convert",
    "comparison",
    "benchmark",
    "data.loader_speed",
    "evaluation.sampler_study",
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Returns the page with the list of commands in place of the line of the mark."""
    return re.sub(f"{MARK}.*", lambda _: as_markdown(), markdown)


def as_markdown() -> str:
    """Returns all commands and modes with their flags."""
    return "\n".join([*_modes(), *(line for name in MODULES for line in _module(name))])


def _modes() -> Iterator[str]:
    """Yields the lines about `dbae`: the flags of all modes, then each mode."""
    own = {flag for mode in main.MODES.values() for flag in mode.flags}
    every = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(main.__name__)]
    yield from ("## dbae", "", "Flags of all modes:", "")
    yield from _flags(name for name in sorted(every) if name not in own)
    for name, mode in main.MODES.items():
        yield from (f"### --mode={name}", "", mode.about, "")
        yield from _flags(mode.flags)


def _module(name: str) -> Iterator[str]:
    """Yields the lines about a command that is run as `python -m dbae_jax.NAME`."""
    module = importlib.import_module(f"dbae_jax.{name}")
    yield from (f"## dbae_jax.{name}", "")
    for paragraph in (inspect.getdoc(module) or "").split("\n\n"):
        is_code = paragraph.startswith("python -m")
        linked = re.sub(r"docs/([\w/]+\.md)", r"[docs/\1](../\1)", paragraph)
        yield from ("```", paragraph, "```", "") if is_code else (linked, "")
    # --config, --workdir and others are defined in command_line and explained above.
    names = (flag.name for flag in flags.FLAGS.flags_by_module_dict()[module.__name__])
    yield from _flags(names)


def _flags(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        flag = flags.FLAGS[name]
        value = str(flag.default_as_str).strip("'")
        default = "" if flag.default is None else f" Default: `{value}`."
        text = html.escape(" ".join(flag.help.split()), quote=False)
        yield from (f"`--{name}`", f":   {text}{default}", "")
