"""The computer that this process runs on: its processor and its cores."""

import os
import pathlib
import platform


def processor() -> str:
    """Returns the name of the processor, or its architecture if the system does not tell it."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """Returns the number of CPU cores that this process may use (Linux), or of all cores."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
