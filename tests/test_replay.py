import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo.replay import make_replay, sum_tree
from agentzoo.replay.rows import make_rows
from agentzoo.types import ConfigurationError, EnvSpec, Trajectory

SPACE = spaces.Box(-np.inf, np.inf, (1,), np.float32)


def spec(num_envs):
    return EnvSpec(SPACE, spaces.Discrete(2), num_envs)


class Stream:
    """Random experience in N environments, with numbered steps: the observation is the number of the step in its environment."""

    def __init__(self, num_envs, rng):
        self.rng, self.count, self.history = rng, np.zeros(num_envs), [[] for _ in range(num_envs)]
        self.first = np.ones(num_envs, bool)

    def trajectory(self, length):
        num_envs = len(self.history)
        shape = (length, num_envs)
        obs_tm1, last, terminated, first = np.zeros((*shape, 1)), np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
        mask, r_t, a_tm1 = self.rng.random(shape) > 0.2, self.rng.normal(size=shape), self.rng.integers(2, size=shape)
        for t, n in np.ndindex(*shape):
            if not mask[t, n]:
                obs_tm1[t, n] = -1e6  # must never be seen again
                continue
            obs_tm1[t, n] = self.count[n]
            last[t, n] = self.rng.random() < 0.3
            terminated[t, n] = last[t, n] and self.rng.random() < 0.5
            first[t, n] = self.first[n] or self.rng.random() < 0.05  # a reset from outside
            self.first[n] = last[t, n]
            self.history[n].append((self.count[n], a_tm1[t, n], r_t[t, n], not terminated[t, n], last[t, n], first[t, n]))
            self.count[n] += 1
        f32 = np.float32
        return Trajectory(
            obs_tm1.astype(f32), a_tm1, r_t.astype(f32), (~terminated).astype(f32), (obs_tm1 + 0.5).astype(f32), last, first, mask
        )


def n_step_oracle(steps, i, n, gamma):
    """Walks along stored steps from i; returns the reward, the discount and the last observation."""
    total, factor = 0.0, 1.0
    for k in range(n):
        number, _, r_t, discount_t, last, _ = steps[i + k]
        total += factor * r_t
        factor *= gamma
        if k == n - 1 or last or i + k + 1 == len(steps) or steps[i + k + 1][5]:
            return total, factor * discount_t, number + 0.5
    raise AssertionError


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(4, 9), st.integers(1, 4), st.booleans(), st.integers(0, 2**31))
def test_samples_against_a_brute_force_oracle(num_envs, length, rows, n_step, prioritised, seed):
    stream = Stream(num_envs, np.random.default_rng(seed))
    buffer = make_replay(spec(num_envs), rows * num_envs, length, 0.9, n_step, prioritised)
    replay = jax.jit(buffer.init)()
    add, sample = jax.jit(buffer.add), jax.jit(buffer.sample, static_argnums=2)
    for i in range(12):
        replay = add(replay, stream.trajectory(length))
        kept = [history[-rows:] for history in stream.history]
        assert replay.size.tolist() == [len(steps) for steps in kept]
        if sum(map(len, kept)) == 0:
            continue
        batch = jax.device_get(sample(replay, jax.random.key(i), 32, 0.5))
        assert (batch.weight > 0).all() and (batch.weight <= 1 + 1e-6).all()
        for b in range(32):
            n = int(batch.slot[b]) % num_envs
            at = [step[0] for step in kept[n]].index(batch.obs_tm1[b, 0])
            r_t, discount_t, obs_t = n_step_oracle(kept[n], at, n_step, 0.9)
            assert batch.a_tm1[b] == kept[n][at][1]
            np.testing.assert_allclose(
                [batch.r_t[b], batch.discount_t[b], batch.obs_t[b, 0]], [r_t, discount_t, obs_t], rtol=1e-4, atol=1e-5
            )


def full_buffer(prioritised, rows=64, num_envs=2):
    buffer = make_replay(spec(num_envs), rows * num_envs, rows, 0.9, prioritised=prioritised)
    stream = Stream(num_envs, np.random.default_rng(0))
    trajectory = stream.trajectory(rows)
    return buffer, buffer.add(buffer.init(), trajectory._replace(mask=np.ones_like(trajectory.mask)))


