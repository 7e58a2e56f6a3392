"""Measure the time from the start of Python to the first gradient steps of DQN on CartPole.

    python -m venv peers && peers/bin/pip install sbx-rl
    python benchmarks/startup.py --peers peers/bin/python

The script also measures imports. Each number is the median over several processes, and the programs
take turns. "cached" is agentzoo with the compilation cache, which an earlier process has filled.
Nothing else should run meanwhile.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

# In the 28 steps after the warm-up, all programs for learning are compiled and used.
OURS = """
import agentzoo
{cache}
agent = agentzoo.DQN("CartPole-v1", learning_starts=100, train_freq=4, gradient_steps=1)
agent.learn(128, progress_bar=False)
"""
PEER = """
from {library} import DQN
DQN("MlpPolicy", "CartPole-v1", learning_starts=100, train_freq=4, gradient_steps=1).learn(128)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peers", required=True, help="Python interpreter with Stable-Baselines3 and SBX"
    )
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        programs = {
            "import jax, gymnasium": (sys.executable, "import jax, gymnasium"),
            "import agentzoo": (sys.executable, "import agentzoo"),
            "from agentzoo import DQN": (sys.executable, "from agentzoo import DQN"),
            "DQN: ours": (sys.executable, OURS.format(cache="")),
            "DQN: ours, cached": (
                sys.executable,
                OURS.format(cache=f"agentzoo.use_compilation_cache({folder!r})"),
            ),
            "DQN: SBX": (arguments.peers, PEER.format(library="sbx")),
            "DQN: SB3": (arguments.peers, PEER.format(library="stable_baselines3")),
        }
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(
            1 + arguments.repeats
        ):  # the first repetition fills caches, and does not count
            for name, (python, code) in programs.items():
                start = time.perf_counter()
                subprocess.run(
                    [python, "-W", "ignore", "-c", code], check=True, capture_output=True
                )
                seconds[name].append(time.perf_counter() - start)
    for name, (_, *times) in seconds.items():
        span = f"{min(times):.2f} to {max(times):.2f}"
        print(f"{name:26} {statistics.median(times):6.2f} s  ({span})")


if __name__ == "__main__":
    main()
