import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo.core import ShapeError, exploration
from agentzoo.core.exploration import IntrinsicRewardState, episodic_memory_intrinsic_rewards

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
ACTION = RNG.normal(size=(2, 3)).astype(np.float32)
NOISE = RNG.normal(size=(2, 3)).astype(np.float32)
PRIOR = RNG.dirichlet(np.ones(4), (2, 3)).astype(np.float32)


def both_ways(function, *arguments):
    """Return the result of a function, after checking that it is the same under `jax.jit`."""
    plain, compiled = function(*arguments), jax.jit(lambda *x: function(*x))(*arguments)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), plain, compiled)
    return plain


@pytest.mark.slow
def test_no_noise_changes_nothing():
    np.testing.assert_array_equal(
        both_ways(exploration.add_gaussian_noise, KEY, ACTION, 0.0), ACTION
    )
    np.testing.assert_array_equal(
        both_ways(exploration.add_ornstein_uhlenbeck_noise, KEY, ACTION, 0 * ACTION, 1.0, 0.0),
        ACTION,
    )
    np.testing.assert_array_equal(dirichlet(PRIOR, 0.3, 0.0, True)[0], PRIOR)


def test_gaussian_noise_has_its_standard_deviation():
    stddev = np.array([0.5, 2.0, 0.0], np.float32)
    n = 20_000
    noisy = jax.vmap(lambda key: exploration.add_gaussian_noise(key, ACTION[0], stddev))(
        jax.random.split(KEY, n)
    )
    np.testing.assert_array_less(np.abs(noisy.mean(0) - ACTION[0]), 5 * stddev / np.sqrt(n) + 1e-6)
    np.testing.assert_array_less(np.abs(noisy.std(0) - stddev), 5 * stddev / np.sqrt(2 * n) + 1e-6)
    np.testing.assert_allclose(
        jax.grad(lambda a: exploration.add_gaussian_noise(KEY, a, stddev).sum())(ACTION[0]), 1
    )


def test_ou_step_returns_the_noise_that_the_next_step_needs():
    action, noise = both_ways(exploration.ou_step, KEY, ACTION, NOISE, 0.15, 0.2)
    drawn = jax.random.normal(KEY, ACTION.shape)
    np.testing.assert_allclose(noise, 0.85 * NOISE + 0.2 * drawn, rtol=1e-5)
    np.testing.assert_allclose(action, ACTION + noise, rtol=1e-6)
    compatible = both_ways(exploration.add_ornstein_uhlenbeck_noise, KEY, ACTION, NOISE, 0.15, 0.2)
    np.testing.assert_array_equal(compatible, action)


def test_ou_noise_has_the_long_run_variance_and_correlation():
    damping, stddev, n = 0.15, 0.2, 200_000

    def step(noise, key):
        noise = exploration.ou_step(key, jnp.zeros(()), noise, damping, stddev).noise
        return noise, noise

    noise = np.asarray(jax.lax.scan(step, jnp.zeros(()), jax.random.split(KEY, n))[1], np.float64)
    variance = stddev**2 / (1 - (1 - damping) ** 2)
    np.testing.assert_allclose(noise.var(), variance, rtol=0.03)
    for lag in (1, 5):
        np.testing.assert_allclose(
            np.mean(noise[lag:] * noise[:-lag]) / variance, (1 - damping) ** lag, atol=0.03
        )


def test_dirichlet_noise_has_the_moments():
    alpha, fraction = 0.3, 0.25
    noisy = dirichlet(PRIOR, alpha, fraction, True)
    np.testing.assert_allclose(noisy.sum(-1), 1, rtol=1e-5)
    noise = (noisy - (1 - fraction) * PRIOR) / fraction
    variance = (1 / 4) * (3 / 4) / (4 * alpha + 1)
    np.testing.assert_array_less(np.abs(noise.mean(0) - 1 / 4), 5 * np.sqrt(variance / N))
    np.testing.assert_allclose(noise.var(0), variance, rtol=0.1)


def test_dirichlet_noise_stays_on_legal_actions():
    mask = np.array([True, True, False, False])
    noisy = dirichlet(np.where(mask, 0.5, 0), 0.03, 0.25, mask)
    assert (noisy[..., 2:] == 0).all()
    np.testing.assert_allclose(noisy.sum(-1), 1, rtol=1e-5)
    noise = (noisy[..., 0] - 0.375) / 0.25
    np.testing.assert_allclose(
        [noise.mean(), noise.var()], [1 / 2, (1 / 4) / (2 * 0.03 + 1)], atol=0.02
    )


