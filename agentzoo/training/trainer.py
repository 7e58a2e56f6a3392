"""What trains an agent: its functions, its environments, its session and its log."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from agentzoo import checkpoint
from agentzoo import config as configs
from agentzoo.envs import (
    EnvLike,
    Envs,
    Guard,
    TrainingEnv,
    as_vector_env,
    class_name,
    has_dummy_steps,
    identify,
    make_shared_envs,
    parts_of,
    spaces,
)
from agentzoo.progress import Budget
from agentzoo.runners import (
    Cycle,
    Episode,
    Runner,
    RunnerName,
    RunState,
    check_runner,
    make_runner,
)
from agentzoo.sharding import Mesh, gather, make_mesh, replicate, shard
from agentzoo.training.interrupts import insist
from agentzoo.training.log import RunLog, host_index
from agentzoo.training.policy import Policy
from agentzoo.training.recipe import Recipe
from agentzoo.training.session import EpisodeWindow, Session, load_session, save_session
from agentzoo.training.turns import Turns
from agentzoo.types import ConfigurationError, EnvSpec, PyTree, TrainingError


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
    """

    runner: RunnerName
    n_actors: int
    max_lag: int
    mesh: Mesh | None
    guard: Guard

    @classmethod
    def make(
        cls,
        runner: Any,
        n_actors: Any,
        max_lag: Any,
        n_devices: Any,
        env_timeout: Any = None,
        on_env_error: Any = "raise",
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
        return cls(runner, n_actors, max_lag, make_mesh(n_devices), guard)

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

    Attributes:
      agent: the agent's functions.
      programs: the agent's functions, compiled.
      policy: chooses actions outside of training.
      envs: the environments; None after loading without environments.
      runner: moves trajectories between the environments and the agent, or None.
      turns: lets other threads wait for the end of a training cycle.
      seed_next_reset: whether the next reset seeds the environments.
    """

    def __init__(
        self,
        recipe: Recipe,
        placement: Placement,
        log: RunLog,
        info_keywords: Sequence[str] = (),
    ):
        self.recipe = recipe
        self.placement = placement
        self.log = log
        self.info_keywords = info_keywords
        self.agent, self.programs = recipe.build(placement.mesh)
        init_key, act_key, predict_key = jax.random.split(jax.random.key(recipe.seed), 3)
        self._predict_key = predict_key
        self.policy = Policy(self.agent, self.programs, recipe.spec, predict_key)
        act_key = replicate(act_key, placement.mesh)
        run = RunState(self.programs.init(init_key), act_key, step=0, act_calls=0)
        self._session = Session(run, EpisodeWindow())
        self.envs: Envs | None = None
        self.runner: Runner | None = None
        self.seed_next_reset = True
        self.turns = Turns()
        self._vector_env: TrainingEnv | None = None
        self._restarts = 0  # of environments, when `_vector_env` was made

    @property
    def session(self) -> Session:
        """The session as it is now. The next training cycle overwrites its arrays."""
        if self.runner is None:
            return self._session
        rollout_state = gather(self.runner.rollout_state, self.placement.mesh)
        return self._session._replace(env_name=self.runner.name, rollout_state=rollout_state)

    @property
    def run(self) -> RunState:
        """How far the run has come."""
        return self._session.run

    @run.setter
    def run(self, run: RunState) -> None:
        self._session = self._session._replace(run=run)

    @property
    def params(self) -> PyTree:
        """The agent's parameters."""
        return self._session.run.learner_state.params

    @property
    def episodes(self) -> EpisodeWindow:
        """Statistics of the last training episodes."""
        return self._session.episodes

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

    def begin(self, new: bool) -> None:
        """Prepare a run: a new one, or the continuation of the last one."""
        assert self.runner is not None and self.envs is not None
        if new or self.seed_next_reset:
            self.runner.reset(self.recipe.seed if self.seed_next_reset else None)
            self.seed_next_reset = False
        if new:
            self.run = self.run._replace(step=0)
            self._session = self._session._replace(episodes=EpisodeWindow())
        env_name = self.recipe.env_id or class_name(self.envs)
        host = host_index(self.placement.mesh)
        self.log.begin(self.run.step, new, self.recipe.to_json(), env_name, host)

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
        if cycle.fault is not None:
            run = run._replace(learner_state=run.learner_state._replace(params=self.params))
        self.log.metrics = cycle.metrics
        # Each way out of here assigns once, so no exception leaves half of a cycle behind.
        try:
            episodes = session.episodes.extended(cycle.episodes, self.info_keywords)
        except ConfigurationError:
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

    def end(self) -> None:
        """Save what a run has learned, unless that is not finite, and close the log."""
        if self.log.folder is not None and self._session.is_finite:
            self.save(self.log.folder / "model")
        self.log.logger.close()

    def save(self, path: str | os.PathLike[str], exclude: str | Sequence[str] = ()) -> Path:
        """Save the session, and what the agent is made of; see `Algorithm.save`."""
        return self.turns.call(lambda: self._save(path, exclude))

    def _save(self, path: str | os.PathLike[str], exclude: str | Sequence[str]) -> Path:
        if checkpoint.exists(path) and not self._session.is_finite:
            raise ConfigurationError(
                f"The agent's state is not finite, so that it does not replace {path}; save it "
                f"elsewhere."
            )
        fields = self.run.learner_state._fields
        excluded = [exclude] if isinstance(exclude, str) else list(exclude)
        # "replay" is allowed for an agent without a replay buffer, so that one call suits all.
        excluded = [part for part in excluded if part != "replay" or part in fields]
        for part in excluded:
            if part not in fields or part == "params":
                raise ConfigurationError(f"exclude={part!r}; choose from {', '.join(fields[1:])}.")
        return save_session(path, self.session, self.recipe.to_json(), excluded)

    def restore(
        self,
        path: str | os.PathLike[str],
        manifest: dict[str, Any],
        upgrade: Callable[[Any, EnvSpec], Any],
    ) -> None:
        """Replace the session by a saved one.

        If the saved session was in the same compiled environments, they continue where they were.

        Args:
          path: the file.
          manifest: what `read_manifest` returned for it.
          upgrade: converts the learner's state from a file of revision 1.

        Raises:
          ConfigurationError: if the file is damaged, or does not fit the agent.
        """
        mesh, template = self.placement.mesh, self.session
        name = template.env_name
        if self.runner is not None and name is not None and name == manifest["env_name"]:
            self.runner.reset(self.recipe.seed)
            template = self.session
            self.seed_next_reset = False
        session = load_session(path, manifest, template)
        state = session.run.learner_state
        if manifest["revision"] < 2:
            state = upgrade(state, self.recipe.spec)
        run = session.run._replace(
            learner_state=replicate(state, mesh), key=replicate(session.run.key, mesh)
        )
        if self.runner is not None:
            self.runner.rollout_state = shard(session.rollout_state, mesh)
        self._session = session._replace(run=run, rollout_state=None)
        self.log.skip(run.step)

    def use_envs(self, made: MadeEnvs) -> None:
        """Train in these environments from now on; change nothing if that is impossible.

        Raises:
          ConfigurationError: if the hyperparameters do not allow their number, or the runner
            cannot step them.
        """
        regrouped = self._regroup(made.envs.spec.num_envs)
        runner = self._make_runner(regrouped, made.envs)
        self._take_over(regrouped)
        self.envs = made.envs
        self.runner = runner
        self.seed_next_reset = True
        self._vector_env = None
        self.recipe = self.recipe.with_env(*identify(made.given, made.envs))

    def change(self, config: Any, num_envs: int) -> None:
        """Change the hyperparameters and the number of environments of a loaded agent.

        Raises:
          ConfigurationError: if the agent's state does not fit these.
        """
        self.recipe = dataclasses.replace(self.recipe, config=config)
        self._take_over(self._regroup(num_envs))

    def _make_runner(self, regrouped: "_Regrouped", envs: Envs) -> Runner:
        name, max_lag = self.placement.runner, self.placement.max_lag
        runner = make_runner(name, regrouped.agent, regrouped.programs, envs, max_lag)
        if self.info_keywords and runner.name is not None:
            raise ConfigurationError(
                f"info_keywords={tuple(self.info_keywords)}, but environments that are compiled "
                f"have no info, and this one is compiled; leave it out."
            )
        return runner

    def _take_over(self, regrouped: "_Regrouped") -> None:
        self.recipe = regrouped.recipe
        self.agent = regrouped.agent
        self.programs = regrouped.programs
        self.policy = Policy(self.agent, self.programs, self.recipe.spec, self._predict_key)
        self.run = self.run._replace(learner_state=regrouped.learner_state)

    def _regroup(self, num_envs: int) -> "_Regrouped":
        """Return the agent for another number of environments, with its state."""
        old = self.run.learner_state
        if num_envs == self.recipe.spec.num_envs:
            return _Regrouped(self.recipe, self.agent, self.programs, old)
        old_num = self.recipe.spec.num_envs
        spec = self.recipe.spec._replace(num_envs=num_envs)
        recipe = dataclasses.replace(self.recipe, spec=spec)
        agent, programs = recipe.build(self.placement.mesh)
        parts = programs.init(jax.random.key(0))._asdict()
        for name, part in parts.items():
            before = getattr(old, name)
            if name in agent.refill:
                parts[name] = agent.refill[name](part, before)
            else:
                parts[name] = _carry_over(name, part, before, old_num, num_envs)
        state = replicate(type(old)(**parts), self.placement.mesh)
        return _Regrouped(recipe, agent, programs, state)

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


class _Regrouped(NamedTuple):
    """An agent for another number of environments."""

    recipe: Recipe
    agent: Any
    programs: Any
    learner_state: Any


def _describe(spec: EnvSpec) -> str:
    return f"observations {spec.observation_space} and actions {spec.action_space}"


def _carry_over(name: str, part: PyTree, old: PyTree, old_num: int, num: int) -> PyTree:
    """Return a part of the state of an agent for `num` environments.

    It is what `old` holds, except for arrays that hold something of each environment.
    """
    advice = "go on with the hyperparameters that the agent was made with."

    def carry(new: Any, before: Any) -> Any:
        if (new.shape, new.dtype) == (before.shape, before.dtype):
            return before
        if before.shape[:1] == (old_num,) and new.shape == (num, *before.shape[1:]):
            return new  # new episodes begin in all environments
        raise ConfigurationError(
            f"The agent holds {name!r} as {before.dtype}{list(before.shape)}, but with these "
            f"hyperparameters it would be {new.dtype}{list(new.shape)}; {advice}"
        )

    if jax.tree.structure(part) != jax.tree.structure(old):
        raise ConfigurationError(
            f"The agent holds another {name!r} than it would with these hyperparameters; {advice}"
        )
    return jax.tree.map(carry, part, old)
