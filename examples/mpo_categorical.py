"""MPO on a categorical action space: learn the slippery frozen lake off-policy.

The lake is small enough that its transition table is known, so the script can compute the value of
every policy and compare the learned policy with the optimum. The learner sees only transitions from
random states and actions, as a large replay buffer would hold them.
"""

import argparse
from typing import NamedTuple

import gymnasium as gym
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from agentzoo import core

GAMMA, BATCH, TARGET_PERIOD = 0.99, 128, 20

# Transition probabilities [S, A, S], rewards [S, A, S], and whether the episode goes on [S].
TABLE = gym.make("FrozenLake-v1", is_slippery=True).unwrapped.P
NUM_STATES, NUM_ACTIONS = len(TABLE), len(TABLE[0])
PROBS, REWARDS = np.zeros((2, NUM_STATES, NUM_ACTIONS, NUM_STATES), np.float32)
CONTINUES = np.ones(NUM_STATES, np.float32)
for s, a in np.ndindex(NUM_STATES, NUM_ACTIONS):
    for prob, s_t, r_t, terminated in TABLE[s][a]:
        PROBS[s, a, s_t] += prob
        REWARDS[s, a, s_t] = r_t
        CONTINUES[s_t] = 1 - terminated
PROBS, REWARDS, CONTINUES = map(jnp.asarray, (PROBS, REWARDS, CONTINUES))
OBSERVATIONS = jnp.eye(NUM_STATES)  # one-hot


class Networks(NamedTuple):
    """Parameters of the policy network and the critic."""

    policy: hk.Params
    critic: hk.Params


class Batch(NamedTuple):
    """A batch of transitions, `[B, ...]`."""

    obs_tm1: jax.Array
    a_tm1: jax.Array
    r_t: jax.Array
    discount_t: jax.Array
    obs_t: jax.Array


network = hk.without_apply_rng(hk.transform(lambda obs: hk.nets.MLP([64, NUM_ACTIONS])(obs)))
optimizer = optax.multi_transform(
    {"networks": optax.adam(1e-3), "duals": optax.adam(1e-2)}, ("networks", "duals")
)


def loss(
    params: tuple[Networks, core.CategoricalMpoDuals], target: Networks, batch: Batch
) -> tuple[jax.Array, core.CategoricalMpoStatistics]:
    """Return the critic's loss plus MPO's loss, both with targets from the target networks."""
    online, duals = params
    probs_t = jax.nn.softmax(network.apply(target.policy, batch.obs_t))
    q_tm1 = network.apply(online.critic, batch.obs_tm1)
    q_t = network.apply(target.critic, batch.obs_t)
    errors = core.expected_sarsa(q_tm1, batch.a_tm1, batch.r_t, batch.discount_t, q_t, probs_t)
    critic_loss = core.l2_loss(errors).mean()
    policy_loss, statistics = core.categorical_mpo_loss(
        online_logits=network.apply(online.policy, batch.obs_tm1),
        target_logits=network.apply(target.policy, batch.obs_tm1),
        q_values=network.apply(target.critic, batch.obs_tm1),
        duals=duals,
        epsilon=0.1,
        epsilon_kl=0.01,
    )
    return critic_loss + policy_loss, statistics


def transitions(key: jax.Array) -> Batch:
    """Sample a batch of transitions from random states and actions."""
    state_key, action_key, next_key = jax.random.split(key, 3)
    s_tm1 = jax.random.choice(state_key, NUM_STATES, (BATCH,), p=CONTINUES / CONTINUES.sum())
    a_tm1 = jax.random.randint(action_key, (BATCH,), 0, NUM_ACTIONS)
    s_t = jax.random.categorical(next_key, jnp.log(PROBS[s_tm1, a_tm1]))
    return Batch(
        OBSERVATIONS[s_tm1],
        a_tm1,
        REWARDS[s_tm1, a_tm1, s_t],
        GAMMA * CONTINUES[s_t],
        OBSERVATIONS[s_t],
    )


def learn(key: jax.Array, num_steps: int) -> tuple[Networks, core.CategoricalMpoStatistics]:
    """Return the networks after `num_steps` gradient updates, and the last update's statistics."""
    policy_key, critic_key, batch_key = jax.random.split(key, 3)
    online = Networks(
        network.init(policy_key, OBSERVATIONS), network.init(critic_key, OBSERVATIONS)
    )
    params = (online, core.CategoricalMpoDuals.init(temperature=1.0, alpha=1.0))

    def step(carry, inputs):
        params, target, opt_state = carry
        i, key = inputs
        gradients, statistics = jax.grad(loss, has_aux=True)(params, target, transitions(key))
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        params = optax.apply_updates(params, updates)
        target = optax.periodic_update(params[0], target, i, TARGET_PERIOD)
        return (params, target, opt_state), statistics

    inputs = (jnp.arange(1, num_steps + 1), jax.random.split(batch_key, num_steps))
    (params, _, _), statistics = jax.lax.scan(
        step, (params, online, optimizer.init(params)), inputs
    )
    return params[0], jax.tree.map(lambda x: x[-1], statistics)


def start_value(probs: jax.Array) -> jax.Array:
    """Return the exact value of the first state under a policy `[S, A]`."""
    expected_rewards = jnp.sum(PROBS * REWARDS, axis=-1)
    # Probability [S, S] of each next state in which the episode goes on.
    following = jnp.einsum("sa,sat->st", probs, PROBS) * CONTINUES
    return jnp.linalg.solve(
        jnp.eye(NUM_STATES) - GAMMA * following, jnp.sum(probs * expected_rewards, axis=-1)
    )[0]


def best_policy() -> jax.Array:
    """Return the optimal policy `[S, A]`, by value iteration."""

    def improve(_, q):
        return jnp.sum(PROBS * (REWARDS + GAMMA * CONTINUES * q.max(axis=-1)), axis=-1)

    q = jax.lax.fori_loop(0, 1000, improve, jnp.zeros((NUM_STATES, NUM_ACTIONS)))
    return jax.nn.one_hot(q.argmax(axis=-1), NUM_ACTIONS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="number of gradient updates")
    steps = parser.parse_known_args()[0].steps

    networks, statistics = jax.jit(learn, static_argnums=1)(jax.random.key(0), steps)
    value = start_value(jax.nn.softmax(network.apply(networks.policy, OBSERVATIONS)))
    best = start_value(best_policy())
    uniform = start_value(jnp.full((NUM_STATES, NUM_ACTIONS), 1 / NUM_ACTIONS))
    print("  ".join(f"{name} {float(x):.3g}" for name, x in statistics._asdict().items()))
    print(f"Value of the start: {value:.3f}. Optimum: {best:.3f}. Random actions: {uniform:.3f}.")
    assert steps < 2000 or value > 0.95 * best
