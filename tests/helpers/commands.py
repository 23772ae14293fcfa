"""Commands as users give them, each in a process of its own that need not import all anew."""

import atexit
import contextlib
import multiprocessing
import multiprocessing.process
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile

from tests.helpers.paths import ROOT

# Processes are copies of one that has imported what takes seconds, but has started nothing.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["dbae_jax.commands.edit", "dbae_jax.commands.sample"])
Process = multiprocessing.process.BaseProcess | subprocess.Popen


def start(
    module: str,
    *flags: str,
    out: pathlib.Path,
    err: pathlib.Path,
    cold: bool = False,
    **environment: str,
) -> Process:
    """Starts `python -m dbae_jax.MODULE FLAGS...` in the repository.

    Args:
      module: of the package, that is a command.
      *flags: of the command.
      out: file for what it prints; may be that of `err` too.
      err: file for what it says on stderr.
      cold: start an interpreter, as a user does, instead of a copy of one that has imported.
      **environment: what to change; jax has read its variables, so only `cold` can change those.
    """
    assert cold or not any(name.startswith("JAX_") for name in environment)
    environment = os.environ | environment
    for path in (out, err):
        path.write_bytes(b"")
    if cold:
        with out.open("ab") as stdout, err.open("ab") as stderr:
            command = [sys.executable, "-m", f"dbae_jax.{module}", *flags]
            return subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=stdout, stderr=stderr
            )
    given = (module, flags, out, err, dict(environment))
    process = CONTEXT.Process(target=_become, args=given, daemon=True)
    process.start()
    return process


def code(process: Process) -> int | None:
    """Returns the exit code, None while it runs."""
    return process.poll() if isinstance(process, subprocess.Popen) else process.exitcode


def wait(process: Process, seconds: float) -> int:
    """Returns the exit code of a process that has ended; kills one that does not."""
    waiting = process.wait if isinstance(process, subprocess.Popen) else process.join
    with contextlib.suppress(subprocess.TimeoutExpired):
        waiting(seconds)
    if code(process) is None:
        process.kill()
        waiting()
        raise TimeoutError(f"{process} was killed after {seconds} seconds")
    return code(process)


def run(module: str, *flags: str, **how) -> subprocess.CompletedProcess:
    """Returns the exit code and the words of a command that has ended; `how`: see `start`."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = pathlib.Path(folder, "out"), pathlib.Path(folder, "err")
        ended = wait(start(module, *flags, out=out, err=err, **how), 300)
        return subprocess.CompletedProcess(flags, ended, out.read_text(), err.read_text())


def _become(module, flags, out, err, environment):
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), stream.fileno())
    package = pathlib.Path(sys.modules["dbae_jax"].__file__)
    assert package.is_relative_to(ROOT), f"{package} was imported, not that of {ROOT}"
    sys.argv = [module, *flags]
    try:
        runpy.run_module(f"dbae_jax.{module}", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which a process of multiprocessing leaves out
