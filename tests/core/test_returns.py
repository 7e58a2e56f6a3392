import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo import core
from agentzoo.core import ShapeError
from tests.core.oracle import BATCH, STEPS, check, same, trajectories

R_T = np.array([1.0, 2.0, 3.0], np.float32)
DISCOUNT_T = np.array([0.5, 0.5, 0.5], np.float32)
V_T = np.array([10.0, 20.0, 30.0], np.float32)
VALUES = np.array([4.0, 10.0, 20.0, 30.0], np.float32)


def lambda_loop(r_t, discount_t, v_t, lambda_=1.0, last_t=None, mask=None):
    steps = len(r_t)
    discount_t, lambda_ = np.broadcast_to(discount_t, steps), np.broadcast_to(lambda_, steps)
    g = np.zeros(steps)
    for t in reversed(range(steps)):
        if mask is not None and not mask[t]:
            continue
        ends = (
            t == steps - 1
            or (last_t is not None and last_t[t])
            or (mask is not None and not mask[t + 1])
        )
        g[t] = r_t[t] + discount_t[t] * (
            v_t[t] if ends else (1 - lambda_[t]) * v_t[t] + lambda_[t] * g[t + 1]
        )
    return g


def n_step_loop(r_t, discount_t, v_t, n, lambda_t=1.0, last_t=None, mask=None):
    windows = (slice(t, t + n) for t in range(len(r_t)))
    lambda_t = np.broadcast_to(lambda_t, len(r_t))
    arguments = {
        "r_t": r_t,
        "discount_t": discount_t,
        "v_t": v_t,
        "lambda_": lambda_t,
        "last_t": last_t,
        "mask": mask,
    }
    return np.array(
        [
            lambda_loop(**{k: None if x is None else x[w] for k, x in arguments.items()})[0]
            for w in windows
        ]
    )


def gae_loop(r_t, discount_t, v_tm1, v_t, lambda_, last_t=None, mask=None):
    lambda_ = np.broadcast_to(lambda_, len(r_t))
    advantages = np.zeros(len(r_t) + 1)
    for t in reversed(range(len(r_t))):
        if mask is None or mask[t]:
            trace = 0 if last_t is not None and last_t[t] else discount_t[t] * lambda_[t]
            advantages[t] = r_t[t] + discount_t[t] * v_t[t] - v_tm1[t] + trace * advantages[t + 1]
    return advantages[:-1]


def one_row(loop):
    return lambda values, **arguments: loop(v_tm1=values[:-1], v_t=values[1:], **arguments)


def importance_loop(r_t, discount_t, rho_tm1, v_tm1, v_t, lambda_):
    error, errors = 0.0, []
    for t in reversed(range(len(r_t))):
        error = rho_tm1[t] * (
            r_t[t] + discount_t[t] * v_t[t] - v_tm1[t] + discount_t[t] * lambda_[t] * error
        )
        errors.append(error)
    return np.array(errors[::-1])


def off_policy_loop(q_t, v_t, r_t, discount_t, c_t):
    c_t = np.broadcast_to(c_t, len(r_t) - 1)
    g = [r_t[-1] + discount_t[-1] * v_t[-1]]
    for t in reversed(range(len(r_t) - 1)):
        g.insert(0, r_t[t] + discount_t[t] * (v_t[t] + c_t[t] * (g[0] - q_t[t])))
    return np.array(g)


def action_values_loop(q_t, a_t, r_t, discount_t, c_t, pi_t):
    q_a_t = q_t[np.arange(len(a_t)), a_t]
    c_t = c_t if np.ndim(c_t) == 0 else c_t[:-1]
    return off_policy_loop(q_a_t[:-1], (pi_t * q_t).sum(axis=-1), r_t, discount_t, c_t)


def pick(*names, **others):
    everything = trajectories()
    return {name: everything[name] for name in names} | others


def short(name):
    return trajectories()[name][:-1]


