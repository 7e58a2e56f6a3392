"""A user's own network in every agent."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agentzoo import DQN, IMPALA, MPO, PPO, QRDQN, SAC, ConfigurationError
from tests import probes

OFF_POLICY = dict(
    learning_starts=4, train_freq=4, gradient_steps=1, batch_size=8, buffer_size=100, net_arch=(8,)
)
ON_POLICY = dict(n_steps=8, recurrent_size=4)
AGENTS = {
    "dqn": (DQN, OFF_POLICY),
    "qrdqn": (QRDQN, {**OFF_POLICY, "dueling": True}),
    "sac": (SAC, {**OFF_POLICY, "normalize_obs": True}),
    "mpo": (MPO, OFF_POLICY),
    "ppo": (PPO, {**ON_POLICY, "batch_size": 8, "recurrent": "gru", "share_layers": True}),
    "impala": (IMPALA, ON_POLICY),
}
SPACE = spaces.Dict(image=spaces.Box(0, 255, (5, 5, 2), np.uint8), speed=spaces.Box(-1, 1, (3,)))


def mine(obs):
    image = jax.nn.relu(hk.Linear(4, name="mine")(hk.Flatten()(obs["image"]) / 255.0))
    return jnp.tanh(hk.Linear(6)(jnp.concatenate([image, obs["speed"]], axis=-1)))


def env_of(name):
    class Env(probes.Spaced):
        action_space = spaces.Box(-1, 1, (1,)) if name in ("sac", "mpo") else spaces.Discrete(2)

        def check(self, action):
            return float(np.squeeze(action))

        def reward(self, action):
            return action

    return lambda: Env(SPACE)


def mines(agent):
    """Return the parameters of the user's layers, by their paths."""
    return {
        jax.tree_util.keystr(path): np.array(x)
        for path, x in jax.tree_util.tree_leaves_with_path(agent.params)
        if "mine" in str(path)
    }


@pytest.mark.learning
@pytest.mark.parametrize("name", AGENTS)
def test_it_is_learned_and_loaded(name, tmp_path):
    algorithm, options = AGENTS[name]
    agent = algorithm(env_of(name), network=mine, **options)
    before = mines(agent)
    agent.learn(64, progress_bar=False)
    after = mines(agent)
    # Policy and value each have the user's layers, unless they share them.
    own = 1 if algorithm in (DQN, QRDQN) or options.get("share_layers") else 2
    assert len(before) == 2 * own and all((before[part] != after[part]).any() for part in before)
    path = agent.save(tmp_path / "agent")
    with pytest.raises(ConfigurationError, match=r"network=\.\.\."):
        algorithm.load(path)
    jax.tree.map(np.testing.assert_array_equal, mines(algorithm.load(path, network=mine)), after)


@pytest.mark.parametrize("algorithm", [DQN, PPO])
@pytest.mark.parametrize(
    "network, message",
    [
        (
            lambda obs: obs[:, 0],
            r"returns an array of shape \(1,\) for 1 observation\(s\). Return features \[1, F\]",
        ),
        (lambda obs: obs[..., None], r"an array of shape \(1, 4, 1\)"),
        (lambda obs: hk.nets.MLP([8]), "returns MLP"),
        ("mlp", "network='mlp'; expected a function"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_makes_no_features_is_refused_before_training(algorithm, network, message):
    with pytest.raises(ConfigurationError, match=message):
        algorithm("CartPole-v1", network=network)
