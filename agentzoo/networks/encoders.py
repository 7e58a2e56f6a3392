"""Networks from observations to feature vectors."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from gymnasium import spaces

from agentzoo.elements import zeros
from agentzoo.networks.convolutions import Conv2D, max_pool
from agentzoo.networks.observations import Image, View
from agentzoo.types import Array, ConfigurationError, PyTree

Activation = Literal["relu", "tanh", "silu", "gelu", "elu"]
Cnn = Literal["nature", "impala", "efficient"]
LayerNorm = bool | Literal["first"]

ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "elu": jax.nn.elu,
}


class Layers(NamedTuple):
    """How hidden layers are made.

    Attributes:
      activation: the activation function.
      layer_norm: normalise each layer before its activation (https://arxiv.org/abs/1607.06450).
        With "first", only the first layer is normalised, and its activation is tanh, as in the
        networks of Acme (https://arxiv.org/abs/2006.00979).
      residual: use residual blocks, see `mlp`. They have layer normalisation of their own, so
        `layer_norm` has no effect.
      dropout: the probability with which a unit is 0 while there is a random key; None for no
        dropout.
    """

    activation: Activation = "relu"
    layer_norm: LayerNorm = False
    residual: bool = False
    dropout: Array | float | None = None

    def after(self, sizes: Sequence[int]) -> "Layers":
        """Return how layers are made that follow on hidden layers of these sizes."""
        return self._replace(layer_norm=False) if self.layer_norm == "first" and sizes else self


def encode(view: View, obs: PyTree, cnn: Cnn = "nature") -> Array:
    """Encode observations `[N, ...]` as features `[N, F]`; call inside `hk.transform`.

    Convolutions encode images, numbers are scaled, and categories become one-hot vectors. The
    features of all parts of a Dict or Tuple are concatenated. `agentzoo.networks.observations`
    documents the rules.

    Args:
      view: how a network takes observations, from `make_view`.
      obs: observations `[N, ...]`, with the structure of the view.
      cnn: the convolutions for images, "nature", "impala" or "efficient".

    Raises:
      ConfigurationError: if there are no features.
    """
    features = _encode_parts(view, obs, cnn)
    if not features or sum(x.shape[-1] for x in features) == 0:
        raise ConfigurationError(
            "The observations are empty. Add what the agent should see to the observation space."
        )
    return jnp.concatenate(features, axis=-1) if len(features) > 1 else features[0]


def _encode_parts(view: View, obs: PyTree, cnn: Cnn) -> list[Array]:
    """Return the features `[N, F]` of each part of observations `[N, ...]`."""
    if isinstance(view, dict | tuple):
        items = view.items() if isinstance(view, dict) else enumerate(view)
        return [x for key, part in items for x in _encode_parts(part, obs[key], cnn)]
    if not isinstance(view, Image):
        return [view(obs)]
    features = CNNS[cnn](view(obs))
    if features.shape[-1] == 0:
        others = ", ".join(repr(name) for name in CNNS if name != cnn)
        raise ConfigurationError(
            f"cnn={cnn!r} leaves no features of {view.text}, because the image is too small for "
            f"its layers. Choose one of {others}."
        )
    return [features]


def nature_cnn(x: Array) -> Array:
    """Encode images `[N, H, W, C]` as features `[N, F]`.

    The layers are those of "Human-level control through deep reinforcement learning" (Mnih et al.,
    2015). Images with a side of less than 36 pixels get the single layer of "MinAtar" (Young and
    Tian, https://arxiv.org/abs/1903.03176).
    """
    layers = [(32, 8, 4), (64, 4, 2), (64, 3, 1)] if min(x.shape[1:3]) >= 36 else [(16, 3, 1)]
    for channels, kernel, stride in layers:
        padding = "VALID" if stride > 1 or len(layers) > 1 else "SAME"
        x = jax.nn.relu(Conv2D(channels, kernel, stride, padding=padding)(x))
    return x.reshape(x.shape[0], -1)


def impala_cnn(x: Array) -> Array:
    """Encode images `[N, H, W, C]` as features `[N, F]`.

    The residual layers are those of "IMPALA: Scalable Distributed Deep-RL with Importance Weighted
    Actor-Learner Architectures" (Espeholt et al., https://arxiv.org/abs/1802.01561), figure 3,
    right.
    """
    for channels in (16, 32, 32):
        x = max_pool(Conv2D(channels, 3)(x), window=3, stride=2)
        for _ in range(2):
            residual = Conv2D(channels, 3)(jax.nn.relu(x))
            x = x + Conv2D(channels, 3)(jax.nn.relu(residual))
    return jax.nn.relu(x).reshape(x.shape[0], -1)


def efficient_cnn(x: Array) -> Array:
    """Encode images `[N, H, W, C]` with sides of at least 25 pixels as features `[N, F]`.

    The layers need a tenth of the arithmetic of `nature_cnn`. They are those of "When to use
    parametric models in reinforcement learning?" (van Hasselt et al.,
    https://arxiv.org/abs/1906.05243), appendix E.
    """
    for channels in (32, 64):
        x = jax.nn.relu(Conv2D(channels, 5, 5, padding="VALID")(x))
    return x.reshape(x.shape[0], -1)


CNNS: dict[Cnn, Callable[[Array], Array]] = {
    "nature": nature_cnn,
    "impala": impala_cnn,
    "efficient": efficient_cnn,
}


def mlp(
    x: Array,
    sizes: Sequence[int],
    layers: Layers | Activation,
    linear: Callable[[int], Any] = hk.Linear,
) -> Array:
    """Apply hidden layers to features `[N, F]`; call inside `hk.transform`.

    Without `residual`, each layer is linear, then dropout, layer normalisation and the activation
    follow. With `residual`, the layers are those of "SimBa: Simplicity Bias for Scaling Up
    Parameters in Deep Reinforcement Learning" (Lee et al., https://arxiv.org/abs/2410.09754): a
    linear layer, one block `x + linear(activation(linear(layer_norm(x))))` for each size, which is
    four times as wide in its middle, and a layer normalisation at the end.

    Args:
      x: features `[N, F]`.
      sizes: the size of each layer or block.
      layers: how they are made, or only their activation function.
      linear: makes a linear layer, given its size.

    Returns:
      Features `[N, F]`, where F is the last size.
    """
    layers = Layers(layers) if isinstance(layers, str) else layers
    if layers.residual:
        return _residual_mlp(x, sizes, layers, linear)
    for i, size in enumerate(sizes):
        x = _drop(linear(size)(x), layers.dropout)
        if layers.layer_norm == "first" and i == 0:
            x = jnp.tanh(_normalize(x))
        else:
            x = _normalize(x) if layers.layer_norm is True else x
            x = ACTIVATIONS[layers.activation](x)
    return x


def _residual_mlp(
    x: Array, sizes: Sequence[int], layers: Layers, linear: Callable[[int], Any]
) -> Array:
    for i, size in enumerate(sizes):
        if i == 0 or x.shape[-1] != size:
            x = linear(size)(x)
        y = _drop(linear(4 * size)(_normalize(x)), layers.dropout)
        x = x + linear(size)(ACTIVATIONS[layers.activation](y))
    return _normalize(x) if sizes else x


def _normalize(x: Array) -> Array:
    return hk.LayerNorm(axis=-1, create_scale=True, create_offset=True)(x)


def _drop(x: Array, rate: Array | float | None) -> Array:
    """Set units to 0 with a probability. Haiku's dropout takes no probability that is traced."""
    if rate is None or (key := hk.maybe_next_rng_key()) is None:
        return x
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), 0.0)


Network = Callable[[PyTree], Array]
"""A user's own layers, from observations `[N, ...]` to features `[N, F]`.

They are called inside `hk.transform`, and have neither state nor randomness.
"""


def torso(
    view: View,
    cnn: Cnn,
    sizes: Sequence[int],
    layers: Layers | Activation,
    obs: PyTree,
    network: Network | None = None,
) -> Array:
    """Return the features `[N, F]` of observations `[N, ...]`.

    Args:
      view: how a network takes observations, from `make_view`.
      cnn: the convolutions for images, as for `encode`.
      sizes: the sizes of the hidden layers.
      layers: how hidden layers are made, or only their activation function.
      obs: observations `[N, ...]`.
      network: a user's layers, which replace the convolutions and the hidden layers.
    """
    if network is not None:
        return apply_network(network, obs)
    return mlp(encode(view, obs, cnn), sizes, layers)


def apply_network(network: Network, obs: PyTree) -> Array:
    """Apply a user's network to observations `[N, ...]`.

    Raises:
      ConfigurationError: if the result is not an array `[N, F]`.
    """
    x, num = network(obs), jax.tree.leaves(obs)[0].shape[0]
    if not isinstance(x, jax.Array) or x.ndim != 2 or len(x) != num or x.shape[1] == 0:
        what = f"an array of shape {x.shape}" if isinstance(x, jax.Array) else type(x).__name__
        raise ConfigurationError(
            f"The network returns {what} for {num} observation(s). Return features [{num}, F] with "
            f"F of at least 1, for example with hk.Flatten() at the end."
        )
    return x


def example(space: spaces.Space) -> PyTree:
    """Return a batch of one observation, which initialises networks."""
    return zeros(space, 1)
