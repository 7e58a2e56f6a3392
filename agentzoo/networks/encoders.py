"""From observations to feature vectors: how an observation space chooses its network."""

from collections.abc import Callable, Sequence

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.networks.convolutions import Conv2D
from agentzoo.types import Array, ConfigurationError, FrameStack, PyTree, zeros

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": jax.nn.relu, "tanh": jnp.tanh, "silu": jax.nn.silu, "gelu": jax.nn.gelu}


def is_image(space: spaces.Space) -> bool:
    """Whether a space holds images: bytes with two spatial axes and one of channels, which is the shortest, or stacks of images."""
    axes = (3, 4) if isinstance(space, FrameStack) else (3,)
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in axes


def encode(space: spaces.Space, obs: PyTree, cnn: str = "nature") -> Array:
    """Encodes a batch of observations as features `[N, F]`.

    Images go through convolutions, numbers are taken as they are, categories become one-hot vectors, and the parts of a Dict or
    Tuple are put side by side. Call inside `hk.transform`.

    Args:
      space: the space of one observation.
      obs: observations `[N, ...]`, with the structure of the space.
      cnn: the convolutions for images, "nature", "impala" or "efficient".
    """
    if isinstance(space, spaces.Dict):
        return jnp.concatenate([encode(part, obs[name], cnn) for name, part in space.items()], axis=-1)
    if isinstance(space, spaces.Tuple):
        return jnp.concatenate([encode(part, obs[i], cnn) for i, part in enumerate(space)], axis=-1)
    if isinstance(space, spaces.Discrete):
        return jax.nn.one_hot(obs - int(space.start), int(space.n), dtype=jnp.float32)
    if isinstance(space, spaces.MultiDiscrete):
        digits = (obs - space.start).reshape(obs.shape[0], -1)
        one_hot = [jax.nn.one_hot(digits[:, i], int(n), dtype=jnp.float32) for i, n in enumerate(space.nvec.reshape(-1))]
        return jnp.concatenate(one_hot, axis=-1)
    if is_image(space):
        return CNNS[cnn](channels_last(space, obs).astype(jnp.float32) / 255.0)
    return obs.reshape(obs.shape[0], -1).astype(jnp.float32)  # Box, MultiBinary


def channels_last(space: spaces.Space, images: Array) -> Array:
    """Images `[N, H, W, C]`, from those of a space; the frames of a stack become channels, as many as each has."""
    if isinstance(space, FrameStack):  # [N, S, H, W] or [N, S, H, W, C]
        return jnp.moveaxis(images.reshape(*images.shape[:4], -1), 1, 3).reshape(images.shape[0], *images.shape[2:4], -1)
    return jnp.moveaxis(images, 1, -1) if min(images.shape[1:]) == images.shape[1] else images


def nature_cnn(x: Array) -> Array:
    """Encodes images `[N, H, W, C]` as features `[N, F]`.

    From 36 pixels on, these are the layers of "Human-level control through deep reinforcement learning" (Mnih et al., 2015);
    smaller images get the one layer of "MinAtar" (Young and Tian, https://arxiv.org/abs/1903.03176).
    """
    layers = [(32, 8, 4), (64, 4, 2), (64, 3, 1)] if min(x.shape[1:3]) >= 36 else [(16, 3, 1)]
    for channels, kernel, stride in layers:
        x = jax.nn.relu(Conv2D(channels, kernel, stride, padding="VALID" if stride > 1 or len(layers) > 1 else "SAME")(x))
    return x.reshape(x.shape[0], -1)


def impala_cnn(x: Array) -> Array:
    """Encodes images `[N, H, W, C]` as features `[N, F]`.

    These are the residual layers of "IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner Architectures"
    (Espeholt et al., https://arxiv.org/abs/1802.01561), figure 3, right.
    """
    for channels in (16, 32, 32):
        x = hk.MaxPool((3, 3, 1), (2, 2, 1), padding="SAME")(Conv2D(channels, 3)(x))
        for _ in range(2):
            residual = Conv2D(channels, 3)(jax.nn.relu(x))
            x = x + Conv2D(channels, 3)(jax.nn.relu(residual))
    return jax.nn.relu(x).reshape(x.shape[0], -1)


def efficient_cnn(x: Array) -> Array:
    """Encodes images `[N, H, W, C]` of 30 pixels or more as features `[N, F]`, with a tenth of the arithmetic of `nature_cnn`.

    These are the layers of "When to use parametric models in reinforcement learning?" (van Hasselt et al.,
    https://arxiv.org/abs/1906.05243), appendix E.
    """
    for channels in (32, 64):
        x = jax.nn.relu(Conv2D(channels, 5, 5, padding="VALID")(x))
    return x.reshape(x.shape[0], -1)


CNNS: dict[str, Callable[[Array], Array]] = {"nature": nature_cnn, "impala": impala_cnn, "efficient": efficient_cnn}


def mlp(x: Array, sizes: Sequence[int], activation: str) -> Array:
    """A layer of each size, each followed by the activation."""
    for size in sizes:
        x = ACTIVATIONS[activation](hk.Linear(size)(x))
    return x


def check(activation: str, cnn: str) -> None:
    """Raises `ConfigurationError` unless an activation and convolutions of these names exist."""
    for name, value, known in (("activation", activation, ACTIVATIONS), ("cnn", cnn, CNNS)):
        if value not in known:
            raise ConfigurationError(f"{name}={value!r} is unknown; choose one of {', '.join(known)}.")


Network = Callable[[PyTree], Array]
"""A user's own layers: from a batch of observations to features `[N, F]`, called inside `hk.transform`, without state or randomness."""


def torso(space: spaces.Space, cnn: str, sizes: Sequence[int], activation: str, obs: PyTree, network: Network | None = None) -> Array:
    """Features `[N, F]` of observations `[N, ...]`: by the user's network if there is one, else encoded and through an MLP."""
    return apply_network(network, obs) if network is not None else mlp(encode(space, obs, cnn), sizes, activation)


def apply_network(network: Network, obs: PyTree) -> Array:
    """What a user's network makes of observations `[N, ...]`.

    Raises:
      ConfigurationError: if it is not an array `[N, F]`.
    """
    x, num = network(obs), jax.tree.leaves(obs)[0].shape[0]
    if not isinstance(x, jax.Array) or x.ndim != 2 or len(x) != num:
        what = f"an array of shape {x.shape}" if isinstance(x, jax.Array) else type(x).__name__
        raise ConfigurationError(
            f"Of {num} observation(s), the network makes {what}; expected features [{num}, F], for example by hk.Flatten() at the end."
        )
    return x


def example(space: spaces.Space) -> PyTree:
    """A batch of one observation, to initialise networks with."""
    return zeros(space, 1)
