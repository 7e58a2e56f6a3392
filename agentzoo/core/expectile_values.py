"""Values as expectiles of their distribution: ER-DQN.

The expectile of level `tau` is to the mean what a quantile is to the median: the `e` at which `tau
* E[(Z - e)^+] = (1 - tau) * E[(e - Z)^+]`; that of level 0.5 is the mean. Expectiles are no
samples: a distribution that has them must be found, imputed, before the Bellman operator can be
applied.

`dist` `[..., K]` holds expectiles at the levels `tau`, which are `[K]`, shared by all steps, or
`[..., K]`. Expectiles come before actions: `dist_q` is `[..., K, A]`. Every operator works on a
single transition and on any leading axes that its arguments share. An action index out of range
raises nothing: its loss is NaN.

For targets over n steps pass the n-step `r_t` and `discount_t`, which `agentzoo.core.n_step`
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
    delta = target[..., None, :] - src[..., :, None]
    return jnp.sum(
        jnp.mean(jnp.abs(tau[..., None] - (delta < 0)) * jnp.square(delta), axis=-1), axis=-1
    )


@operator(static=("stop_target_gradients",))
def expectile_regression_loss(
    dist_src: ArrayLike,
    tau_src: ArrayLike,
    dist_target: ArrayLike,
    stop_target_gradients: bool = True,
) -> jax.Array:
    """Expectile regression: `sum_i mean_j |tau_src[i] - (delta < 0)| * delta^2` with `delta = dist_target[j] - dist_src[i]`.

    See "Statistics and Samples in Distributional Reinforcement Learning" by Rowland et al. (2019,
    https://arxiv.org/abs/1902.08102), section 3.

    Args:
      dist_src: `[..., K]` expectiles to learn.
      tau_src: `[K]` or `[..., K]` their levels.
      dist_target: `[..., M]` samples, equally likely, of the distribution to learn from; not
        expectiles.
      stop_target_gradients: whether the target counts as a constant.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if shapes do not fit together.
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
    """Samples of a distribution that has the given expectiles, or comes nearest to it.

    As many equally likely samples as there are expectiles are moved from the expectiles until the
    gradient of the expectile regression loss, `mean_j |tau[i] - (z[j] < dist[i])| * (z[j] -
    dist[i])`, is least in the square. See "Statistics and Samples in Distributional Reinforcement
    Learning" by Rowland et al. (2019, https://arxiv.org/abs/1902.08102), section 3. The gradient is
    piecewise linear in the samples, so a few damped Gauss-Newton steps suffice, and the whole stays
    one compiled program.

    Args:
      dist: `[..., K]` expectiles; those of a network that are out of order are put in it, as levels
        are.
      tau: `[K]` or `[..., K]` their levels.
      num_iterations: the number of Gauss-Newton steps.

    Returns:
      `[..., K]` samples.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    leading, size = shared_shape("impute_expectiles", "K", "K", dist=dist), jnp.shape(dist)[-1]
    dtype, (dist, tau) = wide_floats(dist=dist, tau=tau)
    (tau,) = supports("impute_expectiles", leading, size, tau=tau)
    dist, tau = jnp.sort(dist), jnp.sort(tau)
    # Centred and scaled to one: the damping below is then right for values of any size.
    centre = jnp.mean(dist, axis=-1, keepdims=True)
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(dist - centre), axis=-1, keepdims=True))
    scale = jnp.where(scale > 0, scale, 1)
    expectiles = (dist - centre) / scale
    damping = jnp.broadcast_to(1e-3 * jnp.eye(size, dtype=dist.dtype), (*leading, size, size))

    def step(samples: jax.Array, _) -> tuple[jax.Array, None]:
        delta = samples[..., None, :] - expectiles[..., :, None]
        slope = jnp.abs(tau[..., None] - (delta < 0)) / size
        gradient = jnp.sum(slope * delta, axis=-1)
        transposed = jnp.swapaxes(slope, -1, -2)
        square = jnp.matmul(slope, transposed, precision="highest") + damping
        change = jnp.matmul(
            transposed, jnp.linalg.solve(square, gradient[..., None]), precision="highest"
        )[..., 0]
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
    """Expectile regression of a state's expectiles towards `r_t + discount_t * z`, for samples `z` imputed from `dist_v_t`.

    See "Statistics and Samples in Distributional Reinforcement Learning" by Rowland et al. (2019,
    https://arxiv.org/abs/1902.08102).

    Args:
      dist_v_tm1: `[..., K]` expectiles at the source.
      tau_v: `[K]` or `[..., K]` levels of all expectiles.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts, gamma times 0 at a termination.
      dist_v_t: `[..., K]` expectiles at the destination.
      stop_target_gradients: whether the target counts as a constant.
      num_iterations: see `impute_expectiles`.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if shapes do not fit together.
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
    """ER-DQN's loss: as `expectile_td_learning`, for an action and the action that `q_t_selector` chooses at the destination.

    See "Statistics and Samples in Distributional Reinforcement Learning" by Rowland et al. (2019,
    https://arxiv.org/abs/1902.08102).

    Args:
      dist_q_tm1: `[..., K, A]` expectiles at the source.
      tau_q: `[K]` or `[..., K]` levels of all expectiles.
      a_tm1: `[...]` action indices.
      r_t: `[...]` rewards.
      discount_t: `[...]` discounts, gamma times 0 at a termination.
      q_t_selector: `[..., A]` action values that the action at the destination is chosen by: in the
        paper the means, which are the expectiles of level 0.5.
      dist_q_t: `[..., K, A]` expectiles at the destination.
      stop_target_gradients: whether the target counts as a constant.
      num_iterations: see `impute_expectiles`.

    Returns:
      `[...]` losses.

    Raises:
      ShapeError: if shapes do not fit together.
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
    dist_t = pick(dist_q_t, jnp.argmax(jnp.asarray(q_t_selector), axis=-1)[..., None])
    target = bellman(r_t, discount_t, impute_expectiles(dist_t, tau_q, num_iterations))
    dist_tm1 = pick(dist_q_tm1, jnp.asarray(a_tm1)[..., None])
    return _regression_loss(dist_tm1, tau_q, stop_gradient_if(stop_target_gradients, target))
