"""Construction of environments from an id, an environment, a factory, or a functional one."""

import contextlib
import difflib
import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import gymnasium as gym
from gymnasium.envs.registration import get_env_id, parse_env_id

from agentzoo.envs import atari
from agentzoo.envs.base import Envs
from agentzoo.envs.functional import (
    FunctionalEnv,
    FunctionalGymEnv,
    FunctionalVectorEnv,
    adapt,
    find_functional,
)
from agentzoo.envs.guard import UNGUARDED, Guard
from agentzoo.envs.gym_envs import GymEnvs
from agentzoo.envs.vector_envs import VectorEnvs
from agentzoo.types import ConfigurationError

EnvLike = str | gym.Env | gym.vector.VectorEnv | FunctionalEnv[Any] | Callable[[], gym.Env]

# The extra of agentzoo that installs an environment. The key is the beginning of the id, or the
# name of the missing package.
_EXTRAS = {
    "ale-py": "atari",
    "opencv": "atari",
    "LunarLander": "box2d",
    "Bipedal": "box2d",
    "CarRacing": "box2d",
    "Box2D": "box2d",
    "dm_control": "dm-control",
    "shimmy": "dm-control",
    "mujoco": "mujoco",
    "MuJoCo": "mujoco",
    "pygame": "classic",
    "flax": "phys2d",
}


def make_envs(
    env: EnvLike,
    n_envs: int = 1,
    exact: bool = True,
    guard: Guard = UNGUARDED,
) -> Envs:
    """Make the environments in which an agent trains.

    Args:
      env: a Gymnasium id, an environment, a factory of environments, a vector environment, or a
        functional environment. A functional environment may be a `FuncEnv` of Gymnasium, an
        environment of Brax, or what `gymnax.make` returns.
      n_envs: number of environments to make from an id, a factory or a functional environment. One
        compiled program steps all functional environments. An environment counts as one, and a
        vector environment knows its number.
      exact: whether a vector environment that a factory makes must hold `n_envs` environments.
      guard: what is done about environments that fail.

    Raises:
      ConfigurationError: if the environment is unknown, a package is missing, the number of
        environments does not match `n_envs`, or environments that fail cannot be made again.
    """
    if isinstance(env, gym.vector.VectorEnv):
        if n_envs not in (1, env.num_envs):
            raise ConfigurationError(
                f"n_envs={n_envs}, but the vector environment holds {env.num_envs}. Leave n_envs "
                "out."
            )
        return VectorEnvs(env, guard=guard)
    if isinstance(env, gym.Env):
        if n_envs != 1:
            raise ConfigurationError(
                f"n_envs={n_envs} needs {n_envs} environments. Pass an id or a factory "
                "(lambda: ...) instead of one environment."
            )
        return GymEnvs([env], guard=guard)
    if isinstance(env, str):
        return _make_from_id(env, n_envs, guard)
    env = adapt(env)
    if is_functional(env):
        return _make_functional(cast(FunctionalEnv, env), n_envs)
    if callable(env):
        return _make_from_factory(env, n_envs, exact, guard)
    raise ConfigurationError(
        f"env is a {type(env).__name__}. Expected a Gymnasium id, a gymnasium.Env, a function that "
        "makes one, a gymnasium VectorEnv, or an agentzoo.envs.FunctionalEnv."
    )


def _make_from_id(env_id: str, n_envs: int, guard: Guard) -> Envs:
    """Make environments of a Gymnasium id, by one program or one vector environment if possible."""
    with _clear_errors(env_id) as name:
        if atari.is_atari(name, {}) and gym.spec(name).vector_entry_point is not None:
            make_vec = functools.partial(atari.make_vec, name, n_envs)
            return VectorEnvs(make_vec(), make_vec, guard)
    first = make_env(env_id)
    functional = find_functional(first) if n_envs > 1 else None
    if functional is not None:
        return _make_functional(functional, n_envs)
    make = functools.partial(make_env, env_id)
    return GymEnvs([first, *(make() for _ in range(n_envs - 1))], make, guard)


