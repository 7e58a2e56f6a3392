"""A policy and a value function over time, for every action space, with or without memory."""

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
from agentzoo.networks.encoders import (
    Activation,
    Cnn,
    LayerNorm,
    Layers,
    Network,
    apply_network,
    encode,
    mlp,
)
from agentzoo.networks.observations import Images, View, make_view
from agentzoo.types import Array, EnvSpec, PyTree

Core = Literal["lstm", "gru"]
CORES: dict[Core, Callable[[int], hk.RNNCore]] = {"lstm": hk.LSTM, "gru": hk.GRU}


class Output(NamedTuple):
    """The output of an actor-critic for observations `[T, N, ...]`.

    Attributes:
      policy: a `distrax.Distribution` of batch shape `[T, N]`. Its event shape is `[]` for Discrete
        actions and `[D]` for all others.
      v: `[T, N]`, the value of each observation.
      memory: `[T, N, ...]`, the recurrent state after each observation, or `()`.
    """

    policy: Any
    v: Array
    memory: PyTree


class ActorCritic(NamedTuple):
    """A policy and a value function as pure functions.

    Attributes:
      init: `(key) -> params`.
      apply: `(params, obs, mask, first, memory) -> Output`. The observations `[T, N, ...]` follow
        each other in time, and `memory` `[N, ...]` is the recurrent state before the first one. The
        state is reset where `first` `[T, N]` is true.
      split: `(obs) -> (obs, mask)`. It separates the environment's observations from the mask of
        legal actions, which is None if there is no such mask.
      space: the observation space without the mask.
      view: how a network takes these observations.
      continuous: whether the action space is a Box. The policy's actions are then in [-1, 1] where
        the bounds are finite, and are scaled and clipped to the bounds for the environment.
      to_environment: `(a) -> action`. It converts actions `[N, ...]` of the policy to actions of
        the environment.
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


class Options(NamedTuple):
    """The architecture of an actor-critic.

    Attributes:
      images: which parts of the observations are images, as for `make_view`.
      scale_obs: scale integers in the observations by their bounds, as for `make_view`.
      cnn: the convolutions for images. Policy and value share them.
      net_arch: the sizes of the hidden layers.
      activation: the activation function after each hidden layer.
      layer_norm: normalise the hidden layers, as for `agentzoo.networks.Layers`.
      residual: use residual blocks, as for `agentzoo.networks.mlp`.
      shared: use the same hidden layers and the same memory for policy and value. Otherwise, each
        has its own.
      orthogonal: initialise weights orthogonally, with gain sqrt(2) in hidden layers, 0.01 in the
        policy's head and 1 elsewhere. Otherwise, use Haiku's initialisation.
      log_std_init: initial logarithm of the standard deviation of Box actions, in units in which
        finite bounds are [-1, 1].
      state_dependent_std: let the standard deviation depend on the observation.
      recurrent: the memory after the hidden layers, "lstm" or "gru"; None for no memory.
      recurrent_size: the size of the memory.
      recurrent_span: the largest number of steps that the memory lasts when learning begins.
    """

    images: Images = "auto"
    scale_obs: bool = True
    cnn: Cnn = "nature"
    net_arch: Sequence[int] = (64, 64)
    activation: Activation = "tanh"
    layer_norm: LayerNorm = False
    residual: bool = False
    shared: bool = False
    orthogonal: bool = True
    log_std_init: float | Array = 0.0
    state_dependent_std: bool = False
    recurrent: Core | None = None
    recurrent_size: int = 64
    recurrent_span: int = 64


def make_actor_critic(spec: EnvSpec, network: Network | None = None, **options: Any) -> ActorCritic:
    """Build a policy and a value function.

    Args:
      spec: the spaces. An "action_mask" in the observations says which actions are legal, see
        `agentzoo.networks.action_masks`.
      network: a user's layers, which replace the convolutions and the hidden layers.
      **options: the architecture, as the fields of `Options`.

    Raises:
      ConfigurationError: if the spaces are not supported.
    """
    arch, space = Options(**options), spec.action_space
    masks = action_masks(spec)
    view = make_view(masks.space, arch.images, arch.scale_obs)

    @hk.without_apply_rng
    @hk.transform
    def forward(obs: PyTree, mask: Array | None, first: Array, memory: PyTree) -> Output:
        features, states = _features(arch, view, network, obs, first, memory)
        outputs, v = _heads(arch, space, features)
        policy = _policy(arch, space, _unmerge(outputs, *first.shape), mask)
        return Output(policy, _unmerge(v, *first.shape)[..., 0], states)

    def init(key: Array) -> hk.Params:
        obs, mask = masks.split(zeros(spec.observation_space, 1, 1))
        return forward.init(key, obs, mask, jnp.zeros((1, 1), bool), initial_memory(1))

    def initial_memory(num_envs: int) -> PyTree:
        return _initial_memory(arch, num_envs)

    return ActorCritic(
        init=init,
        apply=forward.apply,
        split=masks.split,
        space=masks.space,
        view=view,
        continuous=isinstance(space, spaces.Box),
        to_environment=_to_environment(space),
        initial_memory=initial_memory,
    )


def scale_to_bounds(params: PyTree, space: spaces.Space) -> tuple[PyTree, PyTree]:
    """Convert a policy for Box actions in the environment's units to one for scaled actions.

    Returns:
      The converted parameters, and the factor by which each parameter was multiplied before any
      offset was added. Parameters of policies for other spaces stay as they are.
    """
    factors = jax.tree.map(jnp.ones_like, params)
    if not isinstance(space, spaces.Box):
        return params, factors
    middle, half = action_bounds(space, finite=False).units()
    half = np.where(half > 0, half, 1.0).astype(np.float32)  # 0 where low equals high
    head = params["policy_head"]
    # A standard deviation that depends on the observation has its logarithms in the head as well:
    # the head has 2 D outputs, first the means [D], then the logarithms [D].
    dependent = head["b"].shape != half.shape
    ones = np.ones_like(half) if dependent else half[:0]
    factor = np.concatenate([1 / half, ones])
    shift = np.concatenate([-middle / half, -np.log(half) if dependent else ones])
    factors["policy_head"] = {name: x * factor for name, x in factors["policy_head"].items()}
    head = {"w": head["w"] * factor, "b": head["b"] * factor + shift}
    deviations = {} if dependent else {"~": {"log_std": params["~"]["log_std"] - np.log(half)}}
    return {**params, "policy_head": head, **deviations}, factors


class _Features(NamedTuple):
    """The features before the heads, and the recurrent states.

    Attributes:
      features: `[N * T, F]`, one array for policy and value together or one for each of them.
      states: `[T, N, ...]`, one recurrent state for each array of features, or none.
    """

    features: list[Array]
    states: tuple[PyTree, ...]


def _features(
    arch: Options, view: View, network: Network | None, obs: PyTree, first: Array, memory: PyTree
) -> _Features:
    """Apply all layers but the heads to observations `[T, N, ...]`."""
    x = jax.tree.map(_merge, obs)
    if network is None:
        with _initialised(arch, math.sqrt(2)):
            x = encode(view, x, arch.cnn)
    features, states = [], []
    for i, name in enumerate(_names(arch)):
        with hk.name_scope(name):
            y = _hidden(arch, network, x)
            if arch.recurrent is not None:
                y, state = _unroll(arch, _unmerge(y, *first.shape), first, memory[i])
                y = _merge(y)
                states.append(state)
            features.append(y)
    return _Features(features, tuple(states))


def _hidden(arch: Options, network: Network | None, x: PyTree) -> Array:
    """Apply the hidden layers, or the user's network, to `[N * T, ...]`."""
    if network is not None:
        return apply_network(network, x)
    with _initialised(arch, math.sqrt(2)):
        return mlp(x, arch.net_arch, Layers(arch.activation, arch.layer_norm, arch.residual))


