"""What a run took place on, for its record."""

import os
import platform
from pathlib import Path
from typing import Any

from agentzoo import __version__
from agentzoo.logging import versions
from agentzoo.process import host_memory
from agentzoo.runners import describe_device


def describe_machine() -> dict[str, Any]:
    """Return the machine of this process as plain JSON."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    memory = host_memory()
    return {
        "cpu": _cpu(),
        "cores": cores,
        "memory_gb": round(memory / 1e9, 1) if memory < float("inf") else None,
        "device": describe_device()["device"],
        "system": platform.platform(terse=True),
    }


def package_versions() -> dict[str, str]:
    """Return the versions on which results depend, by name."""
    return {**versions(), "agentzoo": __version__}


def _cpu() -> str:
    """Return the name of the processor, which only Linux has in a file."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Hardware"):
                return value.strip()
    return platform.processor() or platform.machine()
