"""Values as categorical distributions: the losses of C51, and regression by classification.

A distribution assigns probabilities, usually given as logits `[..., K]`, to ascending atoms. Atoms
are `[K]`, shared by all steps, or have the leading axes of the steps too. Actions come before
atoms: `q_logits_tm1` is `[..., A, K]`. Every operator works on a single transition and on any
leading axes that its arguments share. Each loss is a cross-entropy `[...]`, so it does not fall to
0. An action index out of range raises no error, but its loss is NaN. A logit of minus infinity
excludes an atom.

For targets over n steps, pass the n-step `r_t` and `discount_t`, which `agentzoo.core.n_step`
computes from sequences.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import actions, floats, operator, pick, same_shape, stop_gradient_if
from agentzoo.core._support import (
    bellman,
    exact_shape,
    expectation,
    shared_shape,
    supports,
    two_hot,
)
from agentzoo.core.divergences import categorical_cross_entropy
from agentzoo.core.transforms import transform_to_2hot, transform_to_hl_gauss

__all__ = [
    "categorical_double_q_learning",
    "categorical_l2_project",
    "categorical_q_learning",
    "categorical_td_learning",
    "hl_gauss_loss",
    "two_hot_loss",
]


def _project(z_p: jax.Array, probs: jax.Array, z_q: jax.Array) -> jax.Array:
    """Project probabilities `[..., P]` of atoms `z_p` `[..., P]` onto atoms `z_q` `[..., Q]`."""
    shares = two_hot(z_p, z_q[..., None, :])  # [..., P, Q]
    return jnp.sum(probs[..., None] * shares, axis=-2)


def _of_action(logits: jax.Array, action: ArrayLike) -> jax.Array:
    """Return `logits[..., action, :]`, or NaN where an index is out of range."""
    # `pick` takes from the last axis: [..., A, K] becomes [..., K, A], and the result is [..., K].
    return pick(jnp.swapaxes(logits, -1, -2), jnp.asarray(action)[..., None])


@operator
def categorical_l2_project(z_p: ArrayLike, probs: ArrayLike, z_q: ArrayLike) -> jax.Array:
    """Project a distribution onto other atoms.

    Each atom of `z_p` divides its probability between the two nearest atoms of `z_q`. The result is
    the distribution over `z_q` with the smallest Cramer (L2) distance. It has the same mean, except
    for atoms beyond the range of `z_q`. See "A Distributional Perspective on Reinforcement
    Learning" by Bellemare et al. (2017, https://arxiv.org/abs/1707.06887), equation 7.

    Args:
      z_p: `[P]` or `[..., P]` atoms of the distribution, in any order.
      probs: `[..., P]` probabilities of the atoms.
      z_q: `[Q]` or `[..., Q]` ascending atoms to project onto.

    Returns:
      `[..., Q]` probabilities.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    name = "categorical_l2_project"
    leading = shared_shape(name, "P", "P", probs=probs)
    z_p, probs, z_q = floats(z_p=z_p, probs=probs, z_q=z_q)
    (z_p,) = supports(name, leading, probs.shape[-1], z_p=z_p)
    (z_q,) = supports(name, leading, z_q.shape[-1] if z_q.ndim else 0, z_q=z_q)
    return _project(z_p, probs, z_q)


