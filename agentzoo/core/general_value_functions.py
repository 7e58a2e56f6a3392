"""Auxiliary tasks: rewards for changing what is seen or felt, and the loss of pixel control.

Time is axis 0, batch axes follow it.

See "Reinforcement Learning with Unsupervised Auxiliary Tasks" by Jaderberg et al.
(https://arxiv.org/abs/1611.05397, section 3.1).
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
    """A reward for each feature, for what it is or how it changes.

    Args:
      features: `[T + 1, ...]`.
      cumulant_type: which reward a step from `f_tm1` to `f_t` gives: "feature" for `f_t`,
        "absolute_change" for `|f_t - f_tm1|`, "increase" for `f_t - f_tm1`, "decrease" for `f_tm1 -
        f_t`, "potential" for `discount * f_t - f_tm1`, see "Policy Invariance Under Reward
        Transformations" by Ng et al. (1999).
      discount: of "potential", a scalar or lined up with `[T, ...]` from the left.

    Returns:
      `[T, ...]` rewards.

    Raises:
      ShapeError: if there is no time axis, or the discount does not line up.
      ValueError: if there is no such `cumulant_type`, or the discount is missing.
    """
    (features,) = floats(features=features)
    if features.ndim < 1:
        raise ShapeError(
            "feature_control_rewards: 'features' must be of shape [T + 1, ...], but is a scalar."
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
                "feature_control_rewards: cumulant_type='potential' needs a 'discount'."
            )
        return lhs_broadcast(discount, f_t) * f_t - f_tm1
    raise ValueError(
        f"feature_control_rewards: cumulant_type={cumulant_type!r} is unknown; choose 'feature', 'absolute_change', 'increase', "
        f"'decrease' or 'potential'."
    )


@operator(static=("cell_size",))
def pixel_control_rewards(observations: ArrayLike, cell_size: int) -> jax.Array:
    """The mean absolute change of the pixels of each cell, over all channels.

    Args:
      observations: `[T + 1, ..., H, W, C]`; integers, such as images of bytes, too.
      cell_size: pixels along each side of a cell; divides H and W.

    Returns:
      `[T, ..., H / cell_size, W / cell_size]` rewards.

    Raises:
      ShapeError: if an axis is missing, or cells do not fill the image.
    """
    (observations,) = floats(observations=observations)
    if observations.ndim < 4:
        raise ShapeError(
            f"pixel_control_rewards: 'observations' must be of shape [T + 1, ..., H, W, C], but have {observations.shape}."
        )
    *leading, height, width, channels = observations.shape
    if cell_size < 1 or height % cell_size or width % cell_size:
        raise ShapeError(
            f"pixel_control_rewards: 'cell_size' must divide height and width of 'observations', {height} and {width}, but is {cell_size}."
        )
    change = jnp.abs(observations[1:] - observations[:-1])
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
    """Half the squared Q(lambda) error of controlling pixels, with lambda 1: one value function per cell, all of the same actions.

    Args:
      observations: `[T + 1, ..., H, W, C]`.
      actions: `[T, ...]` action indices.
      action_values: `[T + 1, ..., H / cell_size, W / cell_size, A]`, through whose last row, and
        maxima, no gradient passes.
      discount_factor: a scalar, `[T]`, or of the shape of the actions.
      cell_size: pixels along each side of a cell; divides H and W.

    Returns:
      `[T, ..., H / cell_size, W / cell_size]` losses; NaN where an action is out of range.

    Raises:
      ShapeError: if shapes do not fit together.
      TypeError: if the actions are not integers.
    """
    r_t = pixel_control_rewards(observations, cell_size)
    (action_values,) = floats(action_values=action_values)
    steps = r_t.shape[:-2]
    if action_values.ndim != r_t.ndim + 1 or action_values.shape[:-1] != (
        steps[0] + 1,
        *r_t.shape[1:],
    ):
        raise ShapeError(
            f"pixel_control_loss: Pixel Control values are not compatible with 'observations': 'action_values' must have shape "
            f"{(steps[0] + 1, *r_t.shape[1:])} + (A,), but have {action_values.shape}."
        )
    check_actions("pixel_control_loss", steps, actions=actions)
    if jnp.shape(discount_factor) not in ((), steps[:1], steps):
        raise ShapeError(
            f"pixel_control_loss: discount_factor must be a scalar or a tensor of rank 1 and length {steps[0]}, or of the shape of "
            f"'actions', {steps}, but has shape {jnp.shape(discount_factor)}."
        )
    a_tm1 = jnp.broadcast_to(lhs_broadcast(actions, r_t), r_t.shape)
    discount_t = jnp.broadcast_to(lhs_broadcast(discount_factor, r_t), r_t.shape)
    error = q_lambda(action_values[:-1], a_tm1, r_t, discount_t, action_values[1:], 1.0)
    return 0.5 * jnp.square(error)
