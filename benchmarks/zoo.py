"""Evaluate every agent of the zoo in 100 episodes, and compare the scores with the records.

    python benchmarks/zoo.py

The script prints a table. It ends with exit code 1 if a score is lower than its record by more than
three standard errors of the difference and by more than 1 %.
"""

import argparse
import sys

import numpy as np

from agentzoo import evaluate_policy, pretrained, zoo


def holds(entry: zoo.Entry, returns: list[float]) -> bool:
    """Return whether new episodes agree with the record of an agent."""
    error = np.hypot(
        entry.std / np.sqrt(entry.record["score"]["episodes"]),
        np.std(returns) / np.sqrt(len(returns)),
    )
    lowest = entry.mean - max(3 * error, 0.01 * abs(entry.mean))
    return float(np.mean(returns)) >= lowest


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=2_000_000)
    parser.add_argument("--folder", help="a zoo other than that of the package")
    arguments = parser.parse_args()
    missed = []
    for entry in zoo.entries(arguments.folder):
        agent = pretrained(entry.label, entry.env, zoo=arguments.folder)
        returns, _ = evaluate_policy(
            agent, entry.env, arguments.episodes, return_episode_rewards=True, seed=arguments.seed
        )
        if not holds(entry, returns):
            missed.append(entry.name)
        mean = f"{np.mean(returns):9.1f} +- {np.std(returns):7.1f}"
        print(f"{entry.name:40} record {entry.mean:9.1f} +- {entry.std:7.1f}   now {mean}")
    size = sum(entry.path.stat().st_size for entry in zoo.entries(arguments.folder))
    print(f"{size / 1e6:.2f} MB of agents; lower than their records: {', '.join(missed) or 'none'}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
