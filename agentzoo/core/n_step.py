"""Transitions over n steps, for losses that take a single transition but whose targets are no scalars."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError, operator
from agentzoo.core._recurrence import over_time
from agentzoo.core.returns import n_step_bootstrapped_returns

__all__ = ["NStepTransitions", "n_step_transitions"]


class NStepTransitions(NamedTuple):
    """What `n_step_transitions` returns.

    Attributes:
      r_t: `[T, ...]` discounted sums of the rewards of n steps.
      discount_t: `[T, ...]` products of their discounts.
      bootstrap_t: the given tree, each leaf `[T, ...]`, taken at the last of these steps.
    """

    r_t: jax.Array
    discount_t: jax.Array
    bootstrap_t: Any


@operator(static=("n",))
def n_step_transitions(
    r_t: ArrayLike,
    discount_t: ArrayLike,
    bootstrap_t: Any,
    n: int,
    *,
    last_t: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> NStepTransitions:
    """Joins each step of a trajectory and those after it to one transition over `n` steps.

    Any loss of a single transition becomes an n-step loss with them: `categorical_q_learning(atoms,
    q_logits_tm1, a_tm1, steps.r_t, steps.discount_t, atoms, steps.bootstrap_t)`. As for
    `n_step_bootstrapped_returns`, fewer steps are joined where the trajectory ends earlier, or an
    episode at `last_t`; beyond a termination, where the discount is 0, nothing counts.

    Args:
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts, gamma times 0 at a termination.
      bootstrap_t: tree of `[T, ...]` and any further axes: what the target takes from a step's
        destination, such as `q_logits_t`.
      n: the number of steps, at least 1; a Python integer.
      last_t: `[T, ...]` whether an episode ends with the step.
      mask: `[T, ...]` whether the step happened.

    Returns:
      The joined transitions, one for each step.

    Raises:
      ShapeError: if shapes do not fit together.
      ValueError: if `n` is less than 1.
    """
    shape = over_time(
        "n_step_transitions", r_t=r_t, discount_t=discount_t, last_t=last_t, mask=mask
    )
    for leaf in jax.tree.leaves(bootstrap_t):
        if jnp.shape(leaf)[: len(shape)] != shape:
            raise ShapeError(
                f"n_step_transitions: the leaves of 'bootstrap_t' must begin with {shape}, but one is {jnp.shape(leaf)}."
            )

    def returns(r_t: ArrayLike, discount_t: ArrayLike, v_t: ArrayLike) -> jax.Array:
        return n_step_bootstrapped_returns(
            r_t, discount_t, v_t, n, stop_target_gradients=False, last_t=last_t, mask=mask
        )

    discount_t = jnp.broadcast_to(discount_t, shape)
    # With the time of each step as its value, the return without rewards is the time that it
    # bootstraps from.
    time = jnp.arange(shape[0], dtype=jnp.float32).reshape(-1, *[1] * (len(shape) - 1))
    last = returns(0.0, 1.0, jnp.broadcast_to(time, shape)).astype(jnp.int32)

    def at_last(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(
            x, last.reshape(*shape, *[1] * (jnp.ndim(x) - len(shape))), axis=0
        )

    return NStepTransitions(
        returns(r_t, discount_t, 0.0),
        returns(0.0, discount_t, 1.0),
        jax.tree.map(at_last, bootstrap_t),
    )