V_TARGET = ("r_t", "discount_t", "v_t")
CASES = {
    "lambda_returns": (lambda_loop, pick(*V_TARGET, "lambda_"), {}),
    "lambda_returns, scalars": (lambda_loop, pick("r_t", "v_t", discount_t=0.9, lambda_=0.7), {}),
    "lambda_returns, ends": (lambda_loop, pick(*V_TARGET, "lambda_", "last_t"), {}),
    "lambda_returns, ends and mask": (
        lambda_loop,
        pick(*V_TARGET, "lambda_", "last_t", "mask"),
        {},
    ),
    "discounted_returns": (lambda_loop, pick(*V_TARGET), {}),
    "discounted_returns, ends and mask": (lambda_loop, pick(*V_TARGET, "last_t", "mask"), {}),
    "n_step_bootstrapped_returns": (n_step_loop, pick(*V_TARGET), {"n": 3}),
    "n_step_bootstrapped_returns, lambda": (
        n_step_loop,
        pick(*V_TARGET, lambda_t=trajectories()["lambda_"]),
        {"n": 5},
    ),
    "n_step_bootstrapped_returns, ends and mask": (
        n_step_loop,
        pick(*V_TARGET, "last_t", "mask"),
        {"n": 4},
    ),
    "general_off_policy_returns_from_q_and_v": (
        off_policy_loop,
        pick(*V_TARGET, q_t=trajectories()["values"][1:-1], c_t=short("c_t")),
        {},
    ),
    "general_off_policy_returns_from_action_values": (
        action_values_loop,
        pick("q_t", "a_t", "r_t", "discount_t", "c_t", "pi_t"),
        {},
    ),
    "truncated_generalized_advantage_estimation": (
        one_row(gae_loop),
        pick("r_t", "discount_t", "values", "lambda_"),
        {},
    ),
    "generalized_advantage_estimation": (
        gae_loop,
        pick(*V_TARGET, "v_tm1", "last_t", "lambda_"),
        {},
    ),
    "generalized_advantage_estimation, mask": (
        gae_loop,
        pick(*V_TARGET, "v_tm1", "last_t", "mask", "lambda_"),
        {},
    ),
    "importance_corrected_td_errors": (
        one_row(importance_loop),
        pick("r_t", "discount_t", "rho_tm1", "values", "lambda_"),
        {},
    ),
}
FLOATING = {
    "r_t",
    "discount_t",
    "v_t",
    "lambda_",
    "lambda_t",
    "v_tm1",
    "values",
    "q_t",
    "c_t",
    "pi_t",
    "rho_tm1",
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_loops_in_float64_however_it_is_called(case):
    loop, arguments, options = CASES[case]
    operator = functools.partial(
        getattr(core, case.split(",")[0]), stop_target_gradients=False, **options
    )
    check(
        operator,
        functools.partial(loop, **options),
        arguments,
        differentiate=FLOATING & set(arguments),
    )


def test_values_by_hand():
    same(
        core.lambda_returns(R_T, DISCOUNT_T, V_T, 0.5),
        np.array([1 + 0.5 * (5 + 0.5 * 11.5), 2 + 0.5 * (10 + 0.5 * 18), 18]),
    )
    same(
        core.discounted_returns(R_T, DISCOUNT_T, V_T),
        np.array([1 + 0.5 * 11, 2 + 0.5 * 18, 3 + 0.5 * 30]),
    )
    same(core.discounted_returns(R_T, DISCOUNT_T, 30.0), np.array([6.5, 11, 18]))
    same(
        core.n_step_bootstrapped_returns(R_T, DISCOUNT_T, V_T, 2),
        np.array([1 + 0.5 * (2 + 0.5 * 20), 2 + 0.5 * 18, 18]),
    )
    deltas = np.array([1 + 5 - 4, 2 + 10 - 10, 3 + 15 - 20])
    same(
        core.truncated_generalized_advantage_estimation(R_T, DISCOUNT_T, 0.5, VALUES),
        np.array(
            [
                deltas[0] + 0.25 * (deltas[1] + 0.25 * deltas[2]),
                deltas[1] + 0.25 * deltas[2],
                deltas[2],
            ]
        ),
    )
    same(
        core.general_off_policy_returns_from_q_and_v(
            V_T[:2], V_T, R_T, DISCOUNT_T, np.array([1.0, 0.0])
        ),
        np.array([1 + 0.5 * 12, 2 + 0.5 * 20, 18]),
    )


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 100])
def test_n_step_returns_for_every_n(n):
    arguments = {name: x[:, 0].astype(np.float32) for name, x in pick(*V_TARGET).items()}
    lambda_t = trajectories()["lambda_"][:, 0]
    same(core.n_step_bootstrapped_returns(**arguments, n=n), n_step_loop(**arguments, n=n))
    same(
        core.n_step_bootstrapped_returns(**arguments, n=n, lambda_t=lambda_t),
        n_step_loop(**arguments, n=n, lambda_t=lambda_t),
    )


