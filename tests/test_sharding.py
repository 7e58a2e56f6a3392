"""Training on four simulated devices, compared with training on one device."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import agentzoo
from agentzoo import ConfigurationError, learn_together

CATCH = "agentzoo/Catch-v0"
OFF_POLICY = dict(
    learning_starts=24,
    train_freq=4,
    gradient_steps=2,
    batch_size=8,
    buffer_size=400,
    net_arch=(16,),
)
SETTINGS = {
    "DQN": dict(OFF_POLICY, prioritized_replay=True, n_steps=3),
    "QRDQN": dict(OFF_POLICY, n_quantiles=5),
    "SAC": OFF_POLICY,
    "MPO": dict(OFF_POLICY, n_steps=2, retrace=True),
    "PPO": dict(n_steps=16, batch_size=32, n_epochs=2, net_arch=(16,)),
    "IMPALA": dict(n_steps=8, net_arch=(16,), recurrent="gru", recurrent_size=8),
}


def make(algorithm, n_devices, **options):
    options = {"n_envs": 4, "n_devices": n_devices, **SETTINGS[algorithm], **options}
    return getattr(agentzoo, algorithm)(CATCH, **options)


def check_equal(found, expected):
    """Check that two agents are equal, except for rounding: the order of sums differs."""
    for x, y in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


def num_devices(agent):
    return len(jax.tree.leaves(agent.params)[0].sharding.device_set)


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_the_same_agent_comes_out(algorithm):
    one, four = (
        make(algorithm, n_devices, runner="host").learn(128, progress_bar=False)
        for n_devices in (1, 4)
    )
    assert (num_devices(one), num_devices(four)) == (1, 4)
    check_equal(four, one)
    trajectory = four.trainer.runner.actor.rollout(
        four.params, four.trainer.run.key, 0, 0, 1
    ).trajectory
    program = four.trainer.programs.learn.lower(
        four.learner_state, trajectory, np.array([128, 4, 128], np.int32)
    ).compile()
    assert "all-reduce" in program.as_text(), "each of them has computed everything"


def test_each_device_does_a_part_of_the_work():
    def flops(n_devices):
        agent = make("IMPALA", n_devices, runner="host", net_arch=(128, 128), recurrent=None)
        agent.trainer.runner.reset()
        trajectory = agent.trainer.runner.actor.rollout(
            agent.params, agent.trainer.run.key, 0, 0, 1
        ).trajectory
        program = agent.trainer.programs.learn.lower(
            agent.learner_state, trajectory, np.array([128, 4, 128], np.int32)
        ).compile()
        return program.cost_analysis()["flops"]

    assert flops(4) < 0.5 * flops(1)


@pytest.mark.parametrize("algorithm", ["DQN", "PPO"])
def test_compiled_environments_are_shared_too(algorithm, tmp_path):
    one, four = (
        make(algorithm, n_devices, runner="device").learn(128, progress_bar=False)
        for n_devices in (1, 4)
    )
    obs = four.trainer.runner.rollout_state.obs  # [4, ...], one environment for each device
    assert obs.sharding.shard_shape(obs.shape)[0] == 1
    check_equal(four, one)
    again = agentzoo.load(four.save(tmp_path / "four"), CATCH, n_devices=4)
    check_equal(
        *(agent.learn(64, progress_bar=False, reset_num_timesteps=False) for agent in (again, one))
    )
    assert num_devices(again) == 4


def test_numbers_that_no_device_count_divides():
    """The number of devices must divide batches, but not the number of environments."""
    check_equal(
        *(
            make("DQN", n_devices, n_envs=3, runner="device").learn(96, progress_bar=False)
            for n_devices in (1, 4)
        )
    )
    with pytest.raises(
        ConfigurationError,
        match=r"batch of 6 cannot be shared equally between 4 devices\. Choose batch_size",
    ):
        make("DQN", 4, batch_size=6).learn(96, progress_bar=False)
    with pytest.raises(ConfigurationError, match=r"batch of 3 .* for IMPALA, n_envs"):
        make("IMPALA", 4, n_envs=3).learn(96, progress_bar=False)


def test_with_threads_and_together():
    """Devices also share batches with acting threads, and if several agents learn together."""
    one, four = (
        make("PPO", n_devices, runner="threads", max_lag=0).learn(128, progress_bar=False)
        for n_devices in (1, 4)
    )
    check_equal(four, one)
    alone = [make("SAC", 1, seed=seed).learn(64, progress_bar=False) for seed in range(2)]
    together = [make("SAC", 4, seed=seed) for seed in range(2)]
    learn_together(together, 64, progress_bar=False)
    for found, expected in zip(together, alone, strict=True):
        check_equal(found, expected)


@pytest.mark.parametrize("n_devices", [0, 5, 2.5, "every"])
def test_what_is_no_number_of_devices(n_devices):
    with pytest.raises(ConfigurationError, match="n_devices="):
        make("DQN", n_devices)


def test_all_devices():
    assert num_devices(make("DQN", "all")) == 4


def test_importing_leaves_the_devices_to_be_chosen():
    """Importing must not start JAX's devices: `jax.distributed.initialize` has to come first."""
    code = (
        "import agentzoo, jax; jax.config.update('jax_num_cpu_devices', 3); "
        "assert jax.device_count() == 3"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )


HOST = """
import sys
import agentzoo, jax
from tests.test_sharding import CATCH, check_equal, make, num_devices

jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
agent = make("PPO", "all", runner="device", log_dir=f"logs_{jax.process_index()}")
agent.learn(256, progress_bar=False)
assert len(jax.local_devices()) == 2 and num_devices(agent) == 4
agent.save(f"agent_{jax.process_index()}")
agent.learn(128, progress_bar=False, reset_num_timesteps=False)
again = agentzoo.load(f"agent_{jax.process_index()}", CATCH, n_devices="all")
check_equal(again.learn(128, progress_bar=False, reset_num_timesteps=False), agent)
try:
    make("PPO", "all", runner="host")
except Exception as error:
    assert "let one host learn and the others act" in str(error), error
else:
    raise AssertionError("Python environments on several hosts")
"""


def test_two_hosts(tmp_path):
    """Two hosts save, and continue with, the same agent as one host."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    command = [sys.executable, "-c", HOST, address]
    hosts = [
        subprocess.Popen([*command, str(i)], env={**os.environ, **environment}, cwd=tmp_path)
        for i in range(2)
    ]
    try:
        assert [host.wait(timeout=300) for host in hosts] == [0, 0]
    finally:
        for host in hosts:
            host.kill()
    one = make("PPO", 1, runner="device").learn(256, progress_bar=False)
    for i in range(2):
        check_equal(agentzoo.load(tmp_path / f"agent_{i}"), one)
