"""Logging, flags and error messages of all commands."""

import ast
import difflib
import inspect
import itertools
import logging
import pathlib
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from dbae_jax.configuration import config as config_lib
from dbae_jax.configuration import config_files
from dbae_jax.configuration.config import Config
from dbae_jax.errors import ConfigError, DBAEError
from dbae_jax.runtime import files, processes, progress

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, or name of an installed config, such as digits."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run: its config, checkpoints and results."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0; only for runs with several processes."
)
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes in the run.", lower_bound=1
)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Number of this process, from 0.", lower_bound=0
)
JSON = flags.DEFINE_string(
    "json", None, "File that the measured figures are also written to, as JSON."
)


def run(main: Callable[[list[str]], None], more_help: Callable[[], str] | None = None) -> None:
    """Parses the flags and runs a command.

    The exit code is 0, or after an error that of the error: 2 for an error that the user can fix.
    Such an error is printed as one sentence on stderr, without a traceback.

    Args:
      main: function of the command, called as main(argv). Its module also defines the flags.
      more_help: returns the text that --help prints after the common flags.
    """
    if {"--help", "-help", "-h", "--helpshort"} & set(sys.argv[1:]):
        print(_help(main, more_help))
        return

    def guarded(argv: list[str]) -> None:
        _log_to_stderr()
        try:
            if len(argv) > 1:
                raise ConfigError(f"{argv[1]!r} is not a flag; see --help.")
            main(argv)
        except DBAEError as error:
            _stop(error)
        except Exception:
            if not processes.several():
                raise
            traceback.print_exc()
            processes.leave(1)

    app.run(guarded, flags_parser=_parse)


def _help(main: Callable, more_help: Callable[[], str] | None) -> str:
    """Returns the text of --help: the docstring of the module, its flags and `more_help()`."""
    name = sys.argv[0] if main.__module__ == "__main__" else main.__module__
    extra, lines = more_help() if more_help else "", []
    for flag in sorted(flags.FLAGS.get_key_flags_for_module(name), key=lambda flag: flag.name):
        if f"--{flag.name}:" not in extra:
            default = "" if flag.default is None else f" Default: {flag.default_as_str}."
            lines.append(f"  --{flag.name}: {' '.join(flag.help.split())}{default}")
    about = inspect.getdoc(sys.modules[main.__module__]) or ""
    return "\n\n".join(part for part in (about, "Flags:", "\n".join(lines), extra) if part)


def read_config() -> Config:
    """Returns the config of --config, with its overrides.

    Raises:
      ConfigError: if --config is missing, cannot be loaded, or has wrong values.
    """
    if CONFIG.value is None:
        raise ConfigError(
            "--config is missing; name a file such as configs/digits.py, or an installed config "
            "such as digits."
        )
    return config_lib.from_config_dict(CONFIG.value)


def config_path() -> str:
    """Returns the value of --config as the user typed it: a file or a name."""
    return config_files.display(config_flags.get_config_filename(flags.FLAGS["config"]))


def overrides() -> dict[str, Any]:
    """Returns the keys that --config.KEY=VALUE overrides, with their new values."""
    return dict(config_flags.get_override_values(flags.FLAGS["config"]))


def start_processes(*, save_on_sigterm: bool) -> None:
    """Joins the other processes of the run, as the flags or the environment describe them.

    Args:
      save_on_sigterm: whether a SIGTERM saves a checkpoint first; see `processes.start`.
    """
    processes.start(
        COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, save_on_sigterm=save_on_sigterm
    )


def json_path() -> pathlib.Path | None:
    """Returns the path of --json, or None if the flag is not given.

    Raises:
      ConfigError: if the file cannot be written. Commands call this before they measure.
    """
    if not JSON.value:
        return None
    path = pathlib.Path(JSON.value)
    problem = "it is a folder" if path.is_dir() else files.obstacle(path)
    if problem:
        raise ConfigError(f"--json={path} cannot be written: {problem}.")
    return path


def read_workdir() -> pathlib.Path:
    """Returns the path of --workdir.

    Raises:
      ConfigError: if the flag is missing.
    """
    if not WORKDIR.value:
        raise ConfigError("--workdir is missing; name the folder of the run.")
    return pathlib.Path(WORKDIR.value)


def explain_overrides(arguments: list[str], config: ConfigDict) -> str | None:
    """Returns an explanation of the first wrong `--config.a.b=value`, or None if all are right.

    Args:
      arguments: arguments of the command line.
      config: config that the arguments override.
    """
    for argument in arguments:
        match = re.match(r"--?config\.([^=]+)(?:=(.*))?$", argument)
        problem = _explain_override(match[1], match[2], config) if match else None
        if problem:
            return problem
    return None


def _explain_override(path: str, value: str | None, node: Any) -> str | None:
    """Returns why one override of the config `node` is wrong, or None if it is right."""
    name = "config"
    for part in path.split("."):
        if not isinstance(node, ConfigDict):
            return f"{name} is a value; it has no key {part!r}."
        if part not in node:
            near = difflib.get_close_matches(part, node.keys(), n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            return f"{name}.{part} is not a key; {meant}allowed are {', '.join(node.keys())}."
        node, name = node[part], f"{name}.{part}"
    if isinstance(node, ConfigDict):
        return f"{name} is a section; override one of its keys: {', '.join(node.keys())}."
    kinds: dict[type, Callable] = {
        int: int,
        float: float,
        tuple: lambda v: tuple(ast.literal_eval(v)),
        bool: _boolean,
    }
    try:
        kinds.get(type(node), str)(value)
    except (ValueError, SyntaxError, TypeError):
        return f"{name} must be {type(node).__name__}, got {value!r}."
    return None


def _boolean(value: str | None) -> bool:
    """Raises ValueError unless the value of an override is a boolean."""
    if value is not None and value.lower() not in ("true", "false", "1", "0"):
        raise ValueError(value)
    return True


def _parse(arguments: list[str]) -> list[str]:
    """Parses the flags; reports a wrong flag or a wrong --config.KEY in one sentence."""
    try:
        arguments, named = _resolve_configs(arguments)
    except ConfigError as error:
        _stop(error)
    try:
        return flags.FLAGS(arguments)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = explain_overrides(arguments, config_files.load(named)) if named else None
        _stop(ConfigError(reason or " ".join(str(error).split())))


def _resolve_configs(arguments: list[str]) -> tuple[list[str], str | None]:
    """Returns the arguments with paths instead of names of configs, and the last config's path.

    Each config is loaded here, so that an error in its file is reported as an error of the file.
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


def _log_to_stderr() -> None:
    """Shows the log lines of this package, and warnings of the libraries, on stderr."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = progress.Handler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    ours = logging.getLogger("dbae_jax")
    ours.handlers = [handler]
    ours.setLevel(logging.INFO)
    ours.propagate = False


def _stop(error: DBAEError) -> NoReturn:
    """Prints an error and exits with its code."""
    print(f"error: {error}", file=sys.stderr)
    processes.leave(error.exit_code)
