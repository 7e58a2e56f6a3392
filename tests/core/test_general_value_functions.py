import jax
import numpy as np
import pytest

from agentzoo.core._operator import ShapeError
from agentzoo.core.general_value_functions import (
    feature_control_rewards,
    pixel_control_loss,
    pixel_control_rewards,
)

FEATURES = np.array([[1.0, 2.0], [0.0, 4.0], [3.0, 3.0]], np.float32)  # [T + 1, F]
REWARDS = {
    "feature": [[0, 4], [3, 3]],
    "absolute_change": [[1, 2], [3, 1]],
    "increase": [[-1, 2], [3, -1]],
    "decrease": [[1, -2], [-3, 1]],
    "potential": [[-1, 0], [1.5, -2.5]],
}
TRANSFORMS = pytest.mark.parametrize(
    "transform", [lambda f: f, jax.jit, lambda f: jax.vmap(f, 1, 1)], ids=["plain", "jit", "vmap"]
)


@TRANSFORMS
@pytest.mark.parametrize("kind", REWARDS)
def test_feature_rewards_by_hand(kind, transform):
    rewards = transform(lambda f: feature_control_rewards(f, kind, 0.5))(FEATURES)
    np.testing.assert_array_equal(rewards, REWARDS[kind])


def test_absolute_change_is_the_default_and_integers_promote():
    np.testing.assert_array_equal(
        feature_control_rewards(FEATURES.astype(int)), REWARDS["absolute_change"]
    )
    np.testing.assert_array_equal(feature_control_rewards(FEATURES[:, 0]), [1, 3])


def test_a_potential_is_discounted_step_by_step():
    batch = np.stack([FEATURES, 2 * FEATURES], axis=1)  # [T + 1, B, F]
    for discount in (np.array([0.0, 1.0]), np.array([[0.0, 0.5], [1.0, 0.0]])):
        rewards = feature_control_rewards(batch, "potential", discount)
        full = discount.reshape(2, -1, 1) * np.ones((2, 2, 1))
        np.testing.assert_array_equal(rewards, full * batch[1:] - batch[:-1])


def test_the_gradient_of_a_change():
    grad = jax.grad(lambda f: feature_control_rewards(f).sum())(FEATURES)
    np.testing.assert_array_equal(grad, [[1, -1], [-2, 2], [1, -1]])


