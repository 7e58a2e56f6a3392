"""Training several agents at once: seeds, and hyperparameters that are numbers, as one program where environments can be compiled."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentzoo import progress
from agentzoo.algos.base import Algorithm, interrupt_between_cycles, spec_from_json, spec_to_json
from agentzoo.callbacks import BaseCallback
from agentzoo.progress import Budget
from agentzoo.runners import DeviceRunner, GroupRunner, RunState, stack, unstack
from agentzoo.types import Agent, ConfigurationError, PyTree, TrainingError


class Curve(NamedTuple):
    """How an agent learned.

    Attributes:
      timesteps: `[L]` environment steps.
      returns: `[L]` mean return of the last 100 training episodes at those steps; NaN before the
        first.
    """

    timesteps: np.ndarray
    returns: np.ndarray


def learn_together(
    agents: Sequence[Algorithm],
    total_timesteps: float,
    log_interval: int = 1_000,
    progress_bar: bool = True,
    reset_num_timesteps: bool = True,
) -> list[Curve]:
    """Trains several agents, each of which learns what `agent.learn` would have taught it.

    Agents of the same class in the same functional environment that differ only in their seeds, and
    in hyperparameters that are floats (a learning rate, gamma, ...), learn side by side in one
    program. Others learn one after the other.

    Args:
      agents: the agents, such as `[DQN(env, seed=seed) for seed in range(8)]`.
      total_timesteps: environment steps of each agent.
      log_interval: environment steps between two points of the curves, and entries of the logs.
      progress_bar: show the steps of all agents, as `learn` shows its own.
      reset_num_timesteps: as for `learn`.

    Returns:
      The curve of each agent.

    Raises:
      ConfigurationError: if an argument is out of range, an agent appears twice, or one was loaded
        without an environment.
    """
    if len({id(agent) for agent in agents}) < len(agents):
        raise ConfigurationError("An agent appears twice; make as many agents as there are to be.")
    for agent in agents:
        agent._check_run(total_timesteps, log_interval, reset_num_timesteps)
    groups: dict[Any, list[int]] = {}
    for i, agent in enumerate(agents):
        groups.setdefault(_kind(agent), []).append(i)
    curves: list[Any] = [None] * len(agents)
    budgets = []
    for agent in agents:
        first = 0 if reset_num_timesteps else agent.num_timesteps
        budgets.append(agent._budget(first, first + int(total_timesteps)))
    bar = _Bar(agents, budgets) if progress_bar else None
    move = _nothing if bar is None else bar.move
    try:
        for indices in groups.values():
            group = [agents[i] for i in indices]
            runner = _one_program(group) if len(group) > 1 else None
            learn = _learn_in_turn if runner is None else functools.partial(_learn_as_one, runner)
            learned = learn(group, total_timesteps, log_interval, reset_num_timesteps, move)
            for i, curve in zip(indices, learned, strict=True):
                curves[i] = curve
    finally:
        if bar is not None:
            bar.close()
    return curves


class _Bar:
    """One bar for the steps of all agents."""

    def __init__(self, agents: Sequence[Algorithm], budgets: Sequence[Budget]):
        each = zip(agents, budgets, strict=True)
        for note in dict.fromkeys(budget.note(type(agent).__name__) for agent, budget in each):
            if note is not None:
                progress.write(note)
        self._budgets = dict(zip(map(id, agents), budgets, strict=True))
        self._steps = {agent: budget.first for agent, budget in self._budgets.items()}
        self._progress = progress.Progress(f"{len(agents)} agents", 0, self._total())

    def _total(self) -> int:
        each = self._budgets.items()
        return sum(budget.end(self._steps[agent]) - budget.first for agent, budget in each)

    def move(self, agents: Sequence[Algorithm], step: int, due: bool) -> None:
        """Shows that agents have come to a step, and whether an entry of their logs is due."""
        self._steps.update(dict.fromkeys(map(id, agents), step))
        taken = sum(self._steps[agent] - budget.first for agent, budget in self._budgets.items())
        self._progress.move(taken, self._total(), due=due)

    def close(self) -> None:
        """Leaves the bar where it is."""
        self._progress.close()


def _nothing(*_: Any) -> None: ...


def _kind(agent: Any) -> Any:
    """Equal for agents that one program may train."""
    if not isinstance(agent._runner, DeviceRunner):
        return id(agent)
    plain = dataclasses.replace(agent.config, **dict.fromkeys(_numbers(agent.config), 0.0))
    return (
        type(agent),
        plain,
        agent._runner.env,
        agent.mesh,
        agent.n_envs,
        agent.network,
        agent.num_timesteps,
        agent._run.act_calls,
    )


def _numbers(config: Any) -> dict[str, float]:
    """The hyperparameters that are floats."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: value for name, value in values.items() if isinstance(value, float)}


def _differing(group: Sequence[Any]) -> dict[str, Any]:
    """The hyperparameters in which agents differ, `[S]`."""
    numbers = [_numbers(agent.config) for agent in group]
    return {
        name: jnp.array([each[name] for each in numbers])
        for name in numbers[0]
        if len({each[name] for each in numbers}) > 1
    }


@dataclasses.dataclass(frozen=True)
class _Maker:
    """Makes the agents of a group from the hyperparameters in which they differ.

    Equal ones make the same.
    """

    make_agent: Callable[..., Agent]
    config: Any
    spec: str
    network: Callable | None

    def __call__(self, values: dict[str, Any]) -> Agent:
        return self.make_agent(
            dataclasses.replace(self.config, **values), spec_from_json(self.spec), self.network
        )


