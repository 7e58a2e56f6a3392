import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo import core
from agentzoo.core import LagrangePenalty, ShapeError
from tests.core.mpo_oracle import A, B, T, close, differences

RNG = np.random.default_rng(0)
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
    return core.categorical_mpo_loss(logits, TARGET_LOGITS, Q_VALUES, duals, 0.1, 0.02, **options)


@pytest.mark.slow
def test_categorical_mpo_and_its_gradients_against_the_oracle():
    values = {
        "logits": LOGITS,
        "duals": jax.tree.map(
            lambda dual: np.asarray(dual, float), core.CategoricalMpoDuals.init(0.7, 0.4)
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
    mapped = jax.vmap(core.categorical_mpo_loss, in_axes=(0, 0, 0, None, None, None))
    close(mapped(LOGITS, TARGET_LOGITS, Q_VALUES, values["duals"], 0.1, 0.02)[0].mean(), loss / 6)


def test_categorical_mpo_of_a_uniform_target_is_mpo_with_every_action_as_a_sample():
    duals = core.CategoricalMpoDuals.init(0.7, 0.4)
    log_probs = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
    kl = np.mean(-np.log(A) - log_probs, axis=-1)
    expected, _ = core.mpo_loss(
        log_probs,
        Q_VALUES,
        LagrangePenalty(duals.temperature, 0.1),
        [(kl, LagrangePenalty(duals.alpha, 0.02))],
        jnp.exp,
        sample_axis=-1,
    )
    close(
        core.categorical_mpo_loss(LOGITS, 0 * LOGITS, Q_VALUES, duals, 0.1, 0.02, reduction="none")[
            0
        ],
        expected,
    )


@pytest.mark.slow
def test_actions_that_are_ruled_out_add_nothing():
    duals = core.CategoricalMpoDuals.init(0.7, 0.4)
    more = [
        np.concatenate([x, np.full((T, B, 1), fill)], axis=-1)
        for x, fill in zip((LOGITS, TARGET_LOGITS), [-np.inf] * 2, strict=True)
    ]
    values = np.concatenate([Q_VALUES, np.full((T, B, 1), 9.0)], axis=-1)

    def loss(logits):
        return core.categorical_mpo_loss(logits, more[1], values, duals, 0.1, 0.02)[0]

    close(loss(more[0]), categorical_loss(LOGITS, duals)[0])
    gradient = jax.grad(loss)(jnp.float32(more[0]))
    close(
        gradient[..., :A],
        jax.grad(lambda logits: categorical_loss(logits, duals)[0])(jnp.float32(LOGITS)),
    )
    close(gradient[..., A], 0)


def test_learned_temperature_holds_the_improved_policy_at_its_bound():
    def loss(duals):
        value, statistics = core.categorical_mpo_loss(
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

    statistics = loss(descend(core.CategoricalMpoDuals.init(3.0, 1.0)))[1]
    close(statistics.kl_improved, statistics.epsilon, rtol=1e-2)
    assert statistics.alpha < 0.1  # it began at 1, and a KL of 0 needs no penalty


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (
            lambda: core.categorical_mpo_loss(
                LOGITS, TARGET_LOGITS[:1], Q_VALUES, core.CategoricalMpoDuals.init()
            ),
            "'target_logits'",
        ),
        (
            lambda: core.categorical_mpo_loss(
                LOGITS, LOGITS, LOGITS, core.CategoricalMpoDuals.init(), epsilon=np.ones(2)
            ),
            "'epsilon'",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, name):
    with pytest.raises(ShapeError, match=name):
        call()
