"""IMPALA: an actor-critic whose actors may run ahead of its learner, https://arxiv.org/abs/1802.01561.

A policy pi and a value function v with parameters `params` learn from each trajectory of `n_steps`
steps in every environment by one step of gradient descent on

    loss = policy_loss + vf_coef * value_loss - ent_coef * mean(entropy(pi(params, obs_tm1)))
    policy_loss = -mean(log pi(params, obs_tm1)[a_tm1] * adv_tm1)
    value_loss = mean((target_tm1 - v(params, obs_tm1))^2)

where V-trace corrects for the policy that acted, whose log-probabilities the trajectory holds,

    rho_tm1 = pi(params, obs_tm1)[a_tm1] / pi(acting_params, obs_tm1)[a_tm1]
    target_tm1 = v_tm1 + delta_t + discount_t * vtrace_lambda * min(1, rho_tm1) * (target_t - v_t)
    delta_t = min(clip_rho, rho_tm1) * (r_t + discount_t * v_t - v_tm1)
    adv_tm1 = min(clip_pg_rho, rho_tm1) * (r_t + discount_t * (v_t + vtrace_lambda * (target_t -
    v_t)) - v_tm1)

and `discount_t` includes gamma. Where an episode ends, `target_t` is `v_t`, so that a time limit
bootstraps from the true last observation.

Where returns are far from the order of 1, as the hundreds of LunarLander are, use
`normalize_reward`: large errors of the value take up the norm that gradients are clipped to, and
leave little of it to the policy.

Actions of a Box are drawn from a Gaussian, in which [-1, 1] stands for the bounds of the action
space. The environment gets them scaled and clipped to the bounds; the policy learns from what it
drew. A dimension whose bounds are not finite is in the environment's units. An "action_mask" in a
Dict of observations marks illegal actions, see `agentzoo.networks.action_masks`.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from agentzoo import core, networks
from agentzoo.algos import base
from agentzoo.config import FRACTION, POSITIVE, Linear, Range, Schedule, value_at
from agentzoo.networks.actor_critic import Output, make_actor_critic, scale_to_bounds
from agentzoo.sharding import shard_batch
from agentzoo.types import Agent, Array, Clock, ConfigurationError, EnvSpec, PyTree, Trajectory


@dataclass(frozen=True)
class IMPALAConfig:
    """Hyperparameters of IMPALA."""

    learning_rate: Annotated[Schedule, POSITIVE] = Linear(1e-3)
    """Learning rate of the optimizer."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """The optimizer."""
    optimizer_eps: Annotated[float, POSITIVE] = 1e-5
    """Epsilon of the optimizer."""
    rms_decay: Annotated[float, FRACTION] = 0.99
    """Decay of the mean square of the gradients per gradient step, for RMSProp."""
    max_grad_norm: Annotated[float, POSITIVE] = 0.5
    """Gradients are clipped to this global norm."""
    n_steps: Annotated[int, Range(1)] = 128
    """Environment steps per environment and gradient step."""
    gamma: Annotated[float, FRACTION] = 0.99
    """Discount factor per environment step."""
    vtrace_lambda: Annotated[float, FRACTION] = 0.95
    """Lambda of V-trace: 0 relies on the values, 1 on the rewards."""
    clip_rho: Annotated[float, POSITIVE] = 1.0
    """Largest importance ratio in the targets of the values."""
    clip_pg_rho: Annotated[float, POSITIVE] = 1.0
    """Largest importance ratio in the policy gradient."""
    ent_coef: Annotated[Schedule, Range(0)] = Linear(0.01)
    """Weight of the entropy bonus."""
    vf_coef: Annotated[float, Range(0)] = 0.5
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
    net_arch: Annotated[tuple[int, ...], Range(1)] = (64, 64)
    """Sizes of the hidden layers."""
    activation: networks.Activation = "tanh"
    """Activation function of the hidden layers."""


class IMPALAState(NamedTuple):
    """All that IMPALA carries from one cycle to the next."""

    params: PyTree
    opt_state: optax.OptState
    reward_normalizer: Any  # `core.RewardNormalizer`, or ()
    n_updates: Array


def make_agent(
    config: IMPALAConfig, spec: EnvSpec, network: networks.Network | None = None
) -> Agent:
    """Builds the pure functions of IMPALA; `network` may replace the layers before the heads (and before memory)."""
    if config.optimizer not in ("adam", "rmsprop"):
        raise ConfigurationError(
            f"optimizer={config.optimizer!r} is unknown; choose one of adam, rmsprop."
        )
    model = make_actor_critic(
        spec, config.images, config.scale_obs, config.cnn, config.net_arch, config.activation, config.share_layers, config.ortho_init,
        config.log_std_init, config.state_dependent_std, config.recurrent, config.recurrent_size, config.recurrent_span or config.n_steps,
        network,
    )  # fmt: skip

    def optimizer(clock: Clock) -> optax.GradientTransformation:
        learning_rate, eps = value_at(config.learning_rate, clock.remaining), config.optimizer_eps
        descend = (
            optax.adam(learning_rate, eps=eps)
            if config.optimizer == "adam"
            else optax.rmsprop(learning_rate, config.rms_decay, eps, eps_in_sqrt=False)
        )
        return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), descend)

    def forward(params: PyTree, obs: PyTree, first: Array, memory: PyTree) -> Output:
        return model.apply(params, *model.split(obs), first, memory)

    def step(params: PyTree, memory: PyTree, obs: PyTree) -> Output:
        """What the actor-critic says of one observation `[N, ...]` of each environment; memory has been reset where an episode begins."""
        one = jax.tree.map(lambda x: x[None], obs)
        return forward(params, one, jnp.zeros(jax.tree.leaves(one)[0].shape[:2], bool), memory)

    def init(key: Array) -> IMPALAState:
        params = model.init(key)
        opt_state = optimizer(Clock(jnp.zeros(()), jnp.zeros(()), jnp.ones(()))).init(params)
        normalizer = (
            networks.init_reward_normalizer(spec.num_envs) if config.normalize_reward else ()
        )
        return IMPALAState(params, opt_state, normalizer, jnp.int32(0))

    def act(params, memory, obs, key, clock):
        output = step(params, memory, obs)
        a, log_prob = output.policy.sample_and_log_prob(seed=key)
        extras = {"log_prob_tm1": log_prob[0], **({"a_tm1": a[0]} if model.continuous else {})}
        return model.to_environment(a[0]), jax.tree.map(lambda x: x[0], output.memory), extras

    def predict(params, memory, obs, key, deterministic):
        output = step(params, memory, obs)
        a = output.policy.mode() if deterministic else output.policy.sample(seed=key)
        return model.to_environment(a[0]), jax.tree.map(lambda x: x[0], output.memory)

    def loss_fn(
        params: PyTree, trajectory: Trajectory, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        policy, v_tm1, memory = forward(
            params, trajectory.obs_tm1, trajectory.first_tm1, trajectory.memory
        )
        after = step(
            jax.lax.stop_gradient(params), *jax.tree.map(_merge, (memory, trajectory.obs_t))
        )
        a_tm1 = trajectory.extras.get("a_tm1", trajectory.a_tm1).reshape(
            *v_tm1.shape, *policy.event_shape
        )
        log_prob_tm1, mask = policy.log_prob(a_tm1), trajectory.mask.astype(jnp.float32)
        rho_tm1 = jax.lax.stop_gradient(
            core.prob_ratios(log_prob_tm1, trajectory.extras["log_prob_tm1"])
        )
        vtrace = core.vtrace_td_error_and_advantage(
            v_tm1, after.v.reshape(v_tm1.shape), trajectory.r_t, config.gamma * trajectory.discount_t, rho_tm1,
            jnp.where(trajectory.last_t, 0.0, config.vtrace_lambda), config.clip_rho, config.clip_pg_rho, sample_mask=trajectory.mask,
        )  # fmt: skip

        def mean(x: Array) -> Array:
            return jnp.sum(jnp.where(mask == 0, 0.0, x)) / jnp.maximum(jnp.sum(mask), 1.0)

        policy_loss, value_loss = (
            -mean(log_prob_tm1 * vtrace.pg_advantage),
            mean(jnp.square(vtrace.errors)),
        )
        entropy_loss = -mean(policy.entropy())
        loss = (
            policy_loss
            + config.vf_coef * value_loss
            + value_at(config.ent_coef, clock.remaining) * entropy_loss
        )
        return loss, {
            "train/loss": loss,
            "train/policy_gradient_loss": policy_loss,
            "train/value_loss": value_loss,
            "train/entropy_loss": entropy_loss,
            "train/explained_variance": core.explained_variance(v_tm1, v_tm1 + vtrace.errors, mask),
            "train/rho_mean": mean(rho_tm1),
            "train/rho_clip_fraction": mean((rho_tm1 > config.clip_rho).astype(jnp.float32)),
        }

    def learn(
        state: IMPALAState, trajectory: Trajectory, clock: Clock
    ) -> tuple[IMPALAState, dict[str, Array]]:
        normalizer = state.reward_normalizer
        if config.clip_reward:
            trajectory = trajectory._replace(r_t=jnp.clip(trajectory.r_t, -1.0, 1.0))
        if config.normalize_reward:
            normalizer, trajectory = networks.normalize_rewards(
                normalizer, trajectory, config.gamma
            )
        trajectory = shard_batch(trajectory._replace(memory=()), axis=1)._replace(
            memory=shard_batch(trajectory.memory)
        )
        grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params, trajectory, clock)
        updates, opt_state = optimizer(clock).update(grads, state.opt_state, state.params)
        state = IMPALAState(
            optax.apply_updates(state.params, updates), opt_state, normalizer, state.n_updates + 1
        )
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


class IMPALA(base.Algorithm[IMPALAConfig]):
    """Importance-weighted actor-learner. `agentzoo.algos.impala` describes the method."""

    Config = IMPALAConfig
    make_agent = staticmethod(make_agent)
    action_spaces = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")
    # As published for Atari, for n_envs=32 or more.
    presets = MappingProxyType(
        {
            "pixels": {
                "learning_rate": Linear(6e-4),
                "optimizer": "rmsprop",
                "max_grad_norm": 40.0,
                "n_steps": 20,
                "vtrace_lambda": 1.0,
                "ent_coef": 0.01,
                "clip_reward": True,
                "normalize_reward": False,
                "share_layers": True,
                "net_arch": (256,),
                "activation": "relu",
            }
        }
    )

    @staticmethod
    def upgrade(state: IMPALAState, spec: EnvSpec) -> IMPALAState:
        """Convert the state of an agent whose Box actions are in the environment's units."""
        params, factors = scale_to_bounds(state.params, spec.action_space)
        opt_state = state.opt_state
        for name, power in (
            ("mu", 1),
            ("nu", 2),
        ):  # moments of gradients, which shrink as parameters grow
            moment = optax.tree_utils.tree_get(opt_state, name)
            if moment is not None:
                moment = jax.tree.map(lambda m, factor: m / factor**power, moment, factors)  # noqa: B023
                opt_state = optax.tree_utils.tree_set(opt_state, **{name: moment})
        return state._replace(params=params, opt_state=opt_state)

    def value(self, observation: Any) -> Any:
        """The value of an observation, as one that begins an episode if the agent has memory; `[N]` for a batch.

        With `normalize_reward`, values are those of normalised rewards.

        Raises:
          ConfigurationError: if the observation does not fit the observation space.
        """
        return self._query("value", observation)