@operator(static=("stop_target_gradients",))
def categorical_td_learning(
    v_atoms_tm1: ArrayLike,
    v_logits_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    v_atoms_t: ArrayLike,
    v_logits_t: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return the cross-entropy between the Bellman target and a state's value distribution.

    The target is the distribution of `r_t + discount_t * Z_t`, projected onto the atoms at the
    source. See "A Distributional Perspective on Reinforcement Learning" by Bellemare et al. (2017,
    https://arxiv.org/abs/1707.06887).

    Args:
      v_atoms_tm1: `[K]` or `[..., K]` atoms at the source.
      v_logits_tm1: `[..., K]` logits at the source.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      v_atoms_t: `[L]` or `[..., L]` atoms at the destination.
      v_logits_t: `[..., L]` logits at the destination.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    name = "categorical_td_learning"
    leading = shared_shape(name, "K", "K", v_logits_tm1=v_logits_tm1, v_logits_t=v_logits_t)
    same_shape(name, leading, r_t=r_t, discount_t=discount_t)
    v_atoms_tm1, v_logits_tm1, r_t, discount_t, v_atoms_t, v_logits_t = floats(
        v_atoms_tm1=v_atoms_tm1,
        v_logits_tm1=v_logits_tm1,
        r_t=r_t,
        discount_t=discount_t,
        v_atoms_t=v_atoms_t,
        v_logits_t=v_logits_t,
    )
    (v_atoms_tm1,) = supports(name, leading, v_logits_tm1.shape[-1], v_atoms_tm1=v_atoms_tm1)
    (v_atoms_t,) = supports(name, leading, v_logits_t.shape[-1], v_atoms_t=v_atoms_t)
    target = _project(bellman(r_t, discount_t, v_atoms_t), jax.nn.softmax(v_logits_t), v_atoms_tm1)
    return categorical_cross_entropy(stop_gradient_if(stop_target_gradients, target), v_logits_tm1)


def _q_learning(
    name,
    q_atoms_tm1,
    q_logits_tm1,
    a_tm1,
    r_t,
    discount_t,
    q_atoms_t,
    q_logits_t,
    q_t_selector,
    stop_target_gradients,
) -> jax.Array:
    """Return the loss of `categorical_q_learning` and of `categorical_double_q_learning`.

    If `q_t_selector` is None, the mean of the distribution at the destination selects the action.
    """
    by_action = shared_shape(name, "A, K", "K", q_logits_tm1=q_logits_tm1, q_logits_t=q_logits_t)
    leading = by_action[:-1]
    actions(name, leading, a_tm1=a_tm1)
    same_shape(name, leading, r_t=r_t, discount_t=discount_t)
    q_atoms_tm1, q_logits_tm1, r_t, discount_t, q_atoms_t, q_logits_t = floats(
        q_atoms_tm1=q_atoms_tm1,
        q_logits_tm1=q_logits_tm1,
        r_t=r_t,
        discount_t=discount_t,
        q_atoms_t=q_atoms_t,
        q_logits_t=q_logits_t,
    )
    (q_atoms_tm1,) = supports(name, leading, q_logits_tm1.shape[-1], q_atoms_tm1=q_atoms_tm1)
    (q_atoms_t,) = supports(name, leading, q_logits_t.shape[-1], q_atoms_t=q_atoms_t)
    probs_t = jax.nn.softmax(q_logits_t)
    if q_t_selector is None:
        q_t_selector = expectation(probs_t, q_atoms_t[..., None, :])
    exact_shape(name, by_action, q_t_selector=q_t_selector)
    probs_t = _of_action(probs_t, jnp.argmax(q_t_selector, axis=-1))
    target = _project(bellman(r_t, discount_t, q_atoms_t), probs_t, q_atoms_tm1)
    return categorical_cross_entropy(
        stop_gradient_if(stop_target_gradients, target), _of_action(q_logits_tm1, a_tm1)
    )


@operator(static=("stop_target_gradients",))
def categorical_q_learning(
    q_atoms_tm1: ArrayLike,
    q_logits_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_atoms_t: ArrayLike,
    q_logits_t: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return the loss of C51, `categorical_td_learning` for the values of actions.

    At the destination it takes the action with the largest mean. See "A Distributional Perspective
    on Reinforcement Learning" by Bellemare et al. (2017, https://arxiv.org/abs/1707.06887),
    algorithm 1.

    Args:
      q_atoms_tm1: `[K]` or `[..., K]` atoms at the source.
      q_logits_tm1: `[..., A, K]` logits at the source.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      q_atoms_t: `[L]` or `[..., L]` atoms at the destination.
      q_logits_t: `[..., A, L]` logits at the destination.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    name = "categorical_q_learning"
    return _q_learning(
        name,
        q_atoms_tm1,
        q_logits_tm1,
        a_tm1,
        r_t,
        discount_t,
        q_atoms_t,
        q_logits_t,
        None,
        stop_target_gradients,
    )


@operator(static=("stop_target_gradients",))
def categorical_double_q_learning(
    q_atoms_tm1: ArrayLike,
    q_logits_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_atoms_t: ArrayLike,
    q_logits_t: ArrayLike,
    q_t_selector: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return the loss of C51 with the action at the destination selected by `q_t_selector`.

    See "A Distributional Perspective on Reinforcement Learning" by Bellemare et al. (2017,
    https://arxiv.org/abs/1707.06887), and "Double Q-learning" by van Hasselt (2010,
    https://papers.nips.cc/paper/3964-double-q-learning).

    Args:
      q_atoms_tm1: `[K]` or `[..., K]` atoms at the source.
      q_logits_tm1: `[..., A, K]` logits at the source.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      q_atoms_t: `[L]` or `[..., L]` atoms at the destination.
      q_logits_t: `[..., A, L]` logits at the destination.
      q_t_selector: `[..., A]` action values that select the action at the destination.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    name = "categorical_double_q_learning"
    return _q_learning(
        name,
        q_atoms_tm1,
        q_logits_tm1,
        a_tm1,
        r_t,
        discount_t,
        q_atoms_t,
        q_logits_t,
        q_t_selector,
        stop_target_gradients,
    )


@operator
def two_hot_loss(
    logits: ArrayLike, targets: ArrayLike, min_value: ArrayLike, max_value: ArrayLike
) -> jax.Array:
    """Return the cross-entropy between the two-hot encoding of a target and a value distribution.

    The value of the distribution is `transform_from_2hot(softmax(logits), ...)`. If values span
    orders of magnitude, squash the targets first, for example by `signed_hyperbolic`, and apply the
    inverse to the value. See "Mastering Atari, Go, Chess and Shogi by Planning with a Learned
    Model" by Schrittwieser et al. (2020, https://arxiv.org/abs/1911.08265), appendix F.

    Args:
      logits: `[..., K]` logits of the atoms `linspace(min_value, max_value, K)`.
      targets: `[...]` target values, treated as constants. They are clipped to the range.
      min_value: the first atom.
      max_value: the last atom.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    return _value_loss("two_hot_loss", transform_to_2hot, logits, targets, min_value, max_value)


@operator
def hl_gauss_loss(
    logits: ArrayLike,
    targets: ArrayLike,
    min_value: ArrayLike,
    max_value: ArrayLike,
    sigma_ratio: ArrayLike = 0.75,
) -> jax.Array:
    """Return the cross-entropy between a Gaussian histogram of a target and a value distribution.

    The value of the distribution is `transform_from_hl_gauss(softmax(logits), ...)`. See "Stop
    Regressing: Training Value Functions via Classification for Scalable Deep RL" by Farebrother et
    al. (2024, https://arxiv.org/abs/2403.03950), section 3.1.

    Args:
      logits: `[..., K]` logits of K bins of equal width.
      targets: `[...]` target values, treated as constants. They are clipped to the range.
      min_value: the lower edge of the first bin.
      max_value: the upper edge of the last bin.
      sigma_ratio: standard deviation of the Gaussian in bin widths. The default is the choice of
        the paper.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    return _value_loss(
        "hl_gauss_loss",
        transform_to_hl_gauss,
        logits,
        targets,
        min_value,
        max_value,
        sigma_ratio=sigma_ratio,
    )


def _value_loss(
    name: str, encode: Callable, logits, targets, min_value, max_value, **options
) -> jax.Array:
    """Return the cross-entropy between the targets, encoded as probabilities, and the logits."""
    leading = shared_shape(name, "K", "K", logits=logits)
    same_shape(name, leading, targets=targets)
    logits, targets = floats(logits=logits, targets=targets)
    labels = encode(
        jnp.broadcast_to(targets, leading), min_value, max_value, logits.shape[-1], **options
    )
    return categorical_cross_entropy(jax.lax.stop_gradient(labels), logits)
