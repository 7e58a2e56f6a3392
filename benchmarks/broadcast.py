"""Measure the cost of sending 1 MB of parameters to 16 actors of a Ray cluster.

    python benchmarks/broadcast.py --nodes 3

By reference, as with `runner="ray"`, parameters are put into the object store once, and every node
fetches them once, whatever the number of its actors. By value, every actor is sent its own copy.

For both ways, the script prints the bytes that go over the loopback interface, over which all nodes
of this machine communicate, and the time until all actors hold the new parameters. Both are medians
over `--repeats` repetitions. It runs on Linux only.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import jax
import numpy as np
from threads import cluster

import agentzoo


def transferred() -> int:
    """Return the bytes that the loopback interface has sent."""
    line = next(
        line
        for line in Path("/proc/net/dev").read_text().splitlines()
        if line.strip().startswith("lo:")
    )
    return int(line.split()[9])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--actors", type=int, default=16)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    cluster(arguments.nodes)
    import ray

    agent = agentzoo.IMPALA(
        "CartPole-v1",
        n_envs=arguments.actors,
        runner="ray",
        n_actors=arguments.actors,
        net_arch=(350, 350),
    )
    params = jax.device_get(agent.params)
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    workers = [handle.worker for handle in agent.trainer.runner.actors]

    def hold(worker, params):
        return float(np.sum(jax.tree.leaves(params)[0]))

    def give(argument) -> None:
        ray.get([worker.__ray_call__.remote(hold, argument) for worker in workers])

    give(ray.put(params))  # so that all actors are running
    nodes = len({ray.get(worker.__ray_call__.remote(lambda _: os.getppid())) for worker in workers})
    ways = {"by reference": lambda: give(ray.put(params)), "by value": lambda: give(params)}
    times: dict[str, list[float]] = {way: [] for way in ways}
    sent: dict[str, list[int]] = {way: [] for way in ways}
    for _ in range(arguments.repeats):
        for way, run in ways.items():
            start, before = time.perf_counter(), transferred()
            run()
            times[way].append(time.perf_counter() - start)
            sent[way].append(transferred() - before)
    print(f"{size / 1e6:.2f} MB of parameters to {arguments.actors} actors on {nodes} nodes")
    for way in ways:
        megabytes, seconds = statistics.median(sent[way]) / 1e6, statistics.median(times[way])
        print(f"{way}: {megabytes:.1f} MB, {1e3 * seconds:.1f} ms")


if __name__ == "__main__":
    main()
