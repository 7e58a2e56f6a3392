"""Maximum a posteriori policy optimisation: MPO from sampled actions, V-MPO from advantages, and their Lagrange multipliers.

MPO improves a policy in two steps. The E-step weighs actions of the *target* policy by `exp(q /
temperature)`; the M-step fits the *online* policy to them, held near the target policy by KL
constraints. Each constraint has a dual variable, `alpha`, and a bound, `epsilon`, and is learned by
gradient descent beside the policy::

    loss = -sum_a weights[a] * log pi(a)                                  policy
         + temperature * (epsilon + log mean_a exp(q[a] / temperature))   temperature, which keeps the E-step within its bound
         + stop(alpha) * KL(target || online)                             KL penalty
         + alpha * (epsilon - stop(KL(target || online)))                 alpha, which rises while the KL exceeds its bound

`gaussian_mpo_loss` and `categorical_mpo_loss` are the whole of it from the parameters of both
policies; begin there. The rest are the parts, for policies of another kind. See "Maximum a
Posteriori Policy Optimisation" by Abdolmaleki et al. (2018, https://arxiv.org/abs/1806.06920),
"Relative Entropy Regularized Policy Iteration" (2018, https://arxiv.org/abs/1812.02256), and
"V-MPO: On-Policy Maximum a Posteriori Policy Optimization for Discrete and Continuous Control" by
Song et al. (2020, https://arxiv.org/abs/1909.12238).

`E*` stands for any axes of the steps, `[]`, `[B]`, `[T, B]`...; samples of an action have one more,
S, the first unless `sample_axis` says otherwise.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import (
    Reduction,
    ShapeError,
    floats,
    operator,
    python_values,
    reduce_loss,
    same_shape,
    stop_gradient_if,
    values_of,
)
from agentzoo.core._support import below_largest
from agentzoo.core.distributions import categorical_cross_entropy, categorical_kl_divergence

__all__ = [
    "CategoricalMpoDuals",
    "CategoricalMpoStatistics",
    "GaussianMpoDuals",
    "GaussianMpoStatistics",
    "LagrangePenalty",
    "MpoOutputs",
    "categorical_mpo_loss",
    "clip_projection",
    "compute_parametric_kl_penalty_and_dual_loss",
    "gaussian_mpo_loss",
    "get_top_k_weights",
    "kl_constraint_loss",
    "mpo_compute_weights_and_temperature_loss",
    "mpo_loss",
    "softplus_projection",
    "vmpo_compute_weights_and_temperature_loss",
    "vmpo_loss",
]

Projection = Callable[[jax.Array], jax.Array]


class LagrangePenalty(NamedTuple):
    """A constraint's dual variable and its bound.

    Attributes:
      alpha: the dual variable before its projection; a scalar or, for a KL, one for each dimension
        or element of it.
      epsilon: the bound, of like shape.
      per_dimension: whether the KL has a last axis of dimensions, each of which is constrained on
        its own.
    """

    alpha: ArrayLike
    epsilon: ArrayLike
    per_dimension: bool = False


class MpoOutputs(NamedTuple):
    """The parts of `mpo_loss` and `vmpo_loss`, before their weights.

    Attributes:
      temperature_loss: the temperature's dual loss; E*, of V-MPO a scalar.
      policy_loss: E*, the weighted negative log-likelihood.
      kl_loss: E*, the KL penalty.
      alpha_loss: E*, the alphas' dual loss.
      normalized_weights: the E-step's weights, which sum to 1: over the samples, `[S, E*]`; of
        V-MPO over all steps, E*.
      num_samples: how many samples were weighed: S; of V-MPO the number of steps in the top
        fraction.
    """

    temperature_loss: jax.Array
    policy_loss: jax.Array
    kl_loss: jax.Array
    alpha_loss: jax.Array
    normalized_weights: jax.Array
    num_samples: jax.Array | int


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _clip_below(x: jax.Array, minimum: float) -> jax.Array:
    return jnp.maximum(x, minimum)


_clip_below.defvjp(
    lambda x, minimum: (jnp.maximum(x, minimum), x),
    # Gradient descent moves against the gradient: a negative one moves up.
    lambda minimum, x, gradient: (jnp.where((x >= minimum) | (gradient < 0), gradient, 0),),
)


@operator(static=("minimum",))
def clip_projection(x: ArrayLike, minimum: float = 1e-10) -> jax.Array:
    """Projects a dual variable, `max(x, minimum)`, and lets it return from below.

    The gradient of a plain clip is zero below the minimum: a dual that an optimiser's step has made
    negative stays there for good, and its constraint is no longer enforced. Here a gradient passes
    that would raise `x`; one that would lower it further does not. There is no forward-mode
    derivative.

    Args:
      x: a dual variable, any shape.
      minimum: the least value, above 0.

    Returns:
      The value to be used, in the shape of `x`.
    """
    (x,) = floats(x=x)
    return _clip_below(x, minimum)


@operator(static=("minimum",))
def softplus_projection(x: ArrayLike, minimum: float = 1e-10) -> jax.Array:
    """Projects a dual variable smoothly, `log(1 + exp(x)) + minimum`; every `x` has a gradient.

    A dual of value `y` begins as `x = log(exp(y) - 1)`.

    Args:
      x: a dual variable, any shape.
      minimum: what the value stays above.

    Returns:
      The value to be used, in the shape of `x`.
    """
    (x,) = floats(x=x)
    return jax.nn.softplus(x) + minimum


def _log(y: ArrayLike) -> jax.Array:
    (y,) = floats(y=y)
    return jnp.log(y)


def _e_step(
    values: jax.Array,
    log_prior: jax.Array | float,
    temperature: jax.Array,
    epsilon: jax.Array,
    axis: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Reweighs a prior by exponentiated values.

    Args:
      values: `[S, E*]`, with S at `axis`.
      log_prior: likewise, or a scalar.
      temperature: E*, or a scalar.
      epsilon: likewise.
      axis: of S.

    Returns:
      The temperature's dual loss, E*; the weights, `[S, E*]`; and their KL to the prior, E*.
    """
    dtype = values.dtype
    values = values.astype(jnp.promote_types(dtype, jnp.float32))
    values, largest = below_largest(values, axis)
    scaled = values / (jnp.expand_dims(temperature, axis) if temperature.ndim else temperature)
    log_total = jax.nn.logsumexp(scaled + log_prior, axis=axis)
    weights = jax.nn.softmax(scaled + log_prior, axis=axis)
    kl = jnp.sum(weights * scaled, axis=axis) - log_total
    loss = temperature * (epsilon + log_total) + jnp.squeeze(largest, axis)
    return loss.astype(dtype), weights.astype(dtype), kl.astype(dtype)