def test_work_of_n_step_returns_grows_with_the_logarithm_of_n():
    def equations(n):
        x = jnp.zeros(2000)
        return len(jax.make_jaxpr(lambda r: core.n_step_bootstrapped_returns(r, r, r, n))(x).eqns)

    counts = [equations(2**i) for i in range(4, 10)]
    assert len(set(np.diff(counts))) == 1


@pytest.mark.slow
def test_identities():
    x = {
        name: jnp.asarray(value, jnp.float32)
        for name, value in trajectories().items()
        if name not in ("a_t", "a_tm1")
    }
    r_t, discount_t, values, lambda_ = x["r_t"], x["discount_t"], x["values"], x["lambda_"]
    v_tm1, v_t = values[:-1], values[1:]
    never = jnp.zeros_like(r_t)
    truncated_gae = functools.partial(
        core.truncated_generalized_advantage_estimation, r_t, discount_t
    )
    gae = functools.partial(core.generalized_advantage_estimation, r_t, discount_t, v_tm1, v_t)
    n_step = functools.partial(core.n_step_bootstrapped_returns, r_t, discount_t, v_t)
    lambda_returns = functools.partial(core.lambda_returns, r_t, discount_t, v_t)
    discounted = core.discounted_returns(r_t, discount_t, v_t)

    same(n_step(STEPS), discounted)
    same(n_step(STEPS, lambda_), lambda_returns(lambda_))
    same(n_step(1), r_t + discount_t * v_t)
    same(n_step(4, 0.0), r_t + discount_t * v_t)
    same(n_step(4, 1.0), n_step(4))
    same(lambda_returns(1.0), discounted)
    same(truncated_gae(1.0, values), discounted - v_tm1)
    same(truncated_gae(lambda_, values), lambda_returns(lambda_) - v_tm1)
    same(gae(never, lambda_), truncated_gae(lambda_, values))
    same(gae(never + 1, lambda_), r_t + discount_t * v_t - v_tm1)
    same(
        core.importance_corrected_td_errors(r_t, discount_t, 1.0, lambda_, values),
        truncated_gae(lambda_, values),
    )
    # If the policy is certain to take an action, the value of the action is that of the state.
    sure, q_t = jax.nn.one_hot(trajectories()["a_t"], 3), x["q_t"]
    same(
        core.general_off_policy_returns_from_action_values(
            q_t, trajectories()["a_t"], r_t, discount_t, lambda_, sure
        ),
        core.lambda_returns(r_t, discount_t, (sure * q_t).sum(axis=-1), lambda_),
    )


