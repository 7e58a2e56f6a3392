"""Compiled programs take hyperparameters that are numbers as arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agentzoo.algos.loading import find
from agentzoo.config import Linear, make_config, numbers_of, structure_of, with_numbers
from agentzoo.elements import zeros
from agentzoo.types import Clock, EnvSpec, Trajectory, resolve_metrics

NUM_ENVS = 2
OBSERVATIONS = spaces.Box(-1, 1, (3,), np.float32)
DISCRETE = EnvSpec(OBSERVATIONS, spaces.Discrete(3), NUM_ENVS)
BOX = EnvSpec(OBSERVATIONS, spaces.Box(-2, 2, (2,), np.float32), NUM_ENVS)

SMALL = {"net_arch": (8,)}
OFF_POLICY = {
    **SMALL,
    "learning_starts": 3,
    "buffer_size": 64,
    "batch_size": 8,
    "train_freq": 4,
    "gradient_steps": 2,
}
ON_POLICY = {**SMALL, "n_steps": 4}
PRIORITIZED = {"prioritized_replay": True, "prioritized_replay_alpha": 0.7}
SYNC = {"target_update_interval": 2, "tau": 0.3}
VARIANTS = {
    "dqn-prioritized": ("dqn", DISCRETE, {**OFF_POLICY, **PRIORITIZED, **SYNC}),
    "dqn-noisy": ("dqn", DISCRETE, {**OFF_POLICY, "noisy": True, "double_q": False}),
    "qrdqn-risk": ("qrdqn", DISCRETE, {**OFF_POLICY, **SYNC, "cvar_alpha": 0.3, "kappa": 0.0}),
    "qrdqn-prioritized": ("qrdqn", DISCRETE, {**OFF_POLICY, **PRIORITIZED, "noisy": True}),
    "sac-schedule": ("sac", BOX, {**OFF_POLICY, "learning_rate": Linear(1e-3), "ent_coef": 0.1}),
    "sac-delayed": ("sac", BOX, {**OFF_POLICY, "policy_delay": 2, "target_update_interval": 2}),
    "sac-normalized": ("sac", BOX, {**OFF_POLICY, **PRIORITIZED, "normalize_obs": True}),
    "sac-discrete": ("sac", DISCRETE, {**OFF_POLICY, "target_entropy": 0.4}),
    "mpo-unpenalized": ("mpo", BOX, {**OFF_POLICY, "action_penalty": False}),
    "mpo-retrace": ("mpo", BOX, {**OFF_POLICY, "retrace": True, "n_steps": 2, "noise_steps": 4}),
    "mpo-discrete": ("mpo", DISCRETE, {**OFF_POLICY, "learning_rate": Linear(1e-3, 1e-4)}),
    "mpo-target": ("mpo", DISCRETE, {**OFF_POLICY, "target_update_interval": 2}),
    "ppo-schedules": (
        "ppo",
        BOX,
        {
            **ON_POLICY,
            "batch_size": 4,
            "n_epochs": 2,
            "learning_rate": Linear(1e-3),
            "clip_range": Linear(0.3, 0.1),
            "clip_range_vf": Linear(0.5),
            "ent_coef": Linear(0.1),
            "target_kl": 0.01,
            "normalize_obs": True,
            "normalize_reward": True,
        },
    ),
    "ppo-recurrent": (
        "ppo",
        BOX,
        {
            **ON_POLICY,
            "batch_size": 8,
            "n_epochs": 2,
            "recurrent": "lstm",
            "recurrent_size": 4,
            "clip_range_vf": 0.2,
            "state_dependent_std": True,
        },
    ),
    "impala": ("impala", DISCRETE, ON_POLICY),
    "impala-rmsprop": (
        "impala",
        BOX,
        {**ON_POLICY, "optimizer": "rmsprop", "recurrent": "gru", "recurrent_size": 4},
    ),
}


def rollout(spec, length, extras, memory):
    """A trajectory `[T, N]` of random observations and rewards, with one end of an episode."""
    key = jax.random.key(1)

    def observed(key):
        return jax.random.uniform(key, (length, NUM_ENVS, 3), jnp.float32, -1.0, 1.0)

    actions = zeros(spec.action_space, length, NUM_ENVS)
    last_t = jnp.zeros((length, NUM_ENVS), bool).at[1, 0].set(True)
    return Trajectory(
        obs_tm1=observed(jax.random.fold_in(key, 0)),
        a_tm1=actions,
        r_t=jax.random.normal(jax.random.fold_in(key, 1), (length, NUM_ENVS), jnp.float32),
        discount_t=1.0 - last_t.astype(jnp.float32),
        obs_t=observed(jax.random.fold_in(key, 2)),
        last_t=last_t,
        first_tm1=jnp.roll(last_t, 1, axis=0),
        mask=jnp.ones((length, NUM_ENVS), bool),
        extras=jax.tree.map(lambda x: jnp.broadcast_to(x, (length, *x.shape)), extras),
        memory=memory,
    )


def cycle(agent, spec, number, state):
    """Act, and learn from one trajectory; return the new state, and everything else."""
    length = agent.unroll_length
    total = 10 * length * NUM_ENVS
    memory, obs = agent.initial_memory(NUM_ENVS), jnp.full((NUM_ENVS, 3), 0.5, jnp.float32)
    key, step = jax.random.key(number), number * length * NUM_ENVS
    acting = Clock(step, jnp.int32(0), jnp.int32(total))
    action, _, extras = agent.act(state.params, memory, obs, key, acting)
    learning = Clock(step, jnp.int32(length * NUM_ENVS), jnp.int32(total))
    state, metrics = agent.learn(state, rollout(spec, length, extras, memory), learning)
    predicted = agent.predict(state.params, memory, obs, key, False)
    asked = agent.queries["value" if "value" in agent.queries else "values"]
    arguments = () if "value" in agent.queries or hasattr(spec.action_space, "n") else (action,)
    return state, (action, predicted, metrics, asked(state.params, obs, *arguments))


def make_run(make, spec):
    """Compile a run of two cycles, of the agent that `make` makes of the run's arguments."""
    init = jax.jit(lambda *numbers: make(*numbers).init(jax.random.key(0)))
    learn = jax.jit(lambda number, state, *numbers: cycle(make(*numbers), spec, number, state))

    def run(*numbers):
        state = init(*numbers)
        before, outcomes = state.params, []
        for number in (1, 2):
            state, outcome = learn(jnp.int32(number), state, *numbers)
            outcomes.append(outcome)
        return before, state.params, outcomes

    return run


