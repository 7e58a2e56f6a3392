"""Signatures and docstrings that show the hyperparameters of an algorithm, read from its config."""

import dataclasses
import inspect
import re
import textwrap
from typing import Any

from agentzoo.hyperparameters import Hyperparameter, hyperparameters


def document(cls: Any, base: Any) -> None:
    """Give an algorithm's class a signature and a docstring with all of its arguments.

    `help`, `inspect.signature` and Jupyter then show each hyperparameter with its type, default and
    description. A class without a config stays as it is.

    Args:
      cls: the class, which is changed.
      base: the class `Algorithm`, whose docstring describes the arguments of every algorithm.
    """
    if not dataclasses.is_dataclass(getattr(cls, "Config", None)):
        return
    cls.__signature__ = _signature(cls)
    summary = inspect.cleandoc(cls.__doc__ or f"The algorithm {cls.__name__}.")
    shared = _section("Args", base)
    starts = (i for i, line in enumerate(shared) if line.startswith("  **"))
    shared = shared[: next(starts, len(shared))]  # without **hyperparameters
    own = [_describe(one) for one in hyperparameters(cls.Config).values()]
    raises = _section("Raises", base)
    cls.__doc__ = "\n".join([summary, "", "Args:", *shared, *own, "", "Raises:", *raises])


def _signature(cls: Any) -> inspect.Signature:
    """The signature of the constructor, with hyperparameters in place of `**hyperparameters`."""
    parameters = [*inspect.signature(cls.__init__).parameters.values()][1:]  # without self
    named = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    known = {one.name for one in named}
    if len(named) < len(parameters):
        named += [
            inspect.Parameter(
                one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type
            )
            for one in hyperparameters(cls.Config).values()
            if one.name not in known
        ]
    return inspect.Signature(named)


def _section(title: str, cls: Any) -> list[str]:
    """The indented lines of a section of a docstring."""
    pattern = rf"^{title}:\n((?:  .*(?:\n|$)|\n)*)"
    found = re.search(pattern, inspect.getdoc(cls) or "", flags=re.MULTILINE)
    return found[1].rstrip().split("\n") if found else []


def _describe(about: Hyperparameter) -> str:
    """The entry of a hyperparameter in the list of arguments."""
    text = f"{about.name}: {about.text} {values_of(about)}".replace(":  ", ": ")
    return textwrap.fill(
        text, 96, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
    )


def values_of(about: Hyperparameter) -> str:
    """Return a sentence about the values of a hyperparameter, and the default."""
    default = f"default {about.default!r}."
    if about.type is bool:
        return f"D{default[1:]}"
    return f"{about.expected[0].upper()}{about.expected[1:]}; {default}"
