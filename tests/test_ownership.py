"""What a user was given stays valid while the agent learns on."""

import contextlib
import re
import threading

import jax
import numpy as np
import pytest

from agentzoo import ConfigurationError, learn_together
from agentzoo.runners.programs import InPlace
from tests.agents import CATCH, SETTINGS, make

RUNNERS = ("host", "device", "threads")


def copies(tree):
    return jax.tree.map(np.array, tree)


def assert_equal(tree, expected):
    jax.tree.map(np.testing.assert_array_equal, copies(tree), expected)


def differ(one, other):
    return any(
        (x != y).any() for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("algorithm", SETTINGS)
def test_parameters_stay_readable(algorithm, runner, tmp_path):
    agent = make(algorithm, CATCH, n_envs=2, runner=runner)
    kept = []

    def keep(model):
        kept.append((model.params, copies(model.params)))

    def learn(agent):
        keep(agent)
        agent.learn(96, keep, progress_bar=False, reset_num_timesteps=False)

    learn(agent)
    loaded = type(agent).load(agent.save(tmp_path / "agent"), CATCH, runner=runner)
    learn(loaded)
    assert differ(kept[0][1], kept[-1][1]), "nothing was learned"
    for params, expected in kept:
        assert_equal(params, expected)


@pytest.mark.parametrize("runner", ["host", "device"])
@pytest.mark.parametrize("algorithm", SETTINGS)
def test_learning_copies_only_the_parameters(algorithm, runner, monkeypatch):
    """The optimiser's state and the target network stay where they are in memory."""
    programs, original = [], InPlace.arguments

    def shape(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype)

    def record(self, state, *arguments):
        if not programs:
            programs.append(original(self, *jax.tree.map(shape, (state, *arguments))))
        return original(self, state, *arguments)

    monkeypatch.setattr(InPlace, "arguments", record)
    agent = make(algorithm, CATCH, runner=runner, net_arch=(37, 41)).learn(16, progress_bar=False)
    learn = agent.trainer.programs.learn if runner == "host" else agent.trainer.runner._chunk
    text = learn.prepare(programs[0]).compile().as_text()
    main = text[text.index("ENTRY") :]
    # Policy and value, or policy and critics, have a matrix of this shape each.
    copies = re.findall(r"= f32\[(?:2,)?37,41\]\S* copy\(", main)
    assert len(copies) <= (1 if "DQN" in algorithm else 2)


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_parameters_of_agents_that_learn_together_stay_readable(algorithm):
    agents = [make(algorithm, CATCH, seed=seed) for seed in range(2)]
    for _ in range(2):
        before = [(agent.params, copies(agent.params)) for agent in agents]
        learn_together(agents, 64, progress_bar=False)
        assert differ(before[0][1], copies(agents[0].params))
        for params, expected in before:
            assert_equal(params, expected)


@contextlib.contextmanager
def while_learning(agent, task):
    """Call `task` in another thread, again and again, as long as the agent learns.

    Yields:
      A callback that ends the training when the task has run at several steps.

    Raises:
      AssertionError: if `task` raised anything, or did not run while the agent was learning.
    """
    over, calls, errors = threading.Event(), [], []

    def repeat():
        try:
            while not over.is_set():
                task()
                calls.append(agent.num_timesteps)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield lambda agent: len(set(calls)) < 4 and not errors
    finally:
        over.set()
        thread.join()
    assert not errors, errors
    assert len(set(calls)) > 1, "the task did not run while the agent was learning"


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("algorithm", SETTINGS)
def test_another_thread_may_predict(algorithm, runner):
    agent = make(algorithm, CATCH, n_envs=2, runner=runner)
    ask = (
        agent.values
        if hasattr(agent, "values") and "values" in agent.trainer.programs.queries
        else agent.value
    )
    obs = np.zeros((2, 10, 5), np.float32)

    def predict():
        action, _ = agent.predict(obs)
        assert action.shape == (2,) and np.isfinite(ask(obs)).all()

    predict()  # which compiles
    with while_learning(agent, predict) as callback:
        agent.learn(1e6, callback, progress_bar=False)


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("algorithm", SETTINGS)
def test_another_thread_may_save(algorithm, runner, tmp_path):
    agent = make(algorithm, CATCH, n_envs=2, runner=runner)
    saved = []

    def save():
        path = agent.save(tmp_path / f"{len(saved)}")
        saved.append(type(agent).load(path).num_timesteps)

    with while_learning(agent, save) as callback:
        agent.learn(1e6, callback, progress_bar=False)
    assert saved == sorted(saved) and 0 < max(saved) <= agent.num_timesteps
    save()
    assert saved[-1] == agent.num_timesteps


def test_another_thread_may_save_agents_that_learn_together(tmp_path):
    agents = [make("DQN", CATCH, seed=seed) for seed in range(2)]
    saved = []

    def save():
        path = agents[1].save(tmp_path / "agent")
        loaded = type(agents[1]).load(path)
        saved.append((loaded.num_timesteps, int(loaded.learner_state.replay.cursor[0])))

    with while_learning(agents[1], save):
        learn_together(agents, 4_000, log_interval=100, progress_bar=False)
    assert len(set(saved)) > 2 and all(cursor == step % 1_000 for step, cursor in saved)


def test_an_agent_learns_in_one_place_at_a_time():
    agent, refused = make("DQN", CATCH), []

    def refuse():
        with pytest.raises(ConfigurationError, match="learning already"):
            agent.learn(8, progress_bar=False)
        with pytest.raises(ConfigurationError, match="learning already"):
            learn_together([agent], 8, progress_bar=False)
        refused.append(agent.num_timesteps)

    def learn(agent):
        refuse()
        thread = threading.Thread(target=refuse)
        thread.start()
        thread.join()
        agent.save("agent")
        return False

    agent.learn(100, learn, progress_bar=False)
    assert refused == [4, 4]
    assert agent.learn(100, progress_bar=False).num_timesteps == 100


def test_what_fails_in_another_threads_turn_is_raised_there(tmp_path):
    agent = make("DQN", CATCH)
    errors = []

    def save():
        with pytest.raises(ConfigurationError, match="exclude='nothing'") as error:
            agent.save(tmp_path / "agent", exclude=["nothing"])
        errors.append(error)

    with while_learning(agent, save):
        agent.learn(2_000, progress_bar=False)
    assert errors and agent.num_timesteps == 2_000
