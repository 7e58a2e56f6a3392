"""When an agent that learns from replay takes its gradient steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agentzoo.algos.off_policy import make_learning_phase
from agentzoo.replay import make_replay
from agentzoo.types import Clock, ConfigurationError, EnvSpec, Trajectory

SPEC = EnvSpec(spaces.Box(-10, 10, (1,), np.float32), spaces.Discrete(3), num_envs=2)


class Learner(NamedTuple):
    replay: Any
    key: Any
    n_updates: Any


@pytest.mark.parametrize(
    ("learning_starts", "gradient_steps", "min_size", "expected"),
    [
        (0, 3, 1, [0, 3, 3, 3]),  # nothing is stored yet after the first phase
        (0, -1, 1, [0, 4, 4, 4]),  # one for each of 2 * 2 steps
        (8, 3, 1, [0, 0, 3, 3]),  # after 12 steps, the first time that there are more than 8
        (0, 3, 4, [0, 0, 3, 3]),  # when an environment has 4 steps
    ],
)
def test_a_phase_of_learning_stores_first_and_then_takes_its_gradient_steps(
    learning_starts, gradient_steps, min_size, expected
):
    buffer = make_replay(SPEC, capacity=20, unroll_length=2, gamma=0.9)

    def update(state, key, clock):
        batch = buffer.sample(state.replay, key, 64)
        seen = {
            "newest": jnp.max(batch.obs_t),
            "draw": jax.random.uniform(key),
            "one": jnp.float32(1),
        }
        return state._replace(n_updates=state.n_updates + 1), seen

    phase = make_learning_phase(update, buffer, learning_starts, gradient_steps, min_size)
    learn = jax.jit(phase)
    state, draws = Learner(buffer.init(), jax.random.PRNGKey(0), jnp.int32(0)), set()
    for cycle, number in enumerate(expected):
        row, last = np.full((2, 2), float(cycle)), np.ones((2, 2), bool)
        mask = np.full((2, 2), cycle > 0)
        trajectory = Trajectory(
            row[..., None], row.astype(int), row, row, row[..., None], last, last, mask
        )
        before = state.n_updates
        state, metrics = learn(
            state, trajectory, Clock(jnp.int32(4 * cycle + 4), jnp.int32(4), jnp.int32(100))
        )
        assert {metric.count.item() for metric in metrics.values()} == {number}
        assert state.n_updates - before == metrics["one"].total == number
        # Each gradient step could draw what has just been stored.
        assert metrics["newest"].total == cycle * number
        draws.add(float(metrics["draw"].total))
    assert len(draws - {0.0}) == sum(number > 0 for number in expected)  # keys are never used again


def test_a_phase_without_a_gradient_step_is_refused():
    with pytest.raises(ConfigurationError, match="gradient_steps=0 would never learn"):
        make_learning_phase(lambda *_: None, make_replay(SPEC, 10, 1, 0.9), 0, 0)
