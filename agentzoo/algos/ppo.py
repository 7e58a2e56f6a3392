"""Proximal Policy Optimization, https://arxiv.org/abs/1707.06347, with the details that decide whether it works.

A policy pi and a value function v with parameters `params` learn from each cycle of `n_steps` steps
in every environment, for `n_epochs` passes over its steps in random minibatches, by gradient
descent on

    loss = policy_loss + vf_coef * value_loss - ent_coef * mean(entropy(pi(params, obs_tm1)))
    policy_loss = -mean(min(ratio * adv_tm1, clip(ratio, 1 - clip_range, 1 + clip_range) * adv_tm1))
    ratio = exp(log pi(params, obs_tm1)[a_tm1] - log_prob_tm1)
    value_loss = mean((v(params, obs_tm1) - return_tm1)^2)

where `log_prob_tm1` is that of the policy that acted, and, with the values `v_tm1` and `v_t` before
the first pass,

    adv_tm1 = delta_t + gamma * gae_lambda * discount_t * (1 - last_t) * adv_t
    delta_t = r_t + gamma * discount_t * v_t - v_tm1
    return_tm1 = adv_tm1 + v_tm1

so that a time limit (`last_t` but `discount_t = 1`) bootstraps from the true last observation. In
each minibatch, advantages are brought to mean 0 and standard deviation 1. Those of a minibatch with
a single step are left as they are.

Actions of a Box are drawn from a Gaussian, in which [-1, 1] stands for the bounds of the action
space. The environment gets them scaled and clipped to the bounds; the policy learns from what it
drew. A dimension whose bounds are not finite is in the environment's units.

Where observations are a Dict with an "action_mask", illegal actions are never taken, and have no
part in entropies and gradients; see `agentzoo.networks.action_masks`.

Advantages: https://arxiv.org/abs/1506.02438. Time limits: https://arxiv.org/abs/1712.00378.
Details: https://arxiv.org/abs/2005.12729, https://arxiv.org/abs/2006.05990. Illegal actions:
https://arxiv.org/abs/2006.14171. With memory, gradients flow through `sequence_length` steps, from
the recurrent state that the policy had when it acted. The gates of a new memory keep what it holds
for up to as many: https://arxiv.org/abs/1804.11188.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from agentzoo import core, networks
from agentzoo.algos import base
from agentzoo.config import FRACTION, POSITIVE, Linear, Range, Schedule, value_at
from agentzoo.networks.actor_critic import Output, make_actor_critic, scale_to_bounds
from agentzoo.sharding import shard_batch
from agentzoo.types import Agent, Array, Clock, ConfigurationError, EnvSpec, PyTree, Trajectory


@dataclass(frozen=True)
class PPOConfig:
    """Hyperparameters of PPO."""

    learning_rate: Annotated[Schedule, POSITIVE] = Linear(3e-4)
    """Learning rate of Adam."""
    adam_eps: Annotated[float, POSITIVE] = 1e-5
    """Epsilon of Adam."""
    max_grad_norm: Annotated[float, POSITIVE] = 0.5
    """Gradients are clipped to this global norm."""
    n_steps: Annotated[int, Range(1)] = 2_048
    """Environment steps per environment in each training cycle."""
    batch_size: Annotated[int, Range(1)] = 64
    """Environment steps per gradient step."""
    n_epochs: Annotated[int, Range(1)] = 10
    """Passes over the steps of a training cycle."""
    gamma: Annotated[float, FRACTION] = 0.99
    """Discount factor per environment step."""
    gae_lambda: Annotated[float, FRACTION] = 0.95
    """Lambda of the advantages (GAE): 0 relies on the values, 1 on the rewards."""
    clip_range: Annotated[Schedule, POSITIVE] = 0.2
    """Clipping range of the probability ratio around 1."""
    clip_range_vf: Annotated[Schedule | None, POSITIVE] = None
    """Clipping range of the value around its old value; None for no clipping."""
    normalize_advantage: bool = True
    """Normalise the advantages of each minibatch to mean 0 and standard deviation 1."""
    ent_coef: Annotated[Schedule, Range(0)] = 0.0
    """Weight of the entropy bonus."""
    vf_coef: Annotated[float, Range(0)] = 0.5
    """Weight of the value loss."""
    target_kl: Annotated[float | None, POSITIVE] = None
    """End a training cycle early if the KL divergence to the old policy exceeds 1.5 times this
    number; None for no limit."""
    normalize_obs: bool = False
    """Normalise numbers in observations by the mean and standard deviation of earlier cycles."""
    normalize_reward: bool = False
    """Divide rewards by the standard deviation of their discounted sum."""
    clip_reward: bool = False
    """Learn from rewards clipped to [-1, 1]. The logged returns are not clipped."""
    log_std_init: float = 0.0
    """Initial logarithm of the standard deviation of Box actions, which are scaled to [-1, 1]."""
    state_dependent_std: bool = False
    """Let the standard deviation of Box actions depend on the observation."""
    recurrent: Literal["lstm", "gru"] | None = None
    """Recurrent memory after the hidden layers; None for no memory."""
    recurrent_size: Annotated[int, Range(1)] = 64
    """Units of the recurrent memory."""
    sequence_length: Annotated[int, Range(1)] = 64
    """Environment steps through which gradients flow back in the memory. It divides n_steps or is
    larger."""
    recurrent_span: Annotated[int | None, Range(1)] = None
    """Environment steps that an untrained memory spans at most; None for the length of a
    sequence."""
    ortho_init: bool = True
    """Initialise the network orthogonally."""
    share_layers: bool = False
    """Share the hidden layers and the memory between policy and value."""
    images: networks.Images = "auto"
    """Parts of observations that are images: "auto", True for all that can be one, False for none,
    or names of parts of a Dict."""
    scale_obs: bool = True
    """Scale integers in observations by their bounds. False divides images by 255 and leaves other
    integers as they are."""
    cnn: networks.Cnn = "nature"
    """Convolutional layers for images."""
    net_arch: Annotated[tuple[int, ...], Range(1)] = (64, 64)
    """Sizes of the hidden layers."""
    activation: networks.Activation = "tanh"
    """Activation function of the hidden layers."""


class PPOParams(NamedTuple):
    """All that acting needs."""

    network: PyTree
    obs_statistics: networks.Statistics  # of the cycles before, or ()


class PPOState(NamedTuple):
    """All that PPO carries from one cycle to the next."""

    params: PPOParams
    opt_state: optax.OptState
    reward_normalizer: Any  # `core.RewardNormalizer`, or ()
    key: Array
    n_updates: Array


class Sequences(NamedTuple):
    """S sequences of L steps to learn from, one step each without memory.

    Leading axes `[L, S]`, except for `memory`.
    """

    obs_tm1: PyTree
    a_tm1: Array
    first_tm1: Array
    log_prob_tm1: Array  # of the policy that acted
    v_tm1: Array  # before the first pass
    adv_tm1: Array
    mask: Array  # 0 for steps that never happened
    memory: PyTree  # [S, ...] the recurrent state in which a sequence begins, or ()


def make_agent(config: PPOConfig, spec: EnvSpec, network: networks.Network | None = None) -> Agent:
    """Builds the pure functions of PPO; `network` may replace the layers before the heads (and before memory)."""
    num_steps = config.n_steps * spec.num_envs
    length = min(config.sequence_length, config.n_steps) if config.recurrent else 1
    num_sequences, batch_sequences = (
        num_steps // length,
        min(max(config.batch_size // length, 1), num_steps // length),
    )
    if config.n_steps % length:
        raise ConfigurationError(
            f"sequence_length={length} does not divide n_steps={config.n_steps}; use a sequence_length that does, such as {config.n_steps}."
        )
    if num_sequences % batch_sequences:
        fitting = max(size for size in range(1, batch_sequences) if num_sequences % size == 0)
        raise ConfigurationError(
            f"batch_size={config.batch_size} does not divide the n_steps * n_envs = {num_steps} steps of a cycle"
            f"{f' into whole sequences of {length}' if length > 1 else ''}; use a batch_size of {fitting * length}."
        )
    model = make_actor_critic(
        spec, config.images, config.scale_obs, config.cnn, config.net_arch, config.activation, config.share_layers, config.ortho_init,
        config.log_std_init, config.state_dependent_std, config.recurrent, config.recurrent_size, config.recurrent_span or length, network,
    )  # fmt: skip

    tags = [
        "loss",
        "policy_gradient_loss",
        "value_loss",
        "entropy_loss",
        "approx_kl",
        "clip_fraction",
    ] + ["std"] * model.continuous

    def optimizer(clock: Clock) -> optax.GradientTransformation:
        learning_rate = value_at(config.learning_rate, clock.remaining)
        descend = optax.chain(
            optax.clip_by_global_norm(config.max_grad_norm),
            optax.adam(learning_rate, eps=config.adam_eps),
        )
        return optax.flatten(descend)  # all parameters as one vector: fewer operations to compile

    def forward(params: PPOParams, obs: PyTree, first: Array, memory: PyTree) -> Output:
        obs, mask = model.split(obs)
        return model.apply(
            params.network,
            networks.normalize(model.view, params.obs_statistics, obs),
            mask,
            first,
            memory,
        )

    def step(params: PPOParams, memory: PyTree, obs: PyTree) -> Output:
        """What the actor-critic says of one observation `[N, ...]` of each environment; memory has been reset where an episode begins."""
        one = jax.tree.map(lambda x: x[None], obs)
        first = jnp.zeros(jax.tree.leaves(one)[0].shape[:2], bool)
        return forward(params, one, first, memory)

    def init(key: Array) -> PPOState:
        network_key, key = jax.random.split(key)
        params = PPOParams(
            model.init(network_key),
            networks.init_statistics(model.space, model.view) if config.normalize_obs else (),
        )
        opt_state = optimizer(Clock(jnp.zeros(()), jnp.zeros(()), jnp.ones(()))).init(
            params.network
        )
        normalizer = (
            networks.init_reward_normalizer(spec.num_envs) if config.normalize_reward else ()
        )
        return PPOState(params, opt_state, normalizer, key, jnp.int32(0))

    def act(params, memory, obs, key, clock):
        output = step(params, memory, obs)
        a, log_prob = output.policy.sample_and_log_prob(seed=key)
        extras = {"log_prob_tm1": log_prob[0], **({"a_tm1": a[0]} if model.continuous else {})}
        return model.to_environment(a[0]), jax.tree.map(lambda x: x[0], output.memory), extras

    def predict(params, memory, obs, key, deterministic):
        output = step(params, memory, obs)
        a = output.policy.mode() if deterministic else output.policy.sample(seed=key)
        return model.to_environment(a[0]), jax.tree.map(lambda x: x[0], output.memory)

    def sequences(params: PPOParams, trajectory: Trajectory) -> Sequences:
        """Values what happened, and cuts it into sequences."""
        before = forward(params, trajectory.obs_tm1, trajectory.first_tm1, trajectory.memory)
        after = step(
            params, jax.tree.map(_merge, before.memory), jax.tree.map(_merge, trajectory.obs_t)
        )
        adv_tm1 = core.generalized_advantage_estimation(
            trajectory.r_t, config.gamma * trajectory.discount_t, before.v, after.v.reshape(before.v.shape),
            trajectory.last_t, config.gae_lambda, trajectory.mask,
        )  # fmt: skip
        a_tm1 = trajectory.extras.get("a_tm1", trajectory.a_tm1).reshape(
            *before.v.shape, *before.policy.event_shape
        )
        log_prob_tm1, mask = trajectory.extras["log_prob_tm1"], trajectory.mask.astype(jnp.float32)
        steps = Sequences(
            trajectory.obs_tm1,
            a_tm1,
            trajectory.first_tm1,
            log_prob_tm1,
            before.v,
            adv_tm1,
            mask,
            memory=(),
        )
        # The state before each step; of a step that begins an episode it is not used.
        memory = jax.tree.map(
            lambda m, rest: jnp.concatenate([m[None], rest[:-1]])[::length],
            trajectory.memory,
            before.memory,
        )
        steps = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(-1, length, *x.shape[1:]), 1, 0), steps
        )  # [L, T / L, N, ...]
        steps = jax.tree.map(lambda x: x.reshape(length, num_sequences, *x.shape[3:]), steps)
        return steps._replace(memory=jax.tree.map(_merge, memory))

    def loss_fn(
        params: PyTree, statistics: networks.Statistics, batch: Sequences, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        policy, v_tm1, _ = forward(
            PPOParams(params, statistics), batch.obs_tm1, batch.first_tm1, batch.memory
        )
        clip_range, weight = value_at(config.clip_range, clock.remaining), batch.mask

        def mean(x: Array) -> Array:
            return jnp.sum(weight * x) / jnp.maximum(jnp.sum(weight), 1.0)

        adv_tm1 = batch.adv_tm1
        if config.normalize_advantage:
            centred = adv_tm1 - mean(adv_tm1)
            normalized = centred / (jnp.sqrt(mean(jnp.square(centred))) + 1e-8)
            # The normalised advantage of a single step is 0: the policy would never move.
            adv_tm1 = jnp.where(jnp.sum(weight) >= 2, normalized, adv_tm1)
        log_prob_tm1 = policy.log_prob(batch.a_tm1)
        ratio = core.prob_ratios(log_prob_tm1, batch.log_prob_tm1)
        policy_loss = core.clipped_surrogate_pg_loss(
            ratio, adv_tm1, clip_range, w_t=weight, reduction="masked_mean"
        )
        clip_range_vf = (
            jnp.inf
            if config.clip_range_vf is None
            else value_at(config.clip_range_vf, clock.remaining)
        )
        return_tm1 = batch.adv_tm1 + batch.v_tm1
        value_loss = 2.0 * core.clipped_value_loss(
            v_tm1, batch.v_tm1, return_tm1, clip_range_vf, weight, reduction="masked_mean"
        )
        entropy_loss = -mean(policy.entropy())
        loss = (
            policy_loss
            + config.vf_coef * value_loss
            + value_at(config.ent_coef, clock.remaining) * entropy_loss
        )
        approx_kl = core.approximate_kl(
            log_prob_tm1, batch.log_prob_tm1, weight, reduction="masked_mean"
        )
        clip_fraction = core.clip_fraction(ratio, clip_range, weight, reduction="masked_mean")
        std = [mean(policy.stddev().mean(axis=-1))] if model.continuous else []
        return loss, dict(
            zip(
                tags,
                [loss, policy_loss, value_loss, entropy_loss, approx_kl, clip_fraction, *std],
                strict=True,
            )
        )

    def learn(
        state: PPOState, trajectory: Trajectory, clock: Clock
    ) -> tuple[PPOState, dict[str, Array]]:
        key, order_key = jax.random.split(state.key)
        normalizer = state.reward_normalizer
        if config.clip_reward:
            trajectory = trajectory._replace(r_t=jnp.clip(trajectory.r_t, -1.0, 1.0))
        if config.normalize_reward:
            normalizer, trajectory = networks.normalize_rewards(
                normalizer, trajectory, config.gamma
            )
        params, statistics = state.params
        data = sequences(state.params, trajectory)
        # Of random numbers, the places that they have in order are a random permutation.
        order = jnp.argsort(
            jax.random.uniform(order_key, (config.n_epochs, num_sequences), jnp.float32)
        )
        order = order.reshape(-1, batch_sequences)

        def train(carry):
            i, _, params, opt_state, sums = carry
            batch = shard_batch(
                jax.tree.map(lambda x: x[:, order[i]], data._replace(memory=())), axis=1
            )
            batch = batch._replace(
                memory=shard_batch(jax.tree.map(lambda x: x[order[i]], data.memory))
            )
            (_, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
                params, statistics, batch, clock
            )
            updates, new_opt_state = optimizer(clock).update(grads, opt_state, params)
            learned, proceed = (optax.apply_updates(params, updates), new_opt_state), True
            if config.target_kl is not None:
                proceed = metrics["approx_kl"] <= 1.5 * config.target_kl
                learned = core.conditional_update(learned, (params, opt_state), proceed)
            return i + 1, jnp.asarray(proceed), *learned, jax.tree.map(jnp.add, sums, metrics)

        start = (
            jnp.int32(0),
            jnp.bool_(True),
            params,
            state.opt_state,
            dict.fromkeys(tags, jnp.float32(0)),
        )
        updates, _, params, opt_state, sums = jax.lax.while_loop(
            lambda carry: (carry[0] < len(order)) & carry[1], train, start
        )
        statistics = networks.update_statistics(
            model.view, statistics, model.split(trajectory.obs_tm1)[0], trajectory.mask
        )
        state = PPOState(
            PPOParams(params, statistics), opt_state, normalizer, key, state.n_updates + updates
        )
        metrics = {f"train/{tag}": total / updates for tag, total in sums.items()}
        metrics["train/explained_variance"] = core.explained_variance(
            data.v_tm1, data.adv_tm1 + data.v_tm1, data.mask
        )
        metrics["train/clip_range"] = value_at(config.clip_range, clock.remaining)
        metrics["train/learning_rate"] = value_at(config.learning_rate, clock.remaining)
        metrics["train/n_updates"] = state.n_updates
        return state, metrics

    queries = {
        "value": lambda params, obs: step(
            params, model.initial_memory(len(jax.tree.leaves(obs)[0])), obs
        ).v[0]
    }
    return Agent(
        init,
        act,
        predict,
        learn,
        config.n_steps,
        model.initial_memory,
        queries,
        inputs=networks.describe(model.view),
    )


def _merge(x: Array) -> Array:
    """`[T, N, ...]` as `[T * N, ...]`."""
    return x.reshape(-1, *x.shape[2:])


class PPO(base.Algorithm[PPOConfig]):
    """Proximal Policy Optimization. `agentzoo.algos.ppo` describes the method."""

    Config = PPOConfig
    make_agent = staticmethod(make_agent)
    action_spaces = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")
    presets = MappingProxyType(
        {
            # For Atari with n_envs=8, as rl-baselines3-zoo tuned it.
            "pixels": {
                "learning_rate": Linear(2.5e-4),
                "n_steps": 128,
                "batch_size": 256,
                "n_epochs": 4,
                "clip_range": Linear(0.1),
                "ent_coef": 0.01,
                "clip_reward": True,
                "share_layers": True,
                "net_arch": (512,),
                "activation": "relu",
            },
            # As in CleanRL.
            "mujoco": {
                "clip_range_vf": 0.2,
                "normalize_obs": True,
                "normalize_reward": True,
            },
        }
    )

    @staticmethod
    def upgrade(state: PPOState, spec: EnvSpec) -> PPOState:
        """Convert the state of an agent whose Box actions are in the environment's units."""
        network, factors = scale_to_bounds(state.params.network, spec.action_space)
        factors, _ = ravel_pytree(factors)  # as the optimiser has the parameters
        opt_state = state.opt_state
        for name, power in (
            ("mu", 1),
            ("nu", 2),
        ):  # moments of gradients, which shrink as parameters grow
            moment = optax.tree_utils.tree_get(opt_state, name)
            if moment is not None:
                moment = jax.tree.map(lambda m, factor: m / factor**power, moment, factors)  # noqa: B023
                opt_state = optax.tree_utils.tree_set(opt_state, **{name: moment})
        return state._replace(params=state.params._replace(network=network), opt_state=opt_state)

    def value(self, observation: Any) -> Any:
        """The value of an observation, as one that begins an episode if the agent has memory; `[N]` for a batch.

        With `normalize_reward`, values are those of normalised rewards.

        Raises:
          ConfigurationError: if the observation does not fit the observation space.
        """
        return self._query("value", observation)
