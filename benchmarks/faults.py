r"""Let environments fail at random moments, and check what becomes of training.

    python benchmarks/faults.py --runs 200

Each run draws an algorithm, a kind of fault, a runner and the moment of the fault. It checks that
the error is an `EnvError` with the right sentence (or that training goes on, with
`on_env_error="restart"`), that the run folder holds a model of the last training cycle, that the
agent can learn again, and that no process and no thread is left. The script prints each failure
and a table, and ends with exit code 1 if a run failed.
"""

import _thread
import argparse
import collections
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

import agentzoo
from agentzoo import background
from agentzoo.algos import ALGORITHMS
from agentzoo.types import EnvError, InvalidStep

SMALL = dict(
    learning_starts=24,
    train_freq=4,
    gradient_steps=1,
    batch_size=8,
    buffer_size=1_000,
    net_arch=(16,),
)
SETTINGS = {
    **dict.fromkeys(("DQN", "QRDQN", "SAC", "MPO"), SMALL),
    "PPO": dict(n_steps=16, batch_size=16, n_epochs=2, net_arch=(16,)),
    "IMPALA": dict(n_steps=16, net_arch=(16,)),
}
PLACES = ("host", "threads", "sync", "async")
# Some vector environments reset an environment in `step`.
ANYWHERE = {
    "raise": r"step raised OSError: the simulator is gone \(.*, line \d+\)",
    "reset": r"(step|reset) raised OSError: the simulator is gone \(.*, line \d+\)",
    "hang": r"step has not answered for 1 s",
    "hang in reset": r"(step|reset) has not answered for 1 s",
    "nan": r"holds nan",
    "close": r"raised AttributeError: ",
}
IN_WORKERS = {
    "exit": "its worker process ended in step with exit code 3",
    "end": "its worker process ended in step with exit code 4",
    "kill": "its worker process ended in step by signal 9",
}
RESTARTED = ("raise", "reset", "hang", "hang in reset", "nan", "close")
LIMIT = 120
"""Seconds after which a run counts as a deadlock."""

woken = threading.Event()
"""Lets the steps that hang go on, so that their threads can end."""


class Faulty(gym.Env):
    """Episodes of 7 steps. Something goes wrong at one step, or at the first reset after it."""

    observation_space = spaces.Box(-10, 10, (2,), np.float32)

    def __init__(self, kind, at, continuous):
        self.kind, self.at = kind, at
        self.action_space = (
            spaces.Box(-1, 1, (1,), np.float32) if continuous else spaces.Discrete(2)
        )
        self.steps = self.t = 0
        self.simulator = self

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.simulator = 0, self
        if self.steps >= self.at and self.kind in ("reset", "hang in reset"):
            self.fail()
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        self.steps += 1
        if self.steps == self.at and self.kind not in ("reset", "hang in reset"):
            self.fail()
        value = self.simulator.t if self.kind != "nan" or self.steps != self.at else np.nan
        return np.full(2, value, np.float32), 1.0, self.t == 7, False, {}

    def fail(self):
        kind, self.at = self.kind, 10**9  # once
        if kind in ("raise", "reset"):
            raise OSError("the simulator is gone")
        if kind.startswith("hang"):
            woken.wait(600)
        elif kind == "exit":
            sys.exit(3)
        elif kind == "end":
            os._exit(4)
        elif kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "close":
            self.close()
        elif kind == "nan":
            self.at = self.steps

    def close(self):
        self.simulator = None


def draw(rng):
    """Draw the algorithm, the place, the kind, the moment, and whether to restart."""
    place = str(rng.choice(PLACES))
    kinds = [*ANYWHERE, *IN_WORKERS] if place == "async" else [*ANYWHERE]
    kind = str(rng.choice(kinds))
    restart = place in ("host", "threads") and kind in RESTARTED and rng.random() < 0.4
    return str(rng.choice(list(ALGORITHMS))), place, kind, int(rng.integers(1, 120)), restart


