"""Episodes that can be repeated: their seeds, and a journal of the actions taken in them.

The state of a Python environment cannot be saved in general. But with the same seed and
the same actions, most environments reach the same state. The journal
keeps the actions of each running episode, and a checksum of everything that was observed.
"""

import functools
import math
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentzoo.types import PyTree, Trajectory

MAX_STEPS = 1_000_000
"""Steps of an episode up to which its actions are kept."""

BROKEN_OFF = -1
"""In place of the number of steps: the next episode has to begin."""

TOO_LONG = -2
"""In place of the number of steps: the episode has more than `MAX_STEPS` steps."""

_TOKEN_WORDS = 4  # the largest random keys of JAX have 128 bits
_SEEDS_PER_BLOCK = 64
_PENDING_ROWS = 256
_PENDING_BYTES = 2**22
_SAMPLE = 256  # numbers of a large array that its checksum covers


class Start(NamedTuple):
    """How an episode began.

    Attributes:
      number: the number of the episode in its environment, from 0.
      token: the seed of its `reset`, or the random key of a functional environment. None if the
        environment was not seeded.
    """

    number: int
    token: Any


class Record(NamedTuple):
    """A running episode.

    Attributes:
      start: how it began.
      steps: its number of steps so far, `BROKEN_OFF` or `TOO_LONG`.
      checksum: checksum of its observations, apart from the newest one, and of its rewards.
      actions: its actions, as arrays `[*, ...]` to be joined.
    """

    start: Start
    steps: int
    checksum: int
    actions: tuple[np.ndarray, ...]


class Running(NamedTuple):
    """A running episode, and where it stands.

    Attributes:
      start: how it began.
      steps: its number of steps so far, `BROKEN_OFF` or `TOO_LONG`.
      checksum: as in `Record`.
      actions: `[steps, ...]`, its actions, as the agent chose them.
      obs: the newest observation, a tree of arrays `[1, ...]`.
    """

    start: Start
    steps: int
    checksum: int
    actions: np.ndarray
    obs: PyTree


class Resumed(NamedTuple):
    """Environments that were brought back to where their episodes stood.

    Attributes:
      obs: `[N, ...]`, the observations to act on next.
      begun: bool `[N]`, whether a new episode has begun instead.
      problems: why, for each environment whose episode should have been resumed.
    """

    obs: PyTree
    begun: np.ndarray
    problems: dict[int, str]


class EpisodesState(NamedTuple):
    """The running episodes of N environments, as NumPy arrays.

    Attributes:
      number: int64 `[N]`, the numbers of the episodes.
      token: uint32 `[N, 4]`, the seeds or the random keys with which they began.
      steps: int64 `[N]`, their numbers of steps; see `Record`.
      checksum: uint32 `[N]`; see `Record`.
      actions: `[K, ...]`, the actions of the first environment's episode, then those of the second,
        and so on.
    """

    number: np.ndarray
    token: np.ndarray
    steps: np.ndarray
    checksum: np.ndarray
    actions: np.ndarray


