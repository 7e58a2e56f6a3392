"""Compare the training time with Stable-Baselines3, sb3-contrib and SBX.

The script times whole calls of `learn`, including compilation, with the same hyperparameters. Make
a virtual environment for the other libraries, and pass its interpreter:

    python -m venv peers && peers/bin/pip install sbx-rl sb3-contrib
    python benchmarks/speed.py --peers peers/bin/python

To compare with another version of agentzoo, pass a folder with a checkout of it:

    git worktree add ../before v0.1.0
    python benchmarks/speed.py --before ../before

Every run is a process of its own. The libraries take turns, and the script prints the ratios of
medians. Nothing else should run meanwhile. The script also prints a floor: the time to step the
environment alone, or the time of the gradient steps alone, whichever is longer.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

TUNED = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
}
FREQUENT = {
    "learning_rate": 1e-4,
    "batch_size": 32,
    "buffer_size": 1_000_000,
    "learning_starts": 100,
    "gamma": 0.99,
    "target_update_interval": 10_000,
    "train_freq": 4,
    "gradient_steps": 1,
    "exploration_fraction": 0.1,
    "exploration_final_eps": 0.05,
}
CONTINUOUS = {
    "learning_rate": 1e-3,
    "batch_size": 256,
    "buffer_size": 1_000_000,
    "learning_starts": 100,
    "gamma": 0.99,
    "tau": 0.005,
    "train_freq": 1,
    "gradient_steps": 1,
}
PPO_TUNED = {
    "learning_rate": 1e-3,
    "clip_range": 0.2,
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 20,
    "gamma": 0.98,
    "gae_lambda": 0.8,
}
PPO_ENVS = 8
QUANTILES = 10
# Hyperparameters that the other libraries lack, or that have another default there.
OURS = {
    "DQN": {"double_q": False, "n_steps": 1},
    "QRDQN": {"double_q": False, "n_steps": 1, "n_quantiles": QUANTILES},
    "PPO": {"n_envs": PPO_ENVS},
    "SAC": {},
}
# name: (algorithm, environment, steps, hyperparameters, hidden layers, peers)
TASKS = {
    "tuned": ("DQN", "CartPole-v1", 50_000, TUNED, [256, 256], ["sbx", "sb3"]),
    "train_freq 4, SBX's network": ("DQN", "CartPole-v1", 50_000, FREQUENT, [256, 256], ["sbx"]),
    "train_freq 4, SB3's network": ("DQN", "CartPole-v1", 50_000, FREQUENT, [64, 64], ["sb3"]),
    "QR-DQN tuned, 10 quantiles": ("QRDQN", "CartPole-v1", 50_000, TUNED, [256, 256], ["sb3"]),
    "PPO tuned, 8 environments": (
        "PPO",
        "CartPole-v1",
        100_000,
        PPO_TUNED,
        [64, 64],
        ["sbx", "sb3"],
    ),
    "SAC Pendulum": ("SAC", "Pendulum-v1", 10_000, CONTINUOUS, [256, 256], ["sbx", "sb3"]),
    "SAC HalfCheetah": ("SAC", "HalfCheetah-v5", 10_000, CONTINUOUS, [256, 256], ["sbx", "sb3"]),
}


def learn(
    library: str, algorithm: str, env: str, hyperparameters: dict, net_arch: list[int], steps: int
) -> float:
    """Return the seconds that `learn` takes."""
    if library in ("ours", "before"):
        from agentzoo.algos.loading import find

        agent = find(algorithm)(env, net_arch=net_arch, **OURS[algorithm], **hyperparameters)
        start = time.perf_counter()
        agent.learn(steps, progress_bar=False)
    else:
        policy: dict = {"net_arch": net_arch}
        if algorithm == "QRDQN":
            from sb3_contrib import QRDQN as Peer

            policy["n_quantiles"] = QUANTILES
        else:
            Peer = getattr(
                importlib.import_module("stable_baselines3" if library == "sb3" else "sbx"),
                algorithm,
            )
        made: Any = env
        if algorithm == "PPO":
            from stable_baselines3.common.env_util import make_vec_env

            made = make_vec_env(env, PPO_ENVS)
        agent = Peer("MlpPolicy", made, policy_kwargs=policy, seed=0, **hyperparameters)
        start = time.perf_counter()
        agent.learn(steps)
    return time.perf_counter() - start


def floor(
    algorithm: str, env_id: str, hyperparameters: dict, net_arch: list[int], steps: int
) -> dict[str, float]:
    """Return the seconds to step the environment alone, and those of the gradient steps alone.

    The gradient steps run in one compiled loop.
    """
    import gymnasium as gym
    import jax
    import numpy as np

    from agentzoo.algos.loading import find
    from agentzoo.types import Clock, EnvSpec, Trajectory

    env = gym.make(env_id)
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(100)]
    start = time.perf_counter()
    for i in range(steps):
        _, _, terminated, truncated, _ = env.step(actions[i % 100])
        if terminated or truncated:
            env.reset()
    env_seconds = time.perf_counter() - start

    own = dict(OURS[algorithm])
    num_envs = own.pop("n_envs", 1)
    if algorithm == "PPO":
        cycles, settings = steps // (num_envs * hyperparameters["n_steps"]), hyperparameters
    else:  # cycles of 500 gradient steps
        cycles = (
            (steps - hyperparameters["learning_starts"])
            // hyperparameters["train_freq"]
            * hyperparameters["gradient_steps"]
            / 500
        )
        settings = {**hyperparameters, "gradient_steps": 500}
    kind = find(algorithm)
    config = kind.Config(**settings, net_arch=tuple(net_arch), **own)
    agent = kind.make_agent(config, EnvSpec(env.observation_space, env.action_space, num_envs))
    shape, rng = (agent.unroll_length, num_envs), np.random.default_rng(0)
    obs = rng.normal(size=(2, *shape, *env.observation_space.shape)).astype(np.float32)
    action = np.asarray(actions[0], jax.dtypes.canonicalize_dtype(env.action_space.dtype))
    action = np.broadcast_to(action, (*shape, *env.action_space.shape))
    ones, zeros = np.ones(shape, np.float32), np.zeros(shape, bool)
    extras = {"log_prob_tm1": -ones} if algorithm == "PPO" else ()
    trajectory = Trajectory(obs[0], action, ones, ones, obs[1], zeros, zeros, ~zeros, extras)
    learn_cycle = jax.jit(agent.learn, donate_argnums=0)
    state = jax.jit(agent.init)(jax.random.key(0))
    clock = Clock(*np.array([5_000, agent.unroll_length, steps], np.int32))
    state, _ = learn_cycle(state, trajectory, clock)
    jax.block_until_ready(state)
    start = time.perf_counter()
    for _ in range(10):
        state, _ = learn_cycle(state, trajectory, clock)
    jax.block_until_ready(state)
    return {"environment": env_seconds, "updates": (time.perf_counter() - start) / 10 * cycles}


def in_process_of_its_own(python: str, *arguments: object, checkout: Path = ROOT) -> dict:
    command = [python, __file__, "--one", json.dumps(arguments)]
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", help="Python interpreter with Stable-Baselines3 and SBX")
    parser.add_argument("--before", type=Path, help="folder with another version of agentzoo")
    parser.add_argument(
        "--tasks",
        nargs="*",
        default=list(TASKS),
        choices=TASKS,
        metavar="TASK",
        help=f"some of: {', '.join(TASKS)}",
    )
    parser.add_argument("--steps", type=float, help="environment steps, instead of each task's own")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, *rest = json.loads(arguments.one)
        print(json.dumps(floor(*rest) if kind == "floor" else {"seconds": learn(kind, *rest)}))
        return
    if not arguments.peers and not arguments.before:
        parser.error("Neither --peers nor --before is given. Pass one of them; see --help.")
    for name in arguments.tasks:
        algorithm, env, steps, hyperparameters, net_arch, peers = TASKS[name]
        settings = algorithm, env, hyperparameters, net_arch, int(arguments.steps or steps)
        others = [*(["before"] if arguments.before else []), *(peers if arguments.peers else [])]
        seconds: dict[str, list[float]] = {library: [] for library in ("ours", *others)}
        for _ in range(arguments.repeats):
            for library, times in seconds.items():
                python = arguments.peers if library in peers else sys.executable
                checkout = arguments.before.resolve() if library == "before" else ROOT
                done = in_process_of_its_own(python, library, *settings, checkout=checkout)
                times.append(done["seconds"])
        medians = {library: statistics.median(times) for library, times in seconds.items()}
        floors = in_process_of_its_own(sys.executable, "floor", *settings)
        for library, median in medians.items():
            times = " ".join(f"{t:.1f}" for t in seconds[library])
            print(
                f"{name:28} {library:5} {median:6.1f} s ({times}), "
                f"{median / medians['ours']:.2f} times ours",
                flush=True,
            )
        ratio = medians["ours"] / max(floors.values())
        print(
            f"{name:28} floor: environment {floors['environment']:.1f} s, "
            f"updates {floors['updates']:.1f} s; ours is {ratio:.2f} times the floor"
        )


if __name__ == "__main__":
    main()
