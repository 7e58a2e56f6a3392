import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo.core import ShapeError, mpo
from agentzoo.core.mpo import LagrangePenalty

S, T, B, D, A = 5, 3, 2, 4, 3
RNG = np.random.default_rng(0)
LOG_PROBS, Q = RNG.normal(size=(2, S, T, B))
KL, KLS = RNG.uniform(size=(T, B)), RNG.uniform(size=(T, B, D))
ALPHAS = RNG.uniform(0.5, 1.5, size=D)
PLAIN_CLIP = functools.partial(np.clip, min=1e-8, max=None)  # what RLax's own tests pass
WEIGHTS = (0.9, 0.8, 0.7, 0.6)


def close(actual, expected, rtol=1e-4, atol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def differences(function, x):
    """The gradient of a NumPy function of a float64 array, by central differences."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        steps = []
        for h in (1e-6, -1e-6):
            moved = x.copy()
            moved[i] += h
            steps.append(function(moved))
        gradient[i] = (steps[0] - steps[1]) / 2e-6
    return gradient


def e_step(q, temperature, epsilon):
    """The oracle for the samples of one step: dual loss, weights, and the weights' KL to uniform ones."""
    exponentials = np.exp(q / temperature)
    weights = exponentials / exponentials.sum()
    return (
        temperature * (epsilon + np.log(exponentials.mean())),
        weights,
        np.sum(weights * np.log(len(q) * weights)),
    )


def softplus(x):
    return np.log1p(np.exp(x))


# The parts that RLax has.


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_mpo_against_the_oracle(transform):
    constraints = [
        (KL, LagrangePenalty(0.3, 0.2)),
        (KLS, LagrangePenalty(ALPHAS, 0.1, per_dimension=True)),
    ]

    def call(log_probs, q):
        return mpo.mpo_loss(
            log_probs, q, LagrangePenalty(0.5, 0.1), constraints, mpo.clip_projection, *WEIGHTS
        )

    loss, outputs = transform(call)(LOG_PROBS, Q)
    for i in np.ndindex(T, B):
        steps = (slice(None), *i)
        temperature_loss, weights, _ = e_step(Q[steps], 0.5, 0.1)
        policy_loss = -(weights @ LOG_PROBS[steps])
        kl_loss, alpha_loss = (
            0.3 * KL[i] + ALPHAS @ KLS[i],
            0.3 * (0.2 - KL[i]) + ALPHAS @ (0.1 - KLS[i]),
        )
        parts = (policy_loss, temperature_loss, kl_loss, alpha_loss)
        close(
            [
                outputs.policy_loss[i],
                outputs.temperature_loss[i],
                outputs.kl_loss[i],
                outputs.alpha_loss[i],
            ],
            parts,
        )
        close(outputs.normalized_weights[steps], weights)
        close(loss[i], np.dot(WEIGHTS, parts))
    assert outputs.num_samples == S


def test_e_step_by_hand():
    loss, weights, num_samples = mpo.mpo_compute_weights_and_temperature_loss(
        np.array([0.0, np.log(3)]), LagrangePenalty(1.0, 0.1), mpo.clip_projection
    )
    close(weights, [0.25, 0.75])
    close(loss, 0.1 + np.log(2))
    assert num_samples == 2


def test_a_temperature_costs_no_digits_of_large_values():
    q = (1e4 + np.arange(8) / 64).astype(np.float32)
    loss, weights, _ = e_step(np.arange(8) / 64, 0.07, 0.1)
    ones, penalty = np.ones(8), LagrangePenalty(0.07, 0.1)
    for found in (
        mpo.mpo_compute_weights_and_temperature_loss(q, penalty, mpo.clip_projection),
        mpo.vmpo_compute_weights_and_temperature_loss(
            q, ones, ones, penalty, mpo.clip_projection, 1.0
        ),
    ):
        close(found[0], 1e4 + loss, rtol=1e-7)
        close(found[1], weights, rtol=2e-6)


def test_samples_on_any_axis_and_a_temperature_for_each_step():
    expected = mpo.mpo_loss(LOG_PROBS, Q, LagrangePenalty(0.5, 0.1), [])[0]
    for axis in (1, 2, -1):
        moved = [np.moveaxis(x, 0, axis) for x in (LOG_PROBS, Q)]
        close(mpo.mpo_loss(*moved, LagrangePenalty(0.5, 0.1), [], sample_axis=axis)[0], expected)
        each = LagrangePenalty(np.full((T, B), 0.5), 0.1)
        close(mpo.mpo_loss(*moved, each, [], sample_axis=axis)[0], expected)


def test_mpo_under_vmap_and_scan():
    def loss(log_probs, q, kl):
        return mpo.mpo_loss(
            log_probs, q, LagrangePenalty(0.5, 0.1), [(kl, LagrangePenalty(0.3, 0.2))]
        )[0]

    expected = loss(LOG_PROBS, Q, KL)
    close(jax.vmap(loss, in_axes=(1, 1, 0))(LOG_PROBS, Q, KL), expected)
    steps = (*(np.moveaxis(x, 1, 0) for x in (LOG_PROBS, Q)), KL)
    close(jax.lax.scan(lambda _, step: ((), loss(*step)), (), steps)[1], expected)


def test_a_new_projection_compiles_nothing():
    (compiled,) = (
        cell.cell_contents
        for cell in mpo._sampled_e_step.__closure__
        if hasattr(cell.cell_contents, "lower")
    )
    mpo.mpo_loss(LOG_PROBS, Q, LagrangePenalty(0.5, 0.1), [], lambda x: jnp.clip(x, 1e-8))
    size = compiled._cache_size()
    mpo.mpo_loss(LOG_PROBS, Q, LagrangePenalty(0.5, 0.1), [], lambda x: jnp.clip(x, 1e-8))
    assert compiled._cache_size() == size


@pytest.mark.parametrize("stop", [True, False])
def test_gradients_of_mpo(stop):
    def loss(log_probs, q, temperature, kl, alpha):
        constraints = [(kl, LagrangePenalty(alpha, 0.2))]
        return mpo.mpo_loss(
            log_probs, q, LagrangePenalty(temperature, 0.1), constraints, use_stop_gradient=stop
        )[0].sum()

    def oracle(x, held):  # gradients flow through `x`, but not `held`
        total = 0
        for i in np.ndindex(T, B):
            steps = (slice(None), *i)
            temperature_loss = e_step(held.q[steps], x.temperature, 0.1)[0]
            weights = e_step(held.q[steps], held.temperature, 0.1)[1]
            total += (
                temperature_loss
                - weights @ x.log_probs[steps]
                + held.alpha * x.kl[i]
                + x.alpha * (0.2 - held.kl[i])
            )
        return total

    values = {
        "log_probs": LOG_PROBS,
        "q": Q,
        "temperature": np.array(0.5),
        "kl": KL,
        "alpha": np.array(0.3),
    }
    gradients = jax.grad(loss, argnums=range(5))(*(np.float32(value) for value in values.values()))
    for (name, value), gradient in zip(values.items(), gradients, strict=True):

        def moved(x, name=name):
            x = {**values, name: x}
            return oracle(*(type("Values", (), source) for source in (x, values if stop else x)))

        close(gradient, differences(moved, value), rtol=1e-3, atol=1e-4)


def test_gradient_of_the_e_step_reaches_its_values_as_in_rlax():
    def loss(q, temperature):
        return mpo.mpo_compute_weights_and_temperature_loss(
            q, LagrangePenalty(temperature, 0.01), PLAIN_CLIP
        )[0].sum()

    close(jax.grad(lambda q: loss(q, 0.1))(jnp.full((1, 1, 1), 3.0)), 1)
    weights = jax.grad(
        lambda q: mpo.mpo_compute_weights_and_temperature_loss(
            q, LagrangePenalty(0.1, 0.01), PLAIN_CLIP
        )[1][0].sum()
    )
    assert not weights(jnp.float32(Q)).any()


def test_kl_constraint_by_hand():
    kl_loss, alpha_loss, alpha = mpo.kl_constraint_loss(
        2.0, LagrangePenalty(3, 0.5), mpo.clip_projection
    )
    close([kl_loss, alpha_loss, alpha], [6, -4.5, 3])
    for alphas in (3.0, np.full(D, 3.0), np.full((T, B, D), 3.0)):
        losses = mpo.kl_constraint_loss(
            KLS, LagrangePenalty(alphas, 0.5, per_dimension=True), mpo.clip_projection
        )
        close(losses[0], 3 * KLS.sum(-1))
        close(losses[1], 3 * (0.5 - KLS).sum(-1))
        assert losses[2].shape == np.shape(alphas)


def test_no_kl_constraints_are_allowed():
    assert mpo.compute_parametric_kl_penalty_and_dual_loss([], mpo.clip_projection) == (0, 0)
    for function, log_probs, values in (
        (mpo.mpo_loss, LOG_PROBS, Q),
        (mpo.vmpo_loss, LOG_PROBS[0], Q[0]),
    ):
        loss, outputs = function(log_probs, values, LagrangePenalty(0.5, 0.1), [])
        assert loss.shape == (T, B)
        assert (outputs.kl_loss, outputs.alpha_loss) == (0, 0)


@pytest.mark.parametrize("projection", [mpo.clip_projection, mpo.softplus_projection])
@pytest.mark.parametrize("alpha", [-0.1, -3.0])
def test_a_dual_below_zero_returns_when_its_constraint_is_violated(projection, alpha):
    @functools.partial(jax.jit, static_argnums=2)
    def descend(alpha, kl, steps):
        gradient = jax.grad(
            lambda alpha: mpo.kl_constraint_loss(kl, LagrangePenalty(alpha, 0.1), projection)[1]
        )
        return jax.lax.fori_loop(0, steps, lambda _, alpha: alpha - 0.5 * gradient(alpha), alpha)

    alpha = descend(jnp.float32(alpha), 0.5, 300)
    assert projection(alpha) > 1
    alpha = descend(alpha, 0.01, 2000)
    assert 0 < projection(alpha) < 0.2


def test_clip_projection_does_not_wind_up():
    def gradient(x, sign):
        return jax.grad(lambda x: jnp.sum(sign * mpo.clip_projection(x, minimum=0.5)))(x)

    x = jnp.array([-2.0, 0.5, 1.0])
    close(mpo.clip_projection(x, minimum=0.5), [0.5, 0.5, 1])
    close(
        gradient(x, 1.0), [0, 1, 1]
    )  # descending would lower x: only where it is not below already
    close(gradient(x, -1.0), [-1, -1, -1])
    close(jax.vmap(jax.grad(mpo.clip_projection))(x), [0, 1, 1])
    assert mpo.clip_projection(-1) == np.float32(1e-10)


def test_softplus_projection_is_positive_with_a_gradient_everywhere():
    x = jnp.array([-80.0, -3.0, 0.0, 80.0])
    close(mpo.softplus_projection(x), softplus(np.float64(x)) + 1e-10, rtol=1e-5, atol=0)
    assert (jax.vmap(jax.grad(mpo.softplus_projection))(x) > 0).all()


# V-MPO.


def v_e_step(advantages, restarting, importance, temperature, epsilon, k):
    """The oracle for distinct advantages and at least k steps that count."""
    kept = (advantages >= np.sort(advantages[restarting > 0])[-k]) & (restarting > 0)
    exponentials = kept * importance * np.exp(advantages / temperature)
    return temperature * (
        epsilon + np.log(exponentials.sum() / k)
    ), exponentials / exponentials.sum()


ADVANTAGES, IMPORTANCE = RNG.normal(size=(4, 3)), RNG.uniform(0.5, 1, size=(4, 3))
V_LOG_PROBS, V_KL = RNG.normal(size=(4, 3)), RNG.uniform(size=(4, 3))
RESTARTING = np.ones((4, 3))
RESTARTING[0, 1] = RESTARTING[np.unravel_index(ADVANTAGES.argmax(), (4, 3))] = 0


def vmpo(advantages, log_probs, kl, restarting, importance, temperature=0.5, **options):
    return mpo.vmpo_loss(
        log_probs,
        advantages,
        LagrangePenalty(temperature, 0.1),
        [(kl, LagrangePenalty(0.3, 0.2))],
        mpo.clip_projection,
        restarting,
        importance,
        **options,
    )


V_ARGUMENTS = (ADVANTAGES, V_LOG_PROBS, V_KL, RESTARTING, IMPORTANCE)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_vmpo_against_the_oracle(transform, exact):
    loss, outputs = transform(functools.partial(vmpo, exact_top_k=exact))(*V_ARGUMENTS)
    temperature_loss, weights = v_e_step(ADVANTAGES, RESTARTING, IMPORTANCE, 0.5, 0.1, k=6)
    close(outputs.normalized_weights, weights)
    close(outputs.temperature_loss, temperature_loss)
    close(outputs.policy_loss.mean(), -(weights * V_LOG_PROBS).sum())
    close(loss, outputs.policy_loss + temperature_loss + 0.3 * V_KL + 0.3 * (0.2 - V_KL))
    assert outputs.num_samples == 6


@pytest.mark.parametrize("stop", [True, False])
def test_gradients_of_vmpo(stop):
    def loss(advantages, log_probs, kl, importance, temperature):
        return vmpo(
            advantages, log_probs, kl, RESTARTING, importance, temperature, use_stop_gradient=stop
        )[0].mean()

    def oracle(x, held):
        temperature_loss = v_e_step(
            held.advantages, RESTARTING, held.importance, x.temperature, 0.1, 6
        )[0]
        weights = v_e_step(held.advantages, RESTARTING, held.importance, held.temperature, 0.1, 6)[
            1
        ]
        return (
            temperature_loss
            - (weights * x.log_probs).sum()
            + np.mean(0.3 * x.kl + 0.3 * (0.2 - held.kl))
        )

    values = {
        "advantages": ADVANTAGES,
        "log_probs": V_LOG_PROBS,
        "kl": V_KL,
        "importance": IMPORTANCE,
        "temperature": np.array(0.5),
    }
    gradients = jax.grad(loss, argnums=range(5))(*(np.float32(value) for value in values.values()))
    for (name, value), gradient in zip(values.items(), gradients, strict=True):

        def moved(x, name=name):
            x = {**values, name: x}
            return oracle(*(type("Values", (), source) for source in (x, values if stop else x)))

        close(gradient, differences(moved, value), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("exact", [True, False])
def test_vmpo_over_devices_equals_vmpo_over_all(exact):
    def halves(x):
        return x.reshape(2, 2, 3)

    def mean_loss(log_probs, temperature, axis_name=None):
        mapped = functools.partial(
            vmpo, temperature=temperature, axis_name=axis_name, exact_top_k=exact
        )
        if axis_name is None:
            return mapped(ADVANTAGES, log_probs, *V_ARGUMENTS[2:])[0].mean()
        return jax.vmap(mapped, axis_name=axis_name)(
            halves(ADVANTAGES), halves(log_probs), *map(halves, V_ARGUMENTS[2:])
        )[0].mean()

    arguments = (jnp.float32(V_LOG_PROBS), jnp.float32(0.5))
    close(mean_loss(*arguments, axis_name="devices"), mean_loss(*arguments))
    gradient = functools.partial(jax.grad(mean_loss, argnums=(0, 1)), *arguments)
    for sharded, whole in zip(gradient(axis_name="devices"), gradient(), strict=True):
        close(sharded, whole)


@pytest.mark.parametrize(
    ("fraction", "size", "kept"),
    [(1.0, 6, 6), (0.5, 6, 3), (0.34, 12, 4), (0.1, 12, 1), (0.29, 100, 29)],
)
def test_top_k_keeps_the_floor_of_its_share(fraction, size, kept):
    advantages = np.random.default_rng(0).permutation(size).astype(np.float32)
    weights = mpo.get_top_k_weights(fraction, np.ones(size), advantages)
    np.testing.assert_array_equal(weights, advantages >= size - kept)


def test_top_k_of_equal_advantages():
    equal, ones = np.zeros((2, 4)), np.ones((2, 4))
    assert mpo.get_top_k_weights(0.5, ones, equal).sum() == 8  # as RLax
    np.testing.assert_array_equal(
        mpo.get_top_k_weights(0.5, ones, equal, exact=True), [[1] * 4, [0] * 4]
    )
    _, weights, num_samples = mpo.vmpo_compute_weights_and_temperature_loss(
        equal, ones, ones, LagrangePenalty(1.0, 0.1), PLAIN_CLIP, 0.5, exact_top_k=True
    )
    close(weights, [[0.25] * 4, [0] * 4])
    assert num_samples == 4
    few = np.array([[1, 0, 0, 0], [0, 0, 1, 0]])  # fewer than half are left: exactly those
    np.testing.assert_array_equal(mpo.get_top_k_weights(0.5, few, equal, exact=True), few)
    np.testing.assert_array_equal(mpo.get_top_k_weights(0.5, few, equal), few)


def test_no_step_left_and_bad_advantages():
    ones, penalty = np.ones(4), LagrangePenalty(jnp.float32(2.0), 0.1)
    for restarting, importance in ((0 * ones, ones), (ones, 0 * ones)):
        call = functools.partial(
            mpo.vmpo_compute_weights_and_temperature_loss, ones, restarting, importance
        )
        loss, weights, _ = call(penalty, mpo.clip_projection, 0.5)
        close(loss, 0.2)
        assert not weights.any()
        gradient = jax.grad(
            lambda temperature: call(LagrangePenalty(temperature, 0.1), mpo.clip_projection, 0.5)[0]
        )(2.0)
        close(gradient, 0.1)
    bad = np.array([0.0, np.nan, 1.0, 2.0])
    assert np.isnan(
        mpo.vmpo_compute_weights_and_temperature_loss(
            bad, ones, ones, penalty, mpo.clip_projection, 0.5
        )[0]
    )
    for fraction in (0.0, 1.5, 0.1):
        with pytest.raises(ValueError, match="top_k_fraction"):
            mpo.get_top_k_weights(fraction, ones, ones)


# The whole losses.

MEAN, TARGET_MEAN = RNG.normal(size=(2, T, B, D))
STDDEV, TARGET_STDDEV = RNG.uniform(0.5, 1.5, size=(2, T, B, D))
ACTIONS = TARGET_MEAN + TARGET_STDDEV * RNG.normal(size=(S, T, B, D))
GAUSSIAN = (MEAN, STDDEV, TARGET_MEAN, TARGET_STDDEV, ACTIONS, Q)
MINIMUM, MAXIMUM = np.linspace(-1.2, -0.3, D), 0.9
BOUNDS = {"epsilon": 0.1, "epsilon_mean": 0.03, "epsilon_stddev": 0.02, "epsilon_penalty": 0.05}


def gaussian_kl(mean, stddev, other_mean, other_stddev):
    """Of each dimension."""
    return (
        np.log(other_stddev / stddev)
        + (stddev**2 + (mean - other_mean) ** 2) / (2 * other_stddev**2)
        - 0.5
    )


def gaussian_log_prob(x, mean, stddev):
    return np.sum(
        -0.5 * ((x - mean) / stddev) ** 2 - np.log(stddev) - 0.5 * np.log(2 * np.pi), axis=-1
    )


def gaussian_oracle(x, held, w_t):
    """Losses of all steps, weighted; gradients flow through `x`, but not `held`."""
    duals = {
        name: None if dual is None else np.exp(dual) for name, dual in x.duals._asdict().items()
    }
    held_duals = {
        name: None if dual is None else np.exp(dual) for name, dual in held.duals._asdict().items()
    }
    total = 0
    for i in np.ndindex(T, B):
        actions, q = ACTIONS[(slice(None), *i)], Q[(slice(None), *i)]
        mean, stddev, target = x.mean[i], x.stddev[i], (TARGET_MEAN[i], TARGET_STDDEV[i])
        loss = e_step(q, duals["temperature"], BOUNDS["epsilon"])[0]
        weights = e_step(q, held_duals["temperature"], BOUNDS["epsilon"])[1]
        if duals["penalty_temperature"] is not None:
            cost = -np.sqrt(((actions - np.clip(actions, MINIMUM, MAXIMUM)) ** 2).sum(-1))
            loss += e_step(cost, duals["penalty_temperature"], BOUNDS["epsilon_penalty"])[0]
            weights = (
                weights
                + e_step(cost, held_duals["penalty_temperature"], BOUNDS["epsilon_penalty"])[1]
            )
        for mean_, stddev_ in ((mean, target[1]), (target[0], stddev)):
            loss -= weights @ gaussian_log_prob(actions, mean_, stddev_)
        for name, kl, held_kl in [
            (
                "mean",
                gaussian_kl(*target, mean, target[1]),
                gaussian_kl(*target, held.mean[i], target[1]),
            ),
            (
                "stddev",
                gaussian_kl(*target, target[0], stddev),
                gaussian_kl(*target, target[0], held.stddev[i]),
            ),
        ]:
            alpha, held_alpha, epsilon = (
                duals[f"alpha_{name}"],
                held_duals[f"alpha_{name}"],
                BOUNDS[f"epsilon_{name}"],
            )
            if np.ndim(alpha):
                loss += np.sum(held_alpha * kl) + np.sum(alpha * (epsilon - held_kl))
            else:
                loss += held_alpha * kl.sum() + alpha * (epsilon - held_kl.sum())
        total += w_t[i] * loss
    return total


def gaussian_loss(mean, stddev, duals, **options):
    arguments = (mean, stddev, TARGET_MEAN, TARGET_STDDEV, ACTIONS, Q, duals)
    return mpo.gaussian_mpo_loss(
        *arguments, **BOUNDS, action_minimum=MINIMUM, action_maximum=MAXIMUM, **options
    )


def duals_of(num_dimensions, penalty):
    duals = mpo.GaussianMpoDuals.init(num_dimensions, 0.7, 0.4, 2.0, 0.3 if penalty else None)
    return jax.tree.map(lambda dual: np.asarray(dual, float), duals)


@pytest.mark.parametrize(("num_dimensions", "penalty"), [(None, False), (D, True)])
def test_gaussian_mpo_and_its_gradients_against_the_oracle(num_dimensions, penalty):
    w_t = np.arange(6.0).reshape(T, B)
    values = {"mean": MEAN, "stddev": STDDEV, "duals": duals_of(num_dimensions, penalty)}

    def loss(values):
        return gaussian_loss(**values, w_t=w_t, reduction="sum")[0]

    def oracle(x):
        return gaussian_oracle(*(type("Values", (), source) for source in (x, values)), w_t)

    with jax.numpy_rank_promotion("raise"):
        actual, gradients = jax.value_and_grad(loss)(jax.tree.map(np.float32, values))
    close(actual, oracle(values))
    for name in ("mean", "stddev"):
        close(
            gradients[name],
            differences(lambda x, name=name: oracle({**values, name: x}), values[name]),
            rtol=1e-3,
            atol=1e-3,
        )
    for name, dual in values["duals"]._asdict().items():
        if dual is not None:
            moved = differences(
                lambda x, name=name: oracle(
                    {**values, "duals": values["duals"]._replace(**{name: x})}
                ),
                dual,
            )
            close(getattr(gradients["duals"], name), moved, rtol=1e-3, atol=1e-3)


def test_gaussian_mpo_under_jit_vmap_and_reductions():
    duals, w_t = duals_of(D, True), np.arange(6.0).reshape(T, B)
    losses = gaussian_loss(MEAN, STDDEV, duals, reduction="none")[0]
    assert losses.shape == (T, B)
    close(jax.jit(gaussian_loss)(MEAN, STDDEV, duals)[0], losses.mean())
    close(
        gaussian_loss(MEAN, STDDEV, duals, w_t=w_t, reduction="masked_mean")[0],
        (w_t * losses).sum() / w_t.sum(),
        rtol=1e-3,
    )
    mapped = jax.vmap(mpo.gaussian_mpo_loss, in_axes=(0, 0, 0, 0, 1, 1, None))(*GAUSSIAN, duals)[0]
    close(mapped, mpo.gaussian_mpo_loss(*GAUSSIAN, duals, reduction="none")[0].mean(1))


def test_gaussian_statistics():
    duals, w_t = duals_of(D, True), np.arange(6.0).reshape(T, B)
    statistics = gaussian_loss(MEAN, STDDEV, duals, w_t=w_t)[1]
    share = w_t / w_t.sum()
    kl_mean = gaussian_kl(TARGET_MEAN, TARGET_STDDEV, MEAN, TARGET_STDDEV)
    kl_stddev = gaussian_kl(TARGET_MEAN, TARGET_STDDEV, TARGET_MEAN, STDDEV)
    kl_improved = sum(
        share[i] * e_step(Q[(slice(None), *i)], 0.7, 0.1)[2] for i in np.ndindex(T, B)
    )
    close(statistics.kl_mean, np.tensordot(share, kl_mean))
    close(statistics.kl_stddev, np.tensordot(share, kl_stddev))
    close(statistics.kl_improved, kl_improved)
    close([statistics.temperature, statistics.penalty_temperature], [0.7, 0.3])
    close([statistics.alpha_mean, statistics.alpha_stddev], [[0.4] * D, [2.0] * D])
    for name, bound in BOUNDS.items():
        close(getattr(statistics, name), bound)
    total = (
        statistics.policy_loss
        + statistics.temperature_loss
        + statistics.kl_loss
        + statistics.alpha_loss
    )
    close(gaussian_loss(MEAN, STDDEV, duals, w_t=w_t, reduction="masked_mean")[0], total)
    together = gaussian_loss(MEAN, STDDEV, duals_of(None, False), w_t=w_t)[1]
    close(together.kl_mean, np.tensordot(share, kl_mean).sum())
    assert together.kl_penalty is None


def test_kls_are_zero_where_the_policies_agree_and_measure_one_part_each():
    duals = duals_of(D, False)
    same = gaussian_loss(TARGET_MEAN, TARGET_STDDEV, duals)[1]
    close([same.kl_mean, same.kl_stddev], np.zeros((2, D)))
    moved = gaussian_loss(TARGET_MEAN + 0.1, TARGET_STDDEV, duals)[1]
    assert (moved.kl_mean > 0).all()
    close(moved.kl_stddev, np.zeros(D))
    narrower = gaussian_loss(TARGET_MEAN, TARGET_STDDEV * (1 - 1e-3), duals)[1]
    close(narrower.kl_mean, np.zeros(D))
    close(narrower.kl_stddev, 1e-6, rtol=1e-2, atol=0)  # as small as its usual bound, in float32


def test_gaussian_mpo_is_mpo_with_its_parts_put_together():
    duals = duals_of(D, False)
    log_probs = gaussian_log_prob(ACTIONS, MEAN, TARGET_STDDEV) + gaussian_log_prob(
        ACTIONS, TARGET_MEAN, STDDEV
    )
    constraints = [
        (
            gaussian_kl(TARGET_MEAN, TARGET_STDDEV, MEAN, TARGET_STDDEV),
            LagrangePenalty(duals.alpha_mean, BOUNDS["epsilon_mean"], per_dimension=True),
        ),
        (
            gaussian_kl(TARGET_MEAN, TARGET_STDDEV, TARGET_MEAN, STDDEV),
            LagrangePenalty(duals.alpha_stddev, BOUNDS["epsilon_stddev"], per_dimension=True),
        ),
    ]
    penalty = LagrangePenalty(duals.temperature, BOUNDS["epsilon"])
    loss, _ = mpo.mpo_loss(log_probs, Q, penalty, constraints, jnp.exp)
    close(gaussian_loss(MEAN, STDDEV, duals, reduction="none")[0], loss)


def test_the_penalty_draws_the_mean_into_the_bounds():
    actions = jnp.array([[0.5], [3.0]])

    def pull(penalty):
        duals = mpo.GaussianMpoDuals.init(1, 1.0, 1.0, 1.0, 0.1 if penalty else None)
        one = jnp.ones(1)
        return jax.grad(
            lambda mean: mpo.gaussian_mpo_loss(
                mean, one, 1.75 * one, one, actions, jnp.zeros(2), duals
            )[0]
        )(1.75 * one)

    close(pull(False), 0)
    assert pull(True) > 0.5  # descending lowers the mean


LOGITS, TARGET_LOGITS, Q_VALUES = RNG.normal(size=(3, T, B, A))


def categorical_oracle(x, held):
    total = 0
    for i in np.ndindex(T, B):
        temperature, alpha = np.exp(x.duals.temperature), np.exp(x.duals.alpha)
        target = np.exp(TARGET_LOGITS[i]) / np.exp(TARGET_LOGITS[i]).sum()
        unnormalized = target * np.exp(Q_VALUES[i] / np.exp(held.duals.temperature))
        log_online, held_log_online = (
            logits[i] - np.log(np.exp(logits[i]).sum()) for logits in (x.logits, held.logits)
        )
        total += temperature * (0.1 + np.log(target @ np.exp(Q_VALUES[i] / temperature)))
        total -= unnormalized / unnormalized.sum() @ log_online
        total += np.exp(held.duals.alpha) * (target @ (np.log(target) - log_online))
        total += alpha * (0.02 - target @ (np.log(target) - held_log_online))
    return total


def categorical_loss(logits, duals, **options):
    return mpo.categorical_mpo_loss(logits, TARGET_LOGITS, Q_VALUES, duals, 0.1, 0.02, **options)


def test_categorical_mpo_and_its_gradients_against_the_oracle():
    values = {
        "logits": LOGITS,
        "duals": jax.tree.map(
            lambda dual: np.asarray(dual, float), mpo.CategoricalMpoDuals.init(0.7, 0.4)
        ),
    }

    def oracle(x):
        return categorical_oracle(*(type("Values", (), source) for source in (x, values)))

    with jax.numpy_rank_promotion("raise"):
        loss, gradients = jax.value_and_grad(
            lambda values: categorical_loss(**values, reduction="sum")[0]
        )(jax.tree.map(np.float32, values))
    close(loss, oracle(values))
    close(
        gradients["logits"],
        differences(lambda x: oracle({**values, "logits": x}), LOGITS),
        rtol=1e-3,
        atol=1e-4,
    )
    for name, dual in values["duals"]._asdict().items():
        moved = differences(
            lambda x, name=name: oracle({**values, "duals": values["duals"]._replace(**{name: x})}),
            dual,
        )
        close(getattr(gradients["duals"], name), moved, rtol=1e-3, atol=1e-4)
    close(jax.jit(categorical_loss)(**values)[0], loss / 6)
    mapped = jax.vmap(mpo.categorical_mpo_loss, in_axes=(0, 0, 0, None, None, None))
    close(mapped(LOGITS, TARGET_LOGITS, Q_VALUES, values["duals"], 0.1, 0.02)[0].mean(), loss / 6)


def test_categorical_mpo_of_a_uniform_target_is_mpo_with_every_action_as_a_sample():
    duals = mpo.CategoricalMpoDuals.init(0.7, 0.4)
    log_probs = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
    kl = np.mean(-np.log(A) - log_probs, axis=-1)
    expected, _ = mpo.mpo_loss(
        log_probs,
        Q_VALUES,
        LagrangePenalty(duals.temperature, 0.1),
        [(kl, LagrangePenalty(duals.alpha, 0.02))],
        jnp.exp,
        sample_axis=-1,
    )
    close(
        mpo.categorical_mpo_loss(LOGITS, 0 * LOGITS, Q_VALUES, duals, 0.1, 0.02, reduction="none")[
            0
        ],
        expected,
    )


def test_actions_that_are_ruled_out_add_nothing():
    duals = mpo.CategoricalMpoDuals.init(0.7, 0.4)
    more = [
        np.concatenate([x, np.full((T, B, 1), fill)], axis=-1)
        for x, fill in zip((LOGITS, TARGET_LOGITS), [-np.inf] * 2, strict=True)
    ]
    values = np.concatenate([Q_VALUES, np.full((T, B, 1), 9.0)], axis=-1)

    def loss(logits):
        return mpo.categorical_mpo_loss(logits, more[1], values, duals, 0.1, 0.02)[0]

    close(loss(more[0]), categorical_loss(LOGITS, duals)[0])
    gradient = jax.grad(loss)(jnp.float32(more[0]))
    close(
        gradient[..., :A],
        jax.grad(lambda logits: categorical_loss(logits, duals)[0])(jnp.float32(LOGITS)),
    )
    close(gradient[..., A], 0)


def test_learned_temperature_holds_the_improved_policy_at_its_bound():
    def loss(duals):
        value, statistics = mpo.categorical_mpo_loss(
            TARGET_LOGITS, TARGET_LOGITS, Q_VALUES, duals, epsilon=0.1
        )
        return value, statistics

    @jax.jit
    def descend(duals):
        return jax.lax.fori_loop(
            0,
            2000,
            lambda _, duals: jax.tree.map(
                lambda x, g: x - g, duals, jax.grad(loss, has_aux=True)(duals)[0]
            ),
            duals,
        )

    statistics = loss(descend(mpo.CategoricalMpoDuals.init(3.0, 1.0)))[1]
    close(statistics.kl_improved, statistics.epsilon, rtol=1e-2)
    assert statistics.alpha < 0.1  # from 1: a KL of 0 needs no penalty


@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.integers(1, 3), max_size=3),
    st.integers(1, 3),
    st.sampled_from(["float32", "bfloat16", "float16", "int32"]),
)
def test_any_leading_axes_and_dtypes(leading, size, dtype):
    expected = jnp.promote_types(dtype, jnp.float32) if dtype == "int32" else jnp.dtype(dtype)
    x, samples, dual = (
        jnp.ones((*leading, size), dtype),
        jnp.ones((2, *leading, size), dtype),
        jnp.ones((), dtype),
    )

    def losses():  # traced only: shapes and dtypes need no compilation
        penalty = LagrangePenalty(dual, 1)
        duals = jax.tree.map(lambda x: x.astype(dtype), mpo.GaussianMpoDuals.init(size, 1, 1, 1, 1))
        return (
            mpo.mpo_loss(samples[..., 0], samples[..., 0], penalty, [(x[..., 0], penalty)])[0],
            mpo.vmpo_loss(samples[..., 0], samples[..., 0], penalty, [], top_k_fraction=1)[0][0],
            mpo.gaussian_mpo_loss(x, x, x, x, samples, samples[..., 0], duals, reduction="none")[0],
            mpo.categorical_mpo_loss(
                x, x, x, mpo.CategoricalMpoDuals(dual, dual), reduction="none"
            )[0],
        )

    for loss in jax.eval_shape(losses):
        assert (loss.shape, loss.dtype) == (tuple(leading), expected)