def float64_pixel_rewards(observations, cell_size):
    steps, height, width, _ = observations.shape
    change = np.abs(np.diff(observations.astype(np.float64), axis=0))
    rewards = np.zeros((steps - 1, height // cell_size, width // cell_size))
    for t, i, j in np.ndindex(*rewards.shape):
        rewards[t, i, j] = change[
            t, i * cell_size : (i + 1) * cell_size, j * cell_size : (j + 1) * cell_size
        ].mean()
    return rewards


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("cell_size", [1, 2, 3])
def test_pixel_rewards_against_float64(cell_size, dtype):
    observations = np.random.default_rng(0).integers(0, 256, (3, 6, 12, 3)).astype(dtype)
    expected = float64_pixel_rewards(observations, cell_size)
    np.testing.assert_allclose(pixel_control_rewards(observations, cell_size), expected, rtol=1e-6)
    batch = np.stack([observations, observations[::-1]], axis=1)
    rewards = jax.jit(lambda x: pixel_control_rewards(x, cell_size))(batch)
    np.testing.assert_allclose(
        rewards[:, 1], float64_pixel_rewards(observations[::-1], cell_size), rtol=1e-6
    )
    mapped = jax.vmap(lambda x: pixel_control_rewards(x, cell_size), 1, 1)(batch)
    np.testing.assert_allclose(mapped, rewards, rtol=1e-6)


def float64_pixel_loss(observations, a_tm1, action_values, discounts, cell_size):
    """Return half the squared errors of lambda returns with lambda 1, and their derivative."""
    rewards = float64_pixel_rewards(observations, cell_size)
    q = action_values.astype(np.float64)
    losses, grads = np.zeros(rewards.shape), np.zeros(q.shape)
    for i, j in np.ndindex(*rewards.shape[1:]):
        target = q[-1, i, j].max()
        for t in reversed(range(len(rewards))):
            target = rewards[t, i, j] + discounts[t] * target
            error = target - q[t, i, j, a_tm1[t]]
            losses[t, i, j], grads[t, i, j, a_tm1[t]] = 0.5 * error**2, -error
    return losses, grads


@pytest.mark.parametrize("discounts", [0.9, np.array([0.9, 0.0, 0.5])])
def test_pixel_control_against_float64(discounts):
    rng = np.random.default_rng(0)
    observations = rng.random((4, 2, 4, 6, 3)).astype(np.float32)  # [T + 1, B, H, W, C]
    values = rng.normal(size=(4, 2, 2, 3, 5)).astype(np.float32)
    a_tm1 = rng.integers(5, size=(3, 2))
    loss = pixel_control_loss(observations, a_tm1, values, discounts, 2)
    grad = jax.grad(lambda v: pixel_control_loss(observations, a_tm1, v, discounts, 2).sum())(
        values
    )
    for b in range(2):
        expected, gradient = float64_pixel_loss(
            observations[:, b], a_tm1[:, b], values[:, b], np.broadcast_to(discounts, 3), 2
        )
        np.testing.assert_allclose(loss[:, b], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(grad[:, b], gradient, rtol=1e-4, atol=1e-6)
        alone = jax.jit(lambda o, a, v: pixel_control_loss(o, a, v, discounts, 2))(
            observations[:, b], a_tm1[:, b], values[:, b]
        )
        np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1e-6)
    mapped = jax.vmap(lambda o, a, v: pixel_control_loss(o, a, v, discounts, 2), 1, 1)(
        observations, a_tm1, values
    )
    np.testing.assert_allclose(mapped, loss, rtol=1e-5)
    full = np.broadcast_to(np.reshape(discounts, (-1, 1)), (3, 2))
    np.testing.assert_allclose(
        pixel_control_loss(observations, a_tm1, values, full, 2), loss, rtol=1e-6
    )


OBS, VALUES, ACTIONS = np.zeros((4, 4, 6, 3)), np.zeros((4, 2, 3, 5)), np.zeros(3, int)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: feature_control_rewards(FEATURES, "change"),
            ValueError,
            "cumulant_type='change' is unknown",
        ),
        (lambda: feature_control_rewards(FEATURES, "potential"), ValueError, "'discount' is None"),
        (
            lambda: feature_control_rewards(FEATURES, "potential", np.ones(3)),
            ShapeError,
            "'source' has shape",
        ),
        (lambda: feature_control_rewards(1.0), ShapeError, "'features'"),
        (lambda: pixel_control_rewards(OBS, 4), ShapeError, "'cell_size' is"),
        (lambda: pixel_control_rewards(OBS, 0), ShapeError, "'cell_size' is"),
        (lambda: pixel_control_rewards(OBS[0], 2), ShapeError, "'observations' has shape"),
        (
            lambda: pixel_control_loss(OBS, ACTIONS, VALUES[:-1], 0.9, 2),
            ValueError,
            "Pixel Control values are not compatible",
        ),
        (
            lambda: pixel_control_loss(OBS, ACTIONS[:2], VALUES, 0.9, 2),
            ShapeError,
            "'actions' must have shape",
        ),
        (
            lambda: pixel_control_loss(OBS, ACTIONS, VALUES, np.ones((3, 1)), 2),
            ValueError,
            "must be a scalar or a tensor of rank 1",
        ),
        (
            lambda: pixel_control_loss(OBS, ACTIONS, VALUES, np.ones(2), 2),
            ShapeError,
            "discount_factor",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
