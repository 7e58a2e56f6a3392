"""Small agents for tests.

Tests of an algorithm should take these settings where they can. A test run then compiles few
programs, since agents of the same structure share their programs.
"""

import jax
import jax.numpy as jnp
import numpy as np

import agentzoo
from agentzoo import DQN

CATCH = "agentzoo/Catch-v0"  # runs on the host and on the device
OFF_POLICY = dict(
    learning_starts=24,
    train_freq=4,
    gradient_steps=1,
    batch_size=8,
    buffer_size=1_000,
    net_arch=(16,),
)
SETTINGS = {
    "DQN": OFF_POLICY,
    "QRDQN": {**OFF_POLICY, "n_quantiles": 5},
    "SAC": OFF_POLICY,
    "MPO": OFF_POLICY,
    "PPO": dict(
        n_steps=16,
        batch_size=16,
        n_epochs=2,
        net_arch=(16,),
        recurrent="lstm",
        recurrent_size=8,
        sequence_length=8,
    ),
    "IMPALA": dict(n_steps=16, net_arch=(16,), recurrent="gru", recurrent_size=8),
}
# A DQN for environments of all kinds.
FAST = {**OFF_POLICY, "learning_rate": 1e-3, "learning_starts": 20, "n_steps": 1}


def make(algorithm, env, **options):
    """Return a small agent of an algorithm, given by its name."""
    return getattr(agentzoo, algorithm)(env, **{**SETTINGS[algorithm], **options})


def cart_pole(**options):
    """Return a small DQN that acts in CartPole."""
    return DQN("CartPole-v1", **{**FAST, **options})


def arrays(agent):
    """Return the arrays that an agent's run consists of, with random keys as numbers."""

    def data(x):
        is_key = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(x) if is_key else x

    return jax.device_get(jax.tree.leaves(jax.tree.map(data, agent.session.run)))


def assert_same(a, b, rtol=0.0, atol=0.0):
    """Check that two agents are in the same state; by default, to the bit."""
    for x, y in zip(arrays(a), arrays(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)
