"""Transforms of values: element-wise ones that squash or stretch, and encodings of a scalar as probabilities of bins.

They take arrays of any shape. Each is right to a few units in the last place over its whole domain,
and so is its gradient: no formula here cancels, and none overflows before its result does
(`benchmarks/accuracy.py` measures it).
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
    """Sign and magnitude.

    The sign of 0 is 1, so that an odd function made of them has its true slope at 0.
    """
    sign = jnp.where(x < 0, -1, 1).astype(x.dtype)
    return sign, sign * x


@operator
def identity(x: ArrayLike) -> jax.Array:
    """`x` itself."""
    return floats(x=x)[0]


@operator
def sigmoid(x: ArrayLike) -> jax.Array:
    """`1 / (1 + exp(-x))`, which maps the real line to (0, 1)."""
    return _sigmoid(floats(x=x)[0])


@jax.custom_jvp
def _sigmoid(x: jax.Array) -> jax.Array:
    return jax.lax.logistic(x)


_sigmoid.defjvps(
    lambda tangent, y, x: tangent * (y * jax.lax.logistic(-x))
)  # JAX has `y (1 - y)`, which cancels


@operator
def logit(x: ArrayLike) -> jax.Array:
    """`log(x / (1 - x))`, the inverse of the sigmoid, for x in (0, 1)."""
    (x,) = floats(x=x)
    # Near 0 the logarithm of x counts, elsewhere how far x is from 1/2, which 2x - 1 holds without
    # rounding.
    low, centred = jnp.minimum(x, 0.25), 2 * jnp.maximum(x, 0.25) - 1
    return jnp.where(
        x < 0.25, jnp.log(low) - jnp.log1p(-low), jnp.log1p(centred) - jnp.log1p(-centred)
    )


@operator
def signed_logp1(x: ArrayLike) -> jax.Array:
    """`sign(x) log(1 + |x|)`, also called symlog."""
    (x,) = floats(x=x)
    sign, magnitude = _split(x)
    return sign * jnp.log1p(magnitude)


@operator
def signed_expm1(x: ArrayLike) -> jax.Array:
    """`sign(x) (exp(|x|) - 1)`, also called symexp, the inverse of `signed_logp1`."""
    (x,) = floats(x=x)
    sign, magnitude = _split(x)
    return sign * jnp.expm1(magnitude)


@operator
def signed_hyperbolic(x: ArrayLike, eps: ArrayLike = 1e-3) -> jax.Array:
    """`sign(x) (sqrt(|x| + 1) - 1) + eps x`, which squashes like a square root and stays invertible.

    See "Observe and Look Further" by Pohlen et al. (2018, https://arxiv.org/abs/1805.11593),
    section 3.2.

    Args:
      x: any shape.
      eps: slope at infinity, at least 0; a scalar or of the shape of `x`.

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
    """The inverse of `signed_hyperbolic`: `t (|t| + 2)` with `eps t |t| + (1 + 2 eps) t = x`.

    See "Observe and Look Further" by Pohlen et al. (2018, https://arxiv.org/abs/1805.11593),
    appendix A.

    Args:
      x: any shape.
      eps: as for `signed_hyperbolic`; here too 0 is possible.

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
    """`t >= 0` with `eps t^2 + (1 + 2 eps) t = |x|`, in the form that adds only what is positive."""
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
    """`sign(x) ((|x| / q + 1)^p - 1) / q` with `q = sqrt(p)`: a power far from 0, of slope 1 at 0.

    Its inverse is that of `1 / p`.

    Args:
      x: any shape.
      p: the power, greater than 0; a scalar or of the shape of `x`.

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


# In its own derivative, `p x^(p - 1)`, the rounding of `p - 1` would count as often as the
# logarithm of x is large.
_power.defjvps(
    lambda tangent, y, x, p: tangent * (p * y / x),
    lambda tangent, y, x, _: tangent * (y * jnp.log(x)),
)


@jax.custom_jvp
def _sinh(x: jax.Array) -> jax.Array:
    sign, magnitude = _split(x)
    root = jnp.exp(
        0.5 * magnitude
    )  # halving is exact, and this does not overflow where the result does not
    return sign * jnp.where(
        magnitude < 1, jnp.sinh(jnp.minimum(magnitude, 1)), 0.5 * root * root - 0.5 / root / root
    )


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
    """`sinh(x)`, the inverse of `hyperbolic_arcsin`."""
    return _sinh(floats(x=x)[0])


@operator
def hyperbolic_arcsin(x: ArrayLike) -> jax.Array:
    """`arcsinh(x) = sign(x) log(|x| + sqrt(x^2 + 1))`, which squashes like a logarithm and has slope 1 at 0."""
    return _arcsinh(floats(x=x)[0])


def _checked(
    operator_name: str, num_bins: int, probs: ArrayLike | None = None, **scalars: ArrayLike
) -> None:
    same_shape(operator_name, (), **scalars)
    if num_bins < 1:
        raise ValueError(f"{operator_name}: 'num_bins' must be at least 1, but is {num_bins}.")
    if probs is not None and jnp.shape(probs)[-1:] != (num_bins,):
        raise ShapeError(
            f"{operator_name}: 'probs' must have {num_bins} bins on its last axis, but has shape {jnp.shape(probs)}."
        )


def _precise(x: ArrayLike) -> tuple[jax.Array, jnp.dtype]:
    """`x` in at least float32, which can tell hundreds of bins apart, and the dtype of the result."""
    (x,) = floats(x=x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)), x.dtype


