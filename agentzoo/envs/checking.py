"""Checks of what environments return, before any of it is stored.

NumPy would store a wrong value without a word: 0.7 in an array of bytes becomes 0, 300 becomes 44,
`None` becomes NaN, and a single number fills a vector. Every step is checked instead. What is as it
should be passes within about a microsecond, and everything else ends in an `InvalidStep` that names
the value and what was expected.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from gymnasium import spaces

from agentzoo.envs import spaces as own
from agentzoo.types import InvalidStep

Check = Callable[[Any], None]

# Tuples, since `isinstance` takes ten times as long for a union.
_FLAGS = (bool, np.bool_)
_INTEGERS = (int, np.integer)
_LARGEST = float(np.finfo(np.float32).max)  # rewards are stored as float32


def unpack_step(result: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Return the five values of `env.step`.

    Raises:
      InvalidStep: if there are not five.
    """
    if not isinstance(result, tuple) or len(result) != 5:
        found = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
        raise InvalidStep(
            f"step returned {found}; expected the five of Gymnasium: observation, reward, terminated, truncated, info."
        )
    return result  # type: ignore[return-value]


def read_step(result: Any, check: Check) -> tuple[Any, float, bool, bool, Any]:
    """Return the five values of `env.step`, with the reward as a number and the flags as booleans.

    The usual case is decided here, without a call for each value, since this is done at every step.

    Args:
      result: what `env.step` returned.
      check: of the observation, from `make_check`.

    Raises:
      InvalidStep: if one of the values cannot be stored as it is.
    """
    usual = type(result) is tuple and len(result) == 5
    obs, reward, terminated, truncated, info = result if usual else unpack_step(result)
    check(obs)
    if type(reward) is not float or not -_LARGEST <= reward <= _LARGEST:
        reward = reward_of(reward)
    if terminated is not True and terminated is not False:
        terminated = flag_of(terminated, "terminated")
    if truncated is not True and truncated is not False:
        truncated = flag_of(truncated, "truncated")
    return obs, reward, terminated, truncated, info


def unpack_reset(result: Any) -> tuple[Any, Any]:
    """Return the observation and the info of `env.reset`.

    Raises:
      InvalidStep: if they are not a pair.
    """
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Mapping):
        found = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
        raise InvalidStep(
            f"reset returned {found}; expected two: the observation, and info, a dict."
        )
    return result  # type: ignore[return-value]


def reward_of(value: Any) -> float:
    """Return a reward as a number; an array of one number counts as that number.

    Raises:
      InvalidStep: if it is not a number that float32 can hold.
    """
    if (
        isinstance(value, float) and -_LARGEST <= value <= _LARGEST
    ):  # the usual case, and never true of NaN
        return value
    array = _array(value)
    if array is None or array.dtype.kind not in "biuf" or array.size != 1:
        raise InvalidStep(f"the reward is {_show(value)}; expected a number.")
    number = float(array.reshape(()))
    if not -_LARGEST <= number <= _LARGEST:
        raise InvalidStep(
            f"the reward is {number}; expected a finite number below 3.4e38, the limit of float32."
        )
    return number


def flag_of(value: Any, name: str) -> bool:
    """Return `terminated` or `truncated` as True or False.

    Raises:
      InvalidStep: if it is something else, and not 0 or 1 either.
    """
    if isinstance(value, _FLAGS):
        return bool(value)
    array = _array(value)
    if (
        array is None
        or array.dtype.kind not in "biuf"
        or array.size != 1
        or array.reshape(()) not in (0, 1)
    ):
        raise InvalidStep(f"{name} is {_show(value)}; expected True or False.")
    return bool(array.reshape(()))


def rewards_of(values: Any, num_envs: int) -> np.ndarray:
    """Return the rewards `[N]` of a vector environment.

    Raises:
      InvalidStep: if they are not N numbers that float32 can hold.
    """
    array = _batch(values, num_envs, "the rewards")
    if not (np.abs(array) <= _LARGEST).all():
        n = int(np.argmin(np.abs(array) <= _LARGEST))
        raise InvalidStep(
            f"the reward is {array[n]}; expected a finite number below 3.4e38, the limit of float32.",
            n,
        )
    return array


def flags_of(values: Any, num_envs: int, name: str) -> np.ndarray:
    """Return `terminated` or `truncated` `[N]` of a vector environment as booleans.

    Raises:
      InvalidStep: if they are not N booleans, zeros or ones.
    """
    array = _batch(values, num_envs, name)
    if array.dtype != bool:
        wrong = np.flatnonzero((array != 0) & (array != 1))
        if wrong.size:
            raise InvalidStep(
                f"{name} is {array[wrong[0]]}; expected True or False.", int(wrong[0])
            )
    return array.astype(bool, copy=False)


