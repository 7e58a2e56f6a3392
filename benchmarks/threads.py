"""How well do actor threads share the work? IMPALA on an environment that takes 2 ms a step, with one environment for each actor.

    python benchmarks/threads.py

Prints steps per second with 1, 2 and 4 actors, measured by turns in one process and without compilation, and their part of so many times
the steps of one actor. The last line is the in-process runner, whose acting and learning take turns.
"""

import argparse
import statistics
import time

import gymnasium as gym
import numpy as np

import agentzoo


class Waiting(gym.Env):
    """CartPole on a clock: a step takes as long as one says."""

    seconds = 0.002

    def __init__(self):
        self.env = gym.make("CartPole-v1")
        self.observation_space, self.action_space = self.env.observation_space, self.env.action_space

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        return self.env.reset(seed=seed)

    def step(self, action: int) -> tuple:
        time.sleep(self.seconds)
        return self.env.step(action)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement, about")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    settings = {f"{n} actor(s)": {"n_envs": n, "runner": "threads", "n_actors": n} for n in arguments.actors}
    settings["in turns"] = {"runner": "host"}
    agents = {name: agentzoo.IMPALA(Waiting, **options).learn(256, progress_bar=False) for name, options in settings.items()}
    speeds: dict[str, list[float]] = {name: [] for name in settings}
    for _ in range(arguments.repeats):
        for name, agent in agents.items():
            steps = int(arguments.seconds / 0.0022 * agent.n_envs)
            start = time.perf_counter()
            agent.learn(steps, progress_bar=False)
            speeds[name].append(agent.num_timesteps / (time.perf_counter() - start))
    first = f"{arguments.actors[0]} actor(s)"
    one = statistics.median(speeds[first]) / arguments.actors[0]
    for name, values in speeds.items():
        speed, n = statistics.median(values), settings[name].get("n_actors", 1)
        each = " ".join(f"{value:.0f}" for value in values)
        print(f"{name:11} {speed:6.0f} steps/s ({each}), {speed / (n * one):.0%} of {n} times the first")


if __name__ == "__main__":
    main()
