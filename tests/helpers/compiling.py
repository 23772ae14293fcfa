"""Finds the programs that a call compiles."""

import logging
from collections.abc import Callable
from typing import Any

import jax
import pytest


def compiled(call: Callable[[], Any], *names: str) -> list[str]:
    """Returns what jax logs of the named functions that a call compiles."""
    messages: list[str] = []
    logger, handler = logging.getLogger("jax"), logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        logger.addHandler(handler)
        patch.setattr(logger, "propagate", False)
        try:
            call()
        finally:
            logger.removeHandler(handler)
    return [line for line in messages if any(f"Compiling jit({name})" in line for name in names)]
