"""Numbers that are not finite: finding them after each training cycle, and saying what is wrong."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentzoo.types import Array, PyTree, Trajectory, resolve_metrics

LIKELY_CAUSES = (
    "Likely causes are a learning_rate that is too large, rewards or observations that are very "
    "large (try normalize_obs, normalize_reward, clip_reward or a wrapper), or a network of your "
    "own that divides by zero."
)

SKIPPED, IN_A_ROW = "train/skipped_updates", "train/skipped_in_a_row"
"""Metrics of agents that drop updates which are not finite; see `agentzoo.runners.skipping`."""
MOST_SKIPPED = 100
"""After so many training cycles in a row whose updates were dropped, training ends."""


def is_finite(params: PyTree, metrics: dict[str, Any]) -> Array:
    """Return whether parameters and losses are free of NaN and infinity.

    Losses are the metrics whose tags end in "loss". The result is also False if too many updates
    have been dropped because they were not finite.
    """
    losses = {tag: value for tag, value in metrics.items() if tag.endswith("loss")}
    leaves = jax.tree.leaves((params, losses))
    leaves = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    finite = jnp.stack([jnp.isfinite(x).all() for x in leaves]).all() if leaves else jnp.bool_(True)
    return finite & (metrics[IN_A_ROW] < MOST_SKIPPED) if IN_A_ROW in metrics else finite


def describe_fault(params: PyTree, metrics: dict[str, Any], step: int) -> str:
    """Return a message that names the numbers for which `is_finite` is False after a cycle."""
    values = resolve_metrics(metrics)
    if values.get(IN_A_ROW, 0) >= MOST_SKIPPED:
        return (
            f"Training ended at step {step} because the updates of {MOST_SKIPPED} training cycles "
            f"in a row were not finite and were skipped. {LIKELY_CAUSES}"
        )
    bad = [f"{tag} is {value}" for tag, value in values.items() if not np.isfinite(value)]
    if not bad:
        named = jax.tree_util.tree_leaves_with_path(jax.device_get(params))
        leaves = [path for path, x in named if not np.isfinite(np.asarray(x, float)).all()]
        bad = [f"the parameter {jax.tree_util.keystr(path)} is not finite" for path in leaves[:1]]
    because = ", ".join(bad) or "a parameter is not finite"
    return f"Training ended at step {step} because {because}. {LIKELY_CAUSES}"


class Faults(NamedTuple):
    """The first number in a chunk of cycles that was not finite, as int32 scalars.

    Attributes:
      cycle: the cycle of the chunk in which it appeared; -1 if there was none.
      kind: 0 if it was learned, 1 if it was a reward, 2 if it was in an observation.
      t: the step of the trajectory from which the reward or observation came.
      n: the environment from which it came.
    """

    cycle: Array
    kind: Array
    t: Array
    n: Array


def no_fault() -> Faults:
    """Return the faults of a chunk in which all numbers are finite."""
    return Faults(jnp.int32(-1), jnp.int32(0), jnp.int32(0), jnp.int32(0))


def find_fault(trajectory: Trajectory) -> tuple[Trajectory, Faults]:
    """Look for rewards and observations that are not finite.

    Returns:
      The trajectory with 0 in their places, so that the parameters stay finite until the run is
      stopped; and the first fault, whose `cycle` is 0 if there is one.
    """
    num_envs = trajectory.r_t.shape[1]

    def is_wrong(x: Array) -> Array:  # [T, N]
        return ~jnp.isfinite(x).reshape(*x.shape[:2], -1).all(axis=-1)

    def repair(x: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return jnp.where(jnp.isfinite(x), x, 0)

    obs = jax.tree.leaves((trajectory.obs_tm1, trajectory.obs_t))
    wrong_obs = [is_wrong(x) for x in obs if jnp.issubdtype(x.dtype, jnp.floating)]
    wrong_r_t = is_wrong(trajectory.r_t)
    wrong = functools.reduce(jnp.logical_or, wrong_obs, wrong_r_t).reshape(-1)
    first = jnp.argmax(wrong).astype(jnp.int32)  # index of (t, n) in the flattened [T * N]
    kind = jnp.where(wrong_r_t.reshape(-1)[first], 1, 2).astype(jnp.int32)
    cycle = jnp.where(wrong.any(), 0, -1).astype(jnp.int32)
    # Actions, extras and memory are repaired, too, since they follow from the observations.
    fault = Faults(cycle, kind, t=first // num_envs, n=first % num_envs)
    return jax.tree.map(repair, trajectory), fault
