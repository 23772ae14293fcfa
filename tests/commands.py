"""Commands as users give them, each in a process of its own that need not import all anew."""

import atexit
import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
# Processes are copies of one that has imported what takes seconds, but has started nothing.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["dbae_jax.edit", "dbae_jax.evaluate", "dbae_jax.sample"])


def start(
    module: str, *flags: str, out: pathlib.Path, err: pathlib.Path, **environment: str
) -> multiprocessing.Process:
    """Starts `python -m dbae_jax.MODULE FLAGS...` in the repository; its words go to files."""
    for path in (out, err):
        path.write_bytes(b"")
    process = CONTEXT.Process(target=_become, args=(module, flags, out, err, environment))
    process.start()
    return process


def run(module: str, *flags: str, **environment: str) -> subprocess.CompletedProcess:
    """Returns the exit code and the words of a command that has ended."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = pathlib.Path(folder, "out"), pathlib.Path(folder, "err")
        process = start(module, *flags, out=out, err=err, **environment)
        process.join()
        words = out.read_text(), err.read_text()
        return subprocess.CompletedProcess(flags, process.exitcode, *words)


def _become(module, flags, out, err, environment):
    os.chdir(ROOT)
    os.environ.update(environment)
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = [module, *flags]
    try:
        runpy.run_module(f"dbae_jax.{module}", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which a process of multiprocessing leaves out
