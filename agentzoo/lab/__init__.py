"""Experiments: run algorithms side by side, and compare what they reach.

Nothing is imported before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentzoo.lab.benchmarking import benchmark as benchmark
    from agentzoo.lab.plots import plot as plot
    from agentzoo.lab.reports import report as report
    from agentzoo.lab.searching.result import Tuning as Tuning
    from agentzoo.lab.searching.study import tune as tune

# What is public, and the module that it lives in. No module may have the name of a function,
# because importing the module would replace the function in this package.
_HOMES = {
    "Tuning": "agentzoo.lab.searching.result",
    "benchmark": "agentzoo.lab.benchmarking",
    "plot": "agentzoo.lab.plots",
    "report": "agentzoo.lab.reports",
    "tune": "agentzoo.lab.searching.study",
}

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'agentzoo.lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
