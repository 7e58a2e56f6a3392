"""The contracts between agents, runners and environments.

Names follow the field: `_tm1` is the source of a transition, `_t` its destination. Axes in
comments: T time, N environments, B batch, A actions.
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


class InvalidStep(ConfigurationError):
    """An environment returned what its spaces do not allow. It is raised where the data enters.

    Attributes:
      problem: what is wrong, and what was expected.
      env: index of the environment; None if it is not known.
      step: environment steps taken, over all environments together, with the wrong one; None if it
        is not known.
    """

    def __init__(self, problem: str, env: int | None = None, step: int | None = None):
        super().__init__(problem, env, step)  # all arguments, so that the error can be pickled
        self.problem, self.env, self.step = problem, env, step

    def __str__(self) -> str:
        where = "The environment" if self.env is None else f"Environment {self.env}"
        when = "" if self.step is None else f" at step {self.step}"
        return f"{where}{when}: {self.problem}"

    def at(self, first_env: int, step: int) -> "InvalidStep":
        """Return the error of the same environment as one of several actors' environments, with the step."""
        return InvalidStep(self.problem, None if self.env is None else first_env + self.env, step)


class TrainingError(RuntimeError):
    """Training had to end: the message says what went wrong, when, and what probably caused it."""


class Mean(NamedTuple):
    """A metric that is a mean over the gradient steps of a cycle; it does not exist where there were none.

    Attributes:
      total: the sum over the gradient steps.
      count: the number of gradient steps.
    """

    total: Any
    count: Any


def resolve_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return metrics as numbers, without those that do not exist yet."""
    values = {}
    for tag, value in jax.device_get(dict(metrics)).items():
        if not isinstance(value, Mean):
            values[tag] = float(value)
        elif value.count:
            values[tag] = float(value.total) / float(value.count)
    return values


def has_channels_first(first: int, middle: int, last: int) -> bool:
    """Whether the first axis of an image of this shape holds the channels, and not the last.

    It is the axis of size 1 to 4 if only one of the two is so small, else the one that leaves a
    square, else the smaller one, else the last.
    """
    if (first <= 4) != (last <= 4):
        return first <= 4
    if (first == middle) != (middle == last):
        return middle == last
    return first < last


def all_finite(tree: PyTree) -> bool:
    """Whether the numbers in the arrays of a tree are free of NaN and infinity."""
    leaves = [x for x in jax.tree.leaves(tree) if jax.numpy.issubdtype(x.dtype, jax.numpy.floating)]
    return all(bool(jax.numpy.isfinite(x).all()) for x in leaves)


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
    def began(self) -> Array:
        """The step at which the cycle began; while acting, the step itself."""
        return self.step - self.cycle

    @property
    def remaining(self) -> Array:
        """Remaining progress of the run, from 1 to 0, when the cycle began: the argument of schedules.

        The first cycle is learned from with the start of every schedule, and none with the end,
        where a learning rate would be 0.
        """
        began, total = (jax.numpy.asarray(x, jax.numpy.float32) for x in (self.began, self.total))
        return jax.numpy.clip(1.0 - began / total, 0.0, 1.0)


class Trajectory(NamedTuple):
    """What N environments did over T steps. Leading axes `[T, N]`, except for `memory`.

    Attributes:
      obs_tm1: observations that the actions were chosen from.
      a_tm1: actions.
      r_t: rewards.
      discount_t: 0 where the episode terminated, 1 elsewhere (also at a time limit). The agent
        multiplies by gamma.
      obs_t: the true successor observations, also on the last step of an episode.
      last_t: 1 where the episode ended, by termination or truncation.
      first_tm1: 1 where `obs_tm1` begins an episode.
      mask: 0 for a step that never happened, the dummy step of a NEXT_STEP vector environment.
        Nothing may count it.
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
    """A learning algorithm as pure, jittable functions.

    It knows no environment, no loop and no I/O.

    Attributes:
      init: `(key) -> state`. A NamedTuple whose first field is `params`, all that acting needs.
      act: `(params, memory, obs, key, clock) -> (action, memory, extras)`. The behaviour policy on
        `[N, ...]` observations; exploration schedules and warm-up belong here.
      predict: `(params, memory, obs, key, deterministic) -> (action, memory)`. The policy to be
        used after training; `deterministic` is a Python bool.
      learn: `(state, trajectory, clock) -> (state, metrics)`. One training cycle; metrics are
        scalars by TensorBoard tag, or a `Mean` where there may be nothing to report yet.
      unroll_length: T of the trajectories that `learn` wants.
      initial_memory: `(num_envs) -> memory`, the recurrent state at the beginning of an episode.
      queries: what else can be asked of the agent, as functions `(params, obs) -> array [N, ...]`
        by name: "values" gives the action values `[N, A]`, or with an argument more, `(params, obs,
        action)`, those `[N]` of actions that are no indices.
      inputs: a description of how each part of an observation is taken, by the name of the part;
        the name is "" if an observation has no parts.
      refill: parts of the state that are laid out by environments, such as a replay buffer, by
        name, as functions `(part, old) -> part`: an empty part with what the part `old` of an agent
        for another number of environments holds.
    """

    init: Callable[[Array], Any]
    act: Callable[..., tuple[Any, PyTree, PyTree]]
    predict: Callable[..., tuple[Any, PyTree]]
    learn: Callable[[Any, Trajectory, Clock], tuple[Any, dict[str, Any]]]
    unroll_length: int
    initial_memory: Callable[[int], PyTree] = lambda num_envs: ()
    queries: Mapping[str, Callable[[PyTree, PyTree], Array]] = MappingProxyType({})
    inputs: Mapping[str, str] = MappingProxyType({})
    refill: Mapping[str, Callable[[PyTree, PyTree], PyTree]] = MappingProxyType({})


def stored_dtype(space: spaces.Space) -> Any:
    """The dtype in which elements of a space reach an agent.

    64 bits become 32, unless JAX is set to keep them. Integers of a Box whose bounds are beyond 32
    bits become float32, in which networks see them anyway.
    """
    assert space.dtype is not None
    stored = jax.dtypes.canonicalize_dtype(space.dtype)
    if isinstance(space, spaces.Box) and stored != space.dtype and stored.kind in "iu":
        limits = jax.numpy.iinfo(stored)
        if (space.low < int(limits.min)).any() or (space.high > int(limits.max)).any():
            return jax.dtypes.canonicalize_dtype(float)
    return stored


def zeros(space: spaces.Space, *leading: int) -> PyTree:
    """Zeros with the structure, shape and dtype in which an element of `space` reaches an agent, behind `leading` axes."""
    if isinstance(space, spaces.Dict):
        return {name: zeros(part, *leading) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(zeros(part, *leading) for part in space)
    assert (
        space.shape is not None and space.dtype is not None
    )  # the environments' adapter has refused other spaces
    return jax.numpy.zeros((*leading, *space.shape), stored_dtype(space))
