"""Multi-armed bandits: algorithms that choose which of A arms to pull and see only its reward.

Each algorithm is a `Bandit`, a tuple of pure functions::

    state = bandit.init()
    arm = bandit.act(key, state)
    state = bandit.update(state, arm, reward)

A state is one learner. `jax.vmap` runs many learners, with different keys or hyperparameters. An
update with an arm that does not exist turns the state to NaN.
"""

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import operator
from agentzoo.core.arrays import one_hot
from agentzoo.core.distributions import categorical_sample, epsilon_greedy

__all__ = [
    "Bandit",
    "BetaPosterior",
    "GaussianPosterior",
    "LogWeights",
    "Preferences",
    "SampleMeans",
    "epsilon_greedy_bandit",
    "exp3_bandit",
    "gradient_bandit",
    "thompson_bernoulli_bandit",
    "thompson_gaussian_bandit",
    "ucb_bandit",
]


class Bandit(NamedTuple):
    """A bandit algorithm.

    Attributes:
      init: `() -> state`, the state before any pull.
      act: `(key, state) -> arm`, an index in `[0, A)`.
      update: `(state, arm, reward) -> state`, the state after a pull.
      probabilities: `(state) -> [A]`, the probability with which `act` pulls each arm. It is None
        for Thompson sampling, which has no formula for the probabilities.
    """

    init: Callable[[], Any]
    act: Callable[[jax.Array, Any], jax.Array]
    update: Callable[[Any, ArrayLike, ArrayLike], Any]
    probabilities: Callable[[Any], jax.Array] | None


class SampleMeans(NamedTuple):
    """Statistics of the rewards of each arm.

    Attributes:
      count: `[A]` number of pulls.
      mean: `[A]` average rewards.
    """

    count: jax.Array
    mean: jax.Array


class BetaPosterior(NamedTuple):
    """Beta distributions of the probability that each arm gives a reward.

    Attributes:
      alpha: `[A]` the prior's alpha plus the number of rewards.
      beta: `[A]` the prior's beta plus the number of pulls without a reward.
    """

    alpha: jax.Array
    beta: jax.Array


class GaussianPosterior(NamedTuple):
    """Gaussian distributions of the mean reward of each arm.

    Attributes:
      mean: `[A]` means.
      precision: `[A]` reciprocals of the variances.
    """

    mean: jax.Array
    precision: jax.Array


class LogWeights(NamedTuple):
    """The weights of EXP3.

    Attributes:
      log_weight: `[A]` logarithms of the weights, shifted so that the largest is 0.
    """

    log_weight: jax.Array


class Preferences(NamedTuple):
    """The state of a gradient bandit.

    Attributes:
      preference: `[A]` logits of the policy.
      baseline: average reward so far.
      count: number of rewards so far.
    """

    preference: jax.Array
    baseline: jax.Array
    count: jax.Array


def epsilon_greedy_bandit(
    num_arms: int, epsilon: ArrayLike | Callable[[jax.Array], ArrayLike]
) -> Bandit:
    """Return a bandit that pulls the best arm so far, or any arm with probability `epsilon`.

    The best arm has the largest average reward. An arm that was never pulled has average 0. See
    "Reinforcement Learning: An Introduction" by Sutton and Barto, section 2.4.

    With a constant epsilon, the regret grows linearly. With
    `epsilon=lambda t: c * num_arms / (d**2 * t)` it grows as log t, if c is large enough and d is
    the gap between the best arm and the second best. See "Finite-time Analysis of the Multiarmed
    Bandit Problem" by Auer et al. (2002, https://doi.org/10.1023/A:1013689704352, figure 3).

    Args:
      num_arms: the number A of arms.
      epsilon: a scalar, or a function of the number of the pull, which starts at 1. Values above 1
        count as 1.

    Returns:
      A `Bandit` whose states are `SampleMeans`.

    Raises:
      TypeError: if `num_arms` is not a Python integer of at least 1.
    """
    _check_arms("epsilon_greedy_bandit", num_arms)

    def probabilities(state):
        current = epsilon(jnp.sum(state.count) + 1) if callable(epsilon) else epsilon
        return epsilon_greedy(jnp.minimum(current, 1.0)).probs(state.mean)

    return _bandit(lambda: _no_samples(num_arms), _update_means, probabilities)


