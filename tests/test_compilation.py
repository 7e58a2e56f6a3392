"""What is compiled, and how often."""

import os
import platform
import resource
import threading

import jax
import pytest
from gymnasium import spaces

import agentzoo
from agentzoo import DQN, IMPALA
from tests import probes


@pytest.fixture
def compiled():
    """Names of the functions that are compiled, as it happens."""
    for thread in threading.enumerate():
        if thread.name.startswith("compile"):  # what another test began
            thread.join()
    names = []

    def listen(event, seconds, fun_name="", **_):
        if event.endswith("backend_compile_duration"):
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def parts():
    return probes.Spaced(spaces.Dict(a=spaces.Discrete(3), b=spaces.Box(-1, 1, (2, 3))))


@pytest.mark.parametrize("make", [
    lambda: DQN(parts, n_envs=2, train_freq=3, net_arch=(5,), buffer_size=99),
    lambda: IMPALA(parts, n_envs=2, n_steps=3, net_arch=(5,), recurrent="gru", recurrent_size=3),
    lambda: IMPALA(parts, n_envs=2, n_steps=3, net_arch=(6,), runner="threads", n_actors=2),
], ids=["off-policy", "memory", "threads"])  # fmt: skip
def test_each_program_is_compiled_once(make, compiled):
    make().learn(60, progress_bar=False).learn(12, progress_bar=False)
    assert compiled.count("jit(learn)") == compiled.count("jit(act)") == 1


@pytest.mark.parametrize("algorithm, env", [
    ("DQN", parts), ("QRDQN", parts), ("IMPALA", parts), ("PPO", parts), ("SAC", parts), ("SAC", "Pendulum-v1"), ("MPO", parts),
    ("MPO", "Pendulum-v1"),
])  # fmt: skip
def test_learning_keeps_the_types_of_the_first_state(algorithm, env):
    """A type that is only weak at first means that `learn` is compiled again for the second state."""
    agent = getattr(agentzoo, algorithm)(
        env, net_arch=(5,), **({} if algorithm in ("IMPALA", "PPO") else {"buffer_size": 99})
    )
    assert not any(
        getattr(leaf, "weak_type", False) for leaf in jax.tree.leaves(agent.learner_state)
    )


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ),
    reason="not ours to set",
)
def test_freed_memory_is_used_again():
    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            assert all([b"x" * 15_000_000 for _ in range(8)])  # 8 * 3,662 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert faults() < 30_000
