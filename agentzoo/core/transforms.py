"""Transforms of values: element-wise functions, and encodings of a scalar as probabilities of bins.

They take arrays of any shape. Each transform and its gradient are accurate to a few units in the
last place over the whole domain. No formula here loses digits by cancellation, and no formula
overflows before its result does (`benchmarks/accuracy.py` measures this).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError, floats, operator, same_shape
from agentzoo.core._support import expectation, two_hot

__all__ = [
    "hyperbolic_arcsin",
    "hyperbolic_sin",
    "identity",
    "logit",
    "power",
    "sigmoid",
    "signed_expm1",
    "signed_hyperbolic",
    "signed_logp1",
    "signed_parabolic",
    "transform_from_2hot",
    "transform_from_hl_gauss",
    "transform_to_2hot",
    "transform_to_hl_gauss",
]


def _split(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the sign and the magnitude of `x`, with sign 1 for 0.

    An odd function that is computed from the two then has the correct slope at 0.
    """
    sign = jnp.where(x < 0, -1, 1).astype(x.dtype)
    return sign, sign * x


@operator
def identity(x: ArrayLike) -> jax.Array:
    """Return `x` itself."""
    return floats(x=x)[0]


@operator
def sigmoid(x: ArrayLike) -> jax.Array:
    """Return `1 / (1 + exp(-x))`, which maps the real line to (0, 1)."""
    return _sigmoid(floats(x=x)[0])


@jax.custom_jvp
def _sigmoid(x: jax.Array) -> jax.Array:
    return jax.lax.logistic(x)


# JAX's own derivative is `y (1 - y)`, in which `1 - y` loses digits.
_sigmoid.defjvps(lambda tangent, y, x: tangent * (y * jax.lax.logistic(-x)))


@operator
def logit(x: ArrayLike) -> jax.Array:
    """Return `log(x / (1 - x))`, the inverse of `sigmoid`, for x in (0, 1)."""
    (x,) = floats(x=x)
    # Near 0, `log(x) - log(1 - x)` is accurate. Elsewhere the result is computed from `2x - 1`,
    # which is exact.
    low, centred = jnp.minimum(x, 0.25), 2 * jnp.maximum(x, 0.25) - 1
    near_0 = jnp.log(low) - jnp.log1p(-low)
    return jnp.where(x < 0.25, near_0, jnp.log1p(centred) - jnp.log1p(-centred))


@operator
def signed_logp1(x: ArrayLike) -> jax.Array:
    """Return `sign(x) log(1 + |x|)`, also called symlog."""
    (x,) = floats(x=x)
    sign, magnitude = _split(x)
    return sign * jnp.log1p(magnitude)


@operator
def signed_expm1(x: ArrayLike) -> jax.Array:
    """Return `sign(x) (exp(|x|) - 1)`, also called symexp, the inverse of `signed_logp1`."""
    (x,) = floats(x=x)
    sign, magnitude = _split(x)
    return sign * jnp.expm1(magnitude)


@operator
def signed_hyperbolic(x: ArrayLike, eps: ArrayLike = 1e-3) -> jax.Array:
    """Return `sign(x) (sqrt(|x| + 1) - 1) + eps x`, which squashes like an invertible square root.

    See "Observe and Look Further" by Pohlen et al. (2018, https://arxiv.org/abs/1805.11593),
    section 3.2.

    Args:
      x: any shape.
      eps: slope at infinity, at least 0; a scalar, or an array with the shape of `x`.

    Returns:
      The transformed values, in the shape of `x`.

    Raises:
      ShapeError: if `eps` is neither a scalar nor of the shape of `x`.
    """
    same_shape("signed_hyperbolic", jnp.shape(x), eps=eps)
    x, eps = floats(x=x, eps=eps)
    return _hyperbola(x, eps)


@jax.custom_jvp
def _hyperbola(x: jax.Array, eps: jax.Array) -> jax.Array:
    return x / (jnp.sqrt(jnp.abs(x) + 1) + 1) + eps * x


_hyperbola.defjvps(
    lambda tangent, _, x, eps: tangent * (0.5 / jnp.sqrt(jnp.abs(x) + 1) + eps),
    lambda tangent, _, x, __: tangent * x,
)


@operator
def signed_parabolic(x: ArrayLike, eps: ArrayLike = 1e-3) -> jax.Array:
    """Return the inverse of `signed_hyperbolic`.

    It is `sign(x) t (t + 2)`, where `t >= 0` solves `eps t^2 + (1 + 2 eps) t = |x|`. See "Observe
    and Look Further" by Pohlen et al. (2018, https://arxiv.org/abs/1805.11593), appendix A.

    Args:
      x: any shape.
      eps: the `eps` of `signed_hyperbolic`, at least 0.

    Returns:
      The transformed values, in the shape of `x`.

    Raises:
      ShapeError: if `eps` is neither a scalar nor of the shape of `x`.
    """
    same_shape("signed_parabolic", jnp.shape(x), eps=eps)
    x, eps = floats(x=x, eps=eps)
    return _parabola(x, eps)


