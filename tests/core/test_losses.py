import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo.core import losses
from agentzoo.core._operator import ShapeError

HOW = [lambda f: f, jax.jit, jax.vmap]
HOW_IDS = ["plain", "jit", "vmap"]
X = np.array([-2.0, -0.5, 0.0, 0.5, 1.0, 2.0], np.float32)


@pytest.mark.parametrize("how", HOW, ids=HOW_IDS)
@pytest.mark.parametrize("expectile", [0.0, 0.25, 0.5, 1.0])
def test_expectile_loss_and_its_gradient(expectile, how):
    weight = np.where(X > 0, 1 - expectile, expectile)  # a prediction above the target 0
    loss = how(lambda x: losses.expectile_loss(x, 0.0, expectile))
    np.testing.assert_allclose(loss(X), weight * X**2, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: loss(x).sum())(X), 2 * weight * X, rtol=1e-6)


def test_expectile_of_one_half_is_half_the_squared_error():
    np.testing.assert_allclose(
        losses.expectile_loss(X, X[::-1], 0.5), losses.l2_loss(X, X[::-1]), rtol=1e-6
    )
    levels = np.linspace(0, 1, 6)
    by_element = [losses.expectile_loss(x, 0.0, level) for x, level in zip(X, levels, strict=True)]
    np.testing.assert_allclose(losses.expectile_loss(X, 0.0, levels), by_element, rtol=1e-6)


P = np.array([0.0, 0.0, 0.3, 0.3, 0.3, 1.0, 1.0], np.float32)
TARGETS = np.array([0.0, 1.0, 0.0, 0.4, 1.0, 0.0, 1.0], np.float32)


@pytest.mark.parametrize("how", HOW, ids=HOW_IDS)
def test_likelihood_and_log_loss(how):
    likelihood = [1, 0, 0.7, 0.3**0.4 * 0.7**0.6, 0.3, 0, 1]
    np.testing.assert_allclose(how(losses.likelihood)(P, TARGETS), likelihood, rtol=1e-6)
    expected = [
        0,
        np.inf,
        -np.log(0.7),
        -0.4 * np.log(0.3) - 0.6 * np.log(0.7),
        -np.log(0.3),
        np.inf,
        0,
    ]
    np.testing.assert_allclose(how(losses.log_loss)(P, TARGETS), expected, rtol=1e-6)


def test_gradients_of_log_loss_also_where_it_is_certain():
    of_p, of_t = jax.vmap(jax.grad(losses.log_loss, (0, 1)))(P, TARGETS)
    # RLax gives NaN at (0, 0) and (1, 1).
    inside = (0.3 - TARGETS[2:5]) / (0.3 * 0.7)
    np.testing.assert_allclose(of_p, [1, -np.inf, *inside, np.inf, -1], rtol=1e-6)
    np.testing.assert_allclose(of_t[2:5], np.full(3, np.log(0.7) - np.log(0.3)), rtol=1e-5)
    assert np.isfinite(of_t[np.array([0, 6])]).all()
    assert not np.isnan(jax.grad(losses.log_loss)(0.0, 0.5))
    likelihood = jax.vmap(jax.grad(losses.likelihood))(P, TARGETS)
    assert np.isfinite(likelihood).all()
    np.testing.assert_allclose(
        likelihood[jnp.array([0, 1, 2, 4, 5, 6])], [-1, 1, -1, 1, -1, 1], rtol=1e-6
    )


def test_log_loss_keeps_the_digits_of_small_probabilities():
    p = np.array([1e-30, 1e-10, 1e-4], np.float32)
    np.testing.assert_allclose(losses.log_loss(p, 0.0), -np.log1p(-p.astype(float)), rtol=1e-6)
    np.testing.assert_allclose(losses.log_loss(p, 1.0), -np.log(p.astype(float)), rtol=1e-6)
    assert np.isnan(losses.log_loss(-0.1, 0.0) + losses.log_loss(1.1, 1.0))


@pytest.mark.parametrize(
    "loss", [losses.likelihood, losses.log_loss, lambda p, t: losses.expectile_loss(p, t, 0.5)]
)
def test_no_silent_broadcasting(loss):
    with pytest.raises(ShapeError, match="'targets' must have shape"):
        loss(np.zeros(3), np.zeros((3, 1)))
    with pytest.raises(ShapeError, match="'targets' must have shape"):
        loss(np.zeros(3), np.zeros(1))
    assert loss(np.full(3, 0.5), 1).shape == (3,)
    assert loss(1, 1).dtype == jnp.float32
    assert loss(jnp.full(3, 0.5, jnp.bfloat16), 1.0).dtype == jnp.bfloat16
    with pytest.raises(ShapeError, match="'expectile'"):
        losses.expectile_loss(np.zeros(3), np.zeros(3), np.zeros(1))