def test_dirichlet_noise_of_small_alpha_does_not_underflow():
    assert np.isfinite(dirichlet(PRIOR, 1e-4, 0.25, True)).all()


N = 5_000


def dirichlet(prior, alpha, fraction, mask):
    """Return N samples."""
    prior, mask = (
        np.broadcast_to(np.float32(prior), PRIOR.shape),
        np.broadcast_to(mask, PRIOR.shape),
    )
    return np.asarray(_dirichlet(jax.random.split(KEY, N), prior, alpha, fraction, mask))


_dirichlet = jax.jit(jax.vmap(exploration.add_dirichlet_noise, (0, None, None, None, None)))


@pytest.mark.slow
def test_dirichlet_noise_plain():
    noisy = exploration.add_dirichlet_noise(jax.random.split(KEY, N)[3], PRIOR, 0.3, 0.25)
    np.testing.assert_allclose(noisy, dirichlet(PRIOR, 0.3, 0.25, True)[3], rtol=1e-4, atol=1e-6)


@settings(deadline=None, max_examples=8)
@given(
    st.lists(st.integers(1, 3), max_size=3), st.sampled_from([np.int32, np.float32, jnp.bfloat16])
)
def test_shapes_and_dtypes(leading, dtype):
    x = jnp.ones((*leading, 2), dtype)
    for noisy in (
        lambda: exploration.add_gaussian_noise(KEY, x, 1),
        lambda: exploration.add_ornstein_uhlenbeck_noise(KEY, x, x, 1, 1),
        lambda: exploration.ou_step(KEY, x, x, 1, 1).noise,
        lambda: exploration.add_dirichlet_noise(KEY, x, 1, 1),
    ):
        result = jax.eval_shape(noisy)  # traced, not compiled
        assert result.shape == x.shape and result.dtype == (
            jnp.float32 if dtype == np.int32 else dtype
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exploration.add_gaussian_noise(KEY, ACTION, np.ones(3)), "'stddev'"),
        (lambda: exploration.ou_step(KEY, ACTION, NOISE[:1], 0.1, 0.1), "'noise_tm1'"),
        (lambda: exploration.ou_step(KEY, ACTION, NOISE, np.ones(1), 0.1), "'damping'"),
        (lambda: exploration.add_dirichlet_noise(KEY, 1.0, 0.3, 0.25), "'prior'"),
        (
            lambda: exploration.add_dirichlet_noise(KEY, PRIOR, np.ones(4), 0.25),
            "'dirichlet_alpha'",
        ),
        (
            lambda: exploration.add_dirichlet_noise(KEY, PRIOR, 0.3, 0.25, np.ones(4, bool)),
            "'mask'",
        ),
        (lambda: episodic_memory_intrinsic_rewards(np.ones(3), 2, 1.0), "'embeddings'"),
        (
            lambda: episodic_memory_intrinsic_rewards(np.ones((1, 3)), 2, np.ones(1)),
            "'reward_scale'",
        ),
        (
            lambda: episodic_memory_intrinsic_rewards(np.ones((1, 3)), 5, 1.0, max_memory_size=4),
            "N >= 5",
        ),
        (
            lambda: episodic_memory_intrinsic_rewards(
                np.ones((1, 3)), 1, 1.0, IntrinsicRewardState(np.ones((4, 2)))
            ),
            r"\[N, 3\]",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, message):
    with pytest.raises(ShapeError, match=message):
        call()


# Never Give Up.


class Oracle:
    """Run the paper's algorithm 1 in float64, with a list as the memory."""

    def __init__(self, size, dimension, k):
        self.memory, self.k = [None] * size, k
        self.memory[:k] = [np.zeros(dimension)] * k
        self.place, self.distances = 0, []

    def __call__(
        self,
        embeddings,
        scale,
        constant=1e-3,
        epsilon=1e-4,
        cluster_distance=8e-3,
        max_similarity=8.0,
    ):
        nearest = []
        for x in embeddings:
            nearest.append(
                sorted(np.sum((x - y) ** 2) for y in self.memory if y is not None)[: self.k]
            )
            self.distances += nearest[-1]
        rewards = []
        for d_k in nearest:
            d_n = np.maximum(
                np.array(d_k) / (np.mean(self.distances) + constant) - cluster_distance, 0
            )
            similarity = np.sqrt(np.sum(epsilon / (d_n + epsilon))) + constant
            rewards.append(0.0 if similarity > max_similarity else scale / similarity)
        for x in embeddings:
            self.memory[self.place] = x
            self.place = (self.place + 1) % len(self.memory)
        return np.array(rewards)


