"""Logging, flags and error messages of all commands."""

import functools
import inspect
import logging
import os
import pathlib
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

import dbae_jax
from dbae_jax.configuration import arguments, bug_reports, config_files, paths
from dbae_jax.configuration import config as config_lib
from dbae_jax.configuration.config import Config
from dbae_jax.errors import ConfigError, DBAEError, StorageError
from dbae_jax.runtime import failures, files, processes, progress
from dbae_jax.runtime.compilation import compilation
from dbae_jax.sampling.plan import CONSISTENCY, NAMES

INTERRUPTED = 130  # exit code after Ctrl-C, as shells give it

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
JSON = flags.DEFINE_string("json", None, "File to which the figures are also written, as JSON.")


def run(
    main: Callable[[list[str]], None],
    help_of: Callable[[list[str]], str] | None = None,
    *,
    config_of_workdir: bool = False,
    keys: Mapping[str, str] = types.MappingProxyType({}),
) -> None:
    """Parses the flags and runs a command.

    The exit code is 0, or after an error that of the error: 2 for an error that the user can fix.
    Such an error is printed as one sentence on stderr, without a traceback.

    Args:
      main: function of the command, called as main(argv). Its module also defines the flags.
      help_of: returns the text of --help for the arguments. Default: the docstring of the module
        of `main`, and the flags of that module.
      config_of_workdir: whether the config.json of the workdir is read if --config is missing.
      keys: flags that are a short form of a key of the config, with this key.
    """
    if {"--help", "-help", "-h", "--helpshort"} & set(sys.argv[1:]):
        show(help_of(sys.argv) if help_of else _help(main))
        return
    if "--version" in sys.argv[1:]:
        show(f"dbae_jax {dbae_jax.__version__}, jax {metadata.version('jax')}")
        return

    def guarded(argv: list[str]) -> None:
        last = _log_to_stderr()
        compilation.listen()
        try:
            if len(argv) > 1:
                raise ConfigError(f"{argv[1]!r} is not a flag; see --help.")
            with failures.explaining():
                main(argv)
        except DBAEError as error:
            stop(error)
        except KeyboardInterrupt as error:  # its text says how to go on
            print(f"error: interrupted{f'; {error}' if str(error) else ''}.", file=sys.stderr)
            processes.leave(INTERRUPTED)
        except Exception as error:
            traceback.print_exc()
            print(
                "error: this is a bug of dbae_jax. Please open an issue, and add the file "
                f"{bug_reports.write(error, last)}; it holds the traceback, the command, the "
                "versions and the last lines of the log.",
                file=sys.stderr,
            )
            processes.leave(1)

    parser = functools.partial(_parse, config_of_workdir=config_of_workdir, keys=keys)
    app.run(guarded, flags_parser=parser)


