"""Maximum a posteriori Policy Optimisation (MPO), https://arxiv.org/abs/1806.06920.

There are two copies of the policy pi and of the critic q. Gradients change the *online* copies.
Every `target_update_interval` gradient steps, the *target* copies are replaced by the online ones.
A gradient step descends on the sum of four losses, on replayed transitions::

    critic:         0.5 * (r_t + discount_t * v_t - q(online, obs_tm1, a_tm1))^2
                    v_t = mean_j q(target, obs_t, a'[j])
                    a'[j] ~ pi(target, obs_t),                    j = 1 .. num_value_samples
    temperature     temperature * (epsilon + log mean_i exp(q[i] / temperature))
    (E-step):       q[i] = q(target, obs_tm1, a[i])
                    a[i] ~ pi(target, obs_tm1),                   i = 1 .. num_samples
    policy          -sum_i weights[i] * log pi(online, obs_tm1)(a[i]) + stop(alpha) * KL
    (M-step):       weights[i] = exp(q[i] / temperature) / sum_j exp(q[j] / temperature)
    alpha:          alpha * (epsilon_kl - stop(KL))

where `stop` stops gradients. Discrete actions are not sampled. Sums over all of them, weighted by
their probabilities, replace the means over samples.

**What the KL compares.** It is KL(pi(target, obs_tm1) || pi(online, obs_tm1)), which measures how
far the policy has moved since the last update of the target network, not since the last gradient
step. A Gaussian has two KLs for each dimension of the action (https://arxiv.org/abs/1812.02256).
One compares policies that differ in their means alone and is bounded by `epsilon_mean`. The other
compares policies that differ in their standard deviations alone and is bounded by `epsilon_stddev`.
Each KL has its own alpha. So the mean can move fast while the policy stays wide for a long time.
The M-step also fits the mean and the standard deviation separately.

**Why the KL is not zero.** The KL and its gradient are zero just after an update of the target
network, because both copies are equal, and the KL grows from there. A KL to the online policy
itself would always be zero and would constrain nothing. An alpha falls while its KL is below the
bound, and rises while its KL exceeds the bound. In equilibrium the KL is near its bound, averaged
over the gradient steps between two updates of the target network.

**What uses the target network.** The target policy samples the actions. The target critic values
these actions, in the E-step and in the critic's own target. The target policy is also on the left
of the KLs. The online policy acts. Gradients change the online copies, the temperatures and the
alphas.

**Actions outside the bounds** are clipped before they are valued or taken. `action_penalty` adds a
second E-step on minus the distance of each action to the bounds, with its own temperature and the
bound `epsilon_penalty` (https://arxiv.org/abs/2005.07513). Without it the mean may drift away,
because all actions beyond a bound have the same value.

**Temperatures and alphas** are learned as logarithms, so that a step is a relative change whatever
their size. The epsilon of their Adam is far below their gradients. An alpha stays above 0.1, where
it hardly holds the policy back. From there it grows quickly once the policy moves faster. An alpha
also stays below three times sqrt(epsilon / epsilon_mean), or the corresponding value of another
bound, unless its initial value is larger. An alpha of this size keeps an improved policy at the
distance `epsilon` well within the bound. If the KL is still larger, the steps of the optimiser are
too large, which no alpha can correct: it would grow without end, and nothing else would be learned.

**Illegal actions.** An "action_mask" in a Dict of observations marks illegal Discrete actions. They
have probability 0, and expectations and KLs leave them out; see `agentzoo.networks.action_masks`.
Their `values` are -inf.

The critic's target spans `n_steps` steps, or is the Retrace target over sequences of `n_steps`
steps (https://arxiv.org/abs/1606.02647).

The noise of actions may last for `noise_steps` steps, as an Ornstein-Uhlenbeck process. Lasting
noise finds what takes several similar actions in a row;
https://openreview.net/forum?id=hQ9V5QN27eS compares such noise. Retrace then uses probabilities
given the noise of the step before.
"""

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from agentzoo import core, networks
from agentzoo.algos import base, off_policy, optimizers
from agentzoo.config import FRACTION, POSITIVE, TRACED, Range, Schedule, Search, value_at
from agentzoo.replay import Replay, make_replay
from agentzoo.types import Agent, Array, Clock, ConfigurationError, EnvSpec, Trajectory

