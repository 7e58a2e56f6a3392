"""Compare the speed and memory of agents on pixels with PyTorch and other libraries.

Make a virtual environment for the other libraries, and pass its interpreter:

    python -m venv peers && peers/bin/pip install torch sbx-rl sb3-contrib ale-py \
        opencv-python-headless
    python benchmarks/pixels.py networks --peers peers/bin/python
    python benchmarks/pixels.py agents --peers peers/bin/python --algorithms ppo

`networks` times the convolutions of the three networks on random images: forward, and forward and
gradient, which agentzoo repeats in a compiled loop as in its gradient steps. `agents` trains on
Pong. An agent first plays for `--warm-up` steps, in which it compiles. Then the script counts the
steps of `--seconds` seconds, in whole training cycles. All libraries use the same hyperparameters
and preprocessing, except that SBX has no network of the Nature paper for PPO.

To compare with another version of agentzoo, pass a folder with a checkout of it:

    git worktree add ../before v0.1.0
    python benchmarks/pixels.py networks --before ../before

Each library has its own process, whose peak memory is printed. The libraries take turns, and the
script prints the shortest time of a network, and the median speed of an agent.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENV = "ALE/Pong-v5"
BATCHES = (8, 32, 256)

REPLAY = {
    "batch_size": 32,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "gamma": 0.99,
    "train_freq": 4,
    "gradient_steps": 1,
    "exploration_final_eps": 0.01,
}
PPO = {
    "learning_rate": 2.5e-4,
    "n_steps": 128,
    "batch_size": 256,
    "n_epochs": 4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.1,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
}
# The number of environments, and the hyperparameters of all libraries.
AGENTS: dict[str, tuple[int, dict[str, Any]]] = {
    "dqn": (1, {"learning_rate": 1e-4, "target_update_interval": 1_000, **REPLAY}),
    "qrdqn": (1, {"learning_rate": 5e-5, "target_update_interval": 10_000, **REPLAY}),
    "ppo": (8, PPO),
    "impala": (8, {}),
}
PEERS = {"dqn": ("sb3", "sbx"), "qrdqn": ("sb3",), "ppo": ("sb3", "sbx"), "impala": ()}


# What runs in a process of its own. Only one library is imported there.


def peak_memory() -> float:
    """Return the peak memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def our_network(network: str, batch: int) -> dict[str, Callable[[int], None]]:
    """Return functions that apply a network as often as they are told."""
    import haiku as hk
    import jax
    import jax.numpy as jnp

    from agentzoo.networks.encoders import CNNS
    from agentzoo.process import tune_process

    tune_process()  # as the first agent of a process does
    apply = hk.without_apply_rng(hk.transform(CNNS[network]))
    # Two batches in turn, so that nothing can be computed once for all steps of the loop.
    batches = jax.random.normal(jax.random.key(0), (2, batch, 84, 84, 4))
    params = apply.init(jax.random.key(1), batches[0])
    forward = jax.jit(lambda params, i: apply.apply(params, batches[i]))

    def loss(params: Any, images: Any) -> Any:
        return jnp.sum(jnp.square(apply.apply(params, images)))

    @jax.jit
    def descend(params: Any, count: int) -> Any:
        def step(i: Any, params: Any) -> Any:
            gradient = jax.grad(loss)(params, batches[i % 2])
            return jax.tree.map(lambda x, dx: x - 1e-9 * dx, params, gradient)

        return jax.lax.fori_loop(0, count, step, params)

    def forward_only(count: int) -> None:
        for i in range(count):
            jax.block_until_ready(forward(params, i % 2))

    return {
        "forward": forward_only,
        "gradient": lambda count: jax.block_until_ready(descend(params, count)),
    }


