"""Our convolutions and max-pooling, compared with Haiku's."""

import operator

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from agentzoo.networks import convolutions
from agentzoo.networks.convolutions import Conv2D, max_pool
from tests.jaxprs import equations

IMAGES = np.random.default_rng(0).normal(size=(3, 11, 14, 2)).astype(np.float32)


def loss(module, padding, kernel, stride, features=4):
    def forward(x):
        y = module(features, kernel, stride, padding=padding)(x)
        return jnp.sum(jnp.sin(y))  # the gradient of the sine differs from place to place

    return hk.without_apply_rng(hk.transform(forward))


def assert_close(found, expected):
    """Compare trees, with an error that grows with the largest element, as rounding does."""
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype
        scale = np.abs(y).max(initial=1e-3)
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5 * scale)


def numbers(key, *shape):
    return jax.random.normal(jax.random.key(key), shape)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("kernel, stride", [(1, 1), (3, 1), (4, 2), (5, 5), (5, 3), (2, 3)])
def test_as_haiku(padding, kernel, stride):
    """The cases include strides that leave border pixels out, or exceed the kernel."""
    ours, theirs = loss(Conv2D, padding, kernel, stride), loss(hk.Conv2D, padding, kernel, stride)
    params = ours.init(jax.random.key(0), IMAGES)
    assert jax.tree.all(
        jax.tree.map(jnp.array_equal, params, theirs.init(jax.random.key(0), IMAGES))
    )
    assert_close(ours.apply(params, IMAGES), theirs.apply(params, IMAGES))
    for argument in (0, 1):
        found, expected = (jax.grad(f.apply, argument)(params, IMAGES) for f in (ours, theirs))
        assert_close(found, expected)


@st.composite
def layers(draw):
    """Draw a layer, a batch of images, and the largest size of patches of a group of images."""
    pair = st.tuples(st.integers(1, 5), st.integers(1, 5))
    pads = st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2)
    return {
        "shape": (draw(st.integers(1, 7)), *draw(st.tuples(*[st.integers(1, 12)] * 2))),
        "channels": draw(st.sampled_from([1, 2, 3, 15, 16, 17, 32])),
        "features": draw(st.sampled_from([1, 4, 16])),
        "kernel": draw(pair),
        "stride": draw(pair),
        "padding": draw(st.one_of(st.sampled_from(["SAME", "VALID"]), pads)),
        "patches": draw(st.sampled_from([1, 3_000, 2**20])),
        "agents": draw(st.sampled_from([None, 1, 3])),
    }


def check(shape, channels, features, kernel, stride, padding, patches, agents):
    images = numbers(1, *shape, channels)
    ours, theirs = (loss(m, padding, kernel, stride, features) for m in (Conv2D, hk.Conv2D))

    def every(function):
        """Values and gradients of one agent, or of several with images of their own."""
        both = jax.value_and_grad(function.apply, (0, 1))
        return jax.jit(both if agents is None else jax.vmap(both))

    if agents is None:
        params = theirs.init(jax.random.key(0), images)
    else:
        keys = jax.random.split(jax.random.key(0), agents)
        params = jax.vmap(theirs.init, (0, None))(keys, images)
        images = numbers(1, agents, *images.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolutions, "PATCHES", patches)
        assert_close(every(ours)(params, images), every(theirs)(params, images))


PHASES = (Phase.explicit, Phase.generate)  # each example compiles; smaller ones are not worth it


@settings(max_examples=12, deadline=None, phases=PHASES, derandomize=True)
@given(layers())
def test_any_layer(layer):
    """Kernels, strides, paddings and channels, one agent or several, in groups or at once."""
    check(**layer)


@settings(max_examples=400, deadline=None, phases=PHASES)
@given(layers())
def test_many_layers(layer):
    check(**layer)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (4, 2)])
@pytest.mark.parametrize("channels", [3, 8, 16, 32])
def test_infinite_pixels_reach_the_outputs_above_them(channels, kernel, stride):
    images = jnp.ones((1, 7, 7, channels)).at[0, 3, 3, 0].set(jnp.inf)
    w = jnp.ones((kernel, kernel, channels, 2))
    arguments = images, w, (stride, stride), ((0, 0), (0, 0))
    y = jax.jit(convolutions.convolve, static_argnums=(2, 3))(*arguments)
    assert (y == convolutions._library(*arguments)).all() and not jnp.isnan(y).any()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_numbers_of_16_bits_are_summed_as_in_haiku(dtype):
    images, w = numbers(0, 2, 8, 8, 32).astype(dtype), numbers(1, 3, 3, 32, 4).astype(dtype)
    arguments = images, w, (1, 1), ((0, 0), (0, 0))
    y = jax.jit(convolutions.convolve, static_argnums=(2, 3))(*arguments)
    assert y.dtype == dtype and (y == convolutions._library(*arguments)).all()