def _unroll(arch: Options, x: Array, first: Array, state: PyTree) -> tuple[Array, PyTree]:
    """Apply the memory to `[T, N, F]`; return its outputs and states `[T, N, ...]`."""
    assert arch.recurrent is not None
    with _initialised(arch, 1.0), _lasting(arch.recurrent, arch.recurrent_span):
        core = hk.ResetCore(CORES[arch.recurrent](arch.recurrent_size))
        y, states = hk.dynamic_unroll(core, (x, first), state, return_all_states=True)
    return y, states  # type: ignore[return-value]


def _heads(arch: Options, space: spaces.Space, features: list[Array]) -> tuple[Array, Array]:
    """Return the outputs of the policy's head `[N * T, K]` and the values `[N * T, 1]`."""
    has_std = arch.state_dependent_std and isinstance(space, spaces.Box)
    num_outputs = sum(choices(space)) * (1 + has_std)
    with _initialised(arch, 0.01):
        outputs = hk.Linear(num_outputs, name="policy_head")(features[0])
    with _initialised(arch, 1.0):
        v = hk.Linear(1, name="value_head")(features[-1])
    return outputs, v


def _policy(
    arch: Options, space: spaces.Space, outputs: Array, mask: Array | None
) -> distrax.Distribution:
    """Return the policy that the outputs `[T, N, ...]` of its head describe."""
    if isinstance(space, spaces.Box):
        if arch.state_dependent_std:
            mean, log_std = jnp.split(outputs, 2, axis=-1)
            return policies.DiagonalGaussian(mean, jnp.exp(arch.log_std_init + log_std))
        constant = hk.initializers.Constant(arch.log_std_init)  # type: ignore[arg-type]
        log_std = hk.get_parameter("log_std", outputs.shape[-1:], init=constant)
        return policies.DiagonalGaussian(outputs, jnp.exp(log_std))
    if isinstance(space, spaces.MultiBinary):
        return policies.Bernoulli(outputs, mask)
    if isinstance(space, spaces.MultiDiscrete):
        return policies.MultiCategorical(outputs, choices(space), mask)
    return policies.Categorical(outputs, mask)