class Journal(NamedTuple):
    """The running episodes of N environments. A journal is never changed, only replaced.

    Trajectories wait until there are enough of them, because it takes less time to add many at
    once.

    Attributes:
      records: the episodes, without the trajectories that wait.
      pending: the newest trajectory, the starts of the episodes that ran after it, and the ones
        before, as `(before, trajectory, starts)`; None if there is no trajectory.
      count: the number of trajectories that wait.
      most: the number of trajectories that may wait.
    """

    records: tuple[Record, ...]
    pending: Any = None
    count: int = 0
    most: int = 0

    @classmethod
    def begin(cls, starts: Sequence[Start]) -> "Journal":
        """Return the journal of new episodes."""
        return cls(tuple(_begun(start) for start in starts))

    def add(self, trajectory: Trajectory, starts: Sequence[Start]) -> "Journal":
        """Return the journal after a trajectory.

        Args:
          trajectory: `[T, N]` NumPy arrays.
          starts: how the episodes began that run after the trajectory.
        """
        count, most = self.count + 1, self.most or _how_many(trajectory)
        journal = Journal(self.records, (self.pending, trajectory, starts), count, most)
        return journal if count < most else journal.complete()

    def complete(self) -> "Journal":
        """Return the same journal, without trajectories that wait."""
        if self.pending is None:
            return self
        trajectories: list[Trajectory] = []
        pending, starts = self.pending, self.pending[2]
        while pending is not None:
            pending, trajectory, _ = pending
            trajectories.append(trajectory)
        trajectories.reverse()
        # A dummy step without an end stands for an environment that was created again.
        last = np.concatenate([each.last_t | ~each.mask for each in trajectories])  # [R, N]
        actions = np.concatenate([each.a_tm1 for each in trajectories])  # [R, N, ...]
        seen = _bytes_of([each.obs_tm1 for each in trajectories], [x.r_t for x in trajectories])
        seen = np.ascontiguousarray(seen.swapaxes(0, 1))  # [N, R, bytes]
        ended: Any = last.any(axis=0)
        records = []
        for n, record in enumerate(self.records):
            begin = 0
            if ended[n]:
                begin = int(np.flatnonzero(last[:, n])[-1]) + 1
                record = _begun(starts[n])
            records.append(_extended(record, actions[begin:, n], seen[n, begin:]))
        return Journal(tuple(records))

    def break_off(self) -> "Journal":
        """Return the journal if all episodes are broken off."""
        records = self.complete().records
        return Journal(tuple(Record(each.start, BROKEN_OFF, 0, ()) for each in records))

    def to_arrays(self, action: np.ndarray) -> EpisodesState:
        """Return the journal as arrays.

        Args:
          action: `[0, ...]`, an array with the shape and dtype of actions.
        """
        records = self.complete().records
        return EpisodesState(
            np.array([each.start.number for each in records], np.int64),
            np.array([_words(each.start.token) for each in records], np.uint32),
            np.array([each.steps for each in records], np.int64),
            np.array([each.checksum for each in records], np.uint32),
            np.concatenate([action, *(chunk for each in records for chunk in each.actions)]),
        )

    @classmethod
    def from_running(cls, running: Sequence[Running], starts: Sequence[Start]) -> "Journal":
        """Return the journal of episodes that were resumed.

        Args:
          running: the episodes.
          starts: how the episodes of the environments began. Where the number is not that of
            `running`, a new episode has begun.
        """
        return cls(
            tuple(
                Record(start, one.steps, one.checksum, (one.actions,))
                if start.number == one.start.number and one.steps >= 0
                else _begun(start)
                for one, start in zip(running, starts, strict=True)
            )
        )


def read(state: EpisodesState, obs: PyTree) -> list[Running]:
    """Return the running episodes that `Journal.to_arrays` wrote.

    Args:
      state: the episodes.
      obs: `[N, ...]`, their newest observations.
    """
    steps = np.maximum(state.steps, 0)
    ends = np.cumsum(steps).tolist()
    return [
        Running(
            Start(int(state.number[n]), state.token[n]),
            int(state.steps[n]),
            int(state.checksum[n]),
            state.actions[end - steps[n] : end],
            jax.tree.map(lambda x, n=n: np.asarray(x)[n : n + 1], obs),
        )
        for n, end in enumerate(ends)
    ]


def episode_seed(seed: int, index: int, number: int) -> int:
    """Return the seed of an episode, below 2**31.

    Args:
      seed: the seed of the run.
      index: the index of the environment among those of all actors.
      number: the number of the episode. Episode 0 has the seed `seed + index`.
    """
    if number == 0:
        return seed + index
    block, position = divmod(number, _SEEDS_PER_BLOCK)
    return _seeds(seed, index, block)[position]


