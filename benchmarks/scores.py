"""Compare the scores of SAC and MPO in MuJoCo environments with those of SAC in SBX.

    python -m venv peers && peers/bin/pip install sbx-rl 'gymnasium[mujoco]'
    python benchmarks/scores.py scores.jsonl --peers peers/bin/python
    python benchmarks/scores.py scores.jsonl --peers peers/bin/python --envs Hopper-v5

Every run is a process of its own. It adds a line to the file: the mean raw score of 20 fresh
episodes with the deterministic policy. Runs that are in the file already are not repeated, so the
table can be made in parts, or by several processes. SAC of both libraries has the same
hyperparameters, and MPO has its default hyperparameters.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ENVS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")
WAYS = ("SAC", "SBX", "MPO")
HYPERPARAMETERS = {
    "learning_rate": 3e-4,
    "batch_size": 256,
    "buffer_size": 1_000_000,
    "learning_starts": 10_000,
    "gamma": 0.99,
    "tau": 0.005,
    "train_freq": 1,
    "gradient_steps": 1,
}
EPISODES = 20


def learn(way: str, env: str, steps: int, seed: int) -> dict:
    """Train and evaluate an agent: "SAC", "MPO", or "SBX" for SAC of SBX."""
    start, evaluation_seed = time.perf_counter(), 1_000_000 + 1_000 * seed
    if way == "SBX":
        import gymnasium as gym
        from sbx import SAC as Peer
        from stable_baselines3.common.evaluation import evaluate_policy
        from stable_baselines3.common.monitor import Monitor

        peer = Peer(
            "MlpPolicy", env, seed=seed, policy_kwargs={"net_arch": [256, 256]}, **HYPERPARAMETERS
        ).learn(steps)
        seconds = time.perf_counter() - start
        fresh = Monitor(gym.make(env))
        fresh.reset(seed=evaluation_seed)
        mean, std = evaluate_policy(peer, fresh, EPISODES)
    else:
        import agentzoo
        from agentzoo.algos.loading import find

        agent = find(way)(env, seed=seed, **(HYPERPARAMETERS if way == "SAC" else {})).learn(
            steps, progress_bar=False
        )
        seconds = time.perf_counter() - start
        mean, std = agentzoo.evaluate_policy(agent, env, EPISODES, seed=evaluation_seed)
    return {
        "env": env,
        "way": way,
        "steps": steps,
        "seed": seed,
        "mean": round(float(mean), 1),
        "std": round(float(std), 1),
        "seconds": round(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="the file to which lines of JSON are added")
    parser.add_argument("--peers", help="Python interpreter with SBX; without it, SBX is left out")
    parser.add_argument("--envs", nargs="*", default=ENVS)
    parser.add_argument("--ways", nargs="*", default=WAYS)
    parser.add_argument("--steps", type=float, default=1e5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(learn(*json.loads(arguments.one))))
        return
    ways = {way: arguments.peers if way == "SBX" else sys.executable for way in arguments.ways}
    ways = {way: python for way, python in ways.items() if python}

    def results() -> list[dict]:
        lines = arguments.file.read_text().splitlines() if arguments.file.exists() else []
        return [
            result for result in map(json.loads, lines) if result["steps"] == int(arguments.steps)
        ]

    for seed in range(arguments.seeds):
        for env in arguments.envs:
            for way, python in ways.items():
                if any((r["env"], r["way"], r["seed"]) == (env, way, seed) for r in results()):
                    continue
                settings = json.dumps([way, env, int(arguments.steps), seed])
                command = [python, __file__, str(arguments.file), "--one", settings]
                line = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, text=True
                ).stdout.splitlines()[-1]
                print(line, flush=True)
                with arguments.file.open("a") as file:
                    file.write(line + "\n")
    for env in arguments.envs:
        for way in ways:
            means = [r["mean"] for r in results() if (r["env"], r["way"]) == (env, way)]
            each = " ".join(f"{mean:.0f}" for mean in means)
            summary = f"{np.mean(means):7.0f} +- {np.std(means):.0f}"
            print(f"{env:16} {way}: {summary} over {len(means)} seeds ({each})")


if __name__ == "__main__":
    main()
