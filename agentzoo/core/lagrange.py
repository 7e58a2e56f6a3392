"""Constraints with learned Lagrange multipliers, as MPO and V-MPO use them.

A constraint `kl <= epsilon` has a dual variable `alpha`, which is learned by gradient descent
together with the policy::

    kl_loss = stop_gradient(alpha) * kl                   lowers the KL
    alpha_loss = alpha * (epsilon - stop_gradient(kl))    raises alpha while kl > epsilon

See "Maximum a Posteriori Policy Optimisation" by Abdolmaleki et al. (2018,
https://arxiv.org/abs/1806.06920). `E*` stands for any axes of the steps: `[]`, `[B]`, `[T, B]`, ...
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import (
    ShapeError,
    floats,
    operator,
    python_values,
    same_shape,
    stop_gradient_if,
)

__all__ = [
    "LagrangePenalty",
    "clip_projection",
    "compute_parametric_kl_penalty_and_dual_loss",
    "kl_constraint_loss",
    "softplus_projection",
]

Projection = Callable[[jax.Array], jax.Array]


class LagrangePenalty(NamedTuple):
    """The dual variable and the bound of a constraint.

    Attributes:
      alpha: dual variable before its projection. A scalar, or one value for each dimension or each
        element of the KL.
      epsilon: bound, with one of the same shapes.
      per_dimension: whether the last axis of the KL holds dimensions that are constrained
        separately.
    """

    alpha: ArrayLike
    epsilon: ArrayLike
    per_dimension: bool = False


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _clip_below(x: jax.Array, minimum: float) -> jax.Array:
    return jnp.maximum(x, minimum)


_clip_below.defvjp(
    lambda x, minimum: (jnp.maximum(x, minimum), x),
    # Gradient descent moves against the gradient, so a negative gradient raises x.
    lambda minimum, x, gradient: (jnp.where((x >= minimum) | (gradient < 0), gradient, 0),),
)


@operator(static=("minimum",))
def clip_projection(x: ArrayLike, minimum: float = 1e-10) -> jax.Array:
    """Project a dual variable to `max(x, minimum)`, with a gradient that can raise it again.

    The gradient of a plain clip is zero below the minimum. A dual variable that one step of the
    optimiser has made negative would stay negative, and its constraint would no longer be enforced.
    This function passes a gradient that raises `x` and blocks a gradient that lowers `x` further.
    It has no forward-mode derivative.

    Args:
      x: dual variable of any shape.
      minimum: smallest value, above 0.

    Returns:
      The projected value, in the shape of `x`.
    """
    (x,) = floats(x=x)
    return _clip_below(x, minimum)


@operator(static=("minimum",))
def softplus_projection(x: ArrayLike, minimum: float = 1e-10) -> jax.Array:
    """Project a dual variable smoothly to `log(1 + exp(x)) + minimum`.

    The gradient is positive everywhere. To start at the value `y`, initialise `x` with
    `log(exp(y) - 1)`.

    Args:
      x: dual variable of any shape.
      minimum: lower bound of the projected value.

    Returns:
      The projected value, in the shape of `x`.
    """
    (x,) = floats(x=x)
    return jax.nn.softplus(x) + minimum


def log_of(y: ArrayLike) -> jax.Array:
    """Return the logarithm of a dual variable, as a float."""
    (y,) = floats(y=y)
    return jnp.log(y)


def kl_constraint_loss(
    kl: ArrayLike,
    penalty: LagrangePenalty,
    projection_operator: Projection,
    use_stop_gradient: bool = True,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the losses of the constraint `kl <= epsilon` and its projected dual variable.

    Args:
      kl: E*, or `[E*, D]` with a constraint for each of D dimensions. Any other quantity can be
        bounded in the same way.
      penalty: dual variable and bound. Each is a scalar, `[D]`, or has the shape of `kl`.
      projection_operator: function that makes the dual variable positive, such as
        `clip_projection`.
      use_stop_gradient: whether the dual variable is a constant in the first loss and the KL is a
        constant in the second loss.

    Returns:
      Three arrays: the penalty `alpha * kl`, which lowers the KL; the dual loss
      `alpha * (epsilon - kl)`, which raises alpha while the KL exceeds its bound; and the projected
      alpha. Both losses are E*, summed over D.

    Raises:
      ShapeError: if shapes do not fit together.
      TypeError: if `penalty.per_dimension` is traced.
    """
    python_values("kl_constraint_loss", use_stop_gradient=use_stop_gradient)
    alpha = projection_operator(jnp.asarray(penalty.alpha))
    losses = constraint_losses(
        kl, alpha, penalty.epsilon, _per_dimension(penalty), use_stop_gradient
    )
    return *losses, alpha


