import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo.core import ShapeError
from agentzoo.core.policy_targets import (
    PolicyTarget,
    constant_policy_targets,
    sampled_policy_distillation_loss,
    zero_policy_targets,
)

LOGITS = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
KEY = jax.random.key(0)


class Categorical:
    """A distribution without distrax, which has only the required methods."""

    def __init__(self, logits):
        self.logits, self.batch_shape = logits, logits.shape[:-1]

    def sample(self, *, seed, sample_shape):
        return jax.random.categorical(seed, self.logits, shape=(*sample_shape, *self.batch_shape))

    def log_prob(self, actions):
        log_probs = jnp.broadcast_to(
            jax.nn.log_softmax(self.logits), (*actions.shape, self.logits.shape[-1])
        )
        return jnp.take_along_axis(log_probs, actions[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize("kind", [Categorical, distrax.Categorical])
def test_constant_targets_are_samples_of_one_weight(kind):
    distribution = kind(LOGITS)
    targets = constant_policy_targets(distribution, KEY, 5, 0.25)
    np.testing.assert_array_equal(targets.actions, distribution.sample(seed=KEY, sample_shape=(5,)))
    np.testing.assert_array_equal(targets.weights, np.full((5, 2, 3), 0.25))
    np.testing.assert_array_equal(
        zero_policy_targets(distribution, KEY, 5).weights, np.zeros((5, 2, 3))
    )
    np.testing.assert_array_equal(
        zero_policy_targets(distribution, KEY, 5).actions, targets.actions
    )
    assert constant_policy_targets(distribution, KEY, 5, 1).weights.dtype == jnp.float32


@pytest.mark.slow
def test_actions_may_be_vectors():
    distribution = distrax.MultivariateNormalDiag(jnp.zeros((2, 3)), jnp.ones((2, 3)))
    targets = constant_policy_targets(distribution, KEY, 5)
    assert (targets.actions.shape, targets.weights.shape) == ((5, 2, 3), (5, 2))
    expected = 0.5 * (np.square(targets.actions).sum(-1).mean() + 3 * np.log(2 * np.pi))
    np.testing.assert_allclose(
        sampled_policy_distillation_loss(distribution, targets), expected, rtol=1e-5
    )


def numpy_loss(logits, actions, weights):
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.array(
        [-weights[i] * log_probs[i[1:]][actions[i]] for i in np.ndindex(*actions.shape)]
    ).reshape(actions.shape)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_distillation_against_an_oracle(transform):
    rng = np.random.default_rng(1)
    targets = PolicyTarget(rng.integers(4, size=(5, 2, 3)), rng.uniform(size=(5, 2, 3)))
    expected = numpy_loss(LOGITS.astype(float), *targets)
    for reduction, value in {
        "none": expected,
        "mean": expected.mean(),
        "masked_mean": expected.sum() / targets.weights.sum(),
    }.items():
        loss = transform(
            lambda logits, r=reduction: sampled_policy_distillation_loss(
                Categorical(logits), targets, reduction=r
            )
        )(LOGITS)
        np.testing.assert_allclose(loss, value, rtol=1e-5)
    mapped = jax.vmap(
        lambda logits, actions, weights: sampled_policy_distillation_loss(
            Categorical(logits), PolicyTarget(actions, weights)
        ),
        in_axes=(0, 1, 1),
    )(LOGITS, *targets)
    np.testing.assert_allclose(mapped, expected.mean((0, 2)), rtol=1e-5)


def test_value_by_hand():
    targets = PolicyTarget(np.array([0, 1]), np.array([0.5, 0.0]))
    distribution = Categorical(jnp.log(jnp.array([[0.7, 0.3], [0.9, 0.1]])))
    np.testing.assert_allclose(
        sampled_policy_distillation_loss(distribution, targets), -0.25 * np.log(0.7), rtol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("stop", [True, False])
def test_gradients(stop):
    actions = jnp.array([[0.5, -1.0], [2.0, 0.0]])

    def loss(mean, actions, weights):
        distribution = distrax.MultivariateNormalDiag(mean, jnp.ones_like(mean))
        return sampled_policy_distillation_loss(
            distribution, PolicyTarget(actions, weights), stop_target_gradients=stop
        )

    weights = jnp.array([1.0, 3.0])
    of_mean, of_actions, of_weights = jax.grad(loss, argnums=(0, 1, 2))(
        jnp.ones(2), actions, weights
    )
    pull = weights[:, None] * (actions - 1) / 2
    np.testing.assert_allclose(of_mean, -pull.sum(0), rtol=1e-5)
    np.testing.assert_allclose(of_actions, np.zeros((2, 2)) if stop else pull, rtol=1e-5)
    log_prob = -0.5 * np.square(actions - 1).sum(-1) - np.log(2 * np.pi)
    np.testing.assert_allclose(of_weights, np.zeros(2) if stop else -log_prob / 2, rtol=1e-5)


def test_shapes_that_do_not_fit_are_named():
    targets = constant_policy_targets(Categorical(LOGITS), KEY, 5)
    with pytest.raises(ShapeError, match=r"'policy_targets.weights'"):
        sampled_policy_distillation_loss(
            Categorical(LOGITS), targets._replace(weights=jnp.ones((5, 1, 3)))
        )