@pytest.mark.parametrize("name", VARIANTS)
def test_a_program_that_takes_the_numbers_does_the_same_as_one_that_holds_them(name):
    algorithm, spec, hyperparameters = VARIANTS[name]
    cls = find(algorithm)
    config = make_config(cls.Config, hyperparameters)
    structure, numbers = structure_of(config), numbers_of(config)
    traces = []

    def make_traced(numbers):
        traces.append(1)
        return cls.make_agent(with_numbers(structure, numbers), spec)

    with_arguments = make_run(make_traced, spec)
    expected = make_run(lambda: cls.make_agent(config, spec), spec)()
    found = with_arguments(numbers)
    assert jax.tree.structure(expected) == jax.tree.structure(found)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(found), strict=True
    ):
        assert (x.dtype, x.shape) == (y.dtype, y.shape), path
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6, err_msg=jax.tree_util.keystr(path))
    before, after, _ = jax.device_get(expected)
    moved = jax.tree.map(lambda x, y: bool((x != y).any()), before, after)
    assert any(jax.tree.leaves(moved)), "the test is about agents that learn"
    other = make_config(cls.Config, {**hyperparameters, "gamma": 0.5})
    changed = with_arguments(numbers_of(other))
    assert structure_of(other) == structure
    assert len(traces) == 2, "one trace of each program"
    assert any(
        (x != y).any() for x, y in zip(*map(jax.tree.leaves, (found[1], changed[1])), strict=True)
    )


def test_metrics_are_numbers_whatever_the_program_takes():
    cls, (_, spec, hyperparameters) = find("dqn"), VARIANTS["dqn-noisy"]
    config = make_config(cls.Config, hyperparameters)
    structure = structure_of(config)
    run = make_run(lambda numbers: cls.make_agent(with_numbers(structure, numbers), spec), spec)
    metrics = resolve_metrics(run(numbers_of(config))[2][-1][2])
    assert metrics["train/learning_rate"] == pytest.approx(0.0009)
