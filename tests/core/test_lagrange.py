import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo import core
from agentzoo.core import LagrangePenalty, ShapeError
from tests.core.mpo_oracle import B, D, T, close

RNG = np.random.default_rng(0)
KL, KLS = RNG.uniform(size=(T, B)), RNG.uniform(size=(T, B, D))


def softplus(x):
    return np.log1p(np.exp(x))


def test_kl_constraint_by_hand():
    kl_loss, alpha_loss, alpha = core.kl_constraint_loss(
        2.0, LagrangePenalty(3, 0.5), core.clip_projection
    )
    close([kl_loss, alpha_loss, alpha], [6, -4.5, 3])
    for alphas in (3.0, np.full(D, 3.0), np.full((T, B, D), 3.0)):
        losses = core.kl_constraint_loss(
            KLS, LagrangePenalty(alphas, 0.5, per_dimension=True), core.clip_projection
        )
        close(losses[0], 3 * KLS.sum(-1))
        close(losses[1], 3 * (0.5 - KLS).sum(-1))
        assert losses[2].shape == np.shape(alphas)


@pytest.mark.parametrize("projection", [core.clip_projection, core.softplus_projection])
@pytest.mark.parametrize("alpha", [-0.1, -3.0])
def test_a_dual_below_zero_returns_when_its_constraint_is_violated(projection, alpha):
    @functools.partial(jax.jit, static_argnums=2)
    def descend(alpha, kl, steps):
        gradient = jax.grad(
            lambda alpha: core.kl_constraint_loss(kl, LagrangePenalty(alpha, 0.1), projection)[1]
        )
        return jax.lax.fori_loop(0, steps, lambda _, alpha: alpha - 0.5 * gradient(alpha), alpha)

    alpha = descend(jnp.float32(alpha), 0.5, 300)
    assert projection(alpha) > 1
    alpha = descend(alpha, 0.01, 2000)
    assert 0 < projection(alpha) < 0.2


def test_clip_projection_does_not_wind_up():
    def gradient(x, sign):
        return jax.grad(lambda x: jnp.sum(sign * core.clip_projection(x, minimum=0.5)))(x)

    x = jnp.array([-2.0, 0.5, 1.0])
    close(core.clip_projection(x, minimum=0.5), [0.5, 0.5, 1])
    close(
        gradient(x, 1.0), [0, 1, 1]
    )  # gradient descent would lower x; below the minimum it must not
    close(gradient(x, -1.0), [-1, -1, -1])
    close(jax.vmap(jax.grad(core.clip_projection))(x), [0, 1, 1])
    assert core.clip_projection(-1) == np.float32(1e-10)


def test_softplus_projection_is_positive_with_a_gradient_everywhere():
    x = jnp.array([-80.0, -3.0, 0.0, 80.0])
    close(core.softplus_projection(x), softplus(np.float64(x)) + 1e-10, rtol=1e-5, atol=0)
    assert (jax.vmap(jax.grad(core.softplus_projection))(x) > 0).all()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (
            lambda: core.kl_constraint_loss(
                KL, LagrangePenalty(np.ones(B), 0.1), core.clip_projection
            ),
            "'penalty.alpha'",
        ),
        (
            lambda: core.kl_constraint_loss(
                KLS, LagrangePenalty(1.0, np.ones(B), True), core.clip_projection
            ),
            "'penalty.epsilon'",
        ),
        (
            lambda: core.kl_constraint_loss(
                1.0, LagrangePenalty(1.0, 1.0, True), core.clip_projection
            ),
            "'kl'",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, name):
    with pytest.raises(ShapeError, match=name):
        call()
