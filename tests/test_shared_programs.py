"""Agents that differ only in numbers share their compiled programs."""

import contextlib

import jax
import numpy as np
import pytest

from agentzoo import Linear, learn_together
from agentzoo.algos.loading import find
from agentzoo.runners import kept

compiled: list[str] = []


def count(event: str, *_, **__) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        compiled.append(event)


jax.monitoring.register_event_duration_secs_listener(count)


@pytest.fixture(autouse=True)
def all_kept(monkeypatch):
    # When a structure is dropped, small programs outside of agents are compiled again, too.
    monkeypatch.setattr(kept, "MOST", 1_000)


SMALL = {"net_arch": (8,)}
OFF_POLICY = {
    **SMALL,
    "buffer_size": 200,
    "learning_starts": 8,
    "batch_size": 8,
    "train_freq": 4,
    "gradient_steps": 2,
}
SETTINGS = {
    "dqn": {**OFF_POLICY, "prioritized_replay": True},
    "qrdqn": {**OFF_POLICY, "n_quantiles": 5},
    "sac": OFF_POLICY,
    "mpo": {**OFF_POLICY, "num_samples": 4},
    "ppo": {**SMALL, "n_steps": 8, "batch_size": 16, "n_epochs": 2, "target_kl": 0.1},
    "impala": {**SMALL, "n_steps": 8},
}
# Every number of an agent with these settings, apart from learning_rate, which is a schedule.
NUMBERS = {
    "gamma": 0.9,
    "learning_starts": 12,
    "target_update_interval": 3,
    "tau": 0.4,
    "exploration_fraction": 0.7,
    "exploration_final_eps": 0.3,
    "prioritized_replay_beta0": 0.1,
    "cvar_alpha": 0.5,
    "kappa": 0.0,
    "epsilon": 0.2,
    "gae_lambda": 0.7,
    "clip_range": 0.1,
    "ent_coef": 0.02,
    "vf_coef": 0.7,
    "target_kl": 0.02,
    "vtrace_lambda": 0.7,
    "clip_rho": 0.9,
    "max_grad_norm": 0.1,
    "log_std_init": -0.5,
}


@contextlib.contextmanager
def nothing_compiles():
    before = len(compiled)
    yield
    assert len(compiled) == before, f"{len(compiled) - before} programs were compiled"


def make(algorithm, runner="auto", seed=0, **hyperparameters):
    box = algorithm in ("sac", "mpo")
    env = "Pendulum" if box else "CartPole"
    env = f"agentzoo/{env}-v0" if runner in ("device", "auto") else f"{env}-v1"
    actors = {"n_actors": 2, "max_lag": 0} if runner in ("threads", "ray") else {}
    options = {**SETTINGS[algorithm], **actors, **hyperparameters}
    return find(algorithm)(env, n_envs=2, runner=runner, seed=seed, **options)


def others(algorithm):
    """Other numbers, one of each kind that the algorithm has."""
    config = find(algorithm).Config(**SETTINGS[algorithm])
    own = {name: x for name, x in NUMBERS.items() if isinstance(getattr(config, name, ""), float)}
    counts = ("learning_starts", "target_update_interval")
    own |= {name: NUMBERS[name] for name in counts if hasattr(config, name)}
    return own | {"learning_rate": 2e-3}


@pytest.mark.parametrize("runner", ["host", "device", "threads"])
@pytest.mark.parametrize("algorithm", SETTINGS)
def test_another_agent_with_other_numbers_compiles_nothing(algorithm, runner):
    obs = np.zeros(3 if algorithm in ("sac", "mpo") else 4)
    make(algorithm, runner, learning_rate=Linear(1e-3)).learn(64, progress_bar=False).predict(obs)
    with nothing_compiles():
        agent = make(algorithm, runner, seed=1, **others(algorithm))
        agent.learn(64, progress_bar=False).predict(obs)
    assert agent.metrics["train/learning_rate"] == pytest.approx(2e-3)
    # The numbers count: without them, something else is learned.
    plain = make(algorithm, runner, seed=1).learn(64, progress_bar=False)
    leaves = zip(*(jax.tree.leaves(one.params) for one in (agent, plain)), strict=True)
    assert any((x != y).any() for x, y in leaves)


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_other_numbers_in_shared_programs_are_the_ones_that_count(algorithm):
    """An agent whose programs were compiled for another one learns what it learns alone."""
    shared = make(algorithm, **others(algorithm)).learn(64, progress_bar=False)
    jax.clear_caches()
    alone = make(algorithm, **others(algorithm)).learn(64, progress_bar=False)
    jax.tree.map(np.testing.assert_array_equal, shared.params, alone.params)


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_groups_with_other_numbers_compile_nothing(algorithm):
    def group(seed):
        more = [{}, others(algorithm)]
        return [make(algorithm, seed=seed + i, **one) for i, one in enumerate(more)]

    learn_together(group(0), 64, progress_bar=False)
    agents = group(2)
    with nothing_compiles():
        learn_together(agents, 64, progress_bar=False)
