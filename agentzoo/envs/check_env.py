"""Examines an environment before training; see `agentzoo.check_env`.

Each function below looks at one side of the environment, and adds what it finds to a report.
"""

import contextlib
import copy
import functools
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import gymnasium as gym
import jax
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv

from agentzoo.envs import checking, spaces
from agentzoo.envs.findings import Report
from agentzoo.envs.functional import FunctionalGymEnv, FunctionalVectorEnv, adapt, find_functional
from agentzoo.envs.guard import describe
from agentzoo.envs.make import EnvLike, is_functional, make_env
from agentzoo.envs.seeding import find_obstacle, find_vector_obstacle
from agentzoo.envs.vector_envs import VectorEnvs
from agentzoo.types import ConfigurationError, EnvError, InvalidStep

try:
    import resource
except ImportError:  # Windows
    resource = None

SECONDS = 5.0
"""The first rollout of an environment ends after this time."""
SHORT = 200
"""Number of steps of the rollouts that are compared with each other."""
RAY_FROM = 1e-3
"""Seconds of computation per step from which a runner with processes is worth its costs."""
THREADS_FROM = 2e-4
"""Seconds of waiting per step from which a runner with threads is worth its costs."""

Make = Callable[[], Any]


class Rollout(NamedTuple):
    """What happened in a rollout.

    Attributes:
      digests: a checksum of each observation, with its reward and flags.
      lengths: the length of each finished episode.
      step_seconds: the seconds of each step, of the clock on the wall.
      step_work: the seconds in which this thread computed during each step.
      waits: how often the thread waited for something else in the rollout, if that is known.
      reset_seconds: the seconds of each reset.
    """

    digests: list[Any]
    lengths: list[int]
    step_seconds: list[float]
    step_work: list[float]
    waits: float
    reset_seconds: list[float]


def _make_by(factory: Callable[[], Any]) -> Any:
    """Return an environment that a user's function has made, as a Gymnasium environment."""
    return _as_gymnasium(adapt(factory()))


def examine(env: EnvLike, steps: int, seed: int) -> Report:
    """Return what was found about an environment.

    Args:
      env: what agents accept as an environment. An environment that is given as an object is reset
        and stepped, and stays open.
      steps: number of steps of the longest rollout.
      seed: seed of the environment and of the actions.
    """
    make: Make | None = None
    if isinstance(env, str):
        make = functools.partial(make_env, env)
    elif not isinstance(env, gym.Env | VectorEnv):
        env = adapt(env)
        if is_functional(env):
            make = functools.partial(FunctionalGymEnv, cast(Any, env))
        elif callable(env):
            make = functools.partial(_make_by, env)
        else:
            raise ConfigurationError(
                f"env is a {type(env).__name__}. Pass what agents accept: a Gymnasium id, an "
                "environment, a function that makes one, or a FunctionalEnv."
            )
    subject: Any = env if make is None else make()
    report = Report(_name(env, subject))
    try:
        if isinstance(subject, VectorEnv):
            _examine_vector(subject, report, steps, seed)
        else:
            _examine_single(subject, make or _maker(subject), report, steps, seed)
    finally:
        if make is not None:
            _close(subject)
    return report


def _as_gymnasium(env: Any) -> Any:
    is_vector = isinstance(env, VectorEnv)
    return FunctionalGymEnv(env) if is_functional(env) and not is_vector else env


def _name(env: Any, subject: Any) -> str:
    if isinstance(env, str):
        return env
    spec = getattr(subject, "spec", None)
    return getattr(spec, "id", None) or type(getattr(subject, "unwrapped", subject)).__name__


def _maker(env: Any) -> Make | None:
    """Return a function that makes another environment like a given one, if there is a record."""
    spec = getattr(env, "spec", None)
    return None if spec is None else lambda: gym.make(copy.deepcopy(spec))


def _close(env: Any) -> None:
    with contextlib.suppress(Exception):
        env.close()


@contextlib.contextmanager
def _errors(report: Report, call: str) -> Iterator[None]:
    """Return a context in which the errors of an environment become findings."""
    try:
        yield
    except InvalidStep as error:
        report.add("error", f"{error.problem[0].upper()}{error.problem[1:]}")
    except (ConfigurationError, EnvError) as error:
        report.add("error", str(error))
    except Exception as error:
        report.add("error", f"{call} raised {describe(error)}.", "Correct the environment.")


# one environment


