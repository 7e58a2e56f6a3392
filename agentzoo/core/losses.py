"""Element-wise loss functions."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import floats, operator, same_shape


@operator
def l2_loss(predictions: ArrayLike, targets: ArrayLike | None = None) -> jax.Array:
    """Half the squared error, `0.5 * (predictions - targets)^2`, whose gradient is the error itself.

    See "Pattern Recognition and Machine Learning" by Bishop, equation 1.2.

    Args:
      predictions: any shape.
      targets: the same shape or a scalar; zeros if left out.

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
    """Quadratic within `delta` of zero and linear beyond: `0.5 x^2` if `|x| <= delta`, else `delta (|x| - 0.5 delta)`.

    See "Robust Estimation of a Location Parameter" by Huber (1964). Its gradient is `x` clipped to `[-delta, delta]`, which is
    what "error clipping" means in "Human-level control through deep reinforcement learning" by Mnih et al. (2015).

    Args:
      x: errors, any shape.
      delta: where the loss turns linear; a positive scalar or an array of the shape of `x`.

    Returns:
      The loss of each element, in the shape of `x`.

    Raises:
      ShapeError: if `delta` is neither a scalar nor of the shape of `x`.
    """
    same_shape("huber_loss", jnp.shape(x), delta=delta)
    x, delta = floats(x=x, delta=delta)
    # Written with the clipped error, so that neither branch can overflow for errors of any size.
    clipped = jnp.clip(x, -delta, delta)
    return clipped * (x - 0.5 * clipped)
