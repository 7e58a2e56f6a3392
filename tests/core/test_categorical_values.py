import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo.core import categorical_values as cv
from agentzoo.core import transforms
from agentzoo.core._operator import ShapeError
from tests.core.stepwise import every_way

B, A, K, L = 4, 3, 5, 7


def project(z_p, probs, z_q):
    """Project a distribution in plain loops, one atom after another."""
    result = np.zeros(len(z_q))
    for z, p in zip(z_p, probs, strict=True):
        z = np.clip(z, z_q[0], z_q[-1])
        right = int(np.searchsorted(z_q, z))
        if z_q[right] == z:
            result[right] += p
        else:
            share = (z - z_q[right - 1]) / (z_q[right] - z_q[right - 1])
            result[right - 1] += p * (1 - share)
            result[right] += p * share
    return result


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def td_loss(atoms_tm1, logits_tm1, r, discount, atoms_t, logits_t):
    target = project(r + discount * atoms_t, softmax(logits_t), atoms_tm1)
    return -(target * np.log(softmax(logits_tm1))).sum()


def q_loss(atoms_tm1, logits_tm1, a, r, discount, atoms_t, logits_t, selector=None):
    selector = (softmax(logits_t) * atoms_t).sum(-1) if selector is None else selector
    return td_loss(
        atoms_tm1, logits_tm1[a], r, discount, atoms_t, logits_t[int(np.argmax(selector))]
    )


def batch(seed=0, shape=(B,)):
    """Return arguments of `categorical_double_q_learning`, with uneven atoms for each step."""
    rng = np.random.default_rng(seed)
    atoms_tm1 = np.sort(rng.normal(size=(*shape, K)) * 3)
    atoms_t = np.sort(rng.normal(size=(*shape, L)) * 3)
    return (
        atoms_tm1,
        rng.normal(size=(*shape, A, K)),
        rng.integers(A, size=shape),
        rng.normal(size=shape),
        rng.uniform(0, 1, shape),
        atoms_t,
        rng.normal(size=(*shape, A, L)),
        rng.normal(size=(*shape, A)),
    )


def single(arguments):
    """Return arguments of `categorical_td_learning`."""
    atoms_tm1, logits_tm1, _, r, discount, atoms_t, logits_t, _ = arguments
    return atoms_tm1, logits_tm1[..., 0, :], r, discount, atoms_t, logits_t[..., 0, :]


OPERATORS = [
    (cv.categorical_td_learning, td_loss, single),
    (cv.categorical_q_learning, q_loss, lambda arguments: arguments[:-1]),
    (cv.categorical_double_q_learning, q_loss, lambda arguments: arguments),
]
OPERATOR_IDS = ["td", "q", "double_q"]


def test_projection_by_hand():
    # 0.5 lies halfway between 0 and 1, and -7 and 9 are clipped to the range.
    z_p, probs = np.array([0.5, -7.0, 9.0, 2.0]), np.array([0.4, 0.1, 0.2, 0.3])
    projected = cv.categorical_l2_project(z_p, probs, np.array([-1.0, 0.0, 1.0, 3.0]))
    np.testing.assert_allclose(projected, [0.1, 0.2, 0.2 + 0.15, 0.15 + 0.2], rtol=1e-6)
    # A single atom takes all the probability.
    np.testing.assert_allclose(cv.categorical_l2_project(z_p, probs, np.array([0.0])), [1.0])


@settings(deadline=None, max_examples=8)
@given(st.sampled_from([(), (2,), (2, 3)]), st.booleans(), st.booleans(), st.integers(0, 2**31))
def test_projection_against_loops(leading, own_p, own_q, seed):
    rng = np.random.default_rng(seed)
    z_p = rng.normal(size=(*leading, L) if own_p else L) * 3
    z_q = np.sort(rng.normal(size=(*leading, K) if own_q else K), axis=-1)
    probs = rng.dirichlet(np.ones(L), size=leading)
    found = cv.categorical_l2_project(z_p, probs, z_q)
    expected = np.zeros((*leading, K))
    for i in np.ndindex(*leading):
        expected[i] = project(z_p[i] if own_p else z_p, probs[i], z_q[i] if own_q else z_q)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_projection_keeps_the_mean_the_mass_and_its_own_atoms():
    rng = np.random.default_rng(0)
    probs, atoms = rng.dirichlet(np.ones(L), size=B), np.linspace(-10, 10, 51)
    inside = rng.uniform(-10, 10, (B, L))
    projected = cv.categorical_l2_project(inside, probs, atoms)
    np.testing.assert_allclose(projected.sum(-1), np.ones(B), rtol=1e-6)
    np.testing.assert_allclose(projected @ atoms, (probs * inside).sum(-1), atol=1e-5)
    again = cv.categorical_l2_project(atoms, projected, atoms)
    np.testing.assert_allclose(again, projected, atol=1e-7)


