import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo.core import ShapeError, returns
from agentzoo.core.vtrace import (
    VTraceOutput,
    leaky_vtrace,
    leaky_vtrace_td_error_and_advantage,
    vtrace,
    vtrace_td_error_and_advantage,
)
from tests.core.oracle import STEPS, check, same, trajectories

STEP_NAMES = ("v_tm1", "v_t", "r_t", "discount_t", "rho_tm1")


def loop(
    v_tm1,
    v_t,
    r_t,
    discount_t,
    rho_tm1,
    lambda_=1.0,
    rho_clip=1.0,
    pg_rho_clip=1.0,
    alpha=1.0,
    sample_mask=None,
):
    steps = len(r_t)
    lambda_ = np.broadcast_to(lambda_, steps)
    happened = np.ones(steps) if sample_mask is None else sample_mask
    errors, pg_advantage, q_estimate = np.zeros((3, steps))

    def weight(clip, t):
        return alpha * min(clip, rho_tm1[t]) + (1 - alpha) * rho_tm1[t]

    for t in reversed(range(steps)):
        if not happened[t]:
            continue
        goes_on = t < steps - 1 and happened[t + 1]
        trace = lambda_[t] * weight(1.0, t) * errors[t + 1] if goes_on else 0.0
        errors[t] = (
            weight(rho_clip, t) * (r_t[t] + discount_t[t] * v_t[t] - v_tm1[t])
            + discount_t[t] * trace
        )
        target_t = v_tm1[t + 1] + errors[t + 1] if goes_on else v_t[t]
        q_estimate[t] = r_t[t] + discount_t[t] * ((1 - lambda_[t]) * v_t[t] + lambda_[t] * target_t)
        pg_advantage[t] = weight(pg_rho_clip, t) * (q_estimate[t] - v_tm1[t])
    return VTraceOutput(errors, pg_advantage, q_estimate)


def errors_loop(**arguments):
    return loop(**arguments).errors


CASES = {
    "vtrace": (vtrace, errors_loop, {"clip_rho_threshold": 1.3}),
    "leaky": (leaky_vtrace, errors_loop, {"alpha_": 0.3, "clip_rho_threshold": 1.3}),
    "vtrace and advantage": (
        vtrace_td_error_and_advantage,
        loop,
        {"clip_rho_threshold": 1.3, "clip_pg_rho_threshold": 0.7},
    ),
    "leaky and advantage": (
        leaky_vtrace_td_error_and_advantage,
        loop,
        {"alpha": 0.3, "clip_pg_rho_threshold": 0.7},
    ),
}
RENAMED = {
    "clip_rho_threshold": "rho_clip",
    "clip_pg_rho_threshold": "pg_rho_clip",
    "alpha_": "alpha",
}


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("case", CASES)
def test_loops_in_float64_however_it_is_called(case, masked):
    operator, expected, options = CASES[case]
    arguments = {name: trajectories()[name] for name in (*STEP_NAMES, "lambda_")}
    if masked:
        arguments["sample_mask"] = trajectories()["mask"]
    check(
        functools.partial(operator, stop_target_gradients=False, **options),
        functools.partial(
            expected, **{RENAMED.get(name, name): value for name, value in options.items()}
        ),
        arguments,
        differentiate=(*STEP_NAMES, "lambda_"),
    )


def test_values_by_hand():
    v_tm1, v_t, r_t = np.array([1.0, 3.0]), np.array([3.0, 5.0]), np.array([2.0, 1.0])
    rho_tm1 = np.array([0.5, 2.0])
    output = vtrace_td_error_and_advantage(v_tm1, v_t, r_t, 0.5, rho_tm1)
    last = 1 + 0.5 * 5 - 3
    same(output.errors, np.array([0.5 * (2 + 0.5 * 3 - 1) + 0.5 * 0.5 * last, last]))
    same(output.q_estimate, np.array([2 + 0.5 * (3 + last), 1 + 0.5 * 5]))
    same(output.pg_advantage, np.array([0.5 * (2 + 0.5 * (3 + last) - 1), last]))


def whole_trajectory():
    x = {name: jnp.asarray(value, jnp.float32) for name, value in trajectories().items()}
    return x | {"v_tm1": x["values"][:-1], "v_t": x["values"][1:]}


