"""Agents that drop updates which are not finite, and learn on: `on_nan="skip"`."""

import functools
from pathlib import Path

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import agentzoo
from agentzoo import ConfigurationError, learn_together
from agentzoo.algos import ALGORITHMS
from agentzoo.callbacks import BaseCallback
from agentzoo.checkpoint import all_finite
from agentzoo.envs import Step
from agentzoo.replay import sum_tree
from agentzoo.types import Mean, TrainingError
from tests.agents import CATCH, SETTINGS, assert_same
from tests.test_faults import BROKEN

OLD = Path(__file__).parent / "data" / "revision2"
SKIPPED, IN_A_ROW = "train/skipped_updates", "train/skipped_in_a_row"


@functools.cache
def worsened(algorithm, first=96, last=96):
    """Return an algorithm whose updates are NaN from one step of the run to another."""
    good = getattr(agentzoo, algorithm)

    def make_agent(config, spec, network=None):
        agent = good.make_agent(config, spec, network)

        def learn(state, trajectory, clock):
            state, metrics = agent.learn(state, trajectory, clock)
            bad = (clock.step >= first) & (clock.step <= last)

            def spoil(x):
                is_float = jnp.issubdtype(x.dtype, jnp.floating)
                return jnp.where(bad, jnp.nan, x) if is_float else jnp.where(bad, x + 1, x)

            parts = state._asdict().items()
            spoiled = {name: x for name, x in parts if name not in ("replay", "key")}
            losses = {tag: value for tag, value in metrics.items() if tag.endswith("loss")}
            return state._replace(**jax.tree.map(spoil, spoiled)), {
                **metrics,
                **{
                    tag: loss._replace(total=spoil(loss.total))
                    if isinstance(loss, Mean)
                    else spoil(loss)
                    for tag, loss in losses.items()
                },
            }

        return agent._replace(learn=learn)

    return type(algorithm, (good,), {"make_agent": staticmethod(make_agent)})


def make(algorithm, env=CATCH, first=96, last=96, **options):
    options = {**SETTINGS[algorithm], "n_envs": 2, "on_nan": "skip", **options}
    return worsened(algorithm, first, last)(env, **options)


def learn(agent, steps, **options):
    return agent.learn(steps, progress_bar=False, **options)


def learned(agent):
    """Return what an agent has learned, apart from its replay buffer, key and counts."""
    parts = agent.learner_state._asdict()
    return jax.device_get({k: x for k, x in parts.items() if k not in ("replay", "key", "skipped")})


