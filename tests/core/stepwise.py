"""Checks that every operator on single steps must pass.

Each operator is compared with an oracle for one step that is looped over in float64.
"""

import functools
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np

LEADING = (2, 3)


class Case(NamedTuple):
    """An operator, its arguments with leading axes `LEADING`, options, and the oracle of one step.

    The oracle is called as `oracle(x, target, held)`, with the arguments of one step in each. The
    three differ only in their gradients: they flow through `x`, through `target` only where they
    are not stopped, and never through `held`.
    """

    function: Callable
    arguments: dict[str, np.ndarray]
    oracle: Callable
    options: dict = {}  # noqa: RUF012

    def call(self, arguments, **options):
        return self.function(**arguments, **self.options, **options)


def parametrized(cases: list[Case]) -> dict:
    return {
        "argnames": "case",
        "argvalues": cases,
        "ids": [case.function.__name__ for case in cases],
    }


def has(case: Case, option: str) -> bool:
    return option in inspect.signature(case.function).parameters


def looped(case: Case, x: dict, target: dict | None = None, held: dict | None = None) -> np.ndarray:
    results = []
    for i in np.ndindex(*LEADING):
        sources = (
            SimpleNamespace(**{name: value[i] for name, value in source.items()})
            for source in (x, target or x, held or x)
        )
        results.append(case.oracle(*sources))
    return np.reshape(results, (*LEADING, *np.shape(results[0])))


def float32(arguments: dict) -> dict:
    return {
        name: value.astype(np.float32) if value.dtype == np.float64 else value
        for name, value in arguments.items()
    }


def every_way(function: Callable, arguments: Any, axes: int = len(LEADING)) -> dict[str, Any]:
    """Return the results of a function of steps that is called in several ways.

    The function is called plainly, compiled, and mapped and scanned over the steps.

    Args:
      function: a function of a tree of arguments with leading axes.
      arguments: the tree.
      axes: the number of leading axes to map and scan over.
    """

    def compiled(arguments):  # one program compiles faster than three
        mapped = scanned = function
        for _ in range(axes):
            mapped, scanned = jax.vmap(mapped), functools.partial(jax.lax.map, scanned)
        return {"jit": function(arguments), "vmap": mapped(arguments), "scan": scanned(arguments)}

    with jax.numpy_rank_promotion("raise"):  # no shape may be broadcast by accident
        return {"plain": function(arguments), **jax.jit(compiled)(arguments)}


def check_values(case: Case, **options) -> None:
    expected = looped(case, case.arguments)
    for how, actual in every_way(
        lambda arguments: case.call(arguments, **options), float32(case.arguments)
    ).items():
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5, err_msg=how)


def check_gradients(case: Case, stop: bool, **options) -> None:
    """Compare the gradient of each argument with central differences of the oracle."""
    names = [name for name, value in case.arguments.items() if value.dtype == np.float64]
    gradients = jax.jit(
        jax.grad(lambda arguments: case.call({**case.arguments, **arguments}, **options).sum())
    )
    actual = gradients({name: case.arguments[name].astype(np.float32) for name in names})
    for name in names:
        expected = np.zeros_like(case.arguments[name])
        for i in np.ndindex(*expected.shape):
            values = []
            for step in (1e-6, -1e-6):
                moved = case.arguments[name].copy()
                moved[i] += step
                x = {**case.arguments, name: moved}
                values.append(
                    looped(case, x, target=case.arguments if stop else x, held=case.arguments).sum()
                )
            expected[i] = (values[0] - values[1]) / 2e-6
        np.testing.assert_allclose(actual[name], expected, rtol=1e-3, atol=1e-4, err_msg=name)


def check_reductions(case: Case) -> None:
    """Check the weights and reductions of a loss."""
    w_t = np.arange(6.0).reshape(LEADING)  # the first step has weight 0
    arguments, loss = float32(case.arguments), looped(case, case.arguments) * w_t

    expected = {
        "none": loss,
        "sum": loss.sum(),
        "mean": loss.mean(),
        "masked_mean": loss.sum() / w_t.sum(),
    }

    @jax.jit  # one program compiles faster than several
    def losses():
        return {
            reduction: case.call(arguments, w_t=w_t, reduction=reduction) for reduction in expected
        }, case.call(arguments)

    weighted, plain = losses()
    for reduction, value in expected.items():
        np.testing.assert_allclose(
            weighted[reduction], value, rtol=1e-4, atol=1e-5, err_msg=reduction
        )
    np.testing.assert_allclose(plain, looped(case, case.arguments).mean(), rtol=1e-4, atol=1e-5)
