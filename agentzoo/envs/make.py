"""From what a user calls an environment to environments that a runner can step."""

import contextlib
import difflib
import importlib
import importlib.util
from collections.abc import Callable, Iterator
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
from agentzoo.envs.gym_envs import GymEnvs
from agentzoo.envs.vector_envs import VectorEnvs
from agentzoo.types import ConfigurationError

EnvLike = str | gym.Env | gym.vector.VectorEnv | FunctionalEnv[Any] | Callable[[], gym.Env]

# The extra that brings an environment, by the beginning of its id or by the package that is found
# missing.
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


def make_envs(env: EnvLike, n_envs: int = 1, exact: bool = True) -> Envs:
    """Makes the environments that an agent trains in.

    Args:
      env: a Gymnasium id, an environment, a factory of environments, a vector environment, or a
        functional environment, which may be a `FuncEnv` of Gymnasium, or what `gymnax.make`
        returns.
      n_envs: how many to make of an id, a factory or a functional environment. Those that are
        functional are stepped by one program. An environment is always one; a vector environment
        knows its number, also one that a factory makes.
      exact: whether a vector environment that a factory makes has to hold `n_envs`.

    Raises:
      ConfigurationError: if there is no such environment, a package for it is missing, or `n_envs`
        cannot be had.
    """
    if isinstance(env, gym.vector.VectorEnv):
        if n_envs not in (1, env.num_envs):
            raise ConfigurationError(
                f"n_envs={n_envs}, but the vector environment holds {env.num_envs}; leave n_envs out."
            )
        return VectorEnvs(env)
    if isinstance(env, gym.Env):
        if n_envs != 1:
            raise ConfigurationError(
                f"n_envs={n_envs} needs {n_envs} environments; give an id or a factory (lambda: ...) instead of one."
            )
        return GymEnvs([env])
    if isinstance(env, str):
        with _clear_errors(env) as name:
            if atari.is_atari(name, {}) and gym.spec(name).vector_entry_point is not None:
                return VectorEnvs(atari.make_vec(name, n_envs))
        first = make_env(env)
        functional = find_functional(first) if n_envs > 1 else None
        return (
            GymEnvs([first, *(make_env(env) for _ in range(n_envs - 1))])
            if functional is None
            else _make_functional(functional, n_envs)
        )
    env = adapt(env)
    if _is_functional(env):
        return _make_functional(cast(FunctionalEnv, env), n_envs)
    if callable(env):
        first = adapt(env())
        if isinstance(first, gym.vector.VectorEnv):
            return make_envs(first, n_envs if exact else 1)
        if _is_functional(first):
            return _make_functional(cast(FunctionalEnv, first), n_envs)
        made = [first, *(adapt(env()) for _ in range(n_envs - 1))]
        for one in made:
            if not isinstance(one, gym.Env):
                raise ConfigurationError(
                    f"The environment factory returned {type(one).__name__}, not a gymnasium.Env."
                )
        return GymEnvs(made)
    raise ConfigurationError(
        f"env is {type(env).__name__}; expected a Gymnasium id, a gymnasium.Env, a function that makes one, a gymnasium VectorEnv, or an "
        f"agentzoo.envs.FunctionalEnv."
    )


def find_native(envs: Envs) -> FunctionalEnv | None:
    """The functional environment of which all of these are copies, or None where anything written in Python has a part in them."""
    if isinstance(envs, VectorEnvs):
        return envs.env.env if isinstance(envs.env, FunctionalVectorEnv) else None
    found = [find_functional(env) for env in envs.envs] if isinstance(envs, GymEnvs) else [None]
    return found[0] if all(env == found[0] for env in found) else None


def _is_functional(env: Any) -> bool:
    spaces_of = (getattr(env, name, None) for name in ("observation_space", "action_space"))
    return not isinstance(env, type | gym.Env) and all(
        isinstance(space, gym.Space) for space in spaces_of
    )


def _make_functional(env: FunctionalEnv, n_envs: int) -> Envs:
    return (
        GymEnvs([FunctionalGymEnv(env)])
        if n_envs == 1
        else VectorEnvs(FunctionalVectorEnv(env, n_envs))
    )