@pytest.mark.parametrize(
    "name",
    [
        "lambda_returns",
        "discounted_returns",
        "n_step_bootstrapped_returns",
        "generalized_advantage_estimation",
    ],
)
def test_a_truncation_divides_a_trajectory_into_two(name):
    cut = 3
    options = {"n_step_bootstrapped_returns": {"n": 2}, "discounted_returns": {}}.get(
        name, {"lambda_": 0.9}
    )
    names = (*V_TARGET, "v_tm1") if name.startswith("gen") else V_TARGET
    arguments = {key: x.astype(np.float32) for key, x in pick(*names).items()}
    last_t = np.zeros((STEPS, BATCH))
    last_t[cut - 1] = 1
    operator = functools.partial(getattr(core, name), **options)
    whole = operator(**arguments, last_t=last_t)
    halves = [
        operator(**{k: x[part] for k, x in arguments.items()}, last_t=last_t[part])
        for part in (slice(cut), slice(cut, None))
    ]
    same(whole, jnp.concatenate(halves))


def test_a_masked_step_leaves_the_others_as_if_it_were_not_there():
    arguments = {name: x[:, 0].astype(np.float32) for name, x in pick(*V_TARGET, "v_tm1").items()}
    reset = 3  # the step in which the environment resets, after the episode ends at step 2
    last_t, mask = np.arange(STEPS) == reset - 1, np.arange(STEPS) != reset
    for name in arguments:
        arguments[name][reset] = np.nan
    without = {name: np.delete(x, reset) for name, x in arguments.items()}
    for name in (
        "lambda_returns",
        "n_step_bootstrapped_returns",
        "generalized_advantage_estimation",
    ):
        options = {"n": 2} if name.startswith("n_step") else {"lambda_": 0.9}
        takes = (*V_TARGET, "v_tm1") if name.startswith("gen") else V_TARGET
        operator = functools.partial(getattr(core, name), **options)
        masked = operator(**{k: arguments[k] for k in takes}, last_t=last_t, mask=mask)
        expected = operator(**{k: without[k] for k in takes}, last_t=np.delete(last_t, reset))
        same(masked, np.insert(expected, reset, 0))


def test_low_precision_is_accumulated_in_float32():
    r_t, v_t = (
        jnp.asarray(x, jnp.bfloat16) for x in np.random.default_rng(0).uniform(0.5, 1.5, (2, 1000))
    )
    discount_t = jnp.full(1000, 0.99, jnp.bfloat16)
    exact = lambda_loop(*(np.asarray(x, np.float64) for x in (r_t, discount_t, v_t)))
    values = jnp.append(jnp.zeros(1, jnp.bfloat16), v_t)
    no_baseline = jnp.zeros(1000, jnp.bfloat16)
    for result in (
        core.discounted_returns(r_t, discount_t, v_t),
        core.n_step_bootstrapped_returns(r_t, discount_t, v_t, 1000),
        core.truncated_generalized_advantage_estimation(r_t, discount_t, 1.0, values)[:1],
        core.general_off_policy_returns_from_q_and_v(
            no_baseline[1:], no_baseline.at[-1].set(v_t[-1]), r_t, discount_t, 1.0
        ),
    ):
        assert result.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(result, float), exact[: len(result)], rtol=2**-8)


def test_dtypes_promote():
    assert core.lambda_returns(np.array([1, 2]), 1, np.array([3, 4]), 1).dtype == jnp.float32
    assert core.lambda_returns(jnp.zeros(2), 0.9, jnp.zeros(2, jnp.bfloat16)).dtype == jnp.float32
    assert (
        core.n_step_bootstrapped_returns(np.array([1, 2]), 1, np.array([3, 4]), 2).dtype
        == jnp.float32
    )
    jax.config.update("jax_enable_x64", True)
    try:
        exact = lambda_loop(R_T.astype(float), DISCOUNT_T, V_T, 0.3)
        result = core.lambda_returns(R_T.astype(float), DISCOUNT_T, V_T, 0.3)
        assert result.dtype == np.float64
        np.testing.assert_allclose(result, exact, rtol=1e-14)
    finally:
        jax.config.update("jax_enable_x64", False)


