"""IMPALA: an actor-critic that tolerates old actors, https://arxiv.org/abs/1802.01561.

The actors of IMPALA may act with parameters that are older than the learner's. A policy pi and a
value function v with parameters `params` learn from each trajectory of `n_steps` steps in every
environment by one gradient step on::

    loss = policy_loss + vf_coef * value_loss - ent_coef * mean(entropy(pi(params, obs_tm1)))
    policy_loss = -mean(log pi(params, obs_tm1)[a_tm1] * adv_tm1)
    value_loss = mean((target_tm1 - v(params, obs_tm1))^2)

V-trace corrects for the policy that acted, whose log-probabilities are in the trajectory::

    rho_tm1 = pi(params, obs_tm1)[a_tm1] / pi(acting_params, obs_tm1)[a_tm1]
    target_tm1 = v_tm1 + delta_t + discount_t * vtrace_lambda * min(1, rho_tm1) * (target_t - v_t)
    delta_t = min(clip_rho, rho_tm1) * (r_t + discount_t * v_t - v_tm1)
    next_t = v_t + vtrace_lambda * (target_t - v_t)
    adv_tm1 = min(clip_pg_rho, rho_tm1) * (r_t + discount_t * next_t - v_tm1)

where `discount_t` includes gamma. At the end of an episode, `target_t` is `v_t`, so that the true
last observation is bootstrapped from at a time limit.

Use `normalize_reward` if returns are far from the order of 1, like the hundreds of LunarLander.
Otherwise large errors of the value use up the norm that gradients are clipped to, and leave little
of it to the policy.

Box actions are drawn from a Gaussian in which [-1, 1] stands for the bounds of the action space.
The environment gets the actions scaled and clipped to the bounds, and the policy learns from the
actions before clipping. A dimension whose bounds are not finite is in the units of the environment.

An "action_mask" in a Dict of observations marks illegal actions; see
`agentzoo.networks.action_masks`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from agentzoo import core, networks
from agentzoo.algos import base, optimizers
from agentzoo.config import FRACTION, POSITIVE, Linear, Range, Schedule, Search, value_at
from agentzoo.networks.actor_critic import Output, make_actor_critic, scale_to_bounds
from agentzoo.sharding import shard_batch
from agentzoo.types import Agent, Array, Clock, EnvSpec, PyTree, Trajectory


@dataclass(frozen=True)
class IMPALAConfig:
    """Hyperparameters of IMPALA."""

    learning_rate: Annotated[Schedule, POSITIVE, Search(1e-5, 1e-2, log=True)] = Linear(1e-3)
    """Learning rate of the optimizer."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """The optimizer."""
    optimizer_eps: Annotated[float, POSITIVE] = 1e-5
    """Epsilon of the optimizer."""
    rms_decay: Annotated[float, FRACTION] = 0.99
    """Decay of the mean square of the gradients per gradient step, for RMSProp."""
    max_grad_norm: Annotated[float, POSITIVE, Search(0.3, 5, log=True)] = 0.5
    """Gradients are clipped to this global norm."""
    n_steps: Annotated[int, Range(1), Search(choices=(16, 32, 64, 128))] = 128
    """Environment steps per environment and gradient step."""
    gamma: Annotated[float, FRACTION, Search(choices=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999))] = 0.99
    """Discount factor per environment step."""
    vtrace_lambda: Annotated[float, FRACTION, Search(0.8, 1)] = 0.95
    """Lambda of V-trace: 0 relies on the values, 1 on the rewards."""
    clip_rho: Annotated[float, POSITIVE] = 1.0
    """Largest importance ratio in the targets of the values."""
    clip_pg_rho: Annotated[float, POSITIVE] = 1.0
    """Largest importance ratio in the policy gradient."""
    ent_coef: Annotated[Schedule, Range(0), Search(1e-5, 0.1, log=True)] = Linear(0.01)
    """Weight of the entropy bonus."""
    vf_coef: Annotated[float, Range(0), Search(0.2, 1)] = 0.5
    """Weight of the value loss."""
    normalize_reward: bool = True
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
    cnn: networks.Cnn = "impala"
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


class IMPALAState(NamedTuple):
    """All that IMPALA carries from one training cycle to the next."""

    params: PyTree
    opt_state: optax.OptState
    reward_normalizer: Any  # `core.RewardNormalizer`, or ()
    n_updates: Array


def make_agent(
    config: IMPALAConfig, spec: EnvSpec, network: networks.Network | None = None
) -> Agent:
    """Build the pure functions of IMPALA.

    Args:
      config: the hyperparameters. Those that are numbers may be traced by JAX.
      spec: the environments.
      network: a user's layers in place of those before the memory and the heads.

    Raises:
      ConfigurationError: if hyperparameters do not fit together, or do not fit the environments.
    """
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
        recurrent_span=config.recurrent_span or config.n_steps,
        network=network,
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optimizers.adam(eps=config.optimizer_eps)
        if config.optimizer == "adam"
        else optimizers.rmsprop(config.rms_decay, config.optimizer_eps),
    )

    def forward(params: PyTree, obs: PyTree, first: Array, memory: PyTree) -> Output:
        """Evaluate the actor-critic on `[T, N]` observations."""
        return model.apply(params, *model.split(obs), first, memory)

    def step(params: PyTree, memory: PyTree, obs: PyTree) -> Output:
        """Evaluate the actor-critic on one observation of each environment, as `[1, N]`.

        The memory must have been reset in the environments where an episode begins.
        """
        obs = jax.tree.map(lambda x: x[None], obs)
        first = jnp.zeros(jax.tree.leaves(obs)[0].shape[:2], bool)
        return forward(params, obs, first, memory)

    def init(key: Array) -> IMPALAState:
        params = model.init(key)
        return IMPALAState(
            params=params,
            opt_state=optimizer.init(params),
            reward_normalizer=(
                networks.init_reward_normalizer(spec.num_envs) if config.normalize_reward else ()
            ),
            n_updates=jnp.int32(0),
        )

    def act(params, memory, obs, key, clock):
        output = step(params, memory, obs)
        a, log_prob = output.policy.sample_and_log_prob(seed=key)
        extras = {"log_prob_tm1": log_prob[0]}
        if model.continuous:
            extras["a_tm1"] = a[0]
        return model.to_environment(a[0]), jax.tree.map(lambda x: x[0], output.memory), extras

    def predict(params, memory, obs, key, deterministic):
        output = step(params, memory, obs)
        a = output.policy.mode() if deterministic else output.policy.sample(seed=key)
        return model.to_environment(a[0]), jax.tree.map(lambda x: x[0], output.memory)

    def loss_fn(
        params: PyTree, trajectory: Trajectory, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        before = forward(params, trajectory.obs_tm1, trajectory.first_tm1, trajectory.memory)
        policy, v_tm1 = before.policy, before.v
        constants, v, memory = jax.lax.stop_gradient((params, v_tm1, before.memory))
        v_t = networks.successor_values(
            v, memory, trajectory, lambda memory, obs: step(constants, memory, obs).v[0]
        )
        a_tm1 = trajectory.extras.get("a_tm1", trajectory.a_tm1)
        log_prob_tm1 = policy.log_prob(a_tm1.reshape(*v_tm1.shape, *policy.event_shape))
        rho_tm1 = jax.lax.stop_gradient(
            core.prob_ratios(log_prob_tm1, trajectory.extras["log_prob_tm1"])
        )
        vtrace = core.vtrace_td_error_and_advantage(
            v_tm1,
            v_t,
            trajectory.r_t,
            config.gamma * trajectory.discount_t,
            rho_tm1,
            jnp.where(trajectory.last_t, 0.0, config.vtrace_lambda),
            config.clip_rho,
            config.clip_pg_rho,
            sample_mask=trajectory.mask,
        )
        mask = trajectory.mask.astype(jnp.float32)

        def mean(x: Array) -> Array:
            return jnp.sum(jnp.where(mask == 0, 0.0, x)) / jnp.maximum(jnp.sum(mask), 1.0)

        policy_loss = -mean(log_prob_tm1 * vtrace.pg_advantage)
        value_loss = mean(jnp.square(vtrace.errors))
        entropy_loss = -mean(policy.entropy())
        ent_coef = value_at(config.ent_coef, clock.remaining)
        loss = policy_loss + config.vf_coef * value_loss + ent_coef * entropy_loss
        return loss, {
            "train/loss": loss,
            "train/policy_gradient_loss": policy_loss,
            "train/value_loss": value_loss,
            "train/entropy_loss": entropy_loss,
            "train/explained_variance": core.explained_variance(v_tm1, v_tm1 + vtrace.errors, mask),
            "train/rho_mean": mean(rho_tm1),
            "train/rho_clip_fraction": mean((rho_tm1 > config.clip_rho).astype(jnp.float32)),
        }

    def update(
        state: IMPALAState, trajectory: Trajectory, clock: Clock
    ) -> tuple[IMPALAState, dict[str, Array]]:
        grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params, trajectory, clock)
        learning_rate = value_at(config.learning_rate, clock.remaining)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, learning_rate=learning_rate
        )
        state = state._replace(
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            n_updates=state.n_updates + 1,
        )
        return state, metrics

    def learn(
        state: IMPALAState, trajectory: Trajectory, clock: Clock
    ) -> tuple[IMPALAState, dict[str, Array]]:
        if config.clip_reward:
            trajectory = trajectory._replace(r_t=jnp.clip(trajectory.r_t, -1.0, 1.0))
        if config.normalize_reward:
            normalizer, trajectory = networks.normalize_rewards(
                state.reward_normalizer, trajectory, config.gamma
            )
            state = state._replace(reward_normalizer=normalizer)
        # Devices share the environments: axis 1 of the steps, and axis 0 of the memory.
        steps = shard_batch(trajectory._replace(memory=()), axis=1)
        trajectory = steps._replace(memory=shard_batch(trajectory.memory))
        state, metrics = update(state, trajectory, clock)
        return state, {
            **metrics,
            "train/learning_rate": value_at(config.learning_rate, clock.remaining),
            "train/n_updates": state.n_updates,
        }

    def value(params: PyTree, obs: PyTree) -> Array:
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
    )


class IMPALA(base.Algorithm[IMPALAConfig]):
    """Importance-weighted actor-learner. `agentzoo.algos.impala` describes the method."""

    Config = IMPALAConfig
    make_agent = staticmethod(make_agent)
    action_spaces = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")

    @staticmethod
    def upgrade(state: IMPALAState, spec: EnvSpec) -> IMPALAState:
        """Convert the state of an agent whose Box actions are in the units of the environment."""
        params, factors = scale_to_bounds(state.params, spec.action_space)
        opt_state = optimizers.scale_moments(state.opt_state, factors)
        return state._replace(params=params, opt_state=opt_state)

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