@operator(static=("per_dimension", "use_stop_gradient"))
def constraint_losses(
    kl: ArrayLike,
    alpha: ArrayLike,
    epsilon: ArrayLike,
    per_dimension: bool,
    use_stop_gradient: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Return the KL penalty and the dual loss, both E*, for a dual variable that is positive."""
    name, shape = "kl_constraint_loss", jnp.shape(kl)
    if per_dimension and not shape:
        raise ShapeError(
            f"{name}: 'kl' must hold one value per dimension on its last axis, but is a scalar."
        )
    for argument, value in {"penalty.alpha": alpha, "penalty.epsilon": epsilon}.items():
        if not (per_dimension and jnp.shape(value) == shape[-1:]):
            same_shape(name, shape, **{argument: value})
    kl, alpha, epsilon = (
        jnp.broadcast_to(x, shape) for x in floats(kl=kl, alpha=alpha, epsilon=epsilon)
    )
    kl_loss = stop_gradient_if(use_stop_gradient, alpha) * kl
    alpha_loss = alpha * (epsilon - stop_gradient_if(use_stop_gradient, kl))
    if not per_dimension:
        return kl_loss, alpha_loss
    return jnp.sum(kl_loss, axis=-1), jnp.sum(alpha_loss, axis=-1)


def _per_dimension(penalty: LagrangePenalty) -> bool:
    if isinstance(penalty.per_dimension, jax.Array):
        raise TypeError(
            "LagrangePenalty: 'per_dimension' must be a Python bool, not a JAX array. "
            "Do not pass penalties through jax.jit."
        )
    return bool(penalty.per_dimension)


def compute_parametric_kl_penalty_and_dual_loss(
    kl_constraints: Sequence[tuple[ArrayLike, LagrangePenalty]],
    projection_operator: Projection,
    use_stop_gradient: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Return the sums of the losses of several KL constraints; see `kl_constraint_loss`.

    Args:
      kl_constraints: pairs of a KL and its penalty. Without pairs, both losses are zero.
      projection_operator: function that makes a dual variable positive, such as `clip_projection`.
      use_stop_gradient: as in `kl_constraint_loss`.

    Returns:
      The KL penalty and the dual loss, both E*.
    """
    # A weakly typed zero, so that the sums have the dtype of the losses.
    kl_loss = alpha_loss = jnp.asarray(0.0)
    for kl, penalty in kl_constraints:
        kl_term, alpha_term, _ = kl_constraint_loss(
            kl, penalty, projection_operator, use_stop_gradient
        )
        kl_loss, alpha_loss = kl_loss + kl_term, alpha_loss + alpha_term
    return kl_loss, alpha_loss


def check_kl_constraints(
    name: str, steps: tuple[int, ...], kl_constraints: Sequence[tuple[ArrayLike, LagrangePenalty]]
) -> None:
    """Raise `ShapeError` for the first KL that does not have the axes of the steps."""
    for i, (kl, penalty) in enumerate(kl_constraints):
        per_dimension = _per_dimension(penalty)
        if jnp.ndim(kl) != len(steps) + per_dimension or jnp.shape(kl)[: len(steps)] != steps:
            expected = f"{steps} and a last axis of dimensions" if per_dimension else f"{steps}"
            raise ShapeError(
                f"{name}: the KL of 'kl_constraints[{i}]' must have shape {expected}, but has "
                f"shape {jnp.shape(kl)}."
            )
