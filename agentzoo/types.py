"""The contracts between agents, runners and environments.

Names follow the field: `_tm1` is the source of a transition, `_t` its destination. Axes in
comments: T time, N environments, B batch, A actions.
"""

# pyright: reportUnknownMemberType=false
# Signatures of JAX's functions mention types that pyright does not know.

import pickle
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

Array = jax.Array
PyTree = Any


class ConfigurationError(ValueError):
    """A request that cannot work. The message says what is wrong and what to write instead.

    It is raised before training begins.
    """


class InvalidStep(ConfigurationError):
    """A step or an observation that the spaces of its environment do not allow.

    It is raised where the data enters agentzoo.

    Attributes:
      problem: what is wrong, and what was expected.
      env: index of the environment, or None if it is not known.
      step: environment steps taken so far by all environments together, including the wrong one, or
        None if their number is not known.
    """

    def __init__(self, problem: str, env: int | None = None, step: int | None = None):
        super().__init__(problem, env, step)  # all arguments, so that the error can be pickled
        self.problem = problem
        self.env = env
        self.step = step

    def __str__(self) -> str:
        where = "The environment" if self.env is None else f"Environment {self.env}"
        when = "" if self.step is None else f" at step {self.step}"
        return f"{where}{when}: {self.problem}"

    def at(self, first_env: int, step: int) -> "InvalidStep":
        """Return the same error with the step, and with an index among all actors' environments.

        Args:
          first_env: index of the first environment of the actor in which the error was raised.
          step: the step to report.
        """
        # `self.env` counts within one actor's share of the environments.
        return InvalidStep(self.problem, None if self.env is None else first_env + self.env, step)


class TrainingError(RuntimeError):
    """Training had to end. The message says what went wrong, when, and the likely cause."""


class EnvError(TrainingError):
    """An environment raised an error, did not answer in time, or lost its process.

    The error of the environment, if it raised one, is the `__cause__`.

    Attributes:
      problem: what happened, as a sentence.
      advice: what to do.
      env: index of the environment, or None if it is not known.
      in_reset: whether the environment failed in `reset`, and not in `step`.
      step: environment steps taken so far by all environments together, including the one that
        failed, or None if their number is not known.
      episode: the number of the episode in this environment, from 1 on, or None if not known.
      episode_step: the step of the episode that failed, from 1 on, or None if not known.
      kept: what became of the agent, as a sentence, or "".
      role: what messages call the environment.
    """

    def __init__(self, problem: str, advice: str, env: int | None = None, in_reset: bool = False):
        super().__init__(problem)
        self.problem, self.advice = problem, advice
        self.env, self.in_reset = env, in_reset
        self.step: int | None = None
        self.episode: int | None = None
        self.episode_step: int | None = None
        self.kept = ""
        self.role = "environment"

    def __str__(self) -> str:
        number = "" if self.env is None else f" {self.env}"
        name = f"the {self.role}" if self.env is None else self.role
        step = "" if self.step is None else f" at step {self.step:,}"
        episode = ""
        if self.episode is not None:
            place = "reset" if self.in_reset else f"step {self.episode_step:,}"
            episode = f" ({place} of its episode {self.episode:,})"
        sentences = [f"{name[0].upper()}{name[1:]}{number}{step}{episode}: {self.problem}"]
        return " ".join([*sentences, self.advice, *([self.kept] if self.kept else [])])

    def __reduce__(self) -> Any:
        # Ray sends errors between processes. A cause that cannot be sent stays behind.
        try:
            cause = pickle.loads(pickle.dumps(self.__cause__))
        except Exception:
            cause = None
        return _restore_env_error, ((self.problem, self.advice), self.__dict__, cause)


def _restore_env_error(
    arguments: tuple[str, str], attributes: dict[str, Any], cause: BaseException | None
) -> EnvError:
    """Return an `EnvError` that was sent from another process."""
    error = EnvError(*arguments)
    error.__dict__.update(attributes)
    error.__cause__ = cause
    return error


class Mean(NamedTuple):
    """A metric that is a mean over the gradient steps of a training cycle.

    The metric does not exist if the cycle had no gradient steps.

    Attributes:
      total: the sum over the gradient steps.
      count: the number of gradient steps.
    """

    total: Any
    count: Any


