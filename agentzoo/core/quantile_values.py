"""Values as quantiles of their distribution: QR-DQN, IQN and FQF.

`dist` `[..., N]` holds quantiles at the levels `tau`, which are `[N]`, shared by all steps, or
`[..., N]`. Quantiles come before actions: `dist_q` is `[..., N, A]`. Every operator works on a
single transition and on any leading axes that its arguments share. An action index out of range
raises no error, but its loss is NaN.

For targets over n steps, pass the n-step `r_t` and `discount_t`, which `agentzoo.core.n_step`
computes from sequences.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import actions, floats, operator, pick, same_shape, stop_gradient_if
from agentzoo.core._support import bellman, exact_shape, shared_shape, supports

__all__ = [
    "fqf_fraction_loss",
    "iqn_loss",
    "quantile_cvar",
    "quantile_expected_sarsa",
    "quantile_q_learning",
    "quantile_regression_loss",
]


def _regression_loss(
    src: jax.Array, tau: jax.Array, target: jax.Array, huber_param: ArrayLike, normalize: bool
) -> jax.Array:
    """Return the quantile regression loss of `[..., N]` at levels `[..., N]` towards `[..., M]`."""
    delta = target[..., None, :] - src[..., :, None]  # [..., N, M]
    kappa = jnp.asarray(huber_param, delta.dtype)
    slope = jnp.where(kappa > 0, kappa, 1)  # of the linear part; with kappa 0 the loss is |delta|
    size = jnp.abs(delta)
    error = jnp.where(size <= kappa, 0.5 * jnp.square(delta), slope * (size - 0.5 * kappa))
    error = error / slope if normalize else error
    return jnp.sum(jnp.mean(jnp.abs(tau[..., None] - (delta < 0)) * error, axis=-1), axis=-1)


@operator(static=("stop_target_gradients", "normalize"))
def quantile_regression_loss(
    dist_src: ArrayLike,
    tau_src: ArrayLike,
    dist_target: ArrayLike,
    huber_param: ArrayLike = 0.0,
    stop_target_gradients: bool = True,
    normalize: bool = False,
) -> jax.Array:
    """Return the quantile regression loss of quantiles towards samples.

    The loss is `sum_i mean_j |tau_src[i] - (delta < 0)| * huber(delta)`, where
    `delta = dist_target[j] - dist_src[i]`. With `huber_param = 0`, `huber` is the absolute value.
    See "Distributional Reinforcement Learning with Quantile Regression" by Dabney et al. (2018,
    https://arxiv.org/abs/1710.10044), equations 8 to 10.

    Args:
      dist_src: `[..., N]` quantiles to learn.
      tau_src: `[N]` or `[..., N]` levels of the quantiles.
      dist_target: `[..., M]` equally likely samples of the target distribution.
      huber_param: scalar, the error at which the Huber loss turns linear.
      stop_target_gradients: whether to treat the target as a constant.
      normalize: whether to divide the Huber loss by `huber_param`, as in equation 3 of "Implicit
        Quantile Networks for Distributional Reinforcement Learning". The loss then approaches the
        absolute value as the parameter goes to 0. Without it, a small parameter gives a small loss.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    name = "quantile_regression_loss"
    leading = shared_shape(name, "N", "N", dist_src=dist_src, dist_target=dist_target)
    exact_shape(name, (), huber_param=huber_param)
    dist_src, tau_src, dist_target = floats(
        dist_src=dist_src, tau_src=tau_src, dist_target=dist_target
    )
    (tau_src,) = supports(name, leading, dist_src.shape[-1], tau_src=tau_src)
    dist_target = stop_gradient_if(stop_target_gradients, dist_target)
    return _regression_loss(dist_src, tau_src, dist_target, huber_param, normalize)


def _q_learning(
    name,
    dist_q_tm1,
    tau_q_tm1,
    a_tm1,
    r_t,
    discount_t,
    dist_q_t_selector,
    dist_q_t,
    huber_param,
    stop_target_gradients,
    normalize,
) -> jax.Array:
    """Return the loss of `quantile_q_learning` and of `iqn_loss`."""
    leading = shared_shape(
        name,
        "N, A",
        "N",
        dist_q_tm1=dist_q_tm1,
        dist_q_t_selector=dist_q_t_selector,
        dist_q_t=dist_q_t,
    )[:-1]
    actions(name, leading, a_tm1=a_tm1)
    same_shape(name, leading, r_t=r_t, discount_t=discount_t)
    exact_shape(name, (), huber_param=huber_param)
    dist_q_tm1, tau_q_tm1, r_t, discount_t, dist_q_t = floats(
        dist_q_tm1=dist_q_tm1,
        tau_q_tm1=tau_q_tm1,
        r_t=r_t,
        discount_t=discount_t,
        dist_q_t=dist_q_t,
    )
    (tau_q_tm1,) = supports(name, leading, dist_q_tm1.shape[-2], tau_q_tm1=tau_q_tm1)
    q_t = jnp.mean(jnp.asarray(dist_q_t_selector), axis=-2)  # [..., A]
    dist_t = _of_action(dist_q_t, jnp.argmax(q_t, axis=-1))
    target = stop_gradient_if(stop_target_gradients, bellman(r_t, discount_t, dist_t))
    dist_tm1 = _of_action(dist_q_tm1, a_tm1)
    return _regression_loss(dist_tm1, tau_q_tm1, target, huber_param, normalize)


def _of_action(dist_q: jax.Array, action: ArrayLike) -> jax.Array:
    """Return `dist_q[..., :, action]`, or NaN where an index is out of range."""
    # An index [..., 1] picks the action of all N quantiles: [..., N, A] becomes [..., N].
    return pick(dist_q, jnp.asarray(action)[..., None])


@operator(static=("stop_target_gradients", "normalize"))
def quantile_q_learning(
    dist_q_tm1: ArrayLike,
    tau_q_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    dist_q_t_selector: ArrayLike,
    dist_q_t: ArrayLike,
    huber_param: ArrayLike = 0.0,
    stop_target_gradients: bool = True,
    normalize: bool = False,
) -> jax.Array:
    """Return the loss of QR-DQN, quantile regression of action values to the Bellman target.

    The target is `r_t + discount_t * dist_q_t[:, a_t]`, where the action `a_t` has the largest mean
    of `dist_q_t_selector`. See "Distributional Reinforcement Learning with Quantile Regression" by
    Dabney et al. (2018, https://arxiv.org/abs/1710.10044), algorithm 1.

    Args:
      dist_q_tm1: `[..., N, A]` quantiles at the source.
      tau_q_tm1: `[N]` or `[..., N]` levels of the quantiles at the source.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      dist_q_t_selector: `[..., K, A]` quantiles at the destination that select the action. To
        select by other values `[..., A]`, such as a CVaR, pass `values[..., None, :]`.
      dist_q_t: `[..., M, A]` quantiles at the destination that evaluate the selected action.
      huber_param: scalar, the error at which the Huber loss turns linear. With 0 the loss is plain
        quantile regression.
      stop_target_gradients: whether to treat the target as a constant.
      normalize: whether to divide the Huber loss by `huber_param`; see `quantile_regression_loss`.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    return _q_learning(
        "quantile_q_learning",
        dist_q_tm1,
        tau_q_tm1,
        a_tm1,
        r_t,
        discount_t,
        dist_q_t_selector,
        dist_q_t,
        huber_param,
        stop_target_gradients,
        normalize,
    )


@operator(static=("stop_target_gradients",))
def iqn_loss(
    dist_q_tm1: ArrayLike,
    tau_q_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    dist_q_t_selector: ArrayLike,
    dist_q_t: ArrayLike,
    huber_param: ArrayLike = 1.0,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return the loss of implicit quantile networks (IQN).

    It is `quantile_q_learning` at sampled levels, with the Huber loss divided by `huber_param`. The
    three sets of quantiles may differ in size. For a risk-averse or risk-seeking policy, sample the
    levels of `dist_q_t_selector` from a distorted distribution (section 4). With the midpoints of
    proposed fractions as levels, this is also FQF's loss of the quantiles. See "Implicit Quantile
    Networks for Distributional Reinforcement Learning" by Dabney et al. (2018,
    https://arxiv.org/abs/1806.06923), equation 3.

    Args:
      dist_q_tm1: `[..., N, A]` quantiles at the source, at levels drawn from U(0, 1).
      tau_q_tm1: `[N]` or `[..., N]` these levels, treated as constants.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      dist_q_t_selector: `[..., K, A]` quantiles at the destination that select the action.
      dist_q_t: `[..., M, A]` quantiles at the destination, at other levels drawn from U(0, 1).
      huber_param: scalar, the error at which the Huber loss turns linear.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    return _q_learning(
        "iqn_loss",
        dist_q_tm1,
        jax.lax.stop_gradient(tau_q_tm1),
        a_tm1,
        r_t,
        discount_t,
        dist_q_t_selector,
        dist_q_t,
        huber_param,
        stop_target_gradients,
        normalize=True,
    )


@operator(static=("stop_target_gradients", "normalize"))
def quantile_expected_sarsa(
    dist_q_tm1: ArrayLike,
    tau_q_tm1: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    dist_q_t: ArrayLike,
    probs_a_t: ArrayLike,
    huber_param: ArrayLike = 0.0,
    stop_target_gradients: bool = True,
    normalize: bool = False,
) -> jax.Array:
    """Return the quantile regression loss towards all actions at the destination.

    The loss is `sum_a probs_a_t[a] * loss(r_t + discount_t * dist_q_t[:, a])`, which is the loss
    towards the mixture of the distributions of the actions. See "Distributional Reinforcement
    Learning with Quantile Regression" by Dabney et al. (2018, https://arxiv.org/abs/1710.10044),
    and "A Theoretical and Empirical Analysis of Expected Sarsa" by van Seijen et al. (2009).

    Args:
      dist_q_tm1: `[..., N, A]` quantiles at the source.
      tau_q_tm1: `[N]` or `[..., N]` levels of the quantiles at the source.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      dist_q_t: `[..., M, A]` quantiles at the destination.
      probs_a_t: `[..., A]` probabilities of the actions at the destination.
      huber_param: scalar, the error at which the Huber loss turns linear.
      stop_target_gradients: whether to treat the target, including `probs_a_t`, as a constant.
      normalize: whether to divide the Huber loss by `huber_param`; see `quantile_regression_loss`.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    name = "quantile_expected_sarsa"
    by_action = shared_shape(name, "N, A", "N", dist_q_tm1=dist_q_tm1, dist_q_t=dist_q_t)
    leading = by_action[:-1]
    exact_shape(name, by_action, probs_a_t=probs_a_t)
    actions(name, leading, a_tm1=a_tm1)
    same_shape(name, leading, r_t=r_t, discount_t=discount_t)
    exact_shape(name, (), huber_param=huber_param)
    dist_q_tm1, tau_q_tm1, r_t, discount_t, dist_q_t, probs_a_t = floats(
        dist_q_tm1=dist_q_tm1,
        tau_q_tm1=tau_q_tm1,
        r_t=r_t,
        discount_t=discount_t,
        dist_q_t=dist_q_t,
        probs_a_t=probs_a_t,
    )
    (tau_q_tm1,) = supports(name, leading, dist_q_tm1.shape[-2], tau_q_tm1=tau_q_tm1)
    r_t, discount_t = (jnp.broadcast_to(x, leading)[..., None] for x in (r_t, discount_t))
    targets = bellman(r_t, discount_t, jnp.swapaxes(dist_q_t, -1, -2))  # [..., A, M]
    targets, probs_a_t = (stop_gradient_if(stop_target_gradients, x) for x in (targets, probs_a_t))
    src = _of_action(dist_q_tm1, a_tm1)[..., None, :]  # [..., 1, N], the same for all targets
    losses = _regression_loss(src, tau_q_tm1[..., None, :], targets, huber_param, normalize)
    return jnp.sum(probs_a_t * losses, axis=-1)


@operator
def fqf_fraction_loss(
    tau: ArrayLike, dist_at_tau: ArrayLike, dist_at_midpoints: ArrayLike
) -> jax.Array:
    """Return the loss of FQF's fraction proposals.

    Its gradient in each `tau[i]` is that of the 1-Wasserstein distance to the true quantile
    function `F`: `2 F(tau[i]) - F(mid[i]) - F(mid[i - 1])` with
    `mid[i] = (tau[i] + tau[i + 1]) / 2`. The value of the loss has no meaning. Learn the quantiles
    themselves with `iqn_loss` at the midpoints. See "Fully Parameterized Quantile Function for
    Distributional Reinforcement Learning" by Yang et al. (2019, https://arxiv.org/abs/1911.02140),
    proposition 1.

    Args:
      tau: `[..., N + 1]` ascending fractions from 0 to 1, such as cumulative probabilities.
      dist_at_tau: `[..., N - 1]` quantiles at `tau[1:-1]`, treated as constants.
      dist_at_midpoints: `[..., N]` quantiles at the midpoints, treated as constants.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    name = "fqf_fraction_loss"
    leading = shared_shape(
        name, "N", "N", tau=tau, dist_at_tau=dist_at_tau, dist_at_midpoints=dist_at_midpoints
    )
    size = jnp.shape(tau)[-1]
    exact_shape(name, (*leading, size - 2), dist_at_tau=dist_at_tau)
    exact_shape(name, (*leading, size - 1), dist_at_midpoints=dist_at_midpoints)
    tau, at_tau, at_midpoints = floats(
        tau=tau, dist_at_tau=dist_at_tau, dist_at_midpoints=dist_at_midpoints
    )
    # [..., N - 1], one for each inner fraction, which lies between midpoints i - 1 and i.
    slope = 2 * at_tau - at_midpoints[..., :-1] - at_midpoints[..., 1:]
    return jnp.sum(jax.lax.stop_gradient(slope) * tau[..., 1:-1], axis=-1)


@operator
def quantile_cvar(dist_q: ArrayLike, alpha: ArrayLike, probs: ArrayLike | None = None) -> jax.Array:
    """Return the conditional value at risk of each action: the mean of its worst outcomes.

    The worst outcomes are the lowest fraction `alpha` of the distribution. With `alpha = 1` the
    result is the mean, and with `alpha = 0` it is the worst case. The result is exact for the
    distribution that the quantiles describe, also if `alpha` falls within a quantile and if the
    quantiles are not in order. See "Conditional value-at-risk for general loss distributions" by
    Rockafellar and Uryasev (2002), and the risk measures in section 4 of "Implicit Quantile
    Networks for Distributional Reinforcement Learning" by Dabney et al. (2018,
    https://arxiv.org/abs/1806.06923).

    Args:
      dist_q: `[..., N, A]` quantiles.
      alpha: `[...]` or scalar fractions in [0, 1]. A scalar of 1 skips the sorting.
      probs: `[N]` or `[..., N]` probabilities of the quantiles, which sum to 1, such as the
        differences of FQF's fractions. All quantiles are equally likely if None.

    Returns:
      `[..., A]` values.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    name = "quantile_cvar"
    leading = shared_shape(name, "N, A", "N", dist_q=dist_q)[:-1]
    size = jnp.shape(dist_q)[-2]
    same_shape(name, leading, alpha=alpha)
    equally_likely = probs is None
    probs = jnp.full(size, 1 / size) if equally_likely else probs
    dist_q, alpha, probs = floats(dist_q=dist_q, alpha=alpha, probs=probs)
    (probs,) = supports(name, leading, size, probs=probs)
    probs = jnp.broadcast_to(probs[..., None], dist_q.shape)  # [..., N, A]

    def mean() -> jax.Array:
        if equally_likely:
            return jnp.mean(dist_q, axis=-2)
        return jnp.sum(probs * dist_q, axis=-2) / jnp.sum(probs, axis=-2)

    def mean_of_worst() -> jax.Array:
        order = jnp.argsort(dist_q, axis=-2)
        ascending = jnp.take_along_axis(dist_q, order, axis=-2)
        weight = jnp.take_along_axis(probs, order, axis=-2)
        # The smallest positive number instead of 0 gives the limit, which is the worst case.
        fraction = jnp.maximum(jnp.broadcast_to(alpha, leading), jnp.finfo(alpha.dtype).tiny)
        # How much of each quantile lies within the worst `alpha`: `alpha` minus the probability
        # of all lower quantiles, between 0 and the probability of the quantile itself.
        below = jnp.cumsum(weight, axis=-2) - weight
        share = jnp.clip(fraction[..., None, None] - below, 0, weight)
        return jnp.sum(share * ascending, axis=-2) / jnp.sum(share, axis=-2)

    if alpha.ndim:
        return jnp.where(alpha[..., None] >= 1, mean(), mean_of_worst())
    return jax.lax.cond(alpha >= 1, mean, mean_of_worst)
