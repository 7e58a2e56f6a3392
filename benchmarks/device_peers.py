"""The peers of device.py, which runs this script in an environment with rejax and gymnax.

    python benchmarks/device_peers.py '["rejax", "PPO", 100000, {"n_envs": 8, ...}]'

"purejax" is a loop like PureJaxRL's: environment, network and optimiser in one scan, and nothing
else. The script prints the seconds of two runs, the first with compilation, and the mean return of
100 episodes of the trained policy. The versions are rejax 0.1.3 and gymnax 0.0.9.
"""

import json
import sys
import time

import distrax
import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax
import rejax
from rejax.evaluate import evaluate
from rejax.networks import DiscreteQNetwork, EpsilonGreedyPolicy

ENV, ENV_PARAMS = gymnax.make("CartPole-v1")


def rejax_run(algorithm: str, steps: int, settings: dict):
    """Return a function `(key) -> state` that trains, and a function `(state) -> policy`."""
    common = {
        "env": "CartPole-v1",
        "total_timesteps": steps,
        "eval_freq": steps,
        "skip_initial_evaluation": True,
        "gamma": settings["gamma"],
        "learning_rate": settings["learning_rate"],
    }
    if algorithm == "PPO":
        agent = rejax.PPO.create(
            **common,
            num_envs=settings["n_envs"],
            num_steps=settings["n_steps"],
            num_epochs=settings["n_epochs"],
            num_minibatches=settings["n_envs"] * settings["n_steps"] // settings["batch_size"],
            gae_lambda=settings["gae_lambda"],
            ent_coef=0.0,
            max_grad_norm=0.5,
            agent_kwargs={"hidden_layer_sizes": (64, 64), "activation": "tanh"},
        )
    else:
        # rejax learns after each step of all environments. So two environments and one update
        # correspond to train_freq=256 and gradient_steps=128.
        num_envs = settings["train_freq"] // settings["gradient_steps"]
        agent = rejax.DQN.create(
            **common,
            num_envs=num_envs,
            num_epochs=1,
            buffer_size=settings["buffer_size"],
            fill_buffer=settings["learning_starts"],
            batch_size=settings["batch_size"],
            target_update_freq=settings["target_update_interval"],
            polyak=0.0,
            exploration_fraction=settings["exploration_fraction"],
            eps_end=settings["exploration_final_eps"],
            max_grad_norm=10.0,
        )
        network = EpsilonGreedyPolicy(DiscreteQNetwork)(
            hidden_layer_sizes=settings["net_arch"], action_dim=2, activation=nn.relu
        )
        agent = agent.replace(agent=network)
    agent = agent.replace(eval_callback=lambda algo, ts, rng: ())
    train = jax.jit(lambda key: agent.train(key)[0])
    return train, lambda state: agent.make_act(state)


class ActorCritic(nn.Module):
    """Separate networks of two hidden layers for the policy and for the value."""

    @nn.compact
    def __call__(self, obs):
        outputs = []
        for size, scale in ((2, 0.01), (1, 1.0)):
            x = obs
            for _ in range(2):
                x = nn.tanh(nn.Dense(64, kernel_init=nn.initializers.orthogonal(2**0.5))(x))
            outputs.append(nn.Dense(size, kernel_init=nn.initializers.orthogonal(scale))(x))
        return distrax.Categorical(outputs[0]), outputs[1][..., 0]


