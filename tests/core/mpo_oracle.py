"""What the tests of MPO share: sizes, and oracles in NumPy."""

import functools

import numpy as np

S, T, B, D, A = 5, 3, 2, 4, 3  # samples, steps, batch, dimensions, actions
PLAIN_CLIP = functools.partial(np.clip, min=1e-8, max=None)  # what RLax's own tests pass


def close(actual, expected, rtol=1e-4, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def differences(function, x):
    """The gradient of a NumPy function of a float64 array, by central differences."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        steps = []
        for h in (1e-6, -1e-6):
            moved = x.copy()
            moved[i] += h
            steps.append(function(moved))
        gradient[i] = (steps[0] - steps[1]) / 2e-6
    return gradient


def e_step(q, temperature, epsilon):
    """Return the dual loss of one step's samples, the weights, and their KL to uniform weights."""
    exponentials = np.exp(q / temperature)
    weights = exponentials / exponentials.sum()
    return (
        temperature * (epsilon + np.log(exponentials.mean())),
        weights,
        np.sum(weights * np.log(len(q) * weights)),
    )
