"""What happens beside the steps of training: log, checkpoint, diagnose, evaluate, pictures."""

import contextlib
import functools
import logging
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol, Self

import jax
import numpy as np

from dbae_jax import build, checkpoint, images, optim, rngs, sharding, summaries, workdir
from dbae_jax.api import DBAE
from dbae_jax.config import Config
from dbae_jax.data.sources import Source, gather
from dbae_jax.evaluators import reconstruction
from dbae_jax.train_state import TrainState
from dbae_jax.train_step import make_diagnose

log = logging.getLogger(__name__)

# A shuffled code that raises the loss by less than this share of it is not used.
MIN_CODE_SHARE = 0.02


class Run(Protocol):
    """Of a run (`train.Run`) what hooks need; its state is that of the start."""

    @property
    def state(self) -> TrainState: ...

    @property
    def mesh(self) -> jax.sharding.Mesh: ...


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
        rows = summaries.read(directory)
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


def make_hooks(
    config: Config,
    directory: pathlib.Path,
    run: Run,
    held_out: Source,
    checkpoints: checkpoint.Writer,
    scalars: summaries.Writer,
) -> Hooks:
    """Builds the hooks that a config asks for; see `configs/base.py` for their intervals."""
    meter, clock = Meter(), Clock.going_on(directory)
    meta = workdir.meta(config)
    model = DBAE(config, run.state.ema, mesh=run.mesh)

    def save(step: int, state: TrainState) -> None:
        checkpoints.save(state, step, meta)

    logger = make_logger(
        meter,
        clock,
        scalars,
        rate_schedule=optim.make_learning_rate(config),
        batch_size=config.train.batch_size,
        num_steps=config.train.num_steps,
    )
    hooks = [
        Hook(config.train.log_every_steps, logger),
        Hook(config.train.diagnose_every_steps, _diagnoser(config, run, held_out, scalars)),
        Hook(config.train.evaluate_every_steps, _evaluator(config, model, held_out, scalars)),
        Hook(config.train.picture_every_steps, _painter(config, model, held_out, directory)),
        Hook(config.checkpoint.every_steps, save),
    ]
    return Hooks(
        hooks,
        config.train.num_steps,
        meter=meter,
        clock=clock,
        save=save,
        preempted=checkpoints.preempted,
    )


def make_logger(
    meter: Meter,
    clock: Clock,
    scalars: summaries.Writer,
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


def _diagnoser(config: Config, run, held_out: Source, scalars: summaries.Writer):
    """Is the code used? On one fixed batch of test images, at fixed times and noises."""
    networks, bridge = build.make_networks(config), build.make_bridge(config.bridge)
    everywhere = sharding.replicated(run.mesh)
    diagnose = jax.jit(make_diagnose(networks, bridge), out_shardings=everywhere)
    size = config.train.batch_size
    taken = functools.cache(lambda: gather(held_out, size)[0])  # a run that shows none reads none
    key = sharding.replicate(rngs.stream(jax.random.key(config.seed), "diagnose"), everywhere)

    def action(step: int, state: TrainState) -> None:
        batch = np.resize(taken(), (size, *taken().shape[1:]))
        placed = sharding.to_global(run.mesh, {"image": _own_part(batch)})
        values = {k: float(v) for k, v in jax.device_get(diagnose(state, placed, key)).items()}
        scalars.write(step, values)
        log.info(
            "step %d  latent variance %.3g  loss on test images %.4f, with shuffled codes %+.4f",
            *(step, values["z_variance"], values["eval_loss"], values["code_gap"]),
        )
        if values["code_gap"] < MIN_CODE_SHARE * values["eval_loss"]:
            log.warning(
                "step %d: the code is hardly used: giving images each other's codes changes the "
                "loss by %+.2f%% only. If this lasts, train longer, raise "
                "config.optim.learning_rate, or use --config.model.encoder.pool=flatten.",
                *(step, 100 * values["code_gap"] / values["eval_loss"]),
            )

    return action


def _evaluator(config: Config, model: DBAE, held_out: Source, scalars: summaries.Writer):
    taken = functools.cache(lambda: gather(held_out, config.eval.num_images or None)[0])

    def action(step: int, state: TrainState) -> None:
        error = reconstruction.mse(model.with_variables(state.ema), taken(), config.sample)
        scalars.write(step, {"test_mse": error})
        log.info("step %d  reconstruction MSE of test images %.5f (pixels in [0, 1])", step, error)

    return action


def _painter(config: Config, model: DBAE, held_out: Source, directory: pathlib.Path):
    shown = functools.cache(lambda: gather(held_out, config.eval.num_pictures)[0])

    def action(step: int, state: TrainState) -> None:
        rows = reconstruction.picture_rows(model.with_variables(state.ema), shown(), config.sample)
        images.save_grid(directory / "pictures" / f"reconstructions_{step:08d}.png", rows)

    return action


def _own_part(batch: np.ndarray) -> np.ndarray:
    size = len(batch) // jax.process_count()
    return batch[jax.process_index() * size :][:size]


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {seconds:02d}s"
