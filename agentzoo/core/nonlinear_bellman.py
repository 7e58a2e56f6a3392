"""Bellman targets for networks that predict transformed values, `tx.apply(value)`.

Returns are computed from the values themselves, `tx.apply_inv(prediction)`, and then transformed. A
`TxPair` is a transform and its inverse. Time is axis 0, as in `agentzoo.core.returns`: values are
`[T, ...]` and action values are `[T, ..., A]`. Pairs that encode a scalar as probabilities add or
remove a last axis of bins. See "General non-linear Bellman equations" by van Hasselt et al. (2019,
https://arxiv.org/abs/1907.03687).
"""

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core import transforms
from agentzoo.core._operator import (
    Arguments,
    actions,
    floats,
    operator,
    pick,
    same_shape,
    stop_gradient_if,
    values_of,
)
from agentzoo.core._support import expectation, two_hot
from agentzoo.core.returns import (
    general_off_policy_returns_from_action_values,
    lambda_returns,
    n_step_bootstrapped_returns,
)

__all__ = [
    "DISCOUNT_TRANSFORM_PAIR",
    "HYPERBOLIC_SIN_PAIR",
    "IDENTITY_PAIR",
    "SIGNED_HYPERBOLIC_PAIR",
    "SIGNED_LOGP1_PAIR",
    "TxPair",
    "compose_tx",
    "hl_gauss_pair",
    "muzero_pair",
    "transform_values",
    "transformed_general_off_policy_returns_from_action_values",
    "transformed_lambda_returns",
    "transformed_n_step_q_learning",
    "transformed_n_step_returns",
    "transformed_q_lambda",
    "transformed_retrace",
    "twohot_pair",
    "unbiased_transform_pair",
]


class TxPair(NamedTuple):
    """A transform and its inverse.

    Attributes:
      apply: the transform from values to the transformed space.
      apply_inv: the inverse transform.
    """

    apply: Callable[[ArrayLike], jax.Array]
    apply_inv: Callable[[ArrayLike], jax.Array]


IDENTITY_PAIR = TxPair(transforms.identity, transforms.identity)
SIGNED_LOGP1_PAIR = TxPair(transforms.signed_logp1, transforms.signed_expm1)
SIGNED_HYPERBOLIC_PAIR = TxPair(transforms.signed_hyperbolic, transforms.signed_parabolic)
HYPERBOLIC_SIN_PAIR = TxPair(transforms.hyperbolic_arcsin, transforms.hyperbolic_sin)


@jax.custom_jvp
def _discount_of(x: jax.Array) -> jax.Array:
    """Return the discount `1 - exp(-x)` of a transformed discount."""
    return -jnp.expm1(-x)


# JAX's own derivative is `expm1(-x) + 1`, which loses digits.
_discount_of.defjvps(lambda tangent, _, x: tangent * jnp.exp(-x))
# Transforms a discount in [0, 1) into -log(1 - discount), the logarithm of the horizon.
DISCOUNT_TRANSFORM_PAIR = TxPair(
    operator(lambda x: -jnp.log1p(-floats(x=x)[0])),
    operator(lambda x: _discount_of(floats(x=x)[0])),
)


def compose_tx(*tx_list: TxPair) -> TxPair:
    """Return a pair that applies the given pairs one after another.

    The inverse applies their inverses from the last to the first.

    Args:
      *tx_list: the pairs, in the order of their application. No pairs give the identity.

    Returns:
      The composed pair.
    """

    def apply(x: ArrayLike) -> jax.Array:
        y = jnp.asarray(x)
        for tx in tx_list:
            y = tx.apply(y)
        return y

    def apply_inv(x: ArrayLike) -> jax.Array:
        y = jnp.asarray(x)
        for tx in reversed(tx_list):
            y = tx.apply_inv(y)
        return y

    return TxPair(apply, apply_inv)


