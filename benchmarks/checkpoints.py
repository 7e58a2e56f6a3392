"""Measure what checkpoints cost a run, as a share of its time.

    python benchmarks/checkpoints.py

Each case trains without checkpoints and with one checkpoint, in turn, for `--seconds` each. The
cost of a checkpoint is the training that it held up, in seconds: directly, because the training
thread copies what has changed, and indirectly, because a thread compares and writes it. The share
is this cost divided by the default interval of five minutes.

The cases are DQN with a million vectors in its replay buffer, DQN on Pong with 100,000 transitions
(700 MB), and PPO. The replay buffers are full before the first measurement. In five minutes, more
transitions change than between two checkpoints of this script. With `--fresh`, each checkpoint is
the first one of a new folder and writes the whole buffer, which is the most that it can cost.
"""

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from agentzoo import DQN, PPO
from agentzoo.checkpoint import CheckpointStore
from agentzoo.training.session import to_tree

INTERVAL = 300.0  # seconds between two checkpoints of a run, by default


def vectors() -> tuple[Any, int]:
    """Return DQN with room for a million vectors, and the step at which its buffer is full."""
    size = 1_000_000
    env = "agentzoo/CartPole-v0"
    return DQN(env, buffer_size=size, learning_starts=size, train_freq=4, gradient_steps=1), size


def pong() -> tuple[Any, int]:
    """Return DQN on Pong, and the step at which its buffer is full."""
    size = 100_000
    return DQN("ALE/Pong-v5", preset="pixels", buffer_size=size, learning_starts=size), size


def ppo() -> tuple[Any, int]:
    """Return PPO, which has no replay buffer."""
    return PPO("CartPole-v1", n_envs=8, n_steps=128), 0


CASES = {"vectors": vectors, "pong": pong, "ppo": ppo}


class Measure:
    """A callback that divides the training into intervals, and writes a checkpoint in every other.

    Args:
      folder: where the checkpoints are written.
      repeats: the number of intervals of each kind.
      seconds: the length of an interval.
      fresh: whether each checkpoint holds everything.

    Attributes:
      speeds: environment steps per second in each interval, without and with a checkpoint.
      held: seconds for which each checkpoint held up the training thread.
    """

    def __init__(self, folder: Path, repeats: int, seconds: float, fresh: bool):
        self.speeds: dict[bool, list[float]] = {False: [], True: []}
        self.held: list[float] = []
        self._folder = folder
        self._repeats = repeats
        self._seconds = seconds
        self._fresh = fresh
        self._store = CheckpointStore(folder / "0")
        self._count = 0
        self._began = -math.inf
        self._step = 0

    def __call__(self, agent: Any) -> bool:
        """Begin the next interval if the last one is over."""
        now = time.perf_counter()
        if now - self._began < self._seconds:
            return True
        if self._count:
            speed = (agent.num_timesteps - self._step) / (now - self._began)
            self.speeds[self._count % 2 == 0].append(speed)
        self._store.wait()
        if self._count == 2 * self._repeats:
            return False
        self._count += 1
        self._began, self._step = time.perf_counter(), agent.num_timesteps
        if self._count % 2 == 0:
            self._write(agent)
        return True

    def _write(self, agent: Any) -> None:
        if self._fresh:
            self._store = CheckpointStore(self._folder / str(self._count))
        began = time.perf_counter()
        tree, manifest = to_tree(agent.session, agent.trainer.recipe.to_json())
        self._store.write(agent.num_timesteps, tree, manifest)
        self.held.append(time.perf_counter() - began)


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=sorted(CASES), default=list(CASES))
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--fresh", action="store_true", help="write everything each time")
    options = parser.parse_args()
    print("case      steps/s  with a checkpoint  held (s)  cost (s)  share of 300 s")
    for case in options.cases:
        agent, full = CASES[case]()
        if full:
            agent.learn(full, progress_bar=False)
        with tempfile.TemporaryDirectory() as folder:
            measure = Measure(Path(folder), options.repeats, options.seconds, options.fresh)
            agent.learn(1e9, measure, progress_bar=False, reset_num_timesteps=False)
        without, having = (statistics.median(measure.speeds[kind]) for kind in (False, True))
        cost = options.seconds * (1 - having / without)
        held = statistics.median(measure.held)
        share = f"{100 * max(cost, held) / INTERVAL:.2f} %"
        print(f"{case:8} {without:8.0f} {having:18.0f} {held:9.2f} {cost:9.2f}  {share:>14}")


if __name__ == "__main__":
    main()
