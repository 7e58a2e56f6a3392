"""The training loop: what happens between training cycles."""

import contextlib
import math
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from agentzoo.callbacks import BaseCallback, Locals
from agentzoo.runners import Cycle
from agentzoo.training.interrupts import FirstError, Interrupts, interrupts
from agentzoo.training.plan import RunPlan
from agentzoo.training.trainer import Trainer
from agentzoo.types import EnvError


def train(
    trainer: Trainer,
    model: Any,
    plan: RunPlan,
    callback: BaseCallback,
    user_callback: BaseCallback,
    new: bool,
    watched: bool,
) -> None:
    """Train until an environment step, and save the agent at the end.

    Args:
      trainer: trains the agent.
      model: the agent as the user knows it, which callbacks get.
      plan: how long the run is, and what it writes.
      callback: all callbacks in one.
      user_callback: those of the user, whose state is kept.
      new: whether the run is a new one.
      watched: whether any callback is the user's. Only these callbacks need all of `locals`.

    Raises:
      TrainingError: if what was learned is not finite, or if an environment fails (`EnvError`).
      KeyboardInterrupt: after Ctrl-C, at the end of the cycle.
      SystemExit: after SIGTERM, if there is a run folder.
    """
    with trainer.turns.learning(), _say_what_is_kept(trainer):
        trainer.begin(new, plan, user_callback)
        parts = FirstError()
        with interrupts(trainer.log.folder is not None) as arrived:
            with parts:
                _run(trainer, model, plan, callback, new, watched, arrived)
            with parts:
                trainer.settle()
            with parts:
                trainer.end(hurry=arrived.terminated)
        arrived.conclude(parts)


@contextlib.contextmanager
def _say_what_is_kept(trainer: Trainer) -> Iterator[None]:
    """Return a context in which the error of an environment says what the agent keeps."""
    try:
        yield
    except EnvError as error:
        step, folder = trainer.run.step, trainer.log.folder
        error.kept = f"The agent keeps what it has learned up to step {step:,}"
        saved = folder is not None and (folder / "model.safetensors").is_file()
        error.kept += f" and is saved in {folder}." if saved else "."
        raise


def _run(
    trainer: Trainer,
    model: Any,
    plan: RunPlan,
    callback: BaseCallback,
    new: bool,
    watched: bool,
    arrived: Interrupts,
) -> None:
    assert trainer.runner is not None
    total, log_interval = plan.total, plan.log_interval
    callback.init_callback(model)
    locals_ = Locals(
        self=model,
        total_timesteps=total,
        log_interval=log_interval,
        reset_num_timesteps=new,
        budget=trainer.budget(trainer.run.step, total),
        episodes=[],
        infos=[],
        dones=[],
    )
    callback.on_training_start(locals_, {})
    trainer.restore_callbacks()
    entries = trainer.seen_step // log_interval  # of the log that are due so far
    checkpoints = trainer.checkpoints

    def next_stop(step: int) -> float:
        entry = (step // log_interval + 1) * log_interval
        checkpoint = math.inf if checkpoints is None else checkpoints.next_step(step)
        return min(entry, checkpoint, callback.next_step(step))

    parts = FirstError()
    trainer.unsettled = trainer.recover
    with parts:
        cycles = trainer.runner.run(trainer.run, total, next_stop)
        with _ending(cycles):
            callback.on_rollout_start()
            for cycle in _with_pending(trainer, cycles):
                trainer.take_over(cycle)
                callback.update_locals(_locals(trainer, cycle, watched))
                callback.on_rollout_end()
                proceed = callback.on_step()
                if trainer.run.step // log_interval > entries:
                    entries = trainer.run.step // log_interval
                    trainer.dump_logs()
                trainer.log.logger.flush()
                trainer.has_stopped = not proceed
                trainer.finish_cycle(trainer.is_due)
                trainer.turns.serve()
                arrived.check()
                if not proceed:
                    break
                callback.on_rollout_start()
        trainer.has_finished = True
    arrived.must_wait = True
    # The last cycle is taken over before it is saved, and saved before callbacks can fail.
    for end in (trainer.settle, trainer.stop, trainer.dump_logs, callback.on_training_end):
        with parts:
            end()
    parts.raise_it()


@contextlib.contextmanager
def _ending(cycles: Generator[Cycle, None, None]) -> Iterator[None]:
    """Return a context at the end of which a runner stops. It learns whether the process ends."""
    with contextlib.closing(cycles):
        try:
            yield
        except SystemExit as error:
            cycles.throw(error)  # raises it again


def _with_pending(trainer: Trainer, cycles: Iterator[Cycle]) -> Iterator[Cycle]:
    """Yield the training cycles, after the one that an interrupted run had not finished."""
    if trainer.pending is not None:
        trainer.log.metrics = trainer.pending.metrics
        yield trainer.pending
    if not trainer.has_stopped:
        yield from cycles


def _locals(trainer: Trainer, cycle: Cycle, watched: bool) -> dict[str, Any]:
    """Return the entries of the callbacks' `locals` that change with each cycle."""
    if not watched:
        return {"episodes": cycle.episodes}
    assert trainer.runner is not None
    num_envs = trainer.recipe.spec.num_envs
    infos: list[dict[str, Any]] = trainer.runner.infos() or [{} for _ in range(num_envs)]
    dones = [False] * num_envs
    for episode in cycle.episodes:
        if dones[episode.env]:
            # Another episode of this environment ended before: that one moves to the end.
            infos.append(infos[episode.env])
            dones.append(True)
        seconds = round(trainer.log.seconds, 6)
        outcome = {"r": episode.reward, "l": episode.length, "t": seconds}
        infos[episode.env] = {"episode": outcome, **episode.info}
        dones[episode.env] = True
    return {"episodes": cycle.episodes, "infos": infos, "dones": np.array(dones)}
