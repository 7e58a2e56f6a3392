"""Write `agentzoo/__init__.pyi`: the hyperparameters of each agent for type checkers and editors.

Python's type hints cannot say that `DQN` takes the fields of `DQNConfig` as keyword arguments, so
this file says it for them. `make stubs` writes it anew, and a test checks that it is up to date.
"""

import ast
import importlib
import inspect
import textwrap
from pathlib import Path
from typing import Any

import agentzoo
from agentzoo.algos import ALGORITHMS
from agentzoo.algos.base import Algorithm
from agentzoo.hyperparameters import hyperparameters

PATH = Path(agentzoo.__file__).with_suffix(".pyi")

HEADER = '''\
"""The public face of agentzoo for type checkers and editors. `make stubs` writes this file."""

# fmt: off
# ruff: noqa
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

'''


def content() -> str:
    """Return what the file should hold."""
    homes = agentzoo._HOMES
    lines = [HEADER.rstrip("\n"), ""]
    lines += [f"from agentzoo import {name} as {name}" for name in agentzoo._MODULES]
    for name, module in sorted(homes.items(), key=lambda item: (item[1], item[0])):
        alias = f"_{name}" if name in ALGORITHMS else name
        lines.append(f"from {module} import {name} as {alias}")
    lines += [
        "from agentzoo.config import Schedule",
        "from agentzoo.envs import EnvLike, OnError",
        "from agentzoo.logging import TrackersLike",
        "from agentzoo.runners import OnNan, RunnerName",
        "from agentzoo.types import PyTree",
        "",
        "__version__: str",
        f"__all__ = {sorted(homes)!r}",
    ]
    for name, module in ALGORITHMS.items():
        lines += ["", *_class(getattr(importlib.import_module(module), name))]
    return "\n".join(lines) + "\n"


def _class(cls: Any) -> list[str]:
    """The declaration of an algorithm's class, with its constructor and `load`."""
    own = [
        # Lists are turned into tuples.
        f"{one.name}: {one.type_name.replace('tuple[', 'Sequence[').replace(', ...]', ']')} "
        f"= {one.default!r}"
        for one in hyperparameters(cls.Config).values()
    ]
    doc = inspect.cleandoc(cls.__doc__)
    return [
        f"class {cls.__name__}(_{cls.__name__}):",
        textwrap.indent(f'"""{doc}\n"""', "    "),
        *_function("def __init__", [*_shared(Algorithm.__init__), *own], "None"),
        "    @classmethod",
        *_function("def load", [*_shared(Algorithm.load.__func__), *own], "Self"),
        "    @classmethod",
        *_function("def tuned", _without_defaults([*_tuned_arguments(), *own]), "Self"),
    ]


def _shared(function: Any) -> list[str]:
    """The arguments that every algorithm takes, as they stand in the source code."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.FunctionDef)
    given = definition.args
    given.vararg = given.kwarg = None  # *misplaced and **hyperparameters
    return _split(ast.unparse(given))


def _tuned_arguments() -> list[str]:
    """The arguments of `tuned`: its own, and those of a new agent, which it passes on."""
    own = _shared(Algorithm.tuned.__func__)
    names = {argument.split(":")[0] for argument in own}
    others = _shared(Algorithm.__init__)
    return own + [one for one in others if one.split(":")[0] not in {*names, "self", "*", "preset"}]


def _without_defaults(arguments: list[str]) -> list[str]:
    """Arguments whose defaults are left open, because tuned settings decide about them."""
    return [one.split("=")[0].rstrip() + " = ..." if "=" in one else one for one in arguments]


def _split(arguments: str) -> list[str]:
    """Arguments one by one. Commas in brackets do not separate them."""
    parts, depth = [""], 0
    for character in arguments:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _function(name: str, arguments: list[str], returns: str) -> list[str]:
    return [
        f"    {name}(",
        *(f"        {argument}," for argument in arguments),
        f"    ) -> {returns}: ...",
    ]


if __name__ == "__main__":
    PATH.write_text(content())