def _examine_single(env: Any, make: Make | None, report: Report, steps: int, seed: int) -> None:
    if not isinstance(env, gym.Env):
        report.add(
            "error",
            f"It is of type {type(env).__name__}.",
            "Inherit from gymnasium.Env.",
        )
        return
    _check_spaces(env, report)
    if not report.errors:
        _check_reset(env, report, seed)
    if report.errors:
        return
    with _errors(report, "step"):
        rollout = _play(env, seed, steps, report)
        _check_episodes(env, rollout, report)
        _check_time(env, rollout, report)
        # In slow environments, the other rollouts are shorter, too.
        short = min(SHORT, len(rollout.step_seconds) // 3 + 1)
        _check_repetition(env, make, report, seed, short)
        _check_after_the_end(env, report, seed, short)


def _check_spaces(env: gym.Env, report: Report) -> None:
    """Check that agents know the spaces, and that they are as agents need them."""
    for name in ("observation_space", "action_space"):
        if not isinstance(getattr(env, name, None), gym.Space):
            report.add("error", f"It has no {name}.", "Set it to a space of gymnasium.spaces.")
            return
    report.action_space = spaces.plain(env.action_space)
    with _errors(report, "observation_space"):
        spaces.check_observation_space(spaces.plain(env.observation_space))
    for part in _boxes(env.observation_space):
        _check_image(part, report)
    action_space = env.action_space
    if isinstance(action_space, gym.spaces.Box):
        if not (np.isfinite(action_space.low).all() and np.isfinite(action_space.high).all()):
            report.add(
                "warning",
                f"The action space {action_space} has no bounds, so that actions are not scaled.",
                "Give it finite bounds, between which the useful actions are.",
            )
        elif not np.array_equal(action_space.low, -action_space.high):
            report.add(
                "info",
                f"The bounds of the actions, {action_space}, are not symmetric.",
                "Nothing has to be done, since agents scale their actions to the bounds.",
            )
    if getattr(action_space, "n", None) == 1:
        report.add("warning", "There is only one action.", "Check the action space.")


def _boxes(space: gym.Space) -> list[gym.spaces.Box]:
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        return [box for _, part in spaces.parts(space) for box in _boxes(part)]
    return [space] if isinstance(space, gym.spaces.Box) else []


def _check_image(space: gym.spaces.Box, report: Report) -> None:
    """Check whether a Box looks like an image to a person, but not to an agent."""
    shape = space.shape
    large = sum(size >= 16 for size in shape) == 2 and len(shape) in (2, 3)
    if large and space.dtype != np.uint8:
        report.add(
            "warning",
            f"Observations of shape {shape} look like images, but they are {space.dtype}, which "
            "takes 4 to 8 times the memory of bytes in the replay buffer.",
            "Return bytes: Box(0, 255, shape, np.uint8). If they are images, also see the "
            "hyperparameter images.",
        )


def _check_reset(env: gym.Env, report: Report, seed: int) -> None:
    """Check that `reset` has the arguments and the results of Gymnasium."""
    try:
        result = env.reset(seed=seed)
    except TypeError as error:
        if "seed" in str(error):
            report.add(
                "error",
                "reset does not accept a seed.",
                "Write reset(self, *, seed=None, options=None), and begin it with "
                "super().reset(seed=seed).",
            )
            return
        report.add("error", f"reset raised {describe(error)}.", "Correct the environment.")
        return
    except Exception as error:
        report.add("error", f"reset raised {describe(error)}.", "Correct the environment.")
        return
    with _errors(report, "reset"):
        obs, _ = checking.unpack_reset(result)
        checking.make_check(spaces.plain(env.observation_space))(obs)
        _check_observation(env.observation_space, obs, report)


def _check_observation(space: gym.Space, obs: Any, report: Report) -> None:
    """Check that a valid observation is also what the space promises."""
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        for key, part in spaces.parts(space):
            _check_observation(part, obs[key], report)
        return
    if not isinstance(space, gym.spaces.Box):
        return
    if not isinstance(obs, np.ndarray | np.generic | jax.Array):
        report.add(
            "warning",
            f"An observation is of type {type(obs).__name__}, which takes long to convert.",
            f"Return a NumPy array of {space.dtype}.",
        )
        return
    if obs.dtype != space.dtype:
        report.add(
            "warning",
            f"An observation is {obs.dtype}, but the space promises {space.dtype}. It is converted "
            "at each step.",
            f"Return {space.dtype}, or change the observation space.",
        )
    array = np.asarray(obs)
    outside = (array < space.low) | (array > space.high)
    if outside.any():
        report.add(
            "warning",
            f"An observation holds numbers outside of the bounds of {space}, which agents may use "
            "to scale observations.",
            "Correct the bounds of the observation space.",
        )


class _Watch:
    """Looks for arrays that an environment returns and changes later."""

    def __init__(self) -> None:
        self._last: list[tuple[Any, np.ndarray]] = []
        self.reused = False

    def see(self, obs: Any) -> None:
        """Compare the last observation with what it was, and remember this one."""
        self.reused |= any(not np.array_equal(x, was) for x, was in self._last if x.dtype != object)
        arrays = [x for x in jax.tree.leaves(obs) if isinstance(x, np.ndarray)]
        self._last = [(x, x.copy()) for x in arrays]


def _play(env: gym.Env, seed: int, steps: int, report: Report | None = None) -> Rollout:
    """Take random actions, and check everything that the environment returns if there is a report.

    Raises:
      InvalidStep: if the environment returns what cannot be stored.
    """
    actions, watch = copy.deepcopy(env.action_space), _Watch()
    actions.seed(seed)
    check = checking.make_check(spaces.plain(env.observation_space))
    rollout, length = Rollout([], [], [], [], 0.0, []), 0
    began, waits = time.perf_counter(), _waits()
    obs, _ = checking.unpack_reset(env.reset(seed=seed))
    for _ in range(steps):
        before, work = time.perf_counter(), time.thread_time()
        result = env.step(_sample(actions, obs))
        rollout.step_work.append(time.thread_time() - work)
        rollout.step_seconds.append(time.perf_counter() - before)
        length += 1
        if report is not None:
            _check_types(result, report)
            watch.see(result[0])
            _check_observation(env.observation_space, result[0], report)
        obs, reward, terminated, truncated, _ = checking.read_step(result, check)
        rollout.digests.append((_digest(obs), reward, terminated, truncated))
        if terminated or truncated:
            rollout.lengths.append(length)
            length, before = 0, time.perf_counter()
            obs, _ = checking.unpack_reset(env.reset())
            rollout.reset_seconds.append(time.perf_counter() - before)
            rollout.digests.append(_digest(obs))
        if report is not None and time.perf_counter() - began > SECONDS:
            break
    if report is not None and watch.reused:
        report.add(
            "info",
            "step returns the same array each time, and changes it later. Agents copy it, but "
            "vector environments in SAME_STEP mode do not.",
            "Return a copy if you use such a vector environment or keep observations yourself.",
        )
    return rollout._replace(waits=_waits() - waits)


def _waits() -> float:
    """Return how often this thread has waited for something else.

    On a busy machine, a thread takes longer without waiting, so that its times are not enough.
    Where the number is not known, it grows with each call.
    """
    if resource is None or not hasattr(resource, "RUSAGE_THREAD"):
        return time.perf_counter() * 1e9
    return float(resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw)


def _sample(space: gym.Space, obs: Any) -> Any:
    """Draw an action, among the legal ones if the observation says which are."""
    mask = obs.get("action_mask") if isinstance(obs, dict) else None
    if mask is None or not isinstance(space, gym.spaces.Discrete):
        return space.sample()
    return space.sample(mask=np.asarray(mask, np.int8))


def _digest(obs: Any) -> int:
    leaves = [np.ascontiguousarray(x) for x in jax.tree.leaves(obs)]
    return zlib.crc32(b"".join(x.tobytes() for x in leaves))


def _check_types(result: Any, report: Report) -> None:
    """Check the types of the five values of `step`, where agents accept more than Gymnasium."""
    _, reward, terminated, truncated, info = checking.unpack_step(result)
    if isinstance(reward, np.ndarray):
        report.add("warning", f"The reward is an array of shape {reward.shape}.", "Return a float.")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool | np.bool_):
            report.add(
                "warning", f"{name} is of type {type(flag).__name__}.", "Return True or False."
            )
    if not isinstance(info, dict):
        report.add("error", f"info is of type {type(info).__name__}.", "Return a dict.")


