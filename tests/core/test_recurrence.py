import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo.core import _recurrence, lambda_returns
from agentzoo.core._recurrence import recurrence
from tests.core.oracle import as_on_an_accelerator


def step(g, a, b, scale):
    return b + a * (scale * g)


def inputs(steps, batch=(2,)):
    rng = np.random.default_rng(0)
    return [
        jnp.asarray(x, jnp.float32)
        for x in (rng.normal(size=batch), *rng.normal(size=(2, steps, *batch)), 0.5)
    ]


@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("steps", [0, 1, 2, 7])
def test_both_ways_to_evaluate_agree_with_a_loop(steps, reverse):
    init, a, b, scale = inputs(steps)
    g, expected = init, {}
    for t in reversed(range(steps)) if reverse else range(steps):
        g = expected[t] = b[t] + a[t] * scale * g
    expected = np.array([expected[t] for t in range(steps)]).reshape(steps, 2)
    for function in (_recurrence._scan, _recurrence._associative_scan):
        evaluate = functools.partial(function, step, reverse)
        mapped = jax.vmap(evaluate, (0, 1, 1, None), 1)
        for result in jax.jit(
            lambda *x, evaluate=evaluate, mapped=mapped: (evaluate(*x), mapped(*x))
        )(init, a, b, scale):
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_tests_of_operators_take_the_way_of_accelerators_where_they_say_so():
    x = jnp.ones(5)

    def program():
        return str(jax.make_jaxpr(lambda x: lambda_returns(x, x, x, 0.5))(x))

    before = program()
    with as_on_an_accelerator():
        assert "scan" in before and "scan" not in program()
    assert program() == before


@pytest.mark.parametrize("reverse", [True, False])
def test_both_have_the_same_derivatives(reverse):
    arguments = inputs(7)

    def total(function, arguments):
        return jnp.sum(jnp.sin(function(step, reverse, *arguments)))

    scan, associative = (
        functools.partial(total, f) for f in (_recurrence._scan, _recurrence._associative_scan)
    )
    for derivative in (jax.grad, jax.jacfwd):
        for left, right in zip(
            *(jax.jit(derivative(f))(arguments) for f in (scan, associative)), strict=True
        ):
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)


def test_the_choice_is_made_when_a_program_is_lowered_for_a_platform(monkeypatch):
    arguments = inputs(7)
    plain = recurrence(step, *arguments)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert (
        "stablehlo.while"
        in jax.jit(lambda *x: recurrence(step, *x))
        .trace(*arguments)
        .lower(lowering_platforms=("cuda",))
        .as_text()
    )
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # as on a machine that has one

    def gradient(*arguments):
        return jax.vmap(jax.grad(lambda *x: recurrence(step, *x).sum()), (0, 1, 1, None))(
            *arguments
        )

    for function in (lambda *x: recurrence(step, *x), gradient):
        traced = jax.jit(function).trace(*arguments)
        assert "stablehlo.while" in traced.lower(lowering_platforms=("cpu",)).as_text()
        assert "stablehlo.while" not in traced.lower(lowering_platforms=("cuda",)).as_text()
    np.testing.assert_allclose(recurrence(step, *arguments), plain, rtol=1e-6)
