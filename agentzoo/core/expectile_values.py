"""Values as expectiles of their distribution: ER-DQN.

An expectile generalises the mean as a quantile generalises the median. The expectile of level
`tau` is the `e` that solves `tau * E[(Z - e)^+] = (1 - tau) * E[(e - Z)^+]`, so the expectile of
level 0.5 is the mean. Expectiles are not samples. Before the Bellman operator can be applied, a
distribution that has these expectiles must be found ("imputed").

`dist` `[..., K]` holds expectiles at the levels `tau`, which are `[K]`, shared by all steps, or
`[..., K]`. Expectiles come before actions: `dist_q` is `[..., K, A]`. Every operator works on a
single transition and on any leading axes that its arguments share. An action index out of range
raises no error, but its loss is NaN.

For targets over n steps, pass the n-step `r_t` and `discount_t`, which `agentzoo.core.n_step`
computes from sequences.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import (
    actions,
    floats,
    operator,
    pick,
    same_shape,
    stop_gradient_if,
    values_of,
)
from agentzoo.core._recurrence import wide_floats
from agentzoo.core._support import bellman, exact_shape, shared_shape, supports

__all__ = [
    "expectile_q_learning",
    "expectile_regression_loss",
    "expectile_td_learning",
    "impute_expectiles",
]


def _regression_loss(src: jax.Array, tau: jax.Array, target: jax.Array) -> jax.Array:
    """Return the regression loss `[...]` of `[..., K]` at levels `[..., K]` towards `[..., M]`."""
    delta = target[..., None, :] - src[..., :, None]  # [..., K, M]
    loss = jnp.abs(tau[..., None] - (delta < 0)) * jnp.square(delta)
    return jnp.sum(jnp.mean(loss, axis=-1), axis=-1)


@operator(static=("stop_target_gradients",))
def expectile_regression_loss(
    dist_src: ArrayLike,
    tau_src: ArrayLike,
    dist_target: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Return the expectile regression loss of expectiles towards samples.

    The loss is `sum_i mean_j |tau_src[i] - (delta < 0)| * delta^2`, where
    `delta = dist_target[j] - dist_src[i]`. See "Statistics and Samples in Distributional
    Reinforcement Learning" by Rowland et al. (2019, https://arxiv.org/abs/1902.08102), section 3.

    Args:
      dist_src: `[..., K]` expectiles to learn.
      tau_src: `[K]` or `[..., K]` levels of the expectiles.
      dist_target: `[..., M]` equally likely samples (not expectiles) of the target distribution.
      stop_target_gradients: whether to treat the target as a constant.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    name = "expectile_regression_loss"
    leading = shared_shape(name, "K", "K", dist_src=dist_src, dist_target=dist_target)
    dist_src, tau_src, dist_target = floats(
        dist_src=dist_src, tau_src=tau_src, dist_target=dist_target
    )
    (tau_src,) = supports(name, leading, dist_src.shape[-1], tau_src=tau_src)
    return _regression_loss(dist_src, tau_src, stop_gradient_if(stop_target_gradients, dist_target))


@operator(static=("num_iterations",))
def impute_expectiles(dist: ArrayLike, tau: ArrayLike, num_iterations: int = 8) -> jax.Array:
    """Return samples of a distribution that has the given expectiles, or comes closest to them.

    There are as many samples as expectiles, and they are equally likely. They start at the
    expectiles. A few damped Gauss-Newton steps then minimise the squared norm of the gradient of
    the expectile regression loss, `mean_j |tau[i] - (z[j] < dist[i])| * (z[j] - dist[i])`. A few
    steps suffice because this gradient is piecewise linear in the samples. See "Statistics and
    Samples in Distributional Reinforcement Learning" by Rowland et al. (2019,
    https://arxiv.org/abs/1902.08102), section 3.

    Args:
      dist: `[..., K]` expectiles. They are sorted first, like the levels, because a network may
        return them out of order.
      tau: `[K]` or `[..., K]` levels of the expectiles.
      num_iterations: the number of Gauss-Newton steps.

    Returns:
      `[..., K]` samples.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    leading = shared_shape("impute_expectiles", "K", "K", dist=dist)
    size = jnp.shape(dist)[-1]
    dtype, (dist, tau) = wide_floats(dist=dist, tau=tau)
    (tau,) = supports("impute_expectiles", leading, size, tau=tau)
    dist, tau = jnp.sort(dist), jnp.sort(tau)
    # The expectiles are centred and scaled to [-1, 1], so that one damping suits values of any
    # size.
    centre = jnp.mean(dist, axis=-1, keepdims=True)
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(dist - centre), axis=-1, keepdims=True))
    scale = jnp.where(scale > 0, scale, 1)
    expectiles = (dist - centre) / scale
    damping = jnp.broadcast_to(1e-3 * jnp.eye(size, dtype=dist.dtype), (*leading, size, size))

    def step(samples: jax.Array, _) -> tuple[jax.Array, None]:
        delta = samples[..., None, :] - expectiles[..., :, None]  # [..., K, K]
        slope = jnp.abs(tau[..., None] - (delta < 0)) / size
        gradient = jnp.sum(slope * delta, axis=-1)  # [..., K]
        transposed = jnp.swapaxes(slope, -1, -2)
        # The damped Gauss-Newton step: slope^T (slope slope^T + damping)^-1 gradient.
        square = jnp.matmul(slope, transposed, precision="highest") + damping
        solution = jnp.linalg.solve(square, gradient[..., None])  # [..., K, 1]
        change = jnp.matmul(transposed, solution, precision="highest")[..., 0]
        return samples - change, None

    samples, _ = jax.lax.scan(step, expectiles, length=num_iterations)
    return (centre + scale * samples).astype(dtype)


