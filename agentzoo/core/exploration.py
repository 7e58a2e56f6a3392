"""Noise for actions and priors, and intrinsic rewards for novelty.

Priors are `[..., A]`, with any leading axes. Each function consumes the key that it is given.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._operator import ShapeError, floats, operator, same_shape, values_of
from agentzoo.core.episodic_memory import knn_query

__all__ = [
    "IntrinsicRewardState",
    "OUStep",
    "add_dirichlet_noise",
    "add_gaussian_noise",
    "add_ornstein_uhlenbeck_noise",
    "episodic_memory_intrinsic_rewards",
    "ou_step",
]


@operator
def add_gaussian_noise(key: jax.Array, action: ArrayLike, stddev: ArrayLike) -> jax.Array:
    """Add independent Gaussian noise, `action + stddev * N(0, 1)`.

    Args:
      key: a PRNG key.
      action: array of any shape.
      stddev: standard deviation, a scalar or of the shape of `action`.

    Returns:
      The noisy action, which may lie outside the action space.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    same_shape("add_gaussian_noise", jnp.shape(action), stddev=stddev)
    action, stddev = floats(action=action, stddev=stddev)
    return action + stddev * jax.random.normal(key, action.shape, action.dtype)


class OUStep(NamedTuple):
    """The result of `ou_step`.

    Attributes:
      action: noisy action, `action + noise`.
      noise: state of the noise, which is the `noise_tm1` of the next step.
    """

    action: jax.Array
    noise: jax.Array


@operator
def ou_step(
    key: jax.Array, action: ArrayLike, noise_tm1: ArrayLike, damping: ArrayLike, stddev: ArrayLike
) -> OUStep:
    """Add noise that is correlated over time.

    The noise is `noise = (1 - damping) * noise_tm1 + stddev * N(0, 1)`, an Ornstein-Uhlenbeck
    process with steps of one, as in "Continuous control with deep reinforcement learning" by
    Lillicrap et al. (2015, https://arxiv.org/abs/1509.02971, section 7). Its variance approaches
    `stddev^2 / (1 - (1 - damping)^2)`. An episode begins with zeros, or with a sample of that
    variance.

    Args:
      key: a PRNG key.
      action: array of any shape.
      noise_tm1: noise of the previous step, in the shape of `action`.
      damping: fraction of the noise that is forgotten in each step, a scalar or of the shape of
        `action`. With 1, the noise is independent.
      stddev: standard deviation of the noise that is added in each step, a scalar or of the shape
        of `action`.

    Returns:
      The noisy action, and the noise that the next step needs.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    same_shape("ou_step", jnp.shape(action), noise_tm1=noise_tm1, damping=damping, stddev=stddev)
    action, noise_tm1, damping, stddev = floats(
        action=action, noise_tm1=noise_tm1, damping=damping, stddev=stddev
    )
    noise = (1 - damping) * noise_tm1 + stddev * jax.random.normal(key, action.shape, action.dtype)
    return OUStep(action + noise, noise)


@operator
def add_ornstein_uhlenbeck_noise(
    key: jax.Array, action: ArrayLike, noise_tm1: ArrayLike, damping: ArrayLike, stddev: ArrayLike
) -> jax.Array:
    """Return only the noisy action of `ou_step`, as RLax does.

    Prefer `ou_step`, which also returns the noise that the next step needs.

    Args:
      key: a PRNG key.
      action: array of any shape.
      noise_tm1: noise of the previous step: the returned action of that step minus its `action`.
      damping: as in `ou_step`.
      stddev: as in `ou_step`.

    Returns:
      The noisy action.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    return ou_step(key, action, noise_tm1, damping, stddev).action


@operator
def add_dirichlet_noise(
    key: jax.Array,
    prior: ArrayLike,
    dirichlet_alpha: ArrayLike,
    dirichlet_fraction: ArrayLike,
    mask: ArrayLike | None = None,
) -> jax.Array:
    """Mix a prior over actions with symmetric Dirichlet noise.

    The result is `(1 - fraction) * prior + fraction * Dirichlet(alpha)`. See "Mastering the Game of
    Go without Human Knowledge" by Silver et al. (2017, https://doi.org/10.1038/nature24270, "Search
    algorithm"). "Mastering Chess and Shogi by Self-Play" (2017, https://arxiv.org/abs/1712.01815)
    uses a fraction of 0.25 and an alpha of 0.3 for chess, 0.15 for shogi and 0.03 for Go.

    Args:
      key: a PRNG key.
      prior: `[..., A]` probabilities.
      dirichlet_alpha: concentration of the noise, a scalar. A value below 1 favours a few actions.
      dirichlet_fraction: weight of the noise, a scalar.
      mask: `[..., A]`, True where an action is legal. Illegal actions get no noise.

    Returns:
      `[..., A]` noisy probabilities.

    Raises:
      ShapeError: if shapes do not fit together.
    """
    values_of("add_dirichlet_noise", prior=prior)
    same_shape(
        "add_dirichlet_noise",
        (),
        dirichlet_alpha=dirichlet_alpha,
        dirichlet_fraction=dirichlet_fraction,
    )
    prior, alpha, fraction = floats(
        prior=prior, dirichlet_alpha=dirichlet_alpha, dirichlet_fraction=dirichlet_fraction
    )
    # A Dirichlet sample is a normalised sample of Gammas. For a small alpha, most Gammas underflow
    # to zero, but their logarithms do not.
    log_gammas = jax.random.loggamma(key, alpha, prior.shape, prior.dtype)
    if mask is not None:
        values_of("add_dirichlet_noise", prior=prior, mask=mask)
        log_gammas = jnp.where(mask, log_gammas, -jnp.inf)
    return (1 - fraction) * prior + fraction * jax.nn.softmax(log_gammas)


