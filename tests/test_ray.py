"""Actors on a Ray cluster learn as in threads, also when their processes die."""

import os
import signal
import subprocess
import sys

import gymnasium as gym
import jax
import numpy as np
import pytest

from agentzoo import DQN, IMPALA, ConfigurationError
from agentzoo.types import EnvError, InvalidStep
from tests.test_faults import Scripted

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.usefixtures("cluster")
FAST = dict(n_envs=2, n_actors=2, seed=3, n_steps=8, net_arch=(16,))


def process_of(agent, actor):
    return ray.get(
        agent.trainer.runner.actors[actor].worker.__ray_call__.remote(lambda _: os.getpid())
    )


OFF_POLICY = dict(n_envs=2, n_actors=2, learning_starts=20, net_arch=(16,), buffer_size=1_000)
KINDS = {
    "memory": (IMPALA, {**FAST, "recurrent": "lstm", "recurrent_size": 8}),
    "off-policy": (DQN, OFF_POLICY),
}


@pytest.mark.parametrize("kind", KINDS)
def test_in_turns_processes_are_threads(kind):
    cls, options = KINDS[kind]
    threads, processes = (
        cls("CartPole-v1", runner=runner, max_lag=0, **options) for runner in ("threads", "ray")
    )
    for agent in (threads, processes):
        agent.learn(150, progress_bar=False).learn(150, progress_bar=False)
    assert list(threads.trainer.episodes.rewards) == list(processes.trainer.episodes.rewards)
    jax.tree.map(np.testing.assert_array_equal, threads.params, processes.params)


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_an_actor_that_dies_is_replaced():
    agent = IMPALA("CartPole-v1", runner="ray", **FAST)
    first = []

    def kill(agent):
        if not first:
            first.extend(process_of(agent, i) for i in range(2))
        if agent.num_timesteps in (160, 800):
            os.kill(first[agent.num_timesteps == 800], signal.SIGKILL)
            assert agent.metrics["ray/replaced_actors"] == (agent.num_timesteps == 800)

    agent.learn(2_000, kill, progress_bar=False)
    assert agent.num_timesteps == 2_000 and agent.metrics["ray/replaced_actors"] == 2
    assert 0 <= agent.metrics["ray/lag"] <= 1
    assert process_of(agent, 0) != first[0] and process_of(agent, 1) != first[1]


def test_what_an_environment_raises_ends_training():
    class Breaking(gym.Env):
        observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            self.t = 0
            return np.zeros(2, np.float32), {}

        def step(self, action):
            self.t += 1
            if self.t == 50:
                raise ZeroDivisionError("the simulator is gone")
            return np.zeros(2, np.float32), 0.0, False, False, {}

    agent = IMPALA(Breaking, runner="ray", **FAST)
    with pytest.raises(
        EnvError,
        match=r"^Environment [01] at step \d+ \(step 50 of its episode 1\): step raised "
        r"ZeroDivisionError: the simulator is gone \(",
    ) as caught:
        agent.learn(1_000, progress_bar=False)
    assert type(caught.value.__cause__) is ZeroDivisionError
    assert 0 < agent.num_timesteps < 100  # what was learned before is kept


def test_wrong_data_ends_training_with_its_sentence():
    agent = IMPALA(lambda: Scripted(reward=np.nan), runner="ray", **FAST)
    with pytest.raises(
        InvalidStep,
        match=r"^Environment [01] at step \d+: the reward is nan. Expected a finite number",
    ):
        agent.learn(1_000, progress_bar=False)


def test_environments_are_made_where_actors_are():
    with pytest.raises(
        ConfigurationError,
        match=r'runner="ray" needs environments for each actor. Pass an id or a factory',
    ):
        IMPALA(gym.make("CartPole-v1"), runner="ray")
    with pytest.raises(
        ConfigurationError, match="n_envs=3 environments cannot be shared evenly between n_actors=2"
    ):
        IMPALA("CartPole-v1", runner="ray", n_envs=3, n_actors=2)


NODES = """
import os

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on the loopback interface
import ray
from ray.cluster_utils import Cluster

from agentzoo import IMPALA

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = {node.node_id: node for node in (cluster.add_node(num_cpus=2) for _ in range(2))}
cluster.wait_for_nodes()
ray.init(address=cluster.address, log_to_driver=False)
agent = IMPALA("CartPole-v1", runner="ray", n_actors=2, n_envs=2, n_steps=20, net_arch=(16,))
killed, went_on = [], []


def node(_):
    return ray.get_runtime_context().get_node_id()


def kill(agent):
    if agent.num_timesteps >= 1_000 and not killed:
        actors = agent.trainer.runner.actors
        asked = [actor.worker.__ray_call__.remote(node) for actor in actors]
        killed.append(ray.get(asked[0]))
        cluster.remove_node(nodes[killed[0]], allow_graceful=False)
    if agent.metrics.get("ray/replaced_actors"):
        went_on.append(agent.num_timesteps)
    return len(went_on) < 50


agent.learn(1e9, kill, progress_bar=False)
assert 1 <= agent.metrics["ray/replaced_actors"] <= 2, agent.metrics
print("went on")
"""


def test_a_node_that_dies():
    """Its actor dies with it, and is replaced on another node."""
    command = [sys.executable, "-c", NODES]
    done = subprocess.run(
        command,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "went on" in done.stdout, done.stderr[-3000:]