def torch_network(network: str, batch: int) -> dict[str, Callable[[int], None]]:
    """Return the same functions for the same network of PyTorch."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, channels: int):
            super().__init__()
            self.first = nn.Conv2d(channels, channels, 3, padding=1)
            self.second = nn.Conv2d(channels, channels, 3, padding=1)

        def forward(self, x):
            return x + self.second(torch.relu(self.first(torch.relu(x))))

    def impala() -> list[nn.Module]:
        layers: list[nn.Module] = []
        for before, channels in zip((4, 16, 32), (16, 32, 32), strict=True):
            layers += [
                nn.Conv2d(before, channels, 3, padding=1),
                nn.MaxPool2d(3, 2, padding=1),
                Residual(channels),
                Residual(channels),
            ]
        return [*layers, nn.ReLU()]

    def plain(*layers: tuple[int, int, int, int]) -> list[nn.Module]:
        return [module for layer in layers for module in (nn.Conv2d(*layer), nn.ReLU())]

    model = nn.Sequential(
        *{
            "nature": lambda: plain((4, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)),
            "efficient": lambda: plain((4, 32, 5, 5), (32, 64, 5, 5)),
            "impala": impala,
        }[network]()
    )
    batches = torch.randn(2, batch, 4, 84, 84)

    def forward(count: int) -> None:
        with torch.no_grad():
            for i in range(count):
                model(batches[i % 2])

    def gradient(count: int) -> None:
        for i in range(count):
            model.zero_grad()
            model(batches[i % 2]).square().sum().backward()

    return {"forward": forward, "gradient": gradient}


def serve_network(library: str, network: str) -> None:
    """Time a network whenever a line of standard input asks for it: a batch and what to do."""
    make = torch_network if library == "torch" else our_network
    functions = {batch: make(network, batch) for batch in BATCHES}
    for each in functions.values():
        for function in each.values():
            function(1)
    print(json.dumps(peak_memory()), flush=True)
    for line in sys.stdin:
        batch, what = json.loads(line)
        count = max(1, 128 // batch)
        start = time.perf_counter()
        functions[batch][what](count)
        print(json.dumps((time.perf_counter() - start) / count), flush=True)


def train(library: str, algorithm: str, cnn: str, warm_up: int, seconds: float) -> dict[str, float]:
    """Train on Pong, and return what was measured after the warm-up.

    Returns:
      `speed` in environment steps per second, the number of measured `steps`, and the peak
      `memory` of the process in GB.
    """
    # Environment steps, and the time at which they were reached.
    marks: list[tuple[int, float]] = []

    def note(num_timesteps: int) -> bool:
        """Record a step, and return whether training goes on."""
        if num_timesteps >= warm_up and (not marks or num_timesteps > marks[-1][0]):
            marks.append((num_timesteps, time.perf_counter()))
        return not marks or marks[-1][1] - marks[0][1] < seconds

    if library == "ours":
        import agentzoo

        num_envs, hyperparameters = AGENTS[algorithm]
        options = {"preset": "pixels", **hyperparameters, **({"cnn": cnn} if cnn else {})}
        agent = getattr(agentzoo, algorithm.upper())(ENV, n_envs=num_envs, **options)
        agent.learn(10**7, callback=lambda agent: note(agent.num_timesteps), progress_bar=False)
    else:
        learn_as_peer(library, algorithm, note)
    (first, start), (last, end) = marks[0], marks[-1]
    return {"speed": (last - first) / (end - start), "steps": last - first, "memory": peak_memory()}


def learn_as_peer(library: str, algorithm: str, note: Callable[[int], bool]) -> None:
    """Train an agent of Stable-Baselines3, sb3-contrib ("sb3") or SBX ("sbx")."""
    import ale_py
    import gymnasium as gym
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    if library == "sbx":
        import sbx as peers
    elif algorithm == "qrdqn":
        import sb3_contrib as peers
    else:
        import stable_baselines3 as peers

    class Note(BaseCallback):
        """Notes whole training cycles: a rollout begins after each of them."""

        def _on_rollout_start(self) -> None:
            self.goes_on = note(self.num_timesteps)

        def _on_step(self) -> bool:
            return self.goes_on

    gym.register_envs(ale_py)
    num_envs, hyperparameters = AGENTS[algorithm]
    env = make_atari_env(
        ENV,
        n_envs=num_envs,
        wrapper_kwargs={"terminal_on_life_loss": False},
        env_kwargs={"frameskip": 1},
    )
    peer = getattr(peers, algorithm.upper())
    agent = peer("CnnPolicy", VecFrameStack(env, 4), seed=0, **hyperparameters)
    agent.learn(10**7, callback=Note())


# What compares the processes.


def command(library: str, arguments: argparse.Namespace, *rest: str) -> tuple[list[str], dict]:
    """Return the command of a library's process, and its environment variables."""
    ours = library in ("ours", "before")
    folder = arguments.before if library == "before" else ROOT
    python = sys.executable if ours else arguments.peers
    variables = {**os.environ, "PYTHONPATH": str(folder)} if ours else dict(os.environ)
    return [python, __file__, *rest], variables


