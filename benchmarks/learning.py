"""Train agents with several seeds, and compare their scores with the score of the task.

    python benchmarks/learning.py dqn-cartpole-defaults --seeds 10
    python benchmarks/learning.py dqn-acrobot --seeds 5

Tasks with tuned settings read them from the package, and say here which score is to be reached.
Each agent is evaluated in 100 fresh episodes with the deterministic policy. The script prints one
line of JSON per seed, and then a summary. `parts.py` runs a long task in parts.
"""

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

import agentzoo
from agentzoo.algos.loading import find


def cartpole_positions() -> gym.Env:
    """CartPole without velocities."""
    env = gym.make("CartPole-v1")
    space = env.observation_space
    assert isinstance(space, gym.spaces.Box)
    return gym.wrappers.TransformObservation(
        env, lambda obs: obs[[0, 2]], gym.spaces.Box(space.low[[0, 2]], space.high[[0, 2]])
    )


class Recall(gym.Env):
    """A task that needs memory: a cue decides which action is right 50 steps later.

    The first observation holds the cue. The last action of the episode is rewarded with 1 if it is
    the one that the cue names, and with -1 otherwise. Between them, observations are empty.
    """

    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)

    def observe(self) -> np.ndarray:
        return np.array([self.cue if self.t == 0 else 0, self.t == 50], np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t, self.cue = 0, self.np_random.choice([-1, 1])
        return self.observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        reward = (1.0 if (action == 1) == (self.cue == 1) else -1.0) if self.t == 51 else 0.0
        return self.observe(), reward, self.t == 51, False, {}


PPO_MEMORY = dict(
    n_envs=8,
    n_steps=128,
    batch_size=256,
    n_epochs=10,
    gae_lambda=0.95,
    learning_rate=agentzoo.Linear(1e-3),
    recurrent_size=64,
)
# Observations are normalised because velocities are small differences of positions.
PPO_POSITIONS = {**PPO_MEMORY, "normalize_obs": True, "ent_coef": 0.01}
IMPALA_RECALL = dict(
    n_envs=2, n_steps=64, ent_coef=0.01, learning_rate=agentzoo.Linear(3e-3), normalize_reward=False
)


class Task(NamedTuple):
    """What to train, and which score to reach.

    Attributes:
      algorithm: the name of the algorithm.
      env: the environment.
      steps: environment steps of the training.
      hyperparameters: those that differ from the defaults.
      goal: the score to reach.
      by: "every" if every seed has to reach the score, "mean" if the mean has to reach it, and "at
        most" if no seed may exceed it.
    """

    algorithm: str
    env: Any
    steps: int
    hyperparameters: dict[str, Any]
    goal: float
    by: str


def tuned(algorithm: str, env: str, goal: float, by: str) -> Task:
    """Return the task to reach a score with the tuned settings of the package."""
    row = agentzoo.settings.read(algorithm)[env]
    hyperparameters = {"n_envs": row.n_envs, **row.hyperparameters}
    return Task(algorithm, row.env, row.steps, hyperparameters, goal, by)


TASKS = {
    "dqn-cartpole-defaults": Task("DQN", "CartPole-v1", 100_000, {}, 475, "every"),
    "dqn-cartpole": tuned("DQN", "CartPole-v1", 475, "every"),
    "dqn-acrobot": tuned("DQN", "Acrobot-v1", -85, "mean"),
    "dqn-mountaincar": tuned("DQN", "MountainCar-v0", -115, "mean"),
    "dqn-lunarlander": tuned("DQN", "LunarLander-v3", 200, "mean"),
    "dqn-pong": tuned("DQN", "ALE/Pong-v5", 15, "mean"),
    "qrdqn-cartpole-defaults": Task("QRDQN", "CartPole-v1", 100_000, {}, 475, "every"),
    "qrdqn-cartpole": tuned("QRDQN", "CartPole-v1", 475, "every"),
    "qrdqn-acrobot": tuned("QRDQN", "Acrobot-v1", -80, "mean"),
    "qrdqn-mountaincar": tuned("QRDQN", "MountainCar-v0", -115, "mean"),
    "qrdqn-lunarlander": tuned("QRDQN", "LunarLander-v3", 200, "mean"),
    "qrdqn-pong": tuned("QRDQN", "ALE/Pong-v5", 15, "mean"),
    "impala-cartpole-defaults": tuned("IMPALA", "CartPole-v1", 475, "every"),
    "impala-acrobot": tuned("IMPALA", "Acrobot-v1", -85, "mean"),
    "impala-lunarlander": tuned("IMPALA", "LunarLander-v3", 200, "mean"),
    "impala-recall": Task(
        *("IMPALA", Recall, 500_000, {**IMPALA_RECALL, "recurrent": "lstm"}, 1, "every")
    ),
    "impala-recall-without-memory": Task("IMPALA", Recall, 500_000, IMPALA_RECALL, 0.2, "at most"),
    "ppo-cartpole-defaults": Task("PPO", "CartPole-v1", 100_000, {}, 475, "every"),
    "ppo-cartpole": tuned("PPO", "CartPole-v1", 475, "every"),
    "ppo-cartpole-positions": Task(
        *("PPO", cartpole_positions, 300_000, {**PPO_POSITIONS, "recurrent": "lstm"}, 475, "every")
    ),
    "ppo-cartpole-positions-without-memory": Task(
        *("PPO", cartpole_positions, 300_000, PPO_POSITIONS, 100, "at most")
    ),
    "ppo-recall": Task(
        "PPO",
        Recall,
        150_000,
        {**PPO_MEMORY, "recurrent": "lstm", "sequence_length": 128, "ent_coef": 0.01},
        1,
        "every",
    ),
    "ppo-recall-without-memory": Task(
        *("PPO", Recall, 150_000, {**PPO_MEMORY, "ent_coef": 0.01}, 0.2, "at most")
    ),
    "ppo-pendulum": tuned("PPO", "Pendulum-v1", -180, "mean"),
    "ppo-acrobot": tuned("PPO", "Acrobot-v1", -85, "mean"),
    "ppo-lunarlander": tuned("PPO", "LunarLander-v3", 230, "mean"),
    "ppo-halfcheetah": tuned("PPO", "HalfCheetah-v5", 1443, "mean"),
    "ppo-hopper": tuned("PPO", "Hopper-v5", 2383, "mean"),
    "sac-cartpole": tuned("SAC", "CartPole-v1", 475, "every"),
    "sac-pendulum": tuned("SAC", "Pendulum-v1", -160, "mean"),
    "sac-lunarlander": tuned("SAC", "LunarLanderContinuous-v3", 240, "mean"),
    "sac-halfcheetah": tuned("SAC", "HalfCheetah-v5", 9500, "mean"),
    "mpo-cartpole": tuned("MPO", "CartPole-v1", 475, "every"),
    "mpo-pendulum": tuned("MPO", "Pendulum-v1", -170, "mean"),
    "mpo-lunarlander": tuned("MPO", "LunarLanderContinuous-v3", 220, "mean"),
    "mpo-halfcheetah": tuned("MPO", "HalfCheetah-v5", 0, "mean"),
}


def read_changes(changes: Sequence[str]) -> dict[str, object]:
    """Return hyperparameters given as texts `NAME=VALUE`, with values in JSON."""
    values = {
        name: json.loads(value) for name, value in (change.split("=", 1) for change in changes)
    }
    return {
        name: agentzoo.Linear(*value["linear"]) if isinstance(value, dict) else value
        for name, value in values.items()
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=float, help="environment steps; default: the task's")
    parser.add_argument("--episodes", type=int, default=100, help="evaluation episodes per seed")
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="hyperparameters to change, as JSON values",
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    task = TASKS[arguments.task]
    env, steps = task.env, int(arguments.steps or task.steps)
    changes = read_changes(arguments.set)
    scores = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        start = time.perf_counter()
        agent = find(task.algorithm)(env, seed=seed, **{**task.hyperparameters, **changes})
        agent.learn(steps, progress_bar=False)
        seconds = time.perf_counter() - start
        mean, std = agentzoo.evaluate_policy(
            agent, env, arguments.episodes, seed=1_000_000 + 1_000 * seed
        )
        scores.append(mean)
        print(
            json.dumps(
                {
                    "task": arguments.task,
                    "seed": seed,
                    "mean": round(mean, 2),
                    "std": round(std, 2),
                    "seconds": round(seconds, 1),
                }
            ),
            flush=True,
        )
    reached = {
        "every": min(scores) >= task.goal,
        "mean": np.mean(scores) >= task.goal,
        "at most": max(scores) <= task.goal,
    }[task.by]
    name = env if isinstance(env, str) else env.__name__
    print(
        f"{task.algorithm} on {name}, {steps} steps, {len(scores)} seeds: "
        f"mean {np.mean(scores):.1f}, worst {min(scores):.1f}; "
        f"to reach: {task.goal} ({task.by}): {'reached' if reached else 'NOT reached'}"
    )


if __name__ == "__main__":
    main()
