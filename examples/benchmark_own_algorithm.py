"""Compare an algorithm and an environment of your own with those of agentzoo.

The processes of a benchmark import this file as a module, so what it does when it is run stands
below `if __name__ == "__main__"`. On the command line, the same benchmark is

    agentzoo benchmark --algos dqn,benchmark_own_algorithm:GreedyDQN \
        --envs benchmark_own_algorithm:Corridor-v0 --seeds 2 --steps 400 --final-episodes 20
"""

from pathlib import Path

import gymnasium as gym
import numpy as np

from agentzoo import DQN, lab


class GreedyDQN(DQN):
    """DQN that explores only in the first hundredth of a run."""

    def __init__(self, env, **arguments):
        super().__init__(env, **{**arguments, "exploration_fraction": 0.01})


class Corridor(gym.Env):
    """A corridor of 5 places. The agent is rewarded at its right end."""

    observation_space = gym.spaces.Box(0, 1, (5,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.time = 0, 0
        return self.observe(), {}

    def step(self, action):
        self.place = max(self.place + (1 if action == 1 else -1), 0)
        self.time += 1
        at_end = self.place == 4
        return self.observe(), float(at_end), at_end, self.time == 20, {}

    def observe(self):
        return np.eye(5, dtype=np.float32)[self.place]


if "Corridor-v0" not in gym.registry:  # this file may have been run and imported
    gym.register("Corridor-v0", Corridor)


def main():
    here = Path(__file__).stem
    results = lab.benchmark(
        ["dqn", f"{here}:GreedyDQN"],
        [f"{here}:Corridor-v0"],
        seeds=2,
        steps=400,
        hyperparameters={"learning_starts": 50},
        evaluations=4,
        final_episodes=20,
        jobs=2,
        out="own_results",
    )
    for run in results.runs:
        print(f"{run.label}, seed {run.seed}: {np.mean(run.final.returns):.2f}")


if __name__ == "__main__":
    main()
