"""Experiments: run algorithms side by side, and compare what they reach.

Nothing is imported before it is used.
"""

import importlib
from typing import Any

# What is public, and the module that it lives in. No module may have the name of a function,
# because importing the module would replace the function in this package.
_HOMES: dict[str, str] = {}

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'agentzoo.lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