def test_an_empty_trajectory_has_no_returns():
    for batch in ((), (3,)):
        x = np.zeros((0, *batch), np.float32)
        assert core.lambda_returns(x, x, x).shape == x.shape
        assert core.discounted_returns(x, x, x).shape == x.shape
        assert core.n_step_bootstrapped_returns(x, x, x, 3).shape == x.shape
        assert core.general_off_policy_returns_from_q_and_v(x, x, x, x, x).shape == x.shape
        assert (
            core.truncated_generalized_advantage_estimation(x, x, 1.0, np.zeros((1, *batch))).shape
            == x.shape
        )
        assert core.generalized_advantage_estimation(x, x, x, x, x, 1.0, x).shape == x.shape
        q, a = np.zeros((0, *batch, 2)), np.zeros((0, *batch), int)
        assert core.general_off_policy_returns_from_action_values(q, a, x, x, x, q).shape == x.shape


@pytest.mark.slow
@settings(deadline=None, max_examples=8)
@given(
    st.integers(0, 4),
    st.lists(st.integers(1, 3), max_size=2),
    st.sampled_from(["int8", "float32", "bfloat16", "float16"]),
)
def test_any_length_batch_axes_and_dtypes(steps, batch, dtype):
    x, values = jnp.ones((steps, *batch), dtype), jnp.ones((steps + 1, *batch), dtype)
    q, a = jnp.ones((*x.shape, 2), dtype), jnp.zeros(x.shape, jnp.uint8)
    dtype = jnp.dtype("float32" if dtype == "int8" else dtype)

    def results():  # traced only: shapes and dtypes need no compilation
        return (
            core.lambda_returns(x, x, x, 0.5),
            core.lambda_returns(x, 1, x, last_t=x > 0, mask=x > 0),
            core.discounted_returns(x, x, 1),
            core.n_step_bootstrapped_returns(x, x, x, 2),
            core.n_step_bootstrapped_returns(x, 1, x, 2, 0.5, last_t=x > 0),
            core.general_off_policy_returns_from_q_and_v(x[1:], x, x, 1, 1),
            core.general_off_policy_returns_from_action_values(q, a, x, 1, x, q),
            core.truncated_generalized_advantage_estimation(x, 1, 0.5, values),
            core.generalized_advantage_estimation(x, x, x, x, x > 0, 0.5),
            core.importance_corrected_td_errors(x, 1, x, 1, values),
        )

    assert {(r.shape, r.dtype) for r in jax.eval_shape(results)} == {(x.shape, dtype)}


@pytest.mark.parametrize("case", CASES)
def test_results_are_constants_unless_asked(case):
    _, arguments, options = CASES[case]
    one = {name: jnp.asarray(x[:, 0] if np.ndim(x) else x) for name, x in arguments.items()}
    changed = {name: one.pop(name).astype(float) for name in FLOATING & set(one)}
    operator = functools.partial(getattr(core, case.split(",")[0]), **options)
    gradients = jax.grad(lambda changed: operator(**one, **changed).sum())(changed)
    for name, gradient in gradients.items():
        # The prediction is not a part of the target.
        expected = np.array([-1.0] * STEPS + [0]) if "td_errors" in case and name == "values" else 0
        np.testing.assert_allclose(gradient, np.broadcast_to(expected, gradient.shape), atol=1e-6)


def test_called_outside_jit_it_is_compiled_once():
    (compiled,) = (
        c.cell_contents
        for c in core.lambda_returns.__closure__
        if hasattr(c.cell_contents, "lower")
    )
    compiled.clear_cache()
    for scale in range(3):
        core.lambda_returns(scale * R_T, DISCOUNT_T, V_T)
        jax.vmap(core.lambda_returns)(scale * R_T[None], DISCOUNT_T[None], V_T[None])
    assert compiled._cache_size() == 1


