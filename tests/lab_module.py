"""An algorithm and environments of a user, for the processes that tests of benchmarks start."""

import os
import sys
import time

import gymnasium as gym
import numpy as np

from agentzoo import DQN


class MyDQN(DQN):
    """An algorithm of a user."""


class Failing(DQN):
    """An algorithm that cannot be made."""

    def __init__(self, *_, **__):
        raise RuntimeError("It needs\nmore than this.")


class Leaving(DQN):
    """An algorithm that ends its process."""

    def __init__(self, *_, **__):
        sys.exit(7)


class Line(gym.Env):
    """An environment in which the right action is always 1. Episodes are `length` steps long."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length=5):
        self.t, self.length = 0, length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, action):
        self.t += 1
        self._happen()
        return self._obs(), float(action), self.t == self.length, False, {}

    def _obs(self):
        return self.np_random.uniform(-1, 1, (1,)).astype(np.float32)

    def _happen(self):
        """Do nothing in this environment."""


class Broken(Line):
    """An environment that breaks, unless a file says that it has been repaired."""

    def _happen(self):
        if not os.path.exists("repaired"):
            raise RuntimeError("out of order")


class Deadly(Line):
    """An environment that ends its process."""

    def _happen(self):
        os.abort()


class Mortal(Line):
    """An environment that ends its process after a while."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def _happen(self):
        self.steps += 1
        if self.steps == 30:
            os.abort()


class Slow(Line):
    """An environment whose steps take a moment, so that a test can interrupt a run."""

    def _happen(self):
        time.sleep(0.002)


for _kind in (Line, Broken, Deadly, Mortal, Slow):
    gym.register(f"Lab{_kind.__name__}-v0", _kind)
