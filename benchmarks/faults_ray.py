r"""Kill Ray's processes at random moments, and count what becomes of the learner.

    python benchmarks/faults_ray.py --kills 20

A process trains with two actors. At a random moment, another process kills a worker, the raylet or
the head of the cluster. After a worker, training has to go on. After the others, `learn` has to
raise a `TrainingError`, the agent has to be saved and loaded, and `learn` has to work again in the
same process. The script prints a line for each kill, and fails if one went wrong, or if the
learner's process was ended.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

KINDS = {"worker": "ray::Worker", "raylet": "raylet", "head": "gcs_server"}


def own_processes(name: str) -> list[int]:
    """Return the processes of a name that belong to this run of the script."""
    mark, found = os.environ["FAULTS_OF"].encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if name in (folder / "comm").read_text() and mark in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def main(kills: int) -> None:
    """Train and kill, in the learner's process."""
    import agentzoo
    from agentzoo.types import TrainingError

    options = dict(n_envs=2, n_actors=2, n_steps=20, net_arch=(16,))
    agent = agentzoo.IMPALA("CartPole-v1", runner="ray", **options)
    agent.learn(400, progress_bar=False)
    for number in range(kills):
        kind = random.choice(list(KINDS))
        killed: list[float] = []

        def kill(kind: str = kind, killed: list[float] = killed) -> None:
            time.sleep(random.uniform(0.2, 2.0))
            os.kill(random.choice(own_processes(KINDS[kind])), signal.SIGKILL)
            killed.append(time.perf_counter())

        def goes_on(agent: agentzoo.IMPALA, killed: list[float] = killed) -> bool:
            return not killed or time.perf_counter() - killed[0] < 40

        thread = threading.Thread(target=kill)
        thread.start()
        outcome = "training went on"
        try:
            agent.learn(1e9, goes_on, progress_bar=False)
        except TrainingError as error:
            outcome = f"after {time.perf_counter() - killed[0]:.1f} s: {error}"
        thread.join()
        right = (kind == "worker") == (outcome == "training went on")
        steps = agent.num_timesteps
        with tempfile.TemporaryDirectory() as folder:
            saved = agent.save(Path(folder) / "agent")
            assert agentzoo.load(saved).num_timesteps == steps
        agent.learn(400, progress_bar=False, reset_num_timesteps=False)
        print(f"{number + 1}. {kind}: {'' if right else 'WRONG '}{outcome}", flush=True)
        if not right:
            raise SystemExit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    wanted = parser.parse_args().kills
    if "FAULTS_OF" in os.environ:
        main(wanted)
        raise SystemExit
    mark = f"faults-{os.getpid()}"
    done = subprocess.run([sys.executable, *sys.argv], env={**os.environ, "FAULTS_OF": mark})
    print(f"The learner's process ended with code {done.returncode}.")
    raise SystemExit(done.returncode)