class IntrinsicRewardState(NamedTuple):
    """The state of `episodic_memory_intrinsic_rewards`.

    Attributes:
      memory: `[N, D]` embeddings. A row of infinities is empty.
      next_memory_index: row in which the next embedding is stored.
      distance_sum: sum of all squared distances to nearest neighbours so far.
      distance_count: number of distances in the sum.
    """

    memory: jax.Array
    next_memory_index: jax.Array | int = 0
    distance_sum: jax.Array | float = 0
    distance_count: jax.Array | int = 0


@operator(static=("num_neighbors", "max_memory_size"))
def episodic_memory_intrinsic_rewards(
    embeddings: ArrayLike,
    num_neighbors: int,
    reward_scale: ArrayLike,
    intrinsic_reward_state: IntrinsicRewardState | None = None,
    constant: ArrayLike = 1e-3,
    epsilon: ArrayLike = 1e-4,
    cluster_distance: ArrayLike = 8e-3,
    max_similarity: ArrayLike = 8.0,
    max_memory_size: int = 30_000,
) -> tuple[jax.Array, IntrinsicRewardState]:
    """Reward embeddings that are far from the other embeddings of the episode.

    With the squared distances `d_k` to the nearest neighbours in the memory, and the mean `d_m` of
    all such distances so far::

        kernel_k = epsilon / (max(d_k / (d_m + constant) - cluster_distance, 0) + epsilon)
        similarity = sqrt(sum_k kernel_k) + constant
        reward = reward_scale / similarity, or 0 where similarity > max_similarity

    See "Never Give Up: Learning Directed Exploration Strategies" by Badia et al. (2020,
    https://arxiv.org/abs/2002.06038, equations 2 and 3 and algorithm 1), which is also the source
    of the defaults. A call compares all its embeddings with the memory before the call, and then
    replaces the oldest embeddings in the memory by them.

    Args:
      embeddings: `[B, D]`.
      num_neighbors: number of nearest neighbours.
      reward_scale: scale of the rewards, a scalar.
      intrinsic_reward_state: state returned by the previous call. None begins an episode, with
        `num_neighbors` zeros in the memory.
      constant: number added to the similarity and to the mean distance, so that neither is zero.
      epsilon: width of the kernel, a scalar.
      cluster_distance: relative squared distance below which two embeddings count as equal.
      max_similarity: similarity above which there is no reward.
      max_memory_size: number of rows of a new memory. An existing memory keeps its size.

    Returns:
      `[B]` rewards, and the state for the next call.

    Raises:
      ShapeError: if shapes do not fit together, or a memory is smaller than `num_neighbors`.
    """
    name = "episodic_memory_intrinsic_rewards"
    if jnp.ndim(embeddings) != 2:
        raise ShapeError(
            f"{name}: 'embeddings' must have shape [B, D], but has shape {jnp.shape(embeddings)}."
        )
    scalars = {"reward_scale": reward_scale, "constant": constant, "epsilon": epsilon}
    same_shape(
        name, (), **scalars, cluster_distance=cluster_distance, max_similarity=max_similarity
    )
    (embeddings,) = floats(embeddings=embeddings)
    batch_size, dimension = embeddings.shape
    state = intrinsic_reward_state
    if state is None:
        memory = jnp.full((max_memory_size, dimension), jnp.inf, embeddings.dtype)
        state = IntrinsicRewardState(memory.at[:num_neighbors].set(0))
    size = jnp.shape(state.memory)[0]
    if jnp.shape(state.memory) != (size, dimension) or size < num_neighbors:
        raise ShapeError(
            f"{name}: the memory must have shape [N, {dimension}] with N >= {num_neighbors}, but "
            f"has shape {jnp.shape(state.memory)}."
        )

    distances = -knn_query(state.memory, embeddings, num_neighbors).neighbor_neg_distances
    found = jnp.isfinite(distances)  # an empty row is not a neighbour
    distance_sum = state.distance_sum + jnp.sum(distances, where=found)
    distance_count = state.distance_count + jnp.sum(found)
    relative = distances / (distance_sum / jnp.maximum(distance_count, 1) + constant)
    kernel = epsilon / (jnp.maximum(relative - cluster_distance, 0) + epsilon)
    similarity = jnp.sqrt(jnp.sum(kernel, axis=-1)) + constant
    rewards = jnp.where(similarity > max_similarity, 0, reward_scale / similarity)

    # The memory is a ring: the next rows after the newest one, modulo its size, hold the oldest
    # embeddings. If there are more embeddings than rows, only the last ones are kept.
    kept = min(batch_size, size)
    rows = (state.next_memory_index + batch_size - kept + jnp.arange(kept)) % size
    memory = jnp.asarray(state.memory).at[rows].set(embeddings[batch_size - kept :])
    next_index = (state.next_memory_index + batch_size) % size
    return rewards, IntrinsicRewardState(memory, next_index, distance_sum, distance_count)
