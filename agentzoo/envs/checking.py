"""Checks of what environments return, before any of it is stored.

NumPy stores wrong values silently: 0.7 in an array of bytes becomes 0, 300 becomes 44, `None`
becomes NaN, and a single number fills a vector. So agentzoo checks every step. A valid step passes
within about a microsecond. Any other step raises an `InvalidStep` that contains the value and says
what was expected.
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

# These are tuples, because `isinstance` takes ten times as long for a union.
_FLAGS = (bool, np.bool_)
_INTEGERS = (int, np.integer)
_LARGEST = float(np.finfo(np.float32).max)  # rewards are stored as float32
_FEW = 32  # up to so many numbers, Python's `sum` is faster than a call of NumPy


def unpack_step(result: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Return the five values of `env.step`.

    Raises:
      InvalidStep: if there are not five.
    """
    if not isinstance(result, tuple) or len(result) != 5:
        found = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
        raise InvalidStep(
            f"step returned {found}. Expected the five of Gymnasium: observation, reward, "
            "terminated, truncated, info."
        )
    return result  # type: ignore[return-value]


def read_step(result: Any, check: Check) -> tuple[Any, float, bool, bool, Any]:
    """Return the five values of `env.step`, with the reward as a number and the flags as booleans.

    This function decides the usual case without a call for each value, because it runs at every
    step.

    Args:
      result: what `env.step` returned.
      check: the check of the observation, from `make_check`.

    Raises:
      InvalidStep: if a value cannot be stored without a change.
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
            f"reset returned {found}. Expected two: the observation, and info, a dict."
        )
    return result  # type: ignore[return-value]


def reward_of(value: Any) -> float:
    """Return a reward as a number. An array of one number is converted to that number.

    Raises:
      InvalidStep: if it is not a number that float32 can hold.
    """
    if isinstance(value, float) and -_LARGEST <= value <= _LARGEST:  # false for NaN
        return value
    array = _array(value)
    if array is None or array.dtype.kind not in "biuf" or array.size != 1:
        raise InvalidStep(f"the reward is {_show(value)}. Expected a number.")
    number = float(array.reshape(()))
    if not -_LARGEST <= number <= _LARGEST:
        raise InvalidStep(
            f"the reward is {number}. Expected a finite number below 3.4e38, the limit of float32."
        )
    return number


def flag_of(value: Any, name: str) -> bool:
    """Return `terminated` or `truncated` as True or False.

    Raises:
      InvalidStep: if the value is neither a boolean nor 0 or 1.
    """
    if isinstance(value, _FLAGS):
        return bool(value)
    array = _array(value)
    if array is not None and array.dtype.kind in "biuf" and array.size == 1:
        number = array.reshape(())
        if number in (0, 1):
            return bool(number)
    raise InvalidStep(f"{name} is {_show(value)}. Expected True or False.")


def rewards_of(values: Any, num_envs: int) -> np.ndarray:
    """Return the rewards `[N]` of a vector environment.

    Raises:
      InvalidStep: if they are not N numbers that float32 can hold.
    """
    array = _batch(values, num_envs, "the rewards")
    if not (np.abs(array) <= _LARGEST).all():
        n = int(np.argmin(np.abs(array) <= _LARGEST))
        raise InvalidStep(
            f"the reward is {array[n]}. Expected a finite number below 3.4e38, the limit of "
            "float32.",
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
            n = int(wrong[0])
            raise InvalidStep(f"{name} is {array[n]}. Expected True or False.", n)
    return array.astype(bool, copy=False)


def make_check(space: spaces.Space, name: str = "the observation") -> Check:
    """Build a function that raises `InvalidStep` unless its argument can be stored.

    The argument must have the space's shape. Its values must survive the conversion to the dtype in
    which agents see them, and must be finite. They must be within the bounds of the space, except
    for a Box, whose bounds are not enforced, as is usual in the field.

    Args:
      space: the space.
      name: what messages call the argument.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return _make_parts_check(space, name)
    complete = _make_complete_check(space, name)
    stored, shape = own.dtype(space), own.shape(space)
    if isinstance(space, spaces.Discrete):
        return _make_index_check(*_range(space), complete)
    if stored.kind == "f" and len(shape) == 1 and shape[0] <= _FEW:
        return _make_short_vector_check(stored, shape, complete)
    if stored.kind == "f":
        return _make_float_check(stored, shape, complete)
    if isinstance(space, spaces.Box):
        return _make_integer_check(stored, shape, complete)
    return complete


# The functions below build checks that decide the usual case fast. They leave all other cases,
# which may be valid or not, to the complete check.


def _make_index_check(low: int, high: int, complete: Check) -> Check:
    def check(obs: Any) -> None:
        if not (isinstance(obs, _INTEGERS) and low <= obs <= high):
            complete(obs)

    return check


