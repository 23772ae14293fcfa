"""Progress on a terminal and in a log, at times that the test sets."""

import io
import logging
import math

import pytest

from dbae_jax.runtime import progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_a_log_has_a_line_every_ten_seconds(clock, caplog):
    with (
        caplog.at_level("INFO", logger="dbae_jax"),
        progress.Progress("Encoding images", 100, "images", initial=10) as shown,
    ):
        for _ in range(5):
            clock.now += 4
            shown.advance(10, "loss 0.5")
    assert caplog.messages == [
        "Encoding images: 40/100 images, 2.5/s, 24s left, loss 0.5",
    ]


def test_a_caller_may_write_the_lines_of_a_log_itself(clock, caplog):
    with (
        caplog.at_level("INFO", logger="dbae_jax"),
        progress.Progress("Training", 100, "steps", log_every_seconds=math.inf) as shown,
    ):
        clock.now += 40
        shown.restart()  # what came before does not count
        clock.now += 20
        shown.advance(10)
        shown.report("loss 0.5", line="step 10/100, loss 0.5")
        assert shown.line() == "Training: 10/100 steps, 0.5/s, 3m 00s left"
    assert caplog.messages == ["step 10/100, loss 0.5"]


def test_details_stay_behind_the_moving_line(monkeypatch, caplog):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    with (
        caplog.at_level("INFO", logger="dbae_jax"),
        progress.Progress("Training", 9, "steps", initial=4) as shown,
    ):
        shown.restart()
        shown.advance()
        shown.report("loss 0.5", line="not shown")
        shown.advance()
    text = terminal.getvalue()
    assert "5/9" in text and "loss 0.5" in text and "not shown" not in text
    assert not caplog.messages


def test_nothing_is_shown_to_users_of_the_python_api(clock, caplog, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    with caplog.at_level("WARNING", logger="dbae_jax"):
        for _ in progress.track(range(5), "Sampling", total=5, unit="images"):
            clock.now += 20
    assert not caplog.messages and not terminal.getvalue()


def test_a_terminal_has_one_moving_line_below_the_log(monkeypatch, caplog):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    handler = progress.Handler()
    record = logging.LogRecord("dbae_jax", logging.INFO, "", 1, "a line", (), None)
    with caplog.at_level("INFO", logger="dbae_jax"):
        for _ in progress.track(range(2), "Sampling", total=2, unit="images"):
            handler.emit(record)
    text = terminal.getvalue()
    assert "Sampling:   0%" in text and text.count("a line\n") == 2
    assert not caplog.messages and text.count("\n") == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.4, "12s"), (187, "3m 07s"), (7500, "2h 05m"), (0, "0s")]
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text
