"""What happens beside the steps of training: log, checkpoint, diagnose, evaluate, pictures."""

import contextlib
import logging
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Self

import jax

from dbae_jax.workdirs import records
from dbae_jax.workdirs.train_state import TrainState

log = logging.getLogger(__name__)


class Hook(NamedTuple):
    """`action(step, state)` every `every` steps and at the last one."""

    every: int
    action: Callable[[int, TrainState], None]


class Clock:
    """Seconds of training so far, over all restarts of a run, and of the interval since a lap."""

    def __init__(self, seconds_before: float):
        self._before = seconds_before
        self.start()

    @classmethod
    def going_on(cls, directory: pathlib.Path) -> Self:
        """Makes the clock of a run: it shows what the record in its folder shows last."""
        rows = records.read(directory)
        earlier = [row["train_seconds"] for row in rows if "train_seconds" in row]
        return cls(earlier[-1] if earlier else 0.0)

    def start(self) -> None:
        """Begins this stretch of training and its first interval."""
        self._started = self._lap = time.perf_counter()
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for data."""
        begun = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begun

    def total(self) -> float:
        """Returns seconds of training, those before a restart included."""
        return self._before + time.perf_counter() - self._started

    def lap(self) -> tuple[float, float]:
        """Returns seconds since the last lap and those of them spent waiting; begins the next."""
        now = time.perf_counter()
        seconds, waited = now - self._lap, self._waited
        self._lap, self._waited = now, 0.0
        return seconds, waited


class Hooks:
    """The hooks of a run and the metrics recorded for them.

    `save(step, state)` saves out of turn; `preempted(step)` says whether to do so and stop.
    """

    def __init__(
        self,
        hooks: list[Hook],
        last_step: int,
        *,
        meter: "Meter",
        clock: Clock,
        save: Callable[[int, TrainState], None],
        preempted: Callable[[int], bool],
    ):
        self._hooks = [hook for hook in hooks if hook.every]
        self._last = last_step
        self._meter = meter
        self.clock = clock
        self.save = save
        self.preempted = preempted

    def due(self, step: int) -> bool:
        """Whether any hook acts at this step."""
        return any(self._acts(hook, step) for hook in self._hooks)

    def record(self, metrics: Mapping[str, float]) -> None:
        """Keeps the metrics of a step for the next log line."""
        self._meter.add(metrics)

    def run(self, step: int, state: TrainState) -> None:
        """Runs the hooks that are due, in the order given."""
        for hook in self._hooks:
            if self._acts(hook, step):
                hook.action(step, state)

    def _acts(self, hook: Hook, step: int) -> bool:
        return step % hook.every == 0 or step == self._last


class Meter:
    """Means of metrics over an interval of steps."""

    def __init__(self):
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, metrics: Mapping[str, float]) -> None:
        """Adds the metrics of one step."""
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def take(self) -> tuple[dict[str, float], int]:
        """Returns the means and the number of steps since the last call."""
        taken = {name: value / self._count for name, value in self._sums.items()}, self._count
        self._sums, self._count = {}, 0
        return taken


def make_logger(
    meter: Meter,
    clock: Clock,
    scalars: records.Writer,
    *,
    rate_schedule: Callable[[int], jax.Array],
    batch_size: int,
    num_steps: int,
    unit: str = "images",
) -> Callable[[int, TrainState], None]:
    """Returns what records and shows the means of metrics, the rate and the time left."""

    def action(step: int, state: TrainState) -> None:
        means, count = meter.take()
        seconds, waited = clock.lap()
        rate = count * batch_size / seconds
        left = (num_steps - step) * batch_size / rate
        row = means | {
            "learning_rate": float(rate_schedule(step - 1)),
            f"{unit}_per_second": rate,
            "data_wait_share": waited / seconds,
            "train_seconds": clock.total(),
        }
        scalars.write(step, row)
        log.info(
            "step %d/%d  loss %.4f  %.0f %s/s  %.1f%% waiting for data  %s left",
            *(step, num_steps, means["loss"], rate, unit),
            *(100 * waited / seconds, _duration(left)),
        )

    return action


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {seconds:02d}s"
