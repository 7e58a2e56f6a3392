"""Optimisers whose learning rate is an argument of `update`.

A learning rate may change in the course of a run. The optimisers of optax hold it, so that a new
learning rate would need a new optimiser. The optimisers here are made once, and each update gets
the learning rate of its time::

    optimizer = optimizers.adam()
    updates, opt_state = optimizer.update(grads, opt_state, params, learning_rate=1e-3)
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from agentzoo.types import Array, PyTree


def adam(
    b1: float | Array = 0.9, b2: float | Array = 0.999, eps: float | Array = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Return Adam, https://arxiv.org/abs/1412.6980, with the state of `optax.adam`."""
    return optax.chain(optax.scale_by_adam(b1, b2, eps), scale_by_learning_rate())


def rmsprop(
    decay: float | Array = 0.9, eps: float | Array = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Return RMSProp with the state of `optax.rmsprop`; epsilon is added to the square root."""
    return optax.chain(
        optax.scale_by_rms(decay=decay, eps=eps, eps_in_sqrt=False), scale_by_learning_rate()
    )


def scale_by_learning_rate() -> optax.GradientTransformationExtraArgs:
    """Return a transformation that multiplies updates by minus the learning rate of the call."""

    def init(params: PyTree) -> optax.EmptyState:
        return optax.EmptyState()

    def update(
        updates: PyTree,
        state: optax.OptState,
        params: PyTree | None = None,
        *,
        learning_rate: Any,
        **others: Any,
    ) -> tuple[PyTree, optax.OptState]:
        factor = -1 * learning_rate
        return jax.tree.map(lambda x: factor * x, updates), state

    # optax's own type of the field does not know the further arguments.
    return optax.GradientTransformationExtraArgs(init, update)  # type: ignore[arg-type]


def scale_moments(opt_state: optax.OptState, factors: PyTree) -> optax.OptState:
    """Return the state of an optimiser whose parameters have been multiplied by `factors`.

    A gradient shrinks by the factor by which its parameter grows. So the first moment "mu" of the
    gradient is divided by the factor, and the second moment "nu" by its square.

    Args:
      opt_state: the state for the parameters as they were. It may lack one of the moments.
      factors: a tree of the structure and the shapes of each moment.
    """
    get, put = optax.tree_utils.tree_get, optax.tree_utils.tree_set
    for name, divisors in (("mu", factors), ("nu", jax.tree.map(jnp.square, factors))):
        moment = get(opt_state, name)
        if moment is not None:
            opt_state = put(opt_state, **{name: jax.tree.map(jnp.divide, moment, divisors)})
    return opt_state