def test_coinciding_atoms_keep_the_mass():
    # RLax turns the total probability of 1 into 1.9 here.
    atoms = np.array([0.0, 1.0, 1.0, 2.0])
    projected = cv.categorical_l2_project(atoms, np.array([0.1, 0.2, 0.3, 0.4]), atoms)
    np.testing.assert_allclose(projected.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(projected[jnp.array([0, 3])], [0.1, 0.4], rtol=1e-6)


@pytest.mark.parametrize(("operator", "oracle", "of"), OPERATORS, ids=OPERATOR_IDS)
def test_losses_against_loops(operator, oracle, of):
    arguments = of(batch())
    expected = [oracle(*(x[b] for x in arguments)) for b in range(B)]
    for how, found in every_way(lambda x: operator(*x), arguments, axes=1).items():
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=how)


@pytest.mark.parametrize(("operator", "oracle", "of"), OPERATORS, ids=OPERATOR_IDS)
def test_atoms_that_all_steps_share_and_any_leading_axes(operator, oracle, of):
    arguments = list(of(batch(1, (2, 3))))
    places = [0, 4 if operator is cv.categorical_td_learning else 5]
    for place in places:
        arguments[place] = arguments[place][0, 0]
    found = operator(*arguments)
    assert found.shape == (2, 3)
    for i in np.ndindex(2, 3):
        one = [x if j in places else x[i] for j, x in enumerate(arguments)]
        np.testing.assert_allclose(found[i], oracle(*one), rtol=1e-5)
        if i == (0, 0):
            assert operator(*one).shape == ()


@pytest.mark.parametrize(("operator", "oracle", "of"), OPERATORS, ids=OPERATOR_IDS)
def test_gradient_of_logits_is_probability_less_target(operator, oracle, of):
    arguments = of(batch())
    found = jax.jit(jax.grad(lambda logits: operator(arguments[0], logits, *arguments[2:]).sum()))(
        arguments[1]
    )
    step = 1e-6
    for place in [(0, 0, 1), (1, 2, 3), (3, 1, 4)]:
        b, *place = place if found.ndim == 3 else (place[0], place[2])
        shifted = [[x[b].copy() for x in arguments] for _ in range(2)]
        shifted[0][1][tuple(place)] += step
        shifted[1][1][tuple(place)] -= step
        difference = (oracle(*shifted[0]) - oracle(*shifted[1])) / (2 * step)
        np.testing.assert_allclose(found[(b, *place)], difference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("operator", "oracle", "of"), OPERATORS, ids=OPERATOR_IDS)
@pytest.mark.parametrize("stop", [True, False])
def test_gradient_reaches_the_target_only_if_asked(operator, oracle, of, stop):
    arguments = list(of(batch()))
    place = 2 if operator is cv.categorical_td_learning else 3  # the position of the rewards

    def loss(r_t):
        return operator(
            *arguments[:place], r_t, *arguments[place + 1 :], stop_target_gradients=stop
        ).sum()

    found = jax.jit(jax.grad(loss))(arguments[place])
    if stop:
        np.testing.assert_array_equal(found, np.zeros(B))
        return
    step = 1e-5
    for b in range(B):
        up, down = (
            [x[b] + sign * step if i == place else x[b] for i, x in enumerate(arguments)]
            for sign in (1, -1)
        )
        np.testing.assert_allclose(
            found[b], (oracle(*up) - oracle(*down)) / (2 * step), rtol=1e-3, atol=1e-5
        )


def test_double_q_learning_of_the_mean_is_q_learning():
    *arguments, _ = batch()
    means = (softmax(arguments[6]) * arguments[5][:, None]).sum(-1)
    np.testing.assert_allclose(
        cv.categorical_double_q_learning(*arguments, means),
        cv.categorical_q_learning(*arguments),
        rtol=1e-6,
    )


def test_excluded_atoms_cost_nothing_and_leave_gradients_finite():
    atoms, r_t, discount_t = np.linspace(-1, 1, K), np.zeros(2), np.ones(2)
    logits = np.array([[0.0, 1.0, -np.inf, 2.0, 0.5], [1.0, -np.inf, -np.inf, 0.0, 3.0]])

    def loss(logits_tm1, logits_t, stop):
        return cv.categorical_td_learning(
            atoms, logits_tm1, r_t, discount_t, atoms, logits_t, stop
        ).sum()

    for stop in (True, False):
        value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=2)(
            logits, logits, stop
        )
        np.testing.assert_allclose(
            value, -sum((p[p > 0] * np.log(p[p > 0])).sum() for p in softmax(logits)), rtol=1e-5
        )
        assert all(np.isfinite(g).all() for g in gradients)
        np.testing.assert_allclose(gradients[0], np.zeros((2, K)), atol=1e-6)


