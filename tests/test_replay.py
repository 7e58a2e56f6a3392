import re
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo.replay import Prioritisation, make_replay, sum_tree
from agentzoo.types import ConfigurationError, EnvSpec, FrameStack, Trajectory

SPACE = spaces.Box(-np.inf, np.inf, (1,), np.float32)


def spec(num_envs, depth=0, mixed=False):
    """Return a spec of numbers, of stacks of numbers, or of a Dict that is not small."""
    if mixed:
        wide = spaces.Box(-np.inf, np.inf, (20,), np.float32)
        return EnvSpec(
            spaces.Dict(number=wide, inner=spaces.Tuple([spaces.Discrete(9)])),
            spaces.Discrete(2),
            num_envs,
        )
    space = FrameStack(-np.inf, np.inf, (depth, 1), np.float32) if depth else SPACE
    return EnvSpec(space, spaces.Discrete(2), num_envs)


class Step(NamedTuple):
    """A step as a plain buffer would keep it: with both observations whole, as tuples of frames."""

    obs_tm1: tuple
    a_tm1: int
    r_t: float
    discount_t: float
    obs_t: tuple
    last_t: bool
    first_tm1: bool
    end: int  # frames that its environment has had to write so far


class Stream:
    """Random experience in N environments.

    Every frame has a number of its own; observations are the last `depth` of them.
    """

    def __init__(self, num_envs, rng, depth=1):
        self.rng, self.depth, self.history = rng, depth, [[] for _ in range(num_envs)]
        self.window: list = [
            None
        ] * num_envs  # the observation to act on next, unless an episode begins
        self.frames = 0

    def frame(self):
        self.frames += 1
        return float(self.frames)

    def trajectory(self, length):
        shape = (length, len(self.history))
        rows = {name: np.zeros(shape, np.float32) for name in ("r_t", "discount_t")}
        rows |= {name: np.zeros(shape, bool) for name in ("last_t", "first_tm1")}
        rows |= {
            name: np.full((*shape, self.depth, 1), -1e6, np.float32)
            for name in ("obs_tm1", "obs_t")
        }  # never to be seen again
        rows |= {"a_tm1": self.rng.integers(2, size=shape), "mask": self.rng.random(shape) > 0.2}
        for t, n in np.ndindex(*shape):
            if not rows["mask"][t, n]:
                continue
            first = self.window[n] is None or self.rng.random() < 0.05  # or a reset from outside
            if first:
                newest = self.frame()
                self.window[n] = (self.rng.choice([0.0, newest]),) * (self.depth - 1) + (
                    newest,
                )  # how stacks are padded at first
            obs_tm1, obs_t = self.window[n], (*self.window[n][1:], self.frame())
            last = self.rng.random() < 0.3
            discount = float(not (last and self.rng.random() < 0.5))
            before = self.history[n][-1].end if self.history[n] else 0
            step = Step(
                obs_tm1,
                rows["a_tm1"][t, n],
                self.rng.normal(),
                discount,
                obs_t,
                last,
                first,
                before + 1 + first * self.depth,
            )
            self.history[n].append(step)
            self.window[n] = None if last else obs_t
            for name in ("r_t", "discount_t", "last_t", "first_tm1"):
                rows[name][t, n] = getattr(step, name)
            rows["obs_tm1"][t, n, :, 0], rows["obs_t"][t, n, :, 0] = obs_tm1, obs_t
        return Trajectory(**rows)

    def kept(self, rows, frame_rows):
        """Return the steps that a buffer must hold: the last ones whose frames have room."""
        return [
            [
                step
                for step in steps[-rows:]
                if steps[-1].end - step.end + self.depth + 1 <= frame_rows
            ]
            if steps
            else []
            for steps in self.history
        ]


def as_observations(trajectory, space):
    """Observations `[T, N, S, 1]` in the form of a space."""

    def convert(obs):
        if isinstance(space, spaces.Dict):
            return {
                "number": np.repeat(obs[:, :, 0], 20, axis=2),
                "inner": (obs[:, :, 0, 0].astype(np.int32) % 9,),
            }
        return obs if isinstance(space, FrameStack) else obs[:, :, 0]

    return trajectory._replace(obs_tm1=convert(trajectory.obs_tm1), obs_t=convert(trajectory.obs_t))


def frames_of(obs, index):
    """The observation at an index as a tuple of frames."""
    if isinstance(obs, dict):
        assert obs["inner"][0][index] == int(obs["number"][index][0]) % 9
        assert (obs["number"][index] == obs["number"][index][0]).all()
        return (float(obs["number"][index][0]),)
    return tuple(obs[index].reshape(-1).tolist())


