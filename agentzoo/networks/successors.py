"""Values of successors, without evaluating most observations a second time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from agentzoo.types import Array, PyTree, Trajectory


def successor_values(
    v_tm1: Array, memory: PyTree, trajectory: Trajectory, value: Callable[[PyTree, PyTree], Array]
) -> Array:
    """Return the values `[T, N]` of the successors `obs_t` of a trajectory.

    The successor of a step is the source of the next step, whose value is in `v_tm1`, unless the
    trajectory ends, the episode is truncated, or the next step never happened. Only such successors
    are evaluated: one of each environment at a time, until no environment has any more. Without
    truncations, this is a single evaluation of N observations.

    Args:
      v_tm1: `[T, N]`, the values of the sources `obs_tm1`.
      memory: `[T, N, ...]`, the recurrent state after each source, or `()`.
      trajectory: the trajectory `[T, N]`.
      value: `(memory, obs) -> v`, the value function for N environments.

    Returns:
      `[T, N]`. The numbers at terminations, whose discount is 0, and at steps that never happened
      mean nothing.
    """
    num_envs = v_tm1.shape[1]
    mask = jnp.asarray(trajectory.mask, bool)
    follows = mask[1:] & ~jnp.asarray(trajectory.first_tm1, bool)[1:]
    at_end = jnp.zeros((1, num_envs), bool)
    wanted = mask & (trajectory.discount_t > 0) & ~jnp.concatenate([follows, at_end])
    # How many of an environment's successors to evaluate come up to each step.
    rank = jnp.cumsum(wanted, axis=0)
    envs = jnp.arange(num_envs)
    # NumPy arrays cannot be indexed with `t`.
    sources = jax.tree.map(jnp.asarray, (memory, trajectory.obs_t))

    def evaluate(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        """Evaluate successor number k of each environment that has so many."""
        k, v_t = carry
        found = wanted & (rank == k)
        t = jnp.argmax(found, axis=0)  # [N]
        memory_t, obs_t = jax.tree.map(lambda x: x[t, envs], sources)
        v = jnp.where(found.any(axis=0), value(memory_t, obs_t), v_t[t, envs])
        return k + 1, v_t.at[t, envs].set(v)

    v_t = jnp.concatenate([v_tm1[1:], jnp.zeros_like(v_tm1[:1])])
    most = rank[-1].max()
    start = (jnp.ones((), rank.dtype), v_t)
    _, v_t = jax.lax.while_loop(lambda carry: carry[0] <= most, evaluate, start)
    return v_t