def test_inside_a_scan_and_differentiated_twice():
    def update(v_t, _):
        return core.lambda_returns(R_T, DISCOUNT_T, v_t, 0.5), v_t

    expected = core.lambda_returns(
        R_T, DISCOUNT_T, core.lambda_returns(R_T, DISCOUNT_T, V_T, 0.5), 0.5
    )
    same(jax.lax.scan(update, V_T, length=2)[0], expected)

    def n_step(v_t):
        return core.n_step_bootstrapped_returns(
            R_T, DISCOUNT_T, v_t, 2, 0.5, stop_target_gradients=False
        )

    jacobian = jax.jit(jax.jacrev(n_step))(V_T)
    same(
        jax.jit(jax.hessian(lambda v_t: jnp.sum(n_step(v_t) ** 2)))(V_T), 2 * jacobian.T @ jacobian
    )


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: core.lambda_returns(R_T, DISCOUNT_T, V_T[:1]), "v_t"),
        (lambda: core.lambda_returns(R_T, DISCOUNT_T, V_T, np.ones(1)), "lambda_"),
        (lambda: core.lambda_returns(R_T, DISCOUNT_T, V_T, last_t=np.zeros((3, 1))), "last_t"),
        (lambda: core.lambda_returns(R_T[:, None], DISCOUNT_T, V_T), "discount_t"),
        (lambda: core.lambda_returns(1.0, 0.9, 2.0), "r_t"),
        (lambda: core.discounted_returns(R_T, DISCOUNT_T[:2], V_T), "discount_t"),
        (lambda: core.n_step_bootstrapped_returns(R_T, DISCOUNT_T, V_T[:2], 2), "v_t"),
        (
            lambda: core.truncated_generalized_advantage_estimation(
                R_T[:1], DISCOUNT_T, 1.0, VALUES
            ),
            "r_t",
        ),
        (
            lambda: core.truncated_generalized_advantage_estimation(R_T, DISCOUNT_T, 1.0, 4.0),
            "values",
        ),
        (
            lambda: core.generalized_advantage_estimation(
                R_T, DISCOUNT_T, V_T, V_T, np.zeros(2), 1.0
            ),
            "last_t",
        ),
        (
            lambda: core.importance_corrected_td_errors(R_T, DISCOUNT_T, np.ones(1), 1.0, VALUES),
            "rho_tm1",
        ),
        (
            lambda: core.general_off_policy_returns_from_q_and_v(V_T, V_T, R_T, DISCOUNT_T, 1.0),
            "q_t",
        ),
        (
            lambda: core.general_off_policy_returns_from_action_values(
                np.ones((3, 2)), [0, 1, 0], R_T, 1.0, 1.0, np.ones((3, 1))
            ),
            "pi_t",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, name):
    with pytest.raises(ShapeError, match=f"'{name}'"):
        call()


def test_n_must_be_a_positive_python_integer():
    with pytest.raises(ValueError, match="'n' is 0"):
        core.n_step_bootstrapped_returns(R_T, DISCOUNT_T, V_T, 0)
    with pytest.raises(TypeError, match="'n' must be a Python value"):
        jax.jit(core.n_step_bootstrapped_returns)(R_T, DISCOUNT_T, V_T, 2)
    with pytest.raises(TypeError, match="'float' object cannot be interpreted as an integer"):
        core.n_step_bootstrapped_returns(R_T, DISCOUNT_T, V_T, 2.0)


def test_an_action_out_of_range_gives_nan():
    q_t, pi_t = np.ones((3, 2)), np.full((3, 2), 0.5)
    result = core.general_off_policy_returns_from_action_values(
        q_t, np.array([0, 7, 0]), R_T, DISCOUNT_T, 1.0, pi_t
    )
    assert np.isnan(result[:2]).all()
    assert np.isfinite(result[2])
