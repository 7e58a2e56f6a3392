"""Records of environments in saved agents and run folders, from which they are created again."""

import functools
import json
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker
from gymnasium.wrappers import TimeLimit as GymTimeLimit

from agentzoo.envs import atari
from agentzoo.envs.base import Envs
from agentzoo.envs.functional import (
    BraxAdapter,
    FuncEnvAdapter,
    FunctionalGymEnv,
    FunctionalVectorEnv,
    GymnaxAdapter,
    TimeLimit,
)
from agentzoo.envs.make import EnvLike, make_env

# What `gymnasium.make` puts around an environment, from the inside to the outside.
_USUAL_WRAPPERS = (PassiveEnvChecker, OrderEnforcing, GymTimeLimit)

# Arguments of `make` and `make_vec` about rendering and the number of environments.
_NOT_RECORDED = {"render_mode", "num_envs", "vectorization_mode", "vector_kwargs", "wrappers"}


def identify(env: EnvLike, envs: Envs) -> tuple[str | None, dict[str, Any] | None]:
    """Return the id of environments and the arguments that they were made with.

    Args:
      env: what the user passed.
      envs: the environments that were made from it.

    Returns:
      The id, or None if there is none. If the user named the module that registers the id, the id
      includes the module. The second value holds the arguments that differ from the registered
      ones, or is None if JSON cannot store them.
    """
    if isinstance(env, str):
        return env, {}
    if isinstance(env, functools.partial) and env.func in (make_env, gym.make) and env.args:
        return str(env.args[0]), _differing(env.keywords, {})
    first: Any = getattr(envs, "shares", [envs])[0]
    first = getattr(first, "env", None) or getattr(first, "envs", [None])[0]
    if not hasattr(getattr(first, "spec", None), "id"):
        # A vector environment without a record: take the first environment inside.
        first = getattr(first, "envs", [first])[0]
    spec = getattr(first, "spec", None)
    env_id = getattr(spec, "id", None)  # specs of EnvPool have no id
    registered = gym.registry.get(spec.id) if isinstance(spec, EnvSpec) else None
    if not isinstance(spec, EnvSpec) or registered is None:
        return env_id, {}
    usual = _arguments(registered)
    if atari.is_atari(spec.id, {}):
        usual["frameskip"] = spec.kwargs.get("frameskip")  # `make_env` sets it
    return env_id, _differing(_arguments(spec), usual)


def is_custom(env: EnvLike) -> bool:
    """Return whether environments may differ from those that their id and arguments make.

    Args:
      env: what the user passed. The result of a function of the user's is not known, and the
        worker processes of a vector environment may hold anything.
    """
    if isinstance(env, str):
        return False
    if isinstance(env, functools.partial) and env.func in (make_env, gym.make):
        # `make_env` adds the preprocessing of Atari games.
        return len(env.args) != 1 or (env.func is gym.make and atari.is_atari(env.args[0], {}))
    if not isinstance(env, gym.Env) or env.spec is None or atari.is_atari(env.spec.id, {}):
        return True
    registered = gym.registry.get(env.spec.id)
    wrappers: list[Any] = []
    inner: gym.Env = env
    while isinstance(inner, gym.Wrapper):
        wrappers.insert(0, type(inner))
        inner = inner.env
    usual = [wrapper for wrapper in _USUAL_WRAPPERS if wrapper in wrappers]
    return (
        registered is None
        or env.spec.additional_wrappers != registered.additional_wrappers
        or (wrappers != usual and not registered.additional_wrappers)
    )


def name_of(envs: Envs) -> str:
    """Return a name that is equal for environments of the same kind with the same arguments."""
    env: Any = getattr(envs, "env", None)
    if isinstance(env, FunctionalVectorEnv):
        return repr(env.env)
    env_id, kwargs = identify(env, envs)
    return f"{env_id or class_name(envs)}{kwargs or ''}"


def _arguments(spec: EnvSpec) -> dict[str, Any]:
    """Return the arguments for `gymnasium.make`, where -1 means no time limit."""
    return {"max_episode_steps": spec.max_episode_steps or -1, **spec.kwargs}


def _differing(kwargs: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any] | None:
    """Return the arguments that differ from the usual ones, or None if JSON cannot store them."""
    different = {}
    for name, value in kwargs.items():
        usual_value = repr(usual[name]) if name in usual else None
        if name not in _NOT_RECORDED and repr(value) != usual_value:
            different[name] = value
    try:
        return json.loads(json.dumps(different))
    except (TypeError, ValueError):
        return None


# Classes whose objects wrap another environment without being a `gymnasium.Wrapper`.
_WRAPPERS = (
    FunctionalGymEnv,
    FunctionalVectorEnv,
    TimeLimit,
    FuncEnvAdapter,
    GymnaxAdapter,
    BraxAdapter,
)


def class_name(envs: Envs) -> str:
    """Return the name of the environments' class, which stands for an id if there is none."""
    first: Any = getattr(envs, "shares", [envs])[0]
    outer: Any = getattr(first, "env", None) or getattr(first, "envs", [None])[0]
    env = getattr(outer, "envs", [outer])[0]  # the first one of a vector environment
    env = getattr(env, "unwrapped", env)
    while isinstance(env, _WRAPPERS):
        env = env.env
    return type(env).__name__