def _one_program(group: Sequence[Any]) -> GroupRunner | None:
    """What trains all of them at once, if that is possible."""
    differing, first = _differing(group), group[0]
    config = dataclasses.replace(first.config, **dict.fromkeys(differing, 0.0))
    make_agent = _Maker(type(first).make_agent, config, spec_to_json(first.spec), first.network)
    runner = GroupRunner([agent._runner for agent in group], make_agent, differing)
    return None if differing and not runner.can_run(*_stacked(group)) else runner


def _stacked(group: Sequence[Any]) -> tuple[Any, Any]:
    """States and keys of the agents."""
    return stack([agent._run.learner_state for agent in group]), stack(
        [agent._run.key for agent in group]
    )


class _Recorder(BaseCallback):
    """Records the curve of an agent, and moves the bar of all."""

    def __init__(self, log_interval: int, move: Callable[..., None]):
        super().__init__()
        self.log_interval, self.move = log_interval, move
        self.points: list[tuple[int, float]] = []

    def next_step(self, step: int) -> float:
        """When the next point is due."""
        return (step // self.log_interval + 1) * self.log_interval

    def _on_training_start(self) -> None:
        self._recorded = self.num_timesteps // self.log_interval

    def _on_step(self) -> bool:
        step = self.num_timesteps
        due, self._recorded = step // self.log_interval > self._recorded, step // self.log_interval
        if due:
            self.points.append((step, self.model.ep_rew_mean))
        self.move([self.model], step, due)
        return True


def _learn_in_turn(
    group: Sequence[Any],
    total_timesteps: float,
    log_interval: int,
    reset: bool,
    move: Callable[..., None],
) -> list[Curve]:
    recorders = [_Recorder(log_interval, move) for _ in group]
    for agent, recorder in zip(group, recorders, strict=True):
        agent.learn(total_timesteps, recorder, log_interval, False, reset)
    return [_curve(recorder.points) for recorder in recorders]


def _curve(points: Sequence[tuple[int, float]]) -> Curve:
    return Curve(
        np.array([step for step, _ in points], int), np.array([mean for _, mean in points], float)
    )


def _learn_as_one(
    runner: GroupRunner,
    group: Sequence[Any],
    total_timesteps: float,
    log_interval: int,
    reset: bool,
    move: Callable[..., None],
) -> list[Curve]:
    total = group[0]._check_run(total_timesteps, log_interval, reset)
    points: list[list[tuple[int, float]]] = [[] for _ in group]
    cycle = None
    with contextlib.ExitStack() as turns:
        for agent in group:
            turns.enter_context(agent._turns.learning())
        for agent in group:
            agent._begin(reset)
        runner.rollout_state = stack([agent._runner.rollout_state for agent in group])
        run = RunState(*_stacked(group), *group[0]._run[2:])
        try:
            with interrupt_between_cycles() as interrupted:
                for cycle in runner.run(
                    run, total, lambda step: (step // log_interval + 1) * log_interval
                ):
                    due = cycle.run.step // log_interval > run.step // log_interval
                    before, run = run.learner_state.params, cycle.run
                    for agent, episodes, own in zip(group, cycle.episodes, points, strict=True):
                        agent._run = agent._run._replace(step=run.step, act_calls=run.act_calls)
                        agent._episodes.extend(episodes)
                        if due:
                            own.append((run.step, agent.ep_rew_mean))
                    if cycle.fault is not None:
                        run = run._replace(
                            learner_state=run.learner_state._replace(
                                params=_last_finite(run.learner_state.params, before)
                            )
                        )
                        raise TrainingError(cycle.fault)
                    if due:
                        _log(group, cycle.metrics)
                    move(group, run.step, due)
                    if any(agent._turns.is_awaited for agent in group):
                        _hand_over(group, run, runner)
                        for agent in group:
                            agent._turns.serve()
                    if interrupted():
                        raise KeyboardInterrupt
        finally:
            _hand_over(group, run, runner)
            if cycle is not None:
                _log(group, cycle.metrics)
            for agent in group:
                agent._end()
    return [_curve(own) for own in points]


def _hand_over(group: Sequence[Any], run: RunState, runner: GroupRunner) -> None:
    """Gives each agent its own part of what the program has computed."""
    for agent, state, worlds in zip(
        group, unstack(run.learner_state), unstack(runner.rollout_state), strict=True
    ):
        agent._run, agent._runner.rollout_state = agent._run._replace(learner_state=state), worlds


@jax.jit
def _last_finite(params: PyTree, before: PyTree) -> PyTree:
    """The parameters of each agent if they are finite, and else those before; all have a leading axis of agents."""
    finite = [jnp.isfinite(x).reshape(len(x), -1).all(axis=1) for x in jax.tree.leaves(params)]
    good = jnp.stack(finite).all(axis=0)  # [S]
    return jax.tree.map(
        lambda x, old: jnp.where(good.reshape(-1, *[1] * (x.ndim - 1)), x, old), params, before
    )


def _log(group: Sequence[Any], metrics: dict[str, Any]) -> None:
    metrics = jax.device_get(metrics)
    for i, agent in enumerate(group):
        agent._metrics = jax.tree.map(lambda values: values[i], metrics)  # noqa: B023 (called at once)
        agent.dump_logs()
        agent.logger.flush()
