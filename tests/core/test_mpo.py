import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentzoo import core
from agentzoo.core import LagrangePenalty, ShapeError, mpo
from tests.core.mpo_oracle import PLAIN_CLIP, B, D, S, T, close, differences, e_step

RNG = np.random.default_rng(0)
LOG_PROBS, Q = RNG.normal(size=(2, S, T, B))
KL, KLS = RNG.uniform(size=(T, B)), RNG.uniform(size=(T, B, D))
ALPHAS = RNG.uniform(0.5, 1.5, size=D)
WEIGHTS = (0.9, 0.8, 0.7, 0.6)
PENALTY = LagrangePenalty(0.5, 0.1)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_mpo_against_the_oracle(transform):
    constraints = [
        (KL, LagrangePenalty(0.3, 0.2)),
        (KLS, LagrangePenalty(ALPHAS, 0.1, per_dimension=True)),
    ]

    def call(log_probs, q):
        return core.mpo_loss(
            log_probs,
            q,
            LagrangePenalty(0.5, 0.1),
            constraints,
            core.clip_projection,
            *WEIGHTS,
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
    loss, weights, num_samples = core.mpo_compute_weights_and_temperature_loss(
        np.array([0.0, np.log(3)]), LagrangePenalty(1.0, 0.1), core.clip_projection
    )
    close(weights, [0.25, 0.75])
    close(loss, 0.1 + np.log(2))
    assert num_samples == 2


def test_a_temperature_costs_no_digits_of_large_values():
    q = (1e4 + np.arange(8) / 64).astype(np.float32)
    loss, weights, _ = e_step(np.arange(8) / 64, 0.07, 0.1)
    ones, penalty = np.ones(8), LagrangePenalty(0.07, 0.1)
    for found in (
        core.mpo_compute_weights_and_temperature_loss(q, penalty, core.clip_projection),
        core.vmpo_compute_weights_and_temperature_loss(
            q, ones, ones, penalty, core.clip_projection, 1.0
        ),
    ):
        close(found[0], 1e4 + loss, rtol=1e-7)
        close(found[1], weights, rtol=2e-6)


def test_samples_on_any_axis_and_a_temperature_for_each_step():
    expected = core.mpo_loss(LOG_PROBS, Q, LagrangePenalty(0.5, 0.1), [])[0]
    for axis in (1, 2, -1):
        moved = [np.moveaxis(x, 0, axis) for x in (LOG_PROBS, Q)]
        close(core.mpo_loss(*moved, LagrangePenalty(0.5, 0.1), [], sample_axis=axis)[0], expected)
        each = LagrangePenalty(np.full((T, B), 0.5), 0.1)
        close(core.mpo_loss(*moved, each, [], sample_axis=axis)[0], expected)


def test_mpo_under_vmap_and_scan():
    def loss(log_probs, q, kl):
        return core.mpo_loss(
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
    core.mpo_loss(LOG_PROBS, Q, LagrangePenalty(0.5, 0.1), [], lambda x: jnp.clip(x, 1e-8))
    size = compiled._cache_size()
    core.mpo_loss(LOG_PROBS, Q, LagrangePenalty(0.5, 0.1), [], lambda x: jnp.clip(x, 1e-8))
    assert compiled._cache_size() == size


@pytest.mark.parametrize("stop", [True, False])
def test_gradients_of_mpo(stop):
    def loss(log_probs, q, temperature, kl, alpha):
        constraints = [(kl, LagrangePenalty(alpha, 0.2))]
        return core.mpo_loss(
            log_probs,
            q,
            LagrangePenalty(temperature, 0.1),
            constraints,
            use_stop_gradient=stop,
        )[0].sum()

    def oracle(x, held):  # gradients flow through `x` only; `held` is constant
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
        return core.mpo_compute_weights_and_temperature_loss(
            q, LagrangePenalty(temperature, 0.01), PLAIN_CLIP
        )[0].sum()

    close(jax.grad(lambda q: loss(q, 0.1))(jnp.full((1, 1, 1), 3.0)), 1)
    weights = jax.grad(
        lambda q: core.mpo_compute_weights_and_temperature_loss(
            q, LagrangePenalty(0.1, 0.01), PLAIN_CLIP
        )[1][0].sum()
    )
    assert not weights(jnp.float32(Q)).any()


def test_no_kl_constraints_are_allowed():
    assert core.compute_parametric_kl_penalty_and_dual_loss([], core.clip_projection) == (0, 0)
    for function, log_probs, values in (
        (core.mpo_loss, LOG_PROBS, Q),
        (core.vmpo_loss, LOG_PROBS[0], Q[0]),
    ):
        loss, outputs = function(log_probs, values, LagrangePenalty(0.5, 0.1), [])
        assert loss.shape == (T, B)
        assert (outputs.kl_loss, outputs.alpha_loss) == (0, 0)


@pytest.mark.slow
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

    def losses():  # only traced: shapes and dtypes need no compilation
        penalty = LagrangePenalty(dual, 1)
        duals = jax.tree.map(
            lambda x: x.astype(dtype), core.GaussianMpoDuals.init(size, 1, 1, 1, 1)
        )
        return (
            core.mpo_loss(samples[..., 0], samples[..., 0], penalty, [(x[..., 0], penalty)])[0],
            core.vmpo_loss(samples[..., 0], samples[..., 0], penalty, [], top_k_fraction=1)[0][0],
            core.gaussian_mpo_loss(x, x, x, x, samples, samples[..., 0], duals, reduction="none")[
                0
            ],
            core.categorical_mpo_loss(
                x, x, x, core.CategoricalMpoDuals(dual, dual), reduction="none"
            )[0],
        )

    for loss in jax.eval_shape(losses):
        assert (loss.shape, loss.dtype) == (tuple(leading), expected)


def test_a_traced_penalty_says_so():
    with pytest.raises(TypeError, match="'per_dimension' must be a Python bool"):
        jax.jit(lambda penalty: core.mpo_loss(LOG_PROBS, Q, PENALTY, [(KL, penalty)]))(PENALTY)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: core.mpo_loss(LOG_PROBS[:1], Q, PENALTY, []), "'sample_log_probs'"),
        (lambda: core.mpo_loss(LOG_PROBS, Q, PENALTY, [], sample_axis=3), "no axis 3"),
        (
            lambda: core.mpo_loss(LOG_PROBS, Q, PENALTY, [], kl_loss_weight=np.ones(B)),
            "mpo_loss: 'kl_loss_weight' must be a scalar",
        ),
        (
            lambda: core.mpo_loss(LOG_PROBS, Q, PENALTY._replace(alpha=np.ones(B)), []),
            "'temperature_constraint'",
        ),
        (
            lambda: core.mpo_loss(LOG_PROBS, Q, PENALTY, [(KL[:1], PENALTY)]),
            r"'kl_constraints\[0\]'",
        ),
        (
            lambda: core.mpo_loss(
                LOG_PROBS, Q, PENALTY, [(KL, PENALTY), (KL, LagrangePenalty(1.0, 1.0, True))]
            ),
            r"'kl_constraints\[1\]'",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, name):
    with pytest.raises(ShapeError, match=name):
        call()
