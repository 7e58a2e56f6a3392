"""Measure the time and the memory that replay buffers take.

    python benchmarks/replay.py                  # time, from 1e4 to 1e6 entries
    python benchmarks/replay.py --memory         # peak memory to fill 1e6 Atari transitions

Every measurement runs in its own process. The script times a compiled function like those of
agents: it takes the buffer to overwrite, adds a trajectory of 4 steps, and then, inside `lax.cond`,
draws 64 batches of 32 in `lax.scan`. If anything copied the buffer, the time would grow with the
size of the buffer.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from functools import partial

KINDS = {"vector": ((4,), "float32"), "pixels": ((4, 84, 84), "uint8")}
STEPS = 4
DRAWS = 64
BATCH = 32


def make(kind: str, capacity: int, prioritised: bool):
    """Return a buffer, and a trajectory whose stacks consist of successive frames."""
    import numpy as np
    from gymnasium import spaces

    from agentzoo.replay import Prioritisation, make_replay
    from agentzoo.types import EnvSpec, FrameStack, Trajectory

    shape, dtype = KINDS[kind]
    space = (FrameStack if kind == "pixels" else spaces.Box)(0, 255, shape, np.dtype(dtype).type)
    buffer = make_replay(
        EnvSpec(space, spaces.Discrete(4), 1),
        capacity,
        STEPS,
        0.99,
        1,
        Prioritisation() if prioritised else None,
    )
    ones, falses = np.ones((STEPS, 1), np.float32), np.zeros((STEPS, 1), bool)
    rng = np.random.default_rng(0)
    if kind == "pixels":
        frames = rng.integers(0, 256, (STEPS + 4, *shape[1:])).astype(dtype)
        obs = np.stack([frames[t : t + 4] for t in range(STEPS + 1)])[:, None]
    else:
        obs = rng.random((STEPS + 1, 1, *shape)).astype(dtype)
    return buffer, Trajectory(
        obs[:-1], falses.astype(np.int32), ones, ones, obs[1:], falses, falses, ~falses
    )


def time_one(kind: str, capacity: int, prioritised: bool) -> dict[str, float]:
    """Return the microseconds to add a trajectory, and to draw a batch.

    Drawing a batch of a prioritised buffer includes changing its priorities.
    """
    import jax
    import jax.numpy as jnp

    buffer, trajectory = make(kind, capacity, prioritised)

    def update(replay, key):
        batch = buffer.sample(replay, key, BATCH, 0.5)
        sums = [
            leaf.astype(jnp.float32).sum()
            for leaf in jax.tree.leaves((batch.obs_tm1, batch.obs_t, batch.r_t))
        ]
        replay = buffer.update(replay, batch.slot, jax.random.normal(key, (BATCH,)))
        return replay, sum(sums)

    @partial(jax.jit, donate_argnums=0)
    def learn(replay, trajectory, key, ready):
        replay = buffer.add(replay, trajectory)
        keys = jax.random.split(key, DRAWS)
        replay, sums = jax.lax.cond(
            ready,
            lambda replay: jax.lax.scan(update, replay, keys),
            lambda replay: (replay, jnp.zeros(DRAWS)),
            replay,
        )
        return replay, sums.sum()

    replay = jax.jit(buffer.init)()
    for _ in range(capacity // STEPS + 10):  # until the buffer is full
        replay, _ = learn(replay, trajectory, jax.random.key(0), False)
    jax.block_until_ready(replay)
    seconds = {}
    for ready, repeats in ((False, 2_000), (True, 200)):
        times = []
        for i in range(repeats):
            key = jax.random.key(i)
            start = time.perf_counter()
            replay, total = learn(replay, trajectory, key, ready)
            total.block_until_ready()
            jax.block_until_ready(replay)
            times.append(time.perf_counter() - start)
        seconds[ready] = statistics.median(times)
    return {"add": 1e6 * seconds[False], "draw": 1e6 * (seconds[True] - seconds[False]) / DRAWS}


def memory_one(capacity: int, prioritised: bool) -> dict[str, float]:
    """Return the gigabytes of the full buffer, and the peak memory of this process."""
    import jax

    buffer, trajectory = make("pixels", capacity, prioritised)
    add = jax.jit(buffer.add, donate_argnums=0)
    replay = jax.jit(buffer.init)()
    for _ in range(capacity // STEPS + 10):
        replay = add(replay, trajectory)
    assert replay.size.sum() == capacity
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(replay))
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes on Linux
    return {"arrays": size / 1e9, "peak": peak / 1e9}


def in_process_of_its_own(*arguments: object) -> dict:
    command = [sys.executable, __file__, "--one", json.dumps(arguments)]
    return json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[
            -1
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--entries", type=float, nargs="*", default=[1e4, 1e5, 1e6])
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        task, *rest = json.loads(arguments.one)
        print(json.dumps({"time": time_one, "memory": memory_one}[task](*rest)))
        return
    if arguments.memory:
        for prioritised in (False, True):
            gb = in_process_of_its_own("memory", 1_000_000, prioritised)
            name = "prioritised" if prioritised else "uniform"
            print(
                f"1e6 Atari transitions, {name:11}: arrays {gb['arrays']:.3f} GB, "
                f"peak of the process {gb['peak']:.3f} GB",
                flush=True,
            )
        return
    for kind in arguments.kinds:
        for prioritised in (False, True):
            name = "prioritised" if prioritised else "uniform"
            for entries in arguments.entries:
                took = in_process_of_its_own("time", kind, int(entries), prioritised)
                print(
                    f"{kind:7} {name:11} {entries:9.0e} entries: "
                    f"add {STEPS} steps {took['add']:6.1f} us, draw {BATCH} {took['draw']:7.1f} us",
                    flush=True,
                )


if __name__ == "__main__":
    main()
