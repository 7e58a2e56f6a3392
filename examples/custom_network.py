"""A custom network: a Haiku function from observations to features.

The algorithm adds the layers that it needs, such as those for action values.
"""

import haiku as hk
import jax

from agentzoo import DQN, PPO, evaluate_policy


def residual(obs: jax.Array) -> jax.Array:
    """Apply two residual blocks, from observations `[N, 4]` to features `[N, 64]`."""
    x = hk.Linear(64)(obs)
    for _ in range(2):
        x = x + hk.Linear(64)(
            jax.nn.relu(hk.LayerNorm(-1, create_scale=True, create_offset=True)(x))
        )
    return x


if __name__ == "__main__":
    # DQN adds a layer for action values. PPO makes one copy of the network for the policy and one
    # for the value function, and adds a recurrent layer to each.
    for agent in (
        DQN("CartPole-v1", network=residual),
        PPO("CartPole-v1", network=residual, recurrent="gru", n_envs=4, n_steps=512),
    ):
        agent.learn(5e4)
        print(
            type(agent).__name__,
            "return: {:.1f} +- {:.1f}".format(*evaluate_policy(agent, "CartPole-v1", 20)),
        )