def _to_environment(space: spaces.Space) -> Callable[[Array], Array]:
    """Return the function from actions `[N, ...]` of the policy to actions of the environment."""
    if isinstance(space, spaces.Box):
        return action_bounds(space, finite=False).scale
    return lambda a: a.reshape(a.shape[0], *space.shape)  # type: ignore[misc]


def _names(arch: Options) -> list[str]:
    """Return the name of each stack of layers, under which its parameters are saved."""
    return ["shared"] if arch.shared else ["policy", "value"]


def _initial_memory(arch: Options, num_envs: int) -> PyTree:
    """Return one recurrent state `[N, ...]` of zeros for each stack of layers, or `()`."""
    if arch.recurrent is None:
        return ()
    zeros = jnp.zeros((num_envs, arch.recurrent_size), jnp.float32)
    state = {"lstm": hk.LSTMState(zeros, zeros), "gru": zeros}[arch.recurrent]
    return (state,) * len(_names(arch))


def _merge(x: Array) -> Array:
    """Reshape `[T, N, ...]` to `[N * T, ...]`.

    The gradients of layers are slow if there are two leading axes. Environments come first because
    several devices share the environments, not the steps.
    """
    num_steps, num_envs = x.shape[:2]
    return jnp.swapaxes(x, 0, 1).reshape(num_envs * num_steps, *x.shape[2:])


def _unmerge(x: Array, num_steps: int, num_envs: int) -> Array:
    """Reshape `[N * T, F]` to `[T, N, F]`, the inverse of `_merge`."""
    return jnp.swapaxes(x.reshape(num_envs, num_steps, -1), 0, 1)


def _initialised(arch: Options, gain: float) -> Any:
    """Return a context in which new weights are orthogonal, unless `orthogonal` is False."""

    def creator(next_creator, shape, dtype, init, context):
        if context.name.startswith("w"):
            init = hk.initializers.Orthogonal(gain)
        return next_creator(shape, dtype, init)

    return hk.custom_creator(creator) if arch.orthogonal else contextlib.nullcontext()


def _lasting(recurrent: Core, span: int) -> Any:
    """Return a context in which the cells of a new memory forget after 1 to `span` steps.

    With Haiku's own initialisation, all cells forget after about 4 steps, and no gradient comes
    from further back. The biases of the gates are the "chrono initialisation" of "Can recurrent
    neural networks warp time?" by Tallec and Ollivier (https://arxiv.org/abs/1804.11188).
    """

    def biases(shape, dtype):
        # One bias vector holds the biases of all gates, each of the memory's size.
        size = shape[0] // {"lstm": 4, "gru": 3}[recurrent]
        keep = jnp.log(hk.initializers.RandomUniform(1.0, max(span - 1.0, 1.0))((size,), dtype))
        none = jnp.zeros(size, dtype)
        if recurrent == "lstm":
            # The gates are input, cell, forget and output. Haiku adds 1 to the forget gate.
            return jnp.concatenate([-keep, none, keep - 1.0, none])
        return jnp.concatenate([-keep, none, none])  # update, reset, candidate

    def creator(next_creator, shape, dtype, init, context):
        return next_creator(shape, dtype, biases if context.name == "b" else init)

    return hk.custom_creator(creator)