def purejax_run(steps: int, settings: dict):
    """Return the same as `rejax_run` for PPO in a loop like PureJaxRL's."""
    num_envs, num_steps = settings["n_envs"], settings["n_steps"]
    batch_size = settings["batch_size"]
    num_updates = -(-steps // (num_envs * num_steps))  # rounded up
    gamma, gae_lambda = settings["gamma"], settings["gae_lambda"]
    clip_range = 0.2
    tx = optax.chain(
        optax.clip_by_global_norm(0.5), optax.adam(settings["learning_rate"], eps=1e-5)
    )

    network = ActorCritic()

    def loss_fn(params, batch, adv, target):
        obs, action, log_prob_old = batch
        policy, value = network.apply(params, obs)
        log_prob = policy.log_prob(action)
        adv = (adv - adv.mean()) / (adv.std() + 1e-8)
        ratio = jnp.exp(log_prob - log_prob_old)
        policy_loss = -jnp.minimum(
            ratio * adv, jnp.clip(ratio, 1 - clip_range, 1 + clip_range) * adv
        ).mean()
        return policy_loss + 0.5 * jnp.square(value - target).mean()

    def update(carry, _):
        params, opt_state, env_state, obs, key = carry

        def step(carry, key):
            env_state, obs = carry
            act_key, step_key = jax.random.split(key)
            policy, value = network.apply(params, obs)
            action, log_prob = policy.sample_and_log_prob(seed=act_key)
            keys = jax.random.split(step_key, num_envs)
            next_obs, env_state, reward, done, _ = jax.vmap(ENV.step, (0, 0, 0, None))(
                keys, env_state, action, ENV_PARAMS
            )
            return (env_state, next_obs), (obs, action, log_prob, value, reward, done)

        key, step_key, epoch_key = jax.random.split(key, 3)
        (env_state, obs), data = jax.lax.scan(
            step, (env_state, obs), jax.random.split(step_key, num_steps)
        )
        *batch, value, reward, done = data

        def backwards(carry, row):
            adv, next_value = carry
            value, reward, done = row
            adv = (
                reward
                + gamma * next_value * (1 - done)
                - value
                + gamma * gae_lambda * (1 - done) * adv
            )
            return (adv, value), adv

        last = network.apply(params, obs)[1]
        adv = jax.lax.scan(
            backwards, (jnp.zeros_like(last), last), (value, reward, done), reverse=True
        )[1]
        # [T, N, ...] to [T * N, ...]
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (tuple(batch), adv, adv + value))

        def epoch(carry, key):
            order = jax.random.permutation(key, num_envs * num_steps)
            shuffled = jax.tree.map(lambda x: x[order].reshape(-1, batch_size, *x.shape[1:]), flat)

            def minibatch(carry, rows):
                params, opt_state = carry
                updates, opt_state = tx.update(jax.grad(loss_fn)(params, *rows), opt_state, params)
                return (optax.apply_updates(params, updates), opt_state), ()

            return jax.lax.scan(minibatch, carry, shuffled)[0], ()

        (params, opt_state), _ = jax.lax.scan(
            epoch, (params, opt_state), jax.random.split(epoch_key, settings["n_epochs"])
        )
        return (params, opt_state, env_state, obs, key), ()

    def train(key):
        init_key, reset_key, key = jax.random.split(key, 3)
        obs, env_state = jax.vmap(ENV.reset, (0, None))(
            jax.random.split(reset_key, num_envs), ENV_PARAMS
        )
        params = network.init(init_key, obs)
        return jax.lax.scan(
            update, (params, tx.init(params), env_state, obs, key), None, num_updates
        )[0][0]

    def make_policy(params):
        return lambda obs, key: network.apply(params, obs)[0].sample(seed=key)

    return jax.jit(train), make_policy


def main() -> None:
    way, algorithm, steps, settings = json.loads(sys.argv[1])
    train, policy = (
        rejax_run(algorithm, steps, settings) if way == "rejax" else purejax_run(steps, settings)
    )
    seconds = []
    for seed in range(2):
        start = time.perf_counter()
        trained = jax.block_until_ready(train(jax.random.key(seed)))
        seconds.append(time.perf_counter() - start)
    returns = evaluate(policy(trained), jax.random.key(0), ENV, ENV_PARAMS, 100, 500)[1]
    print(json.dumps([*seconds, float(returns.mean())]))


if __name__ == "__main__":
    main()
