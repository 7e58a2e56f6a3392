import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo.core import ShapeError, returns, traces
from tests.core.oracle import ACTIONS, STEPS, check, same, trajectories
from tests.core.test_returns import action_values_loop, lambda_loop, off_policy_loop


def taken(q, a):
    return q[np.arange(len(a)), a]


def td_loop(v_tm1, r_t, discount_t, v_t, lambda_):
    return lambda_loop(r_t, discount_t, v_t, lambda_) - v_tm1


def sarsa_loop(q_tm1, a_tm1, r_t, discount_t, q_t, a_t, lambda_):
    return lambda_loop(r_t, discount_t, taken(q_t, a_t), lambda_) - taken(q_tm1, a_tm1)


def q_loop(q_tm1, a_tm1, r_t, discount_t, q_t, lambda_):
    return lambda_loop(r_t, discount_t, q_t.max(axis=-1), lambda_) - taken(q_tm1, a_tm1)


def retrace_loop(q_tm1, q_t, a_tm1, a_t, r_t, discount_t, pi_t, mu_t, lambda_):
    c_t = lambda_ * np.minimum(1, taken(pi_t, a_t) / mu_t)
    return action_values_loop(q_t, a_t, r_t, discount_t, c_t, pi_t) - taken(q_tm1, a_tm1)


def retrace_continuous_loop(q_tm1, q_t, v_t, r_t, discount_t, log_rhos, lambda_):
    return (
        off_policy_loop(q_t, v_t, r_t, discount_t, lambda_ * np.minimum(1, np.exp(log_rhos)))
        - q_tm1
    )


def arguments(*names, **others):
    everything = trajectories()
    return {name: everything[name] for name in names} | others


def short(name):
    return trajectories()[name][:-1]


