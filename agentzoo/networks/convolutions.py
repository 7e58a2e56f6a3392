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

    The parameters are the same as those of `haiku.Conv2D`.

    XLA brings convolutions into the order of axes that its fast CPU kernels need, but not inside
    loops (https://github.com/jax-ml/jax/issues/12868), where all gradient steps happen. The
    convolutions that JAX forms for gradients have another order and take up to 40 times as long
    inside loops. So `convolve` states its own gradients, in the order that is fast.
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
        self.output_channels, self.kernel_shape = output_channels, kernel_shape
        self.stride, self.padding = stride, padding

    def __call__(self, x: Array) -> Array:
        """Convolve images `[N, H, W, C]`; return `[N, H', W', output_channels]`."""
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
    """Cross-correlate images with kernels, without padding.

    Args:
      x: images `[N, H, W, C]`.
      w: kernels `[K, K, C, D]`.
      stride: the distance between two places of a kernel, in pixels.

    Returns:
      `[N, H', W', D]`, with `H' = (H - K) // stride + 1` and W' likewise.
    """
    return jax.lax.conv_general_dilated(x, w, (stride, stride), "VALID", dimension_numbers=_AXES)


def _forward(x: Array, w: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return convolve(x, w, stride), (x, w)


def _backward(stride: int, residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, w = residuals
    dw = _kernel_gradient(x, dy, w.shape[0], stride)
    return _image_gradient(w, dy, x.shape[1:3], stride), dw


def _kernel_gradient(x: Array, dy: Array, size: int, stride: int) -> Array:
    """Return the gradient `[K, K, C, D]` with respect to kernels of `size` K.

    The gradient is

        dw[k, l, c, d] = sum_nij x[n, stride * i + k, stride * j + l, c] dy[n, i, j, d].

    This is a convolution of images `[C, H, W, N]` with kernels `[H', W', N, D]` whose pixels are
    `stride` apart: the channels take the place of the batch, and the batch that of the channels.
    """
    m, n = dy.shape[1:3]
    # If the stride leaves pixels at the end out, no kernel lies on them.
    reached = x[:, : stride * (m - 1) + size, : stride * (n - 1) + size]
    dw = jax.lax.conv_general_dilated(
        reached.transpose(3, 1, 2, 0),
        dy.transpose(1, 2, 0, 3),
        (1, 1),
        "VALID",
        rhs_dilation=(stride, stride),
        dimension_numbers=_AXES,
    )
    return dw.transpose(1, 2, 0, 3)  # [C, K, K, D] to [K, K, C, D]


def _image_gradient(w: Array, dy: Array, shape: tuple[int, ...], stride: int) -> Array:
    """Return the gradient `[N, H, W, C]` with respect to images of `shape` `(H, W)`.

    With R = stride, pixel `R * p + r` (of a row or a column, 0 <= r < R) lies below row
    `R * s + r` of the kernel at place `p - s`. So the gradient for all pixels with the same r is a
    convolution of dy with every R-th row and column of the kernels, turned round. One convolution
    computes it for all R * R pairs of r, as R * R * C channels.
    """
    height, width = shape
    size, _, channels, features = w.shape
    steps = -(-size // stride)  # S, the number of values of s: K / R rounded up
    # Pad the kernels with zeros to [S * R, S * R, C, D].
    w = jnp.pad(w, ((0, steps * stride - size), (0, steps * stride - size), (0, 0), (0, 0)))
    # Separate s from r, turn s round: [S, R, S, R, C, D].
    w = w.reshape(steps, stride, steps, stride, channels, features)[::-1, :, ::-1]
    # Exchange inputs and outputs: [S, S, D, R, R, C], then [S, S, D, R * R * C].
    w = w.transpose(0, 2, 5, 1, 3, 4)
    w = w.reshape(steps, steps, features, stride * stride * channels)
    dx = jax.lax.conv_general_dilated(
        dy, w, (1, 1), ((steps - 1, steps - 1),) * 2, dimension_numbers=_AXES
    )
    # Interleave the pixels: [N, P, Q, R, R, C] to [N, P, R, Q, R, C] to [N, P * R, Q * R, C].
    m, n = dy.shape[1] + steps - 1, dy.shape[2] + steps - 1
    dx = dx.reshape(-1, m, n, stride, stride, channels).transpose(0, 1, 3, 2, 4, 5)
    dx = dx.reshape(-1, m * stride, n * stride, channels)
    # Cut off the padding of the kernels, and add zeros for pixels that no kernel lies on.
    return jnp.pad(
        dx[:, :height, :width],
        ((0, 0), (0, max(0, height - m * stride)), (0, max(0, width - n * stride)), (0, 0)),
    )


convolve.defvjp(_forward, _backward)
