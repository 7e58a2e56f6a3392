"""Actors on a Ray cluster learn as in threads, also when their processes die."""

import os
import pathlib
import signal
import subprocess
import sys
import time

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


FAULTS = """
import os, signal, sys, threading, time

import gymnasium as gym
import numpy as np
import ray

from agentzoo import IMPALA
from agentzoo.runners import ray_actors, ray_link
from agentzoo.types import TrainingError

ray_link.HEAD_PATIENCE, ray_actors.MOST_FAILURES = 2.0, 2
ray_actors.PATIENCE = 120.0


class Faulty(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        if os.path.exists("fault"):
            os.kill(os.getpid(), int(open("fault").read()))
        return np.zeros(2, np.float32), 0.0, False, False, {}


def pid_of(name):
    (pid,) = (int(pid) for pid in os.listdir("/proc") if pid.isdigit() and is_ours(pid, name))
    return pid


def is_ours(pid, name):
    try:
        status = open(f"/proc/{pid}/status").read()
        mark = os.environ["FAULTS_OF"].encode() in open(f"/proc/{pid}/environ", "rb").read()
    except OSError:
        return False
    return mark and status.split()[1] == name


folder = os.getcwd()


def make():
    os.chdir(folder)
    return Faulty()


options = dict(runner="ray", n_actors=1, n_envs=1, n_steps=10, net_arch=(16,))
agent = IMPALA(make, **options)


def expect(text, begin):
    began = []

    def callback(agent):
        if len(began) == 5:
            begin()
        began.append(agent.num_timesteps)

    try:
        agent.learn(1e9, callback, progress_bar=False)
    except TrainingError as error:
        assert text in str(error), error
        print(error)
    else:
        raise AssertionError("it went on")
    assert agent.num_timesteps >= began[-1]
    agent.save("saved")  # the agent has survived, and can be saved
    if os.path.exists("fault"):
        os.remove("fault")


def fault(number):
    with open("fault", "w") as file:
        file.write(str(int(number)))


expect("failed 2 times in a row", lambda: fault(signal.SIGKILL))
expect("the raylet) has ended", lambda: os.kill(pid_of("raylet"), signal.SIGKILL))
expect("the head of the Ray cluster", lambda: os.kill(pid_of("gcs_server"), signal.SIGKILL))


agent.learn(200, progress_bar=False)
actors = agent.trainer.runner.actors
ray.get(actors[0]._standby._worker.stand_by.remote())  # it is ready
for actor in actors:
    actor._seconds = 10.0


def hang(agent):
    if agent.num_timesteps == 100:
        fault(signal.SIGSTOP)
        threading.Timer(1.0, os.remove, ["fault"]).start()
    return not agent.metrics["ray/replaced_actors"]


agent.learn(1e9, hang, progress_bar=False)
print("all faults")
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="looks for processes")
def test_whatever_dies_training_ends_with_a_sentence(tmp_path):
    """The agent survives workers that always die or hang, Ray's local process, and the head."""
    mark = f"faults-{os.getpid()}"
    done = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "FAULTS_OF": mark},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and "all faults" in done.stdout, done.stdout + done.stderr[-3000:]
    for _ in range(200):  # Ray's agents end by themselves when their raylet has ended
        left = [one for one in pathlib.Path("/proc").glob("[0-9]*/environ") if marked(one, mark)]
        if not left:
            return
        time.sleep(0.2)
    names = [one.with_name("cmdline").read_text().rstrip("\0").split("\0") for one in left]
    raise AssertionError(f"processes are left behind: {names}")


def marked(environment, mark):
    try:
        return mark.encode() in environment.read_bytes()
    except OSError:
        return False
