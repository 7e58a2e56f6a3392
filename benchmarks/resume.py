"""Are runs that are killed at random moments, and resumed, equal to runs that are not?

python benchmarks/resume.py --runs 20 --jobs 2

Each run is one command, `agentzoo train ... --run-dir R --resume`, which is killed with SIGKILL
several times and given again until the run has finished. Its parameters, optimiser state, replay
buffer, random keys, counters, episode statistics, CSV log and TensorBoard events are compared with
those of one run that was never interrupted; only measured times may differ.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tensorboardX.proto.event_pb2 import Event

import agentzoo
from agentzoo import checkpoint

ENVS = {"Python": "CartPole-v1", "compiled": "agentzoo/CartPole-v0"}
OFF_POLICY = "--net-arch 16 --batch-size 16 --buffer-size 2000 --learning-starts 100"
SETTINGS = {
    "dqn": OFF_POLICY,
    "qrdqn": OFF_POLICY,
    "sac": f"{OFF_POLICY} --train-freq 4",
    "mpo": f"{OFF_POLICY} --train-freq 4",
    "ppo": "--net-arch 16 --n-steps 32 --batch-size 32 --n-epochs 2",
    "impala": "--net-arch 16 --n-steps 16",
}
TIMES = {"time/fps", "time/time_elapsed"}


def command(algorithm: str, env: str, folder: Path, steps: int) -> list[str]:
    """Return the command of a run, which is the same at each start."""
    words = f"train {algorithm} --env {env} --steps {steps} --eval-episodes 0 --n-envs 2 --resume"
    words += f" --checkpoint-freq {max(1, steps // 40)} {SETTINGS[algorithm]}"
    return [sys.executable, "-m", "agentzoo", *words.split(), "--run-dir", str(folder)]


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start a command whose output only matters if it fails."""
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def newest(folder: Path) -> int:
    """Return the step of the newest checkpoint; 0 without one."""
    names = [path.stem for path in (folder / "checkpoints").glob("step_*.safetensors")]
    return max((int(name.removeprefix("step_")) for name in names), default=0)


def kill_once(arguments: list[str], folder: Path, seconds: float) -> bool:
    """Start the command, and kill it once it has got further. Return whether it was killed.

    Args:
      arguments: the command.
      folder: the run folder.
      seconds: how long to wait after the first new checkpoint.
    """
    before = newest(folder)
    process = start(arguments)
    while process.poll() is None and newest(folder) <= before:
        time.sleep(0.005)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def finish(arguments: list[str]) -> None:
    """Run the command to its end."""
    process = start(arguments)
    _, error = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{error.decode()}")


def contents(folder: Path) -> dict[str, Any]:
    """Return all that a finished run has in its folder, apart from times."""
    agent = agentzoo.load(folder)
    leaves, _ = jax.tree.flatten_with_path(agent.session.run)
    found: dict[str, Any] = {}
    for path, leaf in leaves:
        is_key = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        found[jax.tree_util.keystr(path)] = (array.shape, array.dtype.name, array.tobytes())
    manifest = checkpoint.read_manifest(folder)
    found["episodes"], found["predictions"] = manifest["episodes"], manifest["predictions"]
    with open(folder / "progress.csv", newline="") as file:
        rows = [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
    return {**found, "progress.csv": rows, "events": events(folder)}


def events(folder: Path) -> list[tuple[str, int, float]]:
    """Return the scalars in the TensorBoard files, in order."""
    found: list[tuple[str, int, float]] = []
    for path in sorted(folder.glob("*tfevents*")):
        data, begin = path.read_bytes(), 0
        while begin < len(data):  # a record is its length, a checksum, an event, and a checksum
            (length,) = struct.unpack_from("<Q", data, begin)
            event = Event.FromString(data[begin + 12 : begin + 12 + length])
            begin += length + 16
            found += [
                (value.tag, event.step, value.simple_value)
                for value in event.summary.value
                if value.HasField("simple_value") and value.tag not in TIMES
            ]
    return found


def compare(algorithm: str, env: str, options: Any, root: Path, seed: int) -> tuple[int, list[str]]:
    """Return how often a run was killed, and the names of what differs from the whole run."""
    draw = random.Random(f"{algorithm} {env} {seed}")
    folder = root / f"{algorithm}_{env.replace('/', '-')}_{seed}"
    arguments = command(algorithm, env, folder, options.steps)
    kills = sum(
        kill_once(arguments, folder, draw.uniform(0, options.wait)) for _ in range(options.kills)
    )
    finish(arguments)
    whole = contents(root / f"{algorithm}_{env.replace('/', '-')}_whole")
    found = contents(folder)
    differing = [name for name in whole if found.get(name) != whole[name]]
    if not differing:
        shutil.rmtree(folder)
    return kills, differing + sorted(found.keys() - whole.keys())


def main() -> None:
    """Print a table: how many runs of each algorithm were equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=2, help="kills of each run, at most")
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--wait", type=float, default=0.5, help="longest time before a kill")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--algorithms", nargs="+", default=list(SETTINGS))
    parser.add_argument("--envs", nargs="+", default=list(ENVS))
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(options.jobs) as pool:
        for algorithm in options.algorithms:
            for kind in options.envs:
                env = ENVS[kind]
                whole = Path(root) / f"{algorithm}_{env.replace('/', '-')}_whole"
                finish(command(algorithm, env, whole, options.steps))
                each = pool.map(
                    lambda seed, a=algorithm, e=env: compare(a, e, options, Path(root), seed),
                    range(options.runs),
                )
                outcomes = list(each)
                equal = sum(not differing for _, differing in outcomes)
                kills = sum(kills for kills, _ in outcomes)
                names = sorted({name for _, differing in outcomes for name in differing})
                print(
                    f"{algorithm:8}{kind:10}{equal:4} of {options.runs} equal, {kills} kills",
                    *names,
                )
                results.append(dict(algorithm=algorithm, env=kind, equal=equal, kills=kills))
    total = sum(result["equal"] for result in results)
    minutes = (time.monotonic() - begun) / 60
    print(f"{total} of {len(results) * options.runs} equal, {minutes:.1f} min")
    if options.out is not None:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