def test_the_gradient_of_max_pool_does_not_lose_what_is_not_a_number():
    images = numbers(0, 1, 6, 6, 1).at[0, ::2, 1].set(jnp.nan)
    assert jax.grad(lambda x: max_pool(x, 3, 2).sum())(images).sum() == 9


@pytest.mark.parametrize("patches", [1, 2**20])
def test_shared_images(patches, monkeypatch):
    """Several networks of the same images have the same gradients as each alone."""
    monkeypatch.setattr(convolutions, "PATCHES", patches)
    ours = loss(Conv2D, "VALID", 3, 2)
    params = jax.vmap(ours.init, (0, None))(jax.random.split(jax.random.key(0), 2), IMAGES)
    together = jax.vmap(jax.grad(ours.apply), (0, None))(params, IMAGES)
    alone = [
        jax.grad(ours.apply)(jax.tree.map(operator.itemgetter(i), params), IMAGES) for i in range(2)
    ]
    assert_close(together, jax.tree.map(lambda *each: jnp.stack(each), *alone))


def test_memory_of_patches():
    """No array of a layer and its gradient is larger than its images, its results, or PATCHES."""
    images, w = jnp.ones((64, 42, 42, 16)), jnp.ones((3, 3, 16, 16))
    pads = ((1, 1), (1, 1))
    patches = images.size * 9
    assert patches > 10 * convolutions.PATCHES

    def both(x, w):
        return jax.grad(lambda *xw: convolutions.convolve(*xw, (1, 1), pads).sum(), (0, 1))(x, w)

    results = [v.aval for equation in equations(both, images, w) for v in equation.outvars]
    largest = max(x.size for x in results if hasattr(x, "size"))
    assert largest <= max(images.size, convolutions.PATCHES)


def test_no_gradient_of_images():
    """The program has no product for a gradient that nobody asks for."""
    images, w = numbers(0, 32, 21, 21, 16), numbers(1, 3, 3, 16, 16)

    def value(x, w):
        return jnp.sin(convolutions.convolve(x, w, (1, 1), ((0, 0), (0, 0)))).sum()

    def count_loops(argument):
        text = jax.jit(jax.grad(value, argument)).lower(images, w).compile().as_text()
        return text.count(" while(")

    assert convolutions._patch_size(images, w, (1, 1), ((0, 0), (0, 0))) * 32 > convolutions.PATCHES
    # The loops over groups of images: forward, the gradient of the kernels, that of the images.
    assert count_loops((0, 1)) - count_loops(1) == 1


@pytest.mark.parametrize("window, stride", [(3, 2), (2, 3)])
@pytest.mark.parametrize("size", [10, 11])
def test_max_pool(size, window, stride):
    """Values and gradients are those of Haiku, also where several values are the largest."""
    images = jnp.round(numbers(0, 4, size, size + 1, 3))  # many equal values

    def ours(x):
        return max_pool(x, window, stride)

    def theirs(x):
        return hk.max_pool(x, (window, window, 1), (stride, stride, 1), "SAME")

    assert (ours(images) == theirs(images)).all()
    dy = numbers(1, *ours(images).shape)
    assert_close(jax.vjp(ours, images)[1](dy), jax.vjp(theirs, images)[1](dy))
    several = jnp.stack([images, -images])
    assert (jax.vmap(ours)(several)[1] == theirs(-images)).all()


def test_on_accelerators(monkeypatch):
    """Where there is an accelerator, programs have JAX's own convolutions and gradients for it."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    images = numbers(0, 2, 10, 10, 16)
    ours = loss(Conv2D, "SAME", 3, 2)
    theirs = loss(hk.Conv2D, "SAME", 3, 2)
    params = theirs.init(jax.random.key(0), images)

    def operations(function):
        gradient = jax.jit(jax.grad(function.apply, (0, 1)))
        text = gradient.trace(params, images).lower(lowering_platforms=("cuda",)).as_text()
        return [text.count(f"stablehlo.{name}") for name in ("convolution", "dot_general")]

    assert operations(ours) == operations(theirs) == [3, 0]
    # The same program, compiled for the CPU, is right as well.
    assert_close(jax.grad(ours.apply)(params, images), jax.grad(theirs.apply)(params, images))