@operator(static=("stop_target_gradients", "num_iterations"))
def expectile_td_learning(
    dist_v_tm1: ArrayLike,
    tau_v: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    dist_v_t: ArrayLike,
    stop_target_gradients: bool = True,
    num_iterations: int = 8,
) -> jax.Array:
    """Return the expectile regression loss of a state's expectiles towards their Bellman target.

    The target is `r_t + discount_t * z` for samples `z` that are imputed from `dist_v_t`. See
    "Statistics and Samples in Distributional Reinforcement Learning" by Rowland et al. (2019,
    https://arxiv.org/abs/1902.08102).

    Args:
      dist_v_tm1: `[..., K]` expectiles at the source.
      tau_v: `[K]` or `[..., K]` levels of all expectiles.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      dist_v_t: `[..., K]` expectiles at the destination.
      stop_target_gradients: whether to treat the target as a constant.
      num_iterations: see `impute_expectiles`.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    name = "expectile_td_learning"
    leading = values_of(name, dist_v_tm1=dist_v_tm1, dist_v_t=dist_v_t)
    same_shape(name, leading, r_t=r_t, discount_t=discount_t)
    dist_v_tm1, tau_v, r_t, discount_t, dist_v_t = floats(
        dist_v_tm1=dist_v_tm1, tau_v=tau_v, r_t=r_t, discount_t=discount_t, dist_v_t=dist_v_t
    )
    (tau_v,) = supports(name, leading, dist_v_tm1.shape[-1], tau_v=tau_v)
    target = bellman(r_t, discount_t, impute_expectiles(dist_v_t, tau_v, num_iterations))
    return _regression_loss(dist_v_tm1, tau_v, stop_gradient_if(stop_target_gradients, target))


@operator(static=("stop_target_gradients", "num_iterations"))
def expectile_q_learning(
    dist_q_tm1: ArrayLike,
    tau_q: ArrayLike,
    a_tm1: ArrayLike,
    r_t: ArrayLike,
    discount_t: ArrayLike,
    q_t_selector: ArrayLike,
    dist_q_t: ArrayLike,
    stop_target_gradients: bool = True,
    num_iterations: int = 8,
) -> jax.Array:
    """Return the loss of ER-DQN, `expectile_td_learning` for the values of actions.

    At the destination it takes the action that `q_t_selector` selects. See "Statistics and Samples
    in Distributional Reinforcement Learning" by Rowland et al. (2019,
    https://arxiv.org/abs/1902.08102).

    Args:
      dist_q_tm1: `[..., K, A]` expectiles at the source.
      tau_q: `[K]` or `[..., K]` levels of all expectiles.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts: gamma, and 0 at a termination.
      q_t_selector: `[..., A]` action values that select the action at the destination. The paper
        uses the means, which are the expectiles of level 0.5.
      dist_q_t: `[..., K, A]` expectiles at the destination.
      stop_target_gradients: whether to treat the target as a constant.
      num_iterations: see `impute_expectiles`.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the actions are not integers.
    """
    name = "expectile_q_learning"
    by_action = shared_shape(name, "K, A", "K", dist_q_tm1=dist_q_tm1)
    leading = by_action[:-1]
    exact_shape(name, jnp.shape(dist_q_tm1), dist_q_t=dist_q_t)
    exact_shape(name, by_action, q_t_selector=q_t_selector)
    actions(name, leading, a_tm1=a_tm1)
    same_shape(name, leading, r_t=r_t, discount_t=discount_t)
    dist_q_tm1, tau_q, r_t, discount_t, dist_q_t = floats(
        dist_q_tm1=dist_q_tm1, tau_q=tau_q, r_t=r_t, discount_t=discount_t, dist_q_t=dist_q_t
    )
    (tau_q,) = supports(name, leading, dist_q_tm1.shape[-2], tau_q=tau_q)
    # An index [..., 1] picks the action of all K expectiles: [..., K, A] becomes [..., K].
    a_t = jnp.argmax(jnp.asarray(q_t_selector), axis=-1)
    dist_t = pick(dist_q_t, a_t[..., None])
    target = bellman(r_t, discount_t, impute_expectiles(dist_t, tau_q, num_iterations))
    dist_tm1 = pick(dist_q_tm1, jnp.asarray(a_tm1)[..., None])
    return _regression_loss(dist_tm1, tau_q, stop_gradient_if(stop_target_gradients, target))