def ucb_bandit(num_arms: int, exploration: ArrayLike = 2.0) -> Bandit:
    """Return a bandit that pulls the arm with the largest upper confidence bound.

    The bound after t pulls is `mean + sqrt(exploration * log(t) / count)`. Each arm is pulled once
    first. With rewards in [0, 1] and `exploration=2` this is UCB1, whose expected regret after t
    pulls is at most `sum_a 8 log(t) / gap_a + (1 + pi^2 / 3) gap_a`, summed over the arms whose
    mean is `gap_a` below the best mean. See "Finite-time Analysis of the Multiarmed Bandit Problem"
    by Auer et al. (2002, https://doi.org/10.1023/A:1013689704352, figure 1 and theorem 1). For
    rewards with Gaussian noise, multiply `exploration` by four times the variance of the noise.

    Args:
      num_arms: the number A of arms.
      exploration: the square of the width of the confidence bounds. Smaller values explore less.

    Returns:
      A `Bandit` whose states are `SampleMeans`.

    Raises:
      TypeError: if `num_arms` is not a Python integer of at least 1.
    """
    _check_arms("ucb_bandit", num_arms)

    def probabilities(state):
        width = jnp.sqrt(
            exploration
            * jnp.log(jnp.maximum(jnp.sum(state.count), 1))
            / jnp.maximum(state.count, 1)
        )
        bound = jnp.where(state.count == 0, jnp.inf, state.mean + width)
        return epsilon_greedy(0.0).probs(bound)

    return _bandit(lambda: _no_samples(num_arms), _update_means, probabilities)


def thompson_bernoulli_bandit(
    num_arms: int, prior_alpha: ArrayLike = 1.0, prior_beta: ArrayLike = 1.0
) -> Bandit:
    """Return a bandit that does Thompson sampling for rewards of 0 or 1.

    It draws the probability of a reward from each arm's posterior and pulls the arm with the
    largest draw. A reward between 0 and 1 counts as a fraction of a success. See "On the Likelihood
    that One Unknown Probability Exceeds Another in View of the Evidence of Two Samples" by Thompson
    (1933, https://doi.org/10.2307/2332286), and "Analysis of Thompson Sampling for the Multi-armed
    Bandit Problem" by Agrawal and Goyal (2012, https://arxiv.org/abs/1111.1797, algorithm 1).

    Args:
      num_arms: the number A of arms.
      prior_alpha: alpha of the Beta prior, a scalar or `[A]`. With alpha and beta 1 the prior is
        uniform.
      prior_beta: beta of the Beta prior, a scalar or `[A]`.

    Returns:
      A `Bandit` whose states are `BetaPosterior`.

    Raises:
      TypeError: if `num_arms` is not a Python integer of at least 1.
    """
    _check_arms("thompson_bernoulli_bandit", num_arms)

    def init():
        return BetaPosterior(
            *(jnp.full(num_arms, prior, float) for prior in (prior_alpha, prior_beta))
        )

    def act(key, state):
        return jnp.argmax(jax.random.beta(key, state.alpha, state.beta))

    def update(state, arm, reward):
        pulled = _one_hot(arm, state.alpha)
        return BetaPosterior(state.alpha + pulled * reward, state.beta + pulled * (1 - reward))

    return Bandit(init, operator(act), operator(update), None)


def thompson_gaussian_bandit(
    num_arms: int,
    noise_std: ArrayLike = 1.0,
    prior_mean: ArrayLike = 0.0,
    prior_std: ArrayLike = 1.0,
) -> Bandit:
    """Return a bandit that does Thompson sampling for rewards with Gaussian noise.

    It draws the mean reward from each arm's posterior and pulls the arm with the largest draw. See
    "Further Optimal Regret Bounds for Thompson Sampling" by Agrawal and Goyal (2013,
    https://arxiv.org/abs/1209.3353, section 2.2).

    Args:
      num_arms: the number A of arms.
      noise_std: standard deviation of a reward around the mean of its arm.
      prior_mean: mean of the Gaussian prior of the mean rewards, a scalar or `[A]`.
      prior_std: standard deviation of the prior, a scalar or `[A]`.

    Returns:
      A `Bandit` whose states are `GaussianPosterior`.

    Raises:
      TypeError: if `num_arms` is not a Python integer of at least 1.
    """
    _check_arms("thompson_gaussian_bandit", num_arms)

    def init():
        return GaussianPosterior(
            jnp.full(num_arms, prior_mean, float),
            jnp.full(num_arms, 1 / jnp.square(prior_std), float),
        )

    def act(key, state):
        noise = jax.random.normal(key, state.mean.shape, state.mean.dtype)
        return jnp.argmax(state.mean + noise / jnp.sqrt(state.precision))

    def update(state, arm, reward):
        gained = _one_hot(arm, state.mean) / jnp.square(noise_std)
        precision = state.precision + gained
        return GaussianPosterior(state.mean + gained / precision * (reward - state.mean), precision)

    return Bandit(init, operator(act), operator(update), None)