def _make_short_vector_check(stored: np.dtype, shape: tuple[int, ...], complete: Check) -> Check:
    def check(obs: Any) -> None:
        usual = type(obs) is np.ndarray and obs.dtype == stored and obs.shape == shape
        if not (usual and math.isfinite(sum(obs.tolist()))):  # as `_has_finite_sum` does
            complete(obs)

    return check


def _make_float_check(stored: np.dtype, shape: tuple[int, ...], complete: Check) -> Check:
    holds_float32 = stored != np.float16

    def check(obs: Any) -> None:
        if type(obs) is np.ndarray and obs.shape == shape:
            if obs.dtype == stored and _has_finite_sum(obs):
                return
            # If the sum of squares is at most the square of the largest float32, every number is
            # at most the largest float32.
            if obs.dtype == np.float64 and holds_float32 and np.vdot(obs, obs) <= _LARGEST**2:
                return
        complete(obs)

    return check


def _make_integer_check(stored: np.dtype, shape: tuple[int, ...], complete: Check) -> Check:
    def check(obs: Any) -> None:
        if not (type(obs) is np.ndarray and obs.dtype == stored and obs.shape == shape):
            complete(obs)

    return check


def _make_complete_check(space: spaces.Space, name: str) -> Check:
    """Build the check that decides every case and names what is wrong."""
    stored, shape = own.dtype(space), own.shape(space)
    low, high = _range(space)
    if stored.kind == "f":
        expected = f"a finite number ({stored})"
    else:
        limits = (
            f"from {low} to {high}" if isinstance(space, spaces.Discrete) else f"within {space}"
        )
        expected = f"{'integers' if shape else 'an integer'} {limits} ({stored})"

    def check(obs: Any) -> None:
        array = _array(obs)
        if array is None or array.dtype.kind not in "biuf":
            raise InvalidStep(
                f"{name} is {_show(obs)}. Expected numbers of shape {shape} for {space}."
            )
        if array.shape != shape:
            raise InvalidStep(
                f"{name} has shape {array.shape}, but the environment's observation_space promises "
                f"{shape}. Correct the environment or its observation_space."
            )
        with np.errstate(all="ignore"):
            cast = array.astype(stored)
            wrong = ~np.isfinite(cast) if stored.kind == "f" else cast != array
            if low is not None:
                wrong |= (array < low) | (array > high)
        if wrong.any():
            value = array[wrong].flat[0]
            raise InvalidStep(f"{name} {'holds' if shape else 'is'} {value}. Expected {expected}.")

    return check


def _make_parts_check(space: spaces.Dict | spaces.Tuple, name: str) -> Check:
    """Build the check of an element of a Dict or Tuple."""
    checks = [(key, make_check(part, f"{name}[{key!r}]")) for key, part in own.parts(space)]
    is_dict = isinstance(space, spaces.Dict)
    kind = Mapping if is_dict else (tuple, list)

    def check(obs: Any) -> None:
        if not isinstance(obs, kind):
            expected = "a dict" if is_dict else "a tuple"
            raise InvalidStep(f"{name} is {_show(obs)}. Expected {expected} for {space}.")
        for key, check_part in checks:
            try:
                part = obs[key]
            except (KeyError, IndexError):
                raise InvalidStep(
                    f"{name} lacks {key!r}. Expected an element of {space}."
                ) from None
            check_part(part)

    return check


