import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo.core import categorical_values, returns
from agentzoo.core._operator import ShapeError
from agentzoo.core.n_step import n_step_transitions

T, B = 7, 3


def trajectory(seed=0):
    rng = np.random.default_rng(seed)
    discount = 0.9 * (rng.random((T, B)) < 0.8)
    return rng.normal(size=(T, B)), discount, (rng.random((T, B)) < 0.3) | (discount == 0)


def loops(r, discount, n, last=None):
    """Return the rewards and discounts of one trajectory, and the steps it bootstraps from."""
    rewards, discounts, steps = np.zeros(T), np.ones(T), np.zeros(T, int)
    for t in range(T):
        for k in range(t, min(t + n, T)):
            rewards[t] += discounts[t] * r[k]
            discounts[t] *= discount[k]
            steps[t] = k
            if last is not None and last[k]:
                break
    return rewards, discounts, steps


@pytest.mark.parametrize(
    "how", [lambda f: f, jax.jit, lambda f: jax.vmap(f, 1, 1)], ids=["plain", "jit", "vmap"]
)
@pytest.mark.parametrize("n", [1, 3, 20])
@pytest.mark.parametrize("truncated", [False, True])
def test_against_loops(n, truncated, how):
    r, discount, last = trajectory()
    values = {
        "time": np.tile(np.arange(T)[:, None], (1, B)),
        "logits": np.random.default_rng(1).normal(size=(T, B, 2, 4)),
    }
    if truncated:
        found = how(lambda r, d, v, last: n_step_transitions(r, d, v, n, last_t=last))(
            r, discount, values, last
        )
    else:
        found = how(lambda r, d, v: n_step_transitions(r, d, v, n))(r, discount, values)
    for b in range(B):
        rewards, discounts, steps = loops(
            r[:, b], discount[:, b], n, last[:, b] if truncated else None
        )
        np.testing.assert_allclose(found.r_t[:, b], rewards, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.discount_t[:, b], discounts, rtol=1e-5)
        np.testing.assert_array_equal(found.bootstrap_t["time"][:, b], steps)
        np.testing.assert_array_equal(
            found.bootstrap_t["logits"][:, b], values["logits"][steps, b].astype(np.float32)
        )


@jax.numpy_rank_promotion("raise")
def test_means_of_targets_are_n_step_returns():
    r, discount, last = trajectory()
    v = np.random.default_rng(2).normal(size=(T, B))
    steps = n_step_transitions(r, discount, v, 3, last_t=last)
    expected = returns.n_step_bootstrapped_returns(r, discount, v, 3, last_t=last)
    np.testing.assert_allclose(
        steps.r_t + steps.discount_t * steps.bootstrap_t, expected, rtol=1e-5, atol=1e-6
    )


def test_categorical_loss_over_n_steps():
    r, discount, _ = trajectory()
    rng, atoms = np.random.default_rng(3), np.linspace(-4, 4, 9)
    logits_tm1, logits_t, a_tm1 = (
        rng.normal(size=(T, B, 2, 9)),
        rng.normal(size=(T, B, 2, 9)),
        rng.integers(2, size=(T, B)),
    )
    steps = n_step_transitions(r, discount, logits_t, 3)
    found = categorical_values.categorical_q_learning(
        atoms, logits_tm1, a_tm1, steps.r_t, steps.discount_t, atoms, steps.bootstrap_t
    )
    assert found.shape == (T, B)
    # The first transition by hand: three rewards, and then the distribution at the destination of
    # the third step.
    reward, product, (k, *_) = loops(r[:, 0], discount[:, 0], 3)
    one = categorical_values.categorical_q_learning(
        atoms, logits_tm1[0, 0], a_tm1[0, 0], reward[0], product[0], atoms, logits_t[k, 0]
    )
    np.testing.assert_allclose(found[0, 0], one, rtol=1e-5)


def test_masked_steps_are_zero_and_not_crossed():
    r, discount = np.ones(4), np.ones(4)
    mask = np.array([1.0, 1.0, 0.0, 1.0])
    steps = n_step_transitions(r, discount, np.arange(4.0), 3, mask=mask)
    np.testing.assert_allclose(steps.r_t, [2, 1, 0, 1])
    np.testing.assert_allclose(steps.discount_t, [1, 1, 0, 1])
    np.testing.assert_allclose(steps.bootstrap_t[jnp.array([0, 1, 3])], [1, 1, 3])


def test_dtypes_scalars_and_bad_arguments():
    steps = n_step_transitions(jnp.ones(T, jnp.bfloat16), 0.5, jnp.arange(T), 2)
    assert (steps.r_t.dtype, steps.discount_t.dtype, steps.bootstrap_t.dtype) == (
        jnp.bfloat16,
        jnp.float32,
        jnp.int32,
    )
    np.testing.assert_allclose(steps.discount_t, [0.25] * (T - 1) + [0.5])
    with pytest.raises(ShapeError, match="'bootstrap_t'"):
        n_step_transitions(np.ones((T, B)), 0.5, np.ones((T, 1)), 2)
    with pytest.raises(ShapeError, match="'discount_t'"):
        n_step_transitions(np.ones((T, B)), np.ones((T, 1)), np.ones((T, B)), 2)
    with pytest.raises(ShapeError, match="'r_t'"):
        n_step_transitions(1.0, 0.5, np.ones(T), 2)
    with pytest.raises(ValueError, match="'n'"):
        n_step_transitions(np.ones(T), 0.5, np.ones(T), 0)
    with pytest.raises(TypeError, match="'n' must be a Python value"):
        jax.jit(lambda n: n_step_transitions(np.ones(T), 0.5, np.ones(T), n))(2)
