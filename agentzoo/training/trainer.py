"""What trains an agent: its functions, its environments, its session and its log."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from agentzoo import checkpoint
from agentzoo import config as configs
from agentzoo.callbacks import BaseCallback
from agentzoo.envs import (
    EnvLike,
    Envs,
    Guard,
    TrainingEnv,
    as_vector_env,
    class_name,
    has_dummy_steps,
    identify,
    is_custom,
    make_shared_envs,
    parts_of,
    spaces,
)
from agentzoo.progress import Budget
from agentzoo.runners import (
    Cycle,
    Episode,
    OnNan,
    Runner,
    RunnerName,
    RunState,
    check_runner,
    make_runner,
)
from agentzoo.sharding import Mesh, gather, make_mesh, replicate, shard
from agentzoo.training.checkpoints import Checkpoints
from agentzoo.training.interrupts import insist
from agentzoo.training.log import RunLog, host_index
from agentzoo.training.marks import Mark, cycle_from_json, cycle_to_json, plain_json
from agentzoo.training.plan import RunPlan
from agentzoo.training.policy import Policy
from agentzoo.training.recipe import Recipe
from agentzoo.training.regroup import Regrouped, regroup
from agentzoo.training.session import (
    EpisodeWindow,
    Session,
    load_session,
    save_session,
)
from agentzoo.training.turns import Turns
from agentzoo.types import (
    ConfigurationError,
    EnvSpec,
    PyTree,
    TrainingError,
)

_RESTARTS = "env/restarts"  # the tag of how often an environment was created again
_LARGE = 2**26  # bytes of a learner's state that takes noticeable time to save


class MadeEnvs(NamedTuple):
    """Environments, and what the user gave to make them."""

    given: EnvLike
    envs: Envs


class Placement(NamedTuple):
    """Where and how an agent trains.

    Attributes:
      runner: the name of the runner.
      n_actors: number of threads or processes that act.
      max_lag: how many trajectories each of them may be ahead of the learner.
      mesh: the devices that learn together; None for one device.
      guard: what is done about environments that fail.
      skips: whether updates that are not finite are dropped.
    """

    runner: RunnerName
    n_actors: int
    max_lag: int
    mesh: Mesh | None
    guard: Guard
    skips: bool

    @classmethod
    def make(
        cls,
        runner: Any,
        n_actors: Any,
        max_lag: Any,
        n_devices: Any,
        env_timeout: Any = None,
        on_env_error: Any = "raise",
        on_nan: Any = "stop",
    ) -> "Placement":
        """Check the arguments of a new agent, and find the devices.

        Raises:
          ConfigurationError: if an argument is out of range.
        """
        runner = configs.choice("runner", runner, RunnerName)
        n_actors = configs.integer("n_actors", n_actors, 1)
        max_lag = configs.integer("max_lag", max_lag)
        check_runner(runner, n_actors)
        guard = Guard.make(env_timeout, on_env_error)
        skips = configs.choice("on_nan", on_nan, OnNan) == "skip"
        return cls(runner, n_actors, max_lag, make_mesh(n_devices), guard, skips)

    def to_json(self) -> dict[str, Any]:
        """Return the arguments of `make` as plain JSON."""
        return {
            "runner": self.runner,
            "n_actors": self.n_actors,
            "max_lag": self.max_lag,
            "n_devices": 1 if self.mesh is None else self.mesh.size,
            "env_timeout": self.guard.timeout,
            "on_env_error": self.guard.on_error,
            "on_nan": "skip" if self.skips else "stop",
        }

    def make_envs(self, env: EnvLike, n_envs: int) -> MadeEnvs:
        """Make environments for all actors."""
        distant = self.runner == "ray"
        envs = make_shared_envs(env, n_envs, self.n_actors, distant, self.guard)
        return MadeEnvs(env, envs)

    def make_similar_envs(self, spec: EnvSpec, env: EnvLike, n_envs: Any) -> MadeEnvs:
        """Make environments for an agent that was made for others.

        Args:
          spec: what the agent knows of its environments.
          env: what the user gave.
          n_envs: number of environments; None keeps the number if environments are made here.

        Raises:
          ConfigurationError: if their spaces are not the ones that the agent was made for.
        """
        made = hasattr(env, "metadata") and not isinstance(env, type)
        if n_envs is None:
            n_envs = 1 if made else spec.num_envs
        new = self.make_envs(env, configs.integer("n_envs", n_envs, 1))
        new_spec = new.envs.spec
        if not all(map(spaces.fits, new_spec[:2], spec[:2])):
            raise ConfigurationError(
                f"The agent was made for {_describe(spec)}, but the new environment has "
                f"{_describe(new_spec)}; make a new agent."
            )
        return new


class Trainer:
    """Trains one agent, and keeps what it needs between runs.

    Args:
      recipe: what the agent is made of.
      placement: where and how it trains.
      log: the log of its runs.
      info_keywords: names of entries in the environments' `info` that are logged.
      without: parts of the learner's state that are not made until something needs them.

    Attributes:
      agent: the agent's functions.
      programs: the agent's functions, compiled.
      policy: chooses actions outside of training.
      envs: the environments; None after loading without environments.
      runner: moves trajectories between the environments and the agent, or None.
      turns: lets other threads wait for the end of a training cycle.
      seed_next_reset: whether the next reset seeds the environments.
      checkpoints: writes checkpoints during a run; None without a run folder.
      pending: the last training cycle of a resumed run, if callbacks and log had not seen it yet.
      last: the last training cycle of the run, or None.
      has_stopped: whether a callback has ended the run.
      has_finished: whether the run has come to its end without an exception.
      unsettled: takes over what the last run has learned. Exceptions may interrupt the end of a
        run, so it is called again until it has returned. None if it has returned.
    """

    def __init__(
        self,
        recipe: Recipe,
        placement: Placement,
        log: RunLog,
        info_keywords: Sequence[str] = (),
        without: Sequence[str] = (),
    ):
        self.recipe = recipe
        self.placement = placement
        self.log = log
        self.info_keywords = info_keywords
        self.agent, self.programs = recipe.build(placement.mesh, placement.skips)
        init_key, act_key, predict_key = jax.random.split(jax.random.key(recipe.seed), 3)
        self._init_key, self._predict_key = init_key, predict_key
        self._without = tuple(without)
        self.policy = Policy(self.agent, self.programs, recipe.spec, predict_key)
        act_key = replicate(act_key, placement.mesh)
        learner_state = self.programs.init(init_key, self._without)
        run = RunState(learner_state, act_key, step=0, act_calls=0)
        self._session = Session(run, EpisodeWindow())
        self.envs: Envs | None = None
        self.runner: Runner | None = None
        self.seed_next_reset = True
        self.turns = Turns()
        self.checkpoints: Checkpoints | None = None
        self.pending: Cycle | None = None
        self.has_stopped = self.has_finished = False
        self.unsettled: Callable[[], None] | None = None
        self._watched: BaseCallback | None = None  # the callbacks whose state is kept
        self._mark: Mark | None = None  # None if no run is active, or it has no folder
        self.last: Cycle | None = None
        self._has_warned = False  # of callbacks whose state cannot be saved
        self._resumes = False  # whether the next run resumes a loaded one
        self._vector_env: TrainingEnv | None = None
        self._restarts = 0  # of environments, when `_vector_env` was made
        self._earlier_restarts = 0.0  # of environments, before the run was interrupted

    @property
    def session(self) -> Session:
        """The session as it is now. The next training cycle overwrites its arrays."""
        self._complete()
        session = self._session
        if self._mark is not None:
            session = session._replace(**self._seen(self._mark))
        if self.runner is None:
            return session
        rollout_state = gather(self.runner.rollout_state, self.placement.mesh)
        return session._replace(env_name=self.runner.name, rollout_state=rollout_state)

    def _seen(self, mark: Mark) -> dict[str, Any]:
        """Return the parts of the session that callbacks and log decide, as they were at a mark."""
        unfinished = None
        if self.last is not None and self.run.act_calls != mark.act_calls:
            unfinished = cycle_to_json(self.last)
        return {
            "predictions": mark.predictions,
            "plan": self._plan(),
            "log": self.log.state(mark.log),
            "callbacks": self._callbacks_at(mark),
            "unfinished": unfinished,
        }

    def _callbacks_at(self, mark: Mark) -> dict[str, Any] | None:
        """Return the state of the callbacks; None if it is no longer plain JSON."""
        try:
            return None if mark.callbacks is None else plain_json(mark.callbacks)
        except ConfigurationError as error:
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(f"{error} Checkpoints are written without it.", stacklevel=2)
            return None

    def _plan(self) -> dict[str, Any]:
        ended = {"stopped": self.has_stopped, "finished": self.has_finished}
        return {**(self._session.plan or {}), **ended}

    @property
    def run(self) -> RunState:
        """How far the run has come."""
        self._complete()
        return self._session.run

    def _complete(self) -> None:
        """Make the parts of the learner's state that have not been needed up to now."""
        run = self._settled.run
        if not self._without:
            return
        whole = self.programs.init(self._init_key)._asdict()
        parts = {name: whole[name] for name in self._without}
        run = run._replace(learner_state=run.learner_state._replace(**parts))
        self._session, self._without = self._session._replace(run=run), ()

    @property
    def step(self) -> int:
        """Environment steps of the run."""
        return self._settled.run.step

    @run.setter
    def run(self, run: RunState) -> None:
        self._session = self._session._replace(run=run)

    @property
    def params(self) -> PyTree:
        """The agent's parameters."""
        return self._settled.run.learner_state.params

    @property
    def episodes(self) -> EpisodeWindow:
        """Statistics of the last training episodes."""
        return self._settled.episodes

    @property
    def _settled(self) -> Session:
        """The session, after everything that the last run has learned has been taken over."""
        if self.unsettled is not None and not self.turns.is_learning:
            self.settle()
        return self._session

    def settle(self) -> None:
        """Take over what the last run has learned, unless that has happened before."""
        if self.unsettled is not None:
            self.unsettled()
            self.unsettled = None

    def take_state(self, state: Any) -> None:
        """Replace the learner's state by what another program has learned."""
        run = self._session.run._replace(learner_state=state)
        self._session = self._session._replace(run=run)

    def count_prediction(self) -> int:
        """Return the number of the next call of `predict` that draws random numbers."""
        count = self._session.predictions
        self._session = self._session._replace(predictions=count + 1)
        return count

    def budget(self, first: int, total: int) -> Budget:
        """Return the steps of a run from step `first` to step `total`."""
        assert self.envs is not None
        cycle = self.agent.unroll_length * self.recipe.spec.num_envs
        # The step of an environment that fails and is made again does not count.
        exact = not (has_dummy_steps(self.envs) or self.placement.guard.restarts)
        return Budget(first, total, cycle, exact)

    def begin(
        self, new: bool, plan: RunPlan | None = None, callback: BaseCallback | None = None
    ) -> None:
        """Prepare a run: a new one, or the continuation of the last one.

        Args:
          new: whether the run is a new one.
          plan: how long it trains, and what it writes; None for a run without checkpoints.
          callback: the callbacks whose state is kept.
        """
        self.settle()
        try:
            self._begin(new, plan, callback)
        except BaseException:
            self.log.release()
            raise
        finally:
            self._resumes = False

    def _begin(self, new: bool, plan: RunPlan | None, callback: BaseCallback | None) -> None:
        assert self.runner is not None and self.envs is not None
        env_name = self.recipe.env_id or class_name(self.envs)
        host = host_index(self.placement.mesh)
        begun = None if plan is None else self._describe(plan)
        record = {**self.recipe.to_json(), "plan": begun}
        self.log.begin(0 if new else self.run.step, new, record, env_name, host)
        self._begin_envs(new)
        if new:
            self._earlier_restarts = 0.0
            self.run = self.run._replace(step=0)
            self._session = self._session._replace(episodes=EpisodeWindow())
        self._begin_session(begun)
        self._watched, self.checkpoints, self._mark = callback, None, None
        if plan is not None and self.log.folder is not None:
            step = self.run.step
            self.checkpoints = Checkpoints(self.log.folder, plan, step, self.log.logger)
            if not self._resumes:
                # If an exception comes before the first cycle, the log ends here.
                log, predictions = self.log.mark(step), self._session.predictions
                self._mark = Mark(self.run.act_calls, predictions, log, None)
                if not new:
                    self._write_checkpoint()  # of the new plan

    def _begin_envs(self, new: bool) -> None:
        """Begin new episodes, or resume those of the last run."""
        assert self.runner is not None
        seeded = self.seed_next_reset
        if new or seeded:
            self.runner.reset(self.recipe.seed if seeded else None)
            self.seed_next_reset = False
        else:
            self.runner.resume()
        if not new and self.runner.resumed is not None:
            self.log.logger.record("run/resumed", self.runner.resumed)
            # There is no need to warn of environments that the user has changed.
            if self.runner.name is None or not seeded:
                warnings.warn(self.runner.resumed, stacklevel=2)

    def _begin_session(self, plan: dict[str, Any] | None) -> None:
        """Take the plan of a run into the session, and what a resumed run had not finished."""
        session, resumes = self._session, self._resumes
        unfinished = session.unfinished if resumes else None
        self.has_stopped = resumes and bool((session.plan or {}).get("stopped"))
        self.has_finished = False
        cycle = None if unfinished is None else cycle_from_json(unfinished, self.run)
        self.pending = self.last = cycle
        if plan is not None:
            plan["stopped"] = self.has_stopped
        self._session = session._replace(plan=plan)
        if not resumes:
            self._session = self._session._replace(log=None, callbacks=None, unfinished=None)

    def _describe(self, plan: RunPlan) -> dict[str, Any]:
        """Return as plain JSON what `agentzoo.resume` needs besides the recipe."""
        placement = {**self.placement.to_json(), "info_keywords": list(self.info_keywords)}
        if self.log.tracking.names:
            placement["trackers"] = self.log.tracking.names
        ended = {"stopped": False, "finished": False}
        return {**plan.to_json(), "placement": placement, **ended}

    def resume(self) -> None:
        """Let the next run resume the loaded run exactly where it was interrupted."""
        self._resumes = True
        metrics = (self._session.log or {}).get("metrics", {})
        self._earlier_restarts = metrics.get(_RESTARTS, 0.0)

    @property
    def seen_step(self) -> int:
        """The step up to which callbacks and log have seen the run."""
        log = self._session.log
        return self.run.step if log is None else log["step"]

    def restore_callbacks(self) -> None:
        """Restore the callbacks of a resumed run from their states, and begin to keep states.

        Raises:
          ConfigurationError: if the state of a callback is not plain JSON, or is not what the
            callback takes.
        """
        if self._watched is not None and self._session.callbacks is not None:
            try:
                self._watched.set_state(self._session.callbacks)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise ConfigurationError(
                    f"A callback cannot take back its state ({type(error).__name__}: {error}). "
                    f"Resume with the same callbacks that the run had."
                ) from error
        self._take_mark()
        if self._mark is not None and self._mark.callbacks is not None:
            plain_json(self._mark.callbacks)

    @property
    def is_due(self) -> bool:
        """Whether a checkpoint is due."""
        return self.checkpoints is not None and self.checkpoints.is_due(self.run.step)

    def finish_cycle(self, is_due: bool) -> None:
        """Record that callbacks and log have seen everything up to now.

        If an exception comes later, checkpoints hold this state of callbacks and log.

        Args:
          is_due: whether to write a checkpoint.
        """
        self.pending = None
        self._take_mark()
        if is_due:
            self._write_checkpoint()

    def _take_mark(self) -> None:
        if self.checkpoints is None or self._watched is None:
            return
        log = self.log.mark(self.run.step if self.pending is None else self.seen_step)
        act_calls = self.run.act_calls if self.pending is None else -1
        self._mark = Mark(act_calls, self._session.predictions, log, self._watched.state())

    def _write_checkpoint(self, wait: bool = False) -> None:
        """Write a checkpoint, unless what was learned is not finite."""
        faulty = self.last is not None and self.last.fault is not None
        if self.checkpoints is not None and self._session.is_finite and not faulty:
            self.checkpoints.write(self.session, self.recipe.to_json(), wait)

    def stop(self) -> None:
        """Write the last checkpoint, and take the states of callbacks and log into the session."""
        mark = self._mark
        if mark is None:
            return
        try:
            self._write_checkpoint(wait=True)
        finally:
            self._mark = None
            seen = {**self._seen(mark), "predictions": self._session.predictions}
            self._session = self._session._replace(**seen)

    def take_over(self, cycle: Cycle) -> None:
        """Make the outcome of a training cycle the session, unless that has happened before.

        Raises:
          TrainingError: if the outcome is not finite. Then the agent keeps the last parameters that
            were finite. It can act with them, but not continue to learn.
          ConfigurationError: if an entry of `info_keywords` is not a number.
        """
        session, run = self._session, cycle.run
        if run.act_calls == session.run.act_calls:
            return
        if self._earlier_restarts:
            restarts = self._earlier_restarts + cycle.metrics.get(_RESTARTS, 0.0)
            cycle = cycle._replace(metrics={**cycle.metrics, _RESTARTS: restarts})
        if cycle.fault is not None:
            params = session.run.learner_state.params
            run = run._replace(learner_state=run.learner_state._replace(params=params))
        self.last, self.log.metrics = cycle, cycle.metrics
        # Each way out of here assigns once, so no exception leaves half of a cycle behind.
        try:
            episodes = session.episodes.extended(cycle.episodes, self.info_keywords)
        except Exception:
            self._session = session._replace(run=run)
            raise
        self._session = session._replace(run=run, episodes=episodes)
        if cycle.fault is not None:
            raise TrainingError(cycle.fault)

    def recover(self) -> None:
        """Take over the last training cycle if an exception came between its end and `take_over`.

        Without it, the session would refer to arrays that the cycle has overwritten.

        Raises:
          TrainingError: as `take_over` does.
          ConfigurationError: as `take_over` does.
        """
        assert self.runner is not None
        cycle = insist(self.runner.finished)
        if cycle is not None:
            insist(lambda: self.take_over(cycle))

    def count(self, step: int, act_calls: int, episodes: Sequence[Episode]) -> None:
        """Count steps and episodes of which another program has taken over the learner's state.

        Calls with the same `act_calls` after the first one change nothing.
        """
        session = self._session
        if act_calls != session.run.act_calls:
            run = session.run._replace(step=step, act_calls=act_calls)
            episodes_now = session.episodes.extended(episodes, self.info_keywords)
            self._session = session._replace(run=run, episodes=episodes_now)

    def dump_logs(self) -> None:
        """Make the entry of the log for this step."""
        self.log.dump(self.run.step, self.episodes)

    def end(self, hurry: bool = False) -> None:
        """Save what a run has learned, unless that is not finite, and close the log.

        Args:
          hurry: whether little time is left, as after SIGTERM. Then a large replay buffer is only
            in the last checkpoint.
        """
        if self._session.plan is not None:
            self._session = self._session._replace(plan=self._plan())
        try:
            if self.log.folder is not None and self._session.is_finite:
                self.log.logger.sync()  # before the model, which says that the run has finished
                with self.log.logger.tolerate("model.safetensors"):
                    large = sum(x.nbytes for x in jax.tree.leaves(self.run.learner_state)) > _LARGE
                    is_kept = self.checkpoints is not None and self.checkpoints.is_written
                    exclude = ("replay",) if hurry and large and is_kept else ()
                    self.save(self.log.folder / "model", exclude)
            if self.checkpoints is not None:
                self.checkpoints.close()
        finally:
            self.log.end(self.has_finished)

    def save(
        self,
        path: str | os.PathLike[str],
        exclude: str | Sequence[str] = (),
        policy_only: bool = False,
    ) -> Path:
        """Save the session, and what the agent is made of; see `Algorithm.save`."""
        return self.turns.call(lambda: self._save(path, exclude, policy_only))

    def _save(
        self, path: str | os.PathLike[str], exclude: str | Sequence[str], policy_only: bool
    ) -> Path:
        if checkpoint.exists(path) and not self._session.is_finite:
            raise ConfigurationError(
                f"The agent's state is not finite, so that it does not replace {path}; save it "
                f"elsewhere."
            )
        fields = self._session.run.learner_state._fields
        excluded = [exclude] if isinstance(exclude, str) else list(exclude)
        # "replay" is allowed for an agent without a replay buffer, so that one call suits all.
        excluded = [part for part in excluded if part != "replay" or part in fields]
        for part in excluded:
            if part not in fields or part == "params":
                raise ConfigurationError(f"exclude={part!r}; choose from {', '.join(fields[1:])}.")
        if policy_only:
            excluded = [part for part in fields if part != "params"]
            session = self._session.without_run()
        else:
            session = self.session
        return save_session(path, session, self.recipe.to_json(), excluded)

    def restore(
        self,
        path: str | os.PathLike[str],
        manifest: dict[str, Any],
        upgrade: Callable[[Any, EnvSpec], Any],
    ) -> None:
        """Replace the session by a saved one.

        If the saved session was in the same environments, they continue where they were.

        Args:
          path: the file.
          manifest: what `read_manifest` returned for it.
          upgrade: converts the learner's state from a file of revision 1.

        Raises:
          ConfigurationError: if the file is damaged, or does not fit the agent.
        """
        mesh, runner, template = self.placement.mesh, self.runner, self._session
        same_envs = False
        if runner is not None:
            same_envs = runner.name is not None and runner.name == manifest["env_name"]
            state = runner.state_template() if same_envs else None
            template = template._replace(env_name=runner.name, rollout_state=state)
        session = load_session(path, manifest, template)
        state = session.run.learner_state
        if manifest["revision"] < 2:
            state = upgrade(state, self.recipe.spec)
        # Copies, because learning overwrites the arrays of the targets.
        targets = {
            name: jax.tree.map(lambda x: x.copy(), target(state.params))
            for name, target in self.agent.targets.items()
            if name in manifest["excluded"]
        }
        state = state._replace(**targets)
        run = session.run._replace(
            learner_state=replicate(state, mesh), key=replicate(session.run.key, mesh)
        )
        if runner is not None and same_envs:
            rollout_state = session.rollout_state
            runner.rollout_state = shard(rollout_state, mesh) if runner.compiled else rollout_state
            self.seed_next_reset = False
        elif runner is not None:
            runner.resumed = self._why_not_resumed(manifest["env_name"])
        self._session = session._replace(run=run, rollout_state=None)
        self.log.skip(run.step)

    def _why_not_resumed(self, saved: str | None) -> str:
        """Return why the episodes of a session saved with this `env_name` cannot be resumed."""
        assert self.envs is not None and self.runner is not None
        name = self.runner.name
        if self.envs.replayable is not None and not self.runner.compiled:
            return self.envs.replayable
        if saved is None:
            return (
                "Training does not resume exactly, because the file holds no episodes. New "
                "episodes begin instead."
            )
        return (
            f"Training does not resume exactly, because the agent was saved in other environments "
            f"({saved}) than it is loaded in ({name}). New episodes begin instead."
        )

    def use_envs(self, made: MadeEnvs) -> None:
        """Train in these environments from now on; change nothing if that is impossible.

        Raises:
          ConfigurationError: if the agent is learning, the hyperparameters do not allow their
            number, or the runner cannot step them.
        """
        if self.turns.is_learning:
            raise ConfigurationError(
                "The environments cannot be exchanged while the agent is learning, as in a "
                "callback. Call set_env after learn has returned."
            )
        self.settle()
        regrouped = self._regroup(made.envs.spec.num_envs)
        runner = self._make_runner(regrouped, made.envs)
        self._take_over(regrouped)
        self.envs = made.envs
        self.runner = runner
        self.seed_next_reset = True
        self._vector_env = None
        env_id, env_kwargs = identify(made.given, made.envs)
        self.recipe = self.recipe.with_env(env_id, env_kwargs, is_custom(made.given))

    def change(self, config: Any, num_envs: int) -> None:
        """Change the hyperparameters and the number of environments of a loaded agent.

        Raises:
          ConfigurationError: if the agent's state does not fit these.
        """
        self.recipe = dataclasses.replace(self.recipe, config=config)
        self._take_over(self._regroup(num_envs))

    def _make_runner(self, regrouped: Regrouped, envs: Envs) -> Runner:
        name, max_lag = self.placement.runner, self.placement.max_lag
        runner = make_runner(name, regrouped.agent, regrouped.programs, envs, max_lag)
        if self.info_keywords and runner.compiled:
            raise ConfigurationError(
                f"info_keywords={tuple(self.info_keywords)}, but environments that are compiled "
                f"have no info, and this one is compiled; leave it out."
            )
        return runner

    def _take_over(self, regrouped: Regrouped) -> None:
        self.recipe = regrouped.recipe
        self.agent = regrouped.agent
        self.programs = regrouped.programs
        self.policy = Policy(self.agent, self.programs, self.recipe.spec, self._predict_key)
        self.run = self._session.run._replace(learner_state=regrouped.learner_state)

    def _regroup(self, num_envs: int) -> Regrouped:
        """Return the agent for another number of environments, with its state."""
        old, without = self._session.run.learner_state, self._without
        if num_envs == self.recipe.spec.num_envs:
            return Regrouped(self.recipe, self.agent, self.programs, old)
        mesh, skips = self.placement.mesh, self.placement.skips
        return regroup(self.recipe, num_envs, old, mesh, skips, without)

    def vector_env(self) -> TrainingEnv | None:
        """Return the environments as one Gymnasium `VectorEnv`; None without environments."""
        if self._restarts != (restarts := self.envs.restarts if self.envs is not None else 0):
            self._vector_env, self._restarts = None, restarts  # it holds environments that are gone
        if self._vector_env is None and self.envs is not None:

            def busy() -> bool:
                return self.runner is not None and self.runner.busy

            self._vector_env = as_vector_env(self.envs, busy)
        return self._vector_env

    def trains_in(self, envs: Envs) -> bool:
        """Return whether any of these environments is one that the agent trains in."""
        ours = {id(part) for part in parts_of(self.envs)} if self.envs is not None else set()
        return any(id(part) in ours for part in parts_of(envs))


def _describe(spec: EnvSpec) -> str:
    return f"observations {spec.observation_space} and actions {spec.action_space}"
