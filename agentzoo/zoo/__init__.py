"""The zoo: trained agents, how they are published, and how they are shared on the Hugging Face Hub.

`agentzoo.pretrained("dqn", "CartPole-v1")` loads an agent of the zoo.
"""

import importlib
from typing import Any

from agentzoo.zoo.catalogue import Entry, entries, find, is_name, locate, pretrained

# Loading an agent needs neither of these modules.
_HOMES = {"publish": "publishing", "push_to_hub": "hub", "load_from_hub": "hub"}

__all__ = ["Entry", "entries", "find", "is_name", "locate", "pretrained"]
__all__ += [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"agentzoo.zoo.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'agentzoo.zoo' has no attribute {name!r}")
