"""Environments with known action values, as Andy Jones recommends for debugging."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from agentzoo.envs import make_trajectory


def take_actions(envs, actions, seed=0):
    """Reset environments, take actions `[T, N, ...]`, and return the trajectory `[T, N, ...]`."""
    actions = [np.asarray(action) for action in actions]
    obs = envs.reset(seed)
    steps = [envs.step(action) for action in actions]
    return make_trajectory(obs, np.ones(envs.spec.num_envs, bool), actions, steps)


class Probe(gym.Env):
    """Episodes of `length` steps. Subclasses define observations, rewards, and the kind of end."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)
    length = 1
    truncates = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.cue = float(self.np_random.choice([-1.0, 1.0]))
        return self.observe(), {}

    def observe(self):
        return np.array([0.0], np.float32)

    def reward(self, action):
        return 1.0

    def check(self, action):
        assert self.action_space.contains(np.int64(action)), action
        return int(action)

    def step(self, action):
        action = self.check(action)
        reward = self.reward(action)
        self.t += 1
        over = self.t >= self.length
        return self.observe(), reward, over and not self.truncates, over and self.truncates, {}


class ConstantReward(Probe):
    """q = 1."""


class ObservationReward(Probe):
    """q(obs) = obs."""

    def observe(self):
        return np.array([self.cue], np.float32)

    def reward(self, action):
        return self.cue


class DelayedReward(Probe):
    """Reward 1 at the second of two steps: q(0) = gamma, q(1) = 1."""

    length = 2

    def observe(self):
        return np.array([float(self.t)], np.float32)

    def reward(self, action):
        return float(self.t == 1)


class ActionReward(Probe):
    """q(a) = 1 for a = 1, -1 for a = 0."""

    def reward(self, action):
        return 1.0 if action == 1 else -1.0


class CueReward(Probe):
    """q(obs, a) = 1 if the action fits the cue, and -1 otherwise."""

    def observe(self):
        return np.array([self.cue], np.float32)

    def reward(self, action):
        return 1.0 if (action == 1) == (self.cue > 0) else -1.0


class Truncated(Probe):
    """Reward 1 and the same observation at every step, with a time limit: q = 1 / (1 - gamma)."""

    length = 5
    truncates = True


class Continuous:
    """A mixin for probes whose actions are numbers from -1 to 3."""

    action_space = spaces.Box(-1, 3, (1,), np.float32)

    def check(self, action):
        assert self.action_space.contains(action), action
        return float(action[0])


class ContinuousConstant(Continuous, ConstantReward):
    """q = 1."""


class ContinuousDelayed(Continuous, DelayedReward):
    """Reward 1 at the second of two steps: q(0) = gamma, q(1) = 1."""


class ContinuousTruncated(Continuous, Truncated):
    """q = 1 / (1 - gamma)."""


class ContinuousAction(Continuous, Probe):
    """q(a) = -(a - 2)^2 / 4."""

    def reward(self, action):
        return -((action - 2) ** 2) / 4


class ContinuousCue(Continuous, Probe):
    """q(obs, a) = -(a - 1 - obs)^2 / 4. The best action is 2 for cue 1, and 0 for cue -1."""

    def observe(self):
        return np.array([self.cue], np.float32)

    def reward(self, action):
        return -((action - 1 - self.cue) ** 2) / 4


class Counter(gym.Env):
    """Observations (episode, t) and rewards t, in episodes of 3 steps.

    Odd episodes are truncated, and even episodes terminate.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.t = 0
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action):
        self.t += 1
        over, odd = self.t == 3, self.episode % 2 == 1
        return (
            np.array([self.episode, self.t], np.float32),
            float(self.t),
            over and not odd,
            over and odd,
            {},
        )


class Spaced(Probe):
    """Observes random elements of any space."""

    length = 4

    def __init__(self, space):
        self.observation_space = space

    def observe(self):
        return self.observation_space.sample()


class Informed(Counter):
    """A Counter with an `info`. Only the info of a reset has the entry "begun".

    Odd episodes are successes.
    """

    def reset(self, *, seed=None, options=None):
        obs, _ = super().reset(seed=seed)
        return obs, {"t": 0, "speed": -100.0, "begun": 1.0}

    def step(self, action):
        obs, reward, terminated, truncated, _ = super().step(action)
        success = (terminated or truncated) and self.episode % 2 == 1
        info = {"t": self.t, "speed": 2.0 * self.t, "is_success": success}
        info |= {"name": "probe", "thing": object()}
        return obs, reward, terminated, truncated, info
