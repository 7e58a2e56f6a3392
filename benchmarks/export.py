"""Exported policies beside `predict`: size, time to load, and time per action.

    python benchmarks/export.py

Agents are new, because training does not change these figures. Times are CPU times, and the
shortest of several, so that other programs on the machine matter little. Each action is for one
observation.

- "load" is the time to read a file and to choose the first action, in a process that has imported
  what it needs: agentzoo for `predict`, JAX alone for StableHLO, and onnxruntime for ONNX.
- "action" is the time of a further action.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import agentzoo

AGENTS: dict[str, Callable[[], Any]] = {
    "DQN, CartPole": lambda: agentzoo.DQN("agentzoo/CartPole-v0"),
    "SAC, Pendulum": lambda: agentzoo.SAC("agentzoo/Pendulum-v0", normalize_obs=True),
    "PPO with LSTM, CartPole": lambda: agentzoo.PPO("agentzoo/CartPole-v0", recurrent="lstm"),
    "DQN, Breakout": lambda: agentzoo.DQN("agentzoo/Breakout-v0", buffer_size=1_000),
}

# What a process measures, after it has imported everything. `policy` loads a file and returns a
# function of an observation.
MEASURE = """
import time

began = time.process_time()
act = policy(path)
act(obs)
load = time.process_time() - began
best = 1e9
for _ in range(20):
    began = time.process_time()
    for _ in range(100):
        act(obs)
    best = min(best, (time.process_time() - began) / 100)
print(load, best)
"""

PREDICT = """
import agentzoo, jax

jax.numpy.zeros(3) + 1  # JAX starts its threads

def policy(path):
    agent = agentzoo.load(path)
    state = None
    def act(obs):
        nonlocal state
        action, state = agent.predict(obs[0], state=state, deterministic=True)
        return action
    return act
"""

STABLEHLO = """
import jax, jax.export

jax.numpy.zeros(3) + 1

def policy(path):
    exported = jax.export.deserialize(open(path, "rb").read())
    call = jax.jit(exported.call)
    first, *shapes = exported.in_avals
    state = tuple(numpy.zeros((1, *x.shape[1:]), x.dtype) for x in shapes[:-1])
    start = numpy.zeros(1, bool)
    def act(obs):
        nonlocal state
        if not shapes:
            return numpy.asarray(call(obs))
        action, state = call(obs, state, start)
        return numpy.asarray(action)
    return act
"""

ONNX = """
import onnxruntime

def policy(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()][1:]
    state = [numpy.zeros((1, *one.shape[1:]), "f") for one in session.get_inputs()[1:-1]]
    start = numpy.zeros(1, bool)
    def act(obs):
        nonlocal state
        inputs = {"observation": obs, **dict(zip(names, [*state, start]))}
        action, *state = session.run(None, inputs)
        return action
    return act
"""


def measure(program: str, path: Path, obs: Path, tries: int) -> tuple[float, float]:
    """Return the shortest times to load and to act, in seconds, of several processes."""
    code = (
        f"import numpy\npath, obs = {str(path)!r}, numpy.load({str(obs)!r})\n{program}\n{MEASURE}"
    )
    found = []
    for _ in range(tries):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        found.append([float(text) for text in done.stdout.split()])
    load, act = np.min(found, axis=0)
    return float(load), float(act)


def main(tries: int, names: list[str]) -> None:
    print("| agent | form | size | load | action |")
    print("|---|---|---:|---:|---:|")
    for name in names:
        agent = AGENTS[name]()
        with tempfile.TemporaryDirectory() as folder:
            obs = Path(folder, "obs.npy")
            space = agent.spec.observation_space
            example = np.clip(np.random.default_rng(0).normal(size=space.shape), 0, 1)
            np.save(obs, example[None].astype(space.dtype))
            forms = {
                "`predict`": (PREDICT, agent.save(Path(folder, "model"), exclude="replay")),
                "StableHLO": (STABLEHLO, agent.export(Path(folder, "policy.stablehlo"))),
                "ONNX": (ONNX, agent.export(Path(folder, "policy.onnx"))),
            }
            for form, (program, path) in forms.items():
                load, act = measure(program, path, obs, tries)
                size = path.stat().st_size / 1e3
                row = f"{size:,.0f} kB | {load * 1e3:,.0f} ms | {act * 1e6:,.0f} us"
                print(f"| {name} | {form} | {row} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tries", type=int, default=5, help="processes per row")
    parser.add_argument("--agents", nargs="*", default=list(AGENTS), choices=list(AGENTS))
    given = parser.parse_args()
    main(given.tries, given.agents)