def _check_episodes(env: gym.Env, rollout: Rollout, report: Report) -> None:
    limit = getattr(getattr(env, "spec", None), "max_episode_steps", None)
    if not rollout.lengths and limit is None:
        report.add(
            "warning",
            f"No episode ended within {len(rollout.step_seconds):,} steps of random actions. "
            "Returns are logged at the ends of episodes.",
            "If episodes never end by themselves, use gymnasium.wrappers.TimeLimit.",
        )


def _check_time(env: gym.Env, rollout: Rollout, report: Report) -> None:
    """Say how long a step takes, and which runner fits."""
    if find_functional(env) is not None:
        report.runner = "device"
        report.add(
            "info",
            "It is written in JAX, so that it is compiled together with the agent.",
            'Use runner="auto" or "device".',
        )
        return
    seconds = float(np.median(rollout.step_seconds))
    work = float(np.median(rollout.step_work))
    waits = rollout.waits > 0.5 * len(rollout.step_seconds)
    if waits and seconds - work > max(THREADS_FROM, work):
        report.runner, why = "threads", "it waits for something else most of the time"
    elif work > RAY_FROM:
        report.runner, why = "ray", "it computes for long"
    else:
        report.runner, why = "host", "it is fast"
    resets = rollout.reset_seconds
    reset = f", and a reset {_time(float(np.median(resets)))}" if resets else ""
    report.add(
        "info",
        f"A step takes {_time(seconds)}{reset}; {why}.",
        f'The runner that fits is runner="{report.runner}".',
    )


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


