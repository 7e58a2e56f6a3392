"""Proximal Policy Optimization (PPO), https://arxiv.org/abs/1707.06347.

A policy pi and a value function v with parameters `params` learn from each cycle of `n_steps` steps
in every environment. They pass `n_epochs` times over the steps of the cycle in random minibatches,
and take a gradient step on each of them::

    loss = policy_loss + vf_coef * value_loss - ent_coef * mean(entropy(pi(params, obs_tm1)))
    policy_loss = -mean(min(ratio * adv_tm1, clip(ratio, 1 - clip_range, 1 + clip_range) * adv_tm1))
    ratio = exp(log pi(params, obs_tm1)[a_tm1] - log_prob_tm1)
    value_loss = mean((v(params, obs_tm1) - return_tm1)^2)

where `log_prob_tm1` is the log-probability under the policy that acted. Advantages and returns are
computed once, from the values `v_tm1` and `v_t` before the first pass::

    adv_tm1 = delta_t + gamma * gae_lambda * discount_t * (1 - last_t) * adv_t
    delta_t = r_t + gamma * discount_t * v_t - v_tm1
    return_tm1 = adv_tm1 + v_tm1

At a time limit (`last_t = 1` but `discount_t = 1`), the true last observation is bootstrapped from.
The advantages of each minibatch are normalised to mean 0 and standard deviation 1, unless the
minibatch has a single step.

Box actions are drawn from a Gaussian in which [-1, 1] stands for the bounds of the action space.
The environment gets the actions scaled and clipped to the bounds, and the policy learns from the
actions before clipping. A dimension whose bounds are not finite is in the units of the environment.

An "action_mask" in a Dict of observations marks illegal actions. The agent never takes them, and
entropies and gradients leave them out; see `agentzoo.networks.action_masks`.

With memory, gradients flow through `sequence_length` steps, beginning with the recurrent state that
the policy had when it acted. A new memory keeps its contents for up to as many steps:
https://arxiv.org/abs/1804.11188.

Advantages: https://arxiv.org/abs/1506.02438. Time limits: https://arxiv.org/abs/1712.00378. Details
that matter: https://arxiv.org/abs/2005.12729, https://arxiv.org/abs/2006.05990. Illegal actions:
https://arxiv.org/abs/2006.14171.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from agentzoo import core, networks
from agentzoo.algos import base, optimizers
from agentzoo.config import FRACTION, POSITIVE, Linear, Range, Schedule, Search, value_at
from agentzoo.networks.actor_critic import Output, make_actor_critic, scale_to_bounds
from agentzoo.sharding import shard_batch
from agentzoo.types import Agent, Array, Clock, ConfigurationError, EnvSpec, PyTree, Trajectory


@dataclass(frozen=True)
class PPOConfig:
    """Hyperparameters of PPO."""

    learning_rate: Annotated[Schedule, POSITIVE, Search(1e-5, 1e-2, log=True)] = Linear(3e-4)
    """Learning rate of Adam."""
    adam_eps: Annotated[float, POSITIVE] = 1e-5
    """Epsilon of Adam."""
    max_grad_norm: Annotated[float, POSITIVE, Search(0.3, 5, log=True)] = 0.5
    """Gradients are clipped to this global norm."""
    n_steps: Annotated[int, Range(1), Search(choices=(128, 256, 512, 1_024, 2_048))] = 2_048
    """Environment steps per environment in each training cycle."""
    batch_size: Annotated[int, Range(1), Search(choices=(32, 64, 128, 256))] = 64
    """Environment steps per gradient step."""
    n_epochs: Annotated[int, Range(1), Search(choices=(4, 10, 20))] = 10
    """Passes over the steps of a training cycle."""
    gamma: Annotated[float, FRACTION, Search(choices=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999))] = 0.99
    """Discount factor per environment step."""
    gae_lambda: Annotated[float, FRACTION, Search(0.8, 1)] = 0.95
    """Lambda of the advantages (GAE): 0 relies on the values, 1 on the rewards."""
    clip_range: Annotated[Schedule, POSITIVE, Search(0.1, 0.4)] = 0.2
    """Clipping range of the probability ratio around 1."""
    clip_range_vf: Annotated[Schedule | None, POSITIVE] = None
    """Clipping range of the value around its old value; None for no clipping."""
    normalize_advantage: bool = True
    """Normalise the advantages of each minibatch to mean 0 and standard deviation 1."""
    ent_coef: Annotated[Schedule, Range(0), Search(1e-8, 0.1, log=True)] = 0.0
    """Weight of the entropy bonus."""
    vf_coef: Annotated[float, Range(0), Search(0.2, 1)] = 0.5
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
    net_arch: Annotated[
        tuple[int, ...], Range(1), Search(choices=((64, 64), (128, 128), (256, 256)))
    ] = (64, 64)
    """Sizes of the hidden layers."""
    activation: Annotated[networks.Activation, Search(choices=("tanh", "relu"))] = "tanh"
    """Activation function of the hidden layers."""
    layer_norm: networks.LayerNorm = False
    """Layer normalisation before the activation of each hidden layer. "first" normalises only the
    first one, and its activation is then tanh."""
    residual: bool = False
    """Residual blocks (SimBa) as hidden layers, one for each size in net_arch. They have layer
    normalisation of their own, whatever layer_norm says."""


class PPOParams(NamedTuple):
    """All that acting needs."""

    network: PyTree
    obs_statistics: networks.Statistics  # of earlier cycles; () if observations are not normalised


class PPOState(NamedTuple):
    """All that PPO carries from one training cycle to the next."""

    params: PPOParams
    opt_state: optax.OptState
    reward_normalizer: Any  # `core.RewardNormalizer`, or ()
    key: Array  # key data: JAX takes about 50 us per call to return a typed key
    n_updates: Array


class Sequences(NamedTuple):
    """S sequences of L steps to learn from, with leading axes `[L, S]` except for `memory`.

    Without memory, each sequence has one step.
    """

    obs_tm1: PyTree
    a_tm1: Array
    first_tm1: Array
    log_prob_tm1: Array  # under the policy that acted
    v_tm1: Array  # before the first pass
    adv_tm1: Array
    mask: Array  # 0 for steps that never happened
    memory: PyTree  # [S, ...] the recurrent state in which a sequence begins, or ()


class Layout(NamedTuple):
    """How the steps of a cycle are divided into sequences and minibatches."""

    length: int  # steps of a sequence, L
    num_sequences: int  # sequences of a cycle
    batch_sequences: int  # sequences of a minibatch


class Progress(NamedTuple):
    """How far the learning of a cycle has come."""

    state: PPOState
    count: Array  # gradient steps so far
    proceed: Array  # whether the KL divergence is within its target
    totals: dict[str, Array]  # sums of the metrics


def make_layout(config: PPOConfig, num_envs: int) -> Layout:
    """Return how to divide a cycle.

    Raises:
      ConfigurationError: if sequences do not divide a cycle, or minibatches do not.
    """
    num_steps = config.n_steps * num_envs
    length = min(config.sequence_length, config.n_steps) if config.recurrent else 1
    if config.n_steps % length:
        raise ConfigurationError(
            f"sequence_length={length} does not divide n_steps={config.n_steps}. "
            f"Use a sequence_length that does, such as {config.n_steps}."
        )
    num_sequences = num_steps // length
    batch_sequences = min(max(config.batch_size // length, 1), num_sequences)
    if num_sequences % batch_sequences:
        smaller = range(1, min(batch_sequences, 2**16))
        fitting = max(size for size in smaller if num_sequences % size == 0)
        what = f" into whole sequences of {length}" if length > 1 else ""
        raise ConfigurationError(
            f"batch_size={config.batch_size} does not divide the n_steps * n_envs = {num_steps} "
            f"steps of a cycle{what}. Use a batch_size of {fitting * length}."
        )
    return Layout(length, num_sequences, batch_sequences)


def make_agent(config: PPOConfig, spec: EnvSpec, network: networks.Network | None = None) -> Agent:
    """Build the pure functions of PPO.

    Args:
      config: the hyperparameters. Those that are numbers may be traced by JAX.
      spec: the environments.
      network: a user's layers in place of those before the memory and the heads.

    Raises:
      ConfigurationError: if hyperparameters do not fit together, or do not fit the environments.
    """
    layout = make_layout(config, spec.num_envs)
    model = make_actor_critic(
        spec,
        images=config.images,
        scale_obs=config.scale_obs,
        cnn=config.cnn,
        net_arch=config.net_arch,
        activation=config.activation,
        layer_norm=config.layer_norm,
        residual=config.residual,
        shared=config.share_layers,
        orthogonal=config.ortho_init,
        log_std_init=config.log_std_init,
        state_dependent_std=config.state_dependent_std,
        recurrent=config.recurrent,
        recurrent_size=config.recurrent_size,
        recurrent_span=config.recurrent_span or layout.length,
        network=network,
    )
    # As one vector, all parameters need fewer operations, which compile faster.
    optimizer = optax.flatten(
        optax.chain(
            optax.clip_by_global_norm(config.max_grad_norm), optimizers.adam(eps=config.adam_eps)
        )
    )

    def forward(params: PPOParams, obs: PyTree, first: Array, memory: PyTree) -> Output:
        """Evaluate the actor-critic on `[T, N]` observations."""
        seen = model.split(obs)
        normalized = networks.normalize(model.view, params.obs_statistics, seen.obs)
        return model.apply(params.network, normalized, seen.legal, first, memory)

    def step(params: PPOParams, memory: PyTree, obs: PyTree) -> Output:
        """Evaluate the actor-critic on one observation of each environment, as `[1, N]`.

        The memory must have been reset in the environments where an episode begins.
        """
        obs = jax.tree.map(lambda x: x[None], obs)
        first = jnp.zeros(jax.tree.leaves(obs)[0].shape[:2], bool)
        return forward(params, obs, first, memory)

    def init(key: Array) -> PPOState:
        network_key, key = jax.random.split(key)
        params = PPOParams(
            network=model.init(network_key),
            obs_statistics=(
                networks.init_statistics(model.space, model.view) if config.normalize_obs else ()
            ),
        )
        return PPOState(
            params=params,
            opt_state=optimizer.init(params.network),
            reward_normalizer=(
                networks.init_reward_normalizer(spec.num_envs) if config.normalize_reward else ()
            ),
            key=jax.random.key_data(key),
            n_updates=jnp.int32(0),
        )

    def act(params, memory, obs, key, clock):
        output = step(params, memory, obs)
        a, log_prob = output.policy.sample_and_log_prob(seed=key)
        extras = {"log_prob_tm1": log_prob[0]}
        if config.recurrent is None:
            extras["v_tm1"] = output.v[0]
        if model.continuous:
            extras["a_tm1"] = a[0]
        return model.to_environment(a[0]), jax.tree.map(lambda x: x[0], output.memory), extras

    def predict(params, memory, obs, key, deterministic):
        output = step(params, memory, obs)
        a = output.policy.mode() if deterministic else output.policy.sample(seed=key)
        return model.to_environment(a[0]), jax.tree.map(lambda x: x[0], output.memory)

    def make_sequences(params: PPOParams, trajectory: Trajectory) -> Sequences:
        """Value the steps of a trajectory `[T, N]`, and cut it into sequences `[L, S]`."""
        if "v_tm1" in trajectory.extras:
            v_tm1, memory = trajectory.extras["v_tm1"], ()
        else:  # older parameters acted, or the recurrent states are needed as well
            before = forward(params, trajectory.obs_tm1, trajectory.first_tm1, trajectory.memory)
            v_tm1, memory = before.v, before.memory
        v_t = networks.successor_values(
            v_tm1, memory, trajectory, lambda memory, obs: step(params, memory, obs).v[0]
        )
        adv_tm1 = core.generalized_advantage_estimation(
            trajectory.r_t,
            config.gamma * trajectory.discount_t,
            v_tm1,
            v_t,
            trajectory.last_t,
            config.gae_lambda,
            trajectory.mask,
        )
        steps = Sequences(
            obs_tm1=trajectory.obs_tm1,
            a_tm1=trajectory.extras.get("a_tm1", trajectory.a_tm1),
            first_tm1=trajectory.first_tm1,
            log_prob_tm1=trajectory.extras["log_prob_tm1"],
            v_tm1=v_tm1,
            adv_tm1=adv_tm1,
            mask=trajectory.mask.astype(jnp.float32),
            memory=(),
        )

        def cut(x: Array) -> Array:
            x = x.reshape(-1, layout.length, *x.shape[1:])  # [T / L, L, N, ...]
            x = jnp.moveaxis(x, 1, 0)  # [L, T / L, N, ...]
            return x.reshape(layout.length, layout.num_sequences, *x.shape[3:])  # [L, S, ...]

        def at_first_steps(initial: Array, later: Array) -> Array:
            """Return the recurrent states `[S, ...]` in which sequences begin."""
            states = jnp.concatenate([initial[None], later[:-1]])  # [T, N, ...] before each step
            return jax.lax.collapse(states[:: layout.length], 0, 2)

        memory = jax.tree.map(at_first_steps, trajectory.memory, memory)
        return jax.tree.map(cut, steps)._replace(memory=memory)

    def loss_fn(
        params: PyTree, obs_statistics: networks.Statistics, batch: Sequences, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        output = forward(
            PPOParams(params, obs_statistics), batch.obs_tm1, batch.first_tm1, batch.memory
        )
        policy, weight = output.policy, batch.mask
        clip_range = value_at(config.clip_range, clock.remaining)
        clip_range_vf: Any = jnp.inf
        if config.clip_range_vf is not None:
            clip_range_vf = value_at(config.clip_range_vf, clock.remaining)

        def mean(x: Array) -> Array:
            return jnp.sum(weight * x) / jnp.maximum(jnp.sum(weight), 1.0)

        adv_tm1 = batch.adv_tm1
        if config.normalize_advantage:
            centred = adv_tm1 - mean(adv_tm1)
            normalized = centred / (jnp.sqrt(mean(jnp.square(centred))) + 1e-8)
            # The normalised advantage of a single step is 0: the policy would never move.
            adv_tm1 = jnp.where(jnp.sum(weight) >= 2, normalized, adv_tm1)
        log_prob_tm1 = policy.log_prob(batch.a_tm1.reshape(*output.v.shape, *policy.event_shape))
        ratio = core.prob_ratios(log_prob_tm1, batch.log_prob_tm1)
        policy_loss = core.clipped_surrogate_pg_loss(
            ratio, adv_tm1, clip_range, w_t=weight, reduction="masked_mean"
        )
        return_tm1 = batch.adv_tm1 + batch.v_tm1
        value_loss = 2.0 * core.clipped_value_loss(
            output.v, batch.v_tm1, return_tm1, clip_range_vf, weight, reduction="masked_mean"
        )
        entropy_loss = -mean(policy.entropy())
        ent_coef = value_at(config.ent_coef, clock.remaining)
        loss = policy_loss + config.vf_coef * value_loss + ent_coef * entropy_loss
        metrics = {
            "train/loss": loss,
            "train/policy_gradient_loss": policy_loss,
            "train/value_loss": value_loss,
            "train/entropy_loss": entropy_loss,
            "train/approx_kl": core.approximate_kl(
                log_prob_tm1, batch.log_prob_tm1, weight, reduction="masked_mean"
            ),
            "train/clip_fraction": core.clip_fraction(
                ratio, clip_range, weight, reduction="masked_mean"
            ),
        }
        if model.continuous:
            metrics["train/std"] = mean(policy.stddev().mean(axis=-1))
        return loss, metrics

    def is_within_target(metrics: dict[str, Array]) -> Array:
        """Return whether the policy may move on, by its KL divergence from the one that acted."""
        if config.target_kl is None:
            return jnp.bool_(True)
        return metrics["train/approx_kl"] <= 1.5 * config.target_kl

    def update(
        state: PPOState, batch: Sequences, clock: Clock
    ) -> tuple[PPOState, dict[str, Array]]:
        params = state.params.network
        (_, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            params, state.params.obs_statistics, batch, clock
        )
        learning_rate = value_at(config.learning_rate, clock.remaining)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, params, learning_rate=learning_rate
        )
        learned = optax.apply_updates(params, updates), opt_state
        if config.target_kl is not None:
            learned = core.conditional_update(
                learned, (params, state.opt_state), is_within_target(metrics)
            )
        state = state._replace(
            params=state.params._replace(network=learned[0]),
            opt_state=learned[1],
            n_updates=state.n_updates + 1,
        )
        return state, metrics

    def train(
        state: PPOState, data: Sequences, order_key: Array, clock: Clock
    ) -> tuple[PPOState, dict[str, Array]]:
        """Take the gradient steps of a cycle, and return the means of their metrics."""
        # The ranks of random numbers are a random permutation, a new one for each epoch.
        shape = (config.n_epochs, layout.num_sequences)
        order = jnp.argsort(jax.random.uniform(order_key, shape, jnp.float32))
        order = order.reshape(-1, layout.batch_sequences)  # one row for each gradient step

        def minibatch(i: Array | int) -> Sequences:
            steps = jax.tree.map(lambda x: x[:, order[i]], data._replace(memory=()))
            memory = jax.tree.map(lambda x: x[order[i]], data.memory)
            return shard_batch(steps, axis=1)._replace(memory=shard_batch(memory))

        def unfinished(progress: Progress) -> Array:
            return (progress.count < len(order)) & progress.proceed

        def descend(progress: Progress) -> Progress:
            state, metrics = update(progress.state, minibatch(progress.count), clock)
            totals = jax.tree.map(jnp.add, progress.totals, metrics)
            return Progress(state, progress.count + 1, is_within_target(metrics), totals)

        shapes = jax.eval_shape(lambda: update(state, minibatch(0), clock)[1])
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        progress = jax.lax.while_loop(
            unfinished, descend, Progress(state, jnp.int32(0), jnp.bool_(True), zeros)
        )
        return progress.state, jax.tree.map(lambda x: x / progress.count, progress.totals)

    def learn(
        state: PPOState, trajectory: Trajectory, clock: Clock
    ) -> tuple[PPOState, dict[str, Array]]:
        key, order_key = jax.random.split(jax.random.wrap_key_data(state.key))
        state = state._replace(key=jax.random.key_data(key))
        if config.clip_reward:
            trajectory = trajectory._replace(r_t=jnp.clip(trajectory.r_t, -1.0, 1.0))
        if config.normalize_reward:
            normalizer, trajectory = networks.normalize_rewards(
                state.reward_normalizer, trajectory, config.gamma
            )
            state = state._replace(reward_normalizer=normalizer)
        data = make_sequences(state.params, trajectory)
        state, metrics = train(state, data, order_key, clock)
        obs_statistics = networks.update_statistics(
            model.view,
            state.params.obs_statistics,
            model.split(trajectory.obs_tm1).obs,
            trajectory.mask,
        )
        state = state._replace(params=state.params._replace(obs_statistics=obs_statistics))
        return state, {
            **metrics,
            "train/explained_variance": core.explained_variance(
                data.v_tm1, data.adv_tm1 + data.v_tm1, data.mask
            ),
            "train/clip_range": value_at(config.clip_range, clock.remaining),
            "train/learning_rate": value_at(config.learning_rate, clock.remaining),
            "train/n_updates": state.n_updates,
        }

    def value(params: PPOParams, obs: PyTree) -> Array:
        num_envs = len(jax.tree.leaves(obs)[0])
        return step(params, model.initial_memory(num_envs), obs).v[0]

    return Agent(
        init,
        act,
        predict,
        learn,
        unroll_length=config.n_steps,
        initial_memory=model.initial_memory,
        queries={"value": value},
        inputs=networks.describe(model.view),
        newest=frozenset({"v_tm1"}),
    )


class PPO(base.Algorithm[PPOConfig]):
    """Proximal Policy Optimization. `agentzoo.algos.ppo` describes the method."""

    Config = PPOConfig
    make_agent = staticmethod(make_agent)
    action_spaces = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")

    @staticmethod
    def upgrade(state: PPOState, spec: EnvSpec) -> PPOState:
        """Convert the state of an agent whose Box actions are in the units of the environment."""
        params, factors = scale_to_bounds(state.params.network, spec.action_space)
        factors, _ = ravel_pytree(factors)  # the optimiser has the parameters as one vector
        return state._replace(
            params=state.params._replace(network=params),
            opt_state=optimizers.scale_moments(state.opt_state, factors),
        )

    def value(self, observation: Any) -> Any:
        """Return the value of an observation, which is taken as the first of an episode.

        With `normalize_reward`, the value is in units of normalised rewards.

        Args:
          observation: one observation, or a batch of N.

        Returns:
          A number, or `[N]` for a batch.

        Raises:
          ConfigurationError: if the observation does not fit the observation space.
        """
        return self._query("value", observation)
