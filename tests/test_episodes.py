"""Seeds of episodes, and the journal of running episodes."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo.envs import episodes
from agentzoo.envs.episodes import BROKEN_OFF, TOO_LONG, Journal, Start, episode_seed
from agentzoo.types import Trajectory


def trajectory(rng, num, length, ends, mask):
    """Return a random trajectory with observations of two parts."""
    obs = {
        "a": rng.random((length, num, 3), np.float32),
        "b": rng.integers(0, 255, (length, num, 40, 50), np.uint8),
    }
    actions = rng.integers(0, 9, (length, num))
    rewards = rng.random((length, num), np.float32)
    ones = np.ones((length, num), np.float32)
    return Trajectory(obs, actions, rewards, ones, obs, ends, ends, mask)


class Naive:
    """One environment's episode, step by step."""

    def __init__(self, start):
        self.start, self.actions, self.checksum = start, [], 0

    def add(self, obs, action, reward):
        a, b = obs["a"].tobytes(), obs["b"].reshape(-1)[:: 2000 // 256 | 1].tobytes()
        self.checksum = zlib.crc32(a + b + reward.tobytes(), self.checksum)
        self.actions.append(int(action))


@settings(deadline=None, max_examples=30)
@given(
    num=st.integers(1, 3),
    length=st.sampled_from([1, 4, 50, 300]),
    count=st.integers(1, 9),
    often=st.sampled_from([0.0, 0.02, 0.5]),
    seed=st.integers(0, 99),
)
def test_a_journal_is_what_is_recorded_step_by_step(num, length, count, often, seed):
    rng = np.random.default_rng(seed)
    starts = [Start(0, 100 + n) for n in range(num)]
    naive = [Naive(start) for start in starts]
    journal = Journal.begin(starts)
    for _ in range(count):
        ends = rng.random((length, num)) < often
        mask = rng.random((length, num)) >= often / 4  # an environment was made again
        part = trajectory(rng, num, length, ends, mask)
        for t, n in np.ndindex(length, num):
            naive[n].add({k: x[t, n] for k, x in part.obs_tm1.items()}, *_row(part, t, n))
            if ends[t, n] or not mask[t, n]:
                number = starts[n].number + 1
                starts[n] = Start(number, 1000 * number + n)
                naive[n] = Naive(starts[n])
        journal = journal.add(part, tuple(starts))
    before = journal
    state = journal.to_arrays(np.empty(0, np.int64))
    assert before is journal
    running = episodes.read(state, np.zeros((num, 2)))
    for one, expected in zip(running, naive, strict=True):
        assert one.start.number == expected.start.number
        assert episodes.seed_of(one.start.token) == expected.start.token
        assert one.steps == len(expected.actions) and one.actions.tolist() == expected.actions
        assert one.checksum == expected.checksum


def _row(part, t, n):
    return part.a_tm1[t, n], part.r_t[t, n]


def test_parts_of_an_episode_have_the_checksum_of_the_whole():
    rng = np.random.default_rng(0)
    obs, rewards = {"x": rng.random((9, 2000))}, rng.random(9).astype(np.float32)
    whole = episodes.extend_checksum(0, obs, rewards)
    begin = episodes.extend_checksum(0, {"x": obs["x"][:4]}, rewards[:4])
    assert episodes.extend_checksum(begin, {"x": obs["x"][4:]}, rewards[4:]) == whole
    rewards[5] += 1
    assert episodes.extend_checksum(0, obs, rewards) != whole


def test_a_long_episode_is_no_longer_recorded(monkeypatch):
    monkeypatch.setattr(episodes, "MAX_STEPS", 600)
    rng = np.random.default_rng(0)
    start = (Start(0, 1),)
    none, mask = np.zeros((300, 1), bool), np.ones((300, 1), bool)
    journal = Journal.begin(start)
    for steps in (300, 600, TOO_LONG, TOO_LONG):
        journal = journal.add(trajectory(rng, 1, 300, none, mask), start)
        state = journal.to_arrays(np.empty(0, np.int64))
        assert state.steps.tolist() == [steps] and len(state.actions) == max(steps, 0)
    last = none.copy()
    last[250] = True
    journal = journal.add(trajectory(rng, 1, 300, last, mask), (Start(1, 2),))
    assert journal.to_arrays(np.empty(0, np.int64)).steps.tolist() == [49]
    assert journal.break_off().to_arrays(np.empty(0, np.int64)).steps.tolist() == [BROKEN_OFF]


def test_seeds_of_episodes_differ_and_fit():
    seeds = [episode_seed(3, i, k) for i in range(20) for k in range(200)]
    assert len(set(seeds)) == len(seeds) and max(seeds) < 2**31 and min(seeds) >= 0
    assert [episode_seed(3, i, 0) for i in range(3)] == [3, 4, 5]
    assert episode_seed(3, 1, 70) == episode_seed(3, 1, 70) != episode_seed(4, 0, 70)


@pytest.mark.parametrize("token", [0, 5, 2**31 - 1, 2**90 + 3])
def test_seeds_survive_as_words(token):
    journal = Journal.begin([Start(0, token)])
    state = journal.to_arrays(np.empty(0, np.int64))
    assert episodes.seed_of(state.token[0]) == token
