"""What a process holds does not grow with the number of agents, runs, and saved files."""

import _thread
import gc
import os
import weakref
from pathlib import Path

import jax
import pytest

import agentzoo
from agentzoo import PPO, ConfigurationError
from agentzoo.runners import kept
from tests import agents
from tests.agents import CATCH

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="reads what Linux says about the process"
)
TINY = dict(n_steps=4, batch_size=4, n_epochs=1)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(kept, "_kept", type(kept._kept)())


def train(width, runner):
    return PPO(CATCH, runner=runner, net_arch=(width,), **TINY).learn(8, progress_bar=False)


@pytest.mark.parametrize("runner", ["host", "device"])
def test_programs_of_agents_that_are_gone_are_freed(runner, monkeypatch):
    monkeypatch.setattr(kept, "MOST", 1)
    agent = train(8, runner)
    programs = [weakref.ref(agent.trainer.programs.learn.compiled)]
    programs.append(weakref.ref(agent.trainer.programs.act.program))
    if runner == "device":
        programs.append(weakref.ref(agent.trainer.runner._chunk.compiled))
    del agent
    gc.collect()
    assert all(program() is not None for program in programs)  # they are kept for another agent
    train(9, runner)
    gc.collect()
    assert all(program() is None for program in programs)


@pytest.mark.slow
def test_many_structures_take_no_more_mappings_than_a_few(monkeypatch):
    monkeypatch.setattr(kept, "MOST", 2)
    used = []
    for width in range(8, 20):
        for runner in ("host", "device"):
            train(width, runner)
        gc.collect()
        used.append(kept.mappings())
    assert used[1] > used[0] + 100  # programs take mappings
    assert max(used[7:]) < 1.05 * max(used[2:7])


@pytest.mark.parametrize("runner", ["host", "device"])
def test_agents_in_use_keep_their_programs(runner, monkeypatch, caplog):
    monkeypatch.setattr(kept, "MOST", 1)

    def learn_on(agent):
        caplog.clear()
        with jax.log_compiles():
            agent.learn(8, progress_bar=False, reset_num_timesteps=False)
        return "Compiling" in caplog.text

    agent = train(8, runner)
    learn_on(agent)
    other = PPO(CATCH, runner=runner, net_arch=(9,), **TINY)
    assert learn_on(other)  # the programs of the first agent are no longer kept
    assert not learn_on(agent)


def test_the_traces_of_structures_that_were_dropped_are_freed(monkeypatch):
    from jax._src.interpreters import partial_eval

    monkeypatch.setattr(kept, "MOST", 1)
    train(8, "host")
    train(9, "host")
    first = partial_eval.trace_to_jaxpr.cache_info().currsize
    for width in (10, 11, 12):
        train(width, "host")
    assert partial_eval.trace_to_jaxpr.cache_info().currsize < first + 10


def test_the_oldest_programs_make_room_if_mappings_run_out(monkeypatch):
    calls = []
    function = kept.kept(lambda x: calls.append(x) or [x])
    most = 1_000
    monkeypatch.setattr(kept, "most_mappings", lambda: most)
    # Each result that is kept takes 40 mappings, as far as this test goes.
    monkeypatch.setattr(kept, "mappings", lambda: 40 * len(kept._kept))
    assert [function(x) for x in range(20)] == [[x] for x in range(20)]
    assert 40 * len(kept._kept) <= most / 2 + 40
    function(19)
    assert calls == list(range(20))
    function(0)
    assert calls[-1] == 0  # it was the oldest


def test_a_process_that_is_full_says_so(monkeypatch):
    monkeypatch.setattr(kept, "mappings", lambda: 60_000)
    monkeypatch.setattr(kept, "most_mappings", lambda: 65_530)
    with pytest.raises(
        ConfigurationError,
        match=r"has 60,000 memory mappings, and the system allows 65,530\. .*; delete agents",
    ):
        train(8, "host")


def holdings():
    gc.collect()
    return len(os.listdir("/proc/self/fd")), _thread._count()


@pytest.mark.parametrize("runner", ["host", "device", "threads"])
def test_many_agents_runs_and_files_leave_nothing_behind(runner, tmp_path):
    def once():
        agent = agents.make("DQN", CATCH, runner=runner, log_dir=tmp_path)
        for _ in range(2):
            agent.learn(32, progress_bar=False)
        agentzoo.load(agent.save(tmp_path / "saved"), CATCH, runner=runner).learn(
            32, progress_bar=False
        )
        return weakref.ref(agent.trainer)

    once()
    before, mappings = holdings(), kept.mappings()
    trainers = [once() for _ in range(8)]
    assert holdings() == before
    assert kept.mappings() < mappings + 100
    assert not any(trainer() is not None for trainer in trainers)