def libraries(arguments: argparse.Namespace, *peers: str) -> list[str]:
    """Return the libraries to compare."""
    before = ["before"] if arguments.before else []
    return ["ours", *before, *(peers if arguments.peers else ())]


def compare_networks(arguments: argparse.Namespace) -> None:
    """Print the times of the networks of each library, and ratios to the first one."""
    for network in arguments.networks:
        servers: dict[str, subprocess.Popen] = {}
        for library in libraries(arguments, "torch"):
            line, variables = command(library, arguments, "serve", library, network)
            servers[library] = subprocess.Popen(
                line, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        memory = {library: answer(server) for library, server in servers.items()}
        print(f"{network}: peak memory", *(f"{name} {x:.2f} GB" for name, x in memory.items()))
        for what in ("forward", "gradient"):
            for batch in BATCHES:
                times = {library: float("inf") for library in servers}
                for _ in range(arguments.repeats):
                    for library, server in servers.items():
                        assert server.stdin is not None
                        print(json.dumps((batch, what)), file=server.stdin, flush=True)
                        times[library] = min(times[library], answer(server))
                each = [
                    f"{name} {1e3 * x:.2f} ms (ours takes {times['ours'] / x:.2f} times as long)"
                    for name, x in times.items()
                ]
                print(f"  {what} of {batch}:", "; ".join(each), flush=True)
        for server in servers.values():
            server.communicate()


def answer(server: subprocess.Popen) -> float:
    """Return the number on the next line of a process."""
    assert server.stdout is not None
    return json.loads(server.stdout.readline())


def compare_agents(arguments: argparse.Namespace) -> None:
    """Print the speed and the memory of agents of each library."""
    for algorithm in arguments.algorithms:
        runs: dict[str, list[dict]] = {
            library: [] for library in libraries(arguments, *PEERS[algorithm])
        }
        for _ in range(arguments.repeats):
            for library, results in runs.items():
                what = "ours" if library == "before" else library
                limits = (str(arguments.warm_up), str(arguments.seconds))
                rest = ("train", what, algorithm, arguments.cnn, *limits)
                line, variables = command(library, arguments, *rest)
                output = subprocess.run(
                    line, env=variables, check=True, capture_output=True, text=True
                ).stdout
                results.append(json.loads(output.splitlines()[-1]))
        ours = statistics.median(result["speed"] for result in runs["ours"])
        for library, results in runs.items():
            speed = statistics.median(result["speed"] for result in results)
            steps = min(result["steps"] for result in results)
            memory = max(result["memory"] for result in results)
            print(
                f"{algorithm} {library:6} {speed:7.1f} steps/s over {steps} steps, ours is "
                f"{ours / speed:.2f} times as fast; peak memory {memory:.2f} GB",
                flush=True,
            )


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        serve_network(*sys.argv[2:])
        return
    if sys.argv[1:2] == ["train"]:
        library, algorithm, cnn, warm_up, seconds = sys.argv[2:]
        print(json.dumps(train(library, algorithm, cnn, int(warm_up), float(seconds))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    networks = commands.add_parser("networks", help="time the networks")
    networks.add_argument("--networks", nargs="+", default=["nature", "impala", "efficient"])
    networks.add_argument("--repeats", type=int, default=10)
    networks.set_defaults(function=compare_networks)
    agents = commands.add_parser("agents", help="train on Pong")
    agents.add_argument("--algorithms", nargs="+", default=list(AGENTS), choices=list(AGENTS))
    agents.add_argument("--cnn", default="", help="the network of our agents")
    agents.add_argument("--warm-up", type=int, default=2_100, help="environment steps")
    agents.add_argument("--seconds", type=float, default=60.0, help="duration of a measurement")
    agents.add_argument("--repeats", type=int, default=1)
    agents.set_defaults(function=compare_agents)
    for each in (networks, agents):
        each.add_argument("--peers", help="Python interpreter that has the other libraries")
        each.add_argument("--before", help="a folder with another version of agentzoo")
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
