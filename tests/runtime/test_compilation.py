"""What a user sees while jax compiles, from events that the test sends."""

import jax
import pytest

from dbae_jax.runtime import progress
from dbae_jax.runtime.compilation import COMPILED, LOWERED, Compilation
from dbae_jax.training import hooks

NAME = {"fun_name": "jit(_decode)"}


def test_large_programs_are_announced_and_small_ones_are_not(caplog):
    counted = Compilation()
    with caplog.at_level("INFO", logger="dbae_jax"):
        counted.receive(LOWERED, 0.01, **NAME)
        counted.receive(COMPILED, 0.5, **NAME)
        assert not caplog.messages
        counted.receive(LOWERED, 1.0, **NAME)
        counted.receive(COMPILED, 12.3, **NAME)
        with counted.announced():
            counted.receive(LOWERED, 1.0, **NAME)
            counted.receive(COMPILED, 20.0, **NAME)
    assert caplog.messages == ["Compiling decode ...", "Compiled decode in 12s."]
    assert counted.seconds == pytest.approx(32.8)


def test_jax_sends_these_events(monkeypatch):
    counted, events = Compilation(), []
    monkeypatch.setattr(
        counted, "receive", lambda event, duration, **details: events.append((event, details))
    )
    counted.listen()
    jax.jit(lambda x: x + 1.25).lower(1.0).compile()
    assert [event for event, _ in events if event in (LOWERED, COMPILED)] == [LOWERED, COMPILED]
    assert all("fun_name" in details for _, details in events)


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now

    perf_counter = monotonic


def test_the_rate_of_a_training_does_not_count_compilation(monkeypatch):
    clock, counted = Clock(), Compilation()
    monkeypatch.setattr(hooks, "time", clock)
    monkeypatch.setattr(hooks, "compilation", counted)
    counted.receive(COMPILED, 7.0)  # before the training
    measured = hooks.Clock(0.0)
    for seconds in (60.0, 0.0):
        counted.receive(COMPILED, seconds)
        clock.now += seconds + 5
        assert measured.end_interval() == (5.0, 0.0)
    assert measured.total() == 70.0


def test_the_time_left_does_not_count_compilation(monkeypatch):
    clock, counted = Clock(), Compilation()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress, "compilation", counted)
    counted.receive(COMPILED, 7.0)  # before the work
    with progress.Progress("Encoding images", 100, "images") as shown:
        counted.receive(COMPILED, 60.0)
        clock.now += 65
        shown.advance(10)
        assert shown.line() == "Encoding images: 10/100 images, 2/s, 45s left"
        clock.now += 5
        shown.advance(10)
        assert shown.line() == "Encoding images: 20/100 images, 2/s, 40s left"