def show(text: str) -> None:
    """Prints a text on stdout. A reader that stops reading, such as `head`, is not an error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python would report the error once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def stop(error: DBAEError) -> NoReturn:
    """Prints an error and exits with its code."""
    if isinstance(error, StorageError):  # orbax's threads would repeat it for every array
        logging.disable()
        sys.unraisablehook = lambda unraisable: None
        threading.excepthook = lambda arguments: None
    print(f"error: {error}", file=sys.stderr)
    processes.leave(error.exit_code)


def _help(main: Callable) -> str:
    """Returns the text of --help: the docstring of the module and its flags."""
    name = sys.argv[0] if main.__module__ == "__main__" else main.__module__
    names = sorted(flag.name for flag in flags.FLAGS.get_key_flags_for_module(name))
    about = inspect.getdoc(sys.modules[main.__module__]) or ""
    return f"{about}\n\nFlags:\n\n{help_of_flags(names)}"


def help_of_flags(names: Iterable[str]) -> str:
    """Returns a line for each flag: its name, its explanation and its default."""
    lines = []
    for flag in map(flags.FLAGS.__getitem__, names):
        default = "" if flag.default is None else f" Default: {flag.default_as_str}."
        lines.append(f"  --{flag.name}: {' '.join(flag.help.split())}{default}")
    return "\n".join(lines)


def read_config() -> Config:
    """Returns the config of --config, with its overrides.

    Raises:
      ConfigError: if --config is missing, cannot be loaded, or has wrong values.
    """
    if CONFIG.value is None:
        raise ConfigError(
            f"--config is missing{_about_workdir()}; name a file such as configs/digits.py, an "
            "installed config such as digits, or the config.json of a workdir."
        )
    _check_named_plan(overrides())
    return config_lib.from_config_dict(CONFIG.value)


def _about_workdir() -> str:
    """Returns part of a sentence about --workdir, where a config may be; "" if that is missing."""
    if not WORKDIR.value:
        return ""
    path = read_workdir()
    if (path / config_files.SAVED_NAME).is_file():
        return f" (that of the workdir is {path / config_files.SAVED_NAME})"
    if path.is_dir():
        return f", and {path} holds no {config_files.SAVED_NAME} of a run"
    if path.exists():
        return f", and --workdir={path} is a file"
    hint = paths.nearest(path)
    meant = f" ({hint.strip()})" if hint.startswith("did you mean") else ""
    return f", and --workdir={path} does not exist{meant}"


def _check_named_plan(given: dict[str, Any]) -> None:
    """Raises ConfigError if the plan that --config.sample.sampler names replaces given keys."""
    name = given.get("sample.sampler")
    others = [f"--config.{key}" for key in given if key.startswith("sample.")]
    if name in NAMES and len(others) > 1:
        others.remove("--config.sample.sampler")
        raise ConfigError(
            f"--config.sample.sampler={name} chooses all keys of the section; leave out "
            f"{', '.join(others)}, or name a sampler such as {CONSISTENCY} or euler."
        )


def config_path() -> str:
    """Returns the value of --config as the user typed it: a file or a name."""
    return config_files.display(config_flags.get_config_filename(flags.FLAGS["config"]))


def overrides() -> dict[str, Any]:
    """Returns the keys that --config.KEY=VALUE overrides, with their new values."""
    return dict(config_flags.get_override_values(flags.FLAGS["config"]))


def start_processes(*, save_on_sigterm: bool = False, device_per_core: bool = False) -> None:
    """Joins the other processes of the run, as the flags or the environment describe them.

    Args:
      save_on_sigterm: whether a SIGTERM saves a checkpoint first; see `processes.start`.
      device_per_core: whether each CPU core is a device; see `processes.start`.
    """
    processes.start(
        COORDINATOR.value,
        NUM_PROCESSES.value,
        PROCESS_ID.value,
        save_on_sigterm=save_on_sigterm,
        device_per_core=device_per_core,
    )


def json_path() -> pathlib.Path | None:
    """Returns the path of --json, or None if the flag is not given.

    Raises:
      ConfigError: if the file cannot be written. Commands call this before they measure.
    """
    if not JSON.value:
        return None
    path = paths.read(JSON.value, "--json")
    files.check_file(path, f"--json={path}")
    return path


def read_workdir() -> pathlib.Path:
    """Returns the path of --workdir.

    Raises:
      ConfigError: if the flag is missing, or names no path that can be used.
    """
    if not WORKDIR.value:
        raise ConfigError("--workdir is missing; name the folder of the run.")
    return paths.read(WORKDIR.value, "--workdir", buckets=True)


def _parse(argv: list[str], *, config_of_workdir: bool, keys: Mapping[str, str]) -> list[str]:
    """Parses the flags; reports a wrong flag or a wrong --config.KEY in one sentence."""
    try:
        if config_of_workdir:
            argv = arguments.with_config_of_workdir(argv)
        for flag, key in keys.items():
            argv = arguments.with_key_of_flag(argv, flag, key)
        argv, named = arguments.resolve_configs(argv)
    except ConfigError as error:
        stop(error)
    sys.argv = argv  # ml_collections looks for --config.KEY there
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = arguments.explain_overrides(argv, config_files.load(named)) if named else None
        stop(ConfigError(reason or " ".join(str(error).split())))


def _is_news(record: logging.LogRecord) -> bool:
    """Returns whether to show a message of a library.

    orbax logs an error of each array that it cannot save, with its traceback, and then raises it.
    """
    return "/orbax/" not in record.pathname or record.levelno < logging.ERROR


def _show_unraisable(found: Any) -> None:
    """Shows an error that could not be raised, unless it is an echo of a save that has failed.

    tensorstore reports every array of such a save to an event loop that orbax has closed.
    """
    if str(found.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(found)


def _log_to_stderr() -> bug_reports.LastLines:
    """Shows the log lines of this package, and warnings of the libraries, on stderr.

    Returns:
      The handler that keeps the last lines.
    """
    absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_handler().addFilter(_is_news)
    for name in ("asyncio", "gcsfs"):  # they repeat errors that are raised too, with tracebacks
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = _show_unraisable
    # PIL warns of metadata that it cannot read; what concerns the pixels is an error.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # When one array cannot be saved, orbax raises that error and abandons the saves of the others.
    warnings.filterwarnings("ignore", r"coroutine .* was never awaited", RuntimeWarning)
    handler = progress.Handler()
    last = bug_reports.LastLines()
    ours = logging.getLogger("dbae_jax")
    ours.handlers = [handler, last]
    for each in ours.handlers:
        each.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    ours.setLevel(logging.INFO)
    ours.propagate = False
    return last
