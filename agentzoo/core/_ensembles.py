"""Shape checks and errors that operators on ensembles of critics share."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError, stop_gradient_if


def steps_of(name: str, **arguments: tuple[ArrayLike, str]) -> tuple[int, ...]:
    """Check that all arguments share the axes of the steps, and return these axes.

    A must have the same size in all arguments. E may differ.

    Args:
      name: name for the error messages.
      **arguments: pairs of an array and the names of its last axes, such as "EA".
    """
    sizes: dict[str, tuple[int, ...]] = {}  # "steps": axes of the steps; "A": `(A,)`
    for argument, (value, axes) in arguments.items():
        shape, num_leading = jnp.shape(value), jnp.ndim(value) - len(axes)
        steps = sizes.setdefault("steps", shape[: max(num_leading, 0)])
        num_actions = sizes.setdefault("A", shape[-1:]) if axes.endswith("A") else ()
        if (
            num_leading < 0
            or shape[:num_leading] != steps
            or (num_actions and shape[-1:] != num_actions)
        ):
            expected = ", ".join(
                [*map(str, steps), *axes[:-1], *map(str, num_actions or axes[-1:])]
            )
            raise ShapeError(
                f"{name}: {argument!r} must have shape [{expected}], but has shape {shape}."
            )
    return sizes["steps"]


def ensemble_error(
    target_tm1: jax.Array, q_tm1: jax.Array, stop_target_gradients: bool
) -> jax.Array:
    """Return the errors `[..., E]` of targets `[...]` for predictions `[..., E]`."""
    return stop_gradient_if(stop_target_gradients, target_tm1)[..., None] - q_tm1
