"""From observations to feature vectors: how an observation space chooses its network."""

from collections.abc import Callable, Sequence

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.types import Array, ConfigurationError, PyTree, zeros

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": jax.nn.relu, "tanh": jnp.tanh, "silu": jax.nn.silu, "gelu": jax.nn.gelu}


def is_image(space: spaces.Space) -> bool:
    """Whether a space holds images: bytes with two spatial axes and one of channels, which is the shortest."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def encode(space: spaces.Space, obs: PyTree) -> Array:
    """Encodes a batch of observations as features `[N, F]`.

    Images go through convolutions, numbers are taken as they are, categories become one-hot vectors, and the parts of a Dict or
    Tuple are put side by side. Call inside `hk.transform`.

    Args:
      space: the space of one observation.
      obs: observations `[N, ...]`, with the structure of the space.
    """
    if isinstance(space, spaces.Dict):
        return jnp.concatenate([encode(part, obs[name]) for name, part in space.items()], axis=-1)
    if isinstance(space, spaces.Tuple):
        return jnp.concatenate([encode(part, obs[i]) for i, part in enumerate(space)], axis=-1)
    if isinstance(space, spaces.Discrete):
        return jax.nn.one_hot(obs - int(space.start), int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        digits = (obs - space.start).reshape(obs.shape[0], -1)
        return jnp.concatenate([jax.nn.one_hot(digits[:, i], int(n)) for i, n in enumerate(space.nvec.reshape(-1))], axis=-1)
    if is_image(space):
        return convolutions(obs, channels_first=min(obs.shape[1:]) == obs.shape[1])
    return obs.reshape(obs.shape[0], -1).astype(jnp.float32)  # Box, MultiBinary


def convolutions(images: Array, channels_first: bool) -> Array:
    """Encodes images `[N, H, W, C]` of bytes, or `[N, C, H, W]`, as features `[N, F]`.

    From 36 pixels on, these are the layers of "Human-level control through deep reinforcement learning" (Mnih et al., 2015);
    smaller images get the one layer of "MinAtar" (Young and Tian, https://arxiv.org/abs/1903.03176).
    """
    x = jnp.moveaxis(images, 1, -1) if channels_first else images
    x = x.astype(jnp.float32) / 255.0
    layers = [(32, 8, 4), (64, 4, 2), (64, 3, 1)] if min(x.shape[1:3]) >= 36 else [(16, 3, 1)]
    for channels, kernel, stride in layers:
        x = jax.nn.relu(hk.Conv2D(channels, kernel, stride, padding="VALID" if stride > 1 or len(layers) > 1 else "SAME")(x))
    return x.reshape(x.shape[0], -1)


def mlp(x: Array, sizes: Sequence[int], activation: str) -> Array:
    """A layer of each size, each followed by the activation."""
    for size in sizes:
        x = ACTIVATIONS[activation](hk.Linear(size)(x))
    return x


def check_activation(name: str) -> None:
    """Raises `ConfigurationError` unless an activation of that name exists."""
    if name not in ACTIVATIONS:
        raise ConfigurationError(f"activation={name!r} is unknown; choose one of {', '.join(ACTIVATIONS)}.")


Network = Callable[[PyTree], Array]
"""A user's own layers: from a batch of observations to features `[N, F]`, called inside `hk.transform`."""


def torso(space: spaces.Space, sizes: Sequence[int], activation: str, obs: PyTree, network: Network | None = None) -> Array:
    """Features `[N, F]` of observations `[N, ...]`: by the user's network if there is one, else encoded and through an MLP."""
    return network(obs) if network is not None else mlp(encode(space, obs), sizes, activation)


def example(space: spaces.Space) -> PyTree:
    """A batch of one observation, to initialise networks with."""
    return zeros(space, 1)
