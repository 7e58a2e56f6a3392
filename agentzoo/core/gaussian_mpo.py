"""MPO's whole loss for a diagonal Gaussian policy, with separate bounds on mean and deviation.

See `agentzoo.core.mpo` for the method and its parts.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import (
    Reduction,
    ShapeError,
    floats,
    operator,
    reduce_loss,
    same_shape,
    values_of,
)
from agentzoo.core.lagrange import constraint_losses, log_of
from agentzoo.core.mpo import EStep, e_step, mean_over_steps

__all__ = ["GaussianMpoDuals", "GaussianMpoStatistics", "gaussian_mpo_loss"]


class GaussianMpoDuals(NamedTuple):
    """Logarithms of the dual variables of `gaussian_mpo_loss`.

    The logarithm makes a gradient step a relative change, whatever the size of the variable. The
    duals are learned together with the policy, usually at a larger learning rate, such as 0.03 with
    Adam.

    Two limits on an alpha are useful. Keep it from falling far below 1 while its constraint is
    idle, because it needs as long to rise again. Keep it from growing far beyond
    `sqrt(epsilon / epsilon_mean)` or `sqrt(epsilon / epsilon_stddev)`: if the steps of the policy
    are too large to obey the bound, alpha grows without end, and then nothing else is learned. The
    Adam of the policy should forget quickly (b2=0.99): while its scale lags behind gradients that
    alpha makes larger, its steps raise the KL further.

    Attributes:
      temperature: a scalar.
      alpha_mean: `[D]` for a constraint on the mean of each dimension, or a scalar for one
        constraint on all dimensions together.
      alpha_stddev: the same for the standard deviations.
      penalty_temperature: a scalar, for the penalty on actions out of bounds; None for no such
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
        """Return the logarithms of the given values.

        Args:
          num_dimensions: D, for constraints on each dimension; None for constraints on all
            dimensions together.
          temperature: initial temperature, in units of the action values.
          alpha_mean: initial weight of the KL of the mean, in units of the action values divided by
            the temperature.
          alpha_stddev: initial weight of the KL of the standard deviation, in the same units.
          penalty_temperature: initial temperature of the penalty on actions out of bounds, in units
            of the actions; None for no penalty.
        """
        shape = () if num_dimensions is None else (num_dimensions,)
        return cls(
            log_of(temperature),
            jnp.broadcast_to(log_of(alpha_mean), shape),
            jnp.broadcast_to(log_of(alpha_stddev), shape),
            None if penalty_temperature is None else log_of(penalty_temperature),
        )


