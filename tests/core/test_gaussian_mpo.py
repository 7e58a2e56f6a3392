import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo import core
from agentzoo.core import LagrangePenalty, ShapeError
from tests.core.mpo_oracle import B, D, S, T, close, differences, e_step

RNG = np.random.default_rng(0)
Q = RNG.normal(size=(S, T, B))
MEAN, TARGET_MEAN = RNG.normal(size=(2, T, B, D))
STDDEV, TARGET_STDDEV = RNG.uniform(0.5, 1.5, size=(2, T, B, D))
ACTIONS = TARGET_MEAN + TARGET_STDDEV * RNG.normal(size=(S, T, B, D))
GAUSSIAN = (MEAN, STDDEV, TARGET_MEAN, TARGET_STDDEV, ACTIONS, Q)
MINIMUM, MAXIMUM = np.linspace(-1.2, -0.3, D), 0.9
BOUNDS = {"epsilon": 0.1, "epsilon_mean": 0.03, "epsilon_stddev": 0.02, "epsilon_penalty": 0.05}


def gaussian_kl(mean, stddev, other_mean, other_stddev):
    """Return the KL of each dimension."""
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
    """Return the weighted loss of all steps. Gradients flow through `x`; `held` is constant."""
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
    return core.gaussian_mpo_loss(
        *arguments, **BOUNDS, action_minimum=MINIMUM, action_maximum=MAXIMUM, **options
    )


def duals_of(num_dimensions, penalty):
    duals = core.GaussianMpoDuals.init(num_dimensions, 0.7, 0.4, 2.0, 0.3 if penalty else None)
    return jax.tree.map(lambda dual: np.asarray(dual, float), duals)


@pytest.mark.slow
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


@pytest.mark.slow
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
    mapped = jax.vmap(core.gaussian_mpo_loss, in_axes=(0, 0, 0, 0, 1, 1, None))(*GAUSSIAN, duals)[0]
    close(mapped, core.gaussian_mpo_loss(*GAUSSIAN, duals, reduction="none")[0].mean(1))


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
    close(narrower.kl_stddev, 1e-6, rtol=1e-2, atol=0)  # as small as its usual bound


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
    loss, _ = core.mpo_loss(log_probs, Q, penalty, constraints, jnp.exp)
    close(gaussian_loss(MEAN, STDDEV, duals, reduction="none")[0], loss)


@pytest.mark.slow
def test_the_penalty_draws_the_mean_into_the_bounds():
    actions = jnp.array([[0.5], [3.0]])

    def pull(penalty):
        duals = core.GaussianMpoDuals.init(1, 1.0, 1.0, 1.0, 0.1 if penalty else None)
        one = jnp.ones(1)
        return jax.grad(
            lambda mean: core.gaussian_mpo_loss(
                mean, one, 1.75 * one, one, actions, jnp.zeros(2), duals
            )[0]
        )(1.75 * one)

    close(pull(False), 0)
    assert pull(True) > 0.5  # gradient descent lowers the mean


def test_duals_begin_at_their_values():
    duals = core.GaussianMpoDuals.init(D, 1e-3, 10, 1000.0, 0.5)
    close(jnp.exp(duals.temperature), 1e-3, rtol=1e-4)
    close(jnp.exp(duals.alpha_mean), [10] * D)
    close(jnp.exp(duals.alpha_stddev), [1000] * D)
    close(jnp.exp(duals.penalty_temperature), 0.5)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (
            lambda: core.gaussian_mpo_loss(
                MEAN, STDDEV[..., :1], *GAUSSIAN[2:], duals_of(D, False)
            ),
            "'online_stddev'",
        ),
        (
            lambda: core.gaussian_mpo_loss(*GAUSSIAN[:4], ACTIONS[:, :1], Q, duals_of(D, False)),
            "'sample_actions'",
        ),
        (
            lambda: core.gaussian_mpo_loss(*GAUSSIAN[:5], Q[:, :1], duals_of(D, False)),
            "'sample_q_values'",
        ),
        (lambda: core.gaussian_mpo_loss(*GAUSSIAN, duals_of(D + 1, False)), "'duals.alpha_mean'"),
        (
            lambda: core.gaussian_mpo_loss(
                *GAUSSIAN, duals_of(D, True), action_minimum=np.ones(D + 1)
            ),
            "'action_minimum'",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, name):
    with pytest.raises(ShapeError, match=name):
        call()