def resolve_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics as floats, without the metrics that do not exist yet."""
    values: dict[str, float] = {}
    for tag, value in jax.device_get(dict(metrics)).items():
        if not isinstance(value, Mean):
            values[tag] = float(value)
        elif value.count:
            values[tag] = float(value.total) / float(value.count)
    return values


class FrameStack(spaces.Box):
    """A space of observations that consist of the last S frames, with the newest frame last.

    The first axis of the shape has size S. Each step drops the oldest frame and appends a new one.
    A replay buffer therefore stores each frame of such observations only once.
    """

    def __eq__(self, other: Any) -> bool:
        """Return False for an equal Box, because a Box promises nothing about successive steps."""
        return isinstance(other, FrameStack) and super().__eq__(other)

    def __repr__(self) -> str:
        return super().__repr__().replace("Box", "FrameStack", 1)


class EnvSpec(NamedTuple):
    """What an agent knows about its environments.

    Attributes:
      observation_space: the observation space of one environment.
      action_space: the action space of one environment.
      num_envs: the number of environments N.
    """

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    num_envs: int


class Clock(NamedTuple):
    """The position of a training run, in environment steps. Schedules and warm-up depend on it.

    Attributes:
      step: environment steps that all environments together have taken so far.
      cycle: how many of these steps belong to the trajectory that the agent learns from; 0 while
        acting.
      total: the step at which the run ends.
    """

    step: Array
    cycle: Array
    total: Array

    @property
    def began(self) -> Array:
        """The step at which the cycle began. While acting, this is the current step."""
        return self.step - self.cycle

    @property
    def remaining(self) -> Array:
        """The fraction of the run that remained when the cycle began: the argument of schedules.

        It is 1 in the first cycle and greater than 0 in the last one, so no agent ever learns with
        the final learning rate of a schedule, which may be 0.
        """
        began, total = (jnp.asarray(x, jnp.float32) for x in (self.began, self.total))
        return jnp.clip(1.0 - began / total, 0.0, 1.0)


class Trajectory(NamedTuple):
    """What N environments did over T steps. The leading axes are `[T, N]`, except for `memory`.

    Attributes:
      obs_tm1: observations from which the actions were chosen.
      a_tm1: actions.
      r_t: rewards.
      discount_t: 0 where the episode terminated, and 1 elsewhere, also at a time limit. Agents
        multiply it by gamma.
      obs_t: the true successor observations, also on the last step of an episode.
      last_t: 1 where the episode ended, by termination or by truncation.
      first_tm1: 1 where `obs_tm1` begins an episode.
      mask: 0 for a step that never happened, and 1 elsewhere. Nothing may count such a step. It is
        the dummy step of a vector environment in NEXT_STEP mode, or the step in which an
        environment failed and was made again. In the second case, the episode was broken off: the
        step before has no `last_t`, and the return from its successor is unknown.
      extras: what `act` returned beside the action, such as log-probabilities.
      memory: the recurrent state `[N, ...]` at the beginning of the trajectory, or `()`.
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

    An agent knows no environment, no training loop and no I/O.

    Attributes:
      init: `(key) -> state`. The state is a NamedTuple whose first field, `params`, holds all that
        acting needs.
      act: `(params, memory, obs, key, clock) -> (action, memory, extras)`. The behaviour policy for
        observations `[N, ...]`, including exploration schedules and warm-up.
      predict: `(params, memory, obs, key, deterministic) -> (action, memory)`. The policy to use
        after training. `deterministic` is a Python bool.
      learn: `(state, trajectory, clock) -> (state, metrics)`. One training cycle. The metrics are
        scalars by TensorBoard tag, or a `Mean` where there may be nothing to report yet.
      unroll_length: the length T of the trajectories that `learn` expects.
      initial_memory: `(num_envs) -> memory`. The recurrent state at the beginning of an episode.
      queries: further functions of the agent, by name, of the form
        `(params, obs) -> array [N, ...]`. "values" returns the action values `[N, A]`. Where
        actions are no indices, it has the form `(params, obs, action)` and returns the values `[N]`
        of the given actions.
      inputs: a description of how the agent reads each part of an observation, by the name of the
        part. The name is "" if the observation has no parts.
      refill: functions `(part, old) -> part`, by name, for the parts of the state whose layout
        depends on the number of environments, such as a replay buffer. Each returns the empty
        `part` filled with the content of `old`, the same part of an agent for another number of
        environments.
      targets: functions `(params) -> part`, by name, for the parts of the state that begin as
        copies of parameters, such as a target network. An agent whose file lacks such a part begins
        with a copy of the loaded parameters.
      newest: names of entries of `extras` that `learn` can only use if the parameters that acted
        are those of the state, such as values. Runners whose actors may act with older parameters
        leave these entries out, and `learn` computes what it needs.
    """

    init: Callable[[Array], Any]
    act: Callable[..., tuple[Any, PyTree, PyTree]]
    predict: Callable[..., tuple[Any, PyTree]]
    learn: Callable[[Any, Trajectory, Clock], tuple[Any, dict[str, Any]]]
    unroll_length: int
    initial_memory: Callable[[int], PyTree] = lambda num_envs: ()
    queries: Mapping[str, Callable[..., Array]] = MappingProxyType({})
    inputs: Mapping[str, str] = MappingProxyType({})
    refill: Mapping[str, Callable[[PyTree, PyTree], PyTree]] = MappingProxyType({})
    targets: Mapping[str, Callable[[PyTree], PyTree]] = MappingProxyType({})
    newest: frozenset[str] = frozenset()

    def without_newest(self, extras: PyTree) -> PyTree:
        """Return the extras for an agent whose parameters may be newer than those that acted."""
        if not self.newest:
            return extras
        return {name: x for name, x in extras.items() if name not in self.newest}
