import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo.core import ShapeError
from agentzoo.core.embedding import embed_oar
from tests.core.stepwise import LEADING, Case, check_gradients, check_values

RNG = np.random.default_rng(0)
CASE = Case(
    embed_oar,
    {
        "features": RNG.normal(size=(*LEADING, 2)),
        "action": RNG.integers(4, size=LEADING),
        "reward": RNG.normal(size=LEADING),
    },
    lambda x, *_: np.concatenate([x.features, np.eye(4)[x.action], [np.tanh(x.reward)]]),
    {"num_actions": 4},
)


def test_values():
    check_values(CASE)


def test_gradients():
    check_gradients(CASE, stop=False)


def test_by_hand():
    np.testing.assert_allclose(embed_oar(np.array([1.0, 2.0]), 1, 0, 3), [1, 2, 0, 1, 0, 0])
    np.testing.assert_allclose(
        embed_oar(np.array([[1], [2]]), np.array([-1, 2]), 1e9, 2), [[1, 0, 0, 1], [2, 0, 0, 1]]
    )


def test_dtypes():
    assert embed_oar(np.array([1, 2]), 1, 1, 3).dtype == jnp.float32
    assert embed_oar(jnp.ones(2, jnp.bfloat16), 1, 1.0, 3).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones((2, 3)), np.ones(3, int), 0.0), ShapeError, "'action'"),
        ((np.ones((2, 3)), np.ones(2, int), np.ones(1)), ShapeError, "'reward'"),
        ((1.0, 0, 0.0), ShapeError, "'features'"),
        ((np.ones(3), 1.0, 0.0), TypeError, "'action' must hold integer"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        embed_oar(*arguments, num_actions=3)
    with pytest.raises(TypeError, match="'num_actions' must be a Python value"):
        embed_oar(np.ones(3), 1, 0.0, jnp.array(3))
    with pytest.raises(TypeError, match="'num_actions' must be a Python value"):
        jax.jit(embed_oar)(np.ones(3), 1, 0.0, 3)
