"""Writing a row into a file of tuned settings, of which everything else stays as it is."""

import io
import os
import re
from pathlib import Path
from typing import Any

from agentzoo import config as configs
from agentzoo.settings.reading import PRESETS, Row, from_plain, line_of, parse_yaml, plain
from agentzoo.types import ConfigurationError

# The YAML library breaks a long line as late as it can, which parts the last name from its value.
_SCORES = re.compile(r"(\n  scores: \{[^{}]*?),\s+(date:[^{}]*\})")


def _broken_before_date(scores: re.Match[str]) -> str:
    """Return the scores of a row with one line break, which stands before the date."""
    return "\n  " + " ".join(scores[1].split()) + ",\n      " + " ".join(scores[2].split())


def write_row(path: str | os.PathLike[str], row: Row) -> None:
    """Write a row into a file of settings. The other rows and all comments stay.

    A row with the same key is updated: only values that differ are written. The file is replaced as
    a whole or not at all. A file that does not exist is created.

    Args:
      path: the file.
      row: the row.

    Raises:
      ConfigurationError: if the file is no YAML, or a hyperparameter is a function.
    """
    path = Path(path)
    text = _with_row(path.read_text(encoding="utf-8") if path.is_file() else "", path, row)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _with_row(text: str, path: Path, row: Row) -> str:
    """Return the text of a file with a row in it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    before = parse_yaml(text, path)
    keys = list(before)
    following = keys[keys.index(row.key) + 1 :] if row.key in before else [row.key]
    # The YAML library keeps blank lines and comments between two rows with the last value of the
    # upper row, so that a new value would stand below them. So they are taken out meanwhile.
    text, between = _without_gap(text, before, following)
    content = parse_yaml(text, path)
    content = content if isinstance(content, CommentedMap) else CommentedMap(content)
    content.setdefault(row.key, CommentedMap())
    _update(content[row.key], _fields(row, _preset(content, row)))
    yaml, written = YAML(), io.StringIO()
    yaml.width = 100
    yaml.dump(content, written)
    lines = _SCORES.sub(_broken_before_date, written.getvalue()).splitlines()
    if row.key not in before and (before or between) and (not between or between[-1]):
        between = [*between, ""]
    place = len(lines)
    if following and between:
        place = (line_of(parse_yaml("\n".join(lines), path), following[0]) or 1) - 1
    return "\n".join([*lines[:place], *between, *lines[place:]]) + "\n"


def _without_gap(text: str, content: Any, following: list[Any]) -> tuple[str, list[str]]:
    """Return a file without the blank lines and comments that end a row, and those lines.

    Args:
      text: the text of the file.
      content: what is in the file.
      following: the keys of the rows below that row. The first may be a new one.
    """
    from ruamel.yaml.comments import CommentedMap

    lines = text.splitlines()
    if isinstance(content, CommentedMap) and content.fa.flow_style():
        return text, []  # in braces
    line = line_of(content, following[0]) if following and following[0] in content else None
    end = len(lines) if line is None else line - 1
    start = end
    while start and (not lines[start - 1].strip() or lines[start - 1].startswith("#")):
        start -= 1
    return "\n".join([*lines[:start], *lines[end:]]) + "\n", lines[start:end]


def _preset(content: Any, row: Row) -> dict[str, Any]:
    """Return the hyperparameters of the row's preset, as the file has them."""
    if row.preset is None:
        return {}
    found = content.get(PRESETS, {}).get(row.preset, {}).get("hyperparameters", {})
    return {name: _plain_value(name, from_plain(plain(value))) for name, value in found.items()}


def _fields(row: Row, preset: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a row as plain data, without those that have their defaults."""
    own = {name: _plain_value(name, value) for name, value in row.hyperparameters.items()}
    fields = {
        "env": row.env if row.name not in (None, row.env) else None,
        "steps": row.steps,
        "n_envs": row.n_envs if row.n_envs != 1 else None,
        "preset": row.preset,
        "hyperparameters": {
            name: value for name, value in own.items() if preset.get(name, _ABSENT) != value
        },
        "source": row.source,
        "scores": None if row.scores is None else dict(row.scores),
    }
    return {name: value for name, value in fields.items() if value not in (None, "", {})}


_ABSENT = object()


def _plain_value(name: str, value: Any) -> Any:
    if isinstance(value, configs.Linear):
        return {"linear": [value.start, value.end]}
    if callable(value):
        raise ConfigurationError(
            f"The hyperparameter {name!r} is a function, which a file cannot hold. Use a number or "
            f"a Linear schedule."
        )
    return list(value) if isinstance(value, tuple) else value


def _update(old: Any, new: dict[str, Any]) -> None:
    """Make a row of the file equal to new fields. What is equal already is left as it is."""
    for name in [name for name in old if name not in new]:
        del old[name]
    for name, value in new.items():
        before = plain(old.get(name))
        if name == "hyperparameters" and isinstance(before, dict):
            before = {key: _plain_value(key, from_plain(one)) for key, one in before.items()}
        if name == "source" and isinstance(before, str):
            before = " ".join(before.split())
        if before != value:
            old[name] = _styled(value, flow=name == "scores")


def _styled(value: Any, flow: bool) -> Any:
    """Return plain data as YAML parts. Lists and schedules stand on one line, as do scores."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if isinstance(value, dict):
        part = CommentedMap(
            {key: _styled(each, flow=isinstance(each, dict)) for key, each in value.items()}
        )
        if flow:
            part.fa.set_flow_style()
        return part
    if isinstance(value, list):
        part = CommentedSeq(value)
        part.fa.set_flow_style()
        return part
    return value
