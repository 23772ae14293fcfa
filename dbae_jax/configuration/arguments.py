"""What a command line says before absl parses it: which config it names, and what is wrong."""

import itertools
import re
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import tuple_parser

from dbae_jax.configuration import config_files, paths
from dbae_jax.configuration.suggestions import did_you_mean

# Type of a key -> what ml_collections parses its value with, and the kind of values in words.
PARSERS: dict[type, tuple[flags.ArgumentParser, str]] = {
    int: (flags.IntegerParser(), "an integer"),
    float: (flags.FloatParser(), "a number"),
    bool: (flags.BooleanParser(), "True or False"),
    tuple: (tuple_parser.TupleParser(), "a tuple, such as (1, 2) or ('tensorboard',)"),
}


def value_of(arguments: list[str], flag: str) -> str | None:
    """Returns the last value of --FLAG=VALUE or --FLAG VALUE, or None if there is none."""
    found = None
    for before, argument in itertools.pairwise(["", *arguments]):
        name, equals, value = argument.partition("=")
        if before in (f"-{flag}", f"--{flag}"):
            found = argument
        elif equals and name in (f"-{flag}", f"--{flag}"):
            found = value
    return found


def with_key_of_flag(arguments: list[str], flag: str, key: str) -> list[str]:
    """Returns the arguments with --config.KEY=VALUE at their end if --FLAG=VALUE is among them."""
    value = value_of(arguments, flag)
    return arguments if value is None else [*arguments, f"--config.{key}={value}"]


def with_config_of_workdir(arguments: list[str]) -> list[str]:
    """Returns the arguments with --config=WORKDIR/config.json if no --config is among them.

    The config of a new workdir that is distilled is that of --teacher. The arguments stay as they
    are if no such workdir holds a config.json.

    Raises:
      ConfigError: if --workdir or --teacher names no path that can be used.
    """
    if value_of(arguments, "config") is not None:
        return arguments
    for flag in ("workdir", "teacher"):
        folder = value_of(arguments, flag)
        if not folder:
            continue
        path = paths.read(folder, f"--{flag}", buckets=True) / config_files.SAVED_NAME
        if path.is_file():
            return [arguments[0], f"--config={path}", *arguments[1:]]
    return arguments


def resolve_configs(arguments: list[str]) -> tuple[list[str], str | None]:
    """Returns the arguments with paths instead of names of configs, and the last config's path.

    Each config is loaded here, so that an error in its file is reported as an error of the file.

    Raises:
      ConfigError: if a config does not exist or cannot be loaded.
    """
    resolved, last = [], None
    for before, argument in itertools.pairwise(["", *arguments]):
        flag, equals, value = argument.partition("=")
        if before in ("-config", "--config"):
            argument = last = config_files.resolve(argument)
        elif flag in ("-config", "--config") and equals:
            last = config_files.resolve(value)
            argument = f"{flag}={last}"
        else:
            resolved.append(argument)
            continue
        config_files.load(last)
        resolved.append(argument)
    return resolved, last


def explain_overrides(arguments: list[str], config: ConfigDict) -> str | None:
    """Returns an explanation of the first wrong `--config.a.b=value`, or None if all are right.

    Args:
      arguments: arguments of the command line.
      config: config that the arguments override.
    """
    for argument, after in itertools.zip_longest(arguments, arguments[1:]):
        match = re.match(r"--?config\.([^=]*)(?:=(.*))?$", argument, re.DOTALL)
        if match and (problem := _explain_override(match[1], match[2], after, config)):
            return problem
    return None


def _explain_override(path: str, value: str | None, after: str | None, node: Any) -> str | None:
    """Returns why one override of the config `node` is wrong, or None if it is right.

    `value` follows "=", and `after` is the next argument, which is the value if there is no "=".
    """
    name = "config"
    for part in path.split("."):
        if not isinstance(node, ConfigDict):
            return f"{name} is a value; it has no key {part!r}."
        if part not in node:
            meant = did_you_mean(part, node.keys())
            return f"{name}.{part} is not a key; {meant}allowed are {', '.join(node.keys())}."
        node, name = node[part], f"{name}.{part}"
    if isinstance(node, ConfigDict):
        return f"{name} is a section; override one of its keys: {', '.join(node.keys())}."
    parser, kind = PARSERS.get(type(node), (None, ""))
    if parser is None or (type(node) is bool and value is None):  # --config.model.stochastic
        return None
    value = after if value is None else value
    if value is None:
        return f"{name} must be {kind}, got no value."
    try:
        parser.parse(value)
    except (ValueError, TypeError):
        return f"{name} must be {kind}, got {value!r}."
    return None
