"""Actions at intervals of a training, and its log: metrics, rate and time left."""

import contextlib
import logging
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Self

import jax

from dbae_jax.runtime.compilation import compilation
from dbae_jax.runtime.progress import Progress, duration
from dbae_jax.workdirs import records
from dbae_jax.workdirs.train_state import TrainState

log = logging.getLogger(__name__)


class Hook(NamedTuple):
    """Runs `action(step, state)` every `every` steps and at the last step; 0 for never."""

    every: int
    action: Callable[[int, TrainState], None]


class Clock:
    """Measures the seconds of a run over all restarts, and those of one interval of steps."""

    def __init__(self, seconds_before: float):
        """Starts at the seconds that a run took before it was resumed."""
        self._before = seconds_before
        self.start()

    @classmethod
    def resumed(cls, directory: pathlib.Path) -> Self:
        """Returns a clock that continues from the last record of the run in a folder."""
        rows = records.read(directory)
        earlier = [row["train_seconds"] for row in rows if "train_seconds" in row]
        return cls(earlier[-1] if earlier else 0.0)

    def start(self) -> None:
        """Starts measuring, with the first interval."""
        self._started = time.perf_counter()
        self.start_interval()

    def start_interval(self) -> None:
        """Starts the interval anew."""
        self._interval_started = time.perf_counter()
        self._compiled = compilation.seconds
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside the context as waiting for data."""
        started = time.perf_counter()
        yield
        self._waited += time.perf_counter() - started

    def total(self) -> float:
        """Returns the seconds of training, with those before the run was resumed."""
        return self._before + time.perf_counter() - self._started

    def end_interval(self) -> tuple[float, float]:
        """Returns the seconds of the interval and those spent waiting, and starts the next.

        The seconds in which jax compiled are left out; see `compilation`.
        """
        seconds = time.perf_counter() - self._interval_started
        seconds, waited = seconds - (compilation.seconds - self._compiled), self._waited
        self.start_interval()
        return seconds, waited


class TrainingLog:
    """Records the metrics of a training, and shows its rate and the time left.

    On a terminal this is one moving line, in a file a log line at every call of `write`.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        scalars: records.Writer,
        *,
        learning_rate: Callable[[int], jax.Array | float],
        batch_size: int,
        num_steps: int,
        unit: str = "images",
    ):
        """Prepares the log; `running` starts its clock.

        Args:
          directory: folder of the run, whose records hold the seconds of training so far.
          scalars: writer of the records.
          learning_rate: schedule, step -> learning rate.
          batch_size: units per step.
          num_steps: number of steps at the end of the training.
          unit: name of the examples in a batch, in the plural.
        """
        self._scalars = scalars
        self._learning_rate = learning_rate
        self._batch_size = batch_size
        self._num_steps = num_steps
        self._unit = unit
        self._means = Means()
        self.clock = Clock.resumed(directory)

    @contextlib.contextmanager
    def running(self, start_step: int) -> Iterator[None]:
        """Starts the clock, and shows the progress of the steps inside the context."""
        self.clock.start()
        with Progress(
            "Training", self._num_steps, "steps", initial=start_step, log_every_seconds=math.inf
        ) as self._progress:
            yield

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Logs that the training step compiles, and leaves that time out of the rate."""
        log.info("Compiling the training step ...")
        started = time.perf_counter()
        with compilation.announced():
            yield
        log.info("Compiled in %s.", duration(time.perf_counter() - started))
        self.clock.start_interval()
        self._progress.restart()

    def add(self, metrics: Mapping[str, float]) -> None:
        """Adds the metrics of one step to the means of the next record."""
        self._means.add(metrics)
        self._progress.advance()

    def write(self, step: int, state: TrainState) -> None:
        """Records and shows the means since the last call; the action of a hook."""
        del state
        means, count = self._means.take()
        seconds, waited = self.clock.end_interval()
        rate = count * self._batch_size / seconds
        row = means | {
            "learning_rate": float(self._learning_rate(step - 1)),
            f"{self._unit}_per_second": rate,
            "data_wait_share": waited / seconds,
            "train_seconds": self.clock.total(),
        }
        self._scalars.write(step, row)
        left = duration((self._num_steps - step) * self._batch_size / rate)
        details = (
            f"loss {means['loss']:.4f}, gradient norm {means['grad_norm']:.2g}, learning rate "
            f"{row['learning_rate']:.2g}, {rate:.0f} {self._unit}/s, "
            f"{100 * waited / seconds:.1f}% waiting for data"
        )
        self._progress.report(
            details, line=f"step {step}/{self._num_steps}, {details}, {left} left"
        )


class Hooks:
    """The hooks and the log of a run."""

    def __init__(
        self,
        hooks: list[Hook],
        last_step: int,
        *,
        training_log: TrainingLog,
        save: Callable[[int, TrainState], None],
        preempted: Callable[[int], bool],
    ):
        """Combines the hooks with the log.

        Args:
          hooks: run in this order at the steps where they are due.
          last_step: step at which every hook runs.
          training_log: log that collects the metrics of every step.
          save: save(step, state) saves a checkpoint between the regular ones.
          preempted: preempted(step) states whether to save after this step and stop.
        """
        self._hooks = [hook for hook in hooks if hook.every]
        self._last = last_step
        self.training_log = training_log
        self.save = save
        self.preempted = preempted

    def due(self, step: int) -> bool:
        """Returns whether any hook runs at this step."""
        return any(self._is_due(hook, step) for hook in self._hooks)

    def run(self, step: int, state: TrainState) -> None:
        """Runs the hooks that are due."""
        for hook in self._hooks:
            if self._is_due(hook, step):
                hook.action(step, state)

    def _is_due(self, hook: Hook, step: int) -> bool:
        return step % hook.every == 0 or step == self._last


class Means:
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
