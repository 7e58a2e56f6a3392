"""Maximum a posteriori Policy Optimisation, https://arxiv.org/abs/1806.06920, with a Gaussian or a categorical policy.

There are two copies of policy pi and critic q: the *online* ones, which gradients change, and the
*target* ones, a copy that is refreshed every `target_update_interval` gradient steps. A gradient
step, on replayed transitions::

    critic               v_t = mean_j q(target, obs_t, a'[j])                             a'[j] ~ pi(target, obs_t)
             descends    0.5 * (r_t + discount_t * v_t - q(online, obs_tm1, a_tm1))^2
    E-step               q[i] = q(target, obs_tm1, a[i])                                  a[i] ~ pi(target, obs_tm1), i = 1 .. num_samples
                         weights[i] = exp(q[i] / temperature) / sum_j exp(q[j] / temperature)
             descends    temperature * (epsilon + log mean_i exp(q[i] / temperature))     over temperature
    M-step   descends    -sum_i weights[i] * log pi(online, obs_tm1)(a[i]) + stop(alpha) * KL              over the policy
             descends    alpha * (epsilon_kl - stop(KL))                                  over alpha

Discrete actions are not sampled: sums over all of them, with their probabilities, take the place of
means over samples.

What goes into the KL? KL(pi(target, obs_tm1) || pi(online, obs_tm1)): how far the policy has moved
since the last refresh, not since the last gradient step. For a Gaussian there are two of them for
each dimension of the action (https://arxiv.org/abs/1812.02256): one between policies that differ in
their means alone, bounded by `epsilon_mean`, and one for the standard deviations alone, bounded by
`epsilon_stddev`, each with an alpha of its own. So the mean can move fast while the policy stays
wide for long. The M-step fits the mean and the standard deviation apart, too.

Why is the KL not zero? Just after a refresh it is, since both copies are equal, and its gradient
too; it grows from there. Were it taken to the online policy itself it would always be zero, and
nothing would be constrained. Where it stays below its bound alpha falls, where it exceeds it alpha
rises: at rest it is near the bound, averaged over the gradient steps between two refreshes.

Which parameters are the target's? Those of the policy that samples the actions, of the critic that
values them, in both steps and in the critic's own target, and of the policy on the left of the KLs.
The online policy acts. Gradients reach the online copies and the duals.

An action outside the bounds is clipped before it is valued or taken. `action_penalty` makes a
second E-step, on minus the distance of each action to the bounds, with a temperature of its own and
the bound `epsilon_penalty` (https://arxiv.org/abs/2005.07513): without it the mean may wander off,
as all actions beyond a bound are worth the same. Temperatures and alphas are learned as logarithms,
so that a step is a relative change whatever their size, with an Adam whose epsilon is far below
their gradients. An alpha stays above 0.1, where it hardly holds the policy back: from there it is
soon as large as it must be, once the policy begins to move faster. And unless it begins beyond, it
stays within three times sqrt(epsilon / epsilon_mean), or the like for the other bounds: as large as
that, it keeps an improved policy that is `epsilon` away well within the bound. If the KL is larger
still, steps of the optimiser are too large, which no alpha mends: it would grow without end, and
nothing else would be learned.

An "action_mask" in a Dict of observations marks illegal ones among Discrete actions. They have
probability 0 and no part in expectations and KLs; see `agentzoo.networks.action_masks`. `values`
gives -inf for them.

The critic's target spans `n_steps` steps, or is that of Retrace over sequences of so many
(https://arxiv.org/abs/1606.02647).

The noise of actions may last for `noise_steps` steps, as an Ornstein-Uhlenbeck process, which finds
what takes several like actions; https://openreview.net/forum?id=hQ9V5QN27eS compares such noise.
Retrace then counts with probabilities given the noise before.
"""

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from agentzoo import core, networks
from agentzoo.algos import base
from agentzoo.config import FRACTION, POSITIVE, TRACED, Range, Schedule, value_at
from agentzoo.replay import Replay, make_phase, make_replay
from agentzoo.types import Agent, Array, Clock, ConfigurationError, EnvSpec, Mean, Trajectory

