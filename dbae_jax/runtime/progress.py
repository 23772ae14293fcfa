"""How far long work is: done/total, rate and time left, on a terminal or in a log.

On a terminal this is one moving line. In a file or a pipe it is a line every ten seconds, so that
work that is shorter leaves none. Nothing is shown unless the package's logger shows INFO, which
the commands ask for and a user of the Python API need not.
"""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from tqdm import tqdm

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

    def __init__(self, what: str, total: int, unit: str, *, initial: int = 0):
        """Starts the clock.

        Args:
          what: the work, as the beginning of a sentence, such as "Encoding images".
          total: number of units at the end.
          unit: what is counted, in the plural, such as "images".
          initial: number of units that were done before, as in a run that is resumed.
        """
        self._what, self._total, self._unit = what, total, unit
        self._initial = self._done = initial
        self._started = self._logged = time.monotonic()
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
        self._done += count
        if self._bar is not None:
            self._bar.set_postfix_str(details, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._logged >= LOG_EVERY_SECONDS:
            self._logged = time.monotonic()
            log.info("%s", self.line(details))

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
    """Yields the items and shows how many of them are done, see `Progress`."""
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