class GaussianMpoStatistics(NamedTuple):
    """Values to log from `gaussian_mpo_loss`, averaged over the steps; scalars unless stated.

    Attributes:
      policy_loss: weighted negative log-likelihood.
      temperature_loss: dual loss of the temperature and of the penalty's temperature.
      kl_loss: KL penalty.
      alpha_loss: dual loss of both alphas.
      temperature: the temperature itself, which is positive, like all dual variables here.
      alpha_mean: `[D]` or a scalar.
      alpha_stddev: `[D]` or a scalar.
      penalty_temperature: None if there is no penalty.
      kl_improved: KL of the improved (weighted) policy to the target policy.
      epsilon: bound of `kl_improved`.
      kl_mean: KL of the target policy to the online policy due to the means, `[D]` or a scalar.
      epsilon_mean: bound of `kl_mean`.
      kl_stddev: KL of the target policy to the online policy due to the standard deviations, `[D]`
        or a scalar.
      epsilon_stddev: bound of `kl_stddev`.
      kl_penalty: KL of the policy that the penalty improves to the target policy; None if there is
        no penalty.
      epsilon_penalty: bound of `kl_penalty`.
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
    """Compute MPO's whole loss for a diagonal Gaussian policy.

    The policy network has two sets of parameters. The *online* parameters are learned. The *target*
    parameters are a copy of them that is refreshed at intervals, such as every 100 gradient
    updates. The target policy samples the actions, and the target critic values them. Two
    constraints limit how far the online policy moves from the target policy::

        KL(N(target_mean, target_stddev) || N(online_mean, target_stddev)) <= epsilon_mean
        KL(N(target_mean, target_stddev) || N(target_mean, online_stddev)) <= epsilon_stddev

    Both KLs and their gradients are zero just after a refresh, and grow with the gradient updates
    since then. If the online parameters were used as the target parameters, the KLs would always be
    zero and nothing would be constrained. The policy is fitted in the same two parts, so that the
    mean can move fast while the standard deviation shrinks slowly. Gradients reach `online_mean`,
    `online_stddev` and `duals`; everything else is constant.

    The optional penalty on actions out of bounds is a second E-step, whose values are minus the
    distances of the actions to the bounds.

    See "Maximum a Posteriori Policy Optimisation" by Abdolmaleki et al. (2018,
    https://arxiv.org/abs/1806.06920). The separate constraints are from "Relative Entropy
    Regularized Policy Iteration" (2018, https://arxiv.org/abs/1812.02256), and the penalty is from
    "A Distributional View on Multi-Objective Policy Optimization" (2020,
    https://arxiv.org/abs/2005.07513).

    Args:
      online_mean: `[..., D]` means of the policy that is learned.
      online_stddev: `[..., D]` standard deviations of the policy that is learned.
      target_mean: `[..., D]` means of the policy that sampled the actions.
      target_stddev: `[..., D]` standard deviations of the policy that sampled the actions.
      sample_actions: `[S, ..., D]` S actions for each step, sampled from the target policy and not
        clipped.
      sample_q_values: `[S, ...]` action values. With the penalty, these are the values of the
        actions clipped to the bounds.
      duals: dual variables from `GaussianMpoDuals.init`. Their shapes decide whether each dimension
        has its own constraints, and whether there is a penalty.
      epsilon: bound on the KL of the improved policy to the target policy, a scalar.
      epsilon_mean: bound on the KL of the mean, a scalar. It holds for each dimension if
        `alpha_mean` is `[D]`, otherwise for the sum over the dimensions.
      epsilon_stddev: bound on the KL of the standard deviation, a scalar, in the same way.
      epsilon_penalty: bound on the KL of the policy that the penalty improves to the target policy,
        a scalar.
      action_minimum: smallest allowed action, a scalar or `[D]`.
      action_maximum: largest allowed action, a scalar or `[D]`.
      w_t: `[...]` weights of the steps, or a scalar.
      reduction: "mean", "masked_mean", "sum" or "none".

    Returns:
      The loss and the statistics to log.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    given = _Inputs(
        online_mean,
        online_stddev,
        target_mean,
        target_stddev,
        sample_actions,
        sample_q_values,
        action_minimum,
        action_maximum,
        epsilon,
        epsilon_mean,
        epsilon_stddev,
        epsilon_penalty,
    )
    name, steps = "gaussian_mpo_loss", _check(given, duals)
    x = _promoted(given)
    values: GaussianMpoDuals = jax.tree.map(jnp.exp, duals)

    improved, penalty = _e_steps(x, values)
    temperature_loss, weights = improved.temperature_loss, improved.weights
    if penalty is not None:
        temperature_loss = temperature_loss + penalty.temperature_loss
        weights = weights + penalty.weights
    policy_loss = -jnp.sum(jax.lax.stop_gradient(weights) * _log_probs(x), axis=0)
    of_mean, of_stddev = _constrain_mean(x, values), _constrain_stddev(x, values)
    kl_loss = of_mean.kl_loss + of_stddev.kl_loss
    alpha_loss = of_mean.alpha_loss + of_stddev.alpha_loss
    loss = policy_loss + temperature_loss + kl_loss + alpha_loss

    averaged = {
        "policy_loss": policy_loss,
        "temperature_loss": temperature_loss,
        "kl_loss": kl_loss,
        "alpha_loss": alpha_loss,
        "kl_improved": improved.kl,
        "kl_mean": of_mean.kl,
        "kl_stddev": of_stddev.kl,
        "kl_penalty": None if penalty is None else penalty.kl,
    }
    statistics = GaussianMpoStatistics(
        **jax.tree.map(functools.partial(mean_over_steps, name, w_t, len(steps)), averaged),
        **values._asdict(),
        epsilon=x.epsilon,
        epsilon_mean=x.epsilon_mean,
        epsilon_stddev=x.epsilon_stddev,
        epsilon_penalty=x.epsilon_penalty,
    )
    return reduce_loss(name, loss, w_t, reduction), statistics


class _Inputs(NamedTuple):
    """The arrays that `gaussian_mpo_loss` is given."""

    online_mean: Any
    online_stddev: Any
    target_mean: Any
    target_stddev: Any
    sample_actions: Any
    sample_q_values: Any
    action_minimum: Any
    action_maximum: Any
    epsilon: Any
    epsilon_mean: Any
    epsilon_stddev: Any
    epsilon_penalty: Any


def _check(given: _Inputs, duals: GaussianMpoDuals) -> tuple[int, ...]:
    """Check the shapes of all arguments, and return the axes of the steps."""
    name, arguments = "gaussian_mpo_loss", given._asdict()
    policies = ("online_mean", "online_stddev", "target_mean", "target_stddev")
    steps = values_of(name, **{argument: arguments[argument] for argument in policies})
    dimensions = jnp.shape(given.online_mean)[-1:]
    num_samples = jnp.shape(given.sample_q_values)[:1]  # empty if there is no axis S
    expected = {
        "sample_q_values": (*num_samples, *steps),
        "sample_actions": (*num_samples, *steps, *dimensions),
    }
    for argument, shape in expected.items():
        found = jnp.shape(arguments[argument])
        if not num_samples or found != shape:
            raise ShapeError(
                f"{name}: {argument!r} must have shape (S, *{shape[1:]}), with S samples in both, "
                f"but has shape {found}."
            )
    limits = ("action_minimum", "action_maximum")
    same_shape(name, dimensions, **{argument: arguments[argument] for argument in limits})
    alphas = {"duals.alpha_mean": duals.alpha_mean, "duals.alpha_stddev": duals.alpha_stddev}
    same_shape(name, dimensions, **alphas)
    bounds = ("epsilon", "epsilon_mean", "epsilon_stddev", "epsilon_penalty")
    same_shape(name, (), **{argument: arguments[argument] for argument in bounds})
    same_shape(name, (), **{"duals.temperature": duals.temperature})
    return steps


def _promoted(given: _Inputs) -> _Inputs:
    """Return floats of one dtype, in which only the online policy has a gradient."""
    x = _Inputs(*floats(**given._asdict()))
    constant = ("target_mean", "target_stddev", "sample_actions", "sample_q_values")
    return x._replace(**{name: jax.lax.stop_gradient(getattr(x, name)) for name in constant})


def _e_steps(x: _Inputs, values: GaussianMpoDuals) -> tuple[EStep, EStep | None]:
    """Reweight the samples by their values and, if there is a penalty, by minus their cost."""
    log_prior = -math.log(len(x.sample_q_values))  # each sample has the prior probability 1 / S
    improved = e_step(x.sample_q_values, log_prior, values.temperature, x.epsilon, axis=0)
    if values.penalty_temperature is None:
        return improved, None
    actions = x.sample_actions
    minimum = jnp.broadcast_to(x.action_minimum, actions.shape)
    maximum = jnp.broadcast_to(x.action_maximum, actions.shape)
    cost = jnp.linalg.norm(actions - jnp.clip(actions, minimum, maximum), axis=-1)
    penalty = e_step(-cost, log_prior, values.penalty_temperature, x.epsilon_penalty, axis=0)
    return improved, penalty


def _log_probs(x: _Inputs) -> jax.Array:
    """Return log-densities `[S, ...]` under the online mean plus those under the online stddev."""
    return _log_prob(x.sample_actions, x.online_mean, x.target_stddev) + _log_prob(
        x.sample_actions, x.target_mean, x.online_stddev
    )


def _log_prob(x: jax.Array, mean: jax.Array, stddev: jax.Array) -> jax.Array:
    """Return log-densities `[S, ...]` of samples `[S, ..., D]` for parameters of `[..., D]`."""
    energy = 0.5 * jnp.square((x - mean[None]) / stddev[None])
    return -jnp.sum(energy + jnp.log(stddev)[None] + 0.5 * math.log(2 * math.pi), axis=-1)


class _Constrained(NamedTuple):
    """A KL, `[...]` or `[..., D]`, and the losses `[...]` of its constraint."""

    kl: jax.Array
    kl_loss: jax.Array
    alpha_loss: jax.Array


def _constrain(kl: jax.Array, alpha: jax.Array, epsilon: jax.Array) -> _Constrained:
    """Constrain a KL of `[..., D]`: each dimension if alpha is `[D]`, otherwise the sum."""
    kl = kl if alpha.ndim else jnp.sum(kl, axis=-1)
    return _Constrained(kl, *constraint_losses(kl, alpha, epsilon, per_dimension=alpha.ndim > 0))


def _constrain_mean(x: _Inputs, values: GaussianMpoDuals) -> _Constrained:
    kl = 0.5 * jnp.square((x.online_mean - x.target_mean) / x.target_stddev)
    return _constrain(kl, values.alpha_mean, x.epsilon_mean)


def _constrain_stddev(x: _Inputs, values: GaussianMpoDuals) -> _Constrained:
    log_ratio = jnp.log(x.target_stddev / x.online_stddev)
    # expm1 keeps the precision of a ratio that is nearly 1.
    kl = 0.5 * jnp.expm1(2 * log_ratio) - log_ratio
    return _constrain(kl, values.alpha_stddev, x.epsilon_stddev)
