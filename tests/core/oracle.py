"""Compares operators over time with loops in NumPy float64, in each way that an operator can be called."""

import jax
import numpy as np

STEPS, BATCH, ACTIONS = 6, 2, 3


def check(operator, loop, arguments, differentiate=()):
    """Checks an operator against a loop over one trajectory.

    Args:
      operator: the operator, that takes `arguments` by name.
      loop: takes the same arguments as NumPy float64, of one trajectory, and returns an array or a tuple of them.
      arguments: arrays `[T, B, ...]`, and scalars.
      differentiate: names of the arguments whose gradient is compared with the loop's finite differences.
    """
    arguments = {name: np.asarray(x, np.int32 if np.asarray(x).dtype == int else np.float32) for name, x in arguments.items()}
    axes = {name: 1 if x.ndim else None for name, x in arguments.items()}

    def trajectory(b):
        return {name: x[:, b] if x.ndim else x for name, x in arguments.items()}

    def exact(**one):
        return loop(**{name: np.asarray(x, np.float64) if x.dtype.kind == "f" else x for name, x in one.items()})

    expected = [exact(**trajectory(b)) for b in range(BATCH)]
    stacked = jax.tree.map(lambda *x: np.stack(x, axis=1), *expected)
    same(operator(**trajectory(0)), expected[0])
    mapped = jax.vmap(lambda x: operator(**x), in_axes=(axes,), out_axes=1)
    for result in jax.jit(lambda x: (operator(**x), mapped(x)))(arguments):
        same(result, stacked)

    one = trajectory(0)
    weights = [np.linspace(0.5, 1.5, x.size).reshape(x.shape) for x in jax.tree.leaves(expected[0])]

    def total(function, changed):
        return sum((w * x).sum() for w, x in zip(weights, jax.tree.leaves(function(**{**one, **changed})), strict=True))

    gradients = jax.grad(lambda changed: total(operator, changed))({name: one[name] for name in differentiate})
    for name, gradient in gradients.items():
        differences = np.zeros(one[name].shape)
        for i in np.ndindex(one[name].shape):
            step = np.zeros(one[name].shape)
            step[i] = 1e-5
            low, high = (total(exact, {name: one[name] + sign * step}) for sign in (-1, 1))
            differences[i] = (high - low) / 2e-5
        np.testing.assert_allclose(gradient, differences, rtol=1e-3, atol=1e-3, err_msg=name)


def same(actual, expected):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4)


def trajectories(seed=0):
    """Arguments by the names that operators give them, `[T, B, ...]`; of an episode that ends within each trajectory, too."""
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
