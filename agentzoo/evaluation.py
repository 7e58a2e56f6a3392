"""Evaluation of a policy over whole episodes."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np

from agentzoo.envs import EnvLike, Envs, make_envs, spaces
from agentzoo.types import ConfigurationError, EnvError


class Predictor(Protocol):
    """Anything that chooses actions as the agents of agentzoo and Stable-Baselines3 do."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Return actions for a batch of observations, and the state for the next call."""
        ...


class Episodes(NamedTuple):
    """Finished evaluation episodes, in the order in which they ended.

    Attributes:
      rewards: the sum of the rewards of each episode.
      lengths: the number of steps of each episode.
      infos: the plain entries of the `info` of each episode's last step.
    """

    rewards: list[float]
    lengths: list[int]
    infos: list[dict[str, Any]]

    def append(self, reward: float, length: int, info: dict[str, Any]) -> None:
        """Add an episode."""
        self.rewards.append(reward)
        self.lengths.append(length)
        self.infos.append(info)


def evaluate_policy(
    model: Predictor,
    env: EnvLike,
    n_eval_episodes: int = 10,
    deterministic: bool = True,
    render: bool = False,
    callback: Callable[[dict[str, Any], dict[str, Any]], None] | None = None,
    reward_threshold: float | None = None,
    return_episode_rewards: bool = False,
    *,
    seed: int | None = None,
) -> tuple[Any, Any]:
    """Return the mean and the standard deviation of a policy's return over whole episodes.

    Each of N environments contributes the same number of episodes, up to a difference of one, so
    that short episodes do not count more often than long ones.

    An agent may be evaluated in the environments in which it trains (`agent.get_env()`). The
    evaluation breaks off their episodes, and training begins new ones.

    Args:
      model: an agent, or another object with the same `predict`.
      env: an id or a function that makes an environment, of which up to 10 are stepped together, or
        an environment, a vector environment, or a function that makes a vector environment.
      n_eval_episodes: the number of episodes.
      deterministic: whether to leave out exploration.
      render: whether to call the environments' `render` after each step.
      callback: called with `locals()` and `globals()` after each step.
      reward_threshold: if the mean is not above it, raise `AssertionError`.
      return_episode_rewards: whether to return lists instead of the mean and the deviation.
      seed: seed of the environments.

    Returns:
      The mean and the standard deviation of the episodes' returns, or the list of the returns and
      the list of the lengths.

    Raises:
      ConfigurationError: if `n_eval_episodes` is not positive, if the environment cannot be made,
        or if its spaces differ from those of the agent.
    """
    envs, made_here = make_evaluation_envs(model, env, n_eval_episodes)
    try:
        episodes = run_episodes(model, envs, n_eval_episodes, deterministic, render, callback, seed)
    finally:
        if made_here:
            envs.close()
    mean, std = float(np.mean(episodes.rewards)), float(np.std(episodes.rewards))
    if reward_threshold is not None:
        message = f"Mean reward below threshold: {mean:.2f} < {reward_threshold:.2f}"
        assert mean > reward_threshold, message
    return (episodes.rewards, episodes.lengths) if return_episode_rewards else (mean, std)


def make_evaluation_envs(model: Predictor, env: EnvLike, n_eval_episodes: int) -> tuple[Envs, bool]:
    """Make the environments of an evaluation.

    Returns:
      The environments, and whether they were made here, so that the caller has to close them.

    Raises:
      ConfigurationError: as `evaluate_policy` does.
    """
    if n_eval_episodes < 1:
        raise ConfigurationError(
            f"n_eval_episodes={n_eval_episodes} is too small. Pass a number of at least 1."
        )
    made_here = not isinstance(env, gym.Env | gym.vector.VectorEnv)
    envs = make_envs(env, min(n_eval_episodes, 10) if made_here else 1, exact=False)
    # Models of other libraries have no `spec`, and convert observations in their own ways.
    spec = getattr(model, "spec", None)
    if spec is not None and not (
        spaces.are_alike(spec.observation_space, envs.spec.observation_space)
        and spaces.are_alike(spec.action_space, envs.spec.action_space, bounds=True)
    ):
        if made_here:
            envs.close()
        raise ConfigurationError(
            f"The agent was made for observations {spec.observation_space} and actions "
            f"{spec.action_space}, but the environment to evaluate in has observations "
            f"{envs.spec.observation_space} and actions {envs.spec.action_space}. Pass an "
            f"environment with the same spaces."
        )
    return envs, made_here


def run_episodes(
    model: Predictor,
    envs: Envs,
    n_eval_episodes: int,
    deterministic: bool = True,
    render: bool = False,
    callback: Callable[[dict[str, Any], dict[str, Any]], None] | None = None,
    seed: int | None = None,
) -> Episodes:
    """Run a policy for whole episodes. The arguments are those of `evaluate_policy`."""
    num_envs = envs.spec.num_envs
    # wanted [N]: the episodes of each environment. They differ by one at most, and their sum is
    # `n_eval_episodes`.
    wanted = (n_eval_episodes + np.arange(num_envs)) // num_envs
    finished = np.zeros(num_envs, int)
    episodes = Episodes([], [], [])
    # The sum of rewards and the number of steps of each running episode.
    rewards, lengths = np.zeros(num_envs), np.zeros(num_envs, int)
    with _located(finished, lengths):
        obs = envs.reset(None if seed is None else int(seed))
    state, episode_start = None, np.ones(num_envs, bool)
    while (finished < wanted).any():
        actions, state = model.predict(
            obs, state=state, episode_start=episode_start, deterministic=deterministic
        )
        with _located(finished, lengths):
            step = envs.step(np.asarray(actions, envs.spec.action_space.dtype))
        rewards += step.reward * step.mask
        lengths += step.mask
        for n in np.flatnonzero(step.last).tolist():
            if finished[n] < wanted[n]:
                episodes.append(float(rewards[n]), int(lengths[n]), step.final_infos[n])
                finished[n] += 1
            rewards[n], lengths[n] = 0.0, 0
        obs, episode_start = step.obs, step.first
        if callback is not None:
            callback(locals(), globals())
        if render:
            envs.render()
    return episodes


@contextlib.contextmanager
def _located(finished: np.ndarray, lengths: np.ndarray) -> Iterator[None]:
    """Return a context in which the error of an environment says where it happened.

    Args:
      finished: `[N]` the number of finished episodes.
      lengths: `[N]` the number of steps of the running episodes.
    """
    try:
        yield
    except EnvError as error:
        error.role, error.advice = "evaluation environment", "Correct the environment."
        if error.env is not None:
            error.episode = int(finished[error.env]) + 1
            error.episode_step = int(lengths[error.env]) + 1
        raise
