"""Compare the speed and memory of DQN on Pong with Stable-Baselines3 and SBX.

    python -m venv peers && peers/bin/pip install sbx-rl ale-py opencv-python-headless
    python benchmarks/pong_speed.py --peers peers/bin/python

All libraries use the same hyperparameters: one environment, the network of DQN's Nature paper, and
a gradient step on 32 transitions every 4 steps. Each library makes the game itself, with the
same preprocessing. It plays `--warm-up` steps, in which it compiles. Then the script measures
`--steps` steps, or as many as the library plays in `--minutes`. Each run has its own process.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

ENV = "ALE/Pong-v5"
HYPERPARAMETERS = {
    "learning_rate": 1e-4,
    "batch_size": 32,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "gamma": 0.99,
    "train_freq": 4,
    "gradient_steps": 1,
    "target_update_interval": 1_000,
    "exploration_fraction": 0.1,
    "exploration_final_eps": 0.01,
}


def learn(library: str, warm_up: int, steps: int, minutes: float) -> dict[str, float]:
    """Train, and return what was measured after the warm-up.

    Returns:
      `speed` in environment steps per second, the number of measured `steps`, and the peak
      `memory` of the process in GB.
    """
    # Environment steps, and the time at which they were reached.
    marks: list[tuple[int, float]] = []

    def note(num_timesteps: int) -> bool:
        """Record a step, and return whether training goes on."""
        if num_timesteps < warm_up:
            return True
        marks.append((num_timesteps, time.perf_counter()))
        seconds = marks[-1][1] - marks[0][1]
        return num_timesteps < warm_up + steps and seconds < 60 * minutes

    if library == "ours":
        from agentzoo import DQN

        agent = DQN(ENV, preset="pixels", **HYPERPARAMETERS)
        agent.learn(
            warm_up + steps, callback=lambda agent: note(agent.num_timesteps), progress_bar=False
        )
    else:
        agent = make_peer(library)
        agent.learn(warm_up + steps, callback=lambda locals_, globals_: note(agent.num_timesteps))
    (first, start), (last, end) = marks[0], marks[-1]
    return {
        "speed": (last - first) / (end - start),
        "steps": last - first,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def make_peer(library: str):
    """Make the DQN of Stable-Baselines3 ("sb3") or SBX ("sbx")."""
    import ale_py
    import gymnasium as gym
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    if library == "sb3":
        from stable_baselines3 import DQN as Peer
    else:
        from sbx import DQN as Peer
    gym.register_envs(ale_py)
    wrappers = {"terminal_on_life_loss": False}
    env = make_atari_env(ENV, wrapper_kwargs=wrappers, env_kwargs={"frameskip": 1})
    return Peer("CnnPolicy", VecFrameStack(env, 4), seed=0, **HYPERPARAMETERS)


def measure(library: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Call `learn` in its own process."""
    command = [sys.executable if library == "ours" else arguments.peers, __file__]
    command += ["--one", library, "--warm-up", str(arguments.warm_up)]
    command += ["--steps", str(arguments.steps), "--minutes", str(arguments.minutes)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", help="Python interpreter that has Stable-Baselines3 and SBX")
    parser.add_argument("--warm-up", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(
            json.dumps(learn(arguments.one, arguments.warm_up, arguments.steps, arguments.minutes))
        )
        return
    if not arguments.peers:
        parser.error("--peers is needed; see --help")
    runs: dict[str, list[dict]] = {library: [] for library in ("ours", "sbx", "sb3")}
    for _ in range(arguments.repeats):
        for library, results in runs.items():
            results.append(measure(library, arguments))
    ours = statistics.median(result["speed"] for result in runs["ours"])
    for library, results in runs.items():
        speed = statistics.median(result["speed"] for result in results)
        steps = min(result["steps"] for result in results)
        memory = max(result["memory"] for result in results)
        print(
            f"{library:5} {speed:6.1f} steps/s over {steps} steps, ours is {ours / speed:.2f} "
            f"times as fast, peak memory {memory:.2f} GB"
        )


if __name__ == "__main__":
    main()