RETRACE = ("q_tm1", "q_t", "a_tm1", "a_t", "r_t", "discount_t", "pi_t", "mu_t")
CASES = {
    "td_lambda": (td_loop, arguments("v_tm1", "r_t", "discount_t", "v_t", "lambda_")),
    "sarsa_lambda": (
        sarsa_loop,
        arguments("q_tm1", "a_tm1", "r_t", "discount_t", "q_t", "a_t", "lambda_"),
    ),
    "q_lambda": (q_loop, arguments("q_tm1", "a_tm1", "r_t", "discount_t", "q_t", "lambda_")),
    "q_lambda, scalars": (
        q_loop,
        arguments("q_tm1", "a_tm1", "r_t", "q_t", discount_t=0.9, lambda_=0.7),
    ),
    "retrace": (retrace_loop, arguments(*RETRACE, "lambda_")),
    "retrace, one lambda": (retrace_loop, arguments(*RETRACE, lambda_=0.7)),
    "retrace_continuous": (
        retrace_continuous_loop,
        arguments(
            "v_t",
            "r_t",
            "discount_t",
            q_tm1=trajectories()["v_tm1"],
            q_t=short("values")[1:],
            log_rhos=np.log(short("rho_tm1")),
            lambda_=short("lambda_"),
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_loops_in_float64_however_it_is_called(case):
    loop, everything = CASES[case]
    operator = functools.partial(getattr(traces, case.split(",")[0]), stop_target_gradients=False)
    check(
        operator,
        loop,
        everything,
        differentiate=[name for name in everything if not name.startswith("a_")],
    )


@pytest.mark.parametrize("case", CASES)
def test_only_the_prediction_has_a_gradient_unless_asked(case):
    _, everything = CASES[case]
    one = {name: jnp.asarray(x[:, 0] if np.ndim(x) else x) for name, x in everything.items()}
    changed = {
        name: one.pop(name).astype(float) for name in tuple(one) if not name.startswith("a_")
    }
    gradients = jax.grad(
        lambda changed: getattr(traces, case.split(",")[0])(**one, **changed).sum()
    )(changed)
    for name, gradient in gradients.items():
        if name == "v_tm1" or (name == "q_tm1" and gradient.ndim == 1):
            np.testing.assert_array_equal(gradient, -1)
        elif name == "q_tm1":
            np.testing.assert_array_equal(gradient, -jax.nn.one_hot(one["a_tm1"], ACTIONS))
        else:
            np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


@pytest.mark.slow
def test_identities():
    x = {
        name: jnp.asarray(value, jnp.int32 if name.startswith("a_") else jnp.float32)
        for name, value in trajectories().items()
    }
    q = functools.partial(
        traces.q_lambda, x["q_tm1"], x["a_tm1"], x["r_t"], x["discount_t"], x["q_t"]
    )
    sarsa = functools.partial(
        traces.sarsa_lambda, x["q_tm1"], x["a_tm1"], x["r_t"], x["discount_t"], x["q_t"], x["a_t"]
    )
    retrace = functools.partial(
        traces.retrace, x["q_tm1"], x["q_t"], x["a_tm1"], x["a_t"], x["r_t"], x["discount_t"]
    )
    q_a_tm1, q_a_t = (
        jnp.take_along_axis(x[f"q_{s}"], x[f"a_{s}"][..., None], -1)[..., 0] for s in ("tm1", "t")
    )

    one_step = x["r_t"] + x["discount_t"] * x["q_t"].max(axis=-1) - q_a_tm1
    same(q(0.0), one_step)
    greedy = jax.nn.one_hot(x["q_t"].argmax(axis=-1), ACTIONS)
    same(retrace(greedy, x["mu_t"], 0.0), one_step)
    # On-policy and with lambda 1, Retrace gives the error of the return, without the sampling
    # noise of the next action.
    pi_a_t = jnp.take_along_axis(x["pi_t"], x["a_t"][..., None], -1)[..., 0]
    noise = (x["pi_t"] * x["q_t"]).sum(axis=-1) - q_a_t
    corrected = (
        returns.discounted_returns(x["r_t"] + x["discount_t"] * noise, x["discount_t"], q_a_t)
        - q_a_tm1
    )
    same(retrace(x["pi_t"], pi_a_t, 1.0, 0.0), corrected)
    # If both policies are certain to take the same action, Retrace is SARSA.
    same(
        retrace(jax.nn.one_hot(x["a_t"], ACTIONS), jnp.ones_like(pi_a_t), x["lambda_"]),
        sarsa(x["lambda_"]),
    )
    # `retrace_continuous` gives the same from the values of the taken actions.
    log_rhos = jnp.log(pi_a_t / x["mu_t"])[:-1]
    state_values = (x["pi_t"] * x["q_t"]).sum(axis=-1)
    steps = (q_a_tm1, q_a_t[:-1], state_values, x["r_t"], x["discount_t"])
    same(traces.retrace_continuous(*steps, log_rhos, 0.7), retrace(x["pi_t"], x["mu_t"], 0.7))


def test_watkins_lambda_ends_the_trace_before_an_exploring_action():
    q_t = np.array([[1.0, 2.0], [3.0, 3.0], [0.0, -1.0]])
    np.testing.assert_allclose(
        traces.watkins_lambda(q_t, np.array([0, 1, 0]), 0.9), [0, 0.9, 0.9], rtol=1e-6
    )
    np.testing.assert_allclose(
        traces.watkins_lambda(q_t, np.array([1, 0, 1]), np.array([0.5, 0.6, 0.7])),
        [0.5, 0.6, 0],
        rtol=1e-6,
    )
    errors = traces.q_lambda(
        np.zeros((3, 2)),
        np.zeros(3, int),
        1.0,
        1.0,
        q_t,
        traces.watkins_lambda(q_t, np.array([0, 1, 0])),
    )
    np.testing.assert_allclose(errors, [1 + 2, 1 + 1 + 0, 1 + 0])


@pytest.mark.parametrize("operator", [traces.eligibility_trace, jax.jit(traces.eligibility_trace)])
def test_traces_backwards_and_returns_forwards_make_the_same_update(operator):
    rng = np.random.default_rng(0)
    weights, features = (
        {"w": rng.normal(size=3), "b": rng.normal()},
        rng.normal(size=(STEPS + 1, 3)),
    )
    values = features @ weights["w"] + weights["b"]
    r_t, discount_t, lambda_ = rng.normal(size=STEPS), rng.random(STEPS), 0.8

    trace = jax.tree.map(np.zeros_like, weights)
    update = jax.tree.map(np.zeros_like, weights)
    discount = 0.0
    for t in range(STEPS):
        trace = operator(trace, {"w": features[t], "b": 1.0}, discount, lambda_)
        error = r_t[t] + discount_t[t] * values[t + 1] - values[t]
        update = jax.tree.map(lambda u, e, error=error: u + error * e, update, trace)
        discount = discount_t[t]
    errors = traces.td_lambda(values[:-1], r_t, discount_t, values[1:], lambda_)
    np.testing.assert_allclose(update["w"], errors @ features[:-1], rtol=1e-4)
    np.testing.assert_allclose(update["b"], errors.sum(), rtol=1e-4)


def test_replacing_traces_do_not_add_up():
    trace, gradient = jnp.array([1.0, 1.0, 0.0]), jnp.array([1.0, 0.0, 0.0])
    np.testing.assert_allclose(traces.eligibility_trace(trace, gradient, 0.5, 0.5), [1.25, 0.25, 0])
    np.testing.assert_allclose(
        traces.eligibility_trace(trace, gradient, 0.5, 0.5, replacing=True), [1, 0.25, 0]
    )
    with pytest.raises(ShapeError, match="'gradient'"):
        traces.eligibility_trace(trace, gradient[:1], 0.5, 0.5)
    with pytest.raises(ShapeError, match="'lambda_'"):
        traces.eligibility_trace(trace, gradient, 0.5, gradient)


def test_low_precision_is_accumulated_in_float32():
    r_t = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, 1000), jnp.bfloat16)
    discount_t = jnp.full(1000, 0.99, jnp.bfloat16)
    errors = traces.td_lambda(r_t, r_t, discount_t, r_t, 1.0)
    exact = [np.asarray(x, np.float64) for x in (r_t, r_t, discount_t, r_t)]
    assert errors.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(errors, float), td_loop(*exact, 1.0), rtol=2**-8)


