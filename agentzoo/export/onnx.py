"""Policies as ONNX models, by the converter jax2onnx."""

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.export
import numpy as np
from gymnasium import spaces

from agentzoo.export.inlining import inline
from agentzoo.export.program import Program
from agentzoo.types import ConfigurationError, PyTree

OPSET = 18
"""The version of ONNX's operators, which runtimes of 2023 and later know."""

_TOLERANCE = 1e-5
_OTHERWISE = "Export the policy as StableHLO instead, to a path that ends in .stablehlo."


def to_onnx(program: Program, about: Mapping[str, Any]) -> bytes:
    """Return a policy as the bytes of an ONNX file.

    Inputs are called "observation", or "observation/part" for each part of a Dict or Tuple. For
    agents with memory, there are the inputs "state_0", ... and "episode_start", and the outputs
    "next_state_0", ... beside the output "action".

    Args:
      program: the policy.
      about: plain JSON that the file keeps as metadata.

    Raises:
      ConfigurationError: if a package is missing, the policy cannot be converted, or the converted
        policy chooses other actions.
    """
    with _quiet():
        converter, runtime = _import()
        try:
            model = _convert(converter, program, about)
            difference = _largest_difference(runtime, program, model)
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise ConfigurationError(
                f"The policy cannot be converted to ONNX ({type(error).__name__}: {reason}). "
                f"{_OTHERWISE}"
            ) from error
    if difference > _TOLERANCE:
        raise ConfigurationError(
            f"The policy cannot be converted to ONNX: the converted policy chooses actions that "
            f"differ by {difference:.2g}. {_OTHERWISE}"
        )
    return model


def input_names(program: Program) -> list[str]:
    """Return the names of the inputs of the model, in the order of the leaves of the arguments."""
    names = _names_of_parts(program.observation_space, "observation")
    if program.is_recurrent:
        names += [*(f"state_{i}" for i in range(len(program.state))), "episode_start"]
    return names


def _names_of_parts(space: spaces.Space, name: str) -> list[str]:
    """Return the names of the leaves of an observation, in JAX's order."""
    if isinstance(space, spaces.Dict):
        items = [(key, space[key]) for key in sorted(space.spaces)]
    elif isinstance(space, spaces.Tuple):
        items = list(enumerate(space))
    else:
        return [name]
    return [each for key, part in items for each in _names_of_parts(part, f"{name}/{key}")]


def _convert(converter: Any, program: Program, about: Mapping[str, Any]) -> bytes:
    import onnx_ir
    from onnx_ir.passes import common

    (batch_size,) = jax.export.symbolic_shape("batch")
    arguments = program.arguments(batch_size)
    outputs = ["action", *(f"next_state_{i}" for i in range(len(program.state)))]
    model = converter.to_onnx(
        inline(program.trace(arguments)),
        jax.tree.leaves(arguments),
        model_name="policy",
        opset=OPSET,
        return_mode="ir",
        input_names=input_names(program),
        output_names=outputs,
    )
    model = common.RemoveUnusedNodesPass()(model).model
    model.metadata_props.update({
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in about.items()
    })  # fmt: skip
    return onnx_ir.to_proto(model).SerializeToString()


def _largest_difference(runtime: Any, program: Program, model: bytes) -> float:
    """Return how far the model's outputs are from those of the agent, for random observations.

    The difference is relative for numbers beyond 1. Other Discrete actions differ by 1 or more.
    """
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    arguments = _examples(program, 16)
    inputs = dict(zip(input_names(program), jax.tree.leaves(arguments), strict=True))
    found = session.run(None, inputs)
    wanted = jax.device_get(jax.tree.leaves(program.call(*arguments)))
    differences = []
    for x, y in zip(found, wanted, strict=True):
        if x.shape != y.shape or x.dtype != y.dtype:
            raise TypeError(f"an output is {x.dtype}{x.shape} instead of {y.dtype}{y.shape}")
        x, y = x.astype(np.float64), y.astype(np.float64)
        differences.append(np.max(np.abs(x - y) / np.maximum(1.0, np.abs(y)), initial=0.0))
    return float(np.max(differences))


def _examples(program: Program, num: int) -> PyTree:
    """Return random arguments of the policy, in batches of `num`."""
    space = copy.deepcopy(program.observation_space)
    space.seed(0)
    random = np.random.default_rng(0)

    def observation(part: spaces.Space, shape: Any) -> PyTree:
        if isinstance(part, spaces.Dict | spaces.Tuple):
            items = part.items() if isinstance(part, spaces.Dict) else enumerate(part)
            made = {key: observation(inner, shape[key]) for key, inner in items}
            return made if isinstance(part, spaces.Dict) else tuple(made.values())
        if isinstance(part, spaces.Box) and np.issubdtype(part.dtype, np.floating):
            # A Box whose bounds are as large as numbers can be draws numbers that overflow.
            x = random.normal(size=shape.shape)
            return np.clip(x, part.low, part.high).astype(shape.dtype)
        return np.stack([part.sample() for _ in range(num)]).astype(shape.dtype)

    first, *rest = program.arguments(num)
    made = [observation(space, first)]
    if rest:
        states, _ = rest
        made.append(tuple(random.normal(size=x.shape).astype(x.dtype) for x in states))
        made.append(np.arange(num) % 3 == 0)
    return made


def _import() -> tuple[Any, Any]:
    """Return the converter and the runtime.

    Raises:
      ConfigurationError: if they are not installed.
    """
    try:
        import jax2onnx
        import onnxruntime
    except ImportError as error:
        raise ConfigurationError(
            "Exporting to ONNX needs packages that are not installed. "
            "Run: pip install 'agentzoo[onnx]'"
        ) from error
    return jax2onnx, onnxruntime


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warnings of the converter, about which no user can do anything."""
    log = logging.getLogger("onnx_ir")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