def make_agent(algorithm, place, kind, at, restart, folder):
    """Return an agent with two environments, the second of which fails once."""
    continuous = algorithm in ("SAC", "MPO")
    made, vectors = [], []

    def one(faulty):
        return Faulty(kind if faulty else "none", at if faulty else 10**9, continuous)

    def single():
        made.append(1)
        return one(len(made) == 2)

    def several():
        vectors.append(1)
        faulty = len(vectors) == 1
        vector = AsyncVectorEnv if place == "async" else SyncVectorEnv
        return vector([lambda: one(False), lambda: one(faulty)])

    options = dict(runner="threads", n_actors=2) if place == "threads" else {}
    return getattr(agentzoo, algorithm)(
        several if place in ("sync", "async") else single,
        n_envs=2,
        env_timeout=1.0 if kind.startswith("hang") else None,
        on_env_error="restart" if restart else "raise",
        log_dir=folder,
        **options,
        **SETTINGS[algorithm],
    )


def run_one(seed):
    """Run one fault, and return its description and what was wrong, or None."""
    chosen = draw(np.random.default_rng(seed))
    woken.clear()
    try:
        with tempfile.TemporaryDirectory() as folder:
            return chosen, _check(chosen, folder)
    except Exception:
        return chosen, traceback.format_exc()
    finally:
        woken.set()


def _check(chosen, folder):
    """Train, and return what is wrong, or None."""
    _, _, kind, _, restart = chosen
    threads = _thread._count()
    agent = make_agent(*chosen, folder)
    failure = None
    try:
        agent.learn(300, progress_bar=False)
    except (EnvError, InvalidStep) as error:
        failure = str(error)
    sentence = {**ANYWHERE, **IN_WORKERS}[kind]
    if restart and (failure or agent.metrics.get("env/restarts") != 1):
        return f"training did not go on: {failure}, {agent.metrics.get('env/restarts')} restarts"
    if not restart and not (failure and re.match("Environment 1 ", failure)):
        return f"the environment is not named: {failure}"
    if not restart and not re.search(sentence, failure):
        return f"another sentence: {failure}"
    saved = agentzoo.load(agent.run_dir)
    if saved.num_timesteps != agent.num_timesteps:
        return f"{saved.num_timesteps} steps were saved of {agent.num_timesteps}"
    before = agent.num_timesteps
    agent.learn(40, progress_bar=False, reset_num_timesteps=False)
    if agent.num_timesteps < before + 40:
        return f"the agent did not learn again: {agent.num_timesteps} steps"
    return _left_over(agent, threads)


def _left_over(agent, threads):
    """Close the environments, and return which processes and threads are left, or None."""
    agent.trainer.envs.close()
    woken.set()
    del agent
    end = time.monotonic() + 10
    while time.monotonic() < end:
        children = multiprocessing.active_children()
        if not children and _thread._count() <= threads:
            return None
        time.sleep(0.02)
    names = [thread.name for thread in (*threading.enumerate(), *background.running())]
    return f"left over: processes {children}, threads {names}"


def main():
    """Run the faults, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first run")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # JAX and Python warn of forks
    run, failed = collections.Counter(), 0
    slowest = 0.0
    for seed in range(options.first, options.first + options.runs):
        began = time.monotonic()
        # A run that hangs ends the script, which names the run.
        alarm = threading.Timer(LIMIT, lambda seed=seed: _give_up(seed))
        alarm.daemon = True
        alarm.start()
        chosen, problem = run_one(seed)
        alarm.cancel()
        alarm.join()
        slowest = max(slowest, time.monotonic() - began)
        _, place, kind, _, restart = chosen
        run[place, f"{kind}{', restart' if restart else ''}"] += 1
        if problem:
            failed += 1
            print(f"run {seed} {chosen}: {problem}", flush=True)
    for (place, kind), count in sorted(run.items()):
        print(f"{place:8} {kind:24} {count:4}")
    print(f"{options.runs - failed} of {options.runs} as they should be; slowest {slowest:.0f} s")
    sys.exit(bool(failed))


def _give_up(seed):
    print(f"run {seed} {draw(np.random.default_rng(seed))}: deadlock", flush=True)
    os._exit(1)


if __name__ == "__main__":
    main()
