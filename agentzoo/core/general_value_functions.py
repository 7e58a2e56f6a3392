"""Auxiliary tasks: rewards for changing features or pixels, and the loss of pixel control.

Time is axis 0, and batch axes follow it. See "Reinforcement Learning with Unsupervised Auxiliary
Tasks" by Jaderberg et al. (https://arxiv.org/abs/1611.05397, section 3.1).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError, floats, operator
from agentzoo.core._operator import actions as check_actions
from agentzoo.core.arrays import lhs_broadcast
from agentzoo.core.traces import q_lambda

__all__ = ["feature_control_rewards", "pixel_control_loss", "pixel_control_rewards"]


@operator(static=("cumulant_type",))
def feature_control_rewards(
    features: ArrayLike, cumulant_type: str = "absolute_change", discount: ArrayLike | None = None
) -> jax.Array:
    """Return a reward for each feature, for its value or for its change.

    A step from features `f_tm1` to `f_t` gives the following reward:

    * "feature": `f_t`
    * "absolute_change": `|f_t - f_tm1|`
    * "increase": `f_t - f_tm1`
    * "decrease": `f_tm1 - f_t`
    * "potential": `discount * f_t - f_tm1`; see "Policy Invariance Under Reward Transformations"
      by Ng et al. (1999)

    Args:
      features: `[T + 1, ...]`.
      cumulant_type: which of these rewards to return.
      discount: the discount of "potential", a scalar or aligned with `[T, ...]` from the left.

    Returns:
      `[T, ...]` rewards.

    Raises:
      ShapeError: if there is no time axis, or the shape of the discount does not match.
      ValueError: if `cumulant_type` is unknown, or the discount is missing.
    """
    (features,) = floats(features=features)
    if features.ndim < 1:
        raise ShapeError(
            "feature_control_rewards: 'features' is a scalar. Pass an array of shape [T + 1, ...]."
        )
    f_tm1, f_t = features[:-1], features[1:]
    if cumulant_type == "feature":
        return f_t
    if cumulant_type == "absolute_change":
        return jnp.abs(f_t - f_tm1)
    if cumulant_type == "increase":
        return f_t - f_tm1
    if cumulant_type == "decrease":
        return f_tm1 - f_t
    if cumulant_type == "potential":
        if discount is None:
            raise ValueError(
                "feature_control_rewards: cumulant_type='potential' needs a discount, but "
                "'discount' is None. Pass a scalar or an array."
            )
        return lhs_broadcast(discount, f_t) * f_t - f_tm1
    raise ValueError(
        f"feature_control_rewards: cumulant_type={cumulant_type!r} is unknown. Choose 'feature', "
        f"'absolute_change', 'increase', 'decrease' or 'potential'."
    )


@operator(static=("cell_size",))
def pixel_control_rewards(observations: ArrayLike, cell_size: int) -> jax.Array:
    """Return the mean absolute change of the pixels of each cell, over all channels.

    Args:
      observations: `[T + 1, ..., H, W, C]` images. They may hold integers, such as bytes.
      cell_size: the number of pixels along each side of a cell. It must divide H and W.

    Returns:
      `[T, ..., H / cell_size, W / cell_size]` rewards.

    Raises:
      ShapeError: if an axis is missing, or the cells do not fill the image.
    """
    (observations,) = floats(observations=observations)
    if observations.ndim < 4:
        raise ShapeError(
            f"pixel_control_rewards: 'observations' has shape {observations.shape}. Pass images of "
            f"shape [T + 1, ..., H, W, C]."
        )
    *leading, height, width, channels = observations.shape
    if cell_size < 1 or height % cell_size or width % cell_size:
        raise ShapeError(
            f"pixel_control_rewards: 'cell_size' is {cell_size}, which does not divide the height "
            f"{height} and width {width} of 'observations'. Choose a divisor of both."
        )
    change = jnp.abs(observations[1:] - observations[:-1])
    # Split H into (H / cell_size, cell_size), and W likewise. The mean is then over the pixels of
    # a cell (axes -4 and -2) and the channels (axis -1).
    cells = change.reshape(
        leading[0] - 1,
        *leading[1:],
        height // cell_size,
        cell_size,
        width // cell_size,
        cell_size,
        channels,
    )
    return cells.mean(axis=(-4, -2, -1))


@operator(static=("cell_size",))
def pixel_control_loss(
    observations: ArrayLike,
    actions: ArrayLike,
    action_values: ArrayLike,
    discount_factor: ArrayLike,
    cell_size: int,
) -> jax.Array:
    """Return half the squared Q(lambda) error of pixel control, with lambda 1.

    Each cell has its own value function, and all value functions share the same actions.

    Args:
      observations: `[T + 1, ..., H, W, C]` images.
      actions: `[T, ...]` action indices.
      action_values: `[T + 1, ..., H / cell_size, W / cell_size, A]`. The last row and the maxima
        are treated as constants.
      discount_factor: a scalar, `[T]`, or an array with the shape of the actions.
      cell_size: the number of pixels along each side of a cell. It must divide H and W.

    Returns:
      `[T, ..., H / cell_size, W / cell_size]` losses; NaN where an action is out of range.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    r_t = pixel_control_rewards(observations, cell_size)
    (action_values,) = floats(action_values=action_values)
    steps = r_t.shape[:-2]
    cells = (steps[0] + 1, *r_t.shape[1:])  # [T + 1, ..., H / cell_size, W / cell_size]
    if action_values.ndim != r_t.ndim + 1 or action_values.shape[:-1] != cells:
        raise ShapeError(
            f"pixel_control_loss: Pixel Control values are not compatible with 'observations', "
            f"because 'action_values' has shape {action_values.shape}. Pass an array of shape "
            f"{cells} + (A,)."
        )
    check_actions("pixel_control_loss", steps, actions=actions)
    if jnp.shape(discount_factor) not in ((), steps[:1], steps):
        raise ShapeError(
            f"pixel_control_loss: 'discount_factor' has shape {jnp.shape(discount_factor)}. "
            f"The discount_factor must be a scalar or a tensor of rank 1 and length {steps[0]}, or "
            f"have the shape of 'actions', {steps}."
        )
    a_tm1 = jnp.broadcast_to(lhs_broadcast(actions, r_t), r_t.shape)
    discount_t = jnp.broadcast_to(lhs_broadcast(discount_factor, r_t), r_t.shape)
    error = q_lambda(action_values[:-1], a_tm1, r_t, discount_t, action_values[1:], 1.0)
    return 0.5 * jnp.square(error)
