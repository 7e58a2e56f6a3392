"""A policy and a value function over time, for every action space.

They may have a recurrent memory, and action masks.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import distrax
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.core import policies
from agentzoo.elements import zeros
from agentzoo.networks.action_masks import Seen, action_masks, choices
from agentzoo.networks.actions import action_bounds
from agentzoo.networks.encoders import Activation, Cnn, Network, apply_network, encode, mlp
from agentzoo.networks.observations import Images, View, make_view
from agentzoo.types import Array, EnvSpec, PyTree

Core = Literal["lstm", "gru"]
CORES: dict[Core, Callable[[int], hk.RNNCore]] = {"lstm": hk.LSTM, "gru": hk.GRU}


class Output(NamedTuple):
    """The outputs of an actor-critic for observations `[T, N, ...]`.

    Attributes:
      policy: a `distrax.Distribution` of batch shape `[T, N]`. Its event shape is `[]` for Discrete
        actions, and `[D]` for others.
      v: `[T, N]` values.
      memory: `[T, N, ...]` the recurrent state after each observation, or ().
    """

    policy: Any
    v: Array
    memory: PyTree


class ActorCritic(NamedTuple):
    """A policy and a value function as pure functions.

    Attributes:
      init: `(key) -> params`.
      apply: `(params, obs, legal, first, memory) -> Output`, for consecutive observations `[T, N]`,
        beginning with the recurrent state `[N, ...]`, which is reset where `first` is true.
      split: `(obs) -> seen`, separates the mask from the observations of an environment.
      space: the space of observations without their mask.
      view: how to read these observations.
      continuous: whether the action space is a Box. The policy's actions are in [-1, 1] where
        bounds are finite, and the environment gets them scaled and clipped to its bounds.
      to_environment: `(a) -> action`, converts actions `[N, ...]` of the policy to actions of the
        environment.
      initial_memory: `(num_envs) -> memory`, the recurrent state at the beginning of an episode.
    """

    init: Callable[[Array], hk.Params]
    apply: Callable[..., Output]
    split: Callable[[PyTree], Seen]
    space: spaces.Space
    view: View
    continuous: bool
    to_environment: Callable[[Array], Array]
    initial_memory: Callable[[int], PyTree]


def make_actor_critic(
    spec: EnvSpec,
    images: Images = "auto",
    scale_obs: bool = True,
    cnn: Cnn = "nature",
    net_arch: Sequence[int] = (64, 64),
    activation: Activation = "tanh",
    shared: bool = False,
    orthogonal: bool = True,
    log_std_init: float = 0.0,
    state_dependent_std: bool = False,
    recurrent: Core | None = None,
    recurrent_size: int = 64,
    recurrent_span: int = 64,
    network: Network | None = None,
) -> ActorCritic:
    """Build a policy and a value function.

    Args:
      spec: the environments. An "action_mask" in the observations marks the legal actions; see
        `agentzoo.networks.action_masks`.
      images: which parts of observations are images, as in `make_view`.
      scale_obs: whether to scale integers in observations by their bounds, as in `make_view`.
      cnn: the convolutions for images, which policy and value share.
      net_arch: sizes of the hidden layers.
      activation: the activation function of the hidden layers.
      shared: share the hidden layers and the memory between policy and value.
      orthogonal: initialise weights orthogonally instead of by Haiku's defaults, with gain sqrt(2)
        in hidden layers, 0.01 in the head of the policy, and 1 elsewhere.
      log_std_init: the initial logarithm of the standard deviation of Box actions, where [-1, 1]
        stands for finite bounds.
      state_dependent_std: let the standard deviation depend on the observation.
      recurrent: the memory after the hidden layers, "lstm" or "gru"; None for no memory.
      recurrent_size: the number of units of the memory.
      recurrent_span: how many steps an untrained memory keeps its contents at most.
      network: a user's layers in place of convolutions and hidden layers.

    Raises:
      ConfigurationError: if the spaces are not supported.
    """
    action_space, sizes = spec.action_space, choices(spec.action_space)
    space, split, _ = action_masks(spec)
    view = make_view(space, images, scale_obs)
    continuous = isinstance(action_space, spaces.Box)
    names = ["shared"] if shared else ["policy", "value"]

    def initialised(gain: float) -> Any:
        return _orthogonal(gain) if orthogonal else contextlib.nullcontext()

    def initial_memory(num_envs: int) -> PyTree:
        if recurrent is None:
            return ()
        zeros = jnp.zeros((num_envs, recurrent_size), jnp.float32)
        return tuple({"lstm": hk.LSTMState(zeros, zeros), "gru": zeros}[recurrent] for _ in names)

    def encoded(obs: PyTree) -> Array:
        with initialised(math.sqrt(2)):
            return encode(view, obs, cnn)

    def hidden(x: PyTree) -> Array:
        if network is not None:
            return apply_network(network, x)
        with initialised(math.sqrt(2)):
            return mlp(x, net_arch, activation)

    @hk.without_apply_rng
    @hk.transform
    def forward(obs, mask, first, memory):
        num_steps, num_envs = first.shape

        # Layers see one leading axis [N * T], because gradients of layers on two leading axes are
        # slow. Environments come first, because devices share them.
        def merge(x: Array) -> Array:
            return jnp.swapaxes(x, 0, 1).reshape(num_envs * num_steps, *x.shape[2:])

        def unmerge(x: Array) -> Array:
            return jnp.swapaxes(x.reshape(num_envs, num_steps, -1), 0, 1)

        x, features, states = jax.tree.map(merge, obs), [], []
        x = x if network is not None else encoded(x)
        for i, name in enumerate(names):
            with hk.name_scope(name):
                y: Any = hidden(x)
                if recurrent is not None:
                    with initialised(1.0), _lasting(recurrent, recurrent_span):
                        core = hk.ResetCore(CORES[recurrent](recurrent_size))
                        y, state = hk.dynamic_unroll(
                            core, (unmerge(y), first), memory[i], return_all_states=True
                        )
                    y = merge(y)
                    states.append(state)
                features.append(y)
        with initialised(0.01):
            outputs = hk.Linear(sum(sizes) * (1 + state_dependent_std), name="policy_head")(
                features[0]
            )
        with initialised(1.0):
            v = hk.Linear(1, name="value_head")(features[-1])
        return Output(policy(unmerge(outputs), mask), unmerge(v)[..., 0], tuple(states))

    def policy(outputs: Array, mask: Array | None) -> distrax.Distribution:
        if continuous:
            if state_dependent_std:
                mean, log_std = jnp.split(outputs, 2, axis=-1)
                return policies.DiagonalGaussian(mean, jnp.exp(log_std_init + log_std))
            log_std = hk.get_parameter(
                "log_std", outputs.shape[-1:], init=hk.initializers.Constant(log_std_init)
            )
            return policies.DiagonalGaussian(outputs, jnp.exp(log_std))
        if isinstance(action_space, spaces.MultiBinary):
            return policies.Bernoulli(outputs, mask)
        if isinstance(action_space, spaces.MultiDiscrete):
            return policies.MultiCategorical(outputs, sizes, mask)
        return policies.Categorical(outputs, mask)

    def to_environment(a: Array) -> Array:
        return a.reshape(a.shape[0], *action_space.shape)  # type: ignore[misc]

    def init(key: Array) -> hk.Params:
        obs, mask = split(zeros(spec.observation_space, 1, 1))
        return forward.init(key, obs, mask, jnp.zeros((1, 1), bool), initial_memory(1))

    if continuous:
        to_environment = action_bounds(action_space, finite=False).scale  # type: ignore[assignment]
    return ActorCritic(
        init, forward.apply, split, space, view, continuous, to_environment, initial_memory
    )


def scale_to_bounds(params: PyTree, space: spaces.Space) -> tuple[PyTree, PyTree]:
    """Convert a policy with Box actions in the units of the environment to scaled actions.

    The distribution of the environment's actions stays the same. Policies for other action spaces
    do not change.

    Returns:
      The parameters, and the factors by which they were multiplied before anything was added.
    """
    factors = jax.tree.map(jnp.ones_like, params)
    if not isinstance(space, spaces.Box):
        return params, factors
    middle, half = action_bounds(space, finite=False).units()
    half = np.where(half > 0, half, 1.0).astype(np.float32)  # 0 where low is high
    head = params["policy_head"]
    dependent = head["b"].shape != half.shape  # the head has the logarithms of the deviations too
    ones = np.ones_like(half) if dependent else half[:0]
    factor = np.concatenate([1 / half, ones])
    shift = np.concatenate([-middle / half, -np.log(half) if dependent else ones])
    factors["policy_head"] = {name: x * factor for name, x in factors["policy_head"].items()}
    head = {"w": head["w"] * factor, "b": head["b"] * factor + shift}
    deviations = {} if dependent else {"~": {"log_std": params["~"]["log_std"] - np.log(half)}}
    return {**params, "policy_head": head, **deviations}, factors


def _orthogonal(gain: float) -> Any:
    """Return a context in which weights are initialised orthogonally."""

    def creator(next_creator, shape, dtype, init, context):
        return next_creator(
            shape, dtype, hk.initializers.Orthogonal(gain) if context.name.startswith("w") else init
        )

    return hk.custom_creator(creator)


def _lasting(recurrent: Core, span: int) -> Any:
    """Return a context in which the cells of a memory are initialised to forget after some steps.

    Each cell forgets after a random number of steps, from 1 to `span`. By Haiku's own
    initialisation all cells forget after 4 steps, and no gradient comes from further back. This is
    the "chrono initialisation" of "Can recurrent neural networks warp time?" by Tallec and Ollivier
    (https://arxiv.org/abs/1804.11188).
    """

    def gates(shape, dtype):
        size = shape[0] // {"lstm": 4, "gru": 3}[recurrent]
        keep = jnp.log(hk.initializers.RandomUniform(1.0, max(span - 1.0, 1.0))((size,), dtype))
        none = jnp.zeros(size, dtype)
        if recurrent == "lstm":
            # Input gate, cell, forget gate (to which Haiku adds 1), output gate.
            return jnp.concatenate([-keep, none, keep - 1.0, none])
        return jnp.concatenate([-keep, none, none])  # update gate, reset gate, candidate

    def creator(next_creator, shape, dtype, init, context):
        return next_creator(shape, dtype, gates if context.name == "b" else init)

    return hk.custom_creator(creator)