def make_batch_check(
    space: spaces.Space, num_envs: int | None, name: str = "the observation"
) -> Check:
    """Build a function like that of `make_check` for batches `[N, ...]`.

    Args:
      space: the space of one element.
      num_envs: N, or None for batches of any size.
      name: what messages call the batch.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return _make_batch_parts_check(space, num_envs, name)
    shape, check_one = own.shape(space), make_check(space, name)
    is_valid = _make_batch_validity(space)

    def check(obs: Any) -> None:
        array = _array(obs)
        if array is None or not array.shape or num_envs not in (None, len(array)):
            found = _show(obs) if array is None else f"an array of shape {array.shape}"
            raise InvalidStep(
                f"{name} is {found}. Expected a batch of shape {(num_envs or 'N', *shape)}."
            )
        if is_valid(array):
            return
        for n in range(len(array)):
            try:
                check_one(array[n])
            except InvalidStep as error:
                raise InvalidStep(error.problem, n) from None

    return check


def _make_batch_validity(space: spaces.Space) -> Callable[[np.ndarray], bool]:
    """Build a function that tells whether a batch is certainly valid.

    If the function returns False, the elements have to be checked one by one.
    """
    stored, shape = own.dtype(space), own.shape(space)
    low, high = _range(space)

    def is_valid(array: np.ndarray) -> bool:
        if array.dtype.kind not in "biuf" or array.shape[1:] != shape:
            return False
        with np.errstate(all="ignore"):
            cast = array.astype(stored, copy=False)
        if stored.kind == "f":
            return _has_finite_sum(cast)
        exact = cast is array or (cast == array).all()
        return bool(exact and (low is None or ((array >= low) & (array <= high)).all()))

    return is_valid


def _make_batch_parts_check(
    space: spaces.Dict | spaces.Tuple, num_envs: int | None, name: str
) -> Check:
    """Build the check of a batch of elements of a Dict or Tuple."""
    checks = [
        (key, make_batch_check(part, num_envs, f"{name}[{key!r}]"))
        for key, part in own.parts(space)
    ]

    def check(obs: Any) -> None:
        for key, check_part in checks:
            try:
                part = obs[key]
            except (KeyError, IndexError, TypeError):
                raise InvalidStep(
                    f"{name} lacks {key!r}. Expected a batch of elements of {space}."
                ) from None
            check_part(part)

    return check


class BufferWatch:
    """Detects environments whose reset overwrites the last observation of the previous episode.

    In SAME_STEP mode, Gymnasium's vector environments return the last observation of an episode
    without copying it. If the environment writes its next first observation into the same array,
    the last observation is lost: the array then equals the first observation, and it changes with
    the next step. In environments in other processes (`AsyncVectorEnv`), this cannot be detected.
    """

    def __init__(self) -> None:
        # Index of the environment, the observation that it returned, and a copy of its arrays.
        self._suspects: list[tuple[int, Any, list[np.ndarray]]] = []

    def saw(self, n: int, final_obs: Any, first_obs: Any) -> None:
        """Remember a last observation if it equals the next first observation.

        Args:
          n: index of the environment.
          final_obs: the last observation of an episode, as the vector environment returned it.
          first_obs: the first observation of the next episode.
        """
        last = [np.array(x) for x in jax.tree.leaves(final_obs)]
        first = [np.array(x) for x in jax.tree.leaves(first_obs)]
        if all(np.array_equal(x, y) for x, y in zip(last, first, strict=True)):
            self._suspects.append((n, final_obs, last))

    def check(self) -> None:
        """Check whether the newest step changed a last observation that was returned before.

        Raises:
          InvalidStep: if it did.
        """
        suspects, self._suspects = self._suspects, []
        for n, final_obs, copies in suspects:
            arrays = jax.tree.leaves(final_obs)
            if not all(np.array_equal(x, y) for x, y in zip(arrays, copies, strict=True)):
                raise InvalidStep(
                    "info['final_obs'] holds the first observation of the next episode, because "
                    "the environment writes every observation into the same array and Gymnasium's "
                    "SAME_STEP mode does not copy it. Return a copy from the environment's step "
                    "and reset, or use gymnasium.vector.AutoresetMode.DISABLED or NEXT_STEP.",
                    n,
                )


def _range(space: spaces.Space) -> tuple[Any, Any]:
    """Return the smallest and the largest value of a space, or (None, None) for a Box."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start) + int(space.n) - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    return (0, 1) if isinstance(space, spaces.MultiBinary) else (None, None)


def _has_finite_sum(array: np.ndarray) -> bool:
    """Return whether the sum of the numbers, or of their squares, is finite.

    If it is, all numbers are finite. For few numbers, Python's own sum takes a tenth of the time of
    `np.isfinite(array).all()`. For more numbers, a dot product takes a third of it.
    """
    if array.ndim == 1 and array.size <= _FEW:
        return math.isfinite(sum(array.tolist()))
    if array.dtype == np.float16:  # squares of float16 overflow
        return bool(np.isfinite(array).all())
    return math.isfinite(np.vdot(array, array))


def _array(value: Any) -> np.ndarray | None:
    """Return a value as an array, or None if NumPy cannot convert it."""
    if isinstance(value, np.ndarray):
        return value
    try:
        return np.asarray(value)
    except (ValueError, TypeError):  # lists of unequal lengths, for example
        return None


def _batch(values: Any, num_envs: int, name: str) -> np.ndarray:
    """Return N numbers or booleans as an array `[N]`."""
    array = _array(values)
    if array is None or array.dtype.kind not in "biuf":
        raise InvalidStep(f"{name} are {_show(values)}. Expected an array of shape ({num_envs},).")
    if array.size != num_envs or array.shape[:1] != (num_envs,):
        raise InvalidStep(
            f"{name} are of shape {array.shape}. Expected an array of shape ({num_envs},)."
        )
    return array.reshape(num_envs)


def _show(value: Any) -> str:
    """Return a short text that shows a value."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({type(value).__name__})"
