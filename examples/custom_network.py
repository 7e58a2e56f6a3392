"""A network of your own: a Haiku function from observations to features; the algorithm adds what it needs on top."""

import haiku as hk
import jax

from agentzoo import DQN, PPO, evaluate_policy


def residual(obs: jax.Array) -> jax.Array:
    """Two residual blocks; from `[N, 4]` to `[N, 64]`."""
    x = hk.Linear(64)(obs)
    for _ in range(2):
        x = x + hk.Linear(64)(
            jax.nn.relu(hk.LayerNorm(-1, create_scale=True, create_offset=True)(x))
        )
    return x


if __name__ == "__main__":
    # Action values, and a policy and a value function with their own copy of these layers, each
    # with a memory behind them.
    for agent in (
        DQN("CartPole-v1", network=residual),
        PPO("CartPole-v1", network=residual, recurrent="gru", n_envs=4, n_steps=512),
    ):
        agent.learn(5e4)
        print(
            type(agent).__name__,
            "return: {:.1f} +- {:.1f}".format(*evaluate_policy(agent, "CartPole-v1", 20)),
        )