@operator(static=("num_bins",))
def transform_to_2hot(
    scalar: ArrayLike, min_value: ArrayLike, max_value: ArrayLike, num_bins: int
) -> jax.Array:
    """Probabilities of two adjacent of the atoms `linspace(min_value, max_value, num_bins)` whose mean is the scalar.

    See "Mastering Atari, Go, Chess and Shogi by Planning with a Learned Model" by Schrittwieser et
    al. (2020, https://arxiv.org/abs/1911.08265), appendix F.

    Args:
      scalar: `[...]` values; beyond the range they count as its end.
      min_value: the first atom.
      max_value: the last atom.
      num_bins: the number of atoms.

    Returns:
      `[..., num_bins]` probabilities.

    Raises:
      ShapeError: if a bound is no scalar.
      ValueError: if there is no bin.
    """
    _checked("transform_to_2hot", num_bins, min_value=min_value, max_value=max_value)
    x, dtype = _precise(scalar)
    return two_hot(x, jnp.linspace(min_value, max_value, num_bins, dtype=x.dtype)).astype(dtype)


@operator(static=("num_bins",))
def transform_from_2hot(
    probs: ArrayLike, min_value: ArrayLike, max_value: ArrayLike, num_bins: int
) -> jax.Array:
    """The mean of a distribution over the atoms `linspace(min_value, max_value, num_bins)`: the inverse of `transform_to_2hot`.

    Args:
      probs: `[..., num_bins]` probabilities.
      min_value: the first atom.
      max_value: the last atom.
      num_bins: the number of atoms.

    Returns:
      `[...]` means.

    Raises:
      ShapeError: if the number of probabilities is not `num_bins`, or a bound is no scalar.
      ValueError: if there is no bin.
    """
    _checked("transform_from_2hot", num_bins, probs, min_value=min_value, max_value=max_value)
    probs, dtype = _precise(probs)
    return expectation(
        probs, jnp.linspace(min_value, max_value, num_bins, dtype=probs.dtype)
    ).astype(dtype)


@operator(static=("num_bins",))
def transform_to_hl_gauss(
    scalar: ArrayLike,
    min_value: ArrayLike,
    max_value: ArrayLike,
    num_bins: int,
    sigma_ratio: ArrayLike = 0.75,
) -> jax.Array:
    """Probabilities that a Gaussian about the scalar, cut off at the ends of the range, gives to `num_bins` bins of equal width.

    See "Stop Regressing: Training Value Functions via Classification for Scalable Deep RL" by
    Farebrother et al. (2024, https://arxiv.org/abs/2403.03950), section 3.1.

    Args:
      scalar: `[...]` values; beyond the range they count as its end.
      min_value: where the first bin begins.
      max_value: where the last bin ends.
      num_bins: the number of bins.
      sigma_ratio: standard deviation of the Gaussian in widths of a bin; the paper's choice by
        default.

    Returns:
      `[..., num_bins]` probabilities.

    Raises:
      ShapeError: if a bound is no scalar.
      ValueError: if there is no bin.
    """
    _checked(
        "transform_to_hl_gauss",
        num_bins,
        min_value=min_value,
        max_value=max_value,
        sigma_ratio=sigma_ratio,
    )
    x, dtype = _precise(scalar)
    edges = jnp.linspace(min_value, max_value, num_bins + 1, dtype=x.dtype)
    width = (edges[-1] - edges[0]) / num_bins
    x = jnp.clip(x, edges[0], edges[-1])[..., None]
    edges = jnp.expand_dims(edges, range(x.ndim - 1))
    cdf = jax.lax.erf(
        (edges - x) / (jnp.sqrt(2.0).astype(x.dtype) * jnp.asarray(sigma_ratio, x.dtype) * width)
    )
    return (jnp.diff(cdf) / (cdf[..., -1:] - cdf[..., :1])).astype(dtype)


@operator(static=("num_bins",))
def transform_from_hl_gauss(
    probs: ArrayLike, min_value: ArrayLike, max_value: ArrayLike, num_bins: int
) -> jax.Array:
    """The mean of a distribution over `num_bins` bins of equal width, each at its centre.

    It inverts `transform_to_hl_gauss` away from the ends of the range: within a few standard
    deviations of an end the Gaussian is cut off, and its mean moves inwards.

    Args:
      probs: `[..., num_bins]` probabilities.
      min_value: where the first bin begins.
      max_value: where the last bin ends.
      num_bins: the number of bins.

    Returns:
      `[...]` means.

    Raises:
      ShapeError: if the number of probabilities is not `num_bins`, or a bound is no scalar.
      ValueError: if there is no bin.
    """
    _checked("transform_from_hl_gauss", num_bins, probs, min_value=min_value, max_value=max_value)
    probs, dtype = _precise(probs)
    edges = jnp.linspace(min_value, max_value, num_bins + 1, dtype=probs.dtype)
    return expectation(probs, 0.5 * (edges[:-1] + edges[1:])).astype(dtype)