@pytest.mark.slow
def test_identities():
    x = whole_trajectory()
    v_tm1, v_t, r_t, discount_t, rho_tm1, lambda_ = (x[name] for name in (*STEP_NAMES, "lambda_"))
    steps = v_tm1, v_t, r_t, discount_t
    # On policy, the targets are n-step returns, or lambda-returns with lambda < 1.
    same(
        vtrace(*steps, 1.0),
        returns.n_step_bootstrapped_returns(r_t, discount_t, v_t, STEPS) - v_tm1,
    )
    same(
        vtrace(*steps, 1.0, lambda_), returns.lambda_returns(r_t, discount_t, v_t, lambda_) - v_tm1
    )
    on_policy = vtrace_td_error_and_advantage(*steps, 1.0, lambda_)
    same(on_policy.pg_advantage, on_policy.errors)
    # Alpha lies between V-trace and plain importance sampling.
    same(leaky_vtrace(*steps, rho_tm1, 1.0, lambda_, 1.3), vtrace(*steps, rho_tm1, lambda_, 1.3))
    importance = returns.importance_corrected_td_errors(
        r_t, discount_t, rho_tm1, lambda_, x["values"]
    )
    same(leaky_vtrace(*steps, rho_tm1, 0.0, lambda_), importance)
    same(vtrace(*steps, jnp.minimum(rho_tm1, 1), lambda_), vtrace(*steps, rho_tm1, lambda_))
    same(
        leaky_vtrace_td_error_and_advantage(*steps, rho_tm1, 1.0, lambda_),
        vtrace_td_error_and_advantage(*steps, rho_tm1, lambda_),
    )


def test_both_names_of_alpha():
    x = whole_trajectory()
    steps = [x[name] for name in STEP_NAMES]
    same(leaky_vtrace(*steps, alpha=0.3), leaky_vtrace(*steps, alpha_=0.3))
    same(
        leaky_vtrace_td_error_and_advantage(*steps, alpha_=0.3),
        leaky_vtrace_td_error_and_advantage(*steps, alpha=0.3),
    )


def test_a_truncation_divides_a_trajectory_into_two():
    x = {name: jnp.asarray(trajectories()[name], jnp.float32) for name in STEP_NAMES}
    cut = 3
    lambda_ = 0.9 * jnp.ones_like(x["r_t"]).at[cut - 1].set(0)
    whole = vtrace_td_error_and_advantage(**x, lambda_=lambda_)
    halves = [
        vtrace_td_error_and_advantage(
            **{name: value[part] for name, value in x.items()}, lambda_=0.9
        )
        for part in (slice(cut), slice(cut, None))
    ]
    same(whole, jax.tree.map(lambda *parts: jnp.concatenate(parts), *halves))


def test_masked_steps_are_worth_nothing_whatever_stands_in_them():
    x = {name: np.asarray(trajectories()[name][:, 0], np.float32) for name in STEP_NAMES}
    mask = np.array([True] * 4 + [False] * 2)
    for name in STEP_NAMES:
        x[name][~mask] = np.nan

    def loss(v_tm1):
        output = vtrace_td_error_and_advantage(
            **{**x, "v_tm1": v_tm1}, lambda_=0.9, sample_mask=mask
        )
        return jnp.square(output.errors).sum(), output

    gradient, output = jax.grad(loss, has_aux=True)(x["v_tm1"])
    shortened = vtrace_td_error_and_advantage(
        **{name: value[:4] for name, value in x.items()}, lambda_=0.9
    )
    same(output, jax.tree.map(lambda y: jnp.append(y, jnp.zeros(2)), shortened))
    np.testing.assert_array_equal(gradient[~mask], 0)


def test_an_infinite_ratio_is_clipped():
    x = {name: trajectories()[name][:, 0] for name in STEP_NAMES}
    finite = vtrace_td_error_and_advantage(**x | {"rho_tm1": np.full(STEPS, 5.0)})
    same(vtrace_td_error_and_advantage(**x | {"rho_tm1": np.full(STEPS, np.inf)}), finite)


