"""How far a long job is: a line in the log every few seconds."""

import logging
import time
from collections.abc import Callable

log = logging.getLogger("dbae_jax.data")


class Progress:
    """Counts images and logs count, rate and time left."""

    def __init__(
        self,
        total: int,
        *,
        every_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Takes the number of images to come; `clock` gives seconds."""
        self.total, self.done, self._fresh = total, 0, 0
        self._every, self._clock = every_seconds, clock
        self._start = self._last = clock()

    def skip(self, count: int) -> None:
        """Counts images that were done by an earlier run."""
        self.done += count

    def step(self) -> None:
        """Counts one image, and logs when the last line is old enough."""
        self.done, self._fresh = self.done + 1, self._fresh + 1
        now = self._clock()
        if now - self._last >= self._every:
            self._last = now
            log.info("%s", self.line())

    def line(self) -> str:
        """Returns such as "4,096 of 70,000 images, 812 images/s, 1 min 21 s left"."""
        elapsed = self._clock() - self._start
        count = f"{self.done:,} of {self.total:,} images"
        if not self._fresh or elapsed <= 0:
            return count
        rate = self._fresh / elapsed
        left = round((self.total - self.done) / rate)
        hours, minutes, seconds = left // 3600, left // 60 % 60, left % 60
        left_text = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
        speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
        return f"{count}, {speed} images/s, {left_text} left"
