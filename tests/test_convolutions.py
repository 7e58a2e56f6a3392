"""Parameters, values and gradients of our convolutions, compared with Haiku's."""

import operator

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo.networks.convolutions import Conv2D

IMAGES = np.random.default_rng(0).normal(size=(3, 11, 14, 2)).astype(np.float32)


def loss(module, padding, kernel, stride):
    def forward(x):
        y = module(4, kernel, stride, padding=padding)(x)
        return jnp.sum(jnp.sin(y))  # the gradient of the sine differs from place to place

    return hk.without_apply_rng(hk.transform(forward))


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("kernel, stride", [(1, 1), (3, 1), (4, 2), (5, 5), (5, 3), (2, 3)])
def test_as_haiku(padding, kernel, stride):
    """The cases include strides that leave border pixels out, or exceed the kernel."""
    ours, theirs = loss(Conv2D, padding, kernel, stride), loss(hk.Conv2D, padding, kernel, stride)
    params = ours.init(jax.random.key(0), IMAGES)
    assert jax.tree.all(
        jax.tree.map(jnp.array_equal, params, theirs.init(jax.random.key(0), IMAGES))
    )
    np.testing.assert_allclose(ours.apply(params, IMAGES), theirs.apply(params, IMAGES), rtol=1e-5)
    for argument in (0, 1):
        found, expected = (jax.grad(f.apply, argument)(params, IMAGES) for f in (ours, theirs))
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), found, expected
        )


def test_under_vmap():
    """Several networks at once, such as an ensemble, have the same gradients as each alone."""
    ours = loss(Conv2D, "VALID", 3, 2)
    params = jax.vmap(ours.init, (0, None))(jax.random.split(jax.random.key(0), 2), IMAGES)
    together = jax.vmap(jax.grad(ours.apply), (0, None))(params, IMAGES)
    alone = [
        jax.grad(ours.apply)(jax.tree.map(operator.itemgetter(i), params), IMAGES) for i in range(2)
    ]
    expected = jax.tree.map(lambda *each: jnp.stack(each), *alone)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), together, expected
    )
