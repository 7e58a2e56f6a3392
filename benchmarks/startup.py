"""How long does it take to begin? Import, and from the start of Python to the first gradient steps of DQN on CartPole.

    python -m venv peers && peers/bin/pip install sbx-rl
    python benchmarks/startup.py --peers peers/bin/python

Each figure is the median over processes of their own, in turn. "cached" is ours with JAX's
persistent compilation cache, filled by a process before. Let nothing else run meanwhile.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

# 28 steps after the warm-up, in which all that learning needs is compiled and used.
OURS = """
import agentzoo
{cache}
agentzoo.DQN("CartPole-v1", learning_starts=100, train_freq=4, gradient_steps=1).learn(128, progress_bar=False)
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
        "--peers", required=True, help="Python interpreter that has Stable-Baselines3 and SBX"
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
        for _ in range(1 + arguments.repeats):  # the first fills caches, and does not count
            for name, (python, code) in programs.items():
                start = time.perf_counter()
                subprocess.run(
                    [python, "-W", "ignore", "-c", code], check=True, capture_output=True
                )
                seconds[name].append(time.perf_counter() - start)
    for name, each in seconds.items():
        print(
            f"{name:26} {statistics.median(each[1:]):6.2f} s  ({min(each[1:]):.2f} to {max(each[1:]):.2f})"
        )


if __name__ == "__main__":
    main()
