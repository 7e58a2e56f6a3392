"""A schedule is read at the step at which a cycle began, by every agent and runner."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo import DQN, ConfigurationError, Linear
from agentzoo.callbacks import EveryNTimesteps
from agentzoo.types import Clock
from tests.agents import CATCH, SETTINGS, make


def agent_of_cycles(algorithm, runner, **options):
    """An agent that learns from its first cycle on, and the environment steps of a cycle."""
    start = {"learning_starts": 0} if "learning_starts" in SETTINGS[algorithm] else {}
    agent = make(algorithm, CATCH, runner=runner, **start, **options)
    return agent, agent.functions.unroll_length


@pytest.mark.parametrize("runner", ["host", "device"])
@pytest.mark.parametrize("algorithm", SETTINGS)
def test_three_cycles_have_the_rates_of_their_beginnings(algorithm, runner):
    agent, steps = agent_of_cycles(algorithm, runner, learning_rate=Linear(3e-4))
    logged = []
    each = EveryNTimesteps(1, lambda agent: logged.append(agent.metrics))
    agent.learn(3 * steps, each, progress_bar=False)
    rates = [metrics["train/learning_rate"] for metrics in logged]
    np.testing.assert_allclose(rates, [3e-4, 2e-4, 1e-4], rtol=1e-5)


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_a_run_of_one_cycle_learns(algorithm):
    agent, steps = agent_of_cycles(algorithm, "device", learning_rate=Linear(1e-2))
    before = jax.device_get(agent.params)
    agent.learn(steps, progress_bar=False)
    changed = jax.tree.map(lambda x, y: (x != y).any(), before, jax.device_get(agent.params))
    assert any(jax.tree.leaves(changed))


def test_other_schedules_are_read_at_the_same_step():
    ppo, steps = agent_of_cycles("PPO", "device", clip_range=Linear(0.3))
    ppo.learn(3 * steps, progress_bar=False)
    np.testing.assert_allclose(ppo.metrics["train/clip_range"], 0.1, rtol=1e-5)

    for algorithm in ("DQN", "QRDQN"):
        options = dict(exploration_fraction=1.0, exploration_final_eps=0.4)
        agent, steps = agent_of_cycles(algorithm, "device", **options)
        agent.learn(3 * steps, progress_bar=False)
        np.testing.assert_allclose(agent.metrics["rollout/exploration_rate"], 0.6, rtol=1e-5)


def test_the_clock():
    acting, learning = (Clock(*jnp.int32([30, cycle, 40])) for cycle in (0, 10))
    assert (acting.began, learning.began) == (30, 20)
    assert (acting.remaining, learning.remaining) == (0.25, 0.5)
    assert Clock(*jnp.int32([60, 10, 40])).remaining == 0


def test_a_schedule_without_a_hash_is_refused():
    class Schedule:
        def __call__(self, remaining):
            return 1e-3 * remaining

        def __eq__(self, other):
            return self is other

    with pytest.raises(ConfigurationError, match=r"^learning_rate=.* has no hash, .* __hash__"):
        DQN(CATCH, learning_rate=Schedule())