@pytest.mark.slow
@settings(deadline=None, max_examples=8)
@given(
    st.integers(0, 4),
    st.lists(st.integers(1, 3), max_size=2),
    st.sampled_from(["int8", "float32", "bfloat16", "float16"]),
)
def test_any_length_batch_axes_and_dtypes(steps, batch, dtype):
    x, a = jnp.ones((steps, *batch), dtype), jnp.zeros((steps, *batch), jnp.uint8)
    q = jnp.ones((*x.shape, 2), dtype)
    dtype = jnp.dtype("float32" if dtype == "int8" else dtype)

    def results():  # traced only: shapes and dtypes need no compilation
        return (
            traces.td_lambda(x, x, 1, x, 0.5),
            traces.sarsa_lambda(q, a, x, 1, q, a, x),
            traces.q_lambda(q, a, 1, x, q, 1),
            traces.retrace(q, q, a, a, x, 1, q, x, 0.5),
            traces.retrace_continuous(x, x[1:], x, x, 1, x[1:], 1),
            traces.watkins_lambda(q, a, 1),
            traces.eligibility_trace(x, x, 1, 0.5),
        )

    assert {(r.shape, r.dtype) for r in jax.eval_shape(results)} == {(x.shape, dtype)}


@pytest.mark.parametrize(
    "case", ["td_lambda", "sarsa_lambda", "q_lambda", "retrace", "retrace_continuous"]
)
def test_each_argument_of_another_shape_is_named(case):
    one = {name: x[:, 0] for name, x in CASES[case][1].items()}
    for name, value in one.items():
        # The first argument sets the shape, so another argument is blamed if it is wrong.
        first = name in ("v_tm1", "q_tm1")
        with pytest.raises(ShapeError, match=f"{case}: " if first else f"{case}: '{name}'"):
            getattr(traces, case)(**{**one, name: value[:1]})


@pytest.mark.parametrize("case", ["sarsa_lambda", "q_lambda", "retrace"])
def test_actions_that_are_no_indices(case):
    one = {name: x[:, 0] for name, x in CASES[case][1].items()}
    for name in ("a_tm1", "a_t"):
        if name in one:
            with pytest.raises(TypeError, match=f"{case}: '{name}'"):
                getattr(traces, case)(**{**one, name: one[name].astype(float)})
    for action in (ACTIONS, -1):
        bad = one["a_tm1"].copy()
        bad[2] = action
        errors = getattr(traces, case)(**{**one, "a_tm1": bad})
        assert np.isnan(errors[2])
        assert np.isfinite(np.delete(errors, 2)).all()


@pytest.mark.parametrize("log_rho", [100.0, -100.0, np.inf, -np.inf])
def test_extreme_importance_ratios(log_rho):
    """A ratio above 1 counts as 1, and a ratio of 0 cuts the trace."""
    v = np.zeros(3, np.float32)
    error = traces.retrace_continuous(v, v[1:], v, v + 1, v + 0.9, (v + log_rho)[1:], 1.0)
    np.testing.assert_allclose(error, [2.71, 1.9, 1.0] if log_rho > 0 else [1, 1, 1], rtol=1e-6)
