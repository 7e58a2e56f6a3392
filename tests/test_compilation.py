"""Which programs are compiled, and how often."""

import os
import platform

import jax
import pytest
from gymnasium import spaces

import agentzoo
from agentzoo import DQN, IMPALA, background
from tests import probes


@pytest.fixture
def compiled():
    """The names of the functions that are compiled, in a list that grows."""
    for thread in background.running():
        if thread.name == "compile":  # what another test began
            thread.wait()
    names = []

    def listen(event, seconds, fun_name="", **_):
        if event.endswith("backend_compile_duration"):
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def parts():
    return probes.Spaced(spaces.Dict(a=spaces.Discrete(3), b=spaces.Box(-1, 1, (2, 3))))


SMALL = {"n_envs": 2, "net_arch": (5,)}
ONCE = {
    "off-policy": lambda: DQN(parts, train_freq=3, buffer_size=99, **SMALL),
    "memory": lambda: IMPALA(parts, n_steps=3, recurrent="gru", recurrent_size=3, **SMALL),
    "threads": lambda: IMPALA(parts, n_steps=3, runner="threads", n_actors=2, **SMALL),
}


@pytest.mark.parametrize("kind", ONCE)
def test_each_program_is_compiled_once(kind, compiled):
    ONCE[kind]().learn(60, progress_bar=False).learn(12, progress_bar=False)
    assert compiled.count("jit(learn_packed)") == compiled.count("jit(act_packed)") == 1


FIRST_STATES = [
    *((algorithm, parts) for algorithm in ("DQN", "QRDQN", "IMPALA", "PPO", "SAC", "MPO")),
    *((algorithm, "Pendulum-v1") for algorithm in ("SAC", "MPO")),
]


@pytest.mark.parametrize(("algorithm", "env"), FIRST_STATES)
def test_no_type_in_the_first_state_is_weak(algorithm, env):
    """JAX would compile `learn` again for the second state, whose types are not weak."""
    replay = {} if algorithm in ("IMPALA", "PPO") else {"buffer_size": 99}
    agent = getattr(agentzoo, algorithm)(env, net_arch=(5,), **replay)
    assert not any(
        getattr(leaf, "weak_type", False) for leaf in jax.tree.leaves(agent.learner_state)
    )


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ),
    reason="not ours to set",
)
def test_freed_memory_is_used_again():
    resource = pytest.importorskip("resource")  # which Windows does not have

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            assert all([b"x" * 15_000_000 for _ in range(8)])  # 8 * 3,662 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert faults() < 30_000
