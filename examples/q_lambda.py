"""Q(lambda) with a small network, written with operators, Haiku and Optax.

It solves Catch in seconds.
"""

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from agentzoo import core
from agentzoo.envs import Catch

EPISODES, LAMBDA, GAMMA, EPSILON = 32, 0.9, 0.99, 0.1

env = Catch()  # every episode has `env.rows - 1` steps
network = hk.without_apply_rng(
    hk.transform(
        lambda obs: hk.nets.MLP([64, env.action_space.n])(obs.reshape(*obs.shape[:-2], -1))
    )
)
optimizer = optax.adam(3e-3)


def play(params, epsilon, key):
    """Return one episode `[T, ...]`, with discounts that are 0 at its end."""

    def step(carry, key):
        state, obs_tm1 = carry
        action_key, step_key = jax.random.split(key)
        a_tm1 = core.epsilon_greedy(epsilon).sample(action_key, network.apply(params, obs_tm1))
        state, after = env.step(state, a_tm1, step_key)
        return (state, after.obs), (obs_tm1, a_tm1, after.reward, 1.0 - after.terminated, after.obs)

    reset_key, key = jax.random.split(key)
    _, episode = jax.lax.scan(step, env.reset(reset_key), jax.random.split(key, env.rows - 1))
    return episode


def play_many(params, epsilon, key):
    """Return many episodes, `[T, EPISODES, ...]`."""
    return jax.vmap(play, (None, None, 0), out_axes=1)(
        params, epsilon, jax.random.split(key, EPISODES)
    )


def loss(params, episodes):
    obs_tm1, a_tm1, r_t, not_over, obs_t = episodes
    errors = core.q_lambda(
        network.apply(params, obs_tm1),
        a_tm1,
        r_t,
        GAMMA * not_over,
        network.apply(params, obs_t),
        LAMBDA,
    )
    return jnp.mean(core.l2_loss(errors))


@jax.jit
def train(params, keys):
    """Make one update per key, all in one compiled program."""

    def update(carry, key):
        params, opt_state = carry
        grads = jax.grad(loss)(params, play_many(params, EPSILON, key))
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.lax.scan(update, (params, optimizer.init(params)), keys)
    return params


def main(updates=300, seed=0):
    init_key, train_key, test_key = jax.random.split(jax.random.key(seed), 3)
    params = network.init(init_key, jnp.zeros(env.observation_space.shape))
    params = train(params, jax.random.split(train_key, updates))
    rewards = play_many(params, 0.0, test_key)[2]
    return float(rewards.sum(0).mean())


if __name__ == "__main__":
    print(f"Mean return of the greedy policy: {main():.2f}")
