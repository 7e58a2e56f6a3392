"""Compare the speed of the device runner and the host runner, or of many seeds at once and in turn.

    python benchmarks/device.py                          DQN and PPO on our CartPole, both runners
    python benchmarks/device.py --tasks sac mpo          other tasks
    python benchmarks/device.py --tasks dqn --seeds 8    eight seeds in one program and in turn

The script can also compare with rejax, and for PPO with a loop like PureJaxRL's, at the same
settings. They need a virtual environment of their own:

    python -m venv peers && peers/bin/pip install rejax==0.1.3 gymnax==0.0.9
    python benchmarks/device.py --tasks dqn ppo ppo-many --peers peers/bin/python

Each measurement runs in its own process. It is the time of a whole `learn`, with compilation. The
number in brackets is a second run in the same process, without compilation. The score is the mean
return of 100 episodes after the first run, with greedy actions, or sampled actions for PPO. Run
nothing else at the same time. If other programs run, only the ratios are meaningful.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

# The settings of rl-baselines3-zoo, as in speed.py.
TUNED = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "n_steps": 1,
    "net_arch": (256, 256),
}
FREQUENT = {
    "learning_rate": 1e-4,
    "batch_size": 32,
    "buffer_size": 1_000_000,
    "learning_starts": 100,
    "target_update_interval": 10_000,
    "train_freq": 4,
    "gradient_steps": 1,
    "exploration_final_eps": 0.05,
    "net_arch": (64, 64),
    "double_q": False,
    "n_steps": 1,
}
PPO_TUNED = {
    "n_envs": 8,
    "learning_rate": 1e-3,
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 20,
    "gamma": 0.98,
    "gae_lambda": 0.8,
}
# name: (algorithm, environment, steps, hyperparameters)
TASKS = {
    "dqn": ("DQN", "agentzoo/CartPole-v0", 50_000, TUNED),
    "dqn-frequent": ("DQN", "agentzoo/CartPole-v0", 50_000, FREQUENT),
    "ppo": ("PPO", "agentzoo/CartPole-v0", 100_000, PPO_TUNED),
    "ppo-many": (
        "PPO",
        "agentzoo/CartPole-v0",
        1_000_000,
        {**PPO_TUNED, "n_envs": 64, "n_steps": 128, "n_epochs": 4},
    ),
    "qrdqn": ("QRDQN", "agentzoo/CartPole-v0", 50_000, {**TUNED, "n_quantiles": 10}),
    "impala": ("IMPALA", "agentzoo/CartPole-v0", 100_000, {"n_envs": 8, "n_steps": 20}),
    "sac": ("SAC", "agentzoo/Pendulum-v0", 5_000, {"learning_rate": 1e-3}),
    "mpo": ("MPO", "agentzoo/Pendulum-v0", 5_000, {"learning_rate": 1e-3, "net_arch": (128, 128)}),
}


def learn(task: str, way: str, seeds: int, steps: int) -> list[float]:
    """Train twice, and return the seconds of both runs and the score after the first run.

    Args:
      task: key of `TASKS`.
      way: "host" or "device", or with several seeds "together" or "in turn".
      seeds: number of agents.
      steps: environment steps of each agent; 0 for the task's own number.
    """
    from agentzoo import evaluate_policy, learn_together
    from agentzoo.algos.loading import find

    algorithm, env, default, hyperparameters = TASKS[task]
    runner = way if way in ("host", "device") else "device"
    agents = [
        find(algorithm)(env, seed=seed, runner=runner, **hyperparameters) for seed in range(seeds)
    ]
    seconds, scores = [], []
    for _ in range(2):
        start = time.perf_counter()
        if way == "together":
            learn_together(agents, steps or default, progress_bar=False)
        else:
            for agent in agents:
                agent.learn(steps or default, progress_bar=False)
        seconds.append(time.perf_counter() - start)
        scores.append(evaluate_policy(agents[-1], env, 100, deterministic=algorithm != "PPO")[0])
    return [*seconds, scores[0]]


def command(task: str, way: str, arguments: argparse.Namespace) -> list[str]:
    """Return the command that measures a task in its own process."""
    if way in ("rejax", "purejax"):
        algorithm, _, steps, hyperparameters = TASKS[task]
        steps = int(arguments.steps) or steps
        settings = json.dumps([way, algorithm, steps, {"gamma": 0.99, **hyperparameters}])
        return [arguments.peers, str(Path(__file__).with_name("device_peers.py")), settings]
    one = json.dumps([task, way, arguments.seeds, int(arguments.steps)])
    return [sys.executable, __file__, "--one", one]


def choose_ways(task: str, arguments: argparse.Namespace) -> list[str]:
    """Return the ways to be compared. Ratios refer to the first one."""
    if arguments.peers:
        return ["device", "rejax", "purejax"] if TASKS[task][0] == "PPO" else ["device", "rejax"]
    return ["device", "host"] if arguments.seeds == 1 else ["together", "in turn"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tasks",
        nargs="*",
        default=["dqn", "ppo"],
        choices=TASKS,
        metavar="TASK",
        help=f"any of {', '.join(TASKS)}",
    )
    parser.add_argument(
        "--steps", type=float, default=0, help="environment steps, instead of each task's own"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", help="Python interpreter with rejax and gymnax, for DQN and PPO")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(task: str, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Return the medians of both runs' seconds and of the score, for each way."""
    ways = choose_ways(task, arguments)
    measured: dict[str, list[list[float]]] = {way: [] for way in ways}
    for _ in range(arguments.repeats):
        for way in ways:
            process = subprocess.run(
                command(task, way, arguments), check=True, capture_output=True, text=True
            )
            measured[way].append(json.loads(process.stdout.splitlines()[-1]))
    # `zip` transposes the repeats, so that each column is one of the three numbers.
    return {
        way: [statistics.median(column) for column in zip(*repeats, strict=True)]
        for way, repeats in measured.items()
    }


def main() -> None:
    arguments = parse_arguments()
    if arguments.one:
        print(json.dumps(learn(*json.loads(arguments.one))))
        return
    for task in arguments.tasks:
        medians = measure(task, arguments)
        base, (base_first, base_second, _) = next(iter(medians.items()))
        for way, (first, second, score) in medians.items():
            ratios = f"{first / base_first:.2f} [{second / base_second:.2f}] times {base}"
            seconds = f"{first:7.1f} s [{second:.1f} s]"
            print(f"{task:14} {way:9} {seconds}, {ratios}, score {score:.1f}", flush=True)


if __name__ == "__main__":
    main()