def exp3_bandit(num_arms: int, gamma: ArrayLike) -> Bandit:
    """Return the EXP3 bandit, for rewards in [0, 1] that even an adversary may choose.

    EXP3 keeps exponential weights of importance-weighted rewards:
    `log_weight[arm] += gamma / A * reward / probability[arm]`. See "The Nonstochastic Multiarmed
    Bandit Problem" by Auer et al. (2002, https://doi.org/10.1137/S0097539701398375, figure 1). With
    `gamma = min(1, sqrt(A * log(A) / ((e - 1) * t)))` its regret to the best single arm after t
    pulls is at most `2.63 * sqrt(t * A * log(A))` (corollary 3.2).

    Args:
      num_arms: the number A of arms.
      gamma: the fraction of pulls that are uniform, in (0, 1], and the step size of the weights.

    Returns:
      A `Bandit` whose states are `LogWeights`.

    Raises:
      TypeError: if `num_arms` is not a Python integer of at least 1.
    """
    _check_arms("exp3_bandit", num_arms)

    def probabilities(state):
        return (1 - gamma) * jax.nn.softmax(state.log_weight) + gamma / num_arms

    def update(state, arm, reward):
        estimate = _one_hot(arm, state.log_weight) * reward / probabilities(state)
        log_weight = state.log_weight + gamma / num_arms * estimate
        return LogWeights(log_weight - jnp.max(log_weight))

    return _bandit(lambda: LogWeights(jnp.zeros(num_arms)), update, probabilities)


def gradient_bandit(num_arms: int, step_size: ArrayLike) -> Bandit:
    """Return a bandit with a softmax policy that ascends the gradient of the expected reward.

    An update is `preference += step_size * (reward - baseline) * (1[arm] - policy)`, where the
    baseline is the average of all earlier rewards. See "Simple Statistical Gradient-Following
    Algorithms for Connectionist Reinforcement Learning" by Williams (1992,
    https://doi.org/10.1007/BF00992696), and "Reinforcement Learning: An Introduction" by Sutton and
    Barto, equation 2.12.

    Args:
      num_arms: the number A of arms.
      step_size: the step size of the ascent. If it is too large, the policy settles on a bad arm.

    Returns:
      A `Bandit` whose states are `Preferences`.

    Raises:
      TypeError: if `num_arms` is not a Python integer of at least 1.
    """
    _check_arms("gradient_bandit", num_arms)

    def probabilities(state):
        return jax.nn.softmax(state.preference)

    def update(state, arm, reward):
        advantage = jnp.where(state.count == 0, 0, reward - state.baseline)
        preference = state.preference + step_size * advantage * (
            _one_hot(arm, state.preference) - probabilities(state)
        )
        count = state.count + 1
        return Preferences(preference, state.baseline + (reward - state.baseline) / count, count)

    return _bandit(
        lambda: Preferences(jnp.zeros(num_arms), jnp.zeros(()), jnp.zeros(())),
        update,
        probabilities,
    )


def _bandit(init, update, probabilities):
    return Bandit(
        init,
        operator(lambda key, state: categorical_sample(key, probabilities(state))),
        operator(update),
        operator(probabilities),
    )


def _check_arms(name, num_arms):
    # `Integral` includes NumPy's integers, such as `action_space.n`.
    if not isinstance(num_arms, numbers.Integral) or num_arms < 1:
        kind = "a JAX array" if isinstance(num_arms, jax.Array) else repr(num_arms)
        raise TypeError(
            f"{name}: 'num_arms' is {kind}. Pass a Python integer of at least 1, because the "
            f"number of arms must be known before compilation."
        )


def _no_samples(num_arms):
    return SampleMeans(jnp.zeros(num_arms), jnp.zeros(num_arms))


def _update_means(state, arm, reward):
    pulled = _one_hot(arm, state.count)
    count = state.count + pulled
    return SampleMeans(count, state.mean + pulled * (reward - state.mean) / jnp.maximum(count, 1))


def _one_hot(arm, like):
    """Return `[A]` with 1 for the arm and 0 for the others, or all NaN if there is no such arm."""
    hot = one_hot(arm, like.shape[0], like.dtype)
    return jnp.where(jnp.any(hot), hot, jnp.nan)
