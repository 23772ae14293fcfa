"""What the commands share: logging, and errors as one sentence instead of a traceback."""

import logging
import sys
from collections.abc import Callable

from absl import app, flags
from absl import logging as absl_logging

from dbae_jax.errors import DBAEError

USAGE_ERROR = 2


def run(main: Callable[[list[str]], None]) -> None:
    """Parses flags, runs `main(argv)`, and exits with 0, or with 2 after a sentence on stderr."""

    def guarded(argv: list[str]) -> None:
        _log_to_stderr()
        try:
            main(argv)
        except DBAEError as error:
            _stop(str(error))

    app.run(guarded, flags_parser=_parse)


def _log_to_stderr() -> None:
    """Shows this package's messages, and warnings alone of the libraries'."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    ours = logging.getLogger("dbae_jax")
    ours.handlers = [handler]
    ours.setLevel(logging.INFO)
    ours.propagate = False


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; what ml_collections raises for a wrong override becomes one sentence."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        _stop(" ".join(str(error).split()))


def _stop(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(USAGE_ERROR)