def _check_repetition(
    env: gym.Env, make: Make | None, report: Report, seed: int, steps: int
) -> None:
    """Check whether a seed and actions determine an episode, also in a fresh environment."""
    obstacle = find_obstacle(env)
    if obstacle is not None:
        report.add("warning", obstacle)
        return
    used = _play(env, seed, steps).digests
    fresh = []
    for _ in range(2 if make is not None else 0):
        assert make is not None
        with contextlib.suppress(Exception):
            another = make()
            fresh.append(_play(another, seed, steps).digests)
            _close(another)
    advice = "Draw all random numbers from self.np_random, which reset(seed=seed) seeds."
    if len(fresh) == 2 and fresh[0] != fresh[1]:
        report.add(
            "warning",
            "Two new environments with the same seed and the same actions differ, so that runs "
            "cannot be repeated or resumed exactly.",
            advice,
        )
    elif len(fresh) == 2 and used != fresh[0]:
        report.add(
            "warning",
            "An episode in a used environment differs from the same episode in a new one, so that "
            "runs cannot be resumed exactly.",
            "Let reset set everything that step changes.",
        )
    elif used != _play(env, seed, steps).digests:
        report.add(
            "warning",
            "Two episodes with the same seed and the same actions differ, so that runs cannot be "
            "repeated or resumed exactly.",
            f"{advice} Let reset set everything that step changes.",
        )
    else:
        report.add(
            "info", "The same seed and actions lead to the same episode, so runs resume exactly."
        )


def _check_after_the_end(env: gym.Env, report: Report, seed: int, steps: int) -> None:
    """Take a step after the end of an episode, which agents never do."""
    actions = copy.deepcopy(env.action_space)
    actions.seed(seed)
    obs, _ = env.reset(seed=seed)
    for _ in range(steps):
        obs, _, terminated, truncated, _ = env.step(_sample(actions, obs))
        if terminated or truncated:
            break
    else:
        return
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium warns of such a step
        result = env.step(_sample(actions, obs))
        if not (result[2] or result[3]):
            report.add(
                "info",
                "step works after the end of an episode, as if the episode went on.",
                "Agents reset at once, but a loop of your own would not notice the end.",
            )


# vector environments


def _examine_vector(env: VectorEnv, report: Report, steps: int, seed: int) -> None:
    mode = (getattr(env, "metadata", None) or {}).get("autoreset_mode")
    with _errors(report, "step"):
        envs = VectorEnvs(env)
        report.action_space = envs.spec.action_space
        actions = copy.deepcopy(env.action_space)
        actions.seed(seed)
        began = time.perf_counter()
        envs.reset(seed)
        ended, taken, seconds = 0, 0, []
        while taken < steps and time.perf_counter() - began < SECONDS:
            before = time.perf_counter()
            step = envs.step(np.asarray(actions.sample()))
            seconds.append((time.perf_counter() - before) / env.num_envs)
            taken += env.num_envs
            ended += int(step.last.sum())
        _check_vector_episodes(env, mode, ended, taken, report)
        if isinstance(env, FunctionalVectorEnv):
            report.runner = "device"
        text = f"A step takes {_time(float(np.median(seconds)))} for each environment."
        report.add("info", text, f'The runner that fits is runner="{report.runner}".')
        obstacle = find_vector_obstacle(env)
        report.add("info", obstacle or "Runs resume exactly if its environments are deterministic.")


def _check_vector_episodes(
    env: VectorEnv, mode: Any, ended: int, taken: int, report: Report
) -> None:
    same_step = mode == AutoresetMode.SAME_STEP
    if not ended:
        unseen = ", and whether info has final_obs was not seen" if same_step else ""
        report.add(
            "warning",
            f"No episode ended within {taken:,} steps of random actions{unseen}.",
            "If episodes never end by themselves, use gymnasium.wrappers.TimeLimit.",
        )
    if same_step and isinstance(env.unwrapped, AsyncVectorEnv):
        report.add(
            "info",
            "In SAME_STEP mode with worker processes, it cannot be seen whether an environment "
            "overwrites the last observation of an episode.",
            "Return copies from step and reset, or use AutoresetMode.DISABLED or NEXT_STEP.",
        )
