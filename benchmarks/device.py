"""Measure the speed of the on-device runner and of several seeds in one program.

Compare the "device" and "host" runners on DQN and PPO in our CartPole, or on other tasks:

    python benchmarks/device.py
    python benchmarks/device.py --tasks sac mpo

Compare eight seeds in one program with the same seeds one after the other on the device:

    python benchmarks/device.py --tasks dqn --seeds 8

Compare with rejax, and for PPO with a loop in the style of PureJaxRL, at the same settings. These
libraries are installed in a virtual environment of their own:

    python -m venv peers && peers/bin/pip install rejax==0.1.3 gymnax==0.0.9
    python benchmarks/device.py --tasks dqn ppo ppo-many --peers peers/bin/python

Every figure is the time of a whole call of `learn` with compilation, in a process of its own. The
figures in brackets are those of a second run in the same process, which compiles nothing. The score
is the mean return of 100 episodes after one run, with greedy actions for DQN and sampled actions
for PPO. If other programs run at the same time, only the ratios are meaningful.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

# As tuned in rl-baselines3-zoo, and as in speed.py.
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
    """Return the seconds of two runs, and the score of the last agent after the first run.

    Args:
      task: a key of `TASKS`.
      way: a runner, or "together" or "in turn" for several seeds.
      seeds: the number of seeds.
      steps: the number of environment steps.
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
    """Measures a task in a process of its own."""
    if way in ("rejax", "purejax"):
        algorithm, _, steps, hyperparameters = TASKS[task]
        settings = [
            way,
            algorithm,
            int(arguments.steps) or steps,
            {"gamma": 0.99, **hyperparameters},
        ]
        return [
            arguments.peers,
            str(Path(__file__).with_name("device_peers.py")),
            json.dumps(settings),
        ]
    return [
        sys.executable,
        __file__,
        "--one",
        json.dumps([task, way, arguments.seeds, int(arguments.steps)]),
    ]


def choose_ways(task: str, arguments: argparse.Namespace) -> list[str]:
    """What to compare."""
    if arguments.peers:
        return ["device", "rejax", "purejax"] if TASKS[task][0] == "PPO" else ["device", "rejax"]
    return ["device", "host"] if arguments.seeds == 1 else ["together", "in turn"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tasks",
        nargs="*",
        default=["dqn", "ppo"],
        choices=TASKS,
        metavar="TASK",
        help=f"of {', '.join(TASKS)}",
    )
    parser.add_argument(
        "--steps", type=float, default=0, help="environment steps, instead of each task's own"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--peers", help="Python interpreter that has rejax and gymnax, for DQN and PPO"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(learn(*json.loads(arguments.one))))
        return
    for task in arguments.tasks:
        ways = choose_ways(task, arguments)
        measured: dict[str, list[list[float]]] = {way: [] for way in ways}
        for _ in range(arguments.repeats):
            for way in ways:
                output = subprocess.run(
                    command(task, way, arguments), check=True, capture_output=True, text=True
                ).stdout
                measured[way].append(json.loads(output.splitlines()[-1]))
        first, second, score = (
            {way: statistics.median(runs[i] for runs in measured[way]) for way in ways}
            for i in (0, 1, 2)
        )
        for way in ways:
            base = ways[0]
            ratios = f"{first[way] / first[base]:.2f} [{second[way] / second[base]:.2f}]"
            print(
                f"{task:14} {way:9} {first[way]:7.1f} s [{second[way]:.1f} s], "
                f"{ratios} times {base}, score {score[way]:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