@operator(static=("sample_axis",))
def _sampled_e_step(sample_q_values, temperature, epsilon, sample_axis):
    """`_e_step` of samples from the prior, with its checks."""
    name, shape = "mpo_compute_weights_and_temperature_loss", jnp.shape(sample_q_values)
    steps = _without_axis(name, shape, sample_axis)
    same_shape(name, steps, temperature_constraint=temperature, epsilon=epsilon)
    q, temperature, epsilon = floats(
        sample_q_values=sample_q_values, temperature=temperature, epsilon=epsilon
    )
    return _e_step(q, -math.log(shape[sample_axis]), temperature, epsilon, sample_axis)[:2]


def _without_axis(name: str, shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    if not -len(shape) <= axis < len(shape):
        raise ShapeError(f"{name}: 'sample_q_values' has no axis {axis}, its shape is {shape}.")
    axis %= len(shape)
    return shape[:axis] + shape[axis + 1 :]


def mpo_compute_weights_and_temperature_loss(
    sample_q_values: ArrayLike,
    temperature_constraint: LagrangePenalty,
    projection_operator: Projection,
    sample_axis: int = 0,
    use_stop_gradient: bool = True,
) -> tuple[jax.Array, jax.Array, int]:
    """MPO's E-step for actions sampled from the target policy: `weights = softmax(q / temperature)` over the samples.

    The temperature's loss is `temperature * (epsilon + log mean exp(q / temperature))`, the dual of
    a bound on the KL of the weighted to the target policy; see https://arxiv.org/abs/1806.06920.
    Its gradient reaches the action values too; `mpo_loss` stops it.

    Args:
      sample_q_values: `[S, E*]` action values of the samples.
      temperature_constraint: the temperature (a scalar, or E*) and its bound.
      projection_operator: maps the dual variable to a positive temperature, such as
        `clip_projection`.
      sample_axis: the axis of S.
      use_stop_gradient: whether the weights are constants.

    Returns:
      The temperature's loss, E*; the weights, `[S, E*]`; and S.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    python_values(
        "mpo_compute_weights_and_temperature_loss",
        sample_axis=sample_axis,
        use_stop_gradient=use_stop_gradient,
    )
    temperature = projection_operator(jnp.asarray(temperature_constraint.alpha))
    loss, weights = _sampled_e_step(
        sample_q_values, temperature, temperature_constraint.epsilon, sample_axis
    )
    return (
        loss,
        stop_gradient_if(use_stop_gradient, weights),
        jnp.shape(sample_q_values)[sample_axis],
    )


@operator(static=("per_dimension", "use_stop_gradient"))
def _kl_constraint_loss(kl, alpha, epsilon, per_dimension, use_stop_gradient):
    """The KL penalty and the dual loss of one constraint, E*."""
    shape = jnp.shape(kl)
    if per_dimension and not shape:
        raise ShapeError(
            "kl_constraint_loss: 'kl' must hold one value per dimension on its last axis, but is a scalar."
        )
    for name, value in {"penalty.alpha": alpha, "penalty.epsilon": epsilon}.items():
        if not (per_dimension and jnp.shape(value) == shape[-1:]):
            same_shape("kl_constraint_loss", shape, **{name: value})
    kl, alpha, epsilon = (
        jnp.broadcast_to(x, shape) for x in floats(kl=kl, alpha=alpha, epsilon=epsilon)
    )
    kl_loss = stop_gradient_if(use_stop_gradient, alpha) * kl
    alpha_loss = alpha * (epsilon - stop_gradient_if(use_stop_gradient, kl))
    return (
        (jnp.sum(kl_loss, axis=-1), jnp.sum(alpha_loss, axis=-1))
        if per_dimension
        else (kl_loss, alpha_loss)
    )


def _per_dimension(penalty: LagrangePenalty) -> bool:
    if isinstance(penalty.per_dimension, jax.Array):
        raise TypeError(
            "LagrangePenalty: 'per_dimension' must be a Python bool, not a JAX array; do not pass penalties through jax.jit."
        )
    return bool(penalty.per_dimension)


def kl_constraint_loss(
    kl: ArrayLike,
    penalty: LagrangePenalty,
    projection_operator: Projection,
    use_stop_gradient: bool = True,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The losses of a constraint `kl <= epsilon`, and its projected dual variable.

    Args:
      kl: E*, or `[E*, D]` with a constraint for each of D dimensions. Any other quantity may be
        bounded in the same way.
      penalty: the dual variable, the bound, and whether there is a D. Both may be scalars, `[D]`,
        or of the shape of `kl`.
      projection_operator: maps the dual variable to a positive one, such as `clip_projection`.
      use_stop_gradient: whether the dual variable is a constant in the first loss, and the KL in
        the second.

    Returns:
      The penalty `alpha * kl`, which lowers the KL; the dual loss `alpha * (epsilon - kl)`, which
      raises alpha while the KL exceeds its bound; both E*, summed over D; and the projected alpha.

    Raises:
      ShapeError: if shapes do not fit together.
      TypeError: if `penalty.per_dimension` is traced.
    """
    alpha = projection_operator(jnp.asarray(penalty.alpha))
    return *_kl_constraint_loss(
        kl, alpha, penalty.epsilon, _per_dimension(penalty), use_stop_gradient
    ), alpha


def compute_parametric_kl_penalty_and_dual_loss(
    kl_constraints: Sequence[tuple[ArrayLike, LagrangePenalty]],
    projection_operator: Projection,
    use_stop_gradient: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """The losses of several KL constraints, each by `kl_constraint_loss`, summed.

    Args:
      kl_constraints: pairs of a KL and its penalty; zero losses if there are none.
      projection_operator: maps a dual variable to a positive one, such as `clip_projection`.
      use_stop_gradient: as in `kl_constraint_loss`.

    Returns:
      The KL penalty and the dual loss, E*.
    """
    kl_loss = alpha_loss = jnp.asarray(
        0.0
    )  # weakly typed: the sums have the dtype of what is added
    for kl, penalty in kl_constraints:
        kl_term, alpha_term, _ = kl_constraint_loss(
            kl, penalty, projection_operator, use_stop_gradient
        )
        kl_loss, alpha_loss = kl_loss + kl_term, alpha_loss + alpha_term
    return kl_loss, alpha_loss


def _check_kl_constraints(
    name: str, steps: tuple[int, ...], kl_constraints: Sequence[tuple[ArrayLike, LagrangePenalty]]
) -> None:
    for i, (kl, penalty) in enumerate(kl_constraints):
        per_dimension = _per_dimension(penalty)
        if jnp.ndim(kl) != len(steps) + per_dimension or jnp.shape(kl)[: len(steps)] != steps:
            expected = f"{steps} and a last axis of dimensions" if per_dimension else f"{steps}"
            raise ShapeError(
                f"{name}: the KL of 'kl_constraints[{i}]' must have shape {expected}, but has shape {jnp.shape(kl)}."
            )


def _weighted_sum(name: str, **terms: tuple[ArrayLike, jax.Array]) -> jax.Array:
    """The sum of losses times their weights, which are given by the names of the weights."""
    same_shape(name, (), **{argument: weight for argument, (weight, _) in terms.items()})
    return functools.reduce(
        jnp.add, (jnp.multiply(weight, loss) for weight, loss in terms.values())
    )


def mpo_loss(
    sample_log_probs: ArrayLike,
    sample_q_values: ArrayLike,
    temperature_constraint: LagrangePenalty,
    kl_constraints: Sequence[tuple[ArrayLike, LagrangePenalty]],
    projection_operator: Projection = clip_projection,
    policy_loss_weight: ArrayLike = 1.0,
    temperature_loss_weight: ArrayLike = 1.0,
    kl_loss_weight: ArrayLike = 1.0,
    alpha_loss_weight: ArrayLike = 1.0,
    sample_axis: int = 0,
    use_stop_gradient: bool = True,
) -> tuple[jax.Array, MpoOutputs]:
    """MPO's loss for any policy.

    See "Maximum a Posteriori Policy Optimisation" by Abdolmaleki et al. (2018,
    https://arxiv.org/abs/1806.06920), and `gaussian_mpo_loss` and `categorical_mpo_loss`, which
    work out the arguments for the usual policies.

    Args:
      sample_log_probs: `[S, E*]` log-probabilities under the online policy of actions that the
        target policy has sampled.
      sample_q_values: `[S, E*]` their action values.
      temperature_constraint: the temperature (a scalar, or E*) and the bound on the KL of the
        weighted to the target policy.
      kl_constraints: pairs of `KL(target policy || online policy)`, in which the target's
        parameters are constants, and its penalty. E*, or `[E*, D]` with `per_dimension`. None are
        needed.
      projection_operator: maps each dual variable to a positive one. `clip_projection` for
        variables that are the duals themselves, `softplus_projection` for free parameters.
      policy_loss_weight: of the policy's loss in the sum, a scalar, as all weights.
      temperature_loss_weight: of the temperature's loss.
      kl_loss_weight: of the KL penalty.
      alpha_loss_weight: of the alphas' loss.
      sample_axis: the axis of S.
      use_stop_gradient: whether weights and action values are constants, and alphas in the KL
        penalty and KLs in the alphas' loss.

    Returns:
      The loss, E*, to be averaged; and its parts.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    python_values("mpo_loss", sample_axis=sample_axis, use_stop_gradient=use_stop_gradient)
    steps = _without_axis("mpo_loss", jnp.shape(sample_q_values), sample_axis)
    if jnp.shape(sample_log_probs) != jnp.shape(sample_q_values):
        raise ShapeError(
            f"mpo_loss: 'sample_log_probs' must have the shape of 'sample_q_values', {jnp.shape(sample_q_values)}, "
            f"but has {jnp.shape(sample_log_probs)}."
        )
    _check_kl_constraints("mpo_loss", steps, kl_constraints)
    sample_log_probs, sample_q_values = floats(
        sample_log_probs=sample_log_probs, sample_q_values=sample_q_values
    )
    temperature_loss, weights, num_samples = mpo_compute_weights_and_temperature_loss(
        stop_gradient_if(use_stop_gradient, sample_q_values),
        temperature_constraint,
        projection_operator,
        sample_axis,
        use_stop_gradient,
    )
    policy_loss = -jnp.sum(weights * sample_log_probs, axis=sample_axis)
    kl_loss, alpha_loss = compute_parametric_kl_penalty_and_dual_loss(
        kl_constraints, projection_operator, use_stop_gradient
    )
    loss = _weighted_sum(
        "mpo_loss",
        policy_loss_weight=(policy_loss_weight, policy_loss),
        temperature_loss_weight=(temperature_loss_weight, temperature_loss),
        kl_loss_weight=(kl_loss_weight, kl_loss),
        alpha_loss_weight=(alpha_loss_weight, alpha_loss),
    )
    return loss, MpoOutputs(
        temperature_loss, policy_loss, kl_loss, alpha_loss, weights, num_samples
    )


@operator(static=("top_k_fraction", "axis_name", "use_stop_gradient", "exact"))
def get_top_k_weights(
    top_k_fraction: float,
    restarting_weights: ArrayLike,
    scaled_advantages: ArrayLike,
    axis_name: str | None = None,
    use_stop_gradient: bool = True,
    exact: bool = False,
) -> jax.Array:
    """Keeps the restarting weights of the largest advantages and sets the others to 0.

    V-MPO learns from these alone; see "V-MPO" by Song et al. (2020,
    https://arxiv.org/abs/1909.12238).

    Args:
      top_k_fraction: the share to keep, in (0, 1]; of N advantages the `floor(top_k_fraction * N)`
        largest.
      restarting_weights: E*, 0 for a step that never counts, else 1.
      scaled_advantages: E*.
      axis_name: of a mapped axis whose devices hold parts of the batch, if any; the largest are
        then those of all devices.
      use_stop_gradient: whether the weights are constants.
      exact: whether to keep exactly that many, the earliest of equal advantages. Otherwise, as in
        RLax, all that equal the least one kept are kept with it: everything, if all are equal.

    Returns:
      The weights, E*.

    Raises:
      ShapeError: if shapes do not fit together.
      ValueError: if the fraction is not in (0, 1] or keeps nothing.
    """
    same_shape(
        "get_top_k_weights", jnp.shape(scaled_advantages), restarting_weights=restarting_weights
    )
    if not 0 < top_k_fraction <= 1:
        raise ValueError(
            f"get_top_k_weights: 'top_k_fraction' must be in (0, 1], but is {top_k_fraction}."
        )
    weights, advantages = floats(
        restarting_weights=restarting_weights, scaled_advantages=scaled_advantages
    )
    eligible = weights > 0
    candidates = jnp.where(eligible, advantages, -jnp.inf)
    everywhere = (
        candidates.ravel()
        if axis_name is None
        else jax.lax.all_gather(candidates.ravel(), axis_name, tiled=True)
    )
    k = math.floor(top_k_fraction * everywhere.size + 1e-9)  # 0.29 * 100 is less than 29
    if k < 1:
        raise ValueError(
            f"get_top_k_weights: top_k_fraction={top_k_fraction} keeps none of {everywhere.size} advantages."
        )
    largest, indices = jax.lax.top_k(everywhere, k)
    if exact:
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * candidates.size
        chosen = jnp.zeros(everywhere.shape, bool).at[indices].set(True)
        kept = jax.lax.dynamic_slice_in_dim(chosen, first, candidates.size).reshape(
            candidates.shape
        )
    else:
        kept = ~(candidates < largest[-1])  # true where either is NaN, so that a NaN is not hidden
    return stop_gradient_if(use_stop_gradient, jnp.where(eligible & kept, weights, 0))


@operator(static=("top_k_fraction", "axis_name", "use_stop_gradient", "exact_top_k"))
def _vmpo_e_step(
    advantages,
    restarting_weights,
    importance_weights,
    temperature,
    epsilon,
    top_k_fraction,
    axis_name,
    use_stop_gradient,
    exact_top_k,
):
    """V-MPO's E-step with a projected temperature."""
    name, shape = "vmpo_compute_weights_and_temperature_loss", jnp.shape(advantages)
    same_shape(
        name, shape, restarting_weights=restarting_weights, importance_weights=importance_weights
    )
    same_shape(name, (), temperature_constraint=temperature, epsilon=epsilon)
    *arguments, temperature, epsilon = floats(
        advantages=advantages,
        restarting_weights=restarting_weights,
        importance_weights=importance_weights,
        temperature=temperature,
        epsilon=epsilon,
    )
    dtype = temperature.dtype
    advantages, restarting_weights, importance_weights = (
        jnp.broadcast_to(x, shape).astype(jnp.promote_types(dtype, jnp.float32)) for x in arguments
    )
    over_devices = (
        (lambda reduce, x: x) if axis_name is None else lambda reduce, x: reduce(x, axis_name)
    )
    top_k = get_top_k_weights(
        top_k_fraction, restarting_weights, advantages, axis_name, use_stop_gradient, exact_top_k
    )
    weights = top_k * stop_gradient_if(use_stop_gradient, importance_weights)
    largest = jnp.max(jax.lax.stop_gradient(advantages), initial=-jnp.inf, where=top_k > 0)
    largest = over_devices(jax.lax.pmax, largest)
    largest = jnp.where(largest == -jnp.inf, 0, largest)
    weights = weights * jnp.exp(jnp.where(top_k > 0, advantages - largest, 0) / temperature)
    total, num_samples = over_devices(jax.lax.psum, (jnp.sum(weights), jnp.sum(top_k)))
    empty = total == 0
    total = jnp.where(empty, 1, total)
    log_mean = jnp.where(empty, 0, jnp.log(total) - jnp.log(jnp.where(empty, 1, num_samples)))
    loss = temperature * (epsilon + log_mean) + jnp.where(empty, 0, largest)
    return (
        loss.astype(dtype),
        stop_gradient_if(use_stop_gradient, weights / total).astype(dtype),
        num_samples.astype(dtype),
    )


def vmpo_compute_weights_and_temperature_loss(
    advantages: ArrayLike,
    restarting_weights: ArrayLike,
    importance_weights: ArrayLike,
    temperature_constraint: LagrangePenalty,
    projection_operator: Projection,
    top_k_fraction: float,
    axis_name: str | None = None,
    use_stop_gradient: bool = True,
    exact_top_k: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """V-MPO's E-step: weights proportional to `exp(advantages / temperature)` over the steps of the largest advantages.

    The temperature's loss is `temperature * (epsilon + log mean exp(advantages / temperature))`
    over the same steps; see https://arxiv.org/abs/1909.12238. Its gradient reaches the advantages
    too; `vmpo_loss` stops it.

    Args:
      advantages: E*.
      restarting_weights: E*, 0 for a step that does not count, such as the first of an episode,
        else 1.
      importance_weights: E*, importance-sampling ratios, or 1.
      temperature_constraint: the temperature and its bound, scalars.
      projection_operator: maps the dual variable to a positive temperature, such as
        `clip_projection`.
      top_k_fraction: the share of steps that are used, in (0, 1].
      axis_name: of a mapped axis whose devices hold parts of the batch, if any.
      use_stop_gradient: whether the weights are constants.
      exact_top_k: whether exactly that share is used if advantages are equal; see
        `get_top_k_weights`.

    Returns:
      The temperature's loss, a scalar; the weights, E*, of sum 1; and the number of steps used. If
      none is left, the weights are 0 and the loss is `temperature * epsilon`.

    Raises:
      ShapeError: if shapes do not fit together.
      ValueError: if the fraction is not in (0, 1] or keeps nothing.
    """
    options = {
        "top_k_fraction": top_k_fraction,
        "axis_name": axis_name,
        "use_stop_gradient": use_stop_gradient,
        "exact_top_k": exact_top_k,
    }
    python_values("vmpo_compute_weights_and_temperature_loss", **options)
    temperature = projection_operator(jnp.asarray(temperature_constraint.alpha))
    return _vmpo_e_step(
        advantages,
        restarting_weights,
        importance_weights,
        temperature,
        temperature_constraint.epsilon,
        **options,
    )


def vmpo_loss(
    sample_log_probs: ArrayLike,
    advantages: ArrayLike,
    temperature_constraint: LagrangePenalty,
    kl_constraints: Sequence[tuple[ArrayLike, LagrangePenalty]],
    projection_operator: Projection = clip_projection,
    restarting_weights: ArrayLike | None = None,
    importance_weights: ArrayLike | None = None,
    top_k_fraction: float = 0.5,
    policy_loss_weight: ArrayLike = 1.0,
    temperature_loss_weight: ArrayLike = 1.0,
    kl_loss_weight: ArrayLike = 1.0,
    alpha_loss_weight: ArrayLike = 1.0,
    axis_name: str | None = None,
    use_stop_gradient: bool = True,
    exact_top_k: bool = False,
) -> tuple[jax.Array, MpoOutputs]:
    """V-MPO's loss for any policy.

    See "V-MPO: On-Policy Maximum a Posteriori Policy Optimization for Discrete and Continuous
    Control" by Song et al. (2020, https://arxiv.org/abs/1909.12238).

    Args:
      sample_log_probs: E*, log-probabilities under the online policy of the actions taken by the
        target policy.
      advantages: E*, their advantages.
      temperature_constraint: the temperature and its bound, scalars.
      kl_constraints: as in `mpo_loss`.
      projection_operator: as in `mpo_loss`.
      restarting_weights: E*, 0 for a step that does not count, such as the first of an episode,
        else 1; ones if left out.
      importance_weights: E*, importance-sampling ratios; ones if left out.
      top_k_fraction: the share of steps, those of the largest advantages, that the policy is fitted
        to.
      policy_loss_weight: of the policy's loss in the sum, a scalar, as all weights.
      temperature_loss_weight: of the temperature's loss.
      kl_loss_weight: of the KL penalty.
      alpha_loss_weight: of the alphas' loss.
      axis_name: of a mapped axis whose devices hold parts of the batch, if any. Losses are then to
        be averaged over it.
      use_stop_gradient: whether weights and advantages are constants, and alphas in the KL penalty
        and KLs in the alphas' loss.
      exact_top_k: whether exactly that share is used if advantages are equal; see
        `get_top_k_weights`.

    Returns:
      The loss, E*, to be averaged (the policy's is scaled so that its mean is the weighted sum);
      and its parts.

    Raises:
      ShapeError: if shapes do not fit together.
      ValueError: if the fraction is not in (0, 1] or keeps nothing.
    """
    python_values(
        "vmpo_loss",
        top_k_fraction=top_k_fraction,
        use_stop_gradient=use_stop_gradient,
        exact_top_k=exact_top_k,
    )
    sample_log_probs, advantages = floats(sample_log_probs=sample_log_probs, advantages=advantages)
    steps = advantages.shape
    if sample_log_probs.shape != steps:
        raise ShapeError(
            f"vmpo_loss: 'sample_log_probs' must have shape {steps}, but has shape {sample_log_probs.shape}."
        )
    _check_kl_constraints("vmpo_loss", steps, kl_constraints)
    temperature_loss, weights, num_samples = vmpo_compute_weights_and_temperature_loss(
        stop_gradient_if(use_stop_gradient, advantages),
        1.0 if restarting_weights is None else restarting_weights,
        1.0 if importance_weights is None else importance_weights,
        temperature_constraint,
        projection_operator,
        top_k_fraction,
        axis_name,
        use_stop_gradient,
        exact_top_k,
    )
    num_steps = advantages.size * (1 if axis_name is None else jax.lax.psum(1, axis_name))
    policy_loss = -weights * sample_log_probs * num_steps
    kl_loss, alpha_loss = compute_parametric_kl_penalty_and_dual_loss(
        kl_constraints, projection_operator, use_stop_gradient
    )
    loss = _weighted_sum(
        "vmpo_loss",
        policy_loss_weight=(policy_loss_weight, policy_loss),
        temperature_loss_weight=(temperature_loss_weight, temperature_loss),
        kl_loss_weight=(kl_loss_weight, kl_loss),
        alpha_loss_weight=(alpha_loss_weight, alpha_loss),
    )
    return loss, MpoOutputs(
        temperature_loss, policy_loss, kl_loss, alpha_loss, weights, num_samples
    )


class GaussianMpoDuals(NamedTuple):
    """The dual variables of `gaussian_mpo_loss` as logarithms, so that a step is a relative change whatever their size.

    They are learned beside the policy, usually at a larger learning rate, such as 0.03 with Adam.
    Keep an alpha from falling far below 1 while its constraint is idle: it would take as long to
    come back. And from growing far beyond sqrt(epsilon / epsilon_mean), or the like: steps that are
    too large to obey the bound would let it grow without end, and then nothing else is learned. The
    policy's own Adam should forget soon (b2=0.99): while its scale lags behind gradients that alpha
    makes larger, its steps raise the KL further.

    Attributes:
      temperature: a scalar.
      alpha_mean: `[D]` for a constraint on each dimension's mean, or a scalar for one on all
        together.
      alpha_stddev: likewise for the standard deviations.
      penalty_temperature: a scalar, of the penalty for actions out of bounds; None for no such
        penalty.
    """

    temperature: jax.Array
    alpha_mean: jax.Array
    alpha_stddev: jax.Array
    penalty_temperature: jax.Array | None = None

    @classmethod
    def init(
        cls,
        num_dimensions: int | None = None,
        temperature: ArrayLike = 10.0,
        alpha_mean: ArrayLike = 10.0,
        alpha_stddev: ArrayLike = 1000.0,
        penalty_temperature: ArrayLike | None = None,
    ) -> "GaussianMpoDuals":
        """Logarithms of the given values.

        Args:
          num_dimensions: D, for constraints on each dimension; None for constraints on all
            together.
          temperature: the first temperature, in units of the action values.
          alpha_mean: the first weight of the mean's KL, in units of the action values divided by
            the temperature.
          alpha_stddev: the same of the standard deviation's KL.
          penalty_temperature: the first temperature of the penalty for actions out of bounds, in
            units of the actions; None for none.
        """
        shape = () if num_dimensions is None else (num_dimensions,)
        return cls(
            _log(temperature),
            jnp.broadcast_to(_log(alpha_mean), shape),
            jnp.broadcast_to(_log(alpha_stddev), shape),
            None if penalty_temperature is None else _log(penalty_temperature),
        )


class GaussianMpoStatistics(NamedTuple):
    """What happened in `gaussian_mpo_loss`, averaged over the steps: its losses, its duals' values, and each KL beside its bound.

    Attributes:
      policy_loss: a scalar, as all that is not said to be otherwise.
      temperature_loss: the penalty's temperature included.
      kl_loss: the KL penalty.
      alpha_loss: of both alphas.
      temperature: positive, as all duals here.
      alpha_mean: `[D]` or a scalar.
      alpha_stddev: `[D]` or a scalar.
      penalty_temperature: None if there is no penalty.
      kl_improved: KL of the improved, that is weighted, policy to the target policy.
      epsilon: its bound.
      kl_mean: KL of the target to the online policy due to the means; `[D]` or a scalar.
      epsilon_mean: its bound.
      kl_stddev: the same due to the standard deviations.
      epsilon_stddev: its bound.
      kl_penalty: KL to the target policy of the policy that the penalty improves; None if there is
        none.
      epsilon_penalty: its bound.
    """

    policy_loss: jax.Array
    temperature_loss: jax.Array
    kl_loss: jax.Array
    alpha_loss: jax.Array
    temperature: jax.Array
    alpha_mean: jax.Array
    alpha_stddev: jax.Array
    penalty_temperature: jax.Array | None
    kl_improved: jax.Array
    epsilon: jax.Array
    kl_mean: jax.Array
    epsilon_mean: jax.Array
    kl_stddev: jax.Array
    epsilon_stddev: jax.Array
    kl_penalty: jax.Array | None
    epsilon_penalty: jax.Array


def _gaussian_log_prob(x: jax.Array, mean: jax.Array, stddev: jax.Array) -> jax.Array:
    """Log-densities `[S, ...]` of samples `[S, ..., D]` under a mean and a standard deviation `[..., D]`."""
    energy = 0.5 * jnp.square((x - mean[None]) / stddev[None])
    return -jnp.sum(energy + jnp.log(stddev)[None] + 0.5 * math.log(2 * math.pi), axis=-1)


@operator(static=("reduction",))
def gaussian_mpo_loss(
    online_mean: ArrayLike,
    online_stddev: ArrayLike,
    target_mean: ArrayLike,
    target_stddev: ArrayLike,
    sample_actions: ArrayLike,
    sample_q_values: ArrayLike,
    duals: GaussianMpoDuals,
    epsilon: ArrayLike = 0.1,
    epsilon_mean: ArrayLike = 0.0025,
    epsilon_stddev: ArrayLike = 1e-6,
    epsilon_penalty: ArrayLike = 1e-3,
    action_minimum: ArrayLike = -1.0,
    action_maximum: ArrayLike = 1.0,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> tuple[jax.Array, GaussianMpoStatistics]:
    """MPO's whole loss for a diagonal Gaussian policy, with separate KL constraints on its mean and its standard deviation.

    Two sets of the policy network's parameters take part. The *online* ones are learned. The
    *target* ones are a copy of them that is refreshed every so many (say 100) learning steps; the
    target policy samples the actions, and the target critic values them. What is constrained is how
    far the online policy has moved from the target policy::

        KL(N(target_mean, target_stddev) || N(online_mean, target_stddev)) <= epsilon_mean
        KL(N(target_mean, target_stddev) || N(target_mean, online_stddev)) <= epsilon_stddev

    These are zero, and so is their gradient, while both copies are equal, and grow with the
    learning steps since the last refresh. Were the target's parameters those of the online policy
    itself, they would always be zero and nothing would be constrained. The policy is fitted in the
    same two parts, so that the mean can move fast while the standard deviation shrinks slowly.
    Gradients reach `online_mean`, `online_stddev` and `duals`; all else is constant.

    See "Maximum a Posteriori Policy Optimisation" by Abdolmaleki et al. (2018,
    https://arxiv.org/abs/1806.06920), "Relative Entropy Regularized Policy Iteration" (2018,
    https://arxiv.org/abs/1812.02256) for the separate constraints, and "A Distributional View on
    Multi-Objective Policy Optimization" (2020, https://arxiv.org/abs/2005.07513) for the penalty,
    whose E-step is a second one, on minus the distance of an action to the bounds.

    Args:
      online_mean: `[..., D]` means of the policy that is learned.
      online_stddev: `[..., D]` its standard deviations.
      target_mean: `[..., D]` means of the policy that has sampled the actions.
      target_stddev: `[..., D]` its standard deviations.
      sample_actions: `[S, ..., D]` S actions for each step, sampled from the target policy and not
        clipped.
      sample_q_values: `[S, ...]` their action values; where the penalty is on, those of the actions
        clipped to the bounds.
      duals: from `GaussianMpoDuals.init`; its shapes say whether constraints hold for each
        dimension, and whether there is a penalty.
      epsilon: bound on the KL of the improved to the target policy; a scalar, as all bounds.
      epsilon_mean: bound on the mean's KL; of each dimension where the dual is `[D]`, else of their
        sum.
      epsilon_stddev: bound on the standard deviation's KL; likewise.
      epsilon_penalty: bound on the KL of the policy that the penalty improves to the target policy.
      action_minimum: the least allowed action, a scalar or `[D]`.
      action_maximum: the largest allowed action, a scalar or `[D]`.
      w_t: `[...]` weights of the steps, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss, and what to log.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    name = "gaussian_mpo_loss"
    steps = values_of(
        name,
        online_mean=online_mean,
        online_stddev=online_stddev,
        target_mean=target_mean,
        target_stddev=target_stddev,
    )
    dimensions, samples = jnp.shape(online_mean)[-1:], jnp.shape(sample_q_values)[:1]
    for argument, value, expected in [
        ("sample_q_values", sample_q_values, (*samples, *steps)),
        ("sample_actions", sample_actions, (*samples, *steps, *dimensions)),
    ]:
        if not samples or jnp.shape(value) != expected:
            raise ShapeError(
                f"{name}: {argument!r} must have shape (S, *{expected[1:]}), with S samples in both, but has shape {jnp.shape(value)}."
            )
    same_shape(name, dimensions, action_minimum=action_minimum, action_maximum=action_maximum)
    same_shape(
        name,
        dimensions,
        **{"duals.alpha_mean": duals.alpha_mean, "duals.alpha_stddev": duals.alpha_stddev},
    )
    same_shape(
        name,
        (),
        epsilon=epsilon,
        epsilon_mean=epsilon_mean,
        epsilon_stddev=epsilon_stddev,
        epsilon_penalty=epsilon_penalty,
    )
    same_shape(name, (), **{"duals.temperature": duals.temperature})
    (
        online_mean,
        online_stddev,
        target_mean,
        target_stddev,
        actions,
        q,
        minimum,
        maximum,
        *bounds,
    ) = floats(
        online_mean=online_mean,
        online_stddev=online_stddev,
        target_mean=target_mean,
        target_stddev=target_stddev,
        sample_actions=sample_actions,
        sample_q_values=sample_q_values,
        action_minimum=action_minimum,
        action_maximum=action_maximum,
        epsilon=epsilon,
        epsilon_mean=epsilon_mean,
        epsilon_stddev=epsilon_stddev,
        epsilon_penalty=epsilon_penalty,
    )
    epsilon, epsilon_mean, epsilon_stddev, epsilon_penalty = bounds
    target_mean, target_stddev, actions, q = jax.lax.stop_gradient(
        (target_mean, target_stddev, actions, q)
    )
    values: GaussianMpoDuals = jax.tree.map(jnp.exp, duals)

    log_prior = -math.log(len(q))
    temperature_loss, weights, kl_improved = _e_step(
        q, log_prior, values.temperature, epsilon, axis=0
    )
    kl_penalty = None
    if values.penalty_temperature is not None:
        minimum, maximum = (
            jnp.broadcast_to(minimum, actions.shape),
            jnp.broadcast_to(maximum, actions.shape),
        )
        distance = jnp.linalg.norm(actions - jnp.clip(actions, minimum, maximum), axis=-1)
        penalty_loss, penalty_weights, kl_penalty = _e_step(
            -distance, log_prior, values.penalty_temperature, epsilon_penalty, axis=0
        )
        temperature_loss, weights = temperature_loss + penalty_loss, weights + penalty_weights

    log_probs = _gaussian_log_prob(actions, online_mean, target_stddev) + _gaussian_log_prob(
        actions, target_mean, online_stddev
    )
    policy_loss = -jnp.sum(jax.lax.stop_gradient(weights) * log_probs, axis=0)
    log_ratio = jnp.log(target_stddev / online_stddev)

    def constrain(kl, alpha, bound):
        kl = kl if alpha.ndim else jnp.sum(kl, axis=-1)
        return kl, *_kl_constraint_loss(
            kl, alpha, bound, per_dimension=alpha.ndim > 0, use_stop_gradient=True
        )

    kl_mean, mean_penalty, alpha_mean_loss = constrain(
        0.5 * jnp.square((online_mean - target_mean) / target_stddev),
        values.alpha_mean,
        epsilon_mean,
    )
    kl_stddev, stddev_penalty, alpha_stddev_loss = constrain(
        0.5 * jnp.expm1(2 * log_ratio) - log_ratio, values.alpha_stddev, epsilon_stddev
    )
    kl_loss, alpha_loss = mean_penalty + stddev_penalty, alpha_mean_loss + alpha_stddev_loss
    loss = policy_loss + temperature_loss + kl_loss + alpha_loss

    mean = functools.partial(_mean_over_steps, name, w_t, len(steps))
    statistics = GaussianMpoStatistics(
        policy_loss=mean(policy_loss),
        temperature_loss=mean(temperature_loss),
        kl_loss=mean(kl_loss),
        alpha_loss=mean(alpha_loss),
        temperature=values.temperature,
        alpha_mean=values.alpha_mean,
        alpha_stddev=values.alpha_stddev,
        penalty_temperature=values.penalty_temperature,
        kl_improved=mean(kl_improved),
        epsilon=epsilon,
        kl_mean=mean(kl_mean),
        epsilon_mean=epsilon_mean,
        kl_stddev=mean(kl_stddev),
        epsilon_stddev=epsilon_stddev,
        kl_penalty=None if kl_penalty is None else mean(kl_penalty),
        epsilon_penalty=epsilon_penalty,
    )
    return reduce_loss(name, loss, w_t, reduction), statistics


def _mean_over_steps(
    name: str, weights: ArrayLike | None, num_axes: int, x: jax.Array
) -> jax.Array:
    """Weighted mean over the leading axes; of each dimension, if there is one axis more."""
    if x.ndim > num_axes:
        return jax.vmap(functools.partial(_mean_over_steps, name, weights, num_axes), in_axes=-1)(x)
    return reduce_loss(name, x, weights, "masked_mean")


class CategoricalMpoDuals(NamedTuple):
    """The dual variables of `categorical_mpo_loss` as logarithms, so that a step is a relative change whatever their size.

    They are learned beside the policy, usually at a larger learning rate, such as 0.03 with Adam.
    Keep an alpha from falling far below 1 while its constraint is idle: it would take as long to
    come back. And from growing far beyond sqrt(epsilon / epsilon_kl): steps that are too large to
    obey the bound would let it grow without end, and then nothing else is learned.

    Attributes:
      temperature: a scalar.
      alpha: a scalar.
    """

    temperature: jax.Array
    alpha: jax.Array

    @classmethod
    def init(cls, temperature: ArrayLike = 10.0, alpha: ArrayLike = 10.0) -> "CategoricalMpoDuals":
        """Logarithms of the given values.

        Args:
          temperature: the first temperature, in units of the action values.
          alpha: the first weight of the KL.
        """
        return cls(_log(temperature), _log(alpha))


class CategoricalMpoStatistics(NamedTuple):
    """What happened in `categorical_mpo_loss`, averaged over the steps: its losses, its duals' values, and each KL beside its bound.

    Attributes:
      policy_loss: a scalar, as all.
      temperature_loss: the temperature's dual loss.
      kl_loss: the KL penalty.
      alpha_loss: alpha's dual loss.
      temperature: positive, as all duals here.
      alpha: the weight of the KL.
      kl_improved: KL of the improved to the target policy.
      epsilon: its bound.
      kl: KL of the target to the online policy.
      epsilon_kl: its bound.
    """

    policy_loss: jax.Array
    temperature_loss: jax.Array
    kl_loss: jax.Array
    alpha_loss: jax.Array
    temperature: jax.Array
    alpha: jax.Array
    kl_improved: jax.Array
    epsilon: jax.Array
    kl: jax.Array
    epsilon_kl: jax.Array


@operator(static=("reduction",))
def categorical_mpo_loss(
    online_logits: ArrayLike,
    target_logits: ArrayLike,
    q_values: ArrayLike,
    duals: CategoricalMpoDuals,
    epsilon: ArrayLike = 0.1,
    epsilon_kl: ArrayLike = 0.01,
    w_t: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> tuple[jax.Array, CategoricalMpoStatistics]:
    """MPO's whole loss for a categorical policy, summed over all actions instead of samples.

    The improved policy is `softmax(target_logits + q_values / temperature)`; the online policy is
    fitted to it under the constraint `KL(softmax(target_logits) || softmax(online_logits)) <=
    epsilon_kl`. The *target* logits come from a copy of the policy network's parameters that is
    refreshed every so many (say 100) learning steps: the KL is zero just after a refresh, and would
    always be zero with the online parameters in its place; see `gaussian_mpo_loss`. Gradients reach
    `online_logits` and `duals`; all else is constant.

    See "Maximum a Posteriori Policy Optimisation" by Abdolmaleki et al. (2018,
    https://arxiv.org/abs/1806.06920). Actions may be ruled out by logits of `-inf` in both
    policies.

    Args:
      online_logits: `[..., A]` of the policy that is learned.
      target_logits: `[..., A]` of its earlier copy.
      q_values: `[..., A]` values of all actions, from the target critic.
      duals: from `CategoricalMpoDuals.init`.
      epsilon: bound on the KL of the improved to the target policy, a scalar.
      epsilon_kl: bound on the KL of the target to the online policy, a scalar.
      w_t: `[...]` weights of the steps, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss, and what to log.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    name = "categorical_mpo_loss"
    steps = values_of(
        name, online_logits=online_logits, target_logits=target_logits, q_values=q_values
    )
    same_shape(name, (), epsilon=epsilon, epsilon_kl=epsilon_kl)
    online_logits, target_logits, q, epsilon, epsilon_kl = floats(
        online_logits=online_logits,
        target_logits=target_logits,
        q_values=q_values,
        epsilon=epsilon,
        epsilon_kl=epsilon_kl,
    )
    values: CategoricalMpoDuals = jax.tree.map(jnp.exp, duals)
    target_logits, q = jax.lax.stop_gradient((target_logits, q))
    log_prior = jax.nn.log_softmax(target_logits)
    # A large value of an action that is ruled out would cost the others their digits.
    possible = target_logits > -jnp.inf
    q = jnp.where(possible, q, jnp.min(q, axis=-1, keepdims=True, where=possible, initial=jnp.inf))
    temperature_loss, weights, kl_improved = _e_step(
        q, log_prior, values.temperature, epsilon, axis=-1
    )
    policy_loss = categorical_cross_entropy(jax.lax.stop_gradient(weights), online_logits)
    kl = categorical_kl_divergence(target_logits, online_logits)
    kl_loss, alpha_loss = _kl_constraint_loss(
        kl, values.alpha, epsilon_kl, per_dimension=False, use_stop_gradient=True
    )
    loss = policy_loss + temperature_loss + kl_loss + alpha_loss

    mean = functools.partial(_mean_over_steps, name, w_t, len(steps))
    statistics = CategoricalMpoStatistics(
        policy_loss=mean(policy_loss),
        temperature_loss=mean(temperature_loss),
        kl_loss=mean(kl_loss),
        alpha_loss=mean(alpha_loss),
        temperature=values.temperature,
        alpha=values.alpha,
        kl_improved=mean(kl_improved),
        epsilon=epsilon,
        kl=mean(kl),
        epsilon_kl=epsilon_kl,
    )
    return reduce_loss(name, loss, w_t, reduction), statistics