# The least values of the duals: far below, an alpha takes as long to come back when its KL has left
# its bound.
LEAST = {
    "temperature": 1e-4,
    "penalty_temperature": 1e-4,
    "alpha": 0.1,
    "alpha_mean": 0.1,
    "alpha_stddev": 0.1,
}
# And the largest alphas, as multiples of the one that holds the improved policy at the bound.
MOST = 3.0


@dataclass(frozen=True)
class MPOConfig:
    """Hyperparameters of MPO. Box actions are scaled to [-1, 1]."""

    learning_rate: Annotated[Schedule, POSITIVE] = 3e-4
    """Learning rate of Adam for the policy and the critic."""
    dual_learning_rate: Annotated[float, POSITIVE] = 3e-2
    """Learning rate of Adam for the temperatures and the alphas."""
    max_grad_norm: Annotated[float, POSITIVE] = 40.0
    """Gradients of the networks are clipped to this global norm."""
    buffer_size: Annotated[int, Range(1)] = 1_000_000
    """Transitions that the replay buffer holds."""
    learning_starts: Annotated[int, Range(0), TRACED] = 1_000
    """Environment steps with random actions before learning starts."""
    batch_size: Annotated[int, Range(1)] = 128
    """Transitions per gradient step."""
    gamma: Annotated[float, FRACTION] = 0.99
    """Discount factor per environment step."""
    train_freq: Annotated[int, Range(1)] = 1
    """Environment steps per environment between two phases of learning."""
    gradient_steps: Annotated[int, Range(-1)] = 1
    """Gradient steps per phase of learning; -1 takes one per environment step."""
    target_update_interval: Annotated[int, Range(1), TRACED] = 100
    """Gradient steps between two updates of the target networks."""
    n_steps: Annotated[int, Range(1)] = 5
    """Environment steps that a transition spans; with Retrace, the length of a sequence."""
    retrace: bool = False
    """Correct for the age of replayed actions by Retrace. A batch then consists of batch_size /
    n_steps sequences."""
    retrace_lambda: Annotated[float, FRACTION] = 0.95
    """Lambda of Retrace: 0 looks one step ahead, 1 as far as the policy agrees with the actions."""
    num_samples: Annotated[int, Range(2)] = 20
    """E-step: actions sampled per state."""
    num_value_samples: Annotated[int, Range(1)] = 4
    """Actions sampled per state for the target of the critic."""
    epsilon: Annotated[float, POSITIVE] = 0.1
    """E-step: bound on the KL divergence between the improved policy and the target policy."""
    epsilon_mean: Annotated[float, POSITIVE] = 0.01
    """M-step: bound on the KL divergence between the target policy and the online policy that is
    due to the mean, for each action dimension."""
    epsilon_stddev: Annotated[float, POSITIVE] = 1e-5
    """M-step: bound on the KL divergence that is due to the standard deviation, for each action
    dimension."""
    epsilon_kl: Annotated[float, POSITIVE] = 0.01
    """M-step for Discrete actions: bound on the KL divergence between the target policy and the
    online policy."""
    action_penalty: bool = True
    """Penalise actions outside the bounds."""
    epsilon_penalty: Annotated[float, POSITIVE] = 1e-3
    """Bound on the KL divergence between the policy that the penalty improves and the target
    policy."""
    init_temperature: Annotated[float, POSITIVE] = 1.0
    """Initial temperature, in units of the action values."""
    init_alpha_mean: Annotated[float, POSITIVE] = 1.0
    """Initial alpha of the mean, or of the policy for Discrete actions."""
    init_alpha_stddev: Annotated[float, POSITIVE] = 10.0
    """Initial alpha of the standard deviation."""
    init_stddev: Annotated[float, POSITIVE] = 0.5
    """Initial standard deviation of the policy, whose actions lie in [-1, 1]."""
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
    """Sizes of the hidden layers of the policy and of the critic."""
    activation: networks.Activation = "relu"
    """Activation function of the hidden layers."""


class Networks(NamedTuple):
    """Parameters of the two networks."""

    policy: hk.Params
    critic: hk.Params