def make_env(env_id: str, **kwargs: Any) -> gym.Env:
    """`gymnasium.make` with errors that say what to do, and with the standard preprocessing for Atari (see `agentzoo.envs.atari`).

    Args:
      env_id: a Gymnasium id; in `my_module:MyEnv-v0`, the module before the colon registers it.
      **kwargs: arguments of the environment, such as `render_mode`, and for Atari
        `terminal_on_life_loss`.

    Raises:
      ConfigurationError: if there is no such environment, a package for it is missing, or it does
        not take the arguments.
    """
    with _clear_errors(env_id, kwargs) as name:
        return (atari.make if atari.is_atari(name, kwargs) else gym.make)(name, **kwargs)


@contextlib.contextmanager
def _clear_errors(env_id: str, kwargs: dict[str, Any] | None = None) -> Iterator[str]:
    """Registers an environment, and turns errors of making it into ours.

    Yields its id without the module.
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
                f"There is no module {module!r}, which {env_id!r} names before the colon; run this "
                f"in the folder that holds the module, or install it."
            ) from error
        raise ConfigurationError(_missing(env_id, str(error))) from error
    except gym.error.DependencyNotInstalled as error:
        raise ConfigurationError(_missing(env_id, str(error))) from error
    except gym.error.UnregisteredEnv as error:
        raise ConfigurationError(_unknown(env_id)) from error
    except (gym.error.Error, ImportError) as error:
        raise ConfigurationError(_impossible(env_id, given, error)) from error
    except Exception as error:
        # What an environment raises is its own affair, unless the arguments are the likely cause.
        if not (given or _is_wrong_call(error)):
            raise
        raise ConfigurationError(_impossible(env_id, given, error)) from error


def _register(env_id: str) -> str:
    """Imports what registers an environment, and returns its id without the module.

    Games of ale-py and the Control Suite, which comes through Shimmy, are registered for the user.
    """
    module, _, name = env_id.rpartition(":")
    if module.startswith("."):
        form = "my_module:MyEnv-v0"
        raise ConfigurationError(f"{env_id!r} names no module before the colon; write {form}.")
    if module:
        importlib.import_module(module)
    if name not in gym.registry and _has_atari():
        atari.register()
    if name.startswith("dm_control/"):
        importlib.import_module("shimmy")
    if name not in gym.registry and parse_env_id(name)[2] is not None:
        gym.spec(name)  # which raises, and does not warn before as `gymnasium.make` does
    return name


def _has_atari() -> bool:
    return importlib.util.find_spec("ale_py") is not None


def _unknown(env_id: str) -> str:
    module, colon, name = env_id.rpartition(":")
    if (name.startswith("ALE/") or "NoFrameskip" in name) and not _has_atari():
        return _missing(env_id, "ale-py is not installed")
    close = difflib.get_close_matches(name, gym.registry, n=1, cutoff=0.5)
    advice = "list the known ones with gymnasium.pprint_registry()."
    if close:
        advice = f"did you mean {module + colon + close[0]!r}?"
    return f"There is no environment {env_id!r}; {advice}"


def _impossible(env_id: str, kwargs: dict[str, Any], error: Exception) -> str:
    """A sentence with what was raised, and the newest version of the environment."""
    cause = error.__cause__ if _is_wrong_call(error) else None  # Gymnasium adds to its message
    reason = " ".join(str(cause or error).split()).rstrip(".") or type(error).__name__
    if not isinstance(error, gym.error.Error | ImportError | TypeError):
        reason = f"{type(error).__name__}: {reason}"
    arguments = " with " + ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
    newest = _newest(env_id)
    advice = f" The newest version is {newest!r}." if newest and newest not in reason else ""
    return f"{env_id!r} cannot be made{arguments if kwargs else ''}: {reason}.{advice}"


def _newest(env_id: str) -> str | None:
    """The newest version of an environment, if it is another."""
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
    """Whether an environment was not even entered, since it takes other arguments."""
    cause = error.__cause__  # Gymnasium raises a TypeError anew
    if not (isinstance(error, TypeError) and isinstance(cause, TypeError)):
        return False
    return cause.__traceback__ is not None and cause.__traceback__.tb_next is None


def _missing(env_id: str, reason: str) -> str:
    for sign, extra in _EXTRAS.items():
        if env_id.rpartition(":")[2].startswith(sign) or sign.lower() in reason.lower():
            return f"{env_id!r} needs a package that is not installed; run: pip install 'agentzoo[{extra}]'"
    return f"{env_id!r} needs a package that is not installed: {reason}"
