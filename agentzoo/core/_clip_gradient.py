"""A JAX primitive that returns its input and clips the gradient in reverse mode.

`jax.custom_vjp` could do this too, but it has no forward mode. With `jax.custom_jvp`, JAX derives
the reverse mode from the forward mode, so the two could not differ.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_identity_p = Primitive("clip_gradient")


def with_clipped_gradient(
    x: jax.Array, gradient_min: jax.Array, gradient_max: jax.Array
) -> jax.Array:
    """Return `x`, with its gradient clipped to bounds of the same shape and dtype."""
    return _identity_p.bind(x, gradient_min, gradient_max)


def _identity(x: jax.Array, gradient_min: jax.Array, gradient_max: jax.Array) -> jax.Array:
    del gradient_max
    # The shapes differ where vmap maps only one of the arguments.
    return jnp.broadcast_to(x, jnp.broadcast_shapes(x.shape, gradient_min.shape))


def _jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    tangent = ad.instantiate_zeros(tangents[0])
    return _identity_p.bind(*primals), _identity_p.bind(tangent, *primals[1:])


def _transpose(
    cotangent: Any, _: Any, gradient_min: jax.Array, gradient_max: jax.Array
) -> tuple[Any, None, None]:
    if type(cotangent) is not ad.Zero:
        cotangent = jnp.clip(cotangent, gradient_min, gradient_max)
    return cotangent, None, None


_identity_p.def_impl(_identity)
_identity_p.def_abstract_eval(lambda x, *_: x)
mlir.register_lowering(_identity_p, mlir.lower_fun(_identity, multiple_results=False))
ad.primitive_jvps[_identity_p] = _jvp
ad.primitive_transposes[_identity_p] = _transpose
batching.defbroadcasting(_identity_p)