def test_only_the_prediction_has_a_gradient_unless_asked():
    x = {
        name: jnp.asarray(trajectories()[name][:, 0], jnp.float32)
        for name in (*STEP_NAMES, "lambda_")
    }
    jacobian = jax.jacobian(lambda x: vtrace_td_error_and_advantage(**x))(x)
    for name in x:
        expected = -np.eye(STEPS) if name == "v_tm1" else np.zeros((STEPS, STEPS))
        np.testing.assert_array_equal(jacobian.errors[name], expected)
        np.testing.assert_array_equal(jacobian.pg_advantage[name], 0)
        np.testing.assert_array_equal(jacobian.q_estimate[name], 0)


def test_low_precision_is_accumulated_in_float32():
    v = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, 1001), jnp.bfloat16)
    r_t, discount_t = v[1:], jnp.full(1000, 0.99, jnp.bfloat16)
    errors = vtrace(v[:-1], v[1:], r_t, discount_t, jnp.ones_like(r_t))
    assert errors.dtype == jnp.bfloat16
    exact = [np.asarray(x, np.float64) for x in (v[:-1], v[1:], r_t, discount_t, jnp.ones(1000))]
    np.testing.assert_allclose(
        np.asarray(errors, float), loop(*exact).errors, rtol=2**-8, atol=1e-3
    )


def test_integers_scalars_and_empty_trajectories():
    output = vtrace_td_error_and_advantage(np.array([1, 2]), np.array([2, 3]), 1, 1, 1)
    assert {x.dtype for x in output} == {jnp.dtype("float32")}
    same(output.errors, np.array([1 + 1 + 3 - 1.0, 1 + 3 - 2.0]))
    empty = np.zeros((0, 2))
    assert {x.shape for x in vtrace_td_error_and_advantage(empty, empty, empty, empty, empty)} == {
        (0, 2)
    }


@settings(deadline=None, max_examples=8)
@given(
    st.integers(0, 4),
    st.lists(st.integers(1, 3), max_size=2),
    st.sampled_from(["int8", "float32", "bfloat16", "float16"]),
)
def test_any_length_batch_axes_and_dtypes(steps, batch, dtype):
    x = jnp.ones((steps, *batch), dtype)
    dtype = jnp.dtype("float32" if dtype == "int8" else dtype)

    def results():  # only traced: shapes and dtypes need no compilation
        return (
            vtrace(x, x, x, 1, x, 0.5),
            leaky_vtrace(x, x, 1, x, 1, 0.5, sample_mask=x > 0),
            vtrace_td_error_and_advantage(x, x, 1, x, x, sample_mask=x > 0),
            leaky_vtrace_td_error_and_advantage(x, x, x, x, x, 0.5, x),
        )

    assert {(r.shape, r.dtype) for r in jax.tree.leaves(jax.eval_shape(results))} == {
        (x.shape, dtype)
    }


@pytest.mark.parametrize(
    "operator",
    [vtrace, leaky_vtrace, vtrace_td_error_and_advantage, leaky_vtrace_td_error_and_advantage],
)
@pytest.mark.parametrize("name", [*STEP_NAMES, "lambda_", "sample_mask"])
def test_shapes_that_do_not_fit_are_named(operator, name):
    arguments = {key: np.zeros(3) for key in (*STEP_NAMES, "lambda_", "sample_mask")}
    arguments[name] = np.zeros(1)
    expected = "v_t" if name == "v_tm1" else name  # the first argument that differs from `v_tm1`
    with pytest.raises(ShapeError, match=f"{operator.__name__}: '{expected}'"):
        operator(**arguments)


def test_thresholds_are_scalars():
    x = {name: np.zeros(3) for name in STEP_NAMES}
    with pytest.raises(ShapeError, match="'clip_rho_threshold'"):
        vtrace(**x, clip_rho_threshold=np.ones(3))
    with pytest.raises(ShapeError, match="'alpha'"):
        leaky_vtrace(**x, alpha_=np.ones(3))


@pytest.mark.parametrize("log_rho", [100.0, -100.0, np.inf, -np.inf])
def test_extreme_importance_ratios(log_rho):
    """An infinite ratio counts as the threshold, and a ratio of 0 leaves nothing to learn."""
    v = np.zeros(3, np.float32)
    result = vtrace_td_error_and_advantage(v, v, v + 1, v + 0.9, jnp.exp(v + log_rho))
    for x in (result.errors, result.pg_advantage):
        np.testing.assert_allclose(x, [2.71, 1.9, 1.0] if log_rho > 0 else [0, 0, 0], rtol=1e-6)
