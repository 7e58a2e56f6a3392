"""When an agent that learns from replay takes its gradient steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from agentzoo.replay import ReplayBuffer
from agentzoo.types import Array, Clock, ConfigurationError, Mean, PyTree, Trajectory


def make_learning_phase(
    update: Callable[[Any, Array, Clock], tuple[Any, dict[str, Array]]],
    replay_buffer: ReplayBuffer,
    learning_starts: int | Array,
    gradient_steps: int,
    min_size: int = 1,
) -> Callable[[Any, Trajectory, Clock], tuple[Any, dict[str, Mean]]]:
    """Build what an agent does with each trajectory: store it, then take some gradient steps.

    Args:
      update: the gradient step, `(state, key, clock) -> (state, metrics)`, with scalars by name as
        metrics. The state is a NamedTuple with the fields `replay` and `key`, which holds the data
        of a random key. The key that `update` gets is different at each step.
      replay_buffer: the buffer whose contents are the state's `replay`.
      learning_starts: environment steps before the first gradient step.
      gradient_steps: number of gradient steps per trajectory; -1 for one per environment step.
      min_size: steps that one environment must have stored before the first gradient step.

    Returns:
      A function `(state, trajectory, clock) -> (state, metrics)`. Each metric is a `Mean` over the
      gradient steps. Before learning starts, their number is 0.

    Raises:
      ConfigurationError: if there would be no gradient steps.
    """
    if gradient_steps == 0:
        raise ConfigurationError(
            "gradient_steps=0 would never learn. Use 1 or more, or -1 for one per environment step."
        )

    def learning_phase(
        state: Any, trajectory: Trajectory, clock: Clock
    ) -> tuple[Any, dict[str, Mean]]:
        # A trajectory [T, N] holds T * N environment steps.
        num_updates = trajectory.mask.size if gradient_steps == -1 else gradient_steps
        keys = jax.random.split(jax.random.wrap_key_data(state.key), 1 + num_updates)
        state = state._replace(
            replay=replay_buffer.add(state.replay, trajectory), key=jax.random.key_data(keys[0])
        )
        is_ready = (clock.step > learning_starts) & (jnp.max(state.replay.size) >= min_size)
        count = jnp.where(is_ready, num_updates, 0)
        # Compiling `update` for itself has it traced once, although it is called in two places.
        traced_once = jax.jit(update, inline=True)

        def train(i: Array, carry: tuple[Any, PyTree]) -> tuple[Any, PyTree]:
            state, totals = carry
            state, metrics = traced_once(state, keys[1 + i], clock)
            return state, jax.tree.map(jnp.add, totals, metrics)

        _, shapes = jax.eval_shape(traced_once, state, keys[0], clock)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        # A loop of `count` steps copies less than `cond` around a `scan` would.
        state, totals = jax.lax.fori_loop(0, count, train, (state, zeros))
        return state, {name: Mean(total, count) for name, total in totals.items()}

    return learning_phase