@jax.custom_jvp
def _parabola(x: jax.Array, eps: jax.Array) -> jax.Array:
    root = _parabola_root(x, eps)
    return jnp.sign(x) * root * (root + 2)


def _parabola_root(x: jax.Array, eps: jax.Array) -> jax.Array:
    """Return the `t >= 0` that solves `eps t^2 + (1 + 2 eps) t = |x|`.

    This form of the solution only adds positive numbers, so it loses no digits.
    """
    half, magnitude = 0.5 + eps, jnp.abs(x)
    return magnitude / (half + jnp.sqrt(jnp.square(half) + eps * magnitude))


def _parabola_slope(x: jax.Array, eps: jax.Array) -> jax.Array:
    root = _parabola_root(x, eps) + 1
    return root / (0.5 + eps * root)


_parabola.defjvps(
    lambda tangent, _, x, eps: tangent * _parabola_slope(x, eps),
    lambda tangent, y, x, eps: -tangent * (y * _parabola_slope(x, eps)),
)


@operator
def power(x: ArrayLike, p: ArrayLike) -> jax.Array:
    """Return `sign(x) ((|x| / q + 1)^p - 1) / q` with `q = sqrt(p)`.

    Far from 0 it is a power of x, and at 0 its slope is 1. The inverse is `power` with `1 / p`.

    Args:
      x: any shape.
      p: the power, greater than 0; a scalar, or an array with the shape of `x`.

    Returns:
      The transformed values, in the shape of `x`.

    Raises:
      ShapeError: if `p` is neither a scalar nor of the shape of `x`.
    """
    same_shape("power", jnp.shape(x), p=p)
    x, p = floats(x=x, p=p)
    sign, magnitude = _split(x)
    scale = jnp.sqrt(p)
    scaled = magnitude / scale
    exponent = p * jnp.log1p(scaled)
    small = jnp.expm1(jnp.minimum(exponent, 1))
    return sign * jnp.where(exponent < 1, small, _power(scaled + 1, p) - 1) / scale


@jax.custom_jvp
def _power(x: jax.Array, p: jax.Array) -> jax.Array:
    return jnp.power(x, p)


# JAX's own derivative is `p x^(p - 1)`, which multiplies the rounding error of `p - 1` by log(x).
_power.defjvps(
    lambda tangent, y, x, p: tangent * (p * y / x),
    lambda tangent, y, x, _: tangent * (y * jnp.log(x)),
)


@jax.custom_jvp
def _sinh(x: jax.Array) -> jax.Array:
    sign, magnitude = _split(x)
    # `exp(x)` overflows before `sinh(x)` does, but its square root does not. Halving x is exact.
    root = jnp.exp(0.5 * magnitude)
    large = 0.5 * root * root - 0.5 / root / root
    return sign * jnp.where(magnitude < 1, jnp.sinh(jnp.minimum(magnitude, 1)), large)


@jax.custom_jvp
def _arcsinh(x: jax.Array) -> jax.Array:
    return jnp.arcsinh(x)


def _cosh(x: jax.Array) -> jax.Array:
    root = jnp.exp(0.5 * jnp.abs(x))
    return 0.5 * root * root + 0.5 / root / root


_sinh.defjvps(lambda tangent, _, x: tangent * _cosh(x))
_arcsinh.defjvps(lambda tangent, _, x: tangent / jnp.hypot(x, jnp.ones_like(x)))


@operator
def hyperbolic_sin(x: ArrayLike) -> jax.Array:
    """Return `sinh(x)`, the inverse of `hyperbolic_arcsin`."""
    return _sinh(floats(x=x)[0])


@operator
def hyperbolic_arcsin(x: ArrayLike) -> jax.Array:
    """Return `arcsinh(x) = sign(x) log(|x| + sqrt(x^2 + 1))`.

    It squashes like a logarithm and has slope 1 at 0.
    """
    return _arcsinh(floats(x=x)[0])


def _checked(
    operator_name: str, num_bins: int, probs: ArrayLike | None = None, **scalars: ArrayLike
) -> None:
    """Raise an error if a scalar has axes, there are no bins, or `probs` has other bins."""
    same_shape(operator_name, (), **scalars)
    if num_bins < 1:
        raise ValueError(
            f"{operator_name}: 'num_bins' is {num_bins}. Choose a number of bins of at least 1."
        )
    if probs is not None and jnp.shape(probs)[-1:] != (num_bins,):
        raise ShapeError(
            f"{operator_name}: 'probs' has shape {jnp.shape(probs)}. Pass an array with "
            f"'num_bins' {num_bins} as its last axis."
        )


def _precise(x: ArrayLike) -> tuple[jax.Array, jnp.dtype]:
    """Return `x` in at least float32, which can tell hundreds of bins apart, and its own dtype."""
    (x,) = floats(x=x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)), x.dtype