# The smallest values of temperatures and alphas. An alpha far below 0.1 would take long to grow
# again when its KL exceeds the bound.
MINIMUM = {
    "temperature": 1e-4,
    "penalty_temperature": 1e-4,
    "alpha": 0.1,
    "alpha_mean": 0.1,
    "alpha_stddev": 0.1,
}
# The largest alphas, as multiples of the alpha that holds the improved policy at the bound.
MAXIMUM = 3.0


@dataclass(frozen=True)
class MPOConfig:
    """Hyperparameters of MPO. Box actions are scaled to [-1, 1]."""

    learning_rate: Annotated[Schedule, POSITIVE, Search(1e-5, 1e-2, log=True)] = 3e-4
    """Learning rate of Adam for the policy and the critic."""
    dual_learning_rate: Annotated[float, POSITIVE, Search(1e-3, 0.1, log=True)] = 3e-2
    """Learning rate of Adam for the temperatures and the alphas."""
    max_grad_norm: Annotated[float, POSITIVE] = 40.0
    """Gradients of the networks are clipped to this global norm."""
    buffer_size: Annotated[int, Range(1)] = 1_000_000
    """Transitions that the replay buffer holds."""
    learning_starts: Annotated[int, Range(0), TRACED, Search(100, 5_000, log=True)] = 1_000
    """Environment steps with random actions before learning starts."""
    batch_size: Annotated[int, Range(1), Search(choices=(64, 128, 256, 512))] = 128
    """Transitions per gradient step."""
    gamma: Annotated[float, FRACTION, Search(choices=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999))] = 0.99
    """Discount factor per environment step."""
    train_freq: Annotated[int, Range(1)] = 1
    """Environment steps per environment between two phases of learning."""
    gradient_steps: Annotated[int, Range(-1)] = 1
    """Gradient steps per phase of learning; -1 takes one per environment step."""
    target_update_interval: Annotated[int, Range(1), TRACED, Search(10, 1_000, log=True)] = 100
    """Gradient steps between two updates of the target networks."""
    n_steps: Annotated[int, Range(1), Search(choices=(1, 3, 5))] = 5
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
    epsilon: Annotated[float, POSITIVE, Search(0.01, 0.5, log=True)] = 0.1
    """E-step: bound on the KL divergence between the improved policy and the target policy."""
    epsilon_mean: Annotated[float, POSITIVE, Search(1e-3, 0.1, log=True)] = 0.01
    """M-step: bound on the KL divergence between the target policy and the online policy that is
    due to the mean, for each action dimension."""
    epsilon_stddev: Annotated[float, POSITIVE, Search(1e-6, 1e-3, log=True)] = 1e-5
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
    net_arch: Annotated[
        tuple[int, ...], Range(1), Search(choices=((64, 64), (256, 256), (400, 300)))
    ] = (256, 256)
    """Sizes of the hidden layers of the policy and of the critic."""
    activation: networks.Activation = "relu"
    """Activation function of the hidden layers."""
    layer_norm: networks.LayerNorm = False
    """Layer normalisation before the activation of each hidden layer. "first" normalises only the
    first one, and its activation is then tanh."""
    residual: bool = False
    """Residual blocks (SimBa) as hidden layers, one for each size in net_arch. They have layer
    normalisation of their own, whatever layer_norm says."""


class Networks(NamedTuple):
    """Parameters of the two networks."""

    policy: hk.Params
    critic: hk.Params


class MPOParams(NamedTuple):
    """All that acting and valuing actions needs."""

    online: Networks
    obs_statistics: networks.Statistics  # () if observations are not normalised


class MPOState(NamedTuple):
    """All that MPO carries from one training cycle to the next."""

    params: MPOParams
    target: Networks
    duals: core.GaussianMpoDuals | core.CategoricalMpoDuals
    opt_state: optax.OptState
    replay: Replay
    key: Array  # key data: JAX takes about 50 us per call to return a typed key
    n_updates: Array


