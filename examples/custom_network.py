"""A network of your own: a Haiku function from observations to features; the algorithm adds its head."""

import haiku as hk
import jax

from agentzoo import DQN, evaluate_policy


def residual(obs: jax.Array) -> jax.Array:
    """Two residual blocks; from `[N, 4]` to `[N, 64]`."""
    x = hk.Linear(64)(obs)
    for _ in range(2):
        x = x + hk.Linear(64)(jax.nn.relu(hk.LayerNorm(-1, create_scale=True, create_offset=True)(x)))
    return x


if __name__ == "__main__":
    agent = DQN("CartPole-v1", network=residual).learn(5e4)
    print("Return: {:.1f} +- {:.1f}".format(*evaluate_policy(agent, "CartPole-v1", 20)))
