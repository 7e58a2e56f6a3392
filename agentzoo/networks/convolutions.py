"""Convolutions whose gradients are fast inside a loop on a CPU."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from agentzoo.types import Array

_AXES = ("NHWC", "HWIO", "NHWC")


class Conv2D(hk.Module):
    """`haiku.Conv2D` for images `[N, H, W, C]`, with square kernels and strides.

    The parameters are the same as in Haiku; the gradients are faster. The fast convolutions of XLA
    on a CPU need a certain order of axes. XLA transposes the operands of other convolutions, but
    not inside loops (https://github.com/jax-ml/jax/issues/12868), and all gradient steps are inside
    loops. There, the convolutions that JAX forms for the gradients take up to 40 times as long. So
    the gradients are written here as convolutions in the order of axes that is fast.
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
        self.output_channels = output_channels
        self.kernel_shape = kernel_shape
        self.stride = stride
        self.padding = padding

    def __call__(self, x: Array) -> Array:
        """Return `[N, H', W', output_channels]`."""
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
    """Return the cross-correlation `[N, H', W', D]` of images with kernels, without padding.

    Args:
      x: `[N, H, W, C]` images.
      w: `[K, K, C, D]` kernels.
      stride: the distance between neighbouring positions of a kernel.
    """
    return jax.lax.conv_general_dilated(x, w, (stride, stride), "VALID", dimension_numbers=_AXES)


def _forward(x: Array, w: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return convolve(x, w, stride), (x, w)


def _backward(stride: int, residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, w = residuals
    height, width = x.shape[1:3]
    m, n = dy.shape[1:3]
    size, _, channels, features = w.shape
    # dw[k, l, c, d] = sum_nij x[n, stride * i + k, stride * j + l, c] dy[n, i, j, d]. This is a
    # convolution whose batch are the channels of x, and whose channels are the images.
    # No kernel covers the pixels beyond the last position of a kernel.
    reached = x[:, : stride * (m - 1) + size, : stride * (n - 1) + size]
    dw = jax.lax.conv_general_dilated(
        reached.transpose(3, 1, 2, 0),
        dy.transpose(1, 2, 0, 3),
        (1, 1),
        "VALID",
        rhs_dilation=(stride, stride),
        dimension_numbers=_AXES,
    )
    # dx is dy convolved with the reversed kernels. A pixel can have stride * stride places relative
    # to the positions of the kernels. One convolution computes all of them, as separate channels.
    steps = -(-size // stride)  # positions of a kernel that cover a pixel, rounded up
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