class MPOParams(NamedTuple):
    """What acting and valuing actions need."""

    online: Networks
    statistics: Any  # of observations, or () if they are not normalised


class MPOState(NamedTuple):
    """All that MPO carries from one cycle to the next."""

    params: MPOParams
    target: Networks
    duals: core.GaussianMpoDuals | core.CategoricalMpoDuals
    opt_state: optax.OptState
    replay: Replay
    key: Array
    n_updates: Array


class Transitions(NamedTuple):
    """N transitions; for Retrace they are steps of sequences, `[T, B]` laid out flat."""

    obs_tm1: Any
    a_tm1: Array
    r_t: Array
    discount_t: Array  # gamma included
    obs_t: Any
    last_t: Any
    behaviour: Any  # what `act` stored beside the action


def make_agent(config: MPOConfig, spec: EnvSpec, network: networks.Network | None = None) -> Agent:
    """Builds the pure functions of MPO; `network` may replace the layers that encode observations, of policy and critic alike."""
    space: Any = spec.action_space
    discrete = hasattr(space, "n")
    bounds: Any = None if discrete else networks.action_bounds(space)
    masks = networks.action_masks(spec)
    networks.check(config.activation, config.cnn)
    view = networks.make_view(masks.space, config.images, config.scale_obs)
    if discrete and config.noise_steps > 1:
        raise ConfigurationError(
            f"noise_steps={config.noise_steps} is for Box actions; leave it 1 for Discrete ones."
        )
    if config.retrace and config.batch_size < config.n_steps:
        raise ConfigurationError(
            f"batch_size={config.batch_size} holds no sequence of n_steps={config.n_steps}; make it larger."
        )

    @hk.without_apply_rng
    @hk.transform
    def policy_network(obs):
        features = networks.torso(
            view, config.cnn, config.net_arch, config.activation, obs, network
        )
        narrow = hk.initializers.VarianceScaling(
            1e-4
        )  # so that the first policy is much the same in all states
        if discrete:
            return hk.Linear(int(space.n), w_init=narrow)(features)
        mean, scale = jnp.split(hk.Linear(2 * bounds.size, w_init=narrow)(features), 2, axis=-1)
        return mean, config.init_stddev * jax.nn.softplus(scale) / jax.nn.softplus(0.0) + 1e-6

    @hk.without_apply_rng
    @hk.transform
    def critic_network(obs, a):
        features = networks.torso(view, config.cnn, (), config.activation, obs, network)
        features = networks.mlp(
            features if discrete else jnp.concatenate([features, a], axis=-1),
            config.net_arch,
            config.activation,
        )
        q = hk.Linear(int(space.n) if discrete else 1)(features)
        return q if discrete else q[..., 0]

    def policy(params: hk.Params, seen: networks.Seen) -> Any:
        """Logits `[N, A]`, -inf for illegal actions; or mean and standard deviation `[N, D]` in [-1, 1]."""
        outputs = policy_network.apply(params, seen.obs)
        return networks.rule_out(outputs, seen.legal) if discrete else outputs

    def q_values(params: hk.Params, seen: networks.Seen, a: Array | None = None) -> Array:
        """Action values `[N, A]`, or those of actions a, clipped, `[N]`."""
        return critic_network.apply(params, seen.obs, None if discrete else jnp.clip(a, -1.0, 1.0))

    def log_prob(outputs: Any, a: Array) -> Array:
        distribution: Any = (
            core.Categorical(outputs) if discrete else core.DiagonalGaussian(*outputs)
        )
        return distribution.log_prob(a)

    a_example = jnp.zeros(1, jnp.int32) if discrete else jnp.zeros((1, bounds.size), jnp.float32)
    behaviour = {"a": a_example, "log_prob": jnp.zeros(1, jnp.float32)} if config.retrace else ()
    n_step, sequence = (1, config.n_steps) if config.retrace else (config.n_steps, 1)
    replay_buffer = make_replay(
        spec, config.buffer_size, config.train_freq, config.gamma, n_step, extras=behaviour
    )
    phase = make_phase(
        replay_buffer,
        config.learning_starts,
        config.gradient_steps,
        config.train_freq * spec.num_envs,
        sequence,
    )

    def optimizer(clock: Clock) -> optax.GradientTransformation:
        def adam(b2: float) -> optax.GradientTransformation:
            step = optax.adam(value_at(config.learning_rate, clock.remaining), b2=b2)
            return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), step)

        # An alpha that rises makes the policy's gradients larger. With b2=0.999 its steps would be
        # too large for long, which raises the KL, and thus alpha again.
        policy, critic = adam(b2=0.99), adam(b2=0.999)
        duals = optax.adam(
            config.dual_learning_rate, b2=0.99, eps=1e-16
        )  # gradients may be tiny, and change their size quickly
        labels: Any = Networks("policy", "critic"), "duals"  # type: ignore[arg-type]
        return optax.multi_transform({"policy": policy, "critic": critic, "duals": duals}, labels)

    def observed(params: MPOParams, obs) -> networks.Seen:
        seen = masks.split(obs)
        return seen._replace(obs=networks.normalize(view, params.statistics, seen.obs))

    def init(key: Array) -> MPOState:
        policy_key, critic_key, key = jax.random.split(key, 3)
        obs = networks.example(masks.space)
        online = Networks(
            policy_network.init(policy_key, obs), critic_network.init(critic_key, obs, a_example)
        )
        if discrete:
            duals = core.CategoricalMpoDuals.init(config.init_temperature, config.init_alpha_mean)
        else:
            penalty = config.init_temperature if config.action_penalty else None
            alphas = config.init_alpha_mean, config.init_alpha_stddev
            duals = core.GaussianMpoDuals.init(
                bounds.size, config.init_temperature, *alphas, penalty
            )
        duals = jax.tree.map(lambda x: x.astype(jnp.float32), duals)
        params = MPOParams(
            online, networks.init_statistics(masks.space, view) if config.normalize_obs else ()
        )
        learned: Any = online, duals
        opt_state = optimizer(Clock(jnp.zeros(()), jnp.zeros(()), jnp.ones(()))).init(learned)
        return MPOState(
            params,
            jax.tree.map(jnp.copy, online),
            duals,
            opt_state,
            replay_buffer.init(),
            key,
            jnp.int32(0),
        )

    def sample(outputs: Any, key: Array) -> Array:
        if discrete:
            return jax.random.categorical(key, outputs)
        mean, stddev = outputs
        return mean + stddev * jax.random.normal(key, mean.shape, mean.dtype)

    def explore(outputs: Any, noise: Any, key: Array) -> tuple[Array, Array, Any]:
        """An action, its log-probability given the past, and its noise if that lasts."""
        if config.noise_steps == 1:
            a = sample(outputs, key)
            return a, log_prob(outputs, a), noise
        (mean, stddev), keep = outputs, 1.0 - 1.0 / config.noise_steps
        rest = (
            mean + keep * stddev * noise,
            jnp.sqrt(1.0 - keep**2) * stddev,
        )  # so that the variance of the noise is 1, but less at first
        a = sample(rest, key)
        return a, log_prob(rest, a), (a - mean) / stddev

    def act(params, memory, obs, key, clock):
        policy_key, uniform_key = jax.random.split(key)
        seen, warm_up = observed(params, obs), clock.step < config.learning_starts
        a, log_prob_a, memory = explore(policy(params.online.policy, seen), memory, policy_key)
        if seen.legal is not None:
            u = jax.random.uniform(uniform_key, a.shape, jnp.float32)
            a = jnp.where(warm_up, networks.uniform_action(u, int(space.n), seen.legal), a)
            log_uniform = -jnp.log(jnp.sum(seen.legal, axis=-1, dtype=jnp.float32))
        elif discrete:
            a = jnp.where(warm_up, jax.random.randint(uniform_key, a.shape, 0, int(space.n)), a)
            log_uniform = -jnp.log(float(space.n))
        else:
            a = jnp.where(warm_up, jax.random.uniform(uniform_key, a.shape, a.dtype, -1.0, 1.0), a)
            log_uniform = -bounds.size * jnp.log(2.0)
        extras = (
            {"a": a, "log_prob": jnp.where(warm_up, log_uniform, log_prob_a)}
            if config.retrace
            else ()
        )
        return a if discrete else bounds.scale(a), memory, extras

    def predict(params, memory, obs, key, deterministic):
        outputs = policy(params.online.policy, observed(params, obs))
        best = jnp.argmax(outputs, axis=-1) if discrete else outputs[0]
        a = best if deterministic else sample(outputs, key)
        return a if discrete else bounds.scale(a), memory

    def loss_fn(
        learned: tuple[Networks, Any], target: Networks, batch: Transitions, key: Array
    ) -> tuple[Array, dict[str, Array]]:
        (online, duals), (key_tm1, key_t) = learned, jax.random.split(key)
        online_tm1, target_tm1 = (
            policy(online.policy, batch.obs_tm1),
            policy(target.policy, batch.obs_tm1),
        )
        if discrete:
            q_t, probs_t = (
                q_values(target.critic, batch.obs_t),
                jax.nn.softmax(policy(target.policy, batch.obs_t)),
            )
            v_t = jnp.sum(probs_t * q_t, axis=-1)
            q_tm1 = q_values(target.critic, batch.obs_tm1)
            bounds_of_kl = config.epsilon, config.epsilon_kl
            mpo_loss, statistics = core.categorical_mpo_loss(
                online_tm1, target_tm1, q_tm1, duals, *bounds_of_kl
            )
        else:
            v_t = jnp.mean(
                sampled_values(target, batch.obs_t, config.num_value_samples, key_t)[1], axis=0
            )
            a_tm1, q_tm1 = sampled_values(target, batch.obs_tm1, config.num_samples, key_tm1)
            bounds_of_kl = (
                config.epsilon,
                config.epsilon_mean,
                config.epsilon_stddev,
                config.epsilon_penalty,
            )
            (mean, stddev), (target_mean, target_stddev) = online_tm1, target_tm1
            mpo_loss, statistics = core.gaussian_mpo_loss(
                mean, stddev, target_mean, target_stddev, a_tm1, q_tm1, duals, *bounds_of_kl
            )
        critic_loss = jnp.mean(
            core.l2_loss(td_error(online.critic, target, batch, target_tm1, v_t))
        )
        metrics = {"critic_loss": critic_loss} | {
            name: jnp.max(x) for name, x in statistics._asdict().items() if x is not None
        }
        return critic_loss + mpo_loss, metrics

    def sampled_values(target: Networks, seen: networks.Seen, num_samples: int, key: Array):
        """Actions `[S, N, D]` of the target policy, and their values `[S, N]`."""
        mean, stddev = policy(target.policy, seen)
        a = mean + stddev * jax.random.normal(key, (num_samples, *mean.shape), mean.dtype)
        return a, jax.vmap(q_values, in_axes=(None, None, 0))(target.critic, seen, a)

    def td_error(
        critic: hk.Params, target: Networks, batch: Transitions, target_tm1: Any, v_t: Array
    ) -> Array:
        a_tm1 = batch.a_tm1 if discrete else bounds.unscale(batch.a_tm1)

        def q_of_action(critic):
            q = q_values(critic, batch.obs_tm1, a_tm1)
            return jnp.take_along_axis(q, a_tm1[:, None], axis=1)[:, 0] if discrete else q

        if not config.retrace:
            return core.td_learning(q_of_action(critic), batch.r_t, batch.discount_t, v_t)
        log_rho = log_prob(target_tm1, batch.behaviour["a"]) - batch.behaviour["log_prob"]
        arrays = (
            q_of_action(critic),
            q_of_action(target.critic),
            v_t,
            batch.r_t,
            batch.discount_t,
            log_rho,
            batch.last_t,
        )
        q_tm1, q_t, v_t, r_t, discount_t, log_rho, last_t = (
            x.reshape(config.n_steps, -1) for x in arrays
        )
        lambda_ = config.retrace_lambda * (1.0 - last_t[:-1])
        return core.retrace_continuous(q_tm1, q_t[1:], v_t, r_t, discount_t, log_rho[1:], lambda_)

    def draw(replay: Replay, key: Array) -> Transitions:
        if not config.retrace:
            batch = replay_buffer.sample(replay, key, config.batch_size)
            return Transitions(
                batch.obs_tm1, batch.a_tm1, batch.r_t, batch.discount_t, batch.obs_t, (), ()
            )
        steps = replay_buffer.sample_sequences(
            replay, key, config.batch_size // config.n_steps, config.n_steps
        )
        batch = (
            steps.obs_tm1,
            steps.a_tm1,
            steps.r_t,
            config.gamma * steps.discount_t,
            steps.obs_t,
            steps.last_t,
            steps.extras,
        )
        return Transitions(*jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch))

    def limits(name: str) -> tuple[Any, Any]:
        """Of the logarithm of a dual."""
        alphas = {
            "alpha": (config.epsilon_kl, config.init_alpha_mean),
            "alpha_mean": (config.epsilon_mean, config.init_alpha_mean),
            "alpha_stddev": (config.epsilon_stddev, config.init_alpha_stddev),
        }
        if name not in alphas:
            return jnp.log(LEAST[name]), jnp.inf
        bound, first = alphas[name]
        return jnp.log(LEAST[name]), jnp.log(
            jnp.maximum(MOST * jnp.sqrt(config.epsilon / bound), first)
        )

    def update(state: MPOState, key: Array, clock: Clock) -> tuple[MPOState, dict[str, Array]]:
        draw_key, action_key = jax.random.split(key)
        batch = draw(state.replay, draw_key)
        batch = batch._replace(
            obs_tm1=observed(state.params, batch.obs_tm1), obs_t=observed(state.params, batch.obs_t)
        )
        learned: Any = state.params.online, state.duals
        (_, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            learned, state.target, batch, action_key
        )
        updates, opt_state = optimizer(clock).update(grads, state.opt_state, learned)
        online, duals = jax.tree.map(jnp.add, learned, updates)
        duals = duals._replace(
            **{
                name: jnp.clip(x, *limits(name))
                for name, x in duals._asdict().items()
                if x is not None
            }
        )
        n_updates = state.n_updates + 1
        target = optax.periodic_update(
            online, state.target, n_updates, config.target_update_interval
        )
        params = state.params._replace(online=online)
        return state._replace(
            params=params, target=target, duals=duals, opt_state=opt_state, n_updates=n_updates
        ), metrics

    def learn(
        state: MPOState, trajectory: Trajectory, clock: Clock
    ) -> tuple[MPOState, dict[str, Any]]:
        statistics = state.params.statistics
        obs_tm1 = masks.split(trajectory.obs_tm1).obs
        statistics = networks.update_statistics(view, statistics, obs_tm1, trajectory.mask)
        state = state._replace(params=state.params._replace(statistics=statistics))
        state, totals, updates = phase(update, state, trajectory, clock)
        metrics: dict[str, Any] = {
            f"train/{name}": Mean(total, updates) for name, total in totals.items()
        }
        metrics["train/learning_rate"] = value_at(config.learning_rate, clock.remaining)
        metrics["train/n_updates"] = state.n_updates
        return state, metrics

    def values(params: MPOParams, obs, action=None):
        seen, a = observed(params, obs), None if action is None else bounds.unscale(action)
        return networks.rule_out(q_values(params.online.critic, seen, a), seen.legal)

    def initial_memory(num_envs: int) -> Any:
        return jnp.zeros((num_envs, bounds.size), jnp.float32) if config.noise_steps > 1 else ()

    queries, refill = {"values": values}, {"replay": replay_buffer.refill}
    inputs = networks.describe(view)
    return Agent(
        init, act, predict, learn, config.train_freq, initial_memory, queries, inputs, refill
    )


class MPO(base.Algorithm[MPOConfig]):
    """Maximum a posteriori Policy Optimisation. `agentzoo.algos.mpo` describes the method."""

    Config = MPOConfig
    make_agent = staticmethod(make_agent)
    action_spaces = ("Box", "Discrete")
