"""Compares operators over time with loops in NumPy float64, in each way that they can be called."""

import contextlib
from unittest import mock

import jax
import numpy as np

from agentzoo.core import _recurrence

STEPS, BATCH, ACTIONS = 6, 2, 3


@contextlib.contextmanager
def as_on_an_accelerator():
    """Evaluate recurrences as on an accelerator.

    JAX finds compiled and traced functions by its settings too. So a precision of matrix products
    that nothing else uses, and that no recurrence depends on, makes JAX trace everything anew.
    """
    with (
        mock.patch.object(_recurrence, "_scan", _recurrence._associative_scan),
        jax.default_matmul_precision("tensorfloat32"),
    ):
        yield


def check(operator, loop, arguments, differentiate=()):
    """Compare an operator with a loop over one trajectory.

    The operator is called plainly, compiled, mapped and differentiated, as on CPUs and
    accelerators.

    Args:
      operator: the operator, which takes `arguments` by name.
      loop: a function that takes the same arguments for one trajectory as NumPy float64, and
        returns an array or a tuple of arrays.
      arguments: arrays `[T, B, ...]` and scalars.
      differentiate: names of the arguments whose gradient is compared with finite differences of
        the loop.
    """
    arguments = {
        name: np.asarray(x, np.int32 if np.asarray(x).dtype == int else np.float32)
        for name, x in arguments.items()
    }
    axes = {name: 1 if x.ndim else None for name, x in arguments.items()}

    def trajectory(b):
        return {name: x[:, b] if x.ndim else x for name, x in arguments.items()}

    def exact(**one):
        return loop(
            **{
                name: np.asarray(x, np.float64) if x.dtype.kind == "f" else x
                for name, x in one.items()
            }
        )

    expected = [exact(**trajectory(b)) for b in range(BATCH)]
    stacked = jax.tree.map(lambda *x: np.stack(x, axis=1), *expected)
    one = trajectory(0)
    same(operator(**one), expected[0])
    mapped = jax.vmap(lambda x: operator(**x), in_axes=(axes,), out_axes=1)
    weights = [np.linspace(0.5, 1.5, x.size).reshape(x.shape) for x in jax.tree.leaves(expected[0])]

    def total(function, changed):
        return sum(
            (w * x).sum()
            for w, x in zip(weights, jax.tree.leaves(function(**{**one, **changed})), strict=True)
        )

    def everything(x, changed):  # one program compiles faster than three
        return operator(**x), mapped(x), jax.grad(lambda changed: total(operator, changed))(changed)

    differences = {}
    for name in differentiate:
        differences[name] = np.zeros(one[name].shape)
        for i in np.ndindex(one[name].shape):
            step = np.zeros(one[name].shape)
            step[i] = 1e-5
            low, high = (total(exact, {name: one[name] + sign * step}) for sign in (-1, 1))
            differences[name][i] = (high - low) / 2e-5
    for context in (contextlib.nullcontext, as_on_an_accelerator):
        with context():
            # The lambda is a new function. For an old function, `jax.jit` finds its old program.
            whole, by_trajectory, gradients = jax.jit(lambda *x: everything(*x))(
                arguments, {name: one[name] for name in differentiate}
            )
        same(whole, stacked)
        same(by_trajectory, stacked)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(
                gradient, differences[name], rtol=1e-3, atol=1e-3, err_msg=name
            )


def same(actual, expected):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4)


def trajectories(seed=0):
    """Return arguments `[T, B, ...]` under the names that operators use.

    An episode ends within each trajectory.
    """
    rng = np.random.default_rng(seed)
    shape = (STEPS, BATCH)
    last_t = np.zeros(shape)
    last_t[[2, 4], [0, 1]] = 1
    mask = np.ones(shape)
    mask[[3, 1], [0, 1]] = 0
    values = rng.normal(size=(STEPS + 1, BATCH))
    probabilities = rng.dirichlet(np.ones(ACTIONS), (2, *shape))
    return {
        "r_t": rng.normal(size=shape),
        "discount_t": 0.9 * (rng.random(shape) > 0.2),
        "lambda_": rng.random(shape),
        "v_tm1": values[:-1],
        "v_t": rng.normal(size=shape),
        "values": values,
        "last_t": last_t,
        "mask": mask,
        "rho_tm1": rng.uniform(0.2, 2, shape),
        "q_tm1": rng.normal(size=(*shape, ACTIONS)),
        "q_t": rng.normal(size=(*shape, ACTIONS)),
        "a_tm1": rng.integers(ACTIONS, size=shape),
        "a_t": rng.integers(ACTIONS, size=shape),
        "c_t": rng.random(shape),
        "pi_t": probabilities[0],
        "mu_t": rng.uniform(0.1, 0.9, shape),
    }
