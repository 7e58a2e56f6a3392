"""Convolutions and max-pooling that are fast on a CPU, also for gradients and inside loops.

On accelerators, the functions of this file are those of JAX. On a CPU, XLA has a fast convolution
for images `[N, H, W, C]` with some numbers of channels, but none for gradients, whose axes come in
another order (https://github.com/jax-ml/jax/issues/12868). So this file states convolutions and
gradients as products of matrices, for which XLA has fast code. Four rules decide how a layer is
computed on a CPU:

1. Groups of images. A convolution reads each pixel up to `kh * kw` times, once for each place of
   the kernel above it. Written out, these numbers need many times the memory of the images. So a
   layer goes through a large batch in groups of images, for which at most `PATCHES` such numbers
   are written out, which is 4 MiB in float32. They then stay in the cache, and this bounds their
   memory.
2. No strides. With strides `sh` and `sw`, make channels of each block of `sh * sw` pixels. This
   only moves numbers. It leaves a convolution without strides, whose kernels have as many rows as
   the blocks that the original kernel touches.
3. One product. Without strides, a convolution is a sum of `kh * kw` products, each of the images,
   shifted by a place of the kernel, and the weights at this place. If a pixel has fewer channels
   than `NARROW`, rows of so few numbers do not fill the registers of a processor. Then all shifted
   images are joined to patches, with one product for all of them. If a pixel has at least `WIDE`
   channels, the images are multiplied once by the weights of all places, and the products are
   shifted and added. In between, where the kernel is a single block, and where it is no multiple of
   the strides, XLA's own convolution is used.
4. The narrower factor is shifted. The gradient with respect to the weights is a product of the
   images and the gradient of the outputs, one of them shifted to each place and joined: the outputs
   if they have fewer channels, and the images otherwise.

The gradient with respect to images is the product of the gradient of the outputs and the turned
weights, `[N * H' * W', kh * kw * C]`. Each of its `kh * kw` parts is added to the pixels that it
belongs to. Unlike a convolution of padded gradients, this multiplies no zeros. XLA leaves the whole
computation out where nobody needs this gradient, such as for the first layer.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from agentzoo.types import Array

PATCHES = 2**20
"""The largest number of elements of the patches, or of the products, of a group of images."""

NARROW = 16
"""Images of fewer channels than this are multiplied as patches: 16 float32 fill a register."""

WIDE = 32
"""Images of at least as many channels are multiplied first, and then shifted."""

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

_AXES = ("NHWC", "HWIO", "NHWC")


class Conv2D(hk.Module):
    """`haiku.Conv2D` for images `[N, H, W, C]`, fast on a CPU.

    The parameters are the same as those of `haiku.Conv2D`, and so are the values and the gradients
    up to rounding. Only gradients in reverse mode are supported, such as those of `jax.grad`.

    Args:
      output_channels: the number of channels of the result.
      kernel_shape: the height and the width of the kernel, or one number for both.
      stride: the distance between two places of the kernel in pixels, vertically and horizontally,
        or one number for both.
      padding: "SAME", "VALID", or the numbers of zeros before and after the rows and the columns,
        such as `((1, 1), (0, 2))`.
      with_bias: whether to add a bias to each channel of the result.
      w_init: initialiser of the weights. By default, their standard deviation is
        `1 / sqrt(kh * kw * C)`.
      name: the name of the module.
    """

    def __init__(
        self,
        output_channels: int,
        kernel_shape: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: str | Sequence[Sequence[int]] = "SAME",
        with_bias: bool = True,
        w_init: hk.initializers.Initializer | None = None,
        name: str | None = None,
    ):
        super().__init__(name or "conv2_d")
        self.output_channels, self.padding = output_channels, padding
        self.kernel_shape, self.stride = _pair(kernel_shape), _pair(stride)
        self.with_bias, self.w_init = with_bias, w_init

    def __call__(self, x: Array) -> Array:
        """Convolve images `[N, H, W, C]`; return `[N, H', W', output_channels]`."""
        shape = (*self.kernel_shape, x.shape[-1])
        w_init = self.w_init or hk.initializers.TruncatedNormal(1 / np.sqrt(math.prod(shape)))
        w = hk.get_parameter("w", (*shape, self.output_channels), x.dtype, w_init)
        pads = _pads(x, self.kernel_shape, self.stride, self.padding)
        y: Any = convolve(x, w, self.stride, pads)
        if not self.with_bias:
            return y
        return jnp.add(y, hk.get_parameter("b", (self.output_channels,), x.dtype, jnp.zeros))


def max_pool(x: Array, window: int, stride: int) -> Array:
    """Return the largest value of each window of images `[N, H, W, C]`, with padding "SAME".

    The gradient goes to the first of several equal values, as in JAX.
    """
    y: Any = _max_pool(x, window, stride, _pads(x, (window, window), (stride, stride), "SAME"))
    return y


def _pair(number: int | Sequence[int]) -> Pair:
    height, width = (number, number) if isinstance(number, int | np.integer) else number
    return int(height), int(width)


def _pads(x: Array, window: Pair, strides: Pair, padding: str | Sequence[Sequence[int]]) -> Pads:
    """Return the number of zeros before and after the rows and the columns."""
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
    rows, columns = padding
    return _pair(rows), _pair(columns)


def _by_platform(
    cpu: Callable[..., Array], default: Callable[..., Array], *operands: Array
) -> Array:
    """Call the function for the platform that the program is compiled for.

    A policy that is exported for batches of any size is for all platforms, so JAX's own functions
    are exported. They are also used for numbers of other precisions, because sums of float16 lose
    digits.

    Args:
      cpu: the function for CPUs.
      default: the function for other platforms.
      *operands: images `[N, H, W, C]`, and the other arguments of the function.
    """
    is_exported = not isinstance(operands[0].shape[0], int)
    if is_exported or operands[0].dtype not in (jnp.float32, jnp.float64):
        return default(*operands)
    if jax.default_backend() == "cpu":
        # There is no accelerator, so its branch need not be traced.
        return cpu(*operands)
    return jax.lax.platform_dependent(*operands, cpu=cpu, default=default)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: Array, w: Array, strides: Pair, pads: Pads) -> Array:
    """Cross-correlate images with kernels.

    Args:
      x: images `[N, H, W, C]`.
      w: kernels `[kh, kw, C, D]`.
      strides: the distance between two places of a kernel in pixels, vertically and horizontally.
      pads: the number of zeros before and after the rows and the columns.

    Returns:
      `[N, H', W', D]`, with `H' = (H + pads - kh) // stride + 1` and W' likewise.
    """
    library = functools.partial(_library, strides=strides, pads=pads)

    def products(x: Array, w: Array) -> Array:
        channels = math.prod(strides) * x.shape[-1]  # of a block of pixels
        form, size = _library, _patch_size(x, w, strides, pads)
        # The zeros that fill up other kernels would make NaN of infinite pixels.
        if w.shape[0] % strides[0] == w.shape[1] % strides[1] == 0:
            if channels < NARROW:
                form = _product_of_patches
            elif channels >= WIDE and _blocks_of(w.shape[:2], strides) != (1, 1):
                form, size = _sum_of_shifted, _product_size(x, w, strides, pads)
        return _in_groups(lambda x: form(x, w, strides, pads), size, x)

    return _by_platform(products, library, x, w)


def _library(x: Array, w: Array, strides: Pair, pads: Pads) -> Array:
    """Cross-correlate images with kernels, as XLA does."""
    return jax.lax.conv_general_dilated(x, w, strides, pads, dimension_numbers=_AXES)


def _forward(x: Array, w: Array, strides: Pair, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    y: Any = convolve(x, w, strides, pads)
    return y, (x, w)


def _backward(
    strides: Pair, pads: Pads, residuals: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
    x, w = residuals
    size = _patch_size(x, w, strides, pads)

    def library_dx(x: Array, w: Array, dy: Array) -> Array:
        return jax.vjp(lambda x: _library(x, w, strides, pads), x)[1](dy)[0]

    def library_dw(x: Array, w: Array, dy: Array) -> Array:
        return jax.vjp(lambda w: _library(x, w, strides, pads), w)[1](dy)[0]

    def products_dx(x: Array, w: Array, dy: Array) -> Array:
        shape = x.shape[1], x.shape[2]
        return _in_groups(lambda dy: _image_gradient(w, dy, shape, strides, pads), size, dy)

    def products_dw(x: Array, w: Array, dy: Array) -> Array:
        shape = w.shape[0], w.shape[1]
        return _in_groups(
            lambda x, dy: _kernel_gradient(x, dy, shape, strides, pads), size, x, dy, total=True
        )

    dx = _by_platform(products_dx, library_dx, x, w, dy)
    dw = _by_platform(products_dw, library_dw, x, w, dy)
    return dx, dw


convolve.defvjp(_forward, _backward)


def _patch_size(x: Array, w: Array, strides: Pair, pads: Pads) -> int:
    """Return the number of elements of the patches of one image."""
    height, width, channels, _ = w.shape
    m, n = _output_shape(x.shape[1:3], (height, width), strides, pads)
    return m * n * height * width * channels


def _product_size(x: Array, w: Array, strides: Pair, pads: Pads) -> int:
    """Return the number of elements of the products in `_sum_of_shifted` for one image."""
    rows, columns = _blocks_of(w.shape[:2], strides)
    m, n = _output_shape(x.shape[1:3], w.shape[:2], strides, pads)
    return (m + rows - 1) * (n + columns - 1) * rows * columns * w.shape[-1]


def _output_shape(shape: Sequence[int], window: Sequence[int], strides: Pair, pads: Pads) -> Pair:
    """Return the height and the width of the result for images of a shape (H, W)."""
    each = zip(shape, window, strides, pads, strict=True)
    height, width = (max(0, (size + sum(pad) - k) // s + 1) for size, k, s, pad in each)
    return height, width


def _in_groups(
    function: Callable[..., Array], size: int, *arrays: Array, total: bool = False
) -> Array:
    """Apply a function of images to groups of images.

    Args:
      function: a function of arrays `[G, ...]`. It returns an array `[G, ...]`, or the sum of what
        each image contributes.
      size: the number of elements of the patches of one image.
      *arrays: arrays `[N, ...]`.
      total: whether the function returns a sum.

    Returns:
      An array `[N, ...]`, or the sum over all images.
    """
    num_images = len(arrays[0])
    wanted = -(-num_images * size // PATCHES)  # the number of groups, rounded up
    if wanted <= 1:
        return function(*arrays)
    wanted = min(wanted, num_images)
    # A few more groups are better than images of zeros, which fill up the last group otherwise.
    number = next((k for k in range(wanted, 2 * wanted) if num_images % k == 0), wanted)
    group = -(-num_images // number)
    missing = group * number - num_images

    def split(x: Array) -> Array:
        # Group i consists of the images i, number + i, 2 * number + i, ... So each of several
        # devices that share the images has a share of every group.
        x = jnp.pad(x, ((0, missing), *((0, 0),) * (x.ndim - 1))) if missing else x
        return x.reshape(group, number, *x.shape[1:])

    parts = [split(x) for x in arrays]

    def result(i: Array | int) -> Array:
        return function(*(jax.lax.dynamic_index_in_dim(x, i, 1, keepdims=False) for x in parts))

    shape = jax.eval_shape(result, 0)
    if total:
        zeros = jnp.zeros(shape.shape, shape.dtype)
        return jax.lax.fori_loop(0, number, lambda i, sum_: sum_ + result(i), zeros)
    zeros = jnp.zeros((group, number, *shape.shape[1:]), shape.dtype)

    def fill(i: Array, y: Array) -> Array:
        return jax.lax.dynamic_update_index_in_dim(y, result(i), i, 1)

    y = jax.lax.fori_loop(0, number, fill, zeros)
    return y.reshape(group * number, *y.shape[2:])[:num_images]


def _slices(x: Array, places: Sequence[int], shape: Pair) -> list[Array]:
    """Return the pixels `[N, H', W', C]` below each place of a kernel, without strides."""
    (height, width), (m, n) = places, shape
    return [x[:, i : i + m, j : j + n] for i in range(height) for j in range(width)]


def _in_blocks(x: Array, w: Array, strides: Pair, pads: Pads) -> tuple[Array, Array, Pair]:
    """Return images and kernels of a convolution without strides that has the same result.

    Returns:
      The images, the kernels, and the height and the width of the result.
    """
    rows, columns = _blocks_of(w.shape[:2], strides)
    m, n = _output_shape(x.shape[1:3], w.shape[:2], strides, pads)
    x = _blocks(x, strides, pads, (m + rows - 1, n + columns - 1))
    return x, _block_kernels(w, strides), (m, n)


def _product_of_patches(x: Array, w: Array, strides: Pair, pads: Pads) -> Array:
    """Cross-correlate images with kernels: join the slices to patches, and multiply once."""
    x, w, shape = _in_blocks(x, w, strides, pads)
    patches = jnp.concatenate(_slices(x, w.shape[:2], shape), axis=-1)
    features = w.shape[-1]
    y = patches.reshape(-1, patches.shape[-1]) @ w.reshape(-1, features)
    return y.reshape(len(x), *shape, features)


def _sum_of_shifted(x: Array, w: Array, strides: Pair, pads: Pads) -> Array:
    """Cross-correlate images with kernels: multiply once, shift the products, and add them."""
    x, w, (m, n) = _in_blocks(x, w, strides, pads)
    rows, columns, channels, features = w.shape
    # [C, rows * columns * D]; the barrier is as in `_product_with_patches`.
    w = jax.lax.optimization_barrier(w.transpose(2, 0, 1, 3).reshape(channels, -1))
    products = (x.reshape(-1, channels) @ w).reshape(*x.shape[:3], rows, columns, features)
    places = itertools.product(range(rows), range(columns))
    return functools.reduce(jnp.add, (products[:, i : i + m, j : j + n, i, j] for i, j in places))


def _kernel_gradient(x: Array, dy: Array, window: Pair, strides: Pair, pads: Pads) -> Array:
    """Return the gradient `[kh, kw, C, D]` with respect to kernels.

    The gradient is

        dw[k, l, c, d] = sum_nij x[n, sh * i + k, sw * j + l, c] dy[n, i, j, d].

    Without strides, it is a product of matrices for each k and l, or one for all of them.
    """
    (_, m, n, features), (sh, sw) = dy.shape, strides
    rows, columns = _blocks_of(window, strides)
    x = _blocks(x, strides, pads, (m + rows - 1, n + columns - 1))
    channels = x.shape[-1]
    if features < channels:
        dw = _product_with_shifted(x, dy, (rows, columns))
    else:
        dw = _product_with_patches(x, dy, (rows, columns))
    # Channels consist of the sh * sw pixels of a block.
    dw = dw.reshape(rows, columns, sh, sw, -1, features).transpose(0, 2, 1, 3, 4, 5)
    # The blocks of the last row and column may be larger than what is left of the kernel.
    return dw.reshape(rows * sh, columns * sw, -1, features)[: window[0], : window[1]]


def _product_with_patches(x: Array, dy: Array, places: Pair) -> Array:
    """Return the gradient `[kh, kw, C, D]`, without strides: join the slices of the images."""
    (_, m, n, features), channels = dy.shape, x.shape[-1]
    patches = jnp.concatenate(_slices(x, places, (m, n)), axis=-1)
    # XLA would take a transpose into the product otherwise, and then has no fast code for it.
    dy = jax.lax.optimization_barrier(dy.reshape(-1, features).T)
    dw = jax.lax.optimization_barrier(dy @ patches.reshape(-1, patches.shape[-1]))
    return dw.T.reshape(*places, channels, features)


def _product_with_shifted(x: Array, dy: Array, places: Pair) -> Array:
    """Return the gradient `[kh, kw, C, D]`, without strides: join shifted gradients."""
    (rows, columns), channels, features = places, x.shape[-1], dy.shape[-1]
    # Pixel p of the images lies below row i of the kernels at place p - i.
    shifted = [
        jnp.pad(dy, ((0, 0), (i, rows - 1 - i), (j, columns - 1 - j), (0, 0)))
        for i, j in itertools.product(range(rows), range(columns))
    ]
    x = jax.lax.optimization_barrier(x.reshape(-1, channels).T)  # as in `_product_with_patches`
    dw = x @ jnp.concatenate(shifted, axis=-1).reshape(-1, rows * columns * features)
    dw = jax.lax.optimization_barrier(dw)
    return dw.reshape(channels, *places, features).transpose(1, 2, 0, 3)


def _image_gradient(w: Array, dy: Array, shape: Pair, strides: Pair, pads: Pads) -> Array:
    """Return the gradient `[N, H, W, C]` with respect to images of `shape` `(H, W)`."""
    w = _block_kernels(w, strides)
    (rows, columns, channels, features), (_, m, n, _) = w.shape, dy.shape
    # The barrier is as in `_product_with_patches`.
    w = jax.lax.optimization_barrier(w.reshape(-1, features).T)
    products = (dy.reshape(-1, features) @ w).reshape(len(dy), m, n, rows, columns, channels)
    # Block p of the images lies below row i of the kernels at place p - i.
    parts = [
        jnp.pad(products[:, :, :, i, j], ((0, 0), (i, rows - 1 - i), (j, columns - 1 - j), (0, 0)))
        for i, j in itertools.product(range(rows), range(columns))
    ]
    return _pixels(functools.reduce(jnp.add, parts), strides, pads, shape)


def _block_kernels(w: Array, strides: Pair) -> Array:
    """Return kernels for images whose channels are blocks of pixels.

    Args:
      w: kernels `[kh, kw, C, D]`. They are filled up to whole blocks with zeros.
      strides: the height and the width of a block, sh and sw.

    Returns:
      `[rows, columns, sh * sw * C, D]`.
    """
    (height, width, channels, features), (sh, sw) = w.shape, strides
    rows, columns = _blocks_of((height, width), strides)
    w = jnp.pad(w, ((0, rows * sh - height), (0, columns * sw - width), (0, 0), (0, 0)))
    w = w.reshape(rows, sh, columns, sw, channels, features).transpose(0, 2, 1, 3, 4, 5)
    return w.reshape(rows, columns, sh * sw * channels, features)


def _blocks_of(window: Sequence[int], strides: Pair) -> Pair:
    """Return how many rows and columns of blocks a kernel touches."""
    return -(-window[0] // strides[0]), -(-window[1] // strides[1])


def _blocks(x: Array, strides: Pair, pads: Pads, number: Pair) -> Array:
    """Make channels of blocks of pixels.

    Args:
      x: images `[N, H, W, C]`.
      strides: the height and the width of a block, sh and sw.
      pads: the number of zeros to add before and after the rows and the columns.
      number: how many rows and columns of blocks to return, p and q. Pixels beyond are left out,
        and zeros are added if there are too few pixels.

    Returns:
      `[N, p, q, sh * sw * C]`.
    """
    (sh, sw), (p, q), (height, width) = strides, number, x.shape[1:3]
    top, left = pads[0][0], pads[1][0]
    below, right = p * sh - height - top, q * sw - width - left
    # Negative numbers of zeros cut pixels off.
    x = jax.lax.pad(
        x, jnp.zeros((), x.dtype), ((0, 0, 0), (top, below, 0), (left, right, 0), (0, 0, 0))
    )
    if strides == (1, 1):
        return x
    channels = x.shape[-1]
    x = x.reshape(len(x), p, sh, q, sw, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(len(x), p, q, sh * sw * channels)


def _pixels(x: Array, strides: Pair, pads: Pads, shape: Pair) -> Array:
    """Undo `_blocks` for images of `shape` `(H, W)`, with zeros for pixels that it left out."""
    (sh, sw), (_, p, q, channels) = strides, x.shape
    if strides != (1, 1):
        x = x.reshape(len(x), p, q, sh, sw, channels // (sh * sw)).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(len(x), p * sh, q * sw, channels // (sh * sw))
    top, left = pads[0][0], pads[1][0]
    below, right = shape[0] + top - p * sh, shape[1] + left - q * sw
    return jax.lax.pad(
        x, jnp.zeros((), x.dtype), ((0, 0, 0), (-top, below, 0), (-left, right, 0), (0, 0, 0))
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: Array, window: int, stride: int, pads: Pads) -> Array:
    """Return the largest value of each window of images `[N, H, W, C]`."""

    def by_axis(x: Array) -> Array:
        return _largest(_largest(x, window, stride, pads[1], 2), window, stride, pads[0], 1)

    return _by_platform(
        by_axis, functools.partial(_library_pool, window=window, stride=stride, pads=pads), x
    )


def _library_pool(x: Array, window: int, stride: int, pads: Pads) -> Array:
    return jax.lax.reduce_window(
        x,
        -jnp.inf,
        jax.lax.max,
        (1, window, window, 1),
        (1, stride, stride, 1),
        ((0, 0), *pads, (0, 0)),
    )


def _windows(x: Array, window: int, stride: int, pad: Pair, axis: int) -> list[Array]:
    """Return the pixels at each place of the windows along one axis."""
    number = max(0, (x.shape[axis] + sum(pad) - window) // stride + 1)
    widths = [(0, 0)] * x.ndim
    widths[axis] = pad
    x = jnp.pad(x, widths, constant_values=-jnp.inf)
    end = max(0, stride * (number - 1) + 1)  # after the first pixel of the last window
    return [jax.lax.slice_in_dim(x, i, i + end, stride, axis) for i in range(window)]


def _largest(x: Array, window: int, stride: int, pad: Pair, axis: int) -> Array:
    """Return the largest value of each window along one axis."""
    return functools.reduce(jnp.maximum, _windows(x, window, stride, pad, axis))


def _largest_gradient(
    x: Array, y: Array, dy: Array, window: int, stride: int, pad: Pair, axis: int
) -> Array:
    """Return the gradient of `y = _largest(x, ...)` with respect to x."""
    parts, found = [], jnp.zeros(y.shape, bool)
    windows, scatter = jax.vjp(lambda x: _windows(x, window, stride, pad, axis), x)
    for part in windows:
        largest = ((part == y) | jnp.isnan(part)) & ~found
        parts.append(jnp.where(largest, dy, 0))
        found |= largest
    return scatter(parts)[0]


def _pool_forward(
    x: Array, window: int, stride: int, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
    y: Any = _max_pool(x, window, stride, pads)
    return y, (x, y)


def _pool_backward(
    window: int, stride: int, pads: Pads, residuals: tuple[Array, Array], dy: Array
) -> tuple[Array]:
    def library(x: Array, y: Array, dy: Array) -> Array:
        return jax.vjp(lambda x: _library_pool(x, window, stride, pads), x)[1](dy)[0]

    def by_axis(x: Array, y: Array, dy: Array) -> Array:
        # The first of equal values, row by row, is the first one of the first row that has it.
        rows = _largest(x, window, stride, pads[1], 2)
        d_rows = _largest_gradient(rows, y, dy, window, stride, pads[0], 1)
        return _largest_gradient(x, rows, d_rows, window, stride, pads[1], 2)

    return (_by_platform(by_axis, library, *residuals, dy),)


_max_pool.defvjp(_pool_forward, _pool_backward)
