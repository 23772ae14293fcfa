"""The progress of long work: done/total, rate and time left, on a terminal or in a log.

The rate and the time left do not count the seconds in which jax compiled; see `compilation`.

On a terminal this is one moving line. In a file or a pipe it is a line every ten seconds, so that
shorter work leaves no line. Progress is shown only if the package's logger shows INFO: the commands
set this level, and the Python API leaves it to the user.
"""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from tqdm import tqdm

from dbae_jax.runtime.compilation import compilation

T = TypeVar("T")

LOG_EVERY_SECONDS = 10.0

log = logging.getLogger(__name__)


class Progress:
    """The progress of one piece of work; a context manager.

    with Progress("Encoding images", total=1437, unit="images") as progress:
        for batch in batches:
            ...
            progress.advance(len(batch))
    """

    def __init__(
        self,
        what: str,
        total: int,
        unit: str,
        *,
        initial: int = 0,
        log_every_seconds: float = LOG_EVERY_SECONDS,
    ):
        """Starts the clock.

        Args:
          what: the work, as the beginning of a sentence, such as "Encoding images".
          total: number of units at the end.
          unit: name of the units, in the plural, such as "images".
          initial: number of units that were done before, as in a run that is resumed.
          log_every_seconds: seconds between lines in a log; `math.inf` where the caller writes
            lines with `report`.
        """
        self._what, self._total, self._unit = what, total, unit
        self._initial = self._done = initial
        self._started = self._logged = time.monotonic()
        self._log_every_seconds = log_every_seconds
        self._compiled = compilation.seconds
        self._bar = None
        if log.isEnabledFor(logging.INFO) and sys.stderr.isatty():
            self._bar = tqdm(
                total=total,
                initial=initial,
                desc=what,
                unit=f" {unit}",
                leave=False,
                file=sys.stderr,
            )

    def advance(self, count: int = 1, details: str = "") -> None:
        """Counts units that are done; `details` are shown after the numbers."""
        self._leave_out_compilation()
        self._done += count
        if self._bar is not None:
            if details:
                self._bar.set_postfix_str(details, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._logged >= self._log_every_seconds:
            self._logged = time.monotonic()
            log.info("%s", self.line(details))

    def report(self, details: str, *, line: str) -> None:
        """Shows details after the moving line; where there is none, logs a line instead."""
        if self._bar is not None:
            self._bar.set_postfix_str(details)
        else:
            log.info("%s", line)

    def restart(self) -> None:
        """Restarts the clock: leaves the time so far out of the rate, such as that of compiling."""
        self._initial = self._done
        self._started = self._logged = time.monotonic()
        self._compiled = compilation.seconds
        if self._bar is not None:
            self._bar.unpause()

    def _leave_out_compilation(self) -> None:
        """Moves the start by the seconds that jax has compiled since the last call."""
        seconds = compilation.seconds - self._compiled
        self._compiled += seconds
        self._started += seconds
        if self._bar is not None:
            self._bar.start_t += seconds
            self._bar.last_print_t += seconds

    def line(self, details: str = "") -> str:
        """Returns the progress in words: "Encoding images: 512/1437 images, 210/s, 4s left"."""
        seconds = time.monotonic() - self._started
        rate = (self._done - self._initial) / seconds if seconds else 0.0
        left = duration((self._total - self._done) / rate) if rate else "unknown time"
        parts = [f"{self._what}: {self._done}/{self._total} {self._unit}", f"{rate:.3g}/s"]
        return ", ".join([*parts, f"{left} left", *([details] if details else [])])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def track(items: Iterable[T], what: str, *, total: int, unit: str) -> Iterator[T]:
    """Yields the items and shows how many of them are done; see `Progress`."""
    with Progress(what, total, unit) as progress:
        for item in items:
            yield item
            progress.advance()


class Handler(logging.StreamHandler):
    """Writes log lines to stderr, above the moving line of a `Progress` if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def duration(seconds: float) -> str:
    """Returns a duration as people write it: "2h 05m", "3m 07s", "12s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {seconds:02d}s" if minutes else f"{seconds}s"