def make_check(space: spaces.Space, name: str = "the observation") -> Check:
    """Build a function that raises `InvalidStep` unless it is given an element of a space that can be stored.

    Shapes must be equal. Values must survive the conversion to the dtype in which agents see them,
    must be finite, and must be within the bounds of spaces other than Box; those of a Box are not
    enforced, as is usual in the field.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        checks = [(key, make_check(part, f"{name}[{key!r}]")) for key, part in own.parts(space)]
        kind, expected = (
            (Mapping, "a dict") if isinstance(space, spaces.Dict) else (tuple | list, "a tuple")
        )

        def check_parts(obs: Any) -> None:
            if not isinstance(obs, kind):
                raise InvalidStep(f"{name} is {_show(obs)}; expected {expected} for {space}.")
            for key, check in checks:
                try:
                    part = obs[key]
                except (KeyError, IndexError):
                    raise InvalidStep(
                        f"{name} lacks {key!r}; expected an element of {space}."
                    ) from None
                check(part)

        return check_parts
    stored, shape = own.dtype(space), own.shape(space)
    low, high = _range(space)
    if isinstance(space, spaces.Discrete):

        def check_index(obs: Any) -> None:
            if not (isinstance(obs, _INTEGERS) and low <= obs <= high):
                check_slowly(obs)

        quick = check_index
    elif stored.kind == "f" and len(shape) == 1 and shape[0] <= 32:

        def check_few_numbers(obs: Any) -> None:
            usual = type(obs) is np.ndarray and obs.dtype == stored and obs.shape == shape
            if not (usual and math.isfinite(sum(obs.tolist()))):  # as `_adds_up` has it
                check_slowly(obs)

        quick = check_few_numbers
    elif stored.kind == "f":

        def check_numbers(obs: Any) -> None:
            if type(obs) is np.ndarray and obs.shape == shape:
                if obs.dtype == stored and _adds_up(obs):
                    return
                # If no sum of squares exceeds the square of the largest float32, no number exceeds
                # that.
                if (
                    obs.dtype == np.float64
                    and np.vdot(obs, obs) <= _LARGEST**2
                    and stored != np.float16
                ):
                    return
            check_slowly(obs)

        quick = check_numbers
    elif low is None:

        def check_integers(obs: Any) -> None:
            if not (type(obs) is np.ndarray and obs.dtype == stored and obs.shape == shape):
                check_slowly(obs)

        quick = check_integers
    else:
        quick = None

    def check_slowly(obs: Any) -> None:
        array = _array(obs)
        if array is None or array.dtype.kind not in "biuf":
            raise InvalidStep(
                f"{name} is {_show(obs)}; expected numbers of shape {shape} for {space}."
            )
        if array.shape != shape:
            raise InvalidStep(
                f"{name} has shape {array.shape}, but the environment's observation_space promises {shape}; "
                "correct the environment or its observation_space."
            )
        with np.errstate(all="ignore"):
            cast = array.astype(stored)
            wrong = ~np.isfinite(cast) if stored.kind == "f" else cast != array
            if low is not None:
                wrong |= (array < low) | (array > high)
        if wrong.any():
            value = array[wrong].flat[0]
            limits = (
                f" from {low} to {high}"
                if isinstance(space, spaces.Discrete)
                else f" within {space}"
            )
            expected = (
                "a finite number"
                if stored.kind == "f"
                else f"{'integers' if shape else 'an integer'}{limits}"
            )
            raise InvalidStep(
                f"{name} {'holds' if shape else 'is'} {value}; expected {expected} ({stored})."
            )

    return quick or check_slowly


def make_batch_check(
    space: spaces.Space, num_envs: int | None, name: str = "the observation"
) -> Check:
    """Build the like of `make_check` for batches `[N, ...]`, of any size if `num_envs` is None."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = [
            (key, make_batch_check(part, num_envs, f"{name}[{key!r}]"))
            for key, part in own.parts(space)
        ]

        def check_parts(obs: Any) -> None:
            for key, check in parts:
                try:
                    part = obs[key]
                except (KeyError, IndexError, TypeError):
                    raise InvalidStep(
                        f"{name} lacks {key!r}; expected a batch of elements of {space}."
                    ) from None
                check(part)

        return check_parts
    stored, shape, check_one = own.dtype(space), own.shape(space), make_check(space, name)
    low, high = _range(space)

    def is_right(array: np.ndarray) -> bool:
        """Whether all is well, for sure: the loop below finds what is wrong, and where."""
        if array.dtype.kind not in "biuf" or array.shape[1:] != shape:
            return False
        with np.errstate(all="ignore"):
            cast = array.astype(stored, copy=False)
        if stored.kind == "f":
            return _adds_up(cast)
        exact = cast is array or (cast == array).all()
        return bool(exact and (low is None or ((array >= low) & (array <= high)).all()))

    def check(obs: Any) -> None:
        array = _array(obs)
        if array is None or not array.shape or num_envs not in (None, len(array)):
            found = _show(obs) if array is None else f"an array of shape {array.shape}"
            raise InvalidStep(
                f"{name} is {found}; expected a batch of shape {(num_envs or 'N', *shape)}."
            )
        if is_right(array):
            return
        for n in range(len(array)):
            try:
                check_one(array[n])
            except InvalidStep as error:
                raise InvalidStep(error.problem, n) from None

    return check


