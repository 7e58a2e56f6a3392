"""QR-DQN: DQN that learns the distribution of returns, https://arxiv.org/abs/1710.10044.

A network theta with parameters `params` estimates K quantiles of the return of each action, at the
levels `tau_i = (i + 0.5) / K`. It learns from replayed transitions by quantile regression::

    loss = mean(weight * sum_i mean_j abs(tau_i - (delta_ij < 0)) * huber(delta_ij))
    delta_ij = target_j - theta_i(params, obs_tm1)[a_tm1]
    target_j = r_t + discount_t * theta_j(target_params, obs_t)[a_t]
    a_t = argmax_a q(params, obs_t)[a]                 with double Q-learning
    a_t = argmax_a q(target_params, obs_t)[a]          without
    target_params <- tau * params + (1 - tau) * target_params

where `r_t` and `discount_t` span `n_steps` steps, and the target network is updated every
`target_update_interval` steps. The value `q` is the mean of the quantiles. For an agent that is
averse to risk it is the mean of the lowest quantiles (CVaR, https://arxiv.org/abs/1806.06923,
section 4). The agent takes a random action with probability epsilon, and otherwise the action with
the highest value.

An "action_mask" in a Dict of observations marks illegal actions. The agent never takes them, and
the maximum leaves them out; see `agentzoo.networks.action_masks`. Their `values` and their
`quantiles` are -inf.

Double Q-learning: https://arxiv.org/abs/1509.06461. Dueling networks:
https://arxiv.org/abs/1511.06581. Prioritised replay: https://arxiv.org/abs/1511.05952. Noisy
networks: https://arxiv.org/abs/1706.10295. Rainbow: https://arxiv.org/abs/1710.02298.
"""

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from agentzoo import core, networks
from agentzoo.algos import base, off_policy, optimizers
from agentzoo.config import FRACTION, POSITIVE, TRACED, Linear, Range, Schedule, Search, value_at
from agentzoo.replay import Batch, Prioritisation, Replay, make_replay
from agentzoo.types import Agent, Array, Clock, EnvSpec, Trajectory


@dataclass(frozen=True)
class QRDQNConfig:
    """Hyperparameters of QR-DQN."""

    learning_rate: Annotated[Schedule, POSITIVE, Search(1e-5, 1e-2, log=True)] = Linear(1e-3)
    """Learning rate of Adam."""
    adam_eps: Annotated[float, POSITIVE] = 1e-8
    """Epsilon of Adam."""
    max_grad_norm: Annotated[float, POSITIVE, Search(0.5, 20, log=True)] = 10.0
    """Gradients are clipped to this global norm."""
    buffer_size: Annotated[int, Range(1)] = 100_000
    """Transitions that the replay buffer holds."""
    learning_starts: Annotated[int, Range(0), TRACED, Search(100, 5_000, log=True)] = 1_000
    """Environment steps with random actions before learning starts."""
    batch_size: Annotated[int, Range(1), Search(choices=(32, 64, 128, 256))] = 64
    """Transitions per gradient step."""
    gamma: Annotated[float, FRACTION, Search(choices=(0.9, 0.95, 0.98, 0.99, 0.995, 0.999))] = 0.99
    """Discount factor per environment step."""
    train_freq: Annotated[int, Range(1), Search(choices=(1, 4, 8, 16, 64, 256))] = 16
    """Environment steps per environment between two phases of learning."""
    gradient_steps: Annotated[int, Range(-1), Search(choices=(1, 4, 8, -1))] = 8
    """Gradient steps per phase of learning; -1 takes one per environment step."""
    target_update_interval: Annotated[int, Range(1), TRACED, Search(10, 10_000, log=True)] = 500
    """Environment steps between two updates of the target network."""
    tau: Annotated[float, Range(0, 1, open_low=True)] = 1.0
    """Fraction by which an update moves the target network to the online one; 1 copies it."""
    exploration_fraction: Annotated[float, FRACTION, Search(0.02, 0.5)] = 0.1
    """Fraction of the run during which epsilon falls."""
    exploration_initial_eps: Annotated[float, FRACTION] = 1.0
    """Probability of a random action (epsilon) when the run begins."""
    exploration_final_eps: Annotated[float, FRACTION, Search(0.01, 0.2)] = 0.02
    """Probability of a random action (epsilon) after it has fallen."""
    n_steps: Annotated[int, Range(1), Search(choices=(1, 3, 5, 10))] = 10
    """Environment steps that a transition spans."""
    n_quantiles: Annotated[int, Range(1), Search(choices=(25, 50, 170))] = 25
    """Quantiles of the return that are learned for each action."""
    kappa: Annotated[float, Range(0)] = 1.0
    """Error at which the Huber loss becomes linear; 0 is plain quantile regression."""
    cvar_alpha: Annotated[float, Range(0, 1, open_low=True)] = 1.0
    """Value an action by the mean of this fraction of its worst returns (CVaR); 1 is the mean."""
    double_q: bool = True
    """Select next actions by the online network, and value them by the target network."""
    dueling: bool = False
    """Split the network into a value stream and an advantage stream."""
    noisy: bool = False
    """Explore by noise on the parameters of the head instead of by epsilon."""
    prioritized_replay: bool = False
    """Replay each transition with a probability in proportion to (loss + eps)^alpha."""
    prioritized_replay_alpha: Annotated[float, FRACTION] = 0.6
    """Exponent alpha of the priorities; 0 replays uniformly."""
    prioritized_replay_beta0: Annotated[float, FRACTION] = 0.4
    """Initial exponent of the importance weights. It rises to 1 at the end of the run."""
    prioritized_replay_eps: Annotated[float, POSITIVE] = 1e-6
    """Constant eps of the priorities, which keeps every priority above 0."""
    clip_reward: bool = False
    """Learn from rewards clipped to [-1, 1]. The logged returns are not clipped."""
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
    ] = (128, 128)
    """Sizes of the hidden layers."""
    activation: networks.Activation = "relu"
    """Activation function of the hidden layers."""
    layer_norm: networks.LayerNorm = False
    """Layer normalisation before the activation of each hidden layer. "first" normalises only the
    first one, and its activation is then tanh."""
    residual: bool = False
    """Residual blocks (SimBa) as hidden layers, one for each size in net_arch. They have layer
    normalisation of their own, whatever layer_norm says."""