def _make_from_factory(factory: Callable[[], Any], n_envs: int, exact: bool, guard: Guard) -> Envs:
    """Make environments by calling a factory once, or once for each ordinary environment."""
    first = adapt(factory())
    if isinstance(first, gym.vector.VectorEnv):
        if exact and n_envs not in (1, first.num_envs):
            return make_envs(first, n_envs)  # raises
        return VectorEnvs(first, factory, guard)
    if is_functional(first):
        return _make_functional(cast(FunctionalEnv, first), n_envs)
    made = [first, *(adapt(factory()) for _ in range(n_envs - 1))]
    for env in made:
        if not isinstance(env, gym.Env):
            raise ConfigurationError(
                f"The environment factory returned a {type(env).__name__}. Return a gymnasium.Env."
            )
    return GymEnvs(made, lambda: adapt(factory()), guard)


def find_native(envs: Envs) -> FunctionalEnv | None:
    """Return the functional environment that all environments are copies of.

    Returns:
      The functional environment, or None if Python code takes part in an environment.
    """
    if isinstance(envs, VectorEnvs):
        return envs.env.env if isinstance(envs.env, FunctionalVectorEnv) else None
    found = [find_functional(env) for env in envs.envs] if isinstance(envs, GymEnvs) else [None]
    return found[0] if all(env == found[0] for env in found) else None


def is_functional(env: Any) -> bool:
    """Return whether an object with spaces is neither a class nor a `gym.Env`."""
    found = [getattr(env, name, None) for name in ("observation_space", "action_space")]
    has_spaces = all(isinstance(space, gym.Space) for space in found)
    return has_spaces and not isinstance(env, type | gym.Env)


def _make_functional(env: FunctionalEnv, n_envs: int) -> Envs:
    if n_envs == 1:
        return GymEnvs([FunctionalGymEnv(env)])
    return VectorEnvs(FunctionalVectorEnv(env, n_envs))


def make_env(env_id: str, /, **kwargs: Any) -> gym.Env:
    """Make an environment as `gymnasium.make` does, with helpful errors.

    Atari games get the standard preprocessing (see `agentzoo.envs.atari`).

    Args:
      env_id: a Gymnasium id. In `my_module:MyEnv-v0`, the module before the colon registers the
        environment.
      **kwargs: arguments of the environment, such as `render_mode`. Atari games also accept
        `terminal_on_life_loss`.

    Raises:
      ConfigurationError: if the environment is unknown, a package is missing, or the environment
        does not accept the arguments.
    """
    with _clear_errors(env_id, kwargs) as name:
        return (atari.make if atari.is_atari(name, kwargs) else gym.make)(name, **kwargs)


def env_maker(env_id: str, kwargs: Mapping[str, Any]) -> str | Callable[[], gym.Env]:
    """Return an environment as agents take it: its id, or a function if it has arguments."""
    return functools.partial(make_env, env_id, **kwargs) if kwargs else env_id


def needs_import(env_id: str) -> bool:
    """Return whether making an environment would import a module that its id or arguments name.

    A saved file may come from someone else, and importing a module runs the code of that module. So
    an environment that only a file names is not made if this function returns True.
    """
    module, _, name = env_id.rpartition(":")
    # These environments of Gymnasium import what their arguments name.
    indirect = name.startswith(("GymV21Environment", "GymV26Environment"))
    return indirect or bool(module and module not in sys.modules)


