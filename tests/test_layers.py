"""Hidden layers: layer normalisation, residual blocks, dropout, and activation functions."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import agentzoo
from agentzoo import SAC, ConfigurationError
from agentzoo.networks import Layers, NoisyLinear, mlp, q_head
from tests.agents import CATCH, OFF_POLICY, make

X = np.random.default_rng(0).normal(2, 3, (6, 4)).astype(np.float32)


def apply(sizes, layers, key=None, linear=hk.Linear):
    """Apply layers with random parameters to X. Returns parameters and features."""
    network = hk.transform(lambda x: mlp(x, sizes, layers, linear))
    params = network.init(jax.random.key(0), X)
    # Haiku's biases and offsets begin at 0, which would hide where they are added.
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(structure, leaves)
    return jax.tree.map(np.float64, params), jax.jit(network.apply)(params, key, X)


def linear(x, layer):
    return x @ layer["w"] + layer["b"]


def normalized(x, layer):
    centred = x - x.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    return layer["scale"] * centred / deviation + layer["offset"]


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def test_layer_norm_is_before_each_activation():
    params, y = apply((5, 3), Layers("elu", layer_norm=True))
    x = elu(normalized(linear(X, params["linear"]), params["layer_norm"]))
    x = elu(normalized(linear(x, params["linear_1"]), params["layer_norm_1"]))
    np.testing.assert_allclose(y, x, rtol=1e-4, atol=1e-5)


def test_only_the_first_layer_is_normalised():
    params, y = apply((5, 3), Layers("elu", layer_norm="first"))
    x = np.tanh(normalized(linear(X, params["linear"]), params["layer_norm"]))
    np.testing.assert_allclose(y, elu(linear(x, params["linear_1"])), rtol=1e-4, atol=1e-5)
    assert params.keys() == {"linear", "layer_norm", "linear_1"}


def test_residual_blocks():
    params, y = apply((5, 5, 3), Layers("relu", residual=True))
    number = iter(["", *(f"_{i}" for i in range(1, 9))])
    norm = iter(["", *(f"_{i}" for i in range(1, 4))])

    def next_linear(x):
        return linear(x, params[f"linear{next(number)}"])

    def next_norm(x):
        return normalized(x, params[f"layer_norm{next(norm)}"])

    x = next_linear(X)
    for size in (5, 5, 3):
        x = next_linear(x) if x.shape[1] != size else x
        wide = next_linear(next_norm(x))
        assert wide.shape == (6, 4 * size)
        x = x + next_linear(np.maximum(wide, 0))
    np.testing.assert_allclose(y, next_norm(x), rtol=1e-4, atol=1e-5)
    assert not [*number][1:] and not [*norm]


@pytest.mark.parametrize("residual", [False, True])
def test_without_layers_features_stay_as_they_are(residual):
    params, y = apply((), Layers("relu", layer_norm=True, residual=residual))
    assert not params and (y == X).all()


def test_dropout():
    layers = Layers("tanh", dropout=0.25)
    params, y = apply((4_000,), layers, jax.random.key(3))
    x = linear(X, params["linear"])
    dropped = y == 0
    assert dropped.mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_allclose(y[~dropped], np.tanh(x[~dropped] / 0.75), rtol=1e-3, atol=1e-5)
    _, without_key = apply((4_000,), layers)
    np.testing.assert_allclose(without_key, np.tanh(x), rtol=1e-3, atol=1e-5)


def test_noisy_residual_blocks():
    params, _ = apply((5,), Layers("relu", residual=True), linear=NoisyLinear)
    assert params.keys() == {
        *("noisy_linear", "noisy_linear_1", "noisy_linear_2"),
        *("layer_norm", "layer_norm_1"),
    }


@pytest.mark.parametrize("net_arch", [(8, 8), (8,)])
def test_the_head_of_dqn_is_first_only_without_layers_before(net_arch):
    agent = make("DQN", CATCH, net_arch=net_arch, layer_norm="first", dueling=True)
    # Each of the two streams begins with the first layer if there is no layer before.
    count = sum("layer_norm" in name for name in agent.learner_state.params)
    assert count == (1 if len(net_arch) == 2 else 2)


def test_streams_of_a_head():
    def head(x):
        return q_head(x, 3, (5,), Layers("relu", layer_norm=True), dueling=True, noisy=False)

    params = hk.transform(head).init(jax.random.key(0), X)
    assert [name for name in params if "norm" in name] == ["layer_norm", "layer_norm_1"]


OPTIONS = {
    "layer_norm": dict(layer_norm=True, activation="elu"),
    "first": dict(layer_norm="first"),
    "residual": dict(residual=True),
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("algorithm", ["DQN", "QRDQN", "IMPALA", "PPO", "SAC", "MPO"])
def test_every_agent_learns_with_every_kind_of_layers(algorithm, options, tmp_path):
    agent = make(algorithm, CATCH, net_arch=(16, 16), **OPTIONS[options])
    before = jax.device_get(agent.learner_state.params)
    agent.learn(64, progress_bar=False)
    norms = [
        (path, jnp.abs(new - old).max())
        for (path, old), new in zip(
            jax.tree.leaves_with_path(before),
            jax.tree.leaves(agent.learner_state.params),
            strict=True,
        )
        if "layer_norm" in jax.tree_util.keystr(path)
    ]
    assert norms and all(change > 0 for _, change in norms)
    agent.save(tmp_path / "agent")
    loaded = agentzoo.load(tmp_path / "agent", CATCH)
    obs, _ = agent.get_env().reset(seed=0)
    assert agent.predict(obs, deterministic=True)[0] == loaded.predict(obs, deterministic=True)[0]


CRITICS = {
    "REDQ": dict(n_critics=4, n_target_critics=2, actor_q="mean"),
    "DroQ": dict(critic_dropout=0.01, layer_norm=True, actor_q="mean", gradient_steps=2),
}


@pytest.mark.parametrize("env", [CATCH, "Pendulum-v1"])
@pytest.mark.parametrize("options", CRITICS)
def test_ensembles_of_critics(options, env):
    agent = SAC(env, **{**OFF_POLICY, **CRITICS[options]}).learn(64, progress_bar=False)
    obs, _ = agent.get_env().reset(seed=0)
    action = () if env == CATCH else (np.zeros((1, 1), np.float32),)
    first, second = agent.values(obs, *action), agent.values(obs, *action)  # without dropout
    assert np.isfinite(first).all() and (first == second).all()


def test_more_target_critics_than_critics_are_refused():
    with pytest.raises(ConfigurationError, match="n_target_critics=3 is more than n_critics=2"):
        SAC("Pendulum-v1", n_target_critics=3)
    with pytest.raises(ConfigurationError, match=r"critic_dropout=1.0 .* from 0 to 0.99"):
        SAC("Pendulum-v1", critic_dropout=1)