class Transitions(NamedTuple):
    """B transitions. For Retrace, they are the steps of sequences `[T, B / T]`, flattened."""

    obs_tm1: Any
    a_tm1: Array
    r_t: Array
    discount_t: Array  # gamma included
    obs_t: Any
    last_t: Any = ()
    behaviour: Any = ()  # what `act` stored beside the action


class ValuedActions(NamedTuple):
    """S sampled actions for each of B observations."""

    a: Array  # [S, B, D]
    q: Array  # [S, B]


def make_agent(config: MPOConfig, spec: EnvSpec, network: networks.Network | None = None) -> Agent:
    """Build the pure functions of MPO.

    Args:
      config: the hyperparameters. Those that are numbers may be traced by JAX.
      spec: the environments.
      network: a user's layers that encode observations, for the policy and for the critic.

    Raises:
      ConfigurationError: if hyperparameters do not fit together, or do not fit the environments.
    """
    space: Any = spec.action_space
    discrete = hasattr(space, "n")
    bounds: Any = None if discrete else networks.action_bounds(space)
    masks = networks.action_masks(spec)
    view = networks.make_view(masks.space, config.images, config.scale_obs)
    if discrete and config.noise_steps > 1:
        raise ConfigurationError(
            f"noise_steps={config.noise_steps} is for Box actions. "
            "Leave it at 1 for Discrete actions."
        )
    if config.retrace and config.batch_size < config.n_steps:
        raise ConfigurationError(
            f"batch_size={config.batch_size} is smaller than a sequence of "
            f"n_steps={config.n_steps}. Use a batch_size of at least {config.n_steps}."
        )
    layers = networks.Layers(config.activation, config.layer_norm, config.residual)

    @hk.without_apply_rng
    @hk.transform
    def policy_network(obs):
        features = networks.torso(view, config.cnn, config.net_arch, layers, obs, network)
        # Small weights make the first policy almost the same in all states.
        small = hk.initializers.VarianceScaling(1e-4)
        if discrete:
            return hk.Linear(int(space.n), w_init=small)(features)
        mean, scale = jnp.split(hk.Linear(2 * bounds.size, w_init=small)(features), 2, axis=-1)
        return mean, config.init_stddev * jax.nn.softplus(scale) / jax.nn.softplus(0.0) + 1e-6

    @hk.without_apply_rng
    @hk.transform
    def critic_network(obs, a):
        features = networks.torso(view, config.cnn, (), layers, obs, network)
        features = networks.mlp(
            features if discrete else jnp.concatenate([features, a], axis=-1),
            config.net_arch,
            layers,
        )
        q = hk.Linear(int(space.n) if discrete else 1)(features)
        return q if discrete else q[..., 0]

    # An alpha that rises makes the gradients of the policy larger. With b2=0.999, Adam's steps
    # would be too large for a long time. They would raise the KL further, and thus alpha again.
    clip = optax.clip_by_global_norm(config.max_grad_norm)
    # Gradients of temperatures and alphas may be tiny, and their size may change quickly.
    dual_adam = optax.adam(config.dual_learning_rate, b2=0.99, eps=1e-16)
    labels: Any = Networks("policy", "critic"), "duals"  # type: ignore[arg-type]
    optimizer = optax.multi_transform(
        {
            "policy": optax.chain(clip, optimizers.adam(b2=0.99)),
            "critic": optax.chain(clip, optimizers.adam(b2=0.999)),
            "duals": dual_adam,
        },
        labels,
    )
    a_example = jnp.zeros(1, jnp.int32) if discrete else jnp.zeros((1, bounds.size), jnp.float32)
    behaviour = {"a": a_example, "log_prob": jnp.zeros(1, jnp.float32)} if config.retrace else ()
    replay_buffer = make_replay(
        spec,
        config.buffer_size,
        config.train_freq,
        config.gamma,
        1 if config.retrace else config.n_steps,
        extras=behaviour,
    )

    def policy(params: hk.Params, seen: networks.Seen) -> Any:
        """Return the policy in observations.

        It is given by logits `[N, A]`, -inf for illegal actions, or by the mean and the standard
        deviation `[N, D]` of actions in [-1, 1].
        """
        outputs = policy_network.apply(params, seen.obs)
        return networks.rule_out(outputs, seen.legal) if discrete else outputs

    def q_values(params: hk.Params, seen: networks.Seen, a: Array | None = None) -> Array:
        """Return values `[N, A]` of all Discrete actions, or `[N]` of actions `[N, D]`, clipped."""
        return critic_network.apply(params, seen.obs, None if discrete else jnp.clip(a, -1.0, 1.0))

    def log_prob(outputs: Any, a: Array) -> Array:
        distribution: Any = (
            core.Categorical(outputs) if discrete else core.DiagonalGaussian(*outputs)
        )
        return distribution.log_prob(a)

    def observed(params: MPOParams, obs) -> networks.Seen:
        """Return observations as the networks see them, and which actions are legal."""
        seen = masks.split(obs)
        return seen._replace(obs=networks.normalize(view, params.obs_statistics, seen.obs))

    def init_duals() -> Any:
        if discrete:
            duals = core.CategoricalMpoDuals.init(config.init_temperature, config.init_alpha_mean)
        else:
            duals = core.GaussianMpoDuals.init(
                bounds.size,
                config.init_temperature,
                config.init_alpha_mean,
                config.init_alpha_stddev,
                config.init_temperature if config.action_penalty else None,
            )
        return jax.tree.map(lambda x: x.astype(jnp.float32), duals)

    def init(key: Array) -> MPOState:
        policy_key, critic_key, key = jax.random.split(key, 3)
        obs = networks.example(masks.space)
        online = Networks(
            policy_network.init(policy_key, obs), critic_network.init(critic_key, obs, a_example)
        )
        duals = init_duals()
        obs_statistics = networks.init_statistics(masks.space, view) if config.normalize_obs else ()
        learned: Any = online, duals
        return MPOState(
            params=MPOParams(online, obs_statistics),
            target=jax.tree.map(jnp.copy, online),
            duals=duals,
            opt_state=optimizer.init(learned),
            replay=replay_buffer.init(),
            key=jax.random.key_data(key),
            n_updates=jnp.int32(0),
        )

    def sample(outputs: Any, key: Array) -> Array:
        if discrete:
            return jax.random.categorical(key, outputs)
        mean, stddev = outputs
        return mean + stddev * jax.random.normal(key, mean.shape, mean.dtype)

    def explore(outputs: Any, noise: Any, key: Array) -> tuple[Array, Array, Any]:
        """Draw actions.

        Returns:
          The actions, their log-probabilities given the noise of the step before, and their noise
          if it lasts.
        """
        if config.noise_steps == 1:
            a = sample(outputs, key)
            return a, log_prob(outputs, a), noise
        mean, stddev = outputs
        keep = 1.0 - 1.0 / config.noise_steps
        # With this much fresh noise, the variance of the sum tends to 1. It is smaller at first.
        given_noise = mean + keep * stddev * noise, jnp.sqrt(1.0 - keep**2) * stddev
        a = sample(given_noise, key)
        return a, log_prob(given_noise, a), (a - mean) / stddev

    def random_action(like: Array, legal: Array | None, key: Array) -> tuple[Array, Any]:
        """Draw uniformly distributed actions, and return their log-probabilities."""
        if legal is not None:
            u = jax.random.uniform(key, like.shape, jnp.float32)
            num_legal = jnp.sum(legal, axis=-1, dtype=jnp.float32)
            return networks.uniform_action(u, int(space.n), legal), -jnp.log(num_legal)
        if discrete:
            a = jax.random.randint(key, like.shape, 0, int(space.n))
            return a, -jnp.log(float(space.n))
        a = jax.random.uniform(key, like.shape, like.dtype, -1.0, 1.0)
        return a, -bounds.size * jnp.log(2.0)

    def act(params, memory, obs, key, clock):
        policy_key, uniform_key = jax.random.split(key)
        seen = observed(params, obs)
        a, log_prob_a, memory = explore(policy(params.online.policy, seen), memory, policy_key)
        random_a, log_prob_random = random_action(a, seen.legal, uniform_key)
        warm_up = clock.step < config.learning_starts
        a = jnp.where(warm_up, random_a, a)
        extras = ()
        if config.retrace:
            extras = {"a": a, "log_prob": jnp.where(warm_up, log_prob_random, log_prob_a)}
        return a if discrete else bounds.scale(a), memory, extras

    def predict(params, memory, obs, key, deterministic):
        outputs = policy(params.online.policy, observed(params, obs))
        best = jnp.argmax(outputs, axis=-1) if discrete else outputs[0]
        a = best if deterministic else sample(outputs, key)
        return a if discrete else bounds.scale(a), memory

    def sampled_values(
        target: Networks, seen: networks.Seen, num_samples: int, key: Array
    ) -> ValuedActions:
        """Draw actions of the target policy, and value them by the target critic."""
        mean, stddev = policy(target.policy, seen)
        a = mean + stddev * jax.random.normal(key, (num_samples, *mean.shape), mean.dtype)
        return ValuedActions(a, jax.vmap(q_values, in_axes=(None, None, 0))(target.critic, seen, a))

    def td_error(
        critic: hk.Params, target: Networks, batch: Transitions, target_tm1: Any, v_t: Array
    ) -> Array:
        a_tm1 = batch.a_tm1 if discrete else bounds.unscale(batch.a_tm1)

        def q_of_action(critic: hk.Params) -> Array:
            q = q_values(critic, batch.obs_tm1, a_tm1)
            return jnp.take_along_axis(q, a_tm1[:, None], axis=1)[:, 0] if discrete else q

        def over_time(x: Array) -> Array:
            return x.reshape(config.n_steps, -1)  # [T * B / T] -> [T, B / T]

        if not config.retrace:
            return core.td_learning(q_of_action(critic), batch.r_t, batch.discount_t, v_t)
        log_rho = log_prob(target_tm1, batch.behaviour["a"]) - batch.behaviour["log_prob"]
        return core.retrace_continuous(
            over_time(q_of_action(critic)),
            # The destination of a step is the source of the next step.
            over_time(q_of_action(target.critic))[1:],
            over_time(v_t),
            over_time(batch.r_t),
            over_time(batch.discount_t),
            over_time(log_rho)[1:],
            config.retrace_lambda * (1.0 - over_time(batch.last_t)[:-1]),
        )

    def loss_fn(
        learned: tuple[Networks, Any], target: Networks, batch: Transitions, key: Array
    ) -> tuple[Array, dict[str, Array]]:
        online, duals = learned
        key_tm1, key_t = jax.random.split(key)
        online_tm1 = policy(online.policy, batch.obs_tm1)
        target_tm1 = policy(target.policy, batch.obs_tm1)
        if discrete:
            probs_t = jax.nn.softmax(policy(target.policy, batch.obs_t))
            v_t = jnp.sum(probs_t * q_values(target.critic, batch.obs_t), axis=-1)
            mpo_loss, statistics = core.categorical_mpo_loss(
                online_tm1,
                target_tm1,
                q_values(target.critic, batch.obs_tm1),
                duals,
                config.epsilon,
                config.epsilon_kl,
            )
        else:
            sampled_t = sampled_values(target, batch.obs_t, config.num_value_samples, key_t)
            sampled_tm1 = sampled_values(target, batch.obs_tm1, config.num_samples, key_tm1)
            v_t = jnp.mean(sampled_t.q, axis=0)
            online_mean, online_stddev = online_tm1
            target_mean, target_stddev = target_tm1
            mpo_loss, statistics = core.gaussian_mpo_loss(
                online_mean,
                online_stddev,
                target_mean,
                target_stddev,
                sampled_tm1.a,
                sampled_tm1.q,
                duals,
                config.epsilon,
                config.epsilon_mean,
                config.epsilon_stddev,
                config.epsilon_penalty,
            )
        critic_loss = jnp.mean(
            core.l2_loss(td_error(online.critic, target, batch, target_tm1, v_t))
        )
        metrics = {"train/critic_loss": critic_loss}
        for name, x in statistics._asdict().items():
            if x is not None:
                metrics[f"train/{name}"] = jnp.max(x)
        return critic_loss + mpo_loss, metrics

    def draw(replay: Replay, key: Array) -> Transitions:
        if not config.retrace:
            batch = replay_buffer.sample(replay, key, config.batch_size)
            return Transitions(batch.obs_tm1, batch.a_tm1, batch.r_t, batch.discount_t, batch.obs_t)
        num_sequences = config.batch_size // config.n_steps
        steps = replay_buffer.sample_sequences(replay, key, num_sequences, config.n_steps)
        transitions = Transitions(
            steps.obs_tm1,
            steps.a_tm1,
            steps.r_t,
            config.gamma * steps.discount_t,
            steps.obs_t,
            steps.last_t,
            steps.extras,
        )
        # [T, B / T, ...] -> [T * B / T, ...]
        return jax.tree.map(lambda x: jax.lax.collapse(x, 0, 2), transitions)

    def limits(name: str) -> tuple[Any, Any]:
        """Return the smallest and the largest logarithm of a temperature or an alpha."""
        alphas = {
            "alpha": (config.epsilon_kl, config.init_alpha_mean),
            "alpha_mean": (config.epsilon_mean, config.init_alpha_mean),
            "alpha_stddev": (config.epsilon_stddev, config.init_alpha_stddev),
        }
        if name not in alphas:
            return jnp.log(MINIMUM[name]), jnp.inf
        bound, first = alphas[name]
        maximum = jnp.maximum(MAXIMUM * jnp.sqrt(config.epsilon / bound), first)
        return jnp.log(MINIMUM[name]), jnp.log(maximum)

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
        learning_rate = value_at(config.learning_rate, clock.remaining)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, learned, learning_rate=learning_rate
        )
        updated: Any = optax.apply_updates(learned, updates)
        online, duals = updated
        duals = duals._replace(
            **{
                name: jnp.clip(x, *limits(name))
                for name, x in duals._asdict().items()
                if x is not None
            }
        )
        n_updates = state.n_updates + 1
        state = state._replace(
            params=state.params._replace(online=online),
            target=optax.periodic_update(
                online, state.target, n_updates, config.target_update_interval
            ),
            duals=duals,
            opt_state=opt_state,
            n_updates=n_updates,
        )
        return state, metrics

    learning_phase = off_policy.make_learning_phase(
        update,
        replay_buffer,
        config.learning_starts,
        config.gradient_steps,
        min_size=config.n_steps if config.retrace else 1,
    )

    def learn(
        state: MPOState, trajectory: Trajectory, clock: Clock
    ) -> tuple[MPOState, dict[str, Any]]:
        obs_statistics = networks.update_statistics(
            view,
            state.params.obs_statistics,
            masks.split(trajectory.obs_tm1).obs,
            trajectory.mask,
        )
        state = state._replace(params=state.params._replace(obs_statistics=obs_statistics))
        state, metrics = learning_phase(state, trajectory, clock)
        return state, {
            **metrics,
            "train/learning_rate": value_at(config.learning_rate, clock.remaining),
            "train/n_updates": state.n_updates,
        }

    def values(params: MPOParams, obs, action=None) -> Array:
        seen = observed(params, obs)
        a = None if action is None else bounds.unscale(action)
        return networks.rule_out(q_values(params.online.critic, seen, a), seen.legal)

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
        targets={"target": lambda params: params.online},
    )


class MPO(base.Algorithm[MPOConfig]):
    """Maximum a posteriori Policy Optimisation. `agentzoo.algos.mpo` describes the method."""

    Config = MPOConfig
    make_agent = staticmethod(make_agent)
    action_spaces = ("Box", "Discrete")
