"""Sessions: what a saved file holds, and files of earlier versions."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import agentzoo
from agentzoo import DQN, PPO
from agentzoo.runners.counters import LIMIT, ActCounters, ChunkCounters, LearnCounters
from tests import probes

OLD = Path(__file__).parent / "data" / "revision2"
SMALL = dict(net_arch=(4,), buffer_size=200, learning_starts=10, batch_size=8)


@pytest.mark.parametrize("counters", [ActCounters, LearnCounters, ChunkCounters])
def test_counters_come_out_of_a_vector_as_they_went_in(counters):
    given = counters(*range(1, 1 + len(counters._fields)))
    assert counters.unpack(given.pack()) == given
    assert given.pack().dtype == np.int32


def test_calls_are_counted_beyond_32_bits():
    assert ActCounters(1, 2, LIMIT + 3).pack().tolist() == [1, 2, 3]
    assert ChunkCounters(1, 2, LIMIT + 3, 4).pack().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("algorithm", ["dqn", "qrdqn", "sac", "mpo", "ppo", "impala"])
def test_agents_of_an_earlier_version_learn_on_exactly(algorithm):
    """The files hold compiled environments in mid-episode, and names that are other ones today."""
    agent = agentzoo.load(OLD / algorithm, agentzoo.load(OLD / algorithm).env_id)
    assert agent.num_timesteps == 64 and agent.n_envs == 2
    agent.learn(64, progress_bar=False, reset_num_timesteps=False)
    sums = [float(np.abs(np.asarray(x)).sum()) for x in jax.tree.leaves(agent.params)]
    expected = json.loads((OLD / "params.json").read_text())[algorithm]
    np.testing.assert_allclose(sums, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("runner", ["host", "device"])
def test_a_session_holds_statistics_of_episodes(runner, tmp_path):
    agent = PPO("agentzoo/CartPole-v0", runner=runner, n_envs=2, n_steps=64, batch_size=128)
    agent.learn(400, progress_bar=False)
    loaded = PPO.load(agent.save(tmp_path / "agent"), "agentzoo/CartPole-v0", runner=runner)
    episodes, before = loaded.session.episodes, agent.session.episodes
    assert episodes.to_json() == before.to_json() and len(before.rewards) > 4
    assert loaded.ep_rew_mean == agent.ep_rew_mean
    loaded.learn(100, progress_bar=False)
    assert loaded.session.episodes.rewards != before.rewards  # a new run begins without any


def test_infos_are_part_of_the_statistics(tmp_path):
    agent = DQN(probes.Informed, info_keywords="speed", **SMALL).learn(50, progress_bar=False)
    loaded = DQN.load(agent.save(tmp_path / "agent"))
    assert loaded.session.episodes.infos == agent.session.episodes.infos
    assert loaded.session.episodes.infos.keys() == {"speed", "is_success"}


def test_the_state_of_a_learner_can_be_replaced():
    agent = DQN("CartPole-v1", **SMALL)
    state = agent.learner_state
    zeros = jax.tree.map(np.zeros_like, state.params)
    agent.learner_state = state._replace(params=zeros)
    assert not agent.values(np.zeros(4)).any()
    assert agent.session.run.learner_state is agent.learner_state


def test_importing_changes_nothing_in_the_process():
    """Making an agent may: afterwards, JAX runs programs in the thread that calls them."""
    code = """
import os, jax
before = dict(jax.config.values), dict(os.environ)
import agentzoo, agentzoo.algos.ppo, agentzoo.cli, agentzoo.runners.ray_actors
agentzoo.DQN, agentzoo.learn_together, agentzoo.callbacks, agentzoo.core
assert (dict(jax.config.values), dict(os.environ)) == before
agentzoo.DQN("CartPole-v1", net_arch=(4,), buffer_size=100)
changed = [name for name, value in before[0].items() if jax.config.values[name] != value]
assert changed == ["jax_cpu_enable_async_dispatch"], changed
"""
    subprocess.run([sys.executable, "-c", code], check=True)