@contextlib.contextmanager
def _clear_errors(env_id: str, kwargs: dict[str, Any] | None = None) -> Iterator[str]:
    """Register an environment, and convert errors while it is made to `ConfigurationError`.

    Yields the id without the module.
    """
    given = kwargs or {}
    try:
        yield _register(env_id)
    except ConfigurationError:
        raise
    except ModuleNotFoundError as error:
        module = env_id.rpartition(":")[0]
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"There is no module {module!r}, which {env_id!r} names before the colon. Run this "
                "in the folder that contains the module, or install the module."
            ) from error
        raise ConfigurationError(_missing(env_id, str(error))) from error
    except gym.error.DependencyNotInstalled as error:
        raise ConfigurationError(_missing(env_id, str(error))) from error
    except gym.error.UnregisteredEnv as error:
        raise ConfigurationError(_unknown(env_id)) from error
    except (gym.error.Error, ImportError) as error:
        raise ConfigurationError(_impossible(env_id, given, error)) from error
    except Exception as error:
        # Other errors of an environment are not converted, unless its arguments are the likely
        # cause.
        if not (given or _is_wrong_call(error)):
            raise
        raise ConfigurationError(_impossible(env_id, given, error)) from error


def _register(env_id: str) -> str:
    """Register an environment, and return its id without the module.

    Atari games and the DeepMind Control Suite (through Shimmy) are registered automatically.
    """
    module, _, name = env_id.rpartition(":")
    if module.startswith("."):
        form = "my_module:MyEnv-v0"
        raise ConfigurationError(f"{env_id!r} names no module before the colon. Write {form}.")
    if module:
        importlib.import_module(module)
    if name not in gym.registry and _has_atari():
        atari.register()
    if name.startswith("dm_control/"):
        importlib.import_module("shimmy")
    if name not in gym.registry and parse_env_id(name)[2] is not None:
        gym.spec(name)  # raises without the warning that `gymnasium.make` shows first
    return name


def _has_atari() -> bool:
    return importlib.util.find_spec("ale_py") is not None


def _unknown(env_id: str) -> str:
    module, colon, name = env_id.rpartition(":")
    if (name.startswith("ALE/") or "NoFrameskip" in name) and not _has_atari():
        return _missing(env_id, "ale-py is not installed")
    close = difflib.get_close_matches(name, gym.registry, n=1, cutoff=0.5)
    advice = "List the known ids with gymnasium.pprint_registry()."
    if close:
        advice = f"Did you mean {module + colon + close[0]!r}?"
    return f"There is no environment {env_id!r}. {advice}"


def _impossible(env_id: str, kwargs: dict[str, Any], error: Exception) -> str:
    """Return a message with the error that was raised and the environment's newest version."""
    cause = error.__cause__ if _is_wrong_call(error) else None  # Gymnasium adds to its message
    reason = " ".join(str(cause or error).split()).rstrip(".") or type(error).__name__
    if not isinstance(error, gym.error.Error | ImportError | TypeError):
        reason = f"{type(error).__name__}: {reason}"
    arguments = " with " + ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
    newest = _newest(env_id)
    advice = f" The newest version is {newest!r}." if newest and newest not in reason else ""
    return f"{env_id!r} cannot be made{arguments if kwargs else ''}: {reason}.{advice}"


def _newest(env_id: str) -> str | None:
    """Return the id of an environment's newest version if it is newer than `env_id`."""
    module, colon, name = env_id.rpartition(":")
    try:
        namespace, bare, version = parse_env_id(name)
    except gym.error.Error:
        return None
    same = [spec for spec in gym.registry.values() if spec.namespace == namespace]
    newest = max((spec.version or 0 for spec in same if spec.name == bare), default=0)
    if version is None or newest <= version:
        return None
    return module + colon + get_env_id(namespace, bare, newest)


def _is_wrong_call(error: Exception) -> bool:
    """Return whether the call of an environment's constructor failed because of its arguments."""
    cause = error.__cause__  # Gymnasium raises a TypeError from the original one
    if not (isinstance(error, TypeError) and isinstance(cause, TypeError)):
        return False
    return cause.__traceback__ is not None and cause.__traceback__.tb_next is None


def _missing(env_id: str, reason: str) -> str:
    for sign, extra in _EXTRAS.items():
        if env_id.rpartition(":")[2].startswith(sign) or sign.lower() in reason.lower():
            return (
                f"{env_id!r} needs a package that is not installed. "
                f"Run: pip install 'agentzoo[{extra}]'"
            )
    return f"{env_id!r} needs a package that is not installed: {reason}"
