"""Mean and variance without cancellation, for running statistics, moving averages and PopArt.

The difference of a mean square and a squared mean has no correct digit if the variance is small
compared with the mean: at mean 1e4 and standard deviation 1, float32 loses them all. So everything
here is centred before it is squared. The mean itself is the sum of two floats, so that it also
follows changes that are too small to be added to the larger float.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

AxisName = str | Sequence[str] | None


class Moments(NamedTuple):
    """Mean and variance of a sample or a stream. The mean is `mean + rest`."""

    mean: Any
    rest: Any
    variance: Any


def moments(
    x: ArrayLike, mean: Callable[[jax.Array], jax.Array], spread: Callable[[jax.Array], jax.Array]
) -> Moments:
    """Return the mean and the variance of a sample, computed in two passes, as constants.

    Args:
      x: the sample.
      mean: a function that averages an array with the shape of `x` over the elements, and over
        devices if the sample is divided among them. Its last operation must be the sum, so that the
        mean is the same number wherever a compiler uses it.
      spread: a function that gives an average a shape that broadcasts against `x`.
    """
    x = jax.lax.stop_gradient(at_least_float32(x))
    centre = mean(x)
    deviation = x - spread(centre)
    rest = mean(deviation)  # the rounding error of the centre
    return Moments(centre, rest, jnp.maximum(mean(jnp.square(deviation)) - jnp.square(rest), 0))


def mix(old: Moments, new: Moments, old_weight: ArrayLike, new_weight: ArrayLike) -> Moments:
    """Return the moments of a mixture of two populations, or `old` if neither has a weight.

    See "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" by Chan, Golub
    and LeVeque (1979), equation 2.1.
    """
    total = jnp.where(old_weight + new_weight == 0, 1, old_weight + new_weight)
    # `1 - ratio` would be too large where little is kept, because of rounding. Without an old
    # weight the ratio is set to exactly 1, because `x / x` is not always 1 on a GPU.
    kept = old_weight / total
    only_new = jnp.not_equal(new_weight, 0)
    ratio = jnp.where(jnp.equal(old_weight, 0), only_new, new_weight / total)

    def share(x):
        # `where` keeps compilers from fusing the product into a sum, which would round it
        # differently than elsewhere.
        return jnp.where(ratio == 0, 0, ratio * x)

    high, low = new.mean - old.mean, new.rest - old.rest
    mean, lost = _two_sum(old.mean, share(high))
    mean, rest = _two_sum(mean, old.rest + share(low) + lost)
    variance = old.variance + share(new.variance - old.variance + kept * jnp.square(high + low))
    return Moments(mean, rest, variance)


def _two_sum(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return `a + b` and its rounding error.

    See "The Art of Computer Programming" by Knuth, volume 2, section 4.2.2.
    """
    total = a + b
    b_in_total = total - a
    return total, (a - (total - b_in_total)) + (b - b_in_total)


def map_moments(function: Callable[..., Moments], *trees: Any) -> Moments:
    """Apply a function that returns moments to the leaves of trees, and return moments of trees."""
    structure = jax.tree.structure(trees[0])
    return jax.tree.transpose(
        structure, jax.tree.structure(Moments(0, 0, 0)), jax.tree.map(function, *trees)
    )


def at_least_float32(x: ArrayLike) -> jax.Array:
    """Convert `x` to the dtype of its statistics, float32 or wider."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def hashable(axis_name: AxisName) -> str | tuple[str, ...] | None:
    """Return the name of a mapped axis, or several names, as a hashable static argument."""
    return axis_name if axis_name is None or isinstance(axis_name, str) else tuple(axis_name)
