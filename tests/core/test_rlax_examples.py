"""Call functions as RLax's own examples do: online learning, replay, sequences, and PopArt."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agentzoo import core as rlax
from agentzoo.core._operator import ShapeError

NUM_ACTIONS, NUM_FEATURES = 3, 4
rng = np.random.default_rng(0)


def network(params, obs):
    return obs @ params["w"] + params["b"]


def initial_params():
    return {
        "w": jnp.asarray(rng.normal(size=(NUM_FEATURES, NUM_ACTIONS)), jnp.float32),
        "b": jnp.zeros(NUM_ACTIONS),
    }


def observations(*shape):
    return rng.normal(size=(*shape, NUM_FEATURES)).astype(np.float32)


@pytest.mark.parametrize("epsilon", [0.01, 0.0, jnp.float32(0.5)])
def test_acting(epsilon):
    """Both policies are sampled in a compiled function, and `evaluation` selects an action."""

    @functools.partial(jax.jit, static_argnums=2)
    def act(params, key, evaluation):
        q = network(params, observations())
        train_a, eval_a = rlax.epsilon_greedy(epsilon).sample(key, q), rlax.greedy().sample(key, q)
        return jax.lax.select(evaluation, eval_a, train_a)

    for evaluation in (False, True):
        assert int(act(initial_params(), jax.random.PRNGKey(0), evaluation)) in range(NUM_ACTIONS)


def test_learning_from_one_transition():
    """Q-learning takes actions and discounts as the environment returns them."""

    def loss(params, obs_tm1, a_tm1, r_t, discount_t, q_t):
        return rlax.l2_loss(rlax.q_learning(network(params, obs_tm1), a_tm1, r_t, discount_t, q_t))

    params, obs = initial_params(), observations(2)
    grads = jax.jit(jax.grad(loss))(
        params,
        obs[0],
        jnp.int32(1),
        np.float64(1.0),
        0.99 * np.float64(1.0),
        network(params, obs[1]),
    )
    q_tm1, target = network(params, obs[0])[1], 1 + 0.99 * network(params, obs[1]).max()
    np.testing.assert_allclose(grads["b"], [0, q_tm1 - target, 0], rtol=1e-5)


def test_learning_from_a_batch_with_a_target_network():
    """Double Q-learning is mapped over the batch, with floats for counts and periods."""

    @jax.jit
    def learn(online, target, count, *batch):
        target = rlax.periodic_update(online, target, count, 50.0)

        def loss(online):
            obs_tm1, a_tm1, r_t, discount_t, obs_t = batch
            q_tm1, q_t = network(online, obs_tm1), network(target, obs_t)
            error = jax.vmap(rlax.double_q_learning)(
                q_tm1, a_tm1, r_t, discount_t, q_t, network(online, obs_t)
            )
            return jnp.mean(rlax.l2_loss(error))

        return target, jax.grad(loss)(online)

    online, target = initial_params(), initial_params()
    batch = (
        observations(32),
        rng.integers(3, size=32),
        rng.normal(size=32),
        np.full(32, 0.99),
        observations(32),
    )
    kept, grads = learn(online, target, jnp.float32(49), *batch)
    jax.tree.map(np.testing.assert_array_equal, kept, target)
    assert np.abs(grads["w"]).max() > 0
    jax.tree.map(
        np.testing.assert_array_equal, learn(online, target, jnp.float32(50), *batch)[0], online
    )


def test_learning_from_a_sequence():
    """Errors of Q(lambda) over 4 time steps are masked where an episode ends."""
    step_type = np.array([1, 2, 0, 1])

    def loss(params, obs, actions, rewards, discounts):
        q = jax.vmap(network, in_axes=(None, 0))(params, obs)
        mask = jnp.not_equal(step_type, 2)
        error = mask[:-1] * rlax.q_lambda(
            q[:-1], actions[1:], rewards[1:], discounts[1:] * mask[1:], q[1:], lambda_=0.9
        )
        return jnp.sum(rlax.l2_loss(error)) / jnp.sum(mask[:-1])

    grads = jax.jit(jax.grad(loss))(
        initial_params(), observations(4), rng.integers(3, size=4), rng.normal(size=4), np.ones(4)
    )
    assert np.isfinite(grads["w"]).all() and np.abs(grads["w"]).max() > 0


def pop_art_loss(params, state, update, obs_tm1, a_tm1, r_t, discount_t, obs_t):
    """PopArt learns with one statistic for the values of all actions."""
    index = jnp.array(0)
    target = r_t + discount_t * jnp.max(rlax.unnormalize(state, network(params, obs_t), index))
    popped, new_state = update(params=params, state=state, targets=target, indices=index)
    error = (
        jax.lax.stop_gradient(rlax.normalize(new_state, target, index))
        - network(popped, obs_tm1)[a_tm1]
    )
    return rlax.l2_loss(error), (popped, new_state)


def test_pop_art_with_one_statistic_for_all_actions():
    initial_state, update = rlax.popart(num_outputs=1, step_size=3e-3, scale_lb=1e-5, scale_ub=1e5)
    params, state, obs = initial_params(), initial_state(), observations(5)
    grad = jax.jit(jax.grad(pop_art_loss, has_aux=True), static_argnums=2)
    for _ in range(3):
        before = rlax.unnormalize(state, network(params, obs), 0)
        grads, (params, state) = grad(params, state, update, obs[0], 1, 1e4, 0.99, obs[1])
        assert state.shift.shape == (1,) and state.scale > 1
        np.testing.assert_allclose(
            rlax.unnormalize(state, network(params, obs), 0), before, rtol=1e-4, atol=1e-2
        )
        assert np.isfinite(grads["w"]).all() and grads["b"][1] != 0
        params = optax.apply_updates(params, jax.tree.map(lambda g: -0.01 * g, grads))


def test_one_statistic_serves_any_layer_and_several_do_not():
    one, other = (
        rlax.PopArtState(*np.array(numbers, np.float32))
        for numbers in ([[1.0], [2.0], [5.0]], [[-1.0], [4.0], [17.0]])
    )
    params, obs = initial_params(), observations(7)
    popped = rlax.pop(params, one, other)
    np.testing.assert_allclose(
        rlax.unnormalize(other, network(popped, obs), 0),
        rlax.unnormalize(one, network(params, obs), 0),
        rtol=1e-5,
    )
    three = rlax.PopArtState(*(jnp.repeat(x, 3) for x in one[:3]))
    np.testing.assert_allclose(rlax.pop(params, three, three)["w"], params["w"])
    jax.tree.map(
        np.testing.assert_array_equal,
        popped,
        rlax.pop(params, three, rlax.PopArtState(*(jnp.repeat(x, 3) for x in other[:3]))),
    )
    two = rlax.PopArtState(*(jnp.repeat(x, 2) for x in one[:3]))
    for old, new, w in (
        (two, two, params["w"]),
        (one, two, params["w"]),
        (one, one, params["w"][:, :2]),
    ):
        with pytest.raises(ShapeError, match="as many outputs"):
            rlax.pop({"w": w, "b": params["b"]}, old, new)


def gradient(function, at):
    return float(jax.grad(function)(jnp.float32(at)))


def discounted(dtype):
    return rlax.discounted_returns(
        jnp.ones(1000, dtype), jnp.full(1000, 0.99, dtype), jnp.zeros(1000, dtype)
    )[0]


def adapted(targets, step_size):
    state = rlax.popart(1, step_size, 1e-4, 1e6)[0]()
    return rlax.art(state, targets, jnp.zeros(targets.shape, int), step_size, 1e-4, 1e6)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (
            lambda: gradient(
                lambda v: rlax.lambda_returns(jnp.ones(3), jnp.ones(3), v * jnp.ones(3)).sum(), 1.0
            ),
            0,
        ),
        (lambda: rlax.q_learning(jnp.arange(3.0), jnp.array(7), 1.0, 0.9, jnp.arange(3.0)), np.nan),
        (
            lambda: rlax.q_learning(jnp.arange(3.0), jnp.array(-1), 1.0, 0.9, jnp.arange(3.0)),
            np.nan,
        ),
        (
            lambda: rlax.policy_gradient_loss(
                jnp.zeros((2, 3)), jnp.array([0, 1]), jnp.array([1.0, jnp.nan]), jnp.array([1.0, 0])
            ),
            0.5493,
        ),
        (
            lambda: rlax.clipped_surrogate_pg_loss(
                jnp.array([jnp.inf, 1.0]), jnp.array([0.0, 1.0]), 0.2
            ),
            np.nan,
        ),
        (lambda: adapted(jnp.full(300, 5.0), 0.01).shift[0], 5 * (1 - 0.99**300)),
        (
            lambda: rlax.episodic_memory_intrinsic_rewards(jnp.array([[0.01]]), 1, 1.0)[0][0],
            28.0044,
        ),
        (lambda: rlax.signed_parabolic(rlax.signed_hyperbolic(jnp.float32(1e-3))) * 1e3, 1),
        (lambda: gradient(rlax.signed_logp1, 0), 1),
        (lambda: gradient(lambda p: rlax.log_loss(p, 1.0), 1), -1),
        (
            lambda: rlax.extract_subsequences(
                jnp.arange(4.0)[:, None], jnp.array([[3]]), 2
            ).ravel()[1],
            np.nan,
        ),
        (lambda: discounted(jnp.bfloat16), 85.33),
        (
            lambda: (
                rlax.transform_from_2hot(
                    rlax.transform_to_2hot(0.00123, -0.01, 0.01, 601), -0.01, 0.01, 601
                )
                * 1e3
            ),
            1.23,
        ),
        (lambda: rlax.normalize(rlax.PopArtState(*[jnp.ones(2)] * 3), 5.0, 2), np.nan),
    ],
)
def test_the_numbers_of_the_page_about_differences(result, expected):
    np.testing.assert_allclose(np.asarray(result(), np.float32), expected, rtol=5e-3)
