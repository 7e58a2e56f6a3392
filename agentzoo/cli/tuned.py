"""`agentzoo tuned`, which lists tuned settings."""

from collections.abc import Sequence
from typing import Any

from agentzoo.algos import ALGORITHMS
from agentzoo.algos.loading import find
from agentzoo.cli.options import Tuned
from agentzoo.config import Linear
from agentzoo.settings import Row, find_row, read
from agentzoo.types import ConfigurationError


def tuned(options: Tuned) -> None:
    """List tuned settings, with what agents scored with them."""
    classes = _classes(options)
    if options.env is not None:
        _show_values(classes, options)
        return
    head = ("algorithm", "environment", "steps", "seeds", "mean", "IQM", "worst", "measured")
    rows = [
        (cls.__name__, *_summary(row))
        for cls in classes
        for row in read(cls, options.settings).values()
    ]
    if not rows:
        raise ConfigurationError(f"{classes[0].__name__} has no tuned settings.")
    print(_table([head, *rows]))


def _classes(options: Tuned) -> list[Any]:
    """Return the algorithms whose settings are asked for."""
    if options.algorithm is not None:
        return [find(options.algorithm)]
    path = options.settings
    if path is None:
        return [find(name) for name in ALGORITHMS]
    if not path.is_dir():
        raise ConfigurationError(
            f"--settings {path} holds the settings of one algorithm. Name the algorithm: "
            f"agentzoo tuned dqn --settings {path}."
        )
    found = [find(name) for name in ALGORITHMS if (path / f"{name.lower()}.yaml").is_file()]
    if not found:
        raise ConfigurationError(
            f"The folder {path} has no file of settings, such as {path / 'dqn.yaml'}."
        )
    return found


def _summary(row: Row) -> tuple[str, ...]:
    """Return the cells of a row: what it is for, and what agents scored."""
    scores = row.scores
    if scores is None:
        return row.key, f"{row.steps:,}", "-", "-", "-", "-", "not yet"
    numbers = [f"{scores[name]:.1f}" for name in ("mean", "iqm", "worst")]
    measured = f"{scores['date']}, version {scores['version']}"
    return row.key, f"{row.steps:,}", str(scores["seeds"]), *numbers, measured


def _show_values(classes: Sequence[Any], options: Tuned) -> None:
    """Print every value of the settings of one environment."""
    assert options.env is not None
    found = []
    for cls in classes:
        try:
            found.append((cls, find_row(cls, options.env, path=options.settings)))
        except ConfigurationError:
            if len(classes) == 1:
                raise
    if not found:
        names = sorted({key for cls in classes for key in read(cls, options.settings)})
        raise ConfigurationError(
            f"There are no tuned settings for {options.env!r}. Choose from {', '.join(names)}."
        )
    for cls, row in found:
        print(f"{cls.__name__} on {row.key}: {row.steps:,} steps, n_envs={row.n_envs}")
        for name, value in row.hyperparameters.items():
            print(f"  {name} = {_text(value)}")
        if row.scores is not None:
            scores = row.scores
            print(
                f"  mean {scores['mean']:.1f}, IQM {scores['iqm']:.1f}, worst seed "
                f"{scores['worst']:.1f} of {scores['seeds']} seeds, {scores['episodes']} episodes "
                f"each ({scores['date']}, version {scores['version']})"
            )
        print(f"  {row.source}")


def _text(value: Any) -> str:
    return f"from {value.start:g} to {value.end:g}" if isinstance(value, Linear) else str(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
             for row in rows]  # fmt: skip
    return "\n".join(line.rstrip() for line in lines)
