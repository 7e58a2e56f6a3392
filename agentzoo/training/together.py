"""Training several agents at once: as one program if possible, and one after the other if not."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentzoo import config as configs
from agentzoo import progress
from agentzoo.callbacks import BaseCallback, CallbackList
from agentzoo.progress import Budget
from agentzoo.runners import Cycle, DeviceRunner, GroupRunner, RunState, stack, unstack
from agentzoo.training.interrupts import FirstError, insist, interrupts
from agentzoo.training.plan import RunPlan
from agentzoo.training.trainer import Trainer
from agentzoo.types import ConfigurationError, PyTree, TrainingError

Move = Callable[[Sequence[Any], int, bool], None]
"""Shows that agents have come to a step, and whether an entry of their logs is due."""

Watch = Callable[[Any], None]
"""Called with an agent whenever an entry of its log is due."""


class Curve(NamedTuple):
    """How an agent learned.

    Attributes:
      timesteps: `[L]` environment steps.
      returns: `[L]` mean return of the last 100 training episodes at those steps; NaN before the
        first episode has ended.
    """

    timesteps: np.ndarray
    returns: np.ndarray


class Plan(NamedTuple):
    """How long agents train, and how often something is written.

    Attributes:
      total_timesteps: environment steps of each agent.
      log_interval: as for `learn`.
      reset_num_timesteps: as for `learn`.
      checkpoint_freq: as for `learn`.
      keep: as for `learn`; 0 if no checkpoints are written.
    """

    total_timesteps: float
    log_interval: int
    reset_num_timesteps: bool
    checkpoint_freq: float | None
    keep: int

    def next_stop(self, step: int) -> int:
        """Return the step at which the next entry of the log is due."""
        return (step // self.log_interval + 1) * self.log_interval


def learn_together(
    agents: Iterable[Any],
    total_timesteps: float,
    log_interval: int = 1_000,
    progress_bar: bool = True,
    reset_num_timesteps: bool = True,
    callback: Callable[[Any], None] | None = None,
    checkpoint_freq: float | None = None,
    keep: int = 2,
) -> list[Curve]:
    """Train several agents. Each learns what its own `learn` would have taught it.

    Agents of the same class in the same compiled environment learn side by side in one program if
    they differ only in their seeds, in hyperparameters that are floats, such as a learning rate or
    gamma, and in a few that count steps, such as `learning_starts`. Other agents learn one after
    the other, for example if their `batch_size` differs.

    Args:
      agents: the agents, such as `[DQN(env, seed=seed) for seed in range(8)]`.
      total_timesteps: environment steps of each agent.
      log_interval: environment steps between two points of the curves and entries of the logs.
      progress_bar: show the steps of all agents, as `learn` shows its own.
      reset_num_timesteps: as for `learn`.
      callback: called with each agent every `log_interval` steps, for example to evaluate it.
      checkpoint_freq: environment steps of an agent between two checkpoints in its run folder, as
        for `learn`. `agentzoo.resume` continues each run by itself.
      keep: how many of the last checkpoints are kept, as for `learn`.

    Returns:
      The curve of each agent.

    Raises:
      ConfigurationError: if an argument is out of range, an agent appears twice, or an agent was
        loaded without an environment.
    """
    agents = list(agents)  # it may be a generator
    keep = configs.integer("keep", keep, 1)
    plan = Plan(total_timesteps, log_interval, reset_num_timesteps, checkpoint_freq, keep)
    return train_together(agents, plan, progress_bar, callback)


def train_together(
    agents: Sequence[Any],
    plan: Plan,
    progress_bar: bool = True,
    watch: Watch | None = None,
) -> list[Curve]:
    """Train several agents as `learn_together` does.

    Args:
      agents: the agents.
      plan: how long they train, and how often something is written.
      progress_bar: show the steps of all agents.
      watch: called with each agent every `log_interval` steps.

    Returns:
      The curve of each agent.
    """
    if len({id(agent) for agent in agents}) < len(agents):
        raise ConfigurationError("An agent appears twice; create a separate agent for each entry.")
    budgets = []
    for agent in agents:
        total = agent.check_run(*plan[:3])
        _run_plan(plan, total, progress_bar)  # refuses what is out of range
        first = 0 if plan.reset_num_timesteps else agent.num_timesteps
        budgets.append(agent.trainer.budget(first, total))
    groups: dict[Any, list[int]] = {}
    for i, agent in enumerate(agents):
        groups.setdefault(_kind(agent), []).append(i)
    curves: list[Any] = [None] * len(agents)
    bar = _Bar(agents, budgets) if progress_bar else None
    move: Move = _nothing if bar is None else bar.move
    try:
        for indices in groups.values():
            group = [agents[i] for i in indices]
            learn = _learn_as_one if len(group) > 1 else _learn_in_turn
            for i, curve in zip(indices, learn(group, plan, move, watch), strict=True):
                curves[i] = curve
    finally:
        if bar is not None:
            bar.close()
    return curves


class _Bar:
    """One progress bar for the steps of all agents."""

    def __init__(self, agents: Sequence[Any], budgets: Sequence[Budget]):
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

    def move(self, agents: Sequence[Any], step: int, due: bool) -> None:
        """Show that agents have come to a step, and whether an entry of their logs is due."""
        self._steps.update(dict.fromkeys(map(id, agents), step))
        taken = sum(self._steps[agent] - budget.first for agent, budget in self._budgets.items())
        self._progress.move(taken, self._total(), due=due)

    def close(self) -> None:
        """Leave the bar where it is."""
        self._progress.close()


def _nothing(agents: Sequence[Any], step: int, due: bool) -> None: ...


def _kind(agent: Any) -> Any:
    """Return a value that is equal for agents that one program can train."""
    trainer: Trainer = agent.trainer
    if not isinstance(trainer.runner, DeviceRunner):
        return id(agent)
    run = trainer.run
    return (trainer.programs.make_agent, trainer.runner.env, trainer.placement.mesh, run.step,
            run.act_calls)  # fmt: skip


class _Recorder(BaseCallback):
    """Records the curve of an agent, and moves the bar of all agents."""

    def __init__(self, plan: Plan, move: Move, watch: Watch | None):
        super().__init__()
        self.plan = plan
        self.move = move
        self.watch = watch
        self.points: list[tuple[int, float]] = []

    def next_step(self, step: int) -> float:
        """Return the step at which the next point is due."""
        return self.plan.next_stop(step)

    def _on_training_start(self) -> None:
        self._recorded = self.num_timesteps // self.plan.log_interval

    def _on_step(self) -> bool:
        step = self.num_timesteps
        entries = step // self.plan.log_interval
        due = entries > self._recorded
        self._recorded = entries
        if due:
            self.points.append((step, self.model.ep_rew_mean))
        self.move([self.model], step, due)
        if due and self.watch is not None:
            self.watch(self.model)
        return True


def _curve(points: Sequence[tuple[int, float]]) -> Curve:
    timesteps = np.array([step for step, _ in points], int)
    return Curve(timesteps, np.array([mean for _, mean in points], float))


def _run_plan(plan: Plan, total: int, progress_bar: bool = False) -> RunPlan:
    """Return the plan of the run of each agent up to the step `total`, with checked arguments."""
    keep = max(plan.keep, 1)  # unused without checkpoints
    return RunPlan.make(total, plan.log_interval, plan.checkpoint_freq, keep, progress_bar)


def _learn_in_turn(
    group: Sequence[Any], plan: Plan, move: Move, watch: Watch | None
) -> list[Curve]:
    recorders = [_Recorder(plan, move, watch) for _ in group]
    for agent, recorder in zip(group, recorders, strict=True):
        total = agent.check_run(*plan[:3])
        agent.train_run(_run_plan(plan, total), None, plan.reset_num_timesteps, [recorder])
    return [_curve(recorder.points) for recorder in recorders]


def _learn_as_one(group: Sequence[Any], plan: Plan, move: Move, watch: Watch | None) -> list[Curve]:
    total = group[0].check_run(*plan[:3])
    trainers: list[Trainer] = [agent.trainer for agent in group]
    points: list[list[tuple[int, float]]] = [[] for _ in group]
    runner = _make_runner(trainers)
    with contextlib.ExitStack() as turns:
        for trainer in trainers:
            turns.enter_context(trainer.turns.learning())
        run_plan = _run_plan(plan, total) if plan.keep else None
        for trainer in trainers:
            trainer.begin(plan.reset_num_timesteps, run_plan, CallbackList([]))
        together = _Together(trainers, runner)
        writes = any(trainer.log.folder is not None for trainer in trainers)
        parts = FirstError()
        for i, trainer in enumerate(trainers):
            trainer.unsettled = functools.partial(together.settle, i)
        with interrupts(writes) as arrived:
            with parts:
                for cycle in runner.run(together.run, total, together.next_stop(plan)):
                    before = together.run.step
                    due = cycle.run.step // plan.log_interval > before // plan.log_interval
                    together.take_over(cycle)
                    if due:
                        together.dump_logs()
                        for agent, own in zip(group, points, strict=True):
                            own.append((cycle.run.step, agent.ep_rew_mean))
                    move(group, cycle.run.step, due)
                    if due and watch is not None:
                        together.hand_over()
                        for agent in group:
                            watch(agent)
                    together.finish_cycle()
                    together.serve()
                    arrived.check()
                for trainer in trainers:
                    trainer.has_finished = True
            arrived.must_wait = True
            with parts:
                together.recover()
            together.end(parts, hurry=arrived.terminated)
        arrived.conclude(parts)
    return [_curve(own) for own in points]


def _make_runner(trainers: Sequence[Trainer]) -> GroupRunner:
    """Return the runner that trains all of them, with a name for each in error messages."""
    numbers = [configs.to_json(trainer.recipe.config) for trainer in trainers]
    differing = [
        name for name in numbers[0] if any(one[name] != numbers[0][name] for one in numbers)
    ]
    labels = []
    for i, trainer in enumerate(trainers):
        own = [f"{name}={getattr(trainer.recipe.config, name)}" for name in differing]
        labels.append(", ".join([f"Of the agents that learn together, number {i}", *own]))
    return GroupRunner([_runner(trainer) for trainer in trainers], labels)


def _runner(trainer: Trainer) -> DeviceRunner:
    assert isinstance(trainer.runner, DeviceRunner)
    return trainer.runner


class _Together:
    """Several agents while one program trains them: their sessions with a leading axis of agents.

    Attributes:
      run: how far they have come. Its arrays have a leading axis S.
    """

    def __init__(self, trainers: Sequence[Trainer], runner: GroupRunner):
        self.trainers = trainers
        self.runner = runner
        self._metrics: dict[str, Any] | None = None
        runner.rollout_state = stack([_runner(trainer).rollout_state for trainer in trainers])
        states = stack([trainer.run.learner_state for trainer in trainers])
        keys = stack([trainer.run.key for trainer in trainers])
        first = trainers[0].run
        self.run = RunState(states, keys, first.step, first.act_calls)

    def take_over(self, cycle: Cycle) -> None:
        """Make the outcome of a cycle that of the agents, unless that has happened before.

        Raises:
          TrainingError: if something is not finite. Then each agent keeps its last parameters that
            were finite.
        """
        if cycle.run.act_calls == self.run.act_calls:
            return
        run = cycle.run
        if cycle.fault is not None:
            state = run.learner_state
            params = _last_finite(state.params, self.run.learner_state.params)
            run = run._replace(learner_state=state._replace(params=params))
        self._metrics = cycle.metrics
        for trainer, episodes in zip(self.trainers, cycle.episodes, strict=True):
            trainer.count(run.step, run.act_calls, episodes)
        self.run = run
        if cycle.fault is not None:
            raise TrainingError(cycle.fault)

    def recover(self) -> None:
        """Take over the last cycle if an exception came in between; see `Trainer.recover`."""
        cycle = insist(self.runner.finished)
        if cycle is not None:
            insist(lambda: self.take_over(cycle))

    def dump_logs(self) -> None:
        """Make an entry in the log of each agent."""
        if self._metrics is None:
            return
        metrics = jax.device_get(self._metrics)
        for i, trainer in enumerate(self.trainers):
            trainer.log.metrics = jax.tree.map(functools.partial(_row, i), metrics)
            trainer.dump_logs()
            trainer.log.logger.flush()

    def next_stop(self, plan: Plan) -> Callable[[int], float]:
        """Return a function from a step to the next one at which something is written."""
        checkpoints = [t.checkpoints for t in self.trainers if t.checkpoints is not None]

        def next_stop(step: int) -> float:
            return min(plan.next_stop(step), *(each.next_step(step) for each in checkpoints))

        return next_stop if checkpoints else plan.next_stop

    def finish_cycle(self) -> None:
        """Record that callbacks and logs have seen everything, and write checkpoints if due."""
        due = [trainer.is_due for trainer in self.trainers]
        if any(due):
            self.hand_over()
        for trainer, is_due in zip(self.trainers, due, strict=True):
            trainer.finish_cycle(is_due)

    def serve(self) -> None:
        """Let the threads take their turns that wait for one of the agents."""
        if any(trainer.turns.is_awaited for trainer in self.trainers):
            self.hand_over()
            for trainer in self.trainers:
                trainer.turns.serve()

    def hand_over(self) -> None:
        """Give each agent its own part of what the program has computed."""
        for trainer, state, rollout in self._parts():
            trainer.take_state(state)
            _runner(trainer).rollout_state = rollout

    def _parts(self) -> list[tuple[Trainer, Any, Any]]:
        """Return each trainer with its part of the learners' and of the environments' states."""
        states, rollouts = unstack(self.run.learner_state), unstack(self.runner.rollout_state)
        return list(zip(self.trainers, states, rollouts, strict=True))

    def settle(self, index: int) -> None:
        """Give one agent what it has learned; see `Trainer.settle`."""
        self.recover()
        trainer, state, rollout = self._parts()[index]
        trainer.take_state(state)
        _runner(trainer).rollout_state = rollout

    def end(self, parts: FirstError, hurry: bool) -> None:
        """Give the agents back what they have learned, and save them.

        Args:
          parts: keeps the errors.
          hurry: whether little time is left, as after SIGTERM.
        """
        with parts:
            insist(self.hand_over)
            for trainer in self.trainers:
                trainer.unsettled = None
        for trainer in self.trainers:
            with parts:
                trainer.stop()
        with parts:
            self.dump_logs()
        for trainer in self.trainers:
            with parts:
                trainer.end(hurry)


def _row(i: int, values: Any) -> Any:
    return values[i]


@jax.jit
def _last_finite(params: PyTree, before: PyTree) -> PyTree:
    """Return the parameters of each agent, or the ones before where they are not finite.

    All arrays have a leading axis of agents.
    """
    leaves = jax.tree.leaves(params)
    finite = [jnp.isfinite(x).reshape(len(x), -1).all(axis=1) for x in leaves]
    good = jnp.stack(finite).all(axis=0)  # [S]

    def choose(x: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(good.reshape(-1, *[1] * (x.ndim - 1)), x, old)

    return jax.tree.map(choose, params, before)
