"""Helpers for operators on distributions: shape checks, Bellman targets, weights and entropies."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError


def shared_shape(operator_name: str, layout: str, own: str, **arrays: ArrayLike) -> tuple[int, ...]:
    """Check that all arguments have the same layout, and return the shape that they share.

    Args:
      operator_name: the name to use in messages.
      layout: the last axes of each argument, such as "A, K" for `[..., A, K]`.
      own: the axis of the layout whose size may differ between arguments.
      **arrays: the arguments.

    Returns:
      The common shape without the axis `own`.

    Raises:
      ShapeError: if an argument has another layout, or another shape apart from the axis `own`.
    """
    axes = layout.split(", ")
    place = axes.index(own) - len(axes)  # the position of `own`, counted from the end: negative
    first, rest = next(iter(arrays)), []
    for name, value in arrays.items():
        shape = jnp.shape(value)
        if len(shape) < len(axes):
            raise ShapeError(
                f"{operator_name}: {name!r} has shape {shape}. Pass an array of shape "
                f"[..., {layout}]."
            )
        rest.append(shape[:place] + shape[len(shape) + place + 1 :])  # without the axis `own`
        if rest[-1] != rest[0]:
            raise ShapeError(
                f"{operator_name}: {name!r} has shape {shape}. Apart from axis {own}, it must have "
                f"the shape of {first!r}, {jnp.shape(arrays[first])}."
            )
    return rest[0]


def supports(
    operator_name: str, leading: tuple[int, ...], size: int, **arrays: jax.Array
) -> list[jax.Array]:
    """Check that each argument is `[size]` or `leading + [size]`, and broadcast it to the latter.

    Raises:
      ShapeError: if an argument has another shape.
    """
    for name, value in arrays.items():
        if jnp.shape(value) not in ((size,), (*leading, size)):
            raise ShapeError(
                f"{operator_name}: {name!r} has shape {jnp.shape(value)}. Pass an array of shape "
                f"{(size,)} or {(*leading, size)}."
            )
    return [jnp.broadcast_to(value, (*leading, size)) for value in arrays.values()]


def exact_shape(operator_name: str, shape: tuple[int, ...], **arrays: ArrayLike) -> None:
    """Raise `ShapeError` for the first argument that does not have the given shape."""
    for name, value in arrays.items():
        if jnp.shape(value) != shape:
            raise ShapeError(
                f"{operator_name}: {name!r} has shape {jnp.shape(value)}. Pass an array of shape "
                f"{shape}."
            )


def bellman(r_t: jax.Array, discount_t: jax.Array, z_t: jax.Array) -> jax.Array:
    """Return `r_t + discount_t * z_t` for samples `z_t` `[..., K]`.

    The rewards and discounts are `[...]` or scalars.
    """
    r_t, discount_t = (jnp.broadcast_to(x, z_t.shape[:-1])[..., None] for x in (r_t, discount_t))
    return r_t + discount_t * z_t


def two_hot(x: jax.Array, atoms: jax.Array) -> jax.Array:
    """Divide each `x` between its two nearest atoms so that the mean of the weights is `x`.

    Beyond the range of the atoms, the first or last atom has all the weight.

    Args:
      x: `[...]` values.
      atoms: `[..., K]` ascending atoms, or `[K]`.

    Returns:
      `[..., K]` weights.
    """
    x = x[..., None]
    atoms = jnp.expand_dims(atoms, range(x.ndim - atoms.ndim))
    left, right = atoms[..., :-1], atoms[..., 1:]
    # The weight that lies above each gap between atoms, `[..., K - 1]`: 1 for gaps below x, 0 for
    # gaps above x, and a fraction for the gap around x. Atoms that coincide have a gap of width 0,
    # so the width is kept above 0.
    width = jnp.maximum(right - left, jnp.finfo(atoms.dtype).tiny)
    beyond = jnp.where(x < left, 0, jnp.where(x >= right, 1, (x - left) / width))
    edge = jnp.ones((*beyond.shape[:-1], 1), beyond.dtype)
    # The weight of an atom is the weight above the gap on its left minus that on its right. All
    # weight lies above the gap before the first atom, and none above the gap after the last atom.
    beyond = jnp.concatenate([edge, beyond, 0 * edge], axis=-1)  # [..., K + 1]
    return beyond[..., :-1] - beyond[..., 1:]


def expectation(probs: jax.Array, atoms: jax.Array) -> jax.Array:
    """Return `sum_k probs[..., k] atoms[k]`.

    It is no matrix product, which would lose digits on an accelerator.
    """
    return jnp.sum(probs * jnp.expand_dims(atoms, range(probs.ndim - atoms.ndim)), axis=-1)


def below_largest(x: jax.Array, axis: int = -1) -> tuple[jax.Array, jax.Array]:
    """Return `x` minus its largest element along an axis, and that element as a constant.

    Subtract the largest element before you divide by a temperature. Otherwise the quotients of
    large numbers lose the digits in which they differ.
    """
    largest = jax.lax.stop_gradient(jnp.max(x, axis=axis, keepdims=True))
    largest = jnp.where(jnp.isfinite(largest), largest, 0)  # 0 if no action is legal
    return x - largest, largest


def entropy_of(log_probs: jax.Array) -> jax.Array:
    """Return the entropy `[...]` of log-probabilities `[..., A]`.

    An action with probability 0 adds 0 to it, not `0 * inf`.
    """
    probs = jnp.exp(log_probs)
    return -jnp.sum(probs * jnp.where(probs == 0, 0, log_probs), axis=-1)
