"""Soft Actor-Critic, https://arxiv.org/abs/1801.01290 and https://arxiv.org/abs/1812.05905, and its variant for discrete actions.

A policy pi with parameters `params.policy` and an ensemble of critics q_e with parameters
`params.critic` learn from replayed transitions, by gradient descent on::

    critic_loss   = mean(weight * sum_e 0.5 * (r_t + discount_t * (min_e q_e(target_params, obs_t, a_t) - ent_coef * log_prob_t)
                                               - q_e(params, obs_tm1, a_tm1))^2)             a_t ~ pi(obs_t), log_prob_t = log pi(a_t)
    actor_loss    = mean(ent_coef * log_prob - min_e q_e(params, obs_tm1, a))                a ~ pi(obs_tm1), log_prob = log pi(a)
    ent_coef_loss = mean(ent_coef * (-log_prob - target_entropy))                            ent_coef = exp(log_ent_coef)
    target_params <- target_params + tau * (params - target_params)

where `r_t` and `discount_t` span `n_steps` steps. The policy is a Gaussian squashed by tanh into
[-1, 1], and scaled to the bounds of the action space: log-probabilities, and `target_entropy`, are
those of actions in [-1, 1], and are computed from the value before the tanh, where they are exact.
Other libraries have the logarithm of `ent_coef` in its place in its loss
(`log_ent_coef_loss=True`), so that it falls as fast when it is small. The policy acts by a sample,
and after training by the squashed mean. The noise of samples may last for `noise_steps` steps, as
an Ornstein-Uhlenbeck process, which finds what takes several like actions;
https://openreview.net/forum?id=hQ9V5QN27eS compares such noise.

With Discrete actions the policy is categorical and the critics value all actions at once, so that
expectations over actions take the place of samples, https://arxiv.org/abs/1910.07207. An
"action_mask" in a Dict of observations marks illegal actions, which have probability 0 and no part
in expectations and entropies; see `agentzoo.networks.action_masks`. `values` gives -inf for them.

Prioritised replay: https://arxiv.org/abs/1511.05952. More gradient steps than environment steps:
https://arxiv.org/abs/2101.05982.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from agentzoo import core, networks
from agentzoo.algos import base
from agentzoo.config import FRACTION, POSITIVE, TRACED, Range, Schedule, value_at
from agentzoo.replay import Batch, Prioritisation, Replay, make_phase, make_replay
from agentzoo.types import Agent, Array, Clock, ConfigurationError, EnvSpec, Mean, Trajectory


@dataclass(frozen=True)
class SACConfig:
    """Hyperparameters of SAC."""

    learning_rate: Annotated[Schedule, POSITIVE] = 3e-4
    """Learning rate of Adam for the policy, the critics and the entropy coefficient."""
    buffer_size: Annotated[int, Range(1)] = 1_000_000
    """Transitions that the replay buffer holds."""
    learning_starts: Annotated[int, Range(0), TRACED] = 100
    """Environment steps with random actions before learning starts."""
    batch_size: Annotated[int, Range(1)] = 256
    """Transitions per gradient step."""
    gamma: Annotated[float, FRACTION] = 0.99
    """Discount factor per environment step."""
    train_freq: Annotated[int, Range(1)] = 1
    """Environment steps per environment between two phases of learning."""
    gradient_steps: Annotated[int, Range(-1)] = 1
    """Gradient steps per phase of learning; -1 takes one per environment step."""
    tau: Annotated[float, Range(0, 1, open_low=True)] = 0.005
    """Fraction by which an update moves the target critics to the online ones; 1 copies them."""
    target_update_interval: Annotated[int, Range(1), TRACED] = 1
    """Gradient steps between two updates of the target critics."""
    policy_delay: Annotated[int, Range(1)] = 1
    """Gradient steps of the critics per update of the policy and the entropy coefficient."""
    ent_coef: float | str = "auto"
    """Weight of the entropy: a number, "auto" to learn it, or "auto_0.1" to learn it from 0.1
    on."""
    log_ent_coef_loss: bool = False
    """Learn ent_coef with the loss of Stable-Baselines3, which uses the logarithm of ent_coef. It
    then falls earlier than with the loss of the paper."""
    target_entropy: float | Literal["auto"] = "auto"
    """Entropy that a learned ent_coef aims at. "auto" is minus the number of action dimensions, or
    half of the largest entropy of the legal Discrete actions."""
    n_critics: Annotated[int, Range(1)] = 2
    """Number of critics. The minimum of their values is used, so more critics are more
    pessimistic."""
    n_steps: Annotated[int, Range(1)] = 1
    """Environment steps that a transition spans."""
    prioritized_replay: bool = False
    """Replay each transition with a probability in proportion to (abs(td_error) + eps)^alpha."""
    prioritized_replay_alpha: Annotated[float, FRACTION] = 0.6
    """Exponent alpha of the priorities; 0 replays uniformly."""
    prioritized_replay_beta0: Annotated[float, FRACTION] = 0.4
    """Initial exponent of the importance weights. It rises to 1 at the end of the run."""
    prioritized_replay_eps: Annotated[float, POSITIVE] = 1e-6
    """Constant eps of the priorities, which keeps every priority above 0."""
    noise_steps: Annotated[int, Range(1)] = 1
    """Environment steps for which the noise of Box actions persists during training; 1 draws new
    noise at each step. With more steps, the agent tries a movement for longer."""
    normalize_obs: bool = False
    """Normalise numbers in observations by their running mean and standard deviation."""
    images: networks.Images = "auto"
    """Parts of observations that are images: "auto", True for all that can be one, False for none,
    or names of parts of a Dict."""
    scale_obs: bool = True
    """Scale integers in observations by their bounds. False divides images by 255 and leaves other
    integers as they are."""
    cnn: networks.Cnn = "nature"
    """Convolutional layers for images."""
    net_arch: Annotated[tuple[int, ...], Range(1)] = (256, 256)
    """Sizes of the hidden layers of the policy and of each critic."""
    activation: networks.Activation = "relu"
    """Activation function of the hidden layers."""


class SACParams(NamedTuple):
    """What acting and valuing actions need."""

    policy: hk.Params
    critic: hk.Params  # with a leading axis E of critics
    statistics: Any  # of observations, or () if they are not normalised


class SACState(NamedTuple):
    """All that SAC carries from one cycle to the next."""

    params: SACParams
    target_critic: hk.Params
    log_ent_coef: Array
    opt_state: dict[str, optax.OptState]
    replay: Replay
    key: Array
    n_updates: Array


def parse_ent_coef(ent_coef: float | str | Array) -> tuple[bool, Any]:
    """Whether the coefficient is learned, and its first value."""
    if isinstance(
        ent_coef, jax.Array
    ):  # those of agents that learn together, each of which has been checked
        return False, ent_coef
    learned = isinstance(ent_coef, str) and ent_coef.startswith("auto")
    try:
        first = float(
            ent_coef.removeprefix("auto").removeprefix("_") or 1.0
            if isinstance(ent_coef, str)
            else ent_coef
        )
    except ValueError:
        first = -1.0
    if not 0.0 <= first < math.inf or (learned and first == 0.0):
        raise ConfigurationError(
            f'ent_coef={ent_coef!r} is no coefficient; expected a number of at least 0, "auto", or "auto_0.1".'
        )
    return learned, first


def make_agent(config: SACConfig, spec: EnvSpec, network: networks.Network | None = None) -> Agent:
    """Builds the pure functions of SAC; `network` may replace the layers that encode observations, of policy and critics alike."""
    space: Any = spec.action_space
    discrete = hasattr(space, "n")
    bounds: Any = None if discrete else networks.action_bounds(space)
    masks = networks.action_masks(spec)
    learns_ent_coef, first_ent_coef = parse_ent_coef(config.ent_coef)
    target_entropy = config.target_entropy
    if target_entropy == "auto":
        target_entropy = 0.5 * math.log(space.n) if discrete else -float(bounds.size)
    if discrete and config.noise_steps > 1:
        raise ConfigurationError(
            f"noise_steps={config.noise_steps} is for Box actions; leave it 1 for Discrete ones."
        )
    networks.check(config.activation, config.cnn)
    view = networks.make_view(masks.space, config.images, config.scale_obs)
    if isinstance(target_entropy, str):
        raise ConfigurationError(
            f'target_entropy={target_entropy!r} is no entropy; expected a number of nats, or "auto".'
        )

    @hk.without_apply_rng
    @hk.transform
    def policy_network(obs):
        features = networks.torso(
            view, config.cnn, config.net_arch, config.activation, obs, network
        )
        return hk.Linear(int(space.n) if discrete else 2 * bounds.size)(features)

    @hk.without_apply_rng
    @hk.transform
    def critic_network(obs, a):
        features = networks.torso(view, config.cnn, (), config.activation, obs, network)
        features = networks.mlp(
            features if discrete else jnp.concatenate([features, a], axis=-1),
            config.net_arch,
            config.activation,
        )
        return hk.Linear(int(space.n) if discrete else 1)(features)

    by_error = Prioritisation(
        config.prioritized_replay_alpha,
        config.prioritized_replay_beta0,
        config.prioritized_replay_eps,
    )
    prioritisation = by_error if config.prioritized_replay else None
    replay_buffer = make_replay(
        spec, config.buffer_size, config.train_freq, config.gamma, config.n_steps, prioritisation
    )
    phase = make_phase(
        replay_buffer,
        config.learning_starts,
        config.gradient_steps,
        config.train_freq * spec.num_envs,
    )

    def optimizer(clock: Clock) -> optax.GradientTransformation:
        return optax.adam(value_at(config.learning_rate, clock.remaining))

    def policy(params: hk.Params, seen: networks.Seen) -> Any:
        """A distribution over the indices of legal actions, or over `[N, D]` in [-1, 1]."""
        outputs = policy_network.apply(params, seen.obs)
        if discrete:
            return core.Categorical(outputs, seen.legal)
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        return core.TanhGaussian(mean, jnp.exp(jnp.clip(log_std, -20.0, 2.0)))

    def q_values(params: hk.Params, seen: networks.Seen, a: Array | None = None) -> Array:
        """Of all critics: `[N, E, A]`, or those of actions a `[N, E]`."""
        q = jax.vmap(critic_network.apply, in_axes=(0, None, None), out_axes=1)(params, seen.obs, a)
        return q if discrete else q[..., 0]

    def observed(params: SACParams, obs) -> networks.Seen:
        seen = masks.split(obs)
        return seen._replace(obs=networks.normalize(view, params.statistics, seen.obs))

    def init(key: Array) -> SACState:
        policy_key, critic_key, key = jax.random.split(key, 3)
        obs, a = (
            networks.example(masks.space),
            None if discrete else jnp.zeros((1, bounds.size), jnp.float32),
        )
        critic = jax.vmap(lambda key: critic_network.init(key, obs, a))(
            jax.random.split(critic_key, config.n_critics)
        )
        statistics = networks.init_statistics(masks.space, view) if config.normalize_obs else ()
        params = SACParams(policy_network.init(policy_key, obs), critic, statistics)
        log_ent_coef = jnp.log(jnp.float32(first_ent_coef))
        learned = {"policy": params.policy, "critic": params.critic, "ent_coef": log_ent_coef}
        adam = optimizer(Clock(jnp.zeros(()), jnp.zeros(()), jnp.ones(())))
        opt_state = {name: adam.init(tree) for name, tree in learned.items()}
        target_critic = jax.tree.map(jnp.copy, critic)
        return SACState(
            params, target_critic, log_ent_coef, opt_state, replay_buffer.init(), key, jnp.int32(0)
        )

    def explore(pi: Any, noise: Any, key: Array) -> tuple[Array, Any]:
        """An action, and its noise if that lasts."""
        if config.noise_steps == 1:
            return pi.sample(seed=key), noise
        damping = 1.0 / config.noise_steps
        fresh = math.sqrt(
            1.0 - (1.0 - damping) ** 2
        )  # so that the variance of the noise is 1, but less at first
        noise = core.ou_step(key, jnp.zeros_like(noise), noise, damping, fresh).noise
        return pi.squash(pi.pre_tanh_mean + pi.pre_tanh_std * noise), noise

    def act(params, memory, obs, key, clock):
        policy_key, uniform_key = jax.random.split(key)
        seen = observed(params, obs)
        a, memory = explore(policy(params.policy, seen), memory, policy_key)
        if seen.legal is not None:
            u = jax.random.uniform(uniform_key, a.shape, jnp.float32)
            anything = networks.uniform_action(u, int(space.n), seen.legal)
        elif discrete:
            anything = jax.random.randint(uniform_key, a.shape, 0, int(space.n))
        else:
            anything = jax.random.uniform(uniform_key, a.shape, a.dtype, -1.0, 1.0)
        a = jnp.where(clock.step < config.learning_starts, anything, a)
        return a if discrete else bounds.scale(a), memory, ()

    def predict(params, memory, obs, key, deterministic):
        pi = policy(params.policy, observed(params, obs))
        a = pi.mode() if deterministic else pi.sample(seed=key)
        return a if discrete else bounds.scale(a), memory

    def critic_loss_fn(
        critic: hk.Params, state: SACState, batch: Batch, key: Array
    ) -> tuple[Array, Array]:
        pi_t, ent_coef = policy(state.params.policy, batch.obs_t), jnp.exp(state.log_ent_coef)
        if discrete:
            q_tm1, q_t = q_values(critic, batch.obs_tm1), q_values(state.target_critic, batch.obs_t)
            td_error = core.sac_discrete_error(
                q_tm1, batch.a_tm1, batch.r_t, batch.discount_t, q_t, pi_t.logits, ent_coef
            )
        else:
            a_t, log_prob_t = pi_t.sample_and_log_prob(seed=key)
            q_tm1, q_t = (
                q_values(critic, batch.obs_tm1, batch.a_tm1),
                q_values(state.target_critic, batch.obs_t, a_t),
            )
            td_error = core.sac_error(q_tm1, batch.r_t, batch.discount_t, q_t, log_prob_t, ent_coef)
        return jnp.mean(batch.weight * core.l2_loss(td_error).sum(axis=-1)), jnp.abs(td_error).mean(
            axis=-1
        )

    def actor_loss_fn(
        policy_params: hk.Params, state: SACState, obs, key: Array
    ) -> tuple[Array, Array]:
        pi, ent_coef = policy(policy_params, obs), jnp.exp(state.log_ent_coef)
        if discrete:
            return core.sac_discrete_policy_loss(
                pi.logits, q_values(state.params.critic, obs), ent_coef
            ), pi.logits
        a, log_prob = pi.sample_and_log_prob(seed=key)
        return core.sac_policy_loss(
            q_values(state.params.critic, obs, a), log_prob, ent_coef
        ), log_prob

    def ent_coef_loss_fn(log_ent_coef: Array, outcome: Array) -> tuple[Array, tuple]:
        loss = core.sac_discrete_temperature_loss if discrete else core.sac_temperature_loss
        target, ent_coef = (
            target_entropy,
            log_ent_coef if config.log_ent_coef_loss else jnp.exp(log_ent_coef),
        )
        if masks.masked and config.target_entropy == "auto":
            target = 0.5 * jnp.log(
                jnp.sum(outcome > -jnp.inf, axis=-1, dtype=jnp.float32)
            )  # the outcome is logits
        return loss(outcome, ent_coef, target), ()

    def descend(
        name: str, loss_fn, params, opt_state: dict, clock: Clock, *arguments
    ) -> tuple[Any, dict, Array, Any]:
        """A gradient step of the parameters of that name; also returns the loss, and what else its function has computed."""
        (loss, auxiliary), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, *arguments)
        updates, own = optimizer(clock).update(grads, opt_state[name], params)
        return optax.apply_updates(params, updates), {**opt_state, name: own}, loss, auxiliary

    def improve(state: SACState, obs, key: Array, clock: Clock) -> tuple[SACState, Array]:
        """A gradient step of the policy, and one of the entropy coefficient."""
        policy_params, opt_state, actor_loss, outcome = descend(
            "policy", actor_loss_fn, state.params.policy, state.opt_state, clock, state, obs, key
        )
        log_ent_coef, ent_coef_loss = state.log_ent_coef, jnp.float32(0)
        if learns_ent_coef:
            log_ent_coef, opt_state, ent_coef_loss, _ = descend(
                "ent_coef", ent_coef_loss_fn, log_ent_coef, opt_state, clock, outcome
            )
        state = state._replace(
            params=state.params._replace(policy=policy_params),
            log_ent_coef=log_ent_coef,
            opt_state=opt_state,
        )
        return state, jnp.stack([actor_loss, ent_coef_loss])

    def update(state: SACState, key: Array, clock: Clock) -> tuple[SACState, Array]:
        sample_key, critic_key, actor_key = jax.random.split(key, 3)
        replay, state = (
            state.replay,
            state._replace(replay=()),
        )  # so that a conditional does not copy it
        batch = replay_buffer.sample(replay, sample_key, config.batch_size, clock.remaining)
        obs_tm1, obs_t = observed(state.params, batch.obs_tm1), observed(state.params, batch.obs_t)
        batch = batch._replace(
            obs_tm1=obs_tm1,
            obs_t=obs_t,
            a_tm1=batch.a_tm1 if discrete else bounds.unscale(batch.a_tm1),
        )

        critic, opt_state, critic_loss, error = descend(
            "critic",
            critic_loss_fn,
            state.params.critic,
            state.opt_state,
            clock,
            state,
            batch,
            critic_key,
        )
        state = state._replace(
            params=state.params._replace(critic=critic),
            opt_state=opt_state,
            n_updates=state.n_updates + 1,
        )
        replay = replay_buffer.update(replay, batch.slot, error)

        def improved() -> tuple[SACState, Array]:
            return improve(state, obs_tm1, actor_key, clock)

        due = state.n_updates % config.policy_delay == 0
        state, losses = jax.lax.cond(due, improved, lambda: (state, jnp.zeros(2, jnp.float32)))
        due = state.n_updates % config.target_update_interval == 0
        target_critic = optax.incremental_update(
            critic, state.target_critic, jnp.where(due, config.tau, 0.0)
        )
        return state._replace(target_critic=target_critic, replay=replay), jnp.append(
            losses, critic_loss
        )

    def learn(
        state: SACState, trajectory: Trajectory, clock: Clock
    ) -> tuple[SACState, dict[str, Any]]:
        statistics = state.params.statistics
        obs_tm1 = masks.split(trajectory.obs_tm1).obs
        statistics = networks.update_statistics(view, statistics, obs_tm1, trajectory.mask)
        state = state._replace(params=state.params._replace(statistics=statistics))
        before = state.n_updates
        state, (actor_loss, ent_coef_loss, critic_loss), updates = phase(
            update, state, trajectory, clock
        )
        improvements = state.n_updates // config.policy_delay - before // config.policy_delay
        metrics = {
            "train/actor_loss": Mean(actor_loss, improvements),
            "train/critic_loss": Mean(critic_loss, updates),
            "train/ent_coef": jnp.exp(state.log_ent_coef),
            "train/learning_rate": value_at(config.learning_rate, clock.remaining),
            "train/n_updates": state.n_updates,
        }
        if learns_ent_coef:
            metrics["train/ent_coef_loss"] = Mean(ent_coef_loss, improvements)
        return state, metrics

    def values(params: SACParams, obs, action=None):
        seen, a = observed(params, obs), None if action is None else bounds.unscale(action)
        return networks.rule_out(q_values(params.critic, seen, a).min(axis=1), seen.legal)

    def initial_memory(num_envs: int) -> Any:
        return jnp.zeros((num_envs, bounds.size), jnp.float32) if config.noise_steps > 1 else ()

    queries, refill = {"values": values}, {"replay": replay_buffer.refill}
    inputs = networks.describe(view)
    return Agent(
        init, act, predict, learn, config.train_freq, initial_memory, queries, inputs, refill
    )


class SAC(base.Algorithm[SACConfig]):
    """Soft Actor-Critic for Box and Discrete actions. `agentzoo.algos.sac` describes the method."""

    Config = SACConfig
    make_agent = staticmethod(make_agent)
    action_spaces = ("Box", "Discrete")
