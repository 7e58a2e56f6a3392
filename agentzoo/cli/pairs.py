"""Options that consist of pairs of a name and a value."""

import ast
from collections.abc import Iterable, Iterator
from typing import Any

from agentzoo.settings.reading import parse_value
from agentzoo.types import ConfigurationError


def parse_keywords(pairs: Iterable[str]) -> dict[str, Any]:
    """Return the arguments of an environment that texts such as "is_slippery:False" stand for.

    A value that is not a literal of Python is text.

    Raises:
      ConfigurationError: if there is no colon, or the key cannot be the name of an argument.
    """
    keywords: dict[str, Any] = {}
    for _, key, text in _split(pairs, "--env-kwargs", ":", "key:value, such as is_slippery:False"):
        try:
            keywords[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError):
            keywords[key] = text
    return keywords


def parse_changes(pairs: Iterable[str]) -> dict[str, Any]:
    """Return the hyperparameters that texts such as "net_arch=[64, 64]" stand for.

    Values are written as in YAML, and a schedule also as "linear:START,END".

    Raises:
      ConfigurationError: if a text is no such pair.
    """
    changes: dict[str, Any] = {}
    for pair, name, text in _split(pairs, "--set", "=", "name=value, such as learning_rate=1e-3"):
        try:
            value = parse_value(text)
        except ValueError:
            raise ConfigurationError(
                f"--set {pair}: the value is not YAML. Write a number, true, false, a text, or a "
                f"list such as [64, 64]."
            ) from None
        changes[name] = None if value == "None" else value
    return changes


def _split(
    pairs: Iterable[str], option: str, separator: str, form: str
) -> Iterator[tuple[str, str, str]]:
    """Yield each pair with its name and the text of its value.

    Raises:
      ConfigurationError: if a text is no pair, or two pairs have the same name.
    """
    names = set()
    for pair in pairs:
        name, found, text = pair.partition(separator)
        if not (found and name.isidentifier()):
            raise ConfigurationError(f"{option} {pair} is not a pair. Write {form}.")
        if name in names:
            raise ConfigurationError(f"{option} names {name} twice. Leave out one.")
        names.add(name)
        yield pair, name, text
