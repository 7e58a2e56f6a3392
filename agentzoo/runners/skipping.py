"""Agents that drop updates which are not finite, and count them.

The agent's state gets another field, `skipped`, with the counts. So they are saved and resumed with
the state, and every program that learns keeps them.
"""

import functools
from collections import namedtuple
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from agentzoo.runners.faults import IN_A_ROW, SKIPPED, is_finite
from agentzoo.types import Agent, Array, Clock, Mean, Trajectory

OnNan = Literal["stop", "skip"]
_ADVANCING = ("replay", "key")
"""Fields of the state that go on although an update is dropped.

The transitions of the training cycle are not lost, and the next update draws others.
"""


class Skipped(NamedTuple):
    """How many training cycles had an update that was dropped, as int32 scalars.

    Attributes:
      total: all of them, since the agent was made.
      in_a_row: those after the last cycle that was learned from.
    """

    total: Array
    in_a_row: Array


def skipping(agent: Agent) -> Agent:
    """Return an agent that drops updates which are not finite.

    An update is dropped if a loss or the state after the training cycle is not finite. The replay
    buffer does not count: the runners check each reward and observation. A cycle whose update is
    dropped reports only the counts. After `MOST_SKIPPED` such cycles in a row, `is_finite` is False
    for what `learn` returns.

    Args:
      agent: the agent.
    """

    def init(key: Array) -> Any:
        return _with_counts(agent.init(key), Skipped(jnp.int32(0), jnp.int32(0)))

    def learn(state: Any, trajectory: Trajectory, clock: Clock) -> tuple[Any, dict[str, Any]]:
        before, skipped = type(state).plain(*state[:-1]), state.skipped
        after, metrics = agent.learn(before, trajectory, clock)
        learned = {name: x for name, x in after._asdict().items() if name != "replay"}
        is_good = is_finite(learned, metrics)

        def choose(new: Array, old: Array) -> Array:
            return jnp.where(is_good, new, old)

        kept = {name: getattr(before, name) for name in learned if name not in _ADVANCING}
        chosen = {name: jax.tree.map(choose, learned[name], old) for name, old in kept.items()}
        bad = jnp.where(is_good, 0, 1).astype(jnp.int32)
        skipped = Skipped(skipped.total + bad, (skipped.in_a_row + bad) * bad)
        metrics = {tag: _report(value, is_good) for tag, value in metrics.items()}
        counts = {SKIPPED: skipped.total, IN_A_ROW: skipped.in_a_row}
        return _with_counts(after._replace(**chosen), skipped), {**metrics, **counts}

    return agent._replace(init=init, learn=learn)


def _report(value: Any, is_good: Array) -> Mean:
    """Return a metric that does not exist if the update is dropped."""
    total, count = value if isinstance(value, Mean) else (value, jnp.int32(1))
    return Mean(jnp.where(is_good, total, 0), jnp.where(is_good, count, 0))


def _with_counts(state: Any, skipped: Skipped) -> Any:
    return _class_with_counts(type(state))(*state, skipped)


@functools.cache
def _class_with_counts(plain: Any) -> Any:
    """Return the NamedTuple of an agent's state with another field, `skipped`."""
    counting: Any = namedtuple(plain.__name__, (*plain._fields, "skipped"))
    counting.plain = plain
    return counting