def n_step_oracle(steps, i, n, gamma):
    """Walk along stored steps from i, and return reward, discount and last observation."""
    total, factor = 0.0, 1.0
    for k in range(n):
        step = steps[i + k]
        total += factor * step.r_t
        factor *= gamma
        if k == n - 1 or step.last_t or i + k + 1 == len(steps) or steps[i + k + 1].first_tm1:
            return total, factor * step.discount_t, step.obs_t
    raise AssertionError


KINDS = st.sampled_from([{}, {"mixed": True}, {"depth": 1}, {"depth": 2}, {"depth": 4}])
SHAPES = (
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(4, 30),
)  # environments, steps of a trajectory, rows


@settings(deadline=None, max_examples=12)
@given(KINDS, *SHAPES, st.integers(1, 4), st.booleans(), st.integers(0, 2**31))
def test_samples_against_a_buffer_of_whole_stacks(
    kind, num_envs, length, rows, n_step, prioritised, seed
):
    stream = Stream(num_envs, np.random.default_rng(seed), kind.get("depth", 1))
    env_spec = spec(num_envs, **kind)
    buffer = make_replay(
        env_spec, rows * num_envs, length, 0.9, n_step, Prioritisation() if prioritised else None
    )
    replay = jax.jit(buffer.init)()
    frame_rows = (
        len(jax.tree.leaves(replay.frames)[0]) // num_envs
        if jax.tree.leaves(replay.frames)
        else np.inf
    )
    add, sample = jax.jit(buffer.add), jax.jit(buffer.sample, static_argnums=2)
    for i in range(60 // length):  # twice around both rings, or more
        replay = add(replay, as_observations(stream.trajectory(length), env_spec.observation_space))
        kept = stream.kept(rows, frame_rows)
        assert replay.size.tolist() == [len(steps) for steps in kept]
        if sum(map(len, kept)) == 0:
            continue
        if prioritised:  # what was dropped cannot be drawn
            assert sum_tree.total(replay.priorities) == sum(map(len, kept))
        batch = jax.device_get(sample(replay, jax.random.key(i), 32, 0.5))
        assert (batch.weight > 0).all() and (batch.weight <= 1 + 1e-6).all()
        for b in range(32):
            n = int(batch.slot[b]) % num_envs
            at = [step.obs_tm1 for step in kept[n]].index(frames_of(batch.obs_tm1, b))
            r_t, discount_t, obs_t = n_step_oracle(kept[n], at, n_step, 0.9)
            assert batch.a_tm1[b] == kept[n][at].a_tm1
            assert frames_of(batch.obs_t, b) == obs_t
            np.testing.assert_allclose(
                [batch.r_t[b], batch.discount_t[b]], [r_t, discount_t], rtol=1e-4, atol=1e-5
            )


@settings(deadline=None, max_examples=8)
@given(KINDS, *SHAPES, st.integers(1, 6), st.integers(0, 2**31))
def test_sequences_against_a_buffer_of_whole_stacks(kind, num_envs, length, rows, sequence, seed):
    stream = Stream(num_envs, np.random.default_rng(seed), kind.get("depth", 1))
    env_spec = spec(num_envs, **kind)
    buffer = make_replay(env_spec, rows * num_envs, length, 0.9)
    replay = jax.jit(buffer.init)()
    frame_rows = (
        len(jax.tree.leaves(replay.frames)[0]) // num_envs
        if jax.tree.leaves(replay.frames)
        else np.inf
    )
    add, sample = jax.jit(buffer.add), jax.jit(buffer.sample_sequences, static_argnums=(2, 3))
    for i in range(60 // length):
        replay = add(replay, as_observations(stream.trajectory(length), env_spec.observation_space))
        kept = stream.kept(rows, frame_rows)
        if max(map(len, kept)) < sequence:
            continue
        drawn = jax.device_get(sample(replay, jax.random.key(i), 16, sequence))
        assert drawn.mask.shape == (sequence, 16) and drawn.mask.all()
        for b in range(16):
            first = frames_of(drawn.obs_tm1, (0, b))
            steps, at = next(
                (steps, i)
                for steps in kept
                for i, step in enumerate(steps)
                if step.obs_tm1 == first
            )
            for t, step in enumerate(steps[at : at + sequence]):
                assert (
                    frames_of(drawn.obs_tm1, (t, b)) == step.obs_tm1
                    and frames_of(drawn.obs_t, (t, b)) == step.obs_t
                )
                found = tuple(
                    getattr(drawn, name)[t, b]
                    for name in ("a_tm1", "discount_t", "last_t", "first_tm1")
                )
                # An episode also ends where the next step begins another, within the sequence.
                broken_off = t + 1 < sequence and steps[at + t + 1].first_tm1
                last = step.last_t or broken_off
                assert found == (step.a_tm1, step.discount_t, last, step.first_tm1)
                np.testing.assert_allclose(drawn.r_t[t, b], step.r_t, rtol=1e-5)
            assert at + sequence <= len(steps)


def laid_out_anew(kept, num_envs, rows, frame_rows, depth):
    """Return the old steps that each of `num_envs` environments gets, and their old places."""
    flat, places = [], []
    for n, steps in enumerate(kept):
        for i, step in enumerate(steps):
            flat.append(
                step._replace(
                    first_tm1=step.first_tm1 or i == 0, last_t=step.last_t or i == len(steps) - 1
                )
            )
            places.append((n, i))
    share, columns = -(-len(flat) // num_envs), []
    for first in range(0, share * num_envs, max(share, 1)):
        column, end = [], 0
        for i, (step, place) in enumerate(
            zip(flat[first : first + share], places[first : first + share], strict=True)
        ):
            begins = step.first_tm1 or i == 0
            end += 1 + begins * depth
            column.append(
                (
                    step._replace(first_tm1=begins, last_t=step.last_t or i == share - 1, end=end),
                    place,
                )
            )
        column = column[-rows:]
        columns.append(
            [(step, place) for step, place in column if end - step.end + depth + 1 <= frame_rows]
        )
    return columns + [[]] * (num_envs - len(columns))


@settings(deadline=None, max_examples=10)
@given(KINDS, *SHAPES, st.integers(1, 5), st.integers(1, 4), st.booleans(), st.integers(0, 2**31))
def test_a_replay_can_be_laid_out_anew_for_other_environments(
    kind, num_envs, length, rows, other, n_step, prioritised, seed
):
    """Every step is kept that has room, with its neighbours, its priority and its observations."""
    depth, rng = kind.get("depth", 1), np.random.default_rng(seed)
    stream, capacity = Stream(num_envs, rng, depth), max(rows, 4) * num_envs * other
    old_spec, new_spec = spec(num_envs, **kind), spec(other, **kind)
    arguments = (
        capacity,
        length,
        0.9,
        n_step,
        Prioritisation(alpha=1.0, eps=0.0) if prioritised else None,
    )
    old_buffer, buffer = make_replay(old_spec, *arguments), make_replay(new_spec, *arguments)
    old, add = jax.jit(old_buffer.init)(), jax.jit(old_buffer.add)
    for _ in range(rng.integers(0, 3 * capacity // (num_envs * length))):
        old = add(old, as_observations(stream.trajectory(length), old_spec.observation_space))

    def frame_rows(replay):
        frames = jax.tree.leaves(replay.frames)
        return len(frames[0]) // len(replay.cursor) if frames else np.inf

    kept = stream.kept(capacity // num_envs, frame_rows(old))
    if prioritised:
        slots = jnp.arange(len(old.storage.r_t))
        stored = sum_tree.get(old.priorities, slots) > 0
        old = old_buffer.update(old, jnp.where(stored, slots, -1), 1.0 + slots)
    before = jax.device_get(old)
    new = buffer.refill(jax.jit(buffer.init)(), old)
    jax.tree.map(
        np.testing.assert_array_equal, before, jax.device_get(old)
    )  # the old one is still whole
    columns = laid_out_anew(kept, other, capacity // other, frame_rows(new), depth)
    assert new.size.tolist() == [len(column) for column in columns]
    if not any(columns):
        return
    if prioritised:  # slots of the old replay count from its oldest steps on
        oldest = np.asarray(before.cursor) - before.size
        slots = [
            (oldest[n] + i) % (capacity // num_envs) * num_envs + n
            for column in columns
            for _, (n, i) in column
        ]
        np.testing.assert_allclose(
            sum_tree.total(new.priorities), np.sum(1.0 + np.array(slots)), rtol=1e-5
        )
    batch = jax.device_get(buffer.sample(new, jax.random.key(0), 48, 0.5))
    for b in range(48):
        steps = [step for step, _ in columns[int(batch.slot[b]) % other]]
        at = [step.obs_tm1 for step in steps].index(frames_of(batch.obs_tm1, b))
        r_t, discount_t, obs_t = n_step_oracle(steps, at, n_step, 0.9)
        assert batch.a_tm1[b] == steps[at].a_tm1 and frames_of(batch.obs_t, b) == obs_t
        np.testing.assert_allclose(
            [batch.r_t[b], batch.discount_t[b]], [r_t, discount_t], rtol=1e-4, atol=1e-5
        )


def test_sequences_begin_at_every_step_equally_often():
    buffer, replay = full_buffer()
    starts = buffer.sample_sequences(replay, jax.random.key(0), 122 * 400, 4).obs_tm1[0, :, 0]
    _, counts = np.unique(starts, return_counts=True)
    assert (
        len(counts) == 122 and counts.min() > 400 * 0.75 and counts.max() < 400 * 1.25
    )  # 61 in each environment


def full_buffer(prioritisation=None, rows=64, num_envs=2):
    buffer = make_replay(spec(num_envs), rows * num_envs, rows, 0.9, prioritisation=prioritisation)
    stream = Stream(num_envs, np.random.default_rng(0))
    return buffer, buffer.add(buffer.init(), steady(stream, rows))


def steady(stream, length):
    """Experience without dummy steps and ends of episodes, which takes one frame a step."""
    trajectory = as_observations(stream.trajectory(length), SPACE)
    obs = np.arange(2.0 * length, dtype=np.float32).reshape(length, 2, 1)
    falses = np.zeros_like(trajectory.mask)
    return trajectory._replace(
        obs_tm1=obs, obs_t=obs + 2, mask=~falses, last_t=falses, first_tm1=falses
    )


def test_uniform_draws_every_transition_equally_often():
    buffer, replay = full_buffer()
    slots = buffer.sample(replay, jax.random.key(0), 128 * 400).slot
    counts = np.bincount(slots, minlength=128)
    assert counts.min() > 400 * 0.75 and counts.max() < 400 * 1.25  # 5 standard deviations


@pytest.mark.parametrize(
    ("alpha", "beta0", "remaining"),
    [(1.0, 0.4, 0.0), (0.6, 0.4, 0.0), (0.6, 0.4, 1.0), (0.6, 0.2, 0.5), (0.0, 0.4, 0.3)],
)
def test_prioritised_draws_in_proportion_and_weights_correct_for_it(alpha, beta0, remaining):
    buffer, replay = full_buffer(Prioritisation(alpha, beta0, eps=0.01))
    error = np.random.default_rng(1).uniform(-2.0, 2.0, 128).astype(np.float32)
    replay = buffer.update(replay, jnp.arange(128), error)
    batch = buffer.sample(replay, jax.random.key(0), 128 * 400, remaining)
    priority = (np.abs(error) + 0.01) ** alpha
    count = np.bincount(batch.slot, minlength=128)
    np.testing.assert_allclose(count / count.sum(), priority / priority.sum(), rtol=0.15)
    weight = priority ** -(beta0 + (1 - remaining) * (1 - beta0))
    np.testing.assert_allclose(batch.weight, (weight / weight.max())[batch.slot], rtol=1e-4)


def test_new_transitions_have_the_highest_priority_so_far():
    buffer, replay = full_buffer(Prioritisation(alpha=0.5, eps=1.0))
    replay = buffer.update(replay, jnp.array([3]), jnp.array([-48.0]))
    replay = buffer.add(replay, steady(Stream(2, np.random.default_rng(2)), 64))
    np.testing.assert_allclose(sum_tree.get(replay.priorities, jnp.arange(128)), 7.0)


def test_without_prioritisation_errors_change_nothing():
    buffer, replay = full_buffer()
    assert buffer.update(replay, jnp.array([3]), jnp.array([7.0])) is replay


@settings(deadline=None, max_examples=8)
@given(
    st.integers(1, 40),
    st.lists(
        st.tuples(st.integers(-1, 39), st.just(0.0) | st.floats(1e-3, 10.0)),
        min_size=1,
        max_size=20,
    ),
    st.integers(0, 2**31),
)
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
        found, share = jax.device_get(sum_tree.find(tree, mass))
        np.testing.assert_allclose(share, priorities[found] / priorities.sum(), rtol=1e-4)
        assert (priorities[found] > 0).all()
        edges = np.concatenate([[0.0], np.cumsum(priorities, dtype=np.float64)])
        for leaf, m in zip(found, mass, strict=True):
            assert edges[leaf] - 1e-3 <= m <= edges[leaf + 1] + 1e-3


def test_a_trajectory_that_does_not_fit_is_refused():
    with pytest.raises(ConfigurationError, match="buffer_size=10"):
        make_replay(spec(4), 10, 4, 0.9)


def test_a_buffer_that_does_not_fit_into_memory_is_refused_before_it_is_made():
    image = spaces.Box(0, 255, (84, 84, 4), np.uint8)
    message = (
        r"buffer_size=1000000000 needs 284\d\d\.\d GB, but .* GB of memory\. "
        r"Use a buffer_size of \d+"
    )
    with pytest.raises(ConfigurationError, match=message):
        make_replay(EnvSpec(image, spaces.Discrete(2), 1), 10**9, 4, 0.9)


def test_a_buffer_too_large_for_a_gpu_may_overflow_into_the_memory_of_the_host(monkeypatch):
    def refuse(gigabytes: int, fraction: str | None) -> str:
        gpu = SimpleNamespace(
            platform="gpu", memory_stats=lambda: {"bytes_limit": gigabytes * 10**9}
        )
        monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
        monkeypatch.setattr("agentzoo.replay.memory.host_memory", lambda: 64 * 10**9)
        if fraction is not None:
            monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", fraction)
        image = spaces.Box(0, 255, (84, 84, 4), np.uint8)
        with pytest.raises(ConfigurationError) as refused:
            make_replay(EnvSpec(image, spaces.Discrete(2), 1), 10**6, 4, 0.9)  # 28.4 GB
        return str(refused.value)

    message = refuse(8, None)
    assert re.search(r"has 8\.0 GB of memory. Use a buffer_size of 2\d{5} or less", message)
    assert (
        "TF_FORCE_UNIFIED_MEMORY=1 XLA_PYTHON_CLIENT_PREALLOCATE=false XLA_CLIENT_MEM_FRACTION=5."
        in message
    )
    assert "XLA_CLIENT_MEM_FRACTION=6." in refuse(
        16, "2.5"
    )  # it has been asked for, but for too little


def test_a_buffer_too_large_for_gpu_and_host_is_refused_without_that_advice(monkeypatch):
    gpu = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 8 * 10**9})
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    monkeypatch.setattr("agentzoo.replay.memory.host_memory", lambda: 16 * 10**9)
    with pytest.raises(ConfigurationError, match=r"smaller observations, a FrameStack of them\.$"):
        make_replay(
            EnvSpec(spaces.Box(0, 255, (84, 84, 4), np.uint8), spaces.Discrete(2), 1), 10**6, 4, 0.9
        )


def test_a_stack_is_stored_frame_by_frame():
    def size(space):
        replay = jax.eval_shape(
            make_replay(EnvSpec(space, spaces.Discrete(2), 1), 10_000, 4, 0.9).init
        )
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(replay))

    stack = FrameStack(0, 255, (4, 84, 84), np.uint8)
    assert size(stack) < 1.02 * 84 * 84 * 10_000
    assert (
        size(spaces.Box(0, 255, (4, 84, 84), np.uint8)) < 4.05 * 84 * 84 * 10_000
    )  # whole, but not twice


@pytest.mark.parametrize("prioritised", [False, True])
@pytest.mark.parametrize(
    "space", [spaces.Box(-1, 1, (4,)), FrameStack(0, 255, (4, 8, 8), np.uint8)]
)
def test_nothing_copies_the_buffer(space, prioritised):
    capacity = 10_007
    buffer = make_replay(
        EnvSpec(space, spaces.Discrete(2), 1),
        capacity,
        4,
        0.9,
        3,
        Prioritisation() if prioritised else None,
    )

    def learn(replay, trajectory, key, updates):
        def update(i, carry):
            replay, total = carry
            batch = buffer.sample(replay, jax.random.fold_in(key, i), 32, 0.5)
            replay = buffer.update(replay, batch.slot, batch.r_t)
            return replay, total + sum(
                x.astype(float).sum() for x in (batch.obs_tm1, batch.obs_t, batch.r_t)
            )

        return jax.lax.fori_loop(0, updates, update, (buffer.add(replay, trajectory), 0.0))

    obs, one, flag = (
        np.zeros((4, 1, *space.shape), space.dtype),
        np.ones((4, 1), np.float32),
        np.zeros((4, 1), bool),
    )
    trajectory = Trajectory(obs, np.zeros((4, 1), np.int32), one, one, obs, flag, flag, ~flag)
    program = (
        jax.jit(learn, donate_argnums=0)
        .lower(jax.eval_shape(buffer.init), trajectory, jax.random.key(0), 3)
        .compile()
        .as_text()
    )
    assert re.search(r"\[10007[],]", program)
    copied = [
        line
        for line in program.splitlines()
        if (m := re.search(r" = \w+\[(\d+)[],].* copy\(", line)) and int(m[1]) >= capacity
    ]
    assert not copied
