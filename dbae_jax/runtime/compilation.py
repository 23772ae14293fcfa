"""Tells that jax compiles a program, and counts the seconds of compiling.

jax reports three events per program: it has traced it, it has lowered it, it has compiled it. Large
programs take long to compile, and are known by the time that lowering takes.
"""

import contextlib
import logging
import re
from collections.abc import Iterator

import jax.monitoring

LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
COMPILED = "/jax/core/compile/backend_compile_duration"
# Shorter work leaves no line. Compiling takes some ten times as long as lowering.
LOWERING_SECONDS, COMPILING_SECONDS = 0.5, 5.0

log = logging.getLogger(__name__)


class Compilation:
    """Logs compilations, and counts their seconds; `listen` starts both."""

    def __init__(self):
        """Starts at 0 seconds."""
        self.seconds = 0.0
        self._quiet = False

    def listen(self) -> None:
        """Receives the events of jax in this process, from now on."""
        jax.monitoring.register_event_duration_secs_listener(self.receive)

    @contextlib.contextmanager
    def announced(self) -> Iterator[None]:
        """Logs nothing inside the context, whose compilation the caller announces."""
        before, self._quiet = self._quiet, True
        yield
        self._quiet = before

    def receive(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        """Receives an event of jax.

        Args:
          event: name of the event.
          duration_secs: seconds that it took.
          **kwargs: "fun_name", such as "jit(_decode)".
        """
        name = re.sub(r"^jit\(_?(.*)\)$", r"\1", str(kwargs.get("fun_name", "a program")))
        if event == COMPILED:
            self.seconds += duration_secs
        if self._quiet:
            return
        if event == LOWERED and duration_secs >= LOWERING_SECONDS:
            log.info("Compiling %s ...", name)
        if event == COMPILED and duration_secs >= COMPILING_SECONDS:
            log.info("Compiled %s in %.0fs.", name, duration_secs)


compilation = Compilation()  # of this process