class QRDQNState(NamedTuple):
    """All that QR-DQN carries from one training cycle to the next."""

    params: hk.Params
    target_params: hk.Params
    opt_state: optax.OptState
    replay: Replay
    key: Array  # key data: JAX takes about 50 us per call to return a typed key
    n_updates: Array


def make_agent(
    config: QRDQNConfig, spec: EnvSpec, network: networks.Network | None = None
) -> Agent:
    """Build the pure functions of QR-DQN.

    Args:
      config: the hyperparameters. Those that are numbers may be traced by JAX.
      spec: the environments.
      network: a user's layers in place of those before the head.

    Raises:
      ConfigurationError: if hyperparameters do not fit together, or do not fit the environments.
    """
    num_actions = int(spec.action_space.n)  # type: ignore[attr-defined]
    masks = networks.action_masks(spec)
    view = networks.make_view(masks.space, config.images, config.scale_obs)
    layers = networks.Layers(config.activation, config.layer_norm, config.residual)

    @hk.transform
    def quantile_network(obs):
        features = networks.torso(view, config.cnn, config.net_arch[:-1], layers, obs, network)
        return networks.q_head(
            features,
            num_actions,
            config.net_arch[-1:],
            layers.after(config.net_arch[:-1]),
            config.dueling,
            config.noisy,
            config.n_quantiles,
        )

    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm), optimizers.adam(eps=config.adam_eps)
    )
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
    levels = (jnp.arange(config.n_quantiles, dtype=jnp.float32) + 0.5) / config.n_quantiles  # [K]

    def quantiles(params: hk.Params, key: Array | None, obs) -> Array:
        """Return quantiles `[N, K, A]`. Without a key, the noise of noisy networks is zero."""
        return quantile_network.apply(params, key, masks.split(obs).obs)

    def legal_values(dist_q: Array, obs) -> Array:
        """Return the action values `[N, A]` of quantiles, -inf for illegal actions."""
        q = core.quantile_cvar(dist_q, config.cvar_alpha)
        return networks.rule_out(q, masks.split(obs).legal)

    def epsilon(clock: Clock) -> Array:
        """Return the probability of a random action."""
        fraction = jnp.maximum(config.exploration_fraction, 1e-9)
        progress = jnp.minimum((1 - clock.remaining) / fraction, 1.0)
        eps = config.exploration_initial_eps + progress * (
            config.exploration_final_eps - config.exploration_initial_eps
        )
        return jnp.where(clock.began < config.learning_starts, 1.0, 0.0 if config.noisy else eps)

    def epsilon_greedy(q: Array, obs, eps: Array | float, key: Array) -> Array:
        """Draw actions `[N]`, by values `[N, A]`."""
        explore, anywhere = jax.random.uniform(key, (2, q.shape[0]), jnp.float32)
        random_a = networks.uniform_action(anywhere, num_actions, masks.split(obs).legal)
        return jnp.where(explore < eps, random_a, jnp.argmax(q, axis=-1))

    def init(key: Array) -> QRDQNState:
        network_key, key = jax.random.split(key)
        params = quantile_network.init(network_key, networks.example(masks.space))
        return QRDQNState(
            params=params,
            target_params=jax.tree.map(jnp.copy, params),
            opt_state=optimizer.init(params),
            replay=replay_buffer.init(),
            key=jax.random.key_data(key),
            n_updates=jnp.int32(0),
        )

    def act(params, memory, obs, key, clock):
        noise_key, explore_key = jax.random.split(key) if config.noisy else (None, key)
        q = legal_values(quantiles(params, noise_key, obs), obs)
        return epsilon_greedy(q, obs, epsilon(clock), explore_key), memory, ()

    def predict(params, memory, obs, key, deterministic):
        q = legal_values(quantiles(params, None, obs), obs)
        if deterministic or config.noisy:
            return jnp.argmax(q, axis=-1), memory
        return epsilon_greedy(q, obs, config.exploration_final_eps, key), memory

    def loss_fn(
        params: hk.Params, target_params: hk.Params, batch: Batch, key: Array
    ) -> tuple[Array, Array]:
        keys = jax.random.split(key, 3) if config.noisy else (None, None, None)
        dist_q_tm1 = quantiles(params, keys[0], batch.obs_tm1)
        dist_q_t = quantiles(target_params, keys[1], batch.obs_t)
        dist_q_t_selector = quantiles(params, keys[2], batch.obs_t) if config.double_q else dist_q_t
        losses = core.quantile_q_learning(
            dist_q_tm1,
            levels,
            batch.a_tm1,
            batch.r_t,
            batch.discount_t,
            legal_values(dist_q_t_selector, batch.obs_t)[:, None],  # as one quantile [B, 1, A]
            dist_q_t,
            huber_param=config.kappa,
        )
        return jnp.mean(batch.weight * losses), losses

    def update(state: QRDQNState, key: Array, clock: Clock) -> tuple[QRDQNState, dict[str, Array]]:
        sample_key, noise_key = jax.random.split(key) if config.noisy else (key, key)
        batch = replay_buffer.sample(state.replay, sample_key, config.batch_size, clock.remaining)
        (loss, losses), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.target_params, batch, noise_key
        )
        learning_rate = value_at(config.learning_rate, clock.remaining)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, learning_rate=learning_rate
        )
        state = state._replace(
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            replay=replay_buffer.update(state.replay, batch.slot, losses),
            n_updates=state.n_updates + 1,
        )
        return state, {"train/loss": loss}

    learning_phase = off_policy.make_learning_phase(
        update, replay_buffer, config.learning_starts, config.gradient_steps
    )

    def updated_target(state: QRDQNState, clock: Clock) -> hk.Params:
        # How many multiples of the interval the cycle has passed: each asks for one update.
        interval = config.target_update_interval
        num_syncs = clock.step // interval - clock.began // interval
        # The weight of the online network after so many updates by a fraction of tau each.
        weight = jnp.asarray(1.0 - (1.0 - config.tau) ** num_syncs, jnp.float32)
        return jax.lax.cond(
            num_syncs > 0,
            lambda: optax.incremental_update(state.params, state.target_params, weight),
            lambda: state.target_params,
        )

    def learn(
        state: QRDQNState, trajectory: Trajectory, clock: Clock
    ) -> tuple[QRDQNState, dict[str, Any]]:
        if config.clip_reward:
            trajectory = trajectory._replace(r_t=jnp.clip(trajectory.r_t, -1.0, 1.0))
        state = state._replace(target_params=updated_target(state, clock))
        state, metrics = learning_phase(state, trajectory, clock)
        return state, {
            **metrics,
            "train/learning_rate": value_at(config.learning_rate, clock.remaining),
            "train/n_updates": state.n_updates,
            "rollout/exploration_rate": epsilon(clock),
        }

    def values(params: hk.Params, obs) -> Array:
        return legal_values(quantiles(params, None, obs), obs)

    def sorted_quantiles(params: hk.Params, obs) -> Array:
        """Return quantiles `[N, A, K]` in ascending order, -inf for illegal actions."""
        legal = masks.split(obs).legal
        dist_q = jnp.swapaxes(quantiles(params, None, obs), 1, 2)  # [N, K, A] -> [N, A, K]
        return networks.rule_out(jnp.sort(dist_q), None if legal is None else legal[..., None])

    return Agent(
        init,
        act,
        predict,
        learn,
        unroll_length=config.train_freq,
        queries={"values": values, "quantiles": sorted_quantiles},
        inputs=networks.describe(view),
        refill={"replay": replay_buffer.refill},
        targets={"target_params": lambda params: params},
    )


class QRDQN(base.Algorithm[QRDQNConfig]):
    """DQN that learns the distribution of returns. `agentzoo.algos.qrdqn` describes the method."""

    Config = QRDQNConfig
    make_agent = staticmethod(make_agent)
    action_spaces = ("Discrete",)

    def quantiles(self, observation: Any) -> Any:
        """Return the quantiles of the return of each action, in ascending order.

        Quantile i belongs to the level `(i + 0.5) / K`, so that quantiles plotted against levels
        show the distribution function. The quantiles of an action that is illegal by an
        "action_mask" are -inf.

        Args:
          observation: one observation, or a batch of N.

        Returns:
          `[A, K]`, or `[N, A, K]` for a batch.

        Raises:
          ConfigurationError: if the observation does not fit the observation space.
        """
        return self._query("quantiles", observation)
