r"""Watch memory, memory mappings, file handles and threads of a process that trains for long.

    python benchmarks/soak.py --minutes 60
    python benchmarks/soak.py --widths 100

The first command trains small agents of all algorithms in turn, in Python environments, compiled
environments and threads, with all callbacks on, and with saving and loading. The second one trains
100 PPOs of different widths for a few cycles each, in a Python environment and compiled.

The script samples the process from time to time and prints a table. It fails if one of the values
is not flat: for mappings, handles and threads, the most of the last third may be 10 % above the
most of the middle third; for memory, 5 %.
"""

import _thread
import argparse
import contextlib
import gc
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import agentzoo
from agentzoo import callbacks

CATCH = "agentzoo/Catch-v0"
OFF_POLICY = dict(learning_starts=24, train_freq=4, batch_size=8, buffer_size=1_000)
SETTINGS = {
    "DQN": OFF_POLICY,
    "QRDQN": {**OFF_POLICY, "n_quantiles": 5},
    "SAC": OFF_POLICY,
    "MPO": {**OFF_POLICY, "num_samples": 4},
    "PPO": dict(n_steps=16, batch_size=16, n_epochs=2),
    "IMPALA": dict(n_steps=16),
}


class Sample(NamedTuple):
    """What the process holds at a moment."""

    seconds: float
    memory: float  # MB, resident
    mappings: int
    handles: int
    threads: int


ALLOWED = {"memory": 1.05, "mappings": 1.1, "handles": 1.1, "threads": 1.1}


def sample(began: float) -> Sample:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    mappings = Path("/proc/self/maps").read_bytes().count(b"\n")
    handles, threads = len(os.listdir("/proc/self/fd")), _thread._count()
    return Sample(time.perf_counter() - began, memory, mappings, handles, threads)


def everything(folder: Path) -> list[callbacks.BaseCallback]:
    """Return callbacks of all kinds, which keep files in a folder."""
    stop = callbacks.StopTrainingOnNoModelImprovement(max_no_improvement_evals=100)
    best = callbacks.StopTrainingOnRewardThreshold(reward_threshold=1e9)
    evaluate = callbacks.EvalCallback(
        CATCH,
        eval_freq=500,
        n_eval_episodes=2,
        best_model_save_path=str(folder),
        callback_after_eval=stop,
        callback_on_new_best=best,
        verbose=0,
    )
    often = callbacks.EveryNTimesteps(250, lambda agent: True)
    checkpoints = callbacks.CheckpointCallback(500, folder / "checkpoints")
    return [evaluate, checkpoints, often, callbacks.LogEveryNTimesteps(100)]


def train_all(minutes: float, began: float) -> Iterator[Sample]:
    """Train agents of all algorithms in turn, and yield a sample after each round."""
    while time.perf_counter() - began < 60 * minutes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for algorithm, settings in SETTINGS.items():
                cls = getattr(agentzoo, algorithm)
                for runner in ("host", "device", "threads"):
                    agent = cls(CATCH, runner=runner, net_arch=(16,), log_dir=folder, **settings)
                    with contextlib.redirect_stderr(open(os.devnull, "w")) as output:
                        agent.learn(1_000, everything(folder / algorithm / runner))
                    output.close()
                    saved = agent.save(folder / "saved")
                    again = agentzoo.load(saved, CATCH, runner=runner)
                    again.learn(200, reset_num_timesteps=False, progress_bar=False)
            del agent, again
        yield sample(began)


def train_widths(number: int, began: float) -> Iterator[Sample]:
    """Train PPOs of different widths, and yield a sample after each five of them."""
    for width in range(number):
        for runner in ("host", "device"):
            settings = {**SETTINGS["PPO"], "net_arch": (8 + width,)}
            agentzoo.PPO(CATCH, runner=runner, **settings).learn(64, progress_bar=False)
        if width % 5 == 4:
            yield sample(began)


def is_flat(samples: list[Sample]) -> bool:
    """Return whether no value has grown from the middle to the last third of the samples."""
    third = max(1, len(samples) // 3)
    middle, last = samples[-2 * third : -third], samples[-third:]
    flat = True
    for name, factor in ALLOWED.items():
        before, after = (max(getattr(one, name) for one in part) for part in (middle, last))
        grown = after > factor * before
        print(f"{name}: {before:.0f}, then {after:.0f}{', NOT FLAT' if grown else ''}")
        flat = flat and not grown
    return flat


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--widths", type=int, help="train this many widths of PPO instead")
    arguments = parser.parse_args()
    began = time.perf_counter()
    run = (
        train_widths(arguments.widths, began)
        if arguments.widths
        else train_all(arguments.minutes, began)
    )
    print("  seconds  memory [MB]  mappings  handles  threads")
    samples = []
    for one in run:
        samples.append(one)
        print("{:9.0f} {:12.0f} {:9} {:8} {:8}".format(*one), flush=True)
    if not is_flat(samples):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
