"""Evaluation in fresh episodes."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np

from agentzoo.envs import EnvLike, Envs, make_envs, spaces
from agentzoo.types import ConfigurationError


class Predictor(Protocol):
    """Anything that chooses actions as our agents and those of Stable-Baselines3 do."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Chooses actions for a batch of observations."""
        ...


class Episodes(NamedTuple):
    """Finished evaluation episodes, in the order in which they ended."""

    rewards: list[float]  # the sum of the rewards of each episode
    lengths: list[int]  # the number of steps of each episode
    infos: list[dict[str, Any]]  # plain entries of the `info` of each episode's last step


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
    """Runs a policy for whole episodes.

    Each of N environments contributes the same number of episodes, so that short episodes do not
    count more often.

    An agent may be evaluated in the environments that it trains in (`agent.get_env()`): the
    evaluation breaks off their episodes, and training begins new ones.

    Args:
      model: an agent, or anything with its `predict`.
      env: an id or a factory (of which up to 10 are stepped together), an environment, a vector
        environment, or a factory that makes one.
      n_eval_episodes: how many episodes.
      deterministic: whether to leave out exploration.
      render: call the environments' `render` after each step.
      callback: called after each step with `locals()` and `globals()`.
      reward_threshold: raise `AssertionError` if the mean falls below it.
      return_episode_rewards: return the lists instead of mean and deviation.
      seed: of the environments.

    Returns:
      Mean and standard deviation of the episodes' rewards, or their rewards and lengths.

    Raises:
      ConfigurationError: if `n_eval_episodes` is not positive, the environment cannot be made, or
        its spaces are not those of the agent.
    """
    envs, ours = make_evaluation_envs(model, env, n_eval_episodes)
    try:
        episodes = run_episodes(model, envs, n_eval_episodes, deterministic, render, callback, seed)
    finally:
        if ours:
            envs.close()
    mean, std = float(np.mean(episodes.rewards)), float(np.std(episodes.rewards))
    if reward_threshold is not None:
        message = f"Mean reward below threshold: {mean:.2f} < {reward_threshold:.2f}"
        assert mean > reward_threshold, message
    return (episodes.rewards, episodes.lengths) if return_episode_rewards else (mean, std)


def make_evaluation_envs(model: Predictor, env: EnvLike, n_eval_episodes: int) -> tuple[Envs, bool]:
    """Makes the environments of an evaluation.

    Returns:
      The environments, and whether they were made here, so that the caller has to close them.

    Raises:
      ConfigurationError: as `evaluate_policy`.
    """
    if n_eval_episodes < 1:
        raise ConfigurationError(f"n_eval_episodes={n_eval_episodes}; expected at least 1.")
    ours = not isinstance(env, gym.Env | gym.vector.VectorEnv)
    envs = make_envs(env, min(n_eval_episodes, 10) if ours else 1, exact=False)
    # Models of other libraries have none, and convert observations in their own ways.
    spec = getattr(model, "spec", None)
    if spec is not None and not (
        spaces.are_alike(spec.observation_space, envs.spec.observation_space)
        and spaces.are_alike(spec.action_space, envs.spec.action_space, bounds=True)
    ):
        if ours:
            envs.close()
        raise ConfigurationError(
            f"The agent was made for observations {spec.observation_space} and actions "
            f"{spec.action_space}, but the environment to evaluate in has observations "
            f"{envs.spec.observation_space} and actions {envs.spec.action_space}; use an "
            f"environment with the same spaces."
        )
    return envs, ours


def run_episodes(
    model: Predictor,
    envs: Envs,
    n_eval_episodes: int,
    deterministic: bool = True,
    render: bool = False,
    callback: Callable[[dict[str, Any], dict[str, Any]], None] | None = None,
    seed: int | None = None,
) -> Episodes:
    """Runs a policy for whole episodes; the arguments are those of `evaluate_policy`."""
    num_envs = envs.spec.num_envs
    wanted = (n_eval_episodes + np.arange(num_envs)) // num_envs
    rewards, lengths, done = np.zeros(num_envs), np.zeros(num_envs, int), np.zeros(num_envs, int)
    episodes = Episodes([], [], [])
    obs = envs.reset(None if seed is None else int(seed))
    state, episode_start = None, np.ones(num_envs, bool)
    while (done < wanted).any():
        actions, state = model.predict(
            obs,
            state=state,
            episode_start=episode_start,
            deterministic=deterministic,
        )
        step = envs.step(np.asarray(actions, envs.spec.action_space.dtype))
        rewards += step.reward * step.mask
        lengths += step.mask
        for n in np.flatnonzero(step.last).tolist():
            if done[n] < wanted[n]:
                episodes.rewards.append(float(rewards[n]))
                episodes.lengths.append(int(lengths[n]))
                episodes.infos.append(step.final_infos[n])
                done[n] += 1
            rewards[n], lengths[n] = 0.0, 0
        obs, episode_start = step.obs, step.first
        if callback is not None:
            callback(locals(), globals())
        if render:
            envs.render()
    return episodes
