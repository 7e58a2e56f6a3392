"""Element-wise losses of arrays of any shape, and clipping of gradients."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._clip_gradient import with_clipped_gradient
from agentzoo.core._operator import floats, operator, same_shape

__all__ = ["clip_gradient", "expectile_loss", "huber_loss", "l2_loss", "likelihood", "log_loss"]


@operator
def l2_loss(predictions: ArrayLike, targets: ArrayLike | None = None) -> jax.Array:
    """Return half the squared error, `0.5 * (predictions - targets)^2`.

    Its gradient is the error itself. See "Pattern Recognition and Machine Learning" by Bishop,
    equation 1.2.

    Args:
      predictions: array of any shape.
      targets: array of the same shape, or a scalar; None means 0.

    Returns:
      The loss of each element, in the shape of `predictions`.

    Raises:
      ShapeError: if the shapes differ.
    """
    targets = 0.0 if targets is None else targets
    same_shape("l2_loss", jnp.shape(predictions), targets=targets)
    predictions, targets = floats(predictions=predictions, targets=targets)
    return 0.5 * jnp.square(predictions - targets)


@operator
def huber_loss(x: ArrayLike, delta: ArrayLike = 1.0) -> jax.Array:
    """Return a loss that is quadratic within `delta` of zero and linear beyond.

    It is `0.5 * x^2` if `|x| <= delta`, and `delta * (|x| - 0.5 * delta)` otherwise. See "Robust
    Estimation of a Location Parameter" by Huber (1964). Its gradient is `x` clipped to
    `[-delta, delta]`, which "Human-level control through deep reinforcement learning" by Mnih et
    al. (2015) calls error clipping.

    Args:
      x: errors of any shape.
      delta: error at which the loss becomes linear, a positive scalar or an array of the shape of
        `x`.

    Returns:
      The loss of each element, in the shape of `x`.

    Raises:
      ShapeError: if `delta` is neither a scalar nor of the shape of `x`.
    """
    same_shape("huber_loss", jnp.shape(x), delta=delta)
    x, delta = floats(x=x, delta=delta)
    # With the clipped error, neither branch overflows for errors of any size.
    clipped = jnp.clip(x, -delta, delta)
    return clipped * (x - 0.5 * clipped)


@operator
def expectile_loss(predictions: ArrayLike, targets: ArrayLike, expectile: ArrayLike) -> jax.Array:
    """Return an asymmetric squared error, `|expectile - (delta < 0)| * delta^2`.

    Here, `delta = targets - predictions`. The loss is smallest at the expectile of the targets: the
    mean of the targets at level 0.5, where the loss equals `l2_loss`, and their largest value as
    the level approaches 1. See "Offline Reinforcement Learning with Implicit Q-Learning" by
    Kostrikov et al. (2021, https://arxiv.org/abs/2110.06169), equation 4.

    Args:
      predictions: array of any shape.
      targets: array of the same shape, or a scalar.
      expectile: level in [0, 1], an array of the same shape or a scalar.

    Returns:
      The loss of each element, in the shape of `predictions`.

    Raises:
      ShapeError: if the shapes differ.
    """
    same_shape("expectile_loss", jnp.shape(predictions), targets=targets, expectile=expectile)
    predictions, targets, expectile = floats(
        predictions=predictions, targets=targets, expectile=expectile
    )
    delta = targets - predictions
    return jnp.abs(expectile - (delta < 0)) * jnp.square(delta)


@operator
def likelihood(predictions: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Return a Bernoulli likelihood, `predictions^targets * (1 - predictions)^(1 - targets)`.

    Here, `0^0 = 1`.

    Args:
      predictions: probabilities of a 1, of any shape.
      targets: 0 or 1, or in between for soft targets; an array of the same shape or a scalar.

    Returns:
      The likelihood of each element, in the shape of `predictions`.

    Raises:
      ShapeError: if the shapes differ.
    """
    same_shape("likelihood", jnp.shape(predictions), targets=targets)
    predictions, targets = floats(predictions=predictions, targets=targets)
    one, zero = _uncertain(predictions, targets)
    return jnp.power(one, targets) * jnp.power(1 - zero, 1 - targets)


@operator
def log_loss(predictions: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Return the binary cross-entropy, `-log(likelihood(predictions, targets))`.

    It is `-targets * log(predictions) - (1 - targets) * log(1 - predictions)`, with
    `0 * log(0) = 0`. A prediction that is certain and right has loss 0 and a finite gradient. A
    prediction that is certain and wrong has infinite loss.

    Args:
      predictions: probabilities of a 1, of any shape.
      targets: 0 or 1, or in between for soft targets; an array of the same shape or a scalar.

    Returns:
      The loss of each element, in the shape of `predictions`.

    Raises:
      ShapeError: if the shapes differ.
    """
    same_shape("log_loss", jnp.shape(predictions), targets=targets)
    predictions, targets = floats(predictions=predictions, targets=targets)
    one, zero = _uncertain(predictions, targets)
    return -targets * jnp.log(one) - (1 - targets) * jnp.log1p(-zero)


def _uncertain(p: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return `p` twice, once for `p^t` and once for `(1 - p)^(1 - t)`, with safe gradients.

    The first is 1 where `0^0` or `0 * log(0)` would make the gradient NaN, and the second is 0
    there.
    """
    return jnp.where((p == 0) & (t == 0), 1, p), jnp.where((p == 1) & (t == 1), 0, p)


Tree = TypeVar("Tree")


def clip_gradient(x: Tree, gradient_min: ArrayLike, gradient_max: ArrayLike) -> Tree:
    """Return `x`, with its gradient clipped to `[gradient_min, gradient_max]` in every element.

    See "Human-level control through deep reinforcement learning" by Mnih et al. (2015,
    https://doi.org/10.1038/nature14236), methods. Only the reverse mode clips. In forward mode, the
    derivative comes from the inputs and is not the gradient of the loss, so it passes unchanged.

    Args:
      x: an array, or a tree of arrays.
      gradient_min: smallest gradient; a scalar, or of the shape of an array `x`.
      gradient_max: largest gradient; a scalar, or of the shape of an array `x`.

    Returns:
      `x`.

    Raises:
      ShapeError: if a bound has another shape.
    """

    def clip(leaf: ArrayLike) -> jax.Array:
        leaf = jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf  # no gradient passes through integers
        same_shape(
            "clip_gradient", leaf.shape, gradient_min=gradient_min, gradient_max=gradient_max
        )
        bounds = (
            jnp.broadcast_to(jnp.asarray(bound, leaf.dtype), leaf.shape)
            for bound in (gradient_min, gradient_max)
        )
        return with_clipped_gradient(leaf, *bounds)

    return jax.tree.map(clip, x)