def test_uniform_draws_every_transition_equally_often():
    buffer, replay = full_buffer(False)
    slots = buffer.sample(replay, jax.random.key(0), 128 * 400).slot
    counts = np.bincount(slots, minlength=128)
    assert counts.min() > 400 * 0.75 and counts.max() < 400 * 1.25  # 5 standard deviations


def test_prioritised_draws_in_proportion_and_weights_correct_for_it():
    buffer, replay = full_buffer(True)
    priorities = np.random.default_rng(1).uniform(0.1, 2.0, 128).astype(np.float32)
    replay = buffer.update(replay, jnp.arange(128), priorities)
    batch = buffer.sample(replay, jax.random.key(0), 128 * 400, 1.0)
    share = np.bincount(batch.slot, minlength=128) / len(batch.slot)
    np.testing.assert_allclose(share, priorities / priorities.sum(), rtol=0.15)
    # With exponent 1, weighted sampling is uniform again.
    weighted = np.bincount(batch.slot, weights=batch.weight, minlength=128)
    np.testing.assert_allclose(weighted / weighted.sum(), 1 / 128, rtol=0.15)


def test_new_transitions_have_the_highest_priority_so_far():
    buffer, replay = full_buffer(True)
    replay = buffer.update(replay, jnp.array([3]), jnp.array([7.0]))
    trajectory = Stream(2, np.random.default_rng(2)).trajectory(64)
    replay = buffer.add(replay, trajectory._replace(mask=np.ones_like(trajectory.mask)))
    np.testing.assert_allclose(sum_tree.get(replay.priorities, jnp.arange(128)), 7.0)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.lists(st.tuples(st.integers(-1, 39), st.floats(0.0, 10.0)), min_size=1, max_size=20), st.integers(0, 2**31))
def test_sum_tree_against_an_array(num_leaves, updates, seed):
    tree, priorities = sum_tree.init(num_leaves), np.zeros(num_leaves, np.float32)
    for leaf, priority in updates:
        leaf = leaf if leaf < num_leaves else -1
        tree = sum_tree.update(tree, jnp.array([leaf]), jnp.array([priority], jnp.float32))
        if leaf >= 0:
            priorities[leaf] = priority
    np.testing.assert_allclose(sum_tree.get(tree, jnp.arange(num_leaves)), priorities)
    np.testing.assert_allclose(sum_tree.total(tree), priorities.sum(), rtol=1e-5)
    if priorities.sum() > 0:
        mass = np.random.default_rng(seed).random(50).astype(np.float32) * sum_tree.total(tree)
        found = np.asarray(sum_tree.find(tree, mass))
        assert (priorities[found] > 0).all()
        edges = np.concatenate([[0.0], np.cumsum(priorities, dtype=np.float64)])
        for leaf, m in zip(found, mass, strict=True):
            assert edges[leaf] - 1e-3 <= m <= edges[leaf + 1] + 1e-3


def test_a_trajectory_that_does_not_fit_is_refused():
    with pytest.raises(ConfigurationError, match="buffer_size=10"):
        make_replay(spec(4), 10, 4, 0.9)


SHAPES = st.lists(st.integers(1, 5), max_size=3).map(tuple)
DTYPES = st.sampled_from([bool, np.int8, np.uint8, np.int16, jnp.bfloat16, np.float16, np.int32, np.uint32, np.float32])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(SHAPES, DTYPES), min_size=1, max_size=4), st.integers(0, 2**31))
def test_rows_of_any_shape_and_dtype_come_back(kinds, seed):
    rng = np.random.default_rng(seed)

    def some(shape, dtype, *leading):
        return jnp.asarray(rng.normal(scale=50.0, size=(*leading, *shape)).astype(np.int8)).astype(dtype)

    rows = make_rows([some(*kind, 1) for kind in kinds])
    tree = [some(*kind, 3) for kind in kinds]
    stored = rows.write(rows.init(6), jnp.array([4, 0, 6]), tree)  # the last is out of range
    found = rows.read(stored, jnp.array([[0, 4], [5, 4]]))
    for leaf, expected in zip(found, tree, strict=True):
        assert leaf.dtype == expected.dtype
        first, second = (np.asarray(expected[i], np.float32) for i in (1, 0))
        np.testing.assert_array_equal(np.asarray(leaf, np.float32), [[first, second], [np.zeros_like(first), second]])
