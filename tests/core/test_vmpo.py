import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo import core
from agentzoo.core import LagrangePenalty, ShapeError
from tests.core.mpo_oracle import PLAIN_CLIP, close, differences

RNG = np.random.default_rng(0)
T, B = 4, 3
ADVANTAGES, IMPORTANCE = RNG.normal(size=(T, B)), RNG.uniform(0.5, 1, size=(T, B))
LOG_PROBS, KL = RNG.normal(size=(T, B)), RNG.uniform(size=(T, B))
RESTARTING = np.ones((T, B))
RESTARTING[0, 1] = RESTARTING[np.unravel_index(ADVANTAGES.argmax(), (T, B))] = 0
ARGUMENTS = (ADVANTAGES, LOG_PROBS, KL, RESTARTING, IMPORTANCE)
PENALTY = LagrangePenalty(0.5, 0.1)


def v_e_step(advantages, restarting, importance, temperature, epsilon, k):
    """Return loss and weights, for distinct advantages and at least k steps that count."""
    kept = (advantages >= np.sort(advantages[restarting > 0])[-k]) & (restarting > 0)
    exponentials = kept * importance * np.exp(advantages / temperature)
    return temperature * (
        epsilon + np.log(exponentials.sum() / k)
    ), exponentials / exponentials.sum()


def vmpo(advantages, log_probs, kl, restarting, importance, temperature=0.5, **options):
    return core.vmpo_loss(
        log_probs,
        advantages,
        LagrangePenalty(temperature, 0.1),
        [(kl, LagrangePenalty(0.3, 0.2))],
        core.clip_projection,
        restarting,
        importance,
        **options,
    )


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_vmpo_against_the_oracle(transform, exact):
    loss, outputs = transform(functools.partial(vmpo, exact_top_k=exact))(*ARGUMENTS)
    temperature_loss, weights = v_e_step(ADVANTAGES, RESTARTING, IMPORTANCE, 0.5, 0.1, k=6)
    close(outputs.normalized_weights, weights)
    close(outputs.temperature_loss, temperature_loss)
    close(outputs.policy_loss.mean(), -(weights * LOG_PROBS).sum())
    close(loss, outputs.policy_loss + temperature_loss + 0.3 * KL + 0.3 * (0.2 - KL))
    assert outputs.num_samples == 6


@pytest.mark.slow
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
        "log_probs": LOG_PROBS,
        "kl": KL,
        "importance": IMPORTANCE,
        "temperature": np.array(0.5),
    }
    gradients = jax.grad(loss, argnums=range(5))(*(np.float32(value) for value in values.values()))
    for (name, value), gradient in zip(values.items(), gradients, strict=True):

        def moved(x, name=name):
            x = {**values, name: x}
            return oracle(*(type("Values", (), source) for source in (x, values if stop else x)))

        close(gradient, differences(moved, value), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, False])
def test_vmpo_over_devices_equals_vmpo_over_all(exact):
    def halves(x):
        return x.reshape(2, 2, 3)

    def mean_loss(log_probs, temperature, axis_name=None):
        mapped = functools.partial(
            vmpo, temperature=temperature, axis_name=axis_name, exact_top_k=exact
        )
        if axis_name is None:
            return mapped(ADVANTAGES, log_probs, *ARGUMENTS[2:])[0].mean()
        return jax.vmap(mapped, axis_name=axis_name)(
            halves(ADVANTAGES), halves(log_probs), *map(halves, ARGUMENTS[2:])
        )[0].mean()

    arguments = (jnp.float32(LOG_PROBS), jnp.float32(0.5))
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
    weights = core.get_top_k_weights(fraction, np.ones(size), advantages)
    np.testing.assert_array_equal(weights, advantages >= size - kept)


def test_top_k_of_equal_advantages():
    equal, ones = np.zeros((2, 4)), np.ones((2, 4))
    assert core.get_top_k_weights(0.5, ones, equal).sum() == 8  # as in RLax
    np.testing.assert_array_equal(
        core.get_top_k_weights(0.5, ones, equal, exact=True), [[1] * 4, [0] * 4]
    )
    _, weights, num_samples = core.vmpo_compute_weights_and_temperature_loss(
        equal, ones, ones, LagrangePenalty(1.0, 0.1), PLAIN_CLIP, 0.5, exact_top_k=True
    )
    close(weights, [[0.25] * 4, [0] * 4])
    assert num_samples == 4
    few = np.array([[1, 0, 0, 0], [0, 0, 1, 0]])  # fewer than half are left: all of them
    np.testing.assert_array_equal(core.get_top_k_weights(0.5, few, equal, exact=True), few)
    np.testing.assert_array_equal(core.get_top_k_weights(0.5, few, equal), few)


def test_no_step_left_and_bad_advantages():
    ones, penalty = np.ones(4), LagrangePenalty(jnp.float32(2.0), 0.1)
    for restarting, importance in ((0 * ones, ones), (ones, 0 * ones)):
        call = functools.partial(
            core.vmpo_compute_weights_and_temperature_loss, ones, restarting, importance
        )
        loss, weights, _ = call(penalty, core.clip_projection, 0.5)
        close(loss, 0.2)
        assert not weights.any()

        def loss_at(temperature, call=call):
            return call(LagrangePenalty(temperature, 0.1), core.clip_projection, 0.5)[0]

        gradient = jax.grad(loss_at)(2.0)
        close(gradient, 0.1)
    bad = np.array([0.0, np.nan, 1.0, 2.0])
    assert np.isnan(
        core.vmpo_compute_weights_and_temperature_loss(
            bad, ones, ones, penalty, core.clip_projection, 0.5
        )[0]
    )
    for fraction in (0.0, 1.5, 0.1):
        with pytest.raises(ValueError, match="top_k_fraction"):
            core.get_top_k_weights(fraction, ones, ones)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: core.vmpo_loss(LOG_PROBS[:1], ADVANTAGES, PENALTY, []), "'sample_log_probs'"),
        (
            lambda: core.vmpo_loss(
                LOG_PROBS, ADVANTAGES, PENALTY, [], restarting_weights=np.ones(B)
            ),
            "'restarting_weights'",
        ),
        (
            lambda: core.vmpo_loss(
                LOG_PROBS, ADVANTAGES, PENALTY, [], importance_weights=np.ones((1, T, B))
            ),
            "'importance_weights'",
        ),
        (lambda: core.get_top_k_weights(0.5, np.ones(2), np.ones(3)), "'restarting_weights'"),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, name):
    with pytest.raises(ShapeError, match=name):
        call()