class Watch(BaseCallback):
    """Keeps what an agent has learned and reported after each training cycle."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def next_step(self, step):
        return step + 1

    def _on_step(self):
        self.seen[self.num_timesteps] = learned(self.model), dict(self.model.metrics)
        return True


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_bad_update_is_dropped_and_counted(algorithm):
    agents = []
    for runner in ("host", "device"):
        agent, watch = make(algorithm, runner=runner), Watch()
        agents.append(learn(agent, 192, callback=watch))
        seen, steps = watch.seen, sorted(watch.seen)
        before, after = steps[steps.index(96) - 1], steps[steps.index(96) + 1]
        jax.tree.map(np.testing.assert_array_equal, seen[before][0], seen[96][0])
        assert seen[96][1] == {SKIPPED: 1, IN_A_ROW: 1}
        assert seen[before][1][SKIPPED] == 0 and "train/learning_rate" in seen[before][1]
        assert (seen[after][1][SKIPPED], seen[after][1][IN_A_ROW]) == (1, 0)
        changed = zip(*map(jax.tree.leaves, (seen[96][0], seen[after][0])), strict=True)
        assert any((x != y).any() for x, y in changed)
        assert all_finite(agent.learner_state) and agent.num_timesteps == 192
    assert_same(*agents, rtol=1e-4, atol=1e-5)
    assert len({int(agent.learner_state.skipped.total) for agent in agents}) == 1


@pytest.mark.parametrize("runner", ["host", "device"])
def test_without_a_bad_update_nothing_else_is_learned(runner):
    stopping, dropping = (
        learn(make("DQN", first=1_000, last=1_000, runner=runner, on_nan=on_nan), 96)
        for on_nan in ("stop", "skip")
    )
    jax.tree.map(np.testing.assert_array_equal, learned(stopping), learned(dropping))
    assert SKIPPED not in stopping.metrics and not hasattr(stopping.learner_state, "skipped")
    assert set(dropping.metrics) - set(stopping.metrics) == {SKIPPED, IN_A_ROW}


@pytest.mark.parametrize("runner", ["host", "device"])
def test_by_default_training_ends(runner):
    with pytest.raises(TrainingError, match=r"^Training ended at step 96 because train/loss is"):
        learn(make("DQN", runner=runner, on_nan="stop"), 192)


@pytest.mark.parametrize("runner", ["host", "device", "threads"])
def test_a_hundred_in_a_row_end_training(runner, tmp_path):
    agent = make("DQN", last=10_000, runner=runner)
    with pytest.raises(
        TrainingError,
        match=r"^Training ended at step 888 because the updates of 100 training cycles in a row",
    ):
        learn(agent, 3_000)
    assert all_finite(agent.params) and agent.num_timesteps >= 888
    assert int(agent.learner_state.skipped.total) >= 100
    agent.save(tmp_path / "agent")


@pytest.mark.parametrize("runner", ["host", "device"])
def test_counts_are_saved(runner, tmp_path):
    agent = learn(make("DQN", first=88, last=100, runner=runner), 96)
    agent.save(tmp_path / "agent")
    kind = type(agent)
    loaded = kind.load(tmp_path / "agent", CATCH, runner=runner, on_nan="skip")
    assert_same(agent, loaded)
    assert [int(x) for x in loaded.learner_state.skipped] == [2, 2]
    for one in (agent, loaded):
        learn(one, 32, reset_num_timesteps=False)
    assert_same(agent, loaded)
    # An agent that stops has no counts, and one that skips begins to count where there are none.
    stopping = kind.load(tmp_path / "agent", CATCH, runner=runner)
    jax.tree.map(
        np.testing.assert_array_equal, stopping.params, kind.load(tmp_path / "agent").params
    )
    stopping.save(tmp_path / "stopping")
    again = kind.load(tmp_path / "stopping", CATCH, runner=runner, on_nan="skip")
    assert [int(x) for x in again.learner_state.skipped] == [0, 0]


@pytest.mark.parametrize("path", sorted(OLD.glob("*.safetensors")), ids=lambda path: path.stem)
def test_files_without_counts(path):
    agent = agentzoo.load(path, on_nan="skip")
    assert [int(x) for x in agent.learner_state.skipped] == [0, 0]


def test_a_run_is_resumed_as_it_was_begun(tmp_path):
    agent = learn(make("DQN", run_dir=tmp_path / "run"), 48)
    plan = agent.session.plan
    assert plan is not None and plan["placement"]["on_nan"] == "skip"


def test_agents_that_learn_together():
    agents = [make("DQN", seed=seed) for seed in range(2)]
    learn_together(agents, 192, progress_bar=False)
    for seed, agent in enumerate(agents):
        assert_same(agent, learn(make("DQN", seed=seed), 192), rtol=1e-4, atol=1e-5)
        assert [int(x) for x in agent.learner_state.skipped] == [1, 0]
        assert agent.metrics[SKIPPED] == 1
    # An agent that stops does not learn in one program with one that skips.
    mixed = [make("DQN", on_nan=on_nan) for on_nan in ("skip", "stop")]
    with pytest.raises(TrainingError, match=r"^Training ended at step 96 because train/loss is"):
        learn_together(mixed, 192, progress_bar=False)
    assert mixed[0].num_timesteps == 192


def test_of_a_group_the_agent_that_skips_too_often_is_named():
    agents = [make("DQN", last=10_000, seed=seed) for seed in range(2)]
    with pytest.raises(TrainingError, match=r"number 0: .* of 100 training cycles"):
        learn_together(agents, 3_000, progress_bar=False)
    assert all_finite([agent.learner_state for agent in agents])


def test_threads_and_their_actors():
    agents = [
        learn(make("DQN", runner=runner, **options), 192)
        for runner, options in [("host", {}), ("threads", {"max_lag": 0})]
    ]
    assert_same(*agents)
    assert agents[1].metrics[SKIPPED] == 1


@pytest.mark.slow
def test_ray_and_its_actors():
    pytest.importorskip("ray")
    agent = learn(make("DQN", runner="ray", max_lag=0), 192)
    assert agent.metrics[SKIPPED] == 1 and all_finite(agent.params)


class Marked:
    """A functional environment with a number in one of its observations that a network refuses."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __repr__(self):
        return "Marked()"

    def reset(self, key):
        return (jnp.int32(0), jax.random.bernoulli(key, 0.1)), jnp.zeros(1)

    def step(self, state, action, key):
        t, is_marked = state
        obs = jnp.where(is_marked & (t == 3), 1.0, 0.1 * t)
        return (t + 1, is_marked), Step(
            jnp.full(1, obs), action.astype(jnp.float32), jnp.bool_(False), t == 4
        )


def refusing(obs):
    """A network that divides zero by zero for one observation."""
    return hk.Linear(8)(obs + 0.0 / (obs - 1.0))


@pytest.mark.parametrize("runner", ["host", "device"])
@pytest.mark.parametrize("algorithm", ["DQN", "QRDQN"])
def test_prioritised_replay_stays_whole(algorithm, runner):
    options = {**SETTINGS[algorithm], "n_steps": 1, "network": refusing}
    kind = getattr(agentzoo, algorithm)
    agent = kind(
        Marked(), prioritized_replay=True, runner=runner, on_nan="skip", n_envs=2, **options
    )
    learn(agent, 480)
    state = agent.learner_state
    assert int(state.skipped.total) > 0 and int(state.n_updates) > 0
    assert int(state.skipped.total) + int(state.n_updates) == (480 - 24) // 8
    assert all_finite(state) and float(sum_tree.total(state.replay.priorities)) > 0


@pytest.mark.parametrize("runner", ["host", "device"])
def test_wrong_data_of_an_environment_ends_training(runner):
    agent = agentzoo.DQN(BROKEN["obs"], runner=runner, n_envs=3, on_nan="skip", **SETTINGS["DQN"])
    with pytest.raises((ConfigurationError, TrainingError), match=r"^Environment \d at step"):
        learn(agent, 3_000)
    assert all_finite(agent.params)


@pytest.mark.parametrize("runner", ["host", "device"])
def test_a_second_agent_compiles_nothing(runner):
    agents = [learn(make("DQN", runner=runner, seed=seed), 64) for seed in range(2)]
    first, second = (agent.trainer.runner for agent in agents)
    programs = [
        one._chunk.compiled if runner == "device" else one.programs.learn.compiled
        for one in (first, second)
    ]
    assert programs[0] is programs[1] and programs[0]._cache_size() == 1


def test_another_choice_is_refused():
    with pytest.raises(ConfigurationError, match="on_nan='drop'"):
        make("DQN", on_nan="drop")
