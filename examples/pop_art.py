"""PopArt while the scale of the targets grows by factors of ten.

The layer follows the targets without losing what it has learned. For comparison, a plain layer
learns the same targets with the same optimiser, whose step size fits only one scale.
"""

import jax
import jax.numpy as jnp
import optax

from agentzoo import core

STEPS, SCALES = 300, (1.0, 10.0, 100.0, 1_000.0, 10_000.0)

optimizer = optax.adam(3e-2)


def learn(layer, opt_state, features, targets, step_size):
    """Take one gradient step.

    First, PopArt updates its statistics and moves the parameters with them. The gradient is that of
    the moved parameters.

    Returns:
      The layer, the state of the optimiser, and the largest change of the outputs by the update of
      the statistics.
    """
    before = layer.apply(features).unnormalized
    layer = layer.update(targets, step_size=step_size)
    jump = jnp.abs(layer.apply(features).unnormalized - before).max()

    def loss(params):
        return jnp.mean(
            core.l2_loss(
                layer._replace(params=params).apply(features).normalized, layer.normalize(targets)
            )
        )

    updates, opt_state = optimizer.update(jax.grad(loss)(layer.params), opt_state)
    return layer._replace(params=optax.apply_updates(layer.params, updates)), opt_state, jump


def main(steps=STEPS, seed=0):
    layer_key, features_key, weights_key = jax.random.split(jax.random.key(seed), 3)
    features = jax.random.normal(features_key, (256, 8))
    function = features @ jax.random.normal(weights_key, (8,)) + 3.0
    errors = {}
    for name, step_size in [("PopArt", 1e-3), ("plain", None)]:
        layer = core.PopArt.init(layer_key, num_inputs=8)
        opt_state = optimizer.init(layer.params)

        @jax.jit
        def phase(layer, opt_state, targets, step_size=step_size):
            def body(carry, _):
                layer, opt_state, jump = learn(*carry, features, targets, step_size)
                return (layer, opt_state), jump

            return jax.lax.scan(body, (layer, opt_state), length=steps)

        for scale in SCALES:
            (layer, opt_state), jumps = phase(layer, opt_state, scale * function)
            error = jnp.sqrt(
                jnp.mean(jnp.square(layer.apply(features).unnormalized / scale - function))
            )
            errors[name, scale] = float(error)
            print(
                f"{name}: targets x {scale:<7g} error / scale {error:.0e}, "
                f"outputs moved by statistics {jumps.max() / scale:.0e}"
            )
    return errors


if __name__ == "__main__":
    main()