@functools.lru_cache(maxsize=4096)
def _seeds(seed: int, index: int, block: int) -> list[int]:
    sequence = np.random.SeedSequence(seed, spawn_key=(index, block))
    return (sequence.generate_state(_SEEDS_PER_BLOCK) >> 1).tolist()


def extend_checksum(checksum: int, obs: PyTree, rewards: np.ndarray) -> int:
    """Return the checksum of an episode after further steps.

    Args:
      checksum: the checksum before; 0 at the beginning.
      obs: `[R, ...]`, the observations before each of the steps.
      rewards: float32 `[R]`, the rewards of the steps.
    """
    seen = _bytes_of([jax.tree.map(lambda x: x[:, None], obs)], [rewards[:, None]])
    return zlib.crc32(np.ascontiguousarray(seen).data, checksum)


def _begun(start: Start) -> Record:
    return Record(start, BROKEN_OFF if start.token is None else 0, 0, ())


def _extended(record: Record, actions: np.ndarray, seen: np.ndarray) -> Record:
    """Return an episode after R more steps; `seen` is `[R, bytes]`, in contiguous memory."""
    if record.steps < 0 or not len(actions):
        return record
    steps = record.steps + len(actions)
    if steps > MAX_STEPS:
        return Record(record.start, TOO_LONG, 0, ())
    chunks = (*record.actions, np.array(actions))  # a copy, because `actions` is part of an array
    return Record(record.start, steps, zlib.crc32(seen.data, record.checksum), chunks)


def _bytes_of(obs: Sequence[PyTree], rewards: Sequence[np.ndarray]) -> np.ndarray:
    """Return `[R, N, bytes]`, what is compared of R steps in N environments.

    Args:
      obs: the observations before the steps, in parts `[*, N, ...]` along the first axis.
      rewards: the rewards of the steps, in parts.
    """
    columns = zip(*(jax.tree.leaves(part) for part in obs), strict=True)  # one for each leaf
    return np.concatenate([_sample(parts) for parts in (*columns, rewards)], axis=-1)


def _sample(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return numbers of each element of an array `[R, N, ...]` as bytes `[R, N, bytes]`."""
    first = parts[0]
    size = math.prod(first.shape[2:])
    # An odd stride goes through all columns and channels of an image.
    stride = size // _SAMPLE | 1
    if stride == 1:
        joined = np.concatenate(parts).reshape(-1, first.shape[1], size)
    else:
        flat = [x.reshape(len(x), first.shape[1], size)[..., ::stride] for x in parts]
        joined = np.concatenate(flat)
    return np.ascontiguousarray(joined).view(np.uint8)


def _how_many(trajectory: Trajectory) -> int:
    """Return how many trajectories like this one may wait."""
    size = sum(x.nbytes for x in jax.tree.leaves(trajectory.obs_tm1))
    return max(1, min(_PENDING_ROWS // len(trajectory.last_t), _PENDING_BYTES // max(size, 1)))


def _words(token: Any) -> list[int]:
    """Return a seed or a random key as numbers of 32 bits."""
    if token is None:
        words: list[int] = []
    elif isinstance(token, np.ndarray):
        words = token.tolist()
    elif isinstance(token, int):
        words = [token >> 32 * i & 0xFFFFFFFF for i in range(_TOKEN_WORDS)]
    else:
        words = np.asarray(jax.random.key_data(token)).tolist()
    return words + [0] * (_TOKEN_WORDS - len(words))


def seed_of(token: Any) -> int:
    """Return the seed that a token stands for."""
    if isinstance(token, int):
        return token
    return sum(int(word) << 32 * i for i, word in enumerate(token))


def key_of(token: Any) -> Any:
    """Return the random key that a token stands for."""
    if not isinstance(token, np.ndarray):
        return token
    size = jax.random.key_data(jax.random.key(0)).size
    return jax.random.wrap_key_data(jnp.asarray(token[:size]))
