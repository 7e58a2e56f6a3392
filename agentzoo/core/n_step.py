"""Transitions over n steps, for losses of single transitions whose targets are not scalars."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError, operator
from agentzoo.core._recurrence import over_time
from agentzoo.core.returns import n_step_bootstrapped_returns

__all__ = ["NStepTransitions", "n_step_transitions"]


class NStepTransitions(NamedTuple):
    """The transitions that `n_step_transitions` returns.

    Attributes:
      r_t: `[T, ...]` discounted sums of the rewards of n steps.
      discount_t: `[T, ...]` products of the discounts of n steps.
      bootstrap_t: the given tree, in which each leaf `[T, ...]` is taken at the last of the n
        steps.
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
    """Join each step of a trajectory and the steps after it to one transition over `n` steps.

    Such transitions turn any loss of a single transition into an n-step loss::

        steps = n_step_transitions(r_t, discount_t, q_logits_t, n=3)
        loss = categorical_q_learning(
            atoms, q_logits_tm1, a_tm1, steps.r_t, steps.discount_t, atoms, steps.bootstrap_t
        )

    As in `n_step_bootstrapped_returns`, fewer steps are joined where the trajectory ends earlier or
    an episode ends at `last_t`. Nothing counts after a termination, where the discount is 0.

    Args:
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      bootstrap_t: tree of `[T, ...]` with any further axes: what the target takes from the
        destination of a step, such as `q_logits_t`.
      n: the number of steps, a Python integer of at least 1.
      last_t: `[T, ...]` true where the step ends an episode.
      mask: `[T, ...]` true where the step happened.

    Returns:
      The joined transitions, one for each step.

    Raises:
      ShapeError: if the shapes are incompatible.
      ValueError: if `n` is less than 1.
    """
    shape = over_time(
        "n_step_transitions", r_t=r_t, discount_t=discount_t, last_t=last_t, mask=mask
    )
    for leaf in jax.tree.leaves(bootstrap_t):
        if jnp.shape(leaf)[: len(shape)] != shape:
            raise ShapeError(
                f"n_step_transitions: a leaf of 'bootstrap_t' has shape {jnp.shape(leaf)}. Pass "
                f"leaves whose first axes are {shape}."
            )

    def returns(r_t: ArrayLike, discount_t: ArrayLike, v_t: ArrayLike) -> jax.Array:
        return n_step_bootstrapped_returns(
            r_t, discount_t, v_t, n, stop_target_gradients=False, last_t=last_t, mask=mask
        )

    discount_t = jnp.broadcast_to(discount_t, shape)
    # If the value of each step is its time, then the return without rewards or discounts is the
    # time of the step that the transition bootstraps from.
    time = jnp.arange(shape[0], dtype=jnp.float32).reshape(-1, *[1] * (len(shape) - 1))
    last = returns(0.0, 1.0, jnp.broadcast_to(time, shape)).astype(jnp.int32)

    def at_last(x: jax.Array) -> jax.Array:
        further_axes = jnp.ndim(x) - len(shape)
        return jnp.take_along_axis(x, last.reshape(*shape, *[1] * further_axes), axis=0)

    return NStepTransitions(
        returns(r_t, discount_t, 0.0),
        returns(0.0, discount_t, 1.0),
        jax.tree.map(at_last, bootstrap_t),
    )
