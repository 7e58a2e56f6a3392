"""Soft Actor-Critic (SAC), https://arxiv.org/abs/1801.01290 and https://arxiv.org/abs/1812.05905.

A policy pi with parameters `params.policy` and an ensemble of critics q_e with parameters
`params.critic` learn from replayed transitions, by gradient descent on::

    critic_loss   = mean(weight * sum_e 0.5 * (target - q_e(params, obs_tm1, a_tm1))^2)
    target        = r_t + discount_t * (min_e q_e(target_params, obs_t, a_t)
                                        - ent_coef * log_prob_t)
    actor_loss    = mean(ent_coef * log_prob - min_e q_e(params, obs_tm1, a))
    ent_coef_loss = mean(ent_coef * (-log_prob - target_entropy))
    target_params <- tau * params + (1 - tau) * target_params

    a_t ~ pi(obs_t), log_prob_t = log pi(a_t)
    a ~ pi(obs_tm1), log_prob = log pi(a)
    ent_coef = exp(log_ent_coef)

where `r_t` and `discount_t` span `n_steps` steps. The gradient of each loss changes the parameters
of that name alone. The policy is a Gaussian squashed by tanh into [-1, 1], and its actions are
scaled to the bounds of the action space. Log-probabilities and `target_entropy` refer to actions in
[-1, 1]. They are computed from the value before the tanh, which keeps them exact.

With `log_ent_coef_loss=True`, the loss of the entropy coefficient has `log_ent_coef` in the place
of `ent_coef`, as in other libraries. A small coefficient then changes as fast as a large one.

While training, the policy acts by a sample, whose noise may last for `noise_steps` steps as an
Ornstein-Uhlenbeck process. Lasting noise finds what takes several similar actions in a row;
https://openreview.net/forum?id=hQ9V5QN27eS compares such noise. After training, the policy acts by
the squashed mean.

For Discrete actions the policy is categorical, and the critics value all actions at once, so that
expectations over actions replace samples, https://arxiv.org/abs/1910.07207. An "action_mask" in a
Dict of observations marks illegal actions. They have probability 0, and expectations and entropies
leave them out; see `agentzoo.networks.action_masks`. Their `values` are -inf.

Prioritised replay: https://arxiv.org/abs/1511.05952. More gradient steps than environment steps
need more critics or dropout. With `n_target_critics`, min_e of the target is over critics that are
drawn anew at each gradient step, and with `actor_q="mean"`, the mean replaces min_e in the loss of
the policy (REDQ, https://arxiv.org/abs/2101.05982). With `critic_dropout` and `layer_norm`, two
critics are enough (DroQ, https://arxiv.org/abs/2110.02034).
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from agentzoo import core, networks
from agentzoo.algos import base, off_policy, optimizers
from agentzoo.config import FRACTION, POSITIVE, TRACED, Range, Schedule, Search, value_at
from agentzoo.replay import Batch, Prioritisation, Replay, make_replay
from agentzoo.types import Agent, Array, Clock, ConfigurationError, EnvSpec, PyTree, Trajectory


@dataclass(frozen=True)
class SACConfig:
    """Hyperparameters of SAC."""

    learning_rate: Annotated[Schedule, POSITIVE, Search(1e-5, 1e-2, log=True)] = 3e-4
    """Learning rate of Adam for the policy, the critics and the entropy coefficient."""
    buffer_size: Annotated[int, Range(1)] = 1_000_000
    """Transitions that the replay buffer holds."""
    learning_starts: Annotated[int, Range(0), TRACED, Search(100, 5_000, log=True)] = 100
    """Environment steps with random actions before learning starts."""
    batch_size: Annotated[int, Range(1), Search(choices=(64, 128, 256, 512))] = 256
    """Transitions per gradient step."""
    gamma: Annotated[float, FRACTION, Search(choices=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999))] = 0.99
    """Discount factor per environment step."""
    train_freq: Annotated[int, Range(1), Search(choices=(1, 4, 8, 16))] = 1
    """Environment steps per environment between two phases of learning."""
    gradient_steps: Annotated[int, Range(-1), Search(choices=(1, 4, 8, -1))] = 1
    """Gradient steps per phase of learning; -1 takes one per environment step."""
    tau: Annotated[float, Range(0, 1, open_low=True), Search(0.001, 0.05, log=True)] = 0.005
    """Fraction by which an update moves the target critics to the online ones; 1 copies them."""
    target_update_interval: Annotated[int, Range(1), TRACED] = 1
    """Gradient steps between two updates of the target critics."""
    policy_delay: Annotated[int, Range(1), TRACED] = 1
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
    n_target_critics: Annotated[int | None, Range(1)] = None
    """Number of target critics, drawn anew at each gradient step, whose minimum is the target of
    the critics; None for all."""
    actor_q: Literal["min", "mean"] = "min"
    """Which value of the critics the policy maximises: their minimum, or their mean."""
    critic_dropout: Annotated[float | None, Range(0, 0.99)] = None
    """Probability of dropout in the hidden layers of the critics, such as 0.01; None for no
    dropout."""
    n_steps: Annotated[int, Range(1), Search(choices=(1, 3, 5))] = 1
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
    net_arch: Annotated[
        tuple[int, ...], Range(1), Search(choices=((64, 64), (256, 256), (400, 300)))
    ] = (256, 256)
    """Sizes of the hidden layers of the policy and of each critic."""
    activation: networks.Activation = "relu"
    """Activation function of the hidden layers."""
    layer_norm: networks.LayerNorm = False
    """Layer normalisation before the activation of each hidden layer. "first" normalises only the
    first one, and its activation is then tanh."""
    residual: bool = False
    """Residual blocks (SimBa) as hidden layers, one for each size in net_arch. They have layer
    normalisation of their own, whatever layer_norm says."""


class SACParams(NamedTuple):
    """All that acting and valuing actions needs."""

    policy: hk.Params
    critic: hk.Params  # leaves [E, ...] for E critics
    obs_statistics: networks.Statistics  # () if observations are not normalised


class SACState(NamedTuple):
    """All that SAC carries from one training cycle to the next."""

    params: SACParams
    target_critic: hk.Params
    log_ent_coef: Array
    opt_state: dict[str, optax.OptState]  # of "policy", "critic" and "ent_coef"
    replay: Replay
    key: Array  # key data: JAX takes about 50 us per call to return a typed key
    n_updates: Array


class Descent(NamedTuple):
    """What a gradient step leads to."""

    params: PyTree
    opt_state: optax.OptState
    loss: Array
    auxiliary: Any  # what else the loss function returned


def parse_ent_coef(ent_coef: float | str | Array) -> tuple[bool, Any]:
    """Return whether the entropy coefficient is learned, and its initial value.

    Raises:
      ConfigurationError: if it is neither a number of at least 0, nor "auto", nor "auto_0.1" or
        the like.
    """
    if isinstance(ent_coef, jax.Array):  # a number that was checked before it was traced
        return False, ent_coef
    learned = isinstance(ent_coef, str) and ent_coef.startswith("auto")
    number: Any = ent_coef
    if isinstance(ent_coef, str):
        number = ent_coef.removeprefix("auto").removeprefix("_") or 1.0
    try:
        first = float(number)
    except ValueError:
        first = -1.0
    if not 0.0 <= first < math.inf or (learned and first == 0.0):
        raise ConfigurationError(
            f"ent_coef={ent_coef!r} is no entropy coefficient. "
            'Use a number of at least 0, "auto", or "auto_0.1".'
        )
    return learned, first


def parse_target_entropy(target_entropy: float | str | Array, space: Any) -> Any:
    """Return the entropy that the learned coefficient aims for; "auto" depends on the actions.

    Raises:
      ConfigurationError: if it is neither a number nor "auto".
    """
    if not isinstance(target_entropy, str):
        return target_entropy
    if target_entropy != "auto":
        raise ConfigurationError(
            f'target_entropy={target_entropy!r} is no entropy. Use a number of nats, or "auto".'
        )
    return 0.5 * math.log(space.n) if hasattr(space, "n") else -float(math.prod(space.shape))


def make_agent(config: SACConfig, spec: EnvSpec, network: networks.Network | None = None) -> Agent:
    """Build the pure functions of SAC.

    Args:
      config: the hyperparameters. Those that are numbers may be traced by JAX.
      spec: the environments.
      network: a user's layers that encode observations, for the policy and for the critics.

    Raises:
      ConfigurationError: if hyperparameters do not fit together, or do not fit the environments.
    """
    space: Any = spec.action_space
    discrete = hasattr(space, "n")
    bounds: Any = None if discrete else networks.action_bounds(space)
    masks = networks.action_masks(spec)
    learns_ent_coef, first_ent_coef = parse_ent_coef(config.ent_coef)
    target_entropy = parse_target_entropy(config.target_entropy, space)
    if discrete and config.noise_steps > 1:
        raise ConfigurationError(
            f"noise_steps={config.noise_steps} is for Box actions. "
            "Leave it at 1 for Discrete actions."
        )
    if config.n_target_critics is not None and config.n_target_critics > config.n_critics:
        raise ConfigurationError(
            f"n_target_critics={config.n_target_critics} is more than "
            f"n_critics={config.n_critics}. Use at most as many."
        )
    view = networks.make_view(masks.space, config.images, config.scale_obs)
    layers = networks.Layers(config.activation, config.layer_norm, config.residual)

    @hk.without_apply_rng
    @hk.transform
    def policy_network(obs):
        features = networks.torso(view, config.cnn, config.net_arch, layers, obs, network)
        return hk.Linear(int(space.n) if discrete else 2 * bounds.size)(features)

    @hk.transform
    def critic_network(obs, a):
        features = networks.torso(view, config.cnn, (), layers, obs, network)
        features = networks.mlp(
            features if discrete else jnp.concatenate([features, a], axis=-1),
            config.net_arch,
            layers._replace(dropout=config.critic_dropout),
        )
        return hk.Linear(int(space.n) if discrete else 1)(features)

    optimizer = optimizers.adam()
    prioritisation = Prioritisation(
        config.prioritized_replay_alpha,
        config.prioritized_replay_beta0,
        config.prioritized_replay_eps,
    )
    replay_buffer = make_replay(
        spec,
        config.buffer_size,
        config.train_freq,
        config.gamma,
        config.n_steps,
        prioritisation if config.prioritized_replay else None,
    )

    def policy(params: hk.Params, seen: networks.Seen) -> Any:
        """Return a distribution over indices of legal actions, or over `[N, D]` in [-1, 1]."""
        outputs = policy_network.apply(params, seen.obs)
        if discrete:
            return core.Categorical(outputs, seen.legal)
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        return core.TanhGaussian(mean, jnp.exp(jnp.clip(log_std, -20.0, 2.0)))

    def q_values(
        params: hk.Params, seen: networks.Seen, a: Array | None = None, key: Array | None = None
    ) -> Array:
        """Return the values of all critics: `[N, E, A]`, or `[N, E]` for actions `[N, D]`.

        Without a key, there is no dropout.
        """
        keys = None
        if config.critic_dropout is not None and key is not None:
            keys = jax.random.split(key, len(jax.tree.leaves(params)[0]))  # one per critic
        q = jax.vmap(critic_network.apply, in_axes=(0, 0, None, None), out_axes=1)(
            params, keys, seen.obs, a
        )
        return q if discrete else q[..., 0]

    def drawn_critics(params: hk.Params, key: Array) -> hk.Params:
        """Draw the critics that give the target."""
        if config.n_target_critics is None:
            return params
        chosen = jax.random.choice(key, config.n_critics, (config.n_target_critics,), replace=False)
        return jax.tree.map(lambda x: x[chosen], params)

    def combined(q: Array) -> Array:
        """Return the values `[N, E, ...]` of which the policy maximises the minimum over E."""
        return q if config.actor_q == "min" else q.mean(axis=1, keepdims=True)

    def observed(params: SACParams, obs) -> networks.Seen:
        """Return observations as the networks see them, and which actions are legal."""
        seen = masks.split(obs)
        return seen._replace(obs=networks.normalize(view, params.obs_statistics, seen.obs))

    def init(key: Array) -> SACState:
        policy_key, critic_key, key = jax.random.split(key, 3)
        obs = networks.example(masks.space)
        a = None if discrete else jnp.zeros((1, bounds.size), jnp.float32)
        critic_keys = jax.random.split(critic_key, config.n_critics)
        params = SACParams(
            policy=policy_network.init(policy_key, obs),
            critic=jax.vmap(lambda key: critic_network.init(key, obs, a))(critic_keys),
            obs_statistics=(
                networks.init_statistics(masks.space, view) if config.normalize_obs else ()
            ),
        )
        log_ent_coef = jnp.log(jnp.float32(first_ent_coef))
        return SACState(
            params=params,
            target_critic=jax.tree.map(jnp.copy, params.critic),
            log_ent_coef=log_ent_coef,
            opt_state={
                "policy": optimizer.init(params.policy),
                "critic": optimizer.init(params.critic),
                "ent_coef": optimizer.init(log_ent_coef),
            },
            replay=replay_buffer.init(),
            key=jax.random.key_data(key),
            n_updates=jnp.int32(0),
        )

    def explore(pi: Any, noise: Any, key: Array) -> tuple[Array, Any]:
        """Draw actions; the noise is kept if it lasts for several steps."""
        if config.noise_steps == 1:
            return pi.sample(seed=key), noise
        damping = 1.0 / config.noise_steps
        # With this much fresh noise, the variance of the sum tends to 1. It is smaller at first.
        fresh = math.sqrt(1.0 - (1.0 - damping) ** 2)
        noise = core.ou_step(key, jnp.zeros_like(noise), noise, damping, fresh).noise
        return pi.squash(pi.pre_tanh_mean + pi.pre_tanh_std * noise), noise

    def random_action(like: Array, legal: Array | None, key: Array) -> Array:
        if legal is not None:
            u = jax.random.uniform(key, like.shape, jnp.float32)
            return networks.uniform_action(u, int(space.n), legal)
        if discrete:
            return jax.random.randint(key, like.shape, 0, int(space.n))
        return jax.random.uniform(key, like.shape, like.dtype, -1.0, 1.0)

    def act(params, memory, obs, key, clock):
        policy_key, uniform_key = jax.random.split(key)
        seen = observed(params, obs)
        a, memory = explore(policy(params.policy, seen), memory, policy_key)
        warm_up = clock.step < config.learning_starts
        a = jnp.where(warm_up, random_action(a, seen.legal, uniform_key), a)
        return a if discrete else bounds.scale(a), memory, ()

    def predict(params, memory, obs, key, deterministic):
        pi = policy(params.policy, observed(params, obs))
        a = pi.mode() if deterministic else pi.sample(seed=key)
        return a if discrete else bounds.scale(a), memory

    def critic_loss_fn(
        critic: hk.Params, state: SACState, batch: Batch, key: Array
    ) -> tuple[Array, Array]:
        pi_t = policy(state.params.policy, batch.obs_t)
        ent_coef = jnp.exp(state.log_ent_coef)
        draw_key, *dropout_keys = jax.random.split(jax.random.fold_in(key, 1), 3)
        target_critic = drawn_critics(state.target_critic, draw_key)
        if discrete:
            q_tm1 = q_values(critic, batch.obs_tm1, key=dropout_keys[0])
            q_t = q_values(target_critic, batch.obs_t, key=dropout_keys[1])
            td_error = core.sac_discrete_error(
                q_tm1, batch.a_tm1, batch.r_t, batch.discount_t, q_t, pi_t.logits, ent_coef
            )
        else:
            a_t, log_prob_t = pi_t.sample_and_log_prob(seed=key)
            q_tm1 = q_values(critic, batch.obs_tm1, batch.a_tm1, dropout_keys[0])
            q_t = q_values(target_critic, batch.obs_t, a_t, dropout_keys[1])
            td_error = core.sac_error(q_tm1, batch.r_t, batch.discount_t, q_t, log_prob_t, ent_coef)
        # td_error is [B, E]: losses are summed over the critics, and priorities averaged.
        loss = jnp.mean(batch.weight * core.l2_loss(td_error).sum(axis=-1))
        return loss, jnp.abs(td_error).mean(axis=-1)

    def actor_loss_fn(
        policy_params: hk.Params, state: SACState, obs: networks.Seen, key: Array
    ) -> tuple[Array, Array]:
        pi = policy(policy_params, obs)
        ent_coef = jnp.exp(state.log_ent_coef)
        dropout_key = jax.random.fold_in(key, 1)
        if discrete:
            q = combined(q_values(state.params.critic, obs, key=dropout_key))
            return core.sac_discrete_policy_loss(pi.logits, q, ent_coef), pi.logits
        a, log_prob = pi.sample_and_log_prob(seed=key)
        q = combined(q_values(state.params.critic, obs, a, dropout_key))
        return core.sac_policy_loss(q, log_prob, ent_coef), log_prob

    def ent_coef_loss_fn(log_ent_coef: Array, outcome: Array) -> tuple[Array, tuple]:
        """Return the loss for logits `[B, A]` of Discrete actions, or log-probabilities `[B]`."""
        loss = core.sac_discrete_temperature_loss if discrete else core.sac_temperature_loss
        target = target_entropy
        if masks.masked and isinstance(config.target_entropy, str):
            num_legal = jnp.sum(outcome > -jnp.inf, axis=-1, dtype=jnp.float32)
            target = 0.5 * jnp.log(num_legal)
        coefficient = log_ent_coef if config.log_ent_coef_loss else jnp.exp(log_ent_coef)
        return loss(outcome, coefficient, target), ()

    def descend(
        loss_fn, params: PyTree, opt_state: optax.OptState, clock: Clock, *arguments
    ) -> Descent:
        """Take a gradient step on `loss_fn(params, *arguments)`."""
        (loss, auxiliary), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, *arguments)
        learning_rate = value_at(config.learning_rate, clock.remaining)
        updates, opt_state = optimizer.update(grads, opt_state, params, learning_rate=learning_rate)
        return Descent(optax.apply_updates(params, updates), opt_state, loss, auxiliary)

    def improve(
        state: SACState, obs: networks.Seen, key: Array, clock: Clock
    ) -> tuple[SACState, dict[str, Array]]:
        """Take a gradient step of the policy, and one of the entropy coefficient."""
        opt_state = state.opt_state
        actor = descend(
            actor_loss_fn, state.params.policy, opt_state["policy"], clock, state, obs, key
        )
        metrics = {"train/actor_loss": actor.loss}
        state = state._replace(
            params=state.params._replace(policy=actor.params),
            opt_state={**opt_state, "policy": actor.opt_state},
        )
        if learns_ent_coef:
            ent_coef = descend(
                ent_coef_loss_fn,
                state.log_ent_coef,
                opt_state["ent_coef"],
                clock,
                actor.auxiliary,
            )
            metrics["train/ent_coef_loss"] = ent_coef.loss
            state = state._replace(
                log_ent_coef=ent_coef.params,
                opt_state={**state.opt_state, "ent_coef": ent_coef.opt_state},
            )
        return state, metrics

    def update(state: SACState, key: Array, clock: Clock) -> tuple[SACState, dict[str, Array]]:
        sample_key, critic_key, actor_key = jax.random.split(key, 3)
        # The conditional below would copy the replay if it were part of the state.
        replay = state.replay
        state = state._replace(replay=())
        batch = replay_buffer.sample(replay, sample_key, config.batch_size, clock.remaining)
        batch = batch._replace(
            obs_tm1=observed(state.params, batch.obs_tm1),
            obs_t=observed(state.params, batch.obs_t),
            a_tm1=batch.a_tm1 if discrete else bounds.unscale(batch.a_tm1),
        )
        critic = descend(
            critic_loss_fn,
            state.params.critic,
            state.opt_state["critic"],
            clock,
            state,
            batch,
            critic_key,
        )
        state = state._replace(
            params=state.params._replace(critic=critic.params),
            opt_state={**state.opt_state, "critic": critic.opt_state},
            n_updates=state.n_updates + 1,
        )
        replay = replay_buffer.update(replay, batch.slot, critic.auxiliary)

        def improved() -> tuple[SACState, dict[str, Array]]:
            return improve(state, batch.obs_tm1, actor_key, clock)

        def unchanged() -> tuple[SACState, dict[str, Array]]:
            _, metrics = jax.eval_shape(improved)
            return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)

        is_due = state.n_updates % config.policy_delay == 0
        state, metrics = jax.lax.cond(is_due, improved, unchanged)
        is_due = state.n_updates % config.target_update_interval == 0
        target_critic = optax.incremental_update(
            critic.params, state.target_critic, jnp.where(is_due, config.tau, 0.0)
        )
        metrics["train/critic_loss"] = critic.loss
        return state._replace(target_critic=target_critic, replay=replay), metrics

    learning_phase = off_policy.make_learning_phase(
        update, replay_buffer, config.learning_starts, config.gradient_steps
    )

    def learn(
        state: SACState, trajectory: Trajectory, clock: Clock
    ) -> tuple[SACState, dict[str, Any]]:
        obs_statistics = networks.update_statistics(
            view,
            state.params.obs_statistics,
            masks.split(trajectory.obs_tm1).obs,
            trajectory.mask,
        )
        state = state._replace(params=state.params._replace(obs_statistics=obs_statistics))
        before = state.n_updates
        state, metrics = learning_phase(state, trajectory, clock)
        # How many of these gradient steps have improved the policy: every `policy_delay`-th one.
        delay = config.policy_delay
        num_improvements = state.n_updates // delay - before // delay
        for name in metrics.keys() & {"train/actor_loss", "train/ent_coef_loss"}:
            metrics[name] = metrics[name]._replace(count=num_improvements)
        return state, {
            **metrics,
            "train/ent_coef": jnp.exp(state.log_ent_coef),
            "train/learning_rate": value_at(config.learning_rate, clock.remaining),
            "train/n_updates": state.n_updates,
        }

    def values(params: SACParams, obs, action=None) -> Array:
        seen = observed(params, obs)
        a = None if action is None else bounds.unscale(action)
        return networks.rule_out(q_values(params.critic, seen, a).min(axis=1), seen.legal)

    def initial_memory(num_envs: int) -> Any:
        """Return the noise `[N, D]` at the beginning of an episode, if it lasts."""
        return jnp.zeros((num_envs, bounds.size), jnp.float32) if config.noise_steps > 1 else ()

    return Agent(
        init,
        act,
        predict,
        learn,
        unroll_length=config.train_freq,
        initial_memory=initial_memory,
        queries={"values": values},
        inputs=networks.describe(view),
        refill={"replay": replay_buffer.refill},
        targets={"target_critic": lambda params: params.critic},
    )


class SAC(base.Algorithm[SACConfig]):
    """Soft Actor-Critic for Box and Discrete actions. `agentzoo.algos.sac` describes the method."""

    Config = SACConfig
    make_agent = staticmethod(make_agent)
    action_spaces = ("Box", "Discrete")