def test_rewards_of_an_episode_against_an_oracle():
    size, k = 12, 3
    oracle, state = Oracle(size, 4, k), None
    reward = jax.jit(
        lambda x, state: episodic_memory_intrinsic_rewards(x, k, 0.5, state, max_memory_size=size)
    )
    for i in range(6):
        embeddings = np.random.default_rng(i).normal(size=(5, 4)).astype(np.float32)
        embeddings[0] = embeddings[1]
        expected = oracle(embeddings.astype(np.float64), 0.5)
        rewards, state = reward(embeddings, state)
        np.testing.assert_allclose(rewards, expected, rtol=1e-4)
        np.testing.assert_allclose(state.distance_sum, np.sum(oracle.distances), rtol=1e-5)
        assert (
            state.distance_count == len(oracle.distances)
            and state.next_memory_index == oracle.place
        )
        for stored, row in zip(oracle.memory, state.memory, strict=True):
            np.testing.assert_allclose(row, np.inf if stored is None else stored, rtol=1e-6)


def test_distances_count_as_positive():
    """RLax 0.1.9 uses negated distances in the kernel, so its reward here is 0.999."""
    rewards, state = episodic_memory_intrinsic_rewards(
        np.array([[0.01]]), 1, 1.0, max_memory_size=4
    )
    np.testing.assert_allclose(rewards, [28.004454], rtol=1e-5)
    np.testing.assert_allclose(state.distance_sum, 1e-4, rtol=1e-5)


def test_novelty_is_rewarded_and_repetition_is_not():
    low, state = episodic_memory_intrinsic_rewards(np.zeros((2, 2)), 2, 1.0, max_memory_size=10)
    assert state.distance_sum == 0
    high, _ = episodic_memory_intrinsic_rewards(
        np.array([[1.3, 2.7], [-10.4, 16.01]]), 2, 1.0, max_memory_size=10
    )
    assert (low < high).all()
    none, _ = episodic_memory_intrinsic_rewards(
        np.zeros((1, 2)), 100, 1.0, max_memory_size=100
    )  # similarity 10
    assert none == 0


def test_memory_is_a_ring():
    memory = np.array([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    embeddings = np.array([[2.0, 2.0], [3.0, 3.0], [4.0, 4.0]])
    state = episodic_memory_intrinsic_rewards(
        embeddings, 2, 1.0, IntrinsicRewardState(memory=memory, next_memory_index=2)
    )[1]
    np.testing.assert_array_equal(state.memory, [[4, 4], [1, 1], [2, 2], [3, 3]])
    assert state.next_memory_index == 1
    more = np.arange(7.0)[:, None] + np.ones(2)  # more embeddings than rows: the last stay
    state = episodic_memory_intrinsic_rewards(more, 2, 1.0, state)[1]
    np.testing.assert_array_equal(state.memory, more[[3, 4, 5, 6]])
    assert state.next_memory_index == 0


def test_empty_places_do_not_count():
    memory = np.array([[1.0], [np.inf], [np.inf], [np.inf]])
    rewards, state = episodic_memory_intrinsic_rewards(
        np.array([[3.0]]), 3, 1.0, IntrinsicRewardState(memory, next_memory_index=1)
    )
    assert state.distance_sum == 4 and state.distance_count == 1
    np.testing.assert_allclose(
        rewards, 1 / (np.sqrt(1e-4 / (4 / 4.001 - 8e-3 + 1e-4)) + 1e-3), rtol=1e-4
    )


def test_under_scan_and_vmap():
    embeddings = RNG.normal(size=(6, 3, 2)).astype(np.float32)

    def episode(embeddings):
        state = IntrinsicRewardState(jnp.zeros((8, 2)))
        return jax.lax.scan(
            lambda state, x: episodic_memory_intrinsic_rewards(x, 2, 1.0, state)[::-1],
            state,
            embeddings,
        )[1]

    state, expected = IntrinsicRewardState(jnp.zeros((8, 2))), []
    for x in embeddings:
        rewards, state = episodic_memory_intrinsic_rewards(x, 2, 1.0, state)
        expected.append(rewards)
    np.testing.assert_allclose(episode(embeddings), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(episode)(embeddings[None])[0], expected, rtol=1e-5)
