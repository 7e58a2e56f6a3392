"""A replay buffer as a NamedTuple of pure functions."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from agentzoo.elements import zeros
from agentzoo.replay import adding, drawing, refilling
from agentzoo.replay.contents import Layout, Prioritisation, Replay
from agentzoo.replay.drawing import Batch
from agentzoo.replay.frames import are_small, make_frame_rings
from agentzoo.replay.memory import check_memory
from agentzoo.types import Array, ConfigurationError, EnvSpec, PyTree, Trajectory


class ReplayBuffer(NamedTuple):
    """A pure replay buffer.

    Attributes:
      init: `() -> replay`, empty.
      add: `(replay, trajectory) -> replay`. Steps with mask 0 are not stored. Where `first_tm1` is
        0, `obs_tm1` must be the `obs_t` of the step before.
      sample: `(replay, key, batch_size, remaining) -> batch`. The replay must not be empty.
        `remaining` is the remaining progress of the run, from 1 to 0; only prioritised replay needs
        it.
      sample_sequences: `(replay, key, batch_size, length) -> trajectory`, `[T, B]` consecutive
        steps of one environment each, uniformly drawn. Episodes may begin and end within them. At
        least one environment must hold as many steps.
      update: `(replay, slot, error) -> replay`, sets priorities by the errors `[B]` of transitions
        that have been drawn. Without prioritisation it changes nothing.
      refill: `(replay, old) -> replay`, fills an empty replay with the steps of a replay for
        another number of environments, or of another capacity. Each environment gets about as many
        steps, in order. The function must not be compiled.
    """

    init: Callable[[], Replay]
    add: Callable[[Replay, Trajectory], Replay]
    sample: Callable[..., Batch]
    sample_sequences: Callable[[Replay, Array, int, int], Trajectory]
    update: Callable[[Replay, Array, Array], Replay]
    refill: Callable[[Replay, Replay], Replay]


def make_replay(
    spec: EnvSpec,
    capacity: int,
    unroll_length: int,
    gamma: float | Array,
    n_step: int = 1,
    prioritisation: Prioritisation | None = None,
    extras: PyTree = (),
) -> ReplayBuffer:
    """Build a replay buffer for the transitions of `spec.num_envs` environments.

    Args:
      spec: the environments.
      capacity: how many transitions the buffer holds, shared evenly between the environments.
      unroll_length: T, the number of steps of a trajectory.
      gamma: the discount per step.
      n_step: how many steps a drawn transition spans.
      prioritisation: how to draw transitions in proportion to their errors; None draws uniformly.
      extras: `[1, ...]` an example of the trajectories' `extras` to store; () stores none.

    Raises:
      ConfigurationError: if a trajectory does not fit into the buffer, or the buffer does not fit
        into memory.
    """
    num_envs = spec.num_envs
    rows = capacity // num_envs
    needed = max(unroll_length, n_step)
    if rows < needed:
        raise ConfigurationError(
            f"buffer_size={capacity} leaves {rows} transitions for each of {num_envs} "
            f"environments, but a training cycle or an n-step return needs {needed}. "
            f"Use a buffer_size of {needed * num_envs} or more."
        )
    rings = None if are_small(spec) else make_frame_rings(spec, rows, unroll_length)
    layout = Layout(
        rows=rows,
        num_envs=num_envs,
        step=_example(spec, extras, with_observations=rings is None),
        rings=rings,
        prioritisation=prioritisation,
        gamma=gamma,
        n_step=n_step,
    )
    check_memory(jax.eval_shape(partial(adding.init, layout)), capacity)
    return ReplayBuffer(
        init=partial(adding.init, layout),
        add=partial(adding.add, layout),
        sample=partial(drawing.sample, layout),
        sample_sequences=partial(drawing.sample_sequences, layout),
        update=partial(drawing.update, layout),
        refill=partial(refilling.refill, layout),
    )


def _example(spec: EnvSpec, extras: PyTree, with_observations: bool) -> Trajectory:
    """Return a step `[1, ...]` as it is stored."""
    number, flag = jnp.zeros(1, jnp.float32), jnp.zeros(1, bool)
    obs = zeros(spec.observation_space, 1)
    return Trajectory(
        obs_tm1=obs if with_observations else (),
        a_tm1=zeros(spec.action_space, 1),
        r_t=number,
        discount_t=number,
        obs_t=obs if with_observations else jnp.zeros(1, jnp.int32),
        last_t=flag,
        first_tm1=flag,
        mask=(),
        extras=extras,
    )
