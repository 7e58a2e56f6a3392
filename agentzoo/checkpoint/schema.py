"""What the JSON of a saved file may hold, checked before anything is made from it."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# jsonschema has no types of its own.

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from jsonschema.validators import extend

from agentzoo.types import ConfigurationError

_DEPTH = 32
_NUMBER_OF_ENVS = 2**31 - 1

_DTYPES = [
    *("bool", "float16", "float32", "float64"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
]
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_TEXT = {"type": "string", "maxLength": 1_000}
_TEXT_OR_NULL = {"type": ["string", "null"], "maxLength": 1_000}
_NUMBERS = {"type": "array", "items": {"type": "number"}, "maxItems": 1_000}
_SIZES = {"type": "array", "items": _COUNT, "maxItems": 32}
_SPACE = {"$ref": "#/$defs/space"}
_PAIR = {
    "type": "array",
    "prefixItems": [{"type": ["string", "integer"]}, _SPACE],
    "minItems": 2,
    "maxItems": 2,
}


def _space(required: Sequence[str], **properties: Any) -> dict[str, Any]:
    return {"properties": properties, "required": list(required)}


# Bounds and categories may be long lists, so `envs.spaces.from_json` checks these with NumPy.
_BOX = _space(("shape", "low", "high", "dtype"), shape=_SIZES)
_SPACES = {
    "Box": _BOX,
    "FrameStack": _BOX,
    "Discrete": _space(
        ("n", "start", "dtype"), n=_COUNT | {"minimum": 1}, start={"type": "integer"}
    ),
    "MultiDiscrete": _space(
        ("nvec", "start", "dtype"), nvec={"type": "array"}, start={"type": "array"}
    ),
    "MultiBinary": _space(("n",), n={"anyOf": [_COUNT, _SIZES]}),
    "Dict": _space(
        ("spaces",),
        spaces={
            "anyOf": [
                {"type": "object", "additionalProperties": _SPACE},
                {"type": "array", "items": _PAIR},
            ]
        },
    ),
    "Tuple": _space(("spaces",), spaces={"type": "array", "items": _SPACE}),
}

_HYPERPARAMETER = {
    "type": ["null", "boolean", "number", "string", "array", "object"],
    "maxLength": 1_000,
    "maxItems": 1_000,
    "items": {"type": ["null", "boolean", "number", "string", "array"]},
    "properties": {"linear": _NUMBERS | {"minItems": 2, "maxItems": 2}, "function": _TEXT},
    "additionalProperties": False,
}

_NUMBERS_BY_NAME = {"type": "object", "additionalProperties": {"type": "number"}}

# What `RunPlan`, `Placement` and `Trainer` write, and `agentzoo.resume` reads.
# How a run is placed; see `Placement.to_json`. Nothing else may become an argument of `load`.
_PLACEMENT = {
    "type": "object",
    "properties": {
        "runner": {"enum": ["auto", "host", "device", "threads", "ray"]},
        "n_actors": {"type": "integer", "minimum": 1, "maximum": 100_000},
        "max_lag": _COUNT,
        "n_devices": {"type": "integer", "minimum": 1},
        "env_timeout": {"type": ["number", "null"]},
        "on_env_error": {"enum": ["raise", "restart"]},
        "on_nan": {"enum": ["stop", "skip"]},
        "info_keywords": {"type": "array", "items": _TEXT},
        "trackers": {"type": "array", "items": {"enum": ["wandb", "mlflow"]}},
    },
    "additionalProperties": False,
}
_PLAN = {
    "type": "object",
    "properties": {
        "total": _COUNT,
        "log_interval": _COUNT,
        "checkpoint_freq": {"type": ["integer", "null"]},
        "keep": _COUNT,
        "progress_bar": {"type": "boolean"},
        "placement": _PLACEMENT,
        "stopped": {"type": "boolean"},
        "finished": {"type": "boolean"},
    },
    "required": [
        *("total", "log_interval", "checkpoint_freq", "keep", "progress_bar"),
        *("placement", "stopped", "finished"),
    ],
}

_ROW = {"type": "object", "additionalProperties": {"type": ["number", "string", "null"]}}
_PLACES = {"type": "object", "additionalProperties": {"type": "array", "items": _TEXT}}

# What `RunLog` and `Logger` write.
_LOG = {
    "type": "object",
    "properties": {
        "step": _COUNT,
        "recorded_step": _COUNT,
        "first_step": _COUNT,
        "seconds": {"type": "number"},
        "metrics": _NUMBERS_BY_NAME,
        "logger": {
            "type": "object",
            "properties": {
                "step": {"type": ["integer", "null"]},
                "values": _ROW,
                "written": {"anyOf": [_ROW, {"type": "null"}]},
                "hidden": _PLACES,
                "pending": _ROW,
                "excluded": _PLACES,
                "counts": {"type": "object", "additionalProperties": _COUNT},
                "table": {
                    "type": ["object", "null"],
                    "properties": {
                        "columns": {"type": "array", "items": {"type": "string"}},
                        "rows": _COUNT,
                        "latest": {"anyOf": [_ROW, {"type": "null"}]},
                        "unwritten": {"type": "array", "items": _ROW},
                    },
                    "required": ["columns", "rows", "latest", "unwritten"],
                },
                "events": {
                    "type": ["object", "null"],
                    "properties": {
                        "sizes": {"type": "object", "additionalProperties": _COUNT},
                        "unwritten": {"type": "string"},
                    },
                    "required": ["sizes", "unwritten"],
                },
            },
            "required": [
                *("step", "values", "written", "hidden", "pending", "excluded", "counts"),
                *("table", "events"),
            ],
        },
    },
    "required": ["step", "recorded_step", "first_step", "seconds", "metrics", "logger"],
}

MANIFEST: dict[str, Any] = {
    "type": "object",
    "properties": {
        "algorithm": _TEXT,
        "module": _TEXT_OR_NULL,
        "env_id": _TEXT_OR_NULL,
        "env_kwargs": {"type": ["object", "null"]},
        "custom_env": {"type": "boolean"},
        "tuned": {"type": ["object", "null"]},
        "seed": _COUNT,
        "hyperparameters": {"type": "object", "additionalProperties": _HYPERPARAMETER},
        "network": _TEXT_OR_NULL,
        "spec": {
            "type": "array",
            "prefixItems": [
                _SPACE,
                _SPACE,
                {"type": "integer", "minimum": 1, "maximum": _NUMBER_OF_ENVS},
            ],
            "minItems": 3,
            "maxItems": 3,
        },
        "revision": {"type": "integer", "minimum": 1},
        "excluded": {
            "type": "array",
            "items": _TEXT | {"not": {"const": "params"}},
            "maxItems": 100,
        },
        "predictions": _COUNT,
        "episodes": {
            "type": "object",
            "properties": {
                "rewards": _NUMBERS,
                "lengths": _NUMBERS,
                "infos": {"type": "object", "additionalProperties": _NUMBERS},
            },
            "required": ["rewards", "lengths", "infos"],
        },
        "env_name": _TEXT_OR_NULL,
        "worlds": _TEXT_OR_NULL,  # what files of revision 2 call `env_name`
        "versions": {"type": "object", "additionalProperties": _TEXT_OR_NULL},
        "step": _COUNT,
        "plan": {"anyOf": [_PLAN, {"type": "null"}]},
        "log": {"anyOf": [_LOG, {"type": "null"}]},
        "callbacks": {"type": ["object", "null"]},
        "unfinished": {
            "type": ["object", "null"],
            "properties": {
                "episodes": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "reward": {"type": "number"},
                            "length": _COUNT,
                            "env": _COUNT,
                            "info": {"type": "object"},
                        },
                        "required": ["reward", "length", "env", "info"],
                        "additionalProperties": False,
                    },
                },
                "metrics": _NUMBERS_BY_NAME,
            },
            "required": ["episodes", "metrics"],
        },
    },
    "$defs": {
        "space": {
            "type": "object",
            "properties": {"type": {"enum": list(_SPACES)}, "dtype": {"enum": _DTYPES}},
            "required": ["type"],
            "allOf": [
                {"if": {"properties": {"type": {"const": name}}}, "then": about}
                for name, about in _SPACES.items()
            ],
        }
    },
}
"""The manifest of an agent. Entries that are not listed are allowed, and nothing reads them."""

HEADER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "format": {"type": "integer", "minimum": 1},
        "tags": {"type": "object", "additionalProperties": _TEXT},
        "manifest": {"type": "object"},
        "sparse": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "properties": {"rows": _COUNT, "runs": {"type": "array"}},
                "required": ["rows", "runs"],
            },
        },
        "checkpoint": {
            "type": "object",
            "properties": {
                "sequence": _COUNT,
                "step": _COUNT,
                "score": {"type": ["number", "null"]},
            },
            "required": ["sequence", "step", "score"],
        },
        "blocks": {
            "type": "object",
            "properties": {
                "size": _COUNT,
                "segments": {"type": "array", "items": _TEXT},
                "arrays": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "properties": {
                            "shape": _SIZES,
                            "dtype": {"enum": [*_DTYPES, "complex64"]},
                            "blocks": {"type": "array"},
                        },
                        "required": ["shape", "dtype", "blocks"],
                    },
                },
            },
            "required": ["size", "segments", "arrays"],
        },
    },
    "required": ["format", "tags", "manifest"],
}
"""The JSON of a saved file. `sparse` and `blocks` check the long lists in it themselves."""


def _is_integer(_: Any, value: Any) -> bool:
    """Return whether a value is an integer of Python. JSON Schema also accepts 3.0."""
    return isinstance(value, int) and not isinstance(value, bool)


_Validator = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


def parse(path: Path, text: str) -> Any:
    """Parse JSON from a file.

    Raises:
      ConfigurationError: if it is no JSON, is nested too deeply, or holds a number that does not
        fit into 64 bits.
    """
    try:
        data = json.loads(text, parse_int=_parse_int)
        _check_depth(data)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} is damaged: its JSON cannot be read ({error}). Use an earlier checkpoint."
        ) from error
    return data


def _parse_int(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise ValueError(f"the integer {text[:40]} does not fit into 64 bits")
    return int(text)


def _check_depth(data: Any) -> None:
    level: list[Any] = [data]
    for _ in range(_DEPTH):
        inner: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                inner.extend(cast(dict[str, Any], part).values())
            elif isinstance(part, list):
                inner.extend(cast(list[Any], part))
        level = [part for part in inner if isinstance(part, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested more than {_DEPTH} levels deep")


def check(
    path: Path, data: Any, schema: dict[str, Any], what: str, required: Sequence[str] = ()
) -> None:
    """Check JSON from a file.

    Args:
      path: the file.
      data: the JSON.
      schema: what it has to be.
      what: what the JSON is called in the message.
      required: entries that must be there.

    Raises:
      ConfigurationError: if the JSON is something else. The message names the entry.
    """
    validator = _Validator({**schema, "required": [*schema.get("required", []), *required]})
    error = best_match(validator.iter_errors(data))
    if error is not None:
        where = "".join(f"[{part!r}]" for part in error.absolute_path)
        message = error.message if len(error.message) < 300 else f"{error.message[:300]}..."
        raise ConfigurationError(
            f"{path} is damaged, or agentzoo did not write it: {what}{where} is wrong ({message}). "
            f"Use an earlier checkpoint."
        )
