"""Kill a benchmark again and again, and compare its results with those of an undisturbed one.

    python benchmarks/killed_benchmark.py --kills 5

The same command runs in two folders. In one of them, SIGKILL ends the command and all of its
processes at random moments, and the command is typed again. At the end, the script compares every
result, apart from measured times and dates.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agentzoo.lab.results import PROGRESS, RESULT, read_progress

MEASURED = ("seconds", "date", "machine")
EVALUATIONS = 20  # of a run, each of which writes a checkpoint
STEPS = "*/*/*/run/checkpoints/step_*.safetensors"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the kills")
    parser.add_argument("--algos", default="dqn,ppo")
    parser.add_argument("--envs", default="CartPole-v1,agentzoo/CartPole-v0")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=float, default=2e4)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--final-episodes", type=int, default=20)
    return parser.parse_args()


def start(arguments: argparse.Namespace, out: Path) -> subprocess.Popen:
    options = ["algos", "envs", "seeds", "steps", "jobs", "final_episodes"]
    command = [sys.executable, "-m", "agentzoo", "benchmark", "--out", str(out)]
    for name in options:
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


def results(out: Path) -> dict[str, object]:
    """Return the results of all runs without what was measured, by the folder of the run."""
    found = {}
    for path in sorted(out.glob(f"*/*/*/{RESULT}")):
        data = {key: value for key, value in json.loads(path.read_text()).items()
                if key not in MEASURED}  # fmt: skip
        data["curve"] = [{**point, "seconds": None} for point in data["curve"]]
        found[str(path.parent.relative_to(out))] = data
    return found


def run_undisturbed(arguments: argparse.Namespace, out: Path) -> float:
    began = time.perf_counter()
    assert start(arguments, out).wait() == 0
    return time.perf_counter() - began


def run_and_kill(arguments: argparse.Namespace, out: Path, runs: int) -> list[str]:
    """Run the benchmark and kill it again and again. Return how far it was at each kill."""
    draw, states = random.Random(arguments.seed), []
    # How many evaluations there are up to a kill. All kills together leave some for the end.
    most = max(1, int(0.9 * runs * EVALUATIONS / arguments.kills))
    while len(states) < arguments.kills:
        process = start(arguments, out)
        wait_for_evaluations(process, out, draw.randint(1, most))
        time.sleep(draw.random())
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        states.append(describe(out))
    assert start(arguments, out).wait() == 0
    return states


def wait_for_evaluations(process: subprocess.Popen, out: Path, number: int) -> None:
    """Wait until the runs of a benchmark have made so many evaluations."""
    before = evaluations(out)
    while evaluations(out) < before + number:
        if process.poll() is not None:
            raise SystemExit("The benchmark ended before it was killed often enough. Add --steps.")
        time.sleep(0.05)


def evaluations(out: Path) -> int:
    """Return the number of evaluations up to now."""
    begun = (read_progress(path.parent) for path in out.glob(f"*/*/*/{PROGRESS}"))
    points = sum(len(progress.curve) for progress in begun if progress is not None)
    return EVALUATIONS * len(list(out.glob(f"*/*/*/{RESULT}"))) + points


def describe(out: Path) -> str:
    """Return how many runs have finished, and the steps of the last checkpoints of the others."""
    ended = len(list(out.glob(f"*/*/*/{RESULT}")))
    steps: dict[Path, int] = {}
    for path in out.glob(STEPS):
        step = int(path.stem.removeprefix("step_"))
        steps[path.parent] = max(step, steps.get(path.parent, 0))
    others = ", ".join(f"step {step:,}" for step in steps.values()) or "none"
    return f"{ended} runs finished, checkpoints of others: {others}"


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        seconds = run_undisturbed(arguments, whole)
        states = run_and_kill(arguments, killed, len(results(whole)))
        for number, state in enumerate(states, 1):
            print(f"kill {number}: {state}")
        expected, found = results(whole), results(killed)
        differing = [key for key in expected if expected[key] != found.get(key)]
        equal = len(expected) - len(differing)
        print(
            f"{equal} of {len(expected)} results are equal to the bit after {len(states)} kills, "
            f"each with {len(next(iter(expected.values()))['curve'])} evaluations in the curve; "
            f"the undisturbed benchmark took {seconds:.0f} s"
        )
        sys.exit(bool(differing) or not expected)


if __name__ == "__main__":
    main()