# Clipping of gradients.


@pytest.mark.parametrize("how", HOW, ids=HOW_IDS)
def test_clipped_gradient(how):
    def loss(x):
        return 0.5 * jnp.square(losses.clip_gradient(x, -1.0, 0.7))

    np.testing.assert_allclose(how(loss)(X), 0.5 * X**2)
    np.testing.assert_allclose(jax.grad(lambda x: how(loss)(x).sum())(X), np.clip(X, -1, 0.7))
    np.testing.assert_allclose(jax.vmap(jax.jit(jax.grad(loss)))(X), np.clip(X, -1, 0.7))


def test_clipped_gradient_of_half_the_square_is_that_of_the_huber_loss():
    clipped = jax.vmap(jax.grad(lambda x: losses.l2_loss(losses.clip_gradient(x, -1.5, 1.5))))(X)
    np.testing.assert_allclose(clipped, jax.vmap(jax.grad(lambda x: losses.huber_loss(x, 1.5)))(X))


def test_trees_are_clipped_leaf_by_leaf():
    tree = {"a": jnp.array([3.0, 0.1]), "b": (jnp.bfloat16(-4), jnp.array([[5.0]]))}
    steps = jnp.arange(3)  # no gradient passes through integers
    clipped = losses.clip_gradient({**tree, "steps": steps}, -1, 1)
    assert jax.tree.structure(clipped) == jax.tree.structure({**tree, "steps": steps})
    assert clipped["steps"].dtype == steps.dtype

    def loss(tree):
        clipped = losses.clip_gradient(tree, -1, 1)
        return sum(
            0.5 * jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(clipped)
        )

    gradient = jax.grad(loss)(tree)
    np.testing.assert_allclose(gradient["a"], [1, 0.1])
    assert gradient["b"][0] == -1
    assert gradient["b"][0].dtype == jnp.bfloat16
    np.testing.assert_allclose(gradient["b"][1], [[1]])


def test_forward_mode_is_that_of_the_identity():
    value, tangent = jax.jvp(
        lambda x: losses.clip_gradient(x, -1.0, 1.0), (jnp.float32(3),), (jnp.float32(5),)
    )
    assert (value, tangent) == (3, 5)
    # Forward over reverse: inside the bounds the gradient has slope 1, beyond them 0.
    hessian = jax.vmap(jax.hessian(lambda x: 0.5 * jnp.square(losses.clip_gradient(x, -1.0, 1.0))))(
        jnp.array([0.5, 3.0])
    )
    np.testing.assert_allclose(hessian, [1, 0])


def test_clipping_within_scan_and_with_traced_bounds():
    def total(x, bound):
        def body(carry, x_t):
            return carry + 10 * losses.clip_gradient(x_t, -bound, bound) * x_t, None

        return jax.lax.scan(body, 0.0, x)[0]

    x = jnp.array([0.01, 1.0, -2.0])
    gradient = jax.jit(jax.grad(total))(x, 2.0)
    np.testing.assert_allclose(gradient, 10 * x + np.clip(10 * x, -2, 2), rtol=1e-6)
    bounds = jax.grad(lambda bound: losses.clip_gradient(jnp.float32(3), -bound, bound) ** 2)(1.0)
    assert bounds == 0


def test_bounds_of_each_element():
    bounds = np.array([1.0, 5.0], np.float32)
    gradient = jax.grad(lambda x: jnp.sum(10 * losses.clip_gradient(x, -bounds, bounds)))(
        jnp.zeros(2)
    )
    np.testing.assert_array_equal(gradient, bounds)
    with pytest.raises(ShapeError, match="'gradient_min'"):
        losses.clip_gradient(jnp.zeros(3), bounds, 1.0)
    of_mapped_bounds = jax.vmap(
        lambda bound: jax.grad(lambda x: 10 * losses.clip_gradient(x, -bound, bound))(0.0)
    )(bounds)
    np.testing.assert_array_equal(of_mapped_bounds, bounds)
