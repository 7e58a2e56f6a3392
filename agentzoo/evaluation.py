"""Evaluation in fresh episodes."""

from collections.abc import Callable
from typing import Any, Protocol

import gymnasium as gym
import jax
import numpy as np

from agentzoo.envs import EnvLike, make_buffers, make_envs
from agentzoo.types import ConfigurationError


class Predictor(Protocol):
    """Anything that chooses actions as our agents and those of Stable-Baselines3 do."""

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> tuple[Any, Any]:
        """Chooses actions for a batch of observations."""
        ...


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

    Each of N environments contributes the same number of episodes, so that short episodes do not count more often.

    Args:
      model: an agent, or anything with its `predict`.
      env: an id or a factory (of which up to 10 are stepped together), an environment, or a vector environment.
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
      ConfigurationError: if `n_eval_episodes` is not positive, or the environment cannot be made.
    """
    if n_eval_episodes < 1:
        raise ConfigurationError(f"n_eval_episodes={n_eval_episodes}; expected at least 1.")
    ours = not isinstance(env, gym.Env | gym.vector.VectorEnv)
    envs = make_envs(env, min(n_eval_episodes, 10) if ours else 1)
    num_envs = envs.spec.num_envs
    wanted = (n_eval_episodes + np.arange(num_envs)) // num_envs
    rewards, lengths, done = np.zeros(num_envs), np.zeros(num_envs, int), np.zeros(num_envs, int)
    episode_rewards, episode_lengths = [], []
    offset = getattr(envs.spec.action_space, "start", 0)
    out = make_buffers(envs.spec, 1)
    obs, state, episode_start = envs.reset(seed), None, np.ones(num_envs, bool)
    try:
        while (done < wanted).any():
            actions, state = model.predict(obs, state=state, episode_start=episode_start, deterministic=deterministic)
            envs.step(np.asarray(actions) - offset, out, 0)
            rewards += out.r_t[0] * out.mask[0]
            lengths += out.mask[0]
            for n in np.flatnonzero(out.last_t[0]):
                if done[n] < wanted[n]:
                    episode_rewards.append(float(rewards[n]))
                    episode_lengths.append(int(lengths[n]))
                    done[n] += 1
                rewards[n], lengths[n] = 0.0, 0
            obs, episode_start = jax.tree.map(lambda rows: rows[1].copy(), (out.obs_tm1, out.first_tm1))
            if callback is not None:
                callback(locals(), globals())
            if render:
                envs.render()
    finally:
        if ours:
            envs.close()
    mean, std = float(np.mean(episode_rewards)), float(np.std(episode_rewards))
    if reward_threshold is not None:
        assert mean > reward_threshold, f"Mean reward below threshold: {mean:.2f} < {reward_threshold:.2f}"
    return (episode_rewards, episode_lengths) if return_episode_rewards else (mean, std)
