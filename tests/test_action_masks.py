"""Illegal actions in an "action_mask": no agent takes, values or learns from them."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import agentzoo
from agentzoo import ConfigurationError, evaluate_policy, networks
from agentzoo.callbacks import BaseCallback
from agentzoo.envs import Step
from agentzoo.types import Clock, EnvSpec
from tests import probes

OFF_POLICY = dict(
    n_envs=8,
    train_freq=1,
    gradient_steps=2,
    batch_size=64,
    buffer_size=4_000,
    learning_starts=500,
    gamma=0.9,
    learning_rate=3e-3,
    net_arch=(32,),
    n_steps=1,
)
EPSILON = dict(exploration_fraction=0.7, exploration_final_eps=0.0, target_update_interval=50)
ON_POLICY = dict(n_envs=8, n_steps=16, gamma=0.9, net_arch=(32,), learning_rate=3e-3)
SETTINGS = {
    "DQN": {**OFF_POLICY, **EPSILON},
    "QRDQN": {**OFF_POLICY, **EPSILON, "n_quantiles": 8},
    "SAC": {**OFF_POLICY, "ent_coef": 0.02},
    "MPO": {**OFF_POLICY, "target_update_interval": 20},
    "PPO": {**ON_POLICY, "batch_size": 64, "n_epochs": 4, "gae_lambda": 1.0},
    "IMPALA": {
        **ON_POLICY,
        "vtrace_lambda": 1.0,
        "normalize_reward": False,
        "learning_rate": 1e-2,
        "n_steps": 4,
    },
}
VARIANTS = {
    **{name: (name, {}) for name in SETTINGS},
    "DQN, without double Q-learning": ("DQN", dict(double_q=False)),
    "DQN, noisy": ("DQN", dict(noisy=True, dueling=True, prioritized_replay=True)),
    "QRDQN, without double Q-learning": ("QRDQN", dict(double_q=False)),
    "QRDQN, averse to risk": ("QRDQN", dict(cvar_alpha=0.5)),
    "SAC, normalised": ("SAC", dict(normalize_obs=True, prioritized_replay=True)),
    "MPO, Retrace": ("MPO", dict(retrace=True, n_steps=4, normalize_obs=True)),
    "PPO, with memory": (
        "PPO",
        dict(recurrent="gru", recurrent_size=8, sequence_length=8, normalize_obs=True),
    ),
}


def make(algorithm, env, **options):
    return getattr(agentzoo, algorithm)(env, **{**SETTINGS[algorithm], **options})


def variant(name, env, **options):
    algorithm, own = VARIANTS[name]
    return make(algorithm, env, **own, **options)


@dataclass(frozen=True)
class Random:
    """Random sets of legal actions, and an empty set at the end of an episode.

    The reward of an illegal action is 1, and that of a legal action is 0.
    """

    observation_space = spaces.Dict(x=spaces.Box(0, 1, (2,)), action_mask=spaces.MultiBinary(4))
    action_space = spaces.Discrete(4, start=1)

    def observe(self, mask, over):
        return {
            "x": mask[:2].astype(jnp.float32),
            "action_mask": jnp.where(over, 0, mask).astype(jnp.int8),
        }

    def draw(self, key):
        mask_key, one_key = jax.random.split(key)
        some = jax.random.bernoulli(mask_key, 0.4, (4,))
        return some.at[jax.random.randint(one_key, (), 0, 4)].set(True)

    def reset(self, key):
        mask = self.draw(key)
        return (mask, jnp.int32(0)), self.observe(mask, False)

    def step(self, state, action, key):
        mask, t = state
        illegal, mask, over = ~mask[action - 1], self.draw(key), t + 1 == 4
        return (mask, t + 1), Step(
            self.observe(mask, over), illegal.astype(jnp.float32), over, jnp.bool_(False)
        )


@dataclass(frozen=True)
class Fork:
    """Two steps. In the second step, actions 0, 1, 2 and 3 have the rewards 0, 1, 3 and 100.

    The first observation tells two kinds of episodes apart. In the second step, both kinds look the
    same, but action 2 is legal in only one of them, and action 3 is legal in neither. So the values
    of the first step, 0.9 and 2.7, depend on which actions are legal in the second step.
    """

    size: int = 2

    @property
    def observation_space(self):
        x = spaces.Box(-1, 1, (self.size,))
        return spaces.Dict(x=x, action_mask=spaces.Box(0, 1, (4,), np.int8))

    action_space = spaces.Discrete(4)

    def observe(self, kind, t):
        x = (
            jnp.zeros(self.size)
            .at[:2]
            .set(jnp.stack([jnp.where(t == 0, kind, 0), jnp.where(t == 0, 0, 1)]))
        )
        legal = jnp.array([1, 1, 0, 0]).at[2].set(kind == 1)
        return {
            "x": x.astype(jnp.float32),
            "action_mask": jnp.where(t == 2, 0, legal).astype(jnp.int8),
        }

    def reset(self, key):
        state = jnp.where(jax.random.bernoulli(key), 1, -1), jnp.int32(0)
        return state, self.observe(*state)

    def step(self, state, action, key):
        kind, t = state
        reward = jnp.where(t == 1, jnp.array([0.0, 1.0, 3.0, 100.0])[action], 0.0)
        return (kind, t + 1), Step(self.observe(kind, t + 1), reward, t == 1, jnp.bool_(False))

    def seen(self, kind, t):
        return jax.device_get(self.observe(jnp.int32(kind), jnp.int32(t)))


class Returns(BaseCallback):
    """Collects the returns of all episodes."""

    def __init__(self):
        super().__init__()
        self.returns = []

    def _on_step(self):
        self.returns.extend(episode.reward for episode in self.locals["episodes"])
        return True


# How agents act does not depend on double Q-learning.
ACTING = [name for name in VARIANTS if "double" not in name]
CELLS = [*((name, "device") for name in ACTING), *((name, "host") for name in SETTINGS)]


@pytest.mark.parametrize(("name", "runner"), CELLS)
def test_illegal_actions_are_never_taken(name, runner):
    """No illegal action occurs in the warm-up, in training or in evaluation."""
    agent, seen = variant(name, Random(), runner=runner), Returns()
    agent.learn(1_600, seen, progress_bar=False)
    assert len(seen.returns) > 350 and not np.any(seen.returns)
    assert np.isfinite(list(agent.metrics.values())).all()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(agent.params)))
    for deterministic in (True, False):
        assert evaluate_policy(agent, Random(), 50, deterministic=deterministic) == (0.0, 0.0)
        mask = np.tile(np.int8([0, 1, 0, 1]), (500, 1))
        actions, _ = agent.predict(
            {"x": np.zeros((500, 2)), "action_mask": mask}, deterministic=deterministic
        )
        assert set(np.unique(actions)) <= {2, 4}  # the space starts at 1


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_learned_ignores_illegal_actions(name):
    env = Fork(20) if name == "DQN" else Fork()  # large observations are stored in another way
    agent = variant(name, env, seed=1)
    agent.learn(12_000, progress_bar=False)
    for kind, best in ((-1, 1), (1, 2)):
        assert agent.predict(env.seen(kind, 1), deterministic=True)[0] == best
    first = [env.seen(kind, 0) for kind in (-1, 1)]
    if not hasattr(agent, "value"):
        np.testing.assert_allclose(agent.values(first[0])[:2], 0.9, atol=0.2)
        np.testing.assert_allclose(agent.values(first[1])[:3], 2.7, atol=0.4)
        np.testing.assert_allclose(agent.values(env.seen(1, 1))[:3], [0, 1, 3], atol=0.3)
    elif name != "PPO, with memory":
        np.testing.assert_allclose([agent.value(obs) for obs in first], [0.9, 2.7], atol=0.3)


@pytest.mark.parametrize("name", ["DQN", "QRDQN", "QRDQN, averse to risk", "SAC", "MPO"])
def test_illegal_actions_have_no_value(name):
    agent = variant(name, Fork())
    one, batch = Fork().seen(-1, 1), jax.tree.map(lambda x: np.stack([x, x]), Fork().seen(1, 1))
    assert np.isneginf(agent.values(one)).tolist() == [False, False, True, True]
    assert np.isneginf(agent.values(batch)).tolist() == [[False, False, False, True]] * 2
    if hasattr(agent, "quantiles"):
        assert np.isneginf(agent.quantiles(one)).all(axis=1).tolist() == [False, False, True, True]
        assert np.isfinite(agent.quantiles(one)[:2]).all()


@pytest.mark.parametrize("algorithm", ["DQN", "QRDQN", "SAC", "MPO"])
def test_random_actions_are_uniform_over_the_legal_ones(algorithm):
    agent = make(algorithm, Random(), learning_starts=10)
    mask = np.tile(np.int8([1, 0, 1, 1]), (30_000, 1))
    obs = {"x": np.zeros((30_000, 2), np.float32), "action_mask": mask}
    a, *_ = jax.jit(agent.functions.act)(
        agent.params, (), obs, jax.random.key(0), Clock(*jnp.int32([0, 0, 100]))
    )
    np.testing.assert_allclose(
        np.bincount(a, minlength=4) / len(a), [1 / 3, 0, 1 / 3, 1 / 3], atol=0.01
    )


def test_uniform_action():
    u = np.linspace(0, 1, 7, dtype=np.float32)  # rounding can produce 1
    assert networks.uniform_action(u, 3, None).tolist() == [0, 0, 1, 1, 2, 2, 2]
    legal = np.tile([False, True, False, True, True], (7, 1))
    assert networks.uniform_action(u, 5, legal).tolist() == [1, 1, 3, 3, 4, 4, 4]


def test_the_mask_is_no_input_of_the_network():
    for algorithm in SETTINGS:
        agent = make(algorithm, Fork())
        leaves = jax.tree.leaves(jax.device_get(agent.params))
        assert {leaf.shape[-2] for leaf in leaves if leaf.ndim > 1} == {2, 32}, algorithm
        seen = []

        def network(obs):
            seen.append(set(obs))  # noqa: B023
            return obs["x"]

        make(algorithm, Fork(), network=network)
        assert seen and all(names == {"x"} for names in seen), algorithm


def test_statistics_leave_the_mask_alone():
    for algorithm in ("SAC", "MPO"):
        agent = make(algorithm, Fork(), normalize_obs=True).learn(100, progress_bar=False)
        [mean] = agent.params.obs_statistics.mean
        assert mean.shape == (2,) and agent.params.obs_statistics.count == 104


@dataclass(frozen=True)
class Forced:
    """Only one of four actions is legal."""

    observation_space = spaces.Dict(x=spaces.Box(0, 1, (1,)), action_mask=spaces.MultiBinary(4))
    action_space = spaces.Discrete(4)

    def reset(self, key):
        return (), {"x": jnp.zeros(1), "action_mask": jnp.array([0, 1, 0, 0], jnp.int8)}

    def step(self, state, action, key):
        return (), Step(self.reset(key)[1], 0.0, jnp.bool_(False), jnp.bool_(False))


def test_the_target_entropy_of_sac_counts_legal_actions():
    agent = make("SAC", Forced(), ent_coef="auto", learning_starts=0).learn(160, progress_bar=False)
    # With one legal action, entropy and target are both 0, so the coefficient stays at 1.
    np.testing.assert_allclose(agent.metrics["train/ent_coef"], 1, rtol=1e-6)
    agent = make("SAC", Forced(), ent_coef="auto", learning_starts=0, target_entropy=0.5)
    assert agent.learn(160, progress_bar=False).metrics["train/ent_coef"] > 1.01


def test_the_behaviour_of_a_warm_up_is_uniform_over_the_legal_actions():
    agent = make("MPO", Fork(), retrace=True, n_steps=2)
    obs = jax.tree.map(lambda x: np.stack([x, x]), Fork().seen(1, 1))
    _, _, extras = jax.jit(agent.functions.act)(
        agent.params, (), obs, jax.random.key(0), Clock(*jnp.int32([0, 0, 100]))
    )
    np.testing.assert_allclose(extras["log_prob"], -np.log(3), rtol=1e-6)


def masked(actions=None, **parts):
    class Env(probes.Probe):
        observation_space = spaces.Dict(**parts)
        action_space = actions or spaces.Discrete(2)

    return Env


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_masks_that_do_not_fit_are_refused(algorithm):
    make_agent, x = functools.partial(getattr(agentzoo, algorithm)), spaces.Discrete(2)
    with pytest.raises(ConfigurationError, match=r"expected MultiBinary\(2\)"):
        make_agent(masked(action_mask=spaces.MultiBinary(3), x=x))
    with pytest.raises(ConfigurationError, match="nothing but"):
        make_agent(masked(action_mask=spaces.MultiBinary(2)))
    if "Box" in getattr(agentzoo, algorithm).action_spaces:
        with pytest.raises(
            ConfigurationError, match=r"Box.*cannot be masked. Give .* another name"
        ):
            make_agent(masked(spaces.Box(-1, 1, (2,)), action_mask=spaces.MultiBinary(2), x=x))


@pytest.mark.parametrize("space, mask, legal", [
    (spaces.Discrete(3), [0, 0, 0], [1, 1, 1]),
    (spaces.MultiDiscrete([2, 3]), [0, 0, 0, 2, 0], [1, 1, 0, 1, 0]),
    (spaces.MultiBinary(3), [0, 0, 0], [0, 0, 0]),
], ids=str)  # fmt: skip
def test_where_nothing_is_legal_everything_is(space, mask, legal):
    observations = spaces.Dict(
        x=spaces.Discrete(2), action_mask=spaces.Box(0, 2, (len(mask),), np.int8)
    )
    masks = networks.action_masks(EnvSpec(observations, space, 1))
    seen = masks.split({"x": np.zeros((2, 1)), "action_mask": np.tile(mask, (2, 1, 1))})
    assert set(seen.obs) == set(masks.space.spaces) == {"x"}
    np.testing.assert_array_equal(seen.legal, np.tile(np.array(legal, bool), (2, 1, 1)))