def twohot_pair(min_value: ArrayLike, max_value: ArrayLike, num_bins: int) -> TxPair:
    """Return `transform_to_2hot` and its inverse as a pair.

    The pair encodes `[...]` values as `[..., num_bins]` probabilities.

    Args:
      min_value: the first atom.
      max_value: the last atom.
      num_bins: the number of atoms.

    Returns:
      The pair.
    """
    return TxPair(
        lambda scalar: transforms.transform_to_2hot(scalar, min_value, max_value, num_bins),
        lambda probs: transforms.transform_from_2hot(probs, min_value, max_value, num_bins),
    )


def hl_gauss_pair(
    min_value: ArrayLike, max_value: ArrayLike, num_bins: int, sigma_ratio: ArrayLike = 0.75
) -> TxPair:
    """Return `transform_to_hl_gauss` and its inverse as a pair.

    The pair encodes `[...]` values as `[..., num_bins]` probabilities.

    Args:
      min_value: the lower edge of the first bin.
      max_value: the upper edge of the last bin.
      num_bins: the number of bins.
      sigma_ratio: standard deviation of the Gaussian in bin widths.

    Returns:
      The pair.
    """
    return TxPair(
        lambda scalar: transforms.transform_to_hl_gauss(
            scalar, min_value, max_value, num_bins, sigma_ratio
        ),
        lambda probs: transforms.transform_from_hl_gauss(probs, min_value, max_value, num_bins),
    )


def muzero_pair(min_value: ArrayLike, max_value: ArrayLike, num_bins: int, tx: TxPair) -> TxPair:
    """Return MuZero's encoding of values: a squashing transform followed by a two-hot encoding.

    The inverse takes the mean in the squashed space, so a distribution that is not two-hot gives
    less than its mean value. `unbiased_transform_pair` corrects this. See "Mastering Atari, Go,
    Chess and Shogi by Planning with a Learned Model" by Schrittwieser et al. (2020,
    https://arxiv.org/abs/1911.08265), appendix F.

    Args:
      min_value: the first atom, in the squashed space.
      max_value: the last atom, in the squashed space.
      num_bins: the number of atoms.
      tx: the squashing transform.

    Returns:
      The pair.
    """
    return compose_tx(tx, twohot_pair(min_value, max_value, num_bins))


def unbiased_transform_pair(
    min_value: ArrayLike, max_value: ArrayLike, num_bins: int, tx: TxPair
) -> TxPair:
    """Return a two-hot encoding whose atoms are evenly spaced in a squashed space.

    Unlike `muzero_pair`, the inverse takes the mean of the values themselves.

    Args:
      min_value: the first atom, in the squashed space.
      max_value: the last atom, in the squashed space.
      num_bins: the number of atoms.
      tx: the squashing transform, which must be increasing.

    Returns:
      The pair.
    """

    def encoded(x: ArrayLike, code: Callable) -> jax.Array:
        (x,) = floats(x=x)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        atoms = tx.apply_inv(jnp.linspace(min_value, max_value, num_bins, dtype=wide))
        return code(x.astype(wide), atoms).astype(x.dtype)

    return TxPair(
        operator(lambda scalar: encoded(scalar, two_hot)),
        operator(lambda probs: encoded(probs, expectation)),
    )


def transform_values(
    build_targets: Callable[Arguments, jax.Array], *value_argnums: int
) -> Callable[Concatenate[TxPair, Arguments], jax.Array]:
    """Turn a function that computes targets from values into one that works in a transformed space.

    Args:
      build_targets: a function that computes targets.
      *value_argnums: the positions of its arguments that are values. The new function takes them
        transformed.

    Returns:
      A function with the arguments of `build_targets` after a `TxPair`. It computes
      `tx.apply(build_targets(...))` with the values `tx.apply_inv(value)`.
    """
    build = cast(Callable[..., jax.Array], build_targets)
    signature = inspect.signature(build_targets)
    value_names = {list(signature.parameters)[i] for i in value_argnums}

    def transformed(tx_pair: TxPair, /, *args: Any, **kwargs: Any) -> jax.Array:
        by_place = [tx_pair.apply_inv(x) if i in value_argnums else x for i, x in enumerate(args)]
        by_name = {
            name: tx_pair.apply_inv(x) if name in value_names else x for name, x in kwargs.items()
        }
        return tx_pair.apply(build(*by_place, **by_name))

    transformed.__name__ = transformed.__qualname__ = f"transformed_{build_targets.__name__}"
    inverses = ", ".join(f"tx_pair.apply_inv({name})" for name in sorted(value_names))
    transformed.__doc__ = (
        f"Return `tx_pair.apply({build_targets.__name__}(...))`, computed from {inverses}.\n\n"
        f"The other arguments are described at `{build_targets.__name__}`; see there."
    )
    tx_parameter = inspect.Parameter(
        "tx_pair", inspect.Parameter.POSITIONAL_ONLY, annotation=TxPair
    )
    transformed.__signature__ = signature.replace(
        parameters=[tx_parameter, *signature.parameters.values()]
    )
    return transformed