def test_no_warning_is_raised():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cv.categorical_td_learning(
            np.arange(3.0), np.zeros(3), 0.0, 1.0, np.arange(3.0), np.zeros(3)
        )


def test_actions_out_of_range_are_nan():
    arguments = [x[0] for x in batch()]
    for action in (-1, A):
        assert np.isnan(cv.categorical_double_q_learning(*arguments[:2], action, *arguments[3:]))
        assert np.isnan(cv.categorical_q_learning(*arguments[:2], action, *arguments[3:-1]))


@pytest.mark.parametrize(
    ("place", "value", "name"),
    [
        (0, np.zeros((B, K + 1)), "q_atoms_tm1"),
        (0, np.zeros((1, K)), "q_atoms_tm1"),
        (1, np.zeros((B, A + 1, K)), "q_logits_t"),
        (1, np.zeros(K), "q_logits_tm1"),
        (2, np.zeros(1, int), "a_tm1"),
        (3, np.zeros(1), "r_t"),
        (4, np.zeros((B, 1)), "discount_t"),
        (5, 1.0, "q_atoms_t"),
        (6, np.zeros((B + 1, A, L)), "q_logits_t"),
        (7, np.zeros((B, 1)), "q_t_selector"),
    ],
)
def test_shapes_that_do_not_fit_are_named(place, value, name):
    arguments = list(batch())
    arguments[place] = value
    with pytest.raises(ShapeError, match=f"categorical_double_q_learning: '{name}'"):
        cv.categorical_double_q_learning(*arguments)


def test_projection_names_what_does_not_fit():
    for arguments, name in [
        (([1.0], [[0.5, 0.5]], [0.0]), "z_p"),
        (([1.0], [1.0], 0.0), "z_q"),
        ((1.0, 1.0, [0.0]), "probs"),
    ]:
        with pytest.raises(ShapeError, match=f"'{name}'"):
            cv.categorical_l2_project(*map(np.array, arguments))


def test_dtypes():
    arguments = batch()
    wide = cv.categorical_double_q_learning(*arguments)
    assert wide.dtype == jnp.float32
    narrow = [jnp.asarray(x, jnp.bfloat16) if x.dtype == float else x for x in arguments]
    found = cv.categorical_double_q_learning(*narrow)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(float), wide, rtol=0.1)
    atoms = np.arange(3)
    assert (
        cv.categorical_td_learning(
            atoms, np.array([0, 1, 0]), 1, 0, atoms, np.array([1, 0, 2])
        ).dtype
        == jnp.float32
    )


# Regression by classification.

LOSSES = [
    (cv.two_hot_loss, transforms.transform_to_2hot),
    (cv.hl_gauss_loss, transforms.transform_to_hl_gauss),
]


@pytest.mark.parametrize(("loss", "encode"), LOSSES, ids=["two_hot", "hl_gauss"])
def test_value_losses_are_cross_entropies_with_the_encoding(loss, encode):
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(B, K)), np.array([-3.0, -0.7, 0.2, 5.0])
    labels = np.asarray(encode(targets, -2, 2, K), np.float64)
    for how, found in every_way(lambda x: loss(*x, -2, 2), (logits, targets), axes=1).items():
        np.testing.assert_allclose(
            found, -(labels * np.log(softmax(logits))).sum(-1), rtol=1e-5, err_msg=how
        )
    gradients = jax.grad(lambda *x: loss(*x, -2, 2).sum(), (0, 1))(logits, targets)
    np.testing.assert_allclose(gradients[0], softmax(logits) - labels, atol=1e-6)
    np.testing.assert_array_equal(gradients[1], np.zeros(B))


def test_width_of_hl_gauss():
    logits, labels = (
        np.arange(5.0),
        np.asarray(transforms.transform_to_hl_gauss(0.3, -1, 1, 5, 0.2)),
    )
    np.testing.assert_allclose(
        cv.hl_gauss_loss(logits, 0.3, -1, 1, sigma_ratio=0.2),
        -(labels * np.log(softmax(logits))).sum(),
        rtol=1e-5,
    )


@pytest.mark.parametrize(("loss", "encode"), LOSSES, ids=["two_hot", "hl_gauss"])
def test_value_losses_name_what_does_not_fit(loss, encode):
    with pytest.raises(ShapeError, match="'targets'"):
        loss(np.zeros((B, K)), np.zeros((B, 1)), -1, 1)
    with pytest.raises(ShapeError, match="'logits'"):
        loss(0.0, 0.0, -1, 1)
    assert loss(np.zeros((B, K)), 0.0, -1, 1).shape == (B,)
    assert loss(jnp.zeros(K, jnp.bfloat16), jnp.bfloat16(0), -1, 1).dtype == jnp.bfloat16
