"""What operators on distributions share: shape checks, Bellman targets of samples, two-hot weights, and entropies."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError


def shared_shape(operator_name: str, layout: str, own: str, **arrays: ArrayLike) -> tuple[int, ...]:
    """Checks that all arguments have a layout, such as "A, K" for `[..., A, K]`, and differ at most in the size of the axis `own`.

    Returns:
      Their common shape without that axis.
    """
    axes = layout.split(", ")
    place = axes.index(own) - len(axes)
    first, rest = next(iter(arrays)), []
    for name, value in arrays.items():
        shape = jnp.shape(value)
        if len(shape) < len(axes):
            raise ShapeError(
                f"{operator_name}: {name!r} must have shape [..., {layout}], but has shape {shape}."
            )
        rest.append(shape[:place] + shape[len(shape) + place + 1 :])
        if rest[-1] != rest[0]:
            raise ShapeError(
                f"{operator_name}: {name!r} must have the shape of {first!r}, {jnp.shape(arrays[first])}, "
                f"but for the size of axis {own}; it has shape {shape}."
            )
    return rest[0]


def supports(
    operator_name: str, leading: tuple[int, ...], size: int, **arrays: jax.Array
) -> list[jax.Array]:
    """Checks that each argument is `[size]`, shared by all steps, or `leading + [size]`, and gives it all the leading axes."""
    for name, value in arrays.items():
        if jnp.shape(value) not in ((size,), (*leading, size)):
            raise ShapeError(
                f"{operator_name}: {name!r} must have shape {(size,)} or {(*leading, size)}, but has {jnp.shape(value)}."
            )
    return [jnp.broadcast_to(value, (*leading, size)) for value in arrays.values()]


def exact_shape(operator_name: str, shape: tuple[int, ...], **arrays: ArrayLike) -> None:
    """Raises `ShapeError` naming the first argument that is not of the given shape."""
    for name, value in arrays.items():
        if jnp.shape(value) != shape:
            raise ShapeError(
                f"{operator_name}: {name!r} must have shape {shape}, but has shape {jnp.shape(value)}."
            )


def bellman(r_t: jax.Array, discount_t: jax.Array, z_t: jax.Array) -> jax.Array:
    """`r_t + discount_t * z_t` of samples `[..., K]`, for rewards and discounts `[...]` or scalars."""
    r_t, discount_t = (jnp.broadcast_to(x, z_t.shape[:-1])[..., None] for x in (r_t, discount_t))
    return r_t + discount_t * z_t


def two_hot(x: jax.Array, atoms: jax.Array) -> jax.Array:
    """Shares each `x` between the two atoms beside it so that its mean is `x`; all goes to the first or last atom beyond them.

    Args:
      x: `[...]` values.
      atoms: `[..., K]` ascending atoms, or `[K]`.

    Returns:
      `[..., K]` weights.
    """
    x = x[..., None]
    atoms = jnp.expand_dims(atoms, range(x.ndim - atoms.ndim))
    left, right = atoms[..., :-1], atoms[..., 1:]
    # How much of x lies beyond each gap, in [0, 1]: 1 for gaps to its left, 0 to its right. Atoms
    # that coincide leave a gap of width 0.
    width = jnp.maximum(right - left, jnp.finfo(atoms.dtype).tiny)
    beyond = jnp.where(x < left, 0, jnp.where(x >= right, 1, (x - left) / width))
    edge = jnp.ones((*beyond.shape[:-1], 1), beyond.dtype)
    beyond = jnp.concatenate([edge, beyond, 0 * edge], axis=-1)
    return beyond[..., :-1] - beyond[..., 1:]


def expectation(probs: jax.Array, atoms: jax.Array) -> jax.Array:
    """`sum_k probs[..., k] atoms[k]`, in which a matrix product would lose digits on an accelerator."""
    return jnp.sum(probs * jnp.expand_dims(atoms, range(probs.ndim - atoms.ndim)), axis=-1)


def below_largest(x: jax.Array, axis: int = -1) -> tuple[jax.Array, jax.Array]:
    """`x` less its largest along an axis, and that, a constant for the gradient, with the axis kept.

    To be divided by a temperature: what large numbers have in common is then gone before the
    quotient is rounded.
    """
    largest = jax.lax.stop_gradient(jnp.max(x, axis=axis, keepdims=True))
    largest = jnp.where(jnp.isfinite(largest), largest, 0)  # where nothing is legal
    return x - largest, largest


def entropy_of(log_probs: jax.Array) -> jax.Array:
    """Entropy `[...]` of log-probabilities `[..., A]`; an action that is ruled out adds nothing to it, not 0 * inf."""
    probs = jnp.exp(log_probs)
    return -jnp.sum(probs * jnp.where(probs == 0, 0, log_probs), axis=-1)