transformed_lambda_returns = transform_values(lambda_returns, 2)
transformed_n_step_returns = transform_values(n_step_bootstrapped_returns, 2)
transformed_general_off_policy_returns_from_action_values = transform_values(
    general_off_policy_returns_from_action_values, 0
)


@operator(static=("stop_target_gradients", "tx_pair"))
def transformed_q_lambda(
    q_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_t: ArrayLike,
    lambda_: ArrayLike,
    stop_target_gradients: bool = True,
    tx_pair: TxPair = IDENTITY_PAIR,
) -> jax.Array:
    """Return the errors of Peng's or Watkins's Q(lambda) in a transformed space.

    The errors are `tx.apply(g_t) - q_tm1[a_tm1]`, where `g_t` are the `lambda_returns` of the
    values `tx.apply_inv(max_a q_t[a])`. See "General non-linear Bellman equations" by van Hasselt
    et al. (2019, https://arxiv.org/abs/1907.03687), and `q_lambda`.

    Args:
      q_tm1: `[T, ..., A]` transformed action values at the source.
      a_tm1: `[T, ...]` action indices.
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      q_t: `[T, ..., A]` transformed action values at the destination.
      lambda_: `[T, ...]` or scalar mixing parameters. For Watkins's Q(lambda) they are 0 where the
        action at the destination was not greedy; see `watkins_lambda`.
      stop_target_gradients: whether to treat the target as a constant.
      tx_pair: the transform, which must be increasing.

    Returns:
      `[T, ...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    leading = values_of("transformed_q_lambda", q_tm1=q_tm1, q_t=q_t)
    actions("transformed_q_lambda", leading, a_tm1=a_tm1)
    same_shape("transformed_q_lambda", leading, r_t=r_t, discount_t=discount_t, lambda_=lambda_)
    q_tm1, r_t, discount_t, q_t, lambda_ = floats(
        q_tm1=q_tm1, r_t=r_t, discount_t=discount_t, q_t=q_t, lambda_=lambda_
    )
    target_tm1 = transformed_lambda_returns(
        tx_pair, r_t, discount_t, jnp.max(q_t, axis=-1), lambda_, False
    )
    return stop_gradient_if(stop_target_gradients, target_tm1) - pick(q_tm1, a_tm1)


@operator(static=("n", "stop_target_gradients", "tx_pair"))
def transformed_n_step_q_learning(
    q_tm1: ArrayLike,
    a_tm1: ArrayLike,
    target_q_t: ArrayLike,
    a_t: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    n: int,
    stop_target_gradients: bool = True,
    tx_pair: TxPair = IDENTITY_PAIR,
) -> jax.Array:
    """Return the errors of n-step Q-learning in a transformed space.

    The errors are `tx.apply(g_t) - q_tm1[a_tm1]`, where `g_t` are the `n_step_bootstrapped_returns`
    of the values `tx.apply_inv(target_q_t[a_t])`. If the online network selects `a_t`, this is
    double Q-learning. See "Recurrent Experience Replay in Distributed Reinforcement Learning" by
    Kapturowski et al. (2019, https://openreview.net/forum?id=r1lyTjAqYX), section 2.3.

    Args:
      q_tm1: `[T, ..., A]` transformed action values at the source.
      a_tm1: `[T, ...]` action indices.
      target_q_t: `[T, ..., A]` transformed action values of the target network at the destination.
      a_t: `[T, ...]` indices of the action whose value the target bootstraps from.
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      n: the number of steps, a Python integer of at least 1.
      stop_target_gradients: whether to treat the target as a constant.
      tx_pair: the transform.

    Returns:
      `[T, ...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
      ValueError: if `n` is less than 1.
    """
    leading = values_of("transformed_n_step_q_learning", q_tm1=q_tm1, target_q_t=target_q_t)
    actions("transformed_n_step_q_learning", leading, a_tm1=a_tm1, a_t=a_t)
    same_shape("transformed_n_step_q_learning", leading, r_t=r_t, discount_t=discount_t)
    q_tm1, target_q_t, r_t, discount_t = floats(
        q_tm1=q_tm1, target_q_t=target_q_t, r_t=r_t, discount_t=discount_t
    )
    v_t = pick(target_q_t, a_t)
    target_tm1 = transformed_n_step_returns(
        tx_pair, r_t, discount_t, v_t, n, stop_target_gradients=False
    )
    return stop_gradient_if(stop_target_gradients, target_tm1) - pick(q_tm1, a_tm1)


@operator(static=("stop_target_gradients", "tx_pair"))
def transformed_retrace(
    q_tm1: ArrayLike,
    q_t: ArrayLike,
    a_tm1: ArrayLike,
    a_t: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    pi_t: ArrayLike,
    mu_t: ArrayLike,
    lambda_: ArrayLike,
    eps: ArrayLike = 1e-8,
    stop_target_gradients: bool = True,
    tx_pair: TxPair = IDENTITY_PAIR,
) -> jax.Array:
    """Return Retrace errors in a transformed space.

    The trace coefficients are `lambda_ * min(1, pi_t[a_t] / (mu_t + eps))`. See "Safe and Efficient
    Off-Policy Reinforcement Learning" by Munos et al. (2016, https://arxiv.org/abs/1606.02647),
    "Recurrent Experience Replay in Distributed Reinforcement Learning" by Kapturowski et al. (2019,
    https://openreview.net/forum?id=r1lyTjAqYX), and `retrace`.

    Args:
      q_tm1: `[T, ..., A]` transformed action values at the source.
      q_t: `[T, ..., A]` transformed action values at the destination.
      a_tm1: `[T, ...]` action indices.
      a_t: `[T, ...]` indices of the action taken at the destination.
      r_t: `[T, ...]` rewards.
      discount_t: `[T, ...]` discounts: gamma, and 0 at a termination.
      pi_t: `[T, ..., A]` probabilities of the target policy at the destination.
      mu_t: `[T, ...]` probabilities with which the behaviour policy took `a_t`.
      lambda_: `[T, ...]` or scalar mixing parameters; 0 where an episode ends.
      eps: scalar added to `mu_t` to avoid a division by zero.
      stop_target_gradients: whether to treat the target as a constant.
      tx_pair: the transform.

    Returns:
      `[T, ...]` errors.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    leading = values_of("transformed_retrace", q_tm1=q_tm1, q_t=q_t, pi_t=pi_t)
    actions("transformed_retrace", leading, a_tm1=a_tm1, a_t=a_t)
    same_shape(
        "transformed_retrace", leading, r_t=r_t, discount_t=discount_t, mu_t=mu_t, lambda_=lambda_
    )
    q_tm1, q_t, r_t, discount_t, pi_t, mu_t, lambda_, eps = floats(
        q_tm1=q_tm1,
        q_t=q_t,
        r_t=r_t,
        discount_t=discount_t,
        pi_t=pi_t,
        mu_t=mu_t,
        lambda_=lambda_,
        eps=eps,
    )
    c_t = jnp.minimum(1, pick(pi_t, a_t) / (mu_t + eps)) * lambda_
    target_tm1 = transformed_general_off_policy_returns_from_action_values(
        tx_pair, q_t, a_t, r_t, discount_t, c_t, pi_t, False
    )
    return stop_gradient_if(stop_target_gradients, target_tm1) - pick(q_tm1, a_tm1)
