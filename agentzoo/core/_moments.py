"""Mean and variance without cancellation, which running statistics, moving averages and PopArt share.

Subtracting a squared mean from a mean square leaves nothing of a variance that is small beside the
mean: at mean 1e4 and standard deviation 1, float32 has no digit left. Everything here is centred
before it is squared. The mean itself is the sum of two floats, so that it also follows steps that
are too small to be added to the larger one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

AxisName = str | Sequence[str] | None


class Moments(NamedTuple):
    """Mean and variance of a sample or a stream; the mean is `mean + rest`."""

    mean: Any
    rest: Any
    variance: Any


def moments(
    x: ArrayLike, mean: Callable[[jax.Array], jax.Array], spread: Callable[[jax.Array], jax.Array]
) -> Moments:
    """Mean and variance of a sample in two passes. They count as constants: no gradient passes.

    Args:
      x: the sample.
      mean: averages an array of the shape of `x` over elements, and over devices if there are more
        of them. Its last operation is the sum, so that the mean is the same number wherever a
        compiler uses it.
      spread: brings an average back to where its elements are, so that it broadcasts against `x`.
    """
    x = jax.lax.stop_gradient(at_least_float32(x))
    centre = mean(x)
    deviation = x - spread(centre)
    rest = mean(deviation)  # what rounding has left out of the centre
    return Moments(centre, rest, jnp.maximum(mean(jnp.square(deviation)) - jnp.square(rest), 0))


def mix(old: Moments, new: Moments, old_weight: ArrayLike, new_weight: ArrayLike) -> Moments:
    """Moments of a mixture of two populations; those of `old` where neither has a weight.

    See "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" by Chan, Golub
    and LeVeque (1979), equation 2.1.
    """
    total = jnp.where(old_weight + new_weight == 0, 1, old_weight + new_weight)
    # `kept` is not `1 - ratio`, which rounding makes too large where little is kept, and a GPU's x
    # / x is not always 1.
    kept, ratio = (
        old_weight / total,
        jnp.where(jnp.equal(old_weight, 0), jnp.not_equal(new_weight, 0), new_weight / total),
    )

    def share(x):
        # The choice keeps compilers from fusing the product into sums, in which it would not be
        # rounded as it is elsewhere.
        return jnp.where(ratio == 0, 0, ratio * x)

    high, low = new.mean - old.mean, new.rest - old.rest
    mean, lost = _two_sum(old.mean, share(high))
    mean, rest = _two_sum(mean, old.rest + share(low) + lost)
    variance = old.variance + share(new.variance - old.variance + kept * jnp.square(high + low))
    return Moments(mean, rest, variance)


def _two_sum(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`a + b`, and what rounding takes away from it; see "The Art of Computer Programming" by Knuth, volume 2, section 4.2.2."""
    total = a + b
    b_in_total = total - a
    return total, (a - (total - b_in_total)) + (b - b_in_total)


def map_moments(function: Callable[..., Moments], *trees: Any) -> Moments:
    """Applies a function that returns moments to the leaves of trees; returns moments that are trees."""
    structure = jax.tree.structure(trees[0])
    return jax.tree.transpose(
        structure, jax.tree.structure(Moments(0, 0, 0)), jax.tree.map(function, *trees)
    )


def at_least_float32(x: ArrayLike) -> jax.Array:
    """`x` in the dtype that its statistics are kept in."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def hashable(axis_name: AxisName) -> str | tuple[str, ...] | None:
    """The name of a mapped axis, or several, as a static argument."""
    return axis_name if axis_name is None or isinstance(axis_name, str) else tuple(axis_name)