def test_duals_begin_at_their_values():
    duals = mpo.GaussianMpoDuals.init(D, 1e-3, 10, 1000.0, 0.5)
    close(jnp.exp(duals.temperature), 1e-3, rtol=1e-4)
    close(jnp.exp(duals.alpha_mean), [10] * D)
    close(jnp.exp(duals.alpha_stddev), [1000] * D)
    close(jnp.exp(duals.penalty_temperature), 0.5)


PENALTY = LagrangePenalty(0.5, 0.1)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: mpo.mpo_loss(LOG_PROBS[:1], Q, PENALTY, []), "'sample_log_probs'"),
        (lambda: mpo.mpo_loss(LOG_PROBS, Q, PENALTY, [], sample_axis=3), "no axis 3"),
        (
            lambda: mpo.mpo_loss(LOG_PROBS, Q, PENALTY, [], kl_loss_weight=np.ones(B)),
            "mpo_loss: 'kl_loss_weight' must be a scalar",
        ),
        (
            lambda: mpo.mpo_loss(LOG_PROBS, Q, PENALTY._replace(alpha=np.ones(B)), []),
            "'temperature_constraint'",
        ),
        (
            lambda: mpo.mpo_loss(LOG_PROBS, Q, PENALTY, [(KL[:1], PENALTY)]),
            r"'kl_constraints\[0\]'",
        ),
        (
            lambda: mpo.mpo_loss(
                LOG_PROBS, Q, PENALTY, [(KL, PENALTY), (KL, LagrangePenalty(1.0, 1.0, True))]
            ),
            r"'kl_constraints\[1\]'",
        ),
        (
            lambda: mpo.kl_constraint_loss(
                KL, LagrangePenalty(np.ones(B), 0.1), mpo.clip_projection
            ),
            "'penalty.alpha'",
        ),
        (
            lambda: mpo.kl_constraint_loss(
                KLS, LagrangePenalty(1.0, np.ones(B), True), mpo.clip_projection
            ),
            "'penalty.epsilon'",
        ),
        (
            lambda: mpo.kl_constraint_loss(
                1.0, LagrangePenalty(1.0, 1.0, True), mpo.clip_projection
            ),
            "'kl'",
        ),
        (lambda: mpo.vmpo_loss(LOG_PROBS[0], Q, PENALTY, []), "'sample_log_probs'"),
        (
            lambda: mpo.vmpo_loss(Q, Q, PENALTY, [], restarting_weights=np.ones(B)),
            "'restarting_weights'",
        ),
        (
            lambda: mpo.vmpo_loss(Q, Q, PENALTY, [], importance_weights=np.ones((1, T, B))),
            "'importance_weights'",
        ),
        (lambda: mpo.get_top_k_weights(0.5, np.ones(2), np.ones(3)), "'restarting_weights'"),
        (
            lambda: mpo.gaussian_mpo_loss(MEAN, STDDEV[..., :1], *GAUSSIAN[2:], duals_of(D, False)),
            "'online_stddev'",
        ),
        (
            lambda: mpo.gaussian_mpo_loss(*GAUSSIAN[:4], ACTIONS[:, :1], Q, duals_of(D, False)),
            "'sample_actions'",
        ),
        (
            lambda: mpo.gaussian_mpo_loss(*GAUSSIAN[:5], Q[:, :1], duals_of(D, False)),
            "'sample_q_values'",
        ),
        (lambda: mpo.gaussian_mpo_loss(*GAUSSIAN, duals_of(D + 1, False)), "'duals.alpha_mean'"),
        (
            lambda: mpo.gaussian_mpo_loss(
                *GAUSSIAN, duals_of(D, True), action_minimum=np.ones(D + 1)
            ),
            "'action_minimum'",
        ),
        (
            lambda: mpo.categorical_mpo_loss(
                LOGITS, TARGET_LOGITS[:1], Q_VALUES, mpo.CategoricalMpoDuals.init()
            ),
            "'target_logits'",
        ),
        (
            lambda: mpo.categorical_mpo_loss(
                LOGITS, LOGITS, LOGITS, mpo.CategoricalMpoDuals.init(), epsilon=np.ones(2)
            ),
            "'epsilon'",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, name):
    with pytest.raises(ShapeError, match=name):
        call()


def test_a_traced_penalty_says_so():
    with pytest.raises(TypeError, match="'per_dimension' must be a Python bool"):
        jax.jit(lambda penalty: mpo.mpo_loss(LOG_PROBS, Q, PENALTY, [(KL, penalty)]))(PENALTY)