@operator(static=("num_bins",))
def transform_to_2hot(
    scalar: ArrayLike, min_value: ArrayLike, max_value: ArrayLike, num_bins: int
) -> jax.Array:
    """Encode a scalar as probabilities of its two nearest atoms, whose mean is the scalar.

    The atoms are `linspace(min_value, max_value, num_bins)`. See "Mastering Atari, Go, Chess and
    Shogi by Planning with a Learned Model" by Schrittwieser et al. (2020,
    https://arxiv.org/abs/1911.08265), appendix F.

    Args:
      scalar: `[...]` values, clipped to the range.
      min_value: the first atom.
      max_value: the last atom.
      num_bins: the number of atoms.

    Returns:
      `[..., num_bins]` probabilities.

    Raises:
      ShapeError: if a bound is not a scalar.
      ValueError: if `num_bins` is less than 1.
    """
    _checked("transform_to_2hot", num_bins, min_value=min_value, max_value=max_value)
    x, dtype = _precise(scalar)
    return two_hot(x, jnp.linspace(min_value, max_value, num_bins, dtype=x.dtype)).astype(dtype)


@operator(static=("num_bins",))
def transform_from_2hot(
    probs: ArrayLike, min_value: ArrayLike, max_value: ArrayLike, num_bins: int
) -> jax.Array:
    """Return the mean of a distribution over atoms, the inverse of `transform_to_2hot`.

    The atoms are `linspace(min_value, max_value, num_bins)`.

    Args:
      probs: `[..., num_bins]` probabilities.
      min_value: the first atom.
      max_value: the last atom.
      num_bins: the number of atoms.

    Returns:
      `[...]` means.

    Raises:
      ShapeError: if the number of probabilities is not `num_bins`, or a bound is not a scalar.
      ValueError: if `num_bins` is less than 1.
    """
    _checked("transform_from_2hot", num_bins, probs, min_value=min_value, max_value=max_value)
    probs, dtype = _precise(probs)
    atoms = jnp.linspace(min_value, max_value, num_bins, dtype=probs.dtype)
    return expectation(probs, atoms).astype(dtype)


@operator(static=("num_bins",))
def transform_to_hl_gauss(
    scalar: ArrayLike,
    min_value: ArrayLike,
    max_value: ArrayLike,
    num_bins: int,
    sigma_ratio: ArrayLike = 0.75,
) -> jax.Array:
    """Encode a scalar as the histogram of a Gaussian around it, truncated to the range.

    The histogram has `num_bins` bins of equal width. See "Stop Regressing: Training Value Functions
    via Classification for Scalable Deep RL" by Farebrother et al. (2024,
    https://arxiv.org/abs/2403.03950), section 3.1.

    Args:
      scalar: `[...]` values, clipped to the range.
      min_value: the lower edge of the first bin.
      max_value: the upper edge of the last bin.
      num_bins: the number of bins.
      sigma_ratio: standard deviation of the Gaussian in bin widths. The default is the choice of
        the paper.

    Returns:
      `[..., num_bins]` probabilities.

    Raises:
      ShapeError: if a bound or `sigma_ratio` is not a scalar.
      ValueError: if `num_bins` is less than 1.
    """
    scalars = {"min_value": min_value, "max_value": max_value, "sigma_ratio": sigma_ratio}
    _checked("transform_to_hl_gauss", num_bins, **scalars)
    x, dtype = _precise(scalar)
    edges = jnp.linspace(min_value, max_value, num_bins + 1, dtype=x.dtype)
    width = (edges[-1] - edges[0]) / num_bins
    x = jnp.clip(x, edges[0], edges[-1])[..., None]  # [..., 1]
    edges = jnp.expand_dims(edges, range(x.ndim - 1))  # [..., num_bins + 1]
    spread = jnp.sqrt(2.0).astype(x.dtype) * jnp.asarray(sigma_ratio, x.dtype) * width
    # The cumulative distribution at the edges, up to a constant and a factor of 2. The probability
    # of a bin is a difference of neighbours, divided by the probability of the whole range.
    cdf = jax.lax.erf((edges - x) / spread)
    return (jnp.diff(cdf) / (cdf[..., -1:] - cdf[..., :1])).astype(dtype)


@operator(static=("num_bins",))
def transform_from_hl_gauss(
    probs: ArrayLike, min_value: ArrayLike, max_value: ArrayLike, num_bins: int
) -> jax.Array:
    """Return the mean of a distribution over bins of equal width, each at its centre.

    It is the inverse of `transform_to_hl_gauss`, except within a few standard deviations of the
    ends of the range. There, the Gaussian is truncated and its mean moves inwards.

    Args:
      probs: `[..., num_bins]` probabilities.
      min_value: the lower edge of the first bin.
      max_value: the upper edge of the last bin.
      num_bins: the number of bins.

    Returns:
      `[...]` means.

    Raises:
      ShapeError: if the number of probabilities is not `num_bins`, or a bound is not a scalar.
      ValueError: if `num_bins` is less than 1.
    """
    _checked("transform_from_hl_gauss", num_bins, probs, min_value=min_value, max_value=max_value)
    probs, dtype = _precise(probs)
    edges = jnp.linspace(min_value, max_value, num_bins + 1, dtype=probs.dtype)
    return expectation(probs, 0.5 * (edges[:-1] + edges[1:])).astype(dtype)