class BufferWatch:
    """Detects environments whose reset overwrites the last observation of the episode before.

    In SAME_STEP mode, Gymnasium's vector environments hand out the last observation of an episode
    without copying it. If the environment writes its next first observation into the same array,
    the last one is lost: it then equals the first one, and the array that was handed out changes
    with the next step. In environments of other processes (`AsyncVectorEnv`) nothing gives that
    away.
    """

    def __init__(self) -> None:
        # Environment, what it handed out, and a copy of that.
        self._given: list[tuple[int, Any, list[np.ndarray]]] = []

    def saw(self, n: int, final_obs: Any, first_obs: Any) -> None:
        """Take note of an episode's last observation and of the first one of the next, in environment n."""
        last, first = (
            [np.array(x) for x in jax.tree.leaves(obs)] for obs in (final_obs, first_obs)
        )
        if all(np.array_equal(x, y) for x, y in zip(last, first, strict=True)):
            self._given.append((n, final_obs, last))

    def check(self) -> None:
        """Look at what was handed out before the latest step.

        Raises:
          InvalidStep: if it has changed.
        """
        given, self._given = self._given, []
        for n, final_obs, copies in given:
            if not all(
                np.array_equal(x, y)
                for x, y in zip(jax.tree.leaves(final_obs), copies, strict=True)
            ):
                self._refuse(n)

    def _refuse(self, n: int) -> None:
        raise InvalidStep(
            "info['final_obs'] holds the first observation of the next episode, because the environment writes every "
            "observation into the same array and Gymnasium's SAME_STEP mode does not copy it. Return a copy from the "
            "environment's step and reset, or use gymnasium.vector.AutoresetMode.DISABLED or NEXT_STEP.",
            n,
        )


def _range(space: spaces.Space) -> tuple[Any, Any]:
    """The least and the largest value of a space whose bounds are enforced; (None, None) for a Box."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start) + int(space.n) - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    return (0, 1) if isinstance(space, spaces.MultiBinary) else (None, None)


def _adds_up(array: np.ndarray) -> bool:
    """Whether a sum of the numbers, or of their squares, is finite: if it is, so are all of them.

    Of few numbers, Python's own sum takes a tenth of the time of `np.isfinite(array).all()`, and of
    more numbers a product takes a third.
    """
    if array.ndim == 1 and array.size <= 32:
        return math.isfinite(sum(array.tolist()))
    if array.dtype == np.float16:  # whose squares overflow
        return bool(np.isfinite(array).all())
    return math.isfinite(np.vdot(array, array))


def _array(value: Any) -> np.ndarray | None:
    """The value as an array; None if it cannot be one."""
    if isinstance(value, np.ndarray):
        return value
    try:
        return np.asarray(value)
    except (ValueError, TypeError):  # lists of unequal lengths, for example
        return None


def _batch(values: Any, num_envs: int, name: str) -> np.ndarray:
    """An array `[N]` of numbers or booleans."""
    array = _array(values)
    if (
        array is None
        or array.dtype.kind not in "biuf"
        or array.size != num_envs
        or array.shape[:1] != (num_envs,)
    ):
        found = (
            _show(values)
            if array is None or array.dtype.kind not in "biuf"
            else f"of shape {array.shape}"
        )
        raise InvalidStep(f"{name} are {found}; expected an array of shape ({num_envs},).")
    return array.reshape(num_envs)


def _show(value: Any) -> str:
    """A value as a short text."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({type(value).__name__})"
