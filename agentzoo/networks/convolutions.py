"""Convolutions whose gradients are fast inside a loop on a CPU."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from agentzoo.types import Array

_AXES = ("NHWC", "HWIO", "NHWC")


class Conv2D(hk.Module):
    """`haiku.Conv2D` for images `[N, H, W, C]`, with the same parameters, square kernels and strides.

    XLA brings convolutions into the order of axes that its fast CPU kernels take, but not those
    inside of loops (https://github.com/jax-ml/jax/issues/12868), where all our gradient steps are.
    Those that JAX forms for the gradients have another order and take up to 40 times as long there,
    so that we state them in the right one.
    """

    def __init__(
        self,
        output_channels: int,
        kernel_shape: int,
        stride: int = 1,
        padding: str = "SAME",
        name: str | None = None,
    ):
        super().__init__(name or "conv2_d")
        self.output_channels, self.kernel_shape, self.stride, self.padding = (
            output_channels,
            kernel_shape,
            stride,
            padding,
        )

    def __call__(self, x: Array) -> Array:
        """Returns `[N, H', W', output_channels]`."""
        size, channels = self.kernel_shape, x.shape[-1]
        w_init = hk.initializers.TruncatedNormal(1 / np.sqrt(size * size * channels))
        w = hk.get_parameter("w", (size, size, channels, self.output_channels), x.dtype, w_init)
        b = hk.get_parameter("b", (self.output_channels,), x.dtype, jnp.zeros)
        pads = jax.lax.padtype_to_pads(
            x.shape[1:3], (size, size), (self.stride, self.stride), self.padding
        )
        return jnp.add(convolve(jnp.pad(x, ((0, 0), *pads, (0, 0))), w, self.stride), b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: Array, w: Array, stride: int) -> Array:
    """The cross-correlation of images `[N, H, W, C]` with kernels `[K, K, C, D]` where they fit: `[N, H', W', D]`."""
    return jax.lax.conv_general_dilated(x, w, (stride, stride), "VALID", dimension_numbers=_AXES)


def _forward(x: Array, w: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return convolve(x, w, stride), (x, w)


def _backward(stride: int, residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, w = residuals
    (height, width), (m, n), (size, _, channels, features) = x.shape[1:3], dy.shape[1:3], w.shape
    # dw[k, l, c, d] = sum_nij x[n, stride * i + k, stride * j + l, c] dy[n, i, j, d]: channels are
    # the batch, images the channels.
    reached = x[
        :, : stride * (m - 1) + size, : stride * (n - 1) + size
    ]  # the other pixels are below no kernel
    dw = jax.lax.conv_general_dilated(
        reached.transpose(3, 1, 2, 0),
        dy.transpose(1, 2, 0, 3),
        (1, 1),
        "VALID",
        rhs_dilation=(stride, stride),
        dimension_numbers=_AXES,
    )
    # dx is dy convolved with the kernels turned round: one convolution for all of the stride *
    # stride places that a pixel can have.
    steps = -(-size // stride)
    w = jnp.pad(w, ((0, steps * stride - size), (0, steps * stride - size), (0, 0), (0, 0)))
    w = w.reshape(steps, stride, steps, stride, channels, features)[::-1, :, ::-1].transpose(
        0, 2, 5, 1, 3, 4
    )
    w = w.reshape(steps, steps, features, stride * stride * channels)
    dx = jax.lax.conv_general_dilated(
        dy, w, (1, 1), ((steps - 1, steps - 1),) * 2, dimension_numbers=_AXES
    )
    m, n = m + steps - 1, n + steps - 1
    dx = (
        dx.reshape(-1, m, n, stride, stride, channels)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(-1, m * stride, n * stride, channels)
    )
    dx = jnp.pad(
        dx[:, :height, :width],
        ((0, 0), (0, max(0, height - m * stride)), (0, max(0, width - n * stride)), (0, 0)),
    )
    return dx, dw.transpose(1, 2, 0, 3)


convolve.defvjp(_forward, _backward)
