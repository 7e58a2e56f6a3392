r"""Measure the speed of IMPALA with several actors in an environment that takes 2 ms per step.

    python benchmarks/threads.py
    python benchmarks/threads.py --runner ray --nodes 3
    python benchmarks/threads.py --runner ray --nodes 3 --actors 4 --seconds 60 --repeats 1 \
        --kill-every 10

Each actor has one environment. The actors are threads, or processes of a Ray cluster whose nodes
are all on this machine. With `--kill-every`, every measurement is repeated while the actors are
killed in turn, one every so many seconds.

The script prints the steps per second with 1, 2 and 4 actors, without compilation. The numbers of
actors take turns in one process. For n actors, it also prints the percentage of n times the steps
of one actor. The last line is the in-process runner, in which acting and learning alternate.
"""

import argparse
import contextlib
import itertools
import os
import signal
import statistics
import threading
import time
from collections.abc import Iterator

import gymnasium as gym
import numpy as np

import agentzoo


class Waiting(gym.Env):
    """CartPole with steps that take a given time."""

    seconds = 0.002  # of a step

    def __init__(self):
        self.env = gym.make("CartPole-v1")
        self.observation_space = self.env.observation_space
        self.action_space = self.env.action_space

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[np.ndarray, dict]:
        return self.env.reset(seed=seed)

    def step(self, action: int) -> tuple:
        time.sleep(self.seconds)
        return self.env.step(action)


def cluster(nodes: int) -> None:
    """Start a Ray cluster with several nodes on this machine, and connect to it."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on the loopback interface
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    for _ in range(nodes - 1):
        made.add_node(num_cpus=2)
    ray.init(address=made.address, log_to_driver=False)


@contextlib.contextmanager
def killer(agent: agentzoo.IMPALA, every: float) -> Iterator[list[int]]:
    """Kill the processes of the actors in turn. The context is the list of killed processes."""
    import ray

    done, killed = threading.Event(), []

    def kill() -> None:
        for handle in itertools.cycle(agent.trainer.runner.actors):
            if done.wait(every):
                return
            with contextlib.suppress(ray.exceptions.RayError):
                pid = ray.get(handle.worker.__ray_call__.remote(lambda _: os.getpid()))
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runner", default="threads", choices=("threads", "ray"))
    parser.add_argument("--nodes", type=int, default=1, help="nodes of the Ray cluster")
    parser.add_argument("--kill-every", type=float, help="seconds between two killed actors")
    parser.add_argument("--actors", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument(
        "--seconds", type=float, default=5, help="approximate time of a measurement"
    )
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.runner == "ray":
        cluster(arguments.nodes)
    settings = {
        f"{n} actor(s)": {"n_envs": n, "runner": arguments.runner, "n_actors": n}
        for n in arguments.actors
    }
    settings["in turns"] = {"runner": "host"}
    agents = {
        name: agentzoo.IMPALA(Waiting, **options).learn(256, progress_bar=False)
        for name, options in settings.items()
    }
    speeds: dict[str, list[float]] = {name: [] for name in settings}
    for _ in range(arguments.repeats):
        for name, agent in agents.items():
            steps = int(arguments.seconds / 0.0022 * agent.n_envs)
            start = time.perf_counter()
            agent.learn(steps, progress_bar=False)
            speeds[name].append(agent.num_timesteps / (time.perf_counter() - start))
            if arguments.kill_every and name != "in turns":
                with killer(agent, arguments.kill_every) as killed:
                    start = time.perf_counter()
                    agent.learn(steps, progress_bar=False)
                    speed = agent.num_timesteps / (time.perf_counter() - start)
                replaced = int(agent.metrics["ray/replaced_actors"])
                print(
                    f"{name}: {len(killed)} killed, {speed:.0f} steps/s, "
                    f"{speed / speeds[name][-1]:.0%}; {replaced} replaced so far"
                )
    first = f"{arguments.actors[0]} actor(s)"
    one = statistics.median(speeds[first]) / arguments.actors[0]
    for name, values in speeds.items():
        speed, n = statistics.median(values), settings[name].get("n_actors", 1)
        each = " ".join(f"{value:.0f}" for value in values)
        share = f"{speed / (n * one):.0%} of {n} times one actor"
        print(f"{name:11} {speed:6.0f} steps/s ({each}), {share}")


if __name__ == "__main__":
    main()
