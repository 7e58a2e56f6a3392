"""What a function that JAX traces consists of."""

import jax


def equations(function, *arguments):
    """Yield all equations of a function, also within loops and other inner programs."""
    yield from _within(jax.make_jaxpr(function)(*arguments).jaxpr)


def _within(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params):
            if hasattr(value, "jaxpr") or hasattr(value, "eqns"):  # an inner program
                yield from _within(getattr(value, "jaxpr", value))
