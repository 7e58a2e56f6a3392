"""PopArt: normalised targets for a linear layer that preserve the layer's outputs.

A linear layer learns targets that are normalised by running statistics. When the statistics change,
the parameters of the layer change with them, so that its unnormalised outputs stay the same. Each
of K outputs (for example, tasks) has its own statistics. Targets and values `[...]` come with
indices of the same shape that say which output they belong to. `popart` and its parts, `art` and
`pop`, work on statistics and parameters that the caller keeps together. `PopArt` keeps them
together itself and is the safer choice. See "Learning values across many orders of magnitude" by
van Hasselt et al. (2016, https://arxiv.org/abs/1602.07714), and for several outputs "Multi-task
Deep Reinforcement Learning with PopArt" by Hessel et al. (2018, https://arxiv.org/abs/1809.04474).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from agentzoo.core._moments import AxisName, Moments, hashable, mix, moments
from agentzoo.core._operator import ShapeError, actions, floats, operator, same_shape
from agentzoo.core.arrays import AllSum, batched_index, one_hot

__all__ = [
    "PopArt",
    "PopArtOutput",
    "PopArtState",
    "art",
    "normalize",
    "pop",
    "popart",
    "unnormalize",
    "unnormalize_linear",
]

LinearParams = Mapping[str, Any]
"""Parameters of a linear layer: `w` of `[..., K]` and `b` of `[K]`."""


class PopArtState(NamedTuple):
    """Statistics of the targets of K outputs.

    Attributes:
      shift: `[K]` means.
      scale: `[K]` standard deviations, clipped to the bounds.
      second_moment: `[K]` mean squares.
      moments: the unclipped moments that the other fields are computed from. They are needed
        because `scale` may be clipped, and `second_moment - shift^2` has no correct digit if the
        mean is large. A state without them works, but with that error.
    """

    shift: ArrayLike
    scale: ArrayLike
    second_moment: ArrayLike
    moments: Moments | None = None


class PopArtOutput(NamedTuple):
    """An output of the linear layer.

    Attributes:
      normalized: what the layer computes and what its loss compares with normalised targets.
      unnormalized: the same value on the scale of the targets.
    """

    normalized: jax.Array
    unnormalized: jax.Array


@operator
def normalize(state: PopArtState, unnormalized: ArrayLike, indices: ArrayLike) -> jax.Array:
    """Normalise targets: `(unnormalized - shift[indices]) / scale[indices]`.

    Args:
      state: statistics of K outputs.
      unnormalized: `[...]` targets.
      indices: `[...]` the output that each target belongs to, or a scalar for all targets.

    Returns:
      `[...]`; NaN where an index is out of range.

    Raises:
      ShapeError: if the shapes differ.
      TypeError: if the indices are not integers.
    """
    unnormalized, shift, scale = floats(
        unnormalized=unnormalized, shift=state.shift, scale=state.scale
    )
    indices = _indices("normalize", indices, unnormalized.shape)
    return (unnormalized - _at(shift, indices)) / _at(scale, indices)


@operator
def unnormalize(state: PopArtState, normalized: ArrayLike, indices: ArrayLike) -> jax.Array:
    """Undo `normalize`: `scale[indices] * normalized + shift[indices]`.

    Args:
      state: statistics of K outputs.
      normalized: `[...]` values.
      indices: `[...]` the output that each value belongs to, or a scalar for all values.

    Returns:
      `[...]`; NaN where an index is out of range.

    Raises:
      ShapeError: if the shapes differ.
      TypeError: if the indices are not integers.
    """
    normalized, shift, scale = floats(normalized=normalized, shift=state.shift, scale=state.scale)
    indices = _indices("unnormalize", indices, normalized.shape)
    known = (indices >= 0) & (indices < shift.size)
    # `where` keeps compilers from fusing the product and the sum, so that the product is rounded.
    scaled = jnp.where(known, jnp.take(scale, indices, mode="clip") * normalized, jnp.nan)
    return scaled + jnp.take(shift, indices, mode="clip")


@operator
def unnormalize_linear(state: PopArtState, inputs: ArrayLike, indices: ArrayLike) -> PopArtOutput:
    """Select an output of the linear layer, and return it normalised and unnormalised.

    Args:
      state: statistics of K outputs.
      inputs: `[..., K]` outputs of the linear layer.
      indices: `[...]` the outputs to select, or a scalar for one output everywhere.

    Returns:
      `[...]` normalized and unnormalized values; NaN where an index is out of range.

    Raises:
      ShapeError: if the shapes are incompatible.
      TypeError: if the indices are not integers.
    """
    (inputs,) = floats(inputs=inputs)
    if inputs.shape[-1:] != jnp.shape(state.shift):
        raise ShapeError(
            f"unnormalize_linear: 'inputs' has shape {inputs.shape}. Pass an array of shape "
            f"[..., {jnp.size(state.shift)}]."
        )
    normalized = batched_index(inputs, _indices("unnormalize_linear", indices, inputs.shape[:-1]))
    return PopArtOutput(normalized, unnormalize(state, normalized, indices))


def art(
    state: PopArtState,
    targets: ArrayLike,
    indices: ArrayLike,
    step_size: ArrayLike,
    scale_lb: ArrayLike,
    scale_ub: ArrayLike,
    axis_name: AxisName = None,
    batch_step: str = "sequential",
) -> PopArtState:
    """Adapt the statistics to targets ("ART" in van Hasselt et al., section 2.2).

    For n targets of an output with mean m, the update is `shift += weight * (m - shift)`, and
    likewise for the second moment. The variance is updated separately by the formula of Chan, Golub
    and LeVeque (1979), so it is exact for any mean. `batch_step` sets the weight of n targets:

    * "sequential": `1 - (1 - step_size)^n`, the weight of n updates with one target each.
    * "mean": `step_size`.
    * "sum": `n * step_size`, as in RLax. It is close to "sequential" if it is small. If it is
      above 1, the mean overshoots and the variance turns negative.

    Args:
      state: statistics of K outputs.
      targets: `[...]` of any shape.
      indices: `[...]` the output that each target belongs to, or a scalar for all targets. Targets
        with an index out of range do not count.
      step_size: weight of one target, in [0, 1]; a scalar or `[K]`.
      scale_lb: lower bound of the scale; a scalar or `[K]`.
      scale_ub: upper bound of the scale; a scalar or `[K]`.
      axis_name: a mapped axis, or several, over which the targets are divided.
      batch_step: "sequential", "mean" or "sum".

    Returns:
      The new statistics.

    Raises:
      ShapeError: if the shapes differ.
      TypeError: if the indices are not integers.
      ValueError: if `batch_step` is unknown.
    """
    return _art(
        state, targets, indices, step_size, scale_lb, scale_ub, hashable(axis_name), batch_step
    )


@operator(static=("axis_name", "batch_step"))
def _art(
    state, targets, indices, step_size, scale_lb, scale_ub, axis_name, batch_step
) -> PopArtState:
    targets, shift, second_moment = floats(
        targets=targets, shift=state.shift, second_moment=state.second_moment
    )
    indices = _indices("art", indices, targets.shape)
    same_shape("art", shift.shape, step_size=step_size, scale_lb=scale_lb, scale_ub=scale_ub)

    def total(values):
        return _cross_replica_scatter_add(jnp.zeros_like(shift), indices, values, axis_name)

    count = total(jnp.ones_like(targets))
    old = state.moments or Moments(shift, jnp.zeros_like(shift), second_moment - jnp.square(shift))
    share = _at(1 / jnp.maximum(count, 1), indices)
    batch = moments(targets, lambda x: total(x * share), lambda mean: _at(mean, indices))
    weights = {
        "sequential": jnp.where(count == 0, 0, -jnp.expm1(count * jnp.log1p(-step_size))),
        "mean": jnp.where(count == 0, 0, step_size),
        "sum": count * step_size,
    }
    if batch_step not in weights:
        raise ValueError(
            f"art: batch_step={batch_step!r} is unknown. Choose 'sequential', 'mean' or 'sum'."
        )
    new = mix(old, batch, 1 - weights[batch_step], weights[batch_step])
    scale = jnp.clip(jnp.sqrt(jnp.maximum(new.variance, 0)), scale_lb, scale_ub)
    return PopArtState(new.mean, scale, new.variance + jnp.square(new.mean), state.moments and new)


def pop(params: LinearParams, old: PopArtState, new: PopArtState) -> dict[str, Any]:
    """Update the parameters of the linear layer so that its unnormalised outputs stay the same.

    This is "POP" in van Hasselt et al., section 2.1: `w <- w * old.scale / new.scale` and
    `b <- (old.scale * b + old.shift - new.shift) / new.scale`, so that `scale * (x w + b) + shift`
    does not change.

    Args:
      params: `w` of `[..., K]` and `b` of `[K]`. If the statistics have a single output, all
        outputs of the layer share it, such as the action values of one task.
      old: the statistics that the parameters belong to.
      new: the statistics that the new parameters will belong to.

    Returns:
      Parameters with the new `w` and `b`.

    Raises:
      ShapeError: if the shapes are incompatible.
    """
    w, b = _pop(params["w"], params["b"], old, new)
    return {**params, "w": w, "b": b}


@operator
def _pop(
    w: ArrayLike, b: ArrayLike, old: PopArtState, new: PopArtState
) -> tuple[jax.Array, jax.Array]:
    shape, outputs = jnp.shape(old.shift), jnp.shape(b)
    if jnp.shape(new.shift) != shape:
        raise ShapeError(
            f"pop: 'new' has {jnp.shape(new.shift)} outputs. Pass statistics with as many outputs "
            f"as 'old', {shape}."
        )
    for name, found in [("params['w']", jnp.shape(w)[-1:]), ("params['b']", outputs)]:
        if len(outputs) != 1 or found != (outputs if shape == (1,) else shape):
            raise ShapeError(
                f"pop: {name!r} has {found} outputs. Pass parameters with as many outputs as "
                f"'old', {shape}."
            )
    ratio = jnp.divide(old.scale, new.scale)
    new_w = jnp.multiply(w, jnp.broadcast_to(ratio, jnp.shape(w)))
    new_b = jnp.multiply(b, ratio) + jnp.subtract(old.shift, new.shift) / new.scale
    return new_w, new_b


def popart(
    num_outputs: int,
    step_size: ArrayLike | None,
    scale_lb: ArrayLike,
    scale_ub: ArrayLike,
    axis_name: AxisName = None,
    batch_step: str = "sequential",
) -> tuple[
    Callable[[], PopArtState],
    Callable[[LinearParams, PopArtState, ArrayLike, ArrayLike], tuple[LinearParams, PopArtState]],
]:
    """Return functions that apply `art` and then `pop`.

    The learner must keep both results of an update, because the parameters belong to the
    statistics. `PopArt` makes this mistake impossible.

    Args:
      num_outputs: the number K of outputs.
      step_size: see `art`. With None, an update changes nothing.
      scale_lb: lower bound of the scale.
      scale_ub: upper bound of the scale.
      axis_name: a mapped axis, or several, over which the targets are divided.
      batch_step: see `art`.

    Returns:
      `initial_state() -> state`, with shift 0 and scale 1, and
      `update(params, state, targets, indices) -> (params, state)`.
    """

    def initial_state() -> PopArtState:
        zeros, ones = jnp.zeros(num_outputs), jnp.ones(num_outputs)
        return PopArtState(zeros, ones, ones, Moments(zeros, zeros, ones))

    def update(
        params: LinearParams, state: PopArtState, targets: ArrayLike, indices: ArrayLike
    ) -> tuple[LinearParams, PopArtState]:
        if step_size is None:
            return params, state
        new = art(state, targets, indices, step_size, scale_lb, scale_ub, axis_name, batch_step)
        return pop(params, state, new), new

    return initial_state, update


class PopArt(NamedTuple):
    """A linear layer together with the statistics that its parameters belong to.

    Parameters and statistics change together: `update` changes both and preserves all unnormalised
    outputs. A gradient step replaces only `params`, in the result of `update`::

        pop_art = pop_art.update(targets, indices)

        def loss_fn(params):
            return loss(pop_art._replace(params=params).apply(features, indices))

        grads = jax.grad(loss_fn)(pop_art.params)
        pop_art = pop_art._replace(params=optax.apply_updates(pop_art.params, ...))

    Attributes:
      params: `w` of `[F, K]` and `b` of `[K]`, the parameters to learn.
      statistics: statistics of the targets of each output.
    """

    params: dict[str, jax.Array]
    statistics: PopArtState

    @classmethod
    def init(cls, key: jax.Array, num_inputs: int, num_outputs: int = 1) -> "PopArt":
        """Return a layer with random weights, shift 0 and scale 1.

        Args:
          key: a random key for `w`, whose elements have variance `1 / num_inputs`.
          num_inputs: the number F of features.
          num_outputs: the number K of outputs.
        """
        w = jax.random.normal(key, (num_inputs, num_outputs)) / jnp.sqrt(num_inputs)
        initial_state, _ = popart(num_outputs, None, 0, 0)
        return cls({"w": w, "b": jnp.zeros(num_outputs)}, initial_state())

    def apply(self, inputs: ArrayLike, indices: ArrayLike = 0) -> PopArtOutput:
        """Return the outputs of the layer for features.

        Args:
          inputs: `[..., F]` features.
          indices: `[...]` the outputs to select, or a scalar for one output everywhere.

        Returns:
          `[...]` normalized and unnormalized values.
        """
        outputs = jnp.asarray(inputs) @ self.params["w"]
        return unnormalize_linear(
            self.statistics, outputs + jnp.broadcast_to(self.params["b"], outputs.shape), indices
        )

    def normalize(self, targets: ArrayLike, indices: ArrayLike = 0) -> jax.Array:
        """Return normalised targets `[...]`, which the normalised output learns."""
        return normalize(self.statistics, targets, indices)

    def update(
        self,
        targets: ArrayLike,
        indices: ArrayLike = 0,
        step_size: ArrayLike | None = 3e-4,
        scale_lb: ArrayLike = 1e-4,
        scale_ub: ArrayLike = 1e6,
        axis_name: AxisName = None,
        batch_step: str = "sequential",
    ) -> "PopArt":
        """Adapt the statistics to targets, and the parameters to the statistics.

        See `art` for the arguments. The defaults are the choice of Hessel et al.
        """
        _, update = popart(
            jnp.size(self.statistics.shift), step_size, scale_lb, scale_ub, axis_name, batch_step
        )
        params, statistics = update(self.params, self.statistics, targets, indices)
        return PopArt(dict(params), statistics)


def _indices(operator_name: str, indices: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Return indices with the given shape; a scalar index is broadcast."""
    indices = jnp.asarray(indices)
    actions(operator_name, shape if indices.ndim else (), indices=indices)
    return jnp.broadcast_to(indices.astype(jnp.promote_types(indices.dtype, jnp.int32)), shape)


def _at(statistic: jax.Array, indices: jax.Array) -> jax.Array:
    """Return `statistic[indices]`, or NaN where an index is out of range."""
    # `take` counts negative indices from the end, so they are moved out of range.
    inside = jnp.where(indices < 0, statistic.size, indices)
    return jnp.take(statistic, inside, mode="fill", fill_value=jnp.nan)


def _cross_replica_scatter_add(
    source: ArrayLike, indices: ArrayLike, updates: ArrayLike, axis_name: AxisName
) -> jax.Array:
    """Return `source` with `source[indices] += updates` of all devices.

    Updates with an index out of range do not count.
    """
    source, indices = jnp.asarray(source), jnp.asarray(indices)
    updates = jnp.asarray(updates)
    here = one_hot(indices, source.size, bool)  # [..., K]
    all_sum, leading_axes = AllSum(hashable(axis_name)), tuple(range(indices.ndim))
    return source + all_sum(jnp.where(here, updates[..., None], 0), leading_axes)
