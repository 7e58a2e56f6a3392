"""The contracts between agents, runners and environments.

Names follow the field: `_tm1` is the source of a transition, `_t` its destination. Axes in comments: T time,
N environments, B batch, A actions.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
from gymnasium import spaces

Array = jax.Array
PyTree = Any


class ConfigurationError(ValueError):
    """A request that cannot work, refused before any training: the message says what to write instead."""


class FrameStack(spaces.Box):
    """Observations that are the last S frames, the newest last: each step drops the oldest and appends one.

    The first axis of the shape is S. A replay stores each frame of such observations once.
    """

    def __eq__(self, other: Any) -> bool:
        """A plain Box promises less."""
        return isinstance(other, FrameStack) and super().__eq__(other)

    def __repr__(self) -> str:
        return super().__repr__().replace("Box", "FrameStack", 1)


class EnvSpec(NamedTuple):
    """What an agent knows of its environment."""

    observation_space: spaces.Space  # of one environment
    action_space: spaces.Space  # of one environment
    num_envs: int


class Clock(NamedTuple):
    """Where a training run stands, in environment steps; schedules and warm-up read it.

    Attributes:
      step: environment steps taken so far, by all environments together.
      cycle: how many of them belong to the trajectory being learned from; 0 while acting.
      total: the step at which the run ends.
    """

    step: Array
    cycle: Array
    total: Array

    @property
    def remaining(self) -> Array:
        """Remaining progress of the run, from 1 to 0: the argument of every schedule."""
        return jax.numpy.clip(1.0 - self.step / self.total, 0.0, 1.0)


class Trajectory(NamedTuple):
    """What N environments did over T steps. Leading axes `[T, N]`, except for `memory`.

    Attributes:
      obs_tm1: observations that the actions were chosen from.
      a_tm1: actions.
      r_t: rewards.
      discount_t: 0 where the episode terminated, 1 elsewhere (also at a time limit). The agent multiplies by gamma.
      obs_t: the true successor observations, also on the last step of an episode.
      last_t: 1 where the episode ended, by termination or truncation.
      first_tm1: 1 where `obs_tm1` begins an episode.
      mask: 0 for a step that never happened, the dummy step of a NEXT_STEP vector environment. Nothing may count it.
      extras: what `act` returned beside the action (for example log-probabilities).
      memory: `[N, ...]` the recurrent state in which the trajectory begins, or `()`.
    """

    obs_tm1: PyTree
    a_tm1: PyTree
    r_t: Any
    discount_t: Any
    obs_t: PyTree
    last_t: Any
    first_tm1: Any
    mask: Any
    extras: PyTree = ()
    memory: PyTree = ()


class Agent(NamedTuple):
    """A learning algorithm as pure, jittable functions. It knows no environment, no loop and no I/O.

    Attributes:
      init: `(key) -> state`. A NamedTuple whose first field is `params`, all that acting needs.
      act: `(params, memory, obs, key, clock) -> (action, memory, extras)`. The behaviour policy on `[N, ...]`
        observations; exploration schedules and warm-up belong here.
      predict: `(params, memory, obs, key, deterministic) -> (action, memory)`. The policy to be used after training;
        `deterministic` is a Python bool.
      learn: `(state, trajectory, clock) -> (state, metrics)`. One training cycle; metrics are scalars by TensorBoard tag.
      unroll_length: T of the trajectories that `learn` wants.
      initial_memory: `(num_envs) -> memory`, the recurrent state at the beginning of an episode.
      queries: what else can be asked of the agent, as functions `(params, obs) -> array [N, ...]` by name: "values" gives the action
        values `[N, A]`, or with an argument more, `(params, obs, action)`, those `[N]` of actions that are no indices.
    """

    init: Callable[[Array], Any]
    act: Callable[..., tuple[Any, PyTree, PyTree]]
    predict: Callable[..., tuple[Any, PyTree]]
    learn: Callable[[Any, Trajectory, Clock], tuple[Any, dict[str, Array]]]
    unroll_length: int
    initial_memory: Callable[[int], PyTree] = lambda num_envs: ()
    queries: Mapping[str, Callable[[PyTree, PyTree], Array]] = MappingProxyType({})


def zeros(space: spaces.Space, *leading: int) -> PyTree:
    """Zeros with the structure, shape and dtype in which an element of `space` reaches an agent, behind `leading` axes."""
    if isinstance(space, spaces.Dict):
        return {name: zeros(part, *leading) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(zeros(part, *leading) for part in space)
    assert space.shape is not None and space.dtype is not None  # the environments' adapter has refused other spaces
    return jax.numpy.zeros((*leading, *space.shape), jax.dtypes.canonicalize_dtype(space.dtype))
