"""A description of an agent for `print(agent)`: spaces, network and hyperparameters."""

import textwrap
from typing import Any

import jax

from agentzoo.hyperparameters import hyperparameters
from agentzoo.types import PyTree


def summarize(agent: Any) -> str:
    """Return an agent as one line, in the form of a call."""
    arguments = [repr(agent.env_id)] if agent.env_id is not None else []
    settings = {"n_envs": agent.n_envs, "seed": agent.seed, **changed_hyperparameters(agent.config)}
    arguments += [f"{name}={value!r}" for name, value in settings.items()]
    return f"{type(agent).__name__}({', '.join(arguments)})"


def describe(agent: Any) -> str:
    """Return a description of an agent, several lines long."""
    layers = layers_of(agent.params)
    size = sum(array.size for arrays in layers.values() for array in arrays.values())
    leaves = jax.tree.leaves(agent.params)
    devices = sorted({str(device) for leaf in leaves for device in leaf.devices()})
    changed = [f"{name}={value!r}" for name, value in changed_hyperparameters(agent.config).items()]
    settings = ", ".join([*changed, "the others at their defaults" if changed else "defaults"])
    rows = {
        "environment": [_environment(agent)],
        "observation": [_one_line(agent.spec.observation_space), *_inputs(agent)],
        "action": [_one_line(agent.spec.action_space)],
        "network": [f"{size:,} parameters on {', '.join(devices)}", *_aligned(layers)],
        "hyperparameters": textwrap.wrap(settings, 100),
    }
    lines = [f"{type(agent).__name__} after {agent.num_timesteps:,} steps"]
    for title, values in rows.items():
        lines.append(f"  {title:17}{values[0]}")
        lines += [" " * 19 + value for value in values[1:]]
    return "\n".join(lines)


def changed_hyperparameters(config: Any) -> dict[str, Any]:
    """Return the hyperparameters that differ from the defaults."""
    known = hyperparameters(type(config)).values()
    values = {one.name: (getattr(config, one.name), one.default) for one in known}
    return {name: value for name, (value, default) in values.items() if value != default}


def layers_of(params: PyTree) -> dict[str, dict[str, Any]]:
    """Return the arrays of each Haiku module, by the names of the module and of the array."""
    layers: dict[str, dict[str, Any]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
        # Haiku keeps parameters in a dict of dicts. Other arrays (statistics) are no layers.
        if len(path) > 1 and all(isinstance(key, jax.tree_util.DictKey) for key in path[-2:]):
            layers.setdefault("/".join(names[:-1]), {})[names[-1]] = leaf
    return layers


def _environment(agent: Any) -> str:
    number = f"{agent.n_envs} environment{'s' * (agent.n_envs != 1)}"
    name = agent.env_id or "without an id"
    if agent.trainer.runner is None:
        return f"{name}; made for {number}, but no environment is set"
    runner = type(agent.trainer.runner).__name__.removesuffix("Runner").lower()
    return f"{name}; {number}, runner {runner}"


def _inputs(agent: Any) -> list[str]:
    if agent.network is not None:
        name = getattr(agent.network, "__name__", type(agent.network).__name__)
        return [f"passed to your network {name!r} as it is"]
    inputs = dict(agent.functions.inputs)
    if "action_mask" in getattr(agent.spec.observation_space, "spaces", {}):
        inputs.setdefault("action_mask", "says which actions are legal")
    return [f"{name}: {text}" if name else text for name, text in inputs.items()]


def _aligned(layers: dict[str, dict[str, Any]]) -> list[str]:
    width = max(map(len, layers), default=0)
    shapes = [
        ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        for arrays in layers.values()
    ]
    return [f"{name:{width}}  {shape}" for name, shape in zip(layers, shapes, strict=True)]


def _one_line(space: Any) -> str:
    """The text of a space on one line. Long bounds are cut off."""
    return textwrap.shorten(repr(space), 300, placeholder=" ...")
