"""From what a user calls an environment to environments that a runner can step."""

import contextlib
import difflib
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, cast

import gymnasium as gym

from agentzoo.envs import adapters, atari
from agentzoo.envs.functional import FunctionalEnv
from agentzoo.envs.functional_gym import FunctionalGymEnv, FunctionalVectorEnv, find_functional
from agentzoo.envs.gym_envs import Envs, GymEnvs
from agentzoo.envs.vector_envs import VectorEnvs
from agentzoo.types import ConfigurationError

EnvLike = str | gym.Env | gym.vector.VectorEnv | FunctionalEnv | Callable[[], gym.Env]

# The extra that brings an environment, by the beginning of its id or by the package that is found missing.
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
    "moviepy": "video",
}


def make_envs(env: EnvLike, n_envs: int = 1, exact: bool = True) -> Envs:
    """Makes the environments that an agent trains in.

    Args:
      env: a Gymnasium id, an environment, a factory of environments, a vector environment, or a functional environment, which may be
        a `FuncEnv` of Gymnasium, or what `gymnax.make` returns.
      n_envs: how many to make of an id, a factory or a functional environment. Those that are functional are stepped by one program. An
        environment is always one; a vector environment knows its number, also one that a factory makes.
      exact: whether a vector environment that a factory makes has to hold `n_envs`.

    Raises:
      ConfigurationError: if there is no such environment, a package for it is missing, or `n_envs` cannot be had.
    """
    if isinstance(env, gym.vector.VectorEnv):
        if n_envs not in (1, env.num_envs):
            raise ConfigurationError(f"n_envs={n_envs}, but the vector environment holds {env.num_envs}; leave n_envs out.")
        return VectorEnvs(env)
    if isinstance(env, gym.Env):
        if n_envs != 1:
            raise ConfigurationError(f"n_envs={n_envs} needs {n_envs} environments; give an id or a factory (lambda: ...) instead of one.")
        return GymEnvs([env])
    if isinstance(env, str):
        with _clear_errors(env):
            if atari.is_atari(env, {}) and gym.spec(env).vector_entry_point is not None:
                return VectorEnvs(atari.make_vec(env, n_envs))
        first = make_env(env)
        functional = find_functional(first) if n_envs > 1 else None
        return GymEnvs([first, *(make_env(env) for _ in range(n_envs - 1))]) if functional is None else _make_functional(functional, n_envs)
    env = adapters.adapt(env)
    if _is_functional(env):
        return _make_functional(cast(FunctionalEnv, env), n_envs)
    if callable(env):
        first = adapters.adapt(env())
        if isinstance(first, gym.vector.VectorEnv):
            return make_envs(first, n_envs if exact else 1)
        if _is_functional(first):
            return _make_functional(cast(FunctionalEnv, first), n_envs)
        made = [first, *(adapters.adapt(env()) for _ in range(n_envs - 1))]
        for one in made:
            if not isinstance(one, gym.Env):
                raise ConfigurationError(f"The environment factory returned {type(one).__name__}, not a gymnasium.Env.")
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
    return not isinstance(env, type | gym.Env) and all(isinstance(space, gym.Space) for space in spaces_of)


def _make_functional(env: FunctionalEnv, n_envs: int) -> Envs:
    return GymEnvs([FunctionalGymEnv(env)]) if n_envs == 1 else VectorEnvs(FunctionalVectorEnv(env, n_envs))


def make_env(env_id: str, **kwargs: Any) -> gym.Env:
    """`gymnasium.make` with errors that say what to do, and with the standard preprocessing for Atari (see `agentzoo.envs.atari`).

    Args:
      env_id: a Gymnasium id.
      **kwargs: arguments of the environment, such as `render_mode`, and for Atari `terminal_on_life_loss`.

    Raises:
      ConfigurationError: if there is no such environment, or a package for it is missing.
    """
    with _clear_errors(env_id):
        return (atari.make if atari.is_atari(env_id, kwargs) else gym.make)(env_id, **kwargs)


@contextlib.contextmanager
def _clear_errors(env_id: str) -> Iterator[None]:
    """Turns Gymnasium's errors into ours; an id that it does not know may be one of ale-py or of Shimmy, which are registered for it."""
    atari_installed = importlib.util.find_spec("ale_py") is not None
    if env_id not in gym.registry and atari_installed:
        atari.register()
    try:
        if env_id.startswith("dm_control/"):
            importlib.import_module("shimmy")  # which registers them
        yield
    except (gym.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise ConfigurationError(_missing(env_id, str(error))) from error
    except gym.error.UnregisteredEnv as error:
        if (env_id.startswith("ALE/") or "NoFrameskip" in env_id) and not atari_installed:
            raise ConfigurationError(_missing(env_id, "ale-py is not installed")) from error
        close = difflib.get_close_matches(env_id, gym.registry, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else "list the known ones with gymnasium.pprint_registry()."
        raise ConfigurationError(f"There is no environment {env_id!r}; {hint}") from error


def _missing(env_id: str, reason: str) -> str:
    for sign, extra in _EXTRAS.items():
        if env_id.startswith(sign) or sign in reason:
            return f"{env_id!r} needs a package that is not installed; run: pip install 'agentzoo[{extra}]'"
    return f"{env_id!r} needs a package that is not installed: {reason}"
