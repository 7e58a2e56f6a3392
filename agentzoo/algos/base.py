"""The shell around an algorithm: everything of `learn`, `predict`, `save` and `load` that is the same for all of them."""

import contextlib
import functools
import inspect
import json
import math
import os
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import jax
import numpy as np

from agentzoo import checkpoint, description, keywords
from agentzoo import config as configs
from agentzoo.callbacks import (
    BaseCallback,
    CallbackLike,
    CallbackList,
    ProgressBarCallback,
    make_callback,
)
from agentzoo.envs import (
    BraxAdapter,
    EnvLike,
    Envs,
    FuncEnvAdapter,
    FunctionalGymEnv,
    FunctionalVectorEnv,
    GymnaxAdapter,
    TimeLimit,
    TrainingEnv,
    as_vector_env,
    checking,
    has_dummy_steps,
    identify,
    make_shared_envs,
    number,
    parts_of,
    spaces,
)
from agentzoo.logging import Logger, make_folder, versions
from agentzoo.progress import Budget
from agentzoo.runners import (
    Cycle,
    Episode,
    Programs,
    Runner,
    RunState,
    check_runner,
    compile_agent,
    describe_device,
    make_runner,
)
from agentzoo.sharding import Mesh, gather, make_mesh, replicate, shard
from agentzoo.types import (
    Agent,
    ConfigurationError,
    EnvSpec,
    InvalidStep,
    PyTree,
    TrainingError,
    resolve_metrics,
)

Config = TypeVar("Config")
_AROUND_ANOTHER = (
    FunctionalGymEnv,
    FunctionalVectorEnv,
    TimeLimit,
    FuncEnvAdapter,
    GymnaxAdapter,
    BraxAdapter,
)

# What the arrays of a saved agent mean, which files say from 2 on. In files of revision 1, the Box
# actions of PPO and IMPALA are in the environment's units.
REVISION = 2


class Algorithm(Generic[Config]):
    """An agent that learns in Gymnasium environments.

    `print(agent)` shows how the agent takes each part of an observation, its network, and the
    hyperparameters that differ from the defaults.

    Args:
      env: a Gymnasium id, a `gym.Env`, a function that makes one, a `VectorEnv`, or an
        `agentzoo.envs.FunctionalEnv`.
      n_envs: how many environments to make of an id, a function or a functional environment, for
        all actors together.
      seed: of networks, exploration and environments; None draws one.
      runner: how to train. "host" steps environments from Python and learns in turn. "device"
        compiles both into one program, which needs environments that are written in JAX. "threads"
        does both at the same time, which pays where environments wait, for a simulator, a network
        or a clock: see `agentzoo.runners.threads`. "ray" does so in processes, on a cluster or on
        this machine, which pays where environments compute for long: see
        `agentzoo.runners.ray_actors`. "auto" is "device" where it can be, and else "host".
      n_actors: between how many threads or, with `runner="ray"`, processes the environments are
        shared.
      max_lag: how many trajectories each of them may be ahead of what was learned; 0 takes turns.
      n_devices: how many of JAX's devices learn, each from its share of every batch, or "all"; the
        result is that of one.
      log_dir: folder in which each run gets a folder of its own (`DQN_CartPole-v1_1`, ...) with
        TensorBoard and CSV logs, the hyperparameters, and the trained agent. None writes nothing.
      network: a Haiku function from a batch of observations to features `[N, F]`, in place of our
        layers; see "Networks" in the docs.
      info_keywords: names of entries in the environments' `info` to be logged, as
        `rollout/<name>_mean`: the mean over the last 100 episodes whose last step had that entry.
        "is_success" is always logged, as `rollout/success_rate`. Environments that are compiled
        have no `info`.
      preset: the name of a set of hyperparameters to start from instead of the defaults, see
        `presets`.
      **hyperparameters: fields of the algorithm's config.

    Raises:
      ConfigurationError: if any of this cannot work; the message says what to write instead.
    """

    Config: ClassVar[type]
    make_agent: ClassVar[Callable[..., Agent]]
    action_spaces: ClassVar[tuple[str, ...]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @keywords.checked
    def __init__(
        self,
        env: EnvLike,
        *misplaced: Any,
        n_envs: int = 1,
        seed: int | None = 0,
        runner: str = "auto",
        n_actors: int = 1,
        max_lag: int = 1,
        n_devices: int | str = 1,
        log_dir: str | os.PathLike[str] | None = None,
        network: Callable[[PyTree], Any] | None = None,
        info_keywords: Sequence[str] = (),
        preset: str | None = None,
        **hyperparameters: Any,
    ):
        name = type(self).__name__
        if misplaced:
            raise ConfigurationError(keywords.policy_first(name, env, misplaced[0]))
        self._place(runner, n_actors, max_lag, n_devices)
        if preset is not None and preset not in self.presets:
            raise ConfigurationError(
                f"{name} has no preset {preset!r}; choose from {', '.join(self.presets) or 'none'}."
            )
        n_envs = configs.integer("n_envs", n_envs, 1)
        hyperparameters = {**(self.presets[preset] if preset else {}), **hyperparameters}
        self.config: Config = configs.make_config(
            self.Config, hyperparameters, _names_of(Algorithm.__init__)
        )
        self.seed = (
            random.SystemRandom().randrange(2**31)
            if seed is None
            else configs.integer("seed", seed, 0)
        )
        self._envs: Envs | None = make_shared_envs(env, n_envs, n_actors, distant=runner == "ray")
        self._setup(self._envs.spec, network, log_dir, info_keywords)
        self.env_id, self.env_kwargs = identify(env, self._envs)

    def _place(self, runner: str, n_actors: int, max_lag: int, n_devices: int | str) -> None:
        """Sets where the agent trains."""
        n_actors, max_lag = (
            configs.integer("n_actors", n_actors, 1),
            configs.integer("max_lag", max_lag),
        )
        check_runner(runner, n_actors, max_lag)
        self.runner, self.n_actors, self.max_lag, self.mesh = (
            runner,
            n_actors,
            max_lag,
            make_mesh(n_devices),
        )

    def _setup(
        self,
        spec: EnvSpec,
        network: Callable | None,
        log_dir: str | os.PathLike[str] | None,
        info_keywords: Sequence[str],
    ) -> None:
        """What is common to making an agent and loading one."""
        if spaces.kind(spec.action_space) not in self.action_spaces:
            raise ConfigurationError(
                f"{type(self).__name__} needs a {_either(self.action_spaces)} action space, but the environment has {spec.action_space}."
            )
        if 0 in spaces.shape(spec.action_space):
            raise ConfigurationError(
                f"The action space {spec.action_space} is empty, so there is nothing to choose."
            )
        if network is not None and not callable(network):
            raise ConfigurationError(
                f"network={network!r}; expected a function from a batch of observations to features [N, F]."
            )
        self.spec, self.network, self.log_dir = spec, network, log_dir
        # What `predict` is given, one observation or a batch, is checked as environments are.
        name = "The observation"
        self._checks = (
            checking.make_check(spec.observation_space, name),
            checking.make_batch_check(spec.observation_space, None, name),
        )
        self._agent, self._programs = _build(
            type(self).make_agent, self.config, spec_to_json(spec), network, self.mesh
        )
        init_key, act_key, self._predict_key = jax.random.split(jax.random.key(self.seed), 3)
        self._run = RunState(self._programs.init(init_key), replicate(act_key, self.mesh), 0, 0)
        self._predictions = 0
        self._initial_memory = functools.lru_cache(maxsize=8)(self._agent.initial_memory)
        single = isinstance(info_keywords, str)
        self.info_keywords = (info_keywords,) if single else tuple(info_keywords)
        self._logged_infos = {"is_success", *self.info_keywords}
        self._vector_env: TrainingEnv | None = None
        if self._envs is None:
            self._runner = None
        else:
            self._runner = self._make_runner(self._agent, self._programs, self._envs)
        self._seed_next_reset = True
        self._episodes: deque = deque(maxlen=100)
        # Numbers by name, of the last 100 episodes whose last step had them.
        self._infos: dict[str, deque[float]] = {}
        self._metrics: dict[str, Any] = {}
        self._started, self._first_step = time.perf_counter(), 0
        self._turns = Turns()
        self._logged_step = 0  # up to which the agent's own values are in the log
        self.logger = Logger()
        self.run_dir: Path | None = None

    def _make_runner(self, agent: Agent, programs: Programs, envs: Envs) -> Runner:
        runner = make_runner(self.runner, agent, programs, envs, self.max_lag)
        if self.info_keywords and runner.name is not None:
            raise ConfigurationError(
                f"info_keywords={self.info_keywords}, but environments that are compiled have no "
                f"info, and this one is compiled; leave it out."
            )
        return runner

    def __repr__(self) -> str:
        return description.summarize(self)

    def __str__(self) -> str:
        return description.describe(self)

    @property
    def num_timesteps(self) -> int:
        """Environment steps of the current run."""
        return self._run.step

    @property
    def n_envs(self) -> int:
        """How many environments the agent trains in at once."""
        return self.spec.num_envs

    @property
    def params(self) -> PyTree:
        """Network parameters and whatever else acting needs.

        These arrays stay as they are while the agent learns on.
        """
        return self._run.learner_state.params

    @property
    def learner_state(self) -> Any:
        """The state that the agent's functions carry from one training cycle to the next.

        It is a NamedTuple that begins with `params`. The next training cycle overwrites the other
        arrays, so copy what you want to keep.
        """
        return self._run.learner_state

    @property
    def metrics(self) -> dict[str, float]:
        """What the latest training cycle reported, by tag.

        A metric that does not exist yet is absent.
        """
        return resolve_metrics(self._metrics)

    @property
    def ep_rew_mean(self) -> float:
        """Mean return of the last 100 training episodes; NaN before the first."""
        return (
            float(np.mean([episode.reward for episode in self._episodes]))
            if self._episodes
            else math.nan
        )

    @keywords.checked
    def learn(
        self,
        total_timesteps: float,
        callback: CallbackLike = None,
        log_interval: int = 1_000,
        progress_bar: bool = True,
        reset_num_timesteps: bool = True,
    ) -> Self:
        """Trains the agent.

        A run ends with the training cycle in which the budget is used up. It can be interrupted
        (Ctrl-C): the agent keeps what it has learned.

        Args:
          total_timesteps: environment steps to take, over all environments together; `1e5` is fine.
          callback: a `BaseCallback`, a function of the agent, or a list of those.
          log_interval: environment steps between two entries of the log.
          progress_bar: show a bar with return, speed and time left. Where the output is neither a
            terminal nor a notebook, print one line for each entry of the log instead.
          reset_num_timesteps: begin a new run, with schedules and step counter at their start.
            False goes on with the last one, for `total_timesteps` more, in its log and its
            episodes.

        Returns:
          The agent.

        Raises:
          ConfigurationError: if an argument is out of range, the agent was loaded without an
            environment, or it is learning already.
        """
        callbacks = CallbackList([make_callback(callback)] if callback is not None else [])
        if progress_bar:
            callbacks.callbacks.append(ProgressBarCallback())
        total = self._check_run(total_timesteps, log_interval, reset_num_timesteps)
        callbacks.check_agent(self)
        with self._turns.learning():
            self._begin(reset_num_timesteps)
            try:
                self._train(
                    total, callbacks, log_interval, reset_num_timesteps, callback is not None
                )
            finally:
                self._end()
        return self

    def _check_run(
        self, total_timesteps: float, log_interval: int, reset_num_timesteps: bool
    ) -> int:
        """The step at which a run ends; raises `ConfigurationError` if it cannot be."""
        if np.ndim(total_timesteps) == 0 and hasattr(total_timesteps, "item"):
            total_timesteps = total_timesteps.item()  # type: ignore[union-attr]
        if not (isinstance(total_timesteps, int | float) and 1 <= total_timesteps < 2**31):
            raise ConfigurationError(
                f"total_timesteps={total_timesteps!r}; expected a number of environment steps, 1 to 2^31 - 1."
            )
        configs.integer("log_interval", log_interval, 1)
        if self._runner is None:
            raise ConfigurationError(
                "The agent was loaded without an environment; give it one with set_env(env) or load(path, env=...)."
            )
        total = (0 if reset_num_timesteps else self._run.step) + int(total_timesteps)
        if total >= 2**31:
            raise ConfigurationError(
                f"The run would be {total} steps long, and a run has 2^31 - 1 at most; begin a new one."
            )
        return total

    def _budget(self, first: int, total: int) -> Budget:
        """What a run from step `first` to step `total` will take."""
        assert self._envs is not None
        cycle = self._agent.unroll_length * self.n_envs
        return Budget(first, total, cycle, exact=not has_dummy_steps(self._envs))

    def _begin(self, reset_num_timesteps: bool) -> None:
        """Prepares a run."""
        assert self._runner is not None
        if reset_num_timesteps or self._seed_next_reset:
            self._runner.reset(self.seed if self._seed_next_reset else None)
            self._seed_next_reset = False
        if reset_num_timesteps:
            self._run = self._run._replace(step=0)
            self._episodes.clear()
            self._infos.clear()
        self._open_log(new=reset_num_timesteps or self.run_dir is None)
        self._started, self._first_step = time.perf_counter(), self._run.step
        self._logged_step = self._run.step

    def _end(self) -> None:
        """Keeps what a run has learned, unless that is not finite."""
        if self.run_dir is not None and self._is_finite():
            self.save(self.run_dir / "model")
        self.logger.close()

    def _train(
        self,
        total: int,
        callback: BaseCallback,
        log_interval: int,
        reset_num_timesteps: bool,
        watched: bool,
    ) -> None:
        assert self._runner is not None
        callback.init_callback(self)
        locals_ = {
            "self": self,
            "total_timesteps": total,
            "log_interval": log_interval,
            "reset_num_timesteps": reset_num_timesteps,
            "budget": self._budget(self._run.step, total),
            "episodes": [],
            "infos": [],
            "dones": [],
        }
        callback.on_training_start(locals_, {})
        logged = self._run.step // log_interval

        def next_stop(step: int) -> float:
            return min((step // log_interval + 1) * log_interval, callback.next_step(step))

        try:
            with (
                interrupt_between_cycles() as interrupted,
                contextlib.closing(self._runner.run(self._run, total, next_stop)) as cycles,
            ):
                callback.on_rollout_start()
                for cycle in cycles:
                    before, self._run, self._metrics = self.params, cycle.run, cycle.metrics
                    self._keep(cycle.episodes)
                    if cycle.fault is not None:
                        # The agent keeps the last parameters that were finite, to be used but not
                        # to learn on.
                        self._run = self._run._replace(
                            learner_state=self._run.learner_state._replace(params=before)
                        )
                        raise TrainingError(cycle.fault)
                    callback.update_locals(self._locals(cycle, watched))
                    callback.on_rollout_end()
                    proceed = callback.on_step()
                    if self._run.step // log_interval > logged:
                        logged = self._run.step // log_interval
                        self.dump_logs()
                    self.logger.flush()
                    self._turns.serve()
                    if interrupted():
                        raise KeyboardInterrupt
                    if not proceed:
                        break
                    callback.on_rollout_start()
        finally:
            self.dump_logs()
            callback.on_training_end()

    def _keep(self, episodes: Sequence[Episode]) -> None:
        """Keeps what is to be logged of episodes that ended."""
        self._episodes.extend(episode._replace(info={}) for episode in episodes)
        for episode in episodes:
            for name in self._logged_infos.intersection(episode.info):
                value = number(episode.info[name])
                if value is not None:
                    self._infos.setdefault(name, deque(maxlen=100)).append(value)
                elif name in self.info_keywords:
                    raise ConfigurationError(
                        f"info[{name!r}] at the end of an episode is of type "
                        f"{type(episode.info[name]).__name__} and shape "
                        f"{np.shape(episode.info[name])}; choose other info_keywords, which must "
                        f"be single numbers."
                    )

    def _locals(self, cycle: Cycle, watched: bool) -> dict[str, Any]:
        """The entries of the callbacks' `locals` that each cycle changes; see `BaseCallback`."""
        assert self._runner is not None
        if not watched:
            return {"episodes": cycle.episodes}
        infos = self._runner.infos() or [{} for _ in range(self.n_envs)]
        dones = [False] * self.n_envs
        for episode in cycle.episodes:
            if dones[episode.env]:
                infos.append(infos[episode.env])
                dones.append(True)
            seconds = round(time.perf_counter() - self._started, 6)
            outcome = {"r": episode.reward, "l": episode.length, "t": seconds}
            infos[episode.env] = {"episode": outcome, **episode.info}
            dones[episode.env] = True
        return {"episodes": cycle.episodes, "infos": infos, "dones": np.array(dones)}

    def dump_logs(self) -> None:
        """Makes an entry of the log for this step, to which everything belongs that callbacks record at this step and dump."""
        if self._run.step != self._logged_step:
            self._logged_step = self._run.step
            self._record()
        self.logger.dump(self._run.step)

    def _record(self) -> None:
        """Records the values that every agent has."""
        if self._episodes:
            self.logger.record("rollout/ep_rew_mean", self.ep_rew_mean)
            self.logger.record(
                "rollout/ep_len_mean",
                float(np.mean([episode.length for episode in self._episodes])),
            )
        for name, values in self._infos.items():
            tag = "success_rate" if name == "is_success" else f"{name}_mean"
            self.logger.record(f"rollout/{tag}", np.mean(values))
        elapsed = time.perf_counter() - self._started
        self.logger.record("time/fps", (self._run.step - self._first_step) / elapsed)
        self.logger.record("time/time_elapsed", elapsed)
        for tag, value in self.metrics.items():
            self.logger.record(tag, value)

    @keywords.checked
    def predict(
        self,
        observation: Any,
        state: PyTree = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, PyTree]:
        """Chooses an action for an observation, or for each of a batch.

        Args:
          observation: an element of the observation space, or a batch of them.
          state: what the last call returned, for agents with memory.
          episode_start: whether the observation begins an episode (an array for a batch); memory is
            reset there.
          deterministic: leave out exploration.

        Returns:
          The action (or a batch of them), as an element of the action space, and the state for the
          next call.

        Raises:
          ConfigurationError: if the observation does not fit the observation space.
        """
        obs, batched = self._batch(observation)
        num = jax.tree.leaves(obs)[0].shape[0]
        memory = self._initial_memory(num) if state is None else state
        start = (
            np.zeros(num, bool)
            if episode_start is None
            else np.broadcast_to(np.asarray(episode_start, bool), (num,))
        )
        count, deterministic = np.uint32(self._predictions % 2**32), bool(deterministic)
        self._predictions += not deterministic
        action, memory = self._programs.predict(
            self.params, memory, obs, start, self._predict_key, count, deterministic
        )
        space = self.spec.action_space
        actions = spaces.to_elements(space, np.asarray(action))
        return (actions if batched else spaces.pick(space, actions, 0)), (
            memory if jax.tree.leaves(memory) else None
        )

    def values(self, observation: Any, action: Any = None) -> np.ndarray:
        """The values `[A]` that an agent gives to the actions in an observation, or `[N, A]` for a batch.

        The value of an action that is illegal by an "action_mask" is -inf.

        Args:
          observation: an element of the observation space, or a batch of them.
          action: where actions are no indices, the action to be valued, or a batch of them; the
            result is a number, or `[N]`.

        Raises:
          ConfigurationError: if an argument does not fit its space, or the agent has no action
            values.
        """
        if "values" not in self._programs.queries:
            raise ConfigurationError(f"{type(self).__name__} has no action values.")
        space = self.spec.action_space
        if (action is None) != hasattr(space, "n"):
            wanted = (
                "values(observation), without an action"
                if hasattr(space, "n")
                else "values(observation, action)"
            )
            raise ConfigurationError(f"Write {wanted}: actions are {space}.")
        if action is None:
            return self._query("values", observation)
        return self._query(
            "values",
            observation,
            action if spaces.is_batched(space, action) else np.expand_dims(action, 0),
        )

    def _query(self, name: str, observation: Any, *arguments: Any) -> np.ndarray:
        """What one of the agent's `queries` gives for an observation, or for each of a batch."""
        obs, batched = self._batch(observation)
        answer = np.asarray(self._programs.queries[name](self.params, obs, *arguments))
        return answer if batched else answer[0]

    def _batch(self, observation: Any) -> tuple[PyTree, bool]:
        """The observation as a batch of arrays, and whether it was a batch before."""
        space = self.spec.observation_space
        batched = spaces.is_batched(space, observation)
        try:
            self._checks[batched](observation)
        except InvalidStep as error:
            raise ConfigurationError(error.problem) from None
        return (
            spaces.copy(space, observation) if batched else spaces.stack(space, [observation])
        ), batched

    def get_env(self) -> TrainingEnv | None:
        """The environments that the agent trains in, as one Gymnasium `VectorEnv`.

        None if it was loaded without any.

        You may step, render and evaluate in them. `reset`, `step` and `evaluate_policy` break off
        the episodes of training, and training begins new ones when it goes on. While actors in
        threads step the environments, `reset` and `step` are refused.

        Training in environments that are compiled keeps their state elsewhere, and does not notice
        what happens here. With `runner="ray"`, these are environments of the same kind in this
        process.
        """
        if self._vector_env is None and self._envs is not None:
            self._vector_env = as_vector_env(
                self._envs,
                busy=lambda: self._runner is not None and self._runner.busy,
            )
        return self._vector_env

    def trains_in(self, envs: Envs) -> bool:
        """Whether any of these environments is one that the agent trains in."""
        ours = {id(part) for part in parts_of(self._envs)} if self._envs is not None else set()
        return any(id(part) in ours for part in parts_of(envs))

    @keywords.checked
    def set_env(self, env: EnvLike, n_envs: int | None = None) -> None:
        """Trains in other environments from now on.

        Their number may differ from the number before. Then the transitions in the replay buffer
        are laid out anew, and everything that was learned stays.

        Args:
          env: as for a new agent.
          n_envs: how many environments to make of an id, a function or a functional environment;
            None for as many as before.

        Raises:
          ConfigurationError: if their spaces differ from those that the agent was made for, or the
            hyperparameters do not allow for their number.
        """
        self._train_in(self._make_envs(self.spec, env, n_envs), env)

    def _make_envs(self, spec: EnvSpec, env: EnvLike, n_envs: int | None) -> Envs:
        """Makes environments for an agent that was made for others; raises `ConfigurationError` if their spaces differ."""
        made = hasattr(env, "metadata") and not isinstance(env, type)
        n_envs = (
            (1 if made else spec.num_envs)
            if n_envs is None
            else configs.integer("n_envs", n_envs, 1)
        )
        envs = make_shared_envs(env, n_envs, self.n_actors, distant=self.runner == "ray")
        if not all(map(spaces.fits, envs.spec[:2], spec[:2])):
            raise ConfigurationError(
                f"The agent was made for {_describe(spec)}, but the new environment has {_describe(envs.spec)}; make a new agent."
            )
        return envs

    def _train_in(self, envs: Envs, env: Any) -> None:
        """Trains in these environments, which were made of `env`; changes nothing if that is impossible."""
        spec, agent, programs, state = self._regrouped(envs.spec.num_envs)
        runner = self._make_runner(agent, programs, envs)
        self.spec, self._agent, self._programs, self._run = (
            spec,
            agent,
            programs,
            self._run._replace(learner_state=state),
        )
        self._runner, self._seed_next_reset = runner, True
        self._envs = envs
        self.env_id, self.env_kwargs = identify(env, envs)
        self._vector_env = None

    def _regrouped(self, num_envs: int) -> tuple[EnvSpec, Agent, Programs, Any]:
        """The agent for another number of environments, with its state.

        Raises:
          ConfigurationError: if the hyperparameters do not allow for that number.
        """
        if num_envs == self.spec.num_envs:
            return self.spec, self._agent, self._programs, self._run.learner_state
        spec, old = self.spec._replace(num_envs=num_envs), self._run.learner_state
        agent, programs = _build(
            type(self).make_agent, self.config, spec_to_json(spec), self.network, self.mesh
        )
        parts = programs.init(jax.random.key(0))._asdict()
        for name, part in parts.items():
            refill = agent.refill.get(
                name, functools.partial(_carry_over, self.spec.num_envs, num_envs, name)
            )
            parts[name] = refill(part, getattr(old, name))
        return spec, agent, programs, replicate(type(old)(**parts), self.mesh)

    def _is_finite(self) -> bool:
        """Whether the agent's state is finite, apart from its replay, of which the environments' checks take care."""
        return checkpoint.all_finite(
            {
                name: part
                for name, part in self._run.learner_state._asdict().items()
                if name != "replay"
            }
        )

    @keywords.checked
    def save(self, path: str | os.PathLike, exclude: str | Sequence[str] = ()) -> Path:
        """Saves the agent as one safetensors file, all or nothing.

        The state of environments that are compiled is part of it.

        While another thread trains the agent, that thread saves it at the end of the cycle.

        Args:
          path: where to; the suffix "safetensors" is added if it is missing.
          exclude: parts of the agent's state to leave out, such as "replay"; they are empty after
            loading. "replay" has no effect for an agent without a replay.

        Returns:
          The path of the file.

        Raises:
          ConfigurationError: if there is no such part, or a state that is not finite would replace
            a saved file.
        """
        return self._turns.call(lambda: self._save(path, exclude))

    def _save(self, path: str | os.PathLike, exclude: str | Sequence[str]) -> Path:
        if checkpoint.exists(path) and not self._is_finite():
            raise ConfigurationError(
                f"The agent's state is not finite, so that it does not replace {path}; save it elsewhere."
            )
        exclude = (exclude,) if isinstance(exclude, str) else exclude
        exclude = [
            part for part in exclude if part != "replay" or part in self._run.learner_state._fields
        ]
        for part in exclude:
            if part not in self._run.learner_state._fields or part == "params":
                raise ConfigurationError(
                    f"exclude={part!r}; choose from {', '.join(self._run.learner_state._fields[1:])}."
                )
        parts = self._run.learner_state._asdict()
        tree = {
            "agent": {name: part for name, part in parts.items() if name not in exclude},
            "key": self._run.key,
            "step": self._run.step,
            "moves": self._run.act_calls,
        }
        manifest = {
            **self._describe_run(),
            "excluded": sorted(exclude),
            "predictions": self._predictions,
            "versions": versions(),
        }
        manifest["revision"] = REVISION
        if self._runner is not None and self._runner.rollout_state is not None:
            tree["worlds"] = gather(self._runner.rollout_state, self.mesh)
            manifest["worlds"] = self._runner.name
        return checkpoint.save(path, tree, manifest)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        env: EnvLike | None = None,
        *,
        n_envs: int | None = None,
        runner: str = "auto",
        n_actors: int = 1,
        max_lag: int = 1,
        n_devices: int | str = 1,
        log_dir: str | os.PathLike[str] | None = None,
        network: Callable[[PyTree], Any] | None = None,
        info_keywords: Sequence[str] = (),
        **hyperparameters: Any,
    ) -> Self:
        """Loads an agent; without an environment it can predict but not learn.

        In the functional environment that it was saved in, it learns on exactly where it was.
        Others begin new episodes.

        Args:
          path: the file that `save` wrote, a run folder, or the folder in which `EvalCallback`
            saves the best agent.
          env: the environment to go on in.
          n_envs: how many environments to make of it, if not as many as before; see `set_env`.
          runner: as for a new agent.
          n_actors: as for a new agent.
          max_lag: as for a new agent.
          n_devices: as for a new agent.
          log_dir: as for a new agent.
          network: the network that the agent was made with, if it was a user's.
          info_keywords: as for a new agent.
          **hyperparameters: those to be replaced, and those that were functions.

        Raises:
          FileNotFoundError: if there is no such file.
          ConfigurationError: if the file is damaged, belongs to another algorithm, or does not fit
            what is given.
        """
        manifest = checkpoint.read_manifest(path)
        if manifest["algorithm"] != cls.__name__:
            raise ConfigurationError(
                f"{path} holds a {manifest['algorithm']}; load it with agentzoo.load(path)."
            )
        if manifest["network"] is not None and network is None:
            raise ConfigurationError(
                f"The agent was made with your network {manifest['network']!r}, which is not stored in the file (no code is); "
                f"pass it again: load(path, network=...)."
            )
        agent = cls.__new__(cls)
        agent._place(runner, n_actors, max_lag, n_devices)
        saved, spec = manifest["hyperparameters"], spec_from_json(json.dumps(manifest["spec"]))
        config = configs.from_json(cls.Config, saved, hyperparameters, _names_of(Algorithm.load))
        agent.seed, agent.env_id, agent._envs = manifest["seed"], manifest["env_id"], None
        agent.env_kwargs = manifest.get("env_kwargs", {})  # older files have none
        envs = None if env is None else agent._make_envs(spec, env, n_envs)
        number = (
            envs.spec.num_envs
            if envs is not None
            else configs.integer("n_envs", spec.num_envs if n_envs is None else n_envs, 1)
        )
        if number == spec.num_envs:
            agent.config = config
            agent._setup(spec, network, log_dir, info_keywords)
            if envs is not None:
                agent._train_in(envs, env)
            agent._restore(path, manifest)
            return agent
        # Hyperparameters that suit the new number of environments need not suit the old one.
        functions = {
            name: value
            for name, value in hyperparameters.items()
            if configs.is_function(saved.get(name))
        }
        agent.config = configs.from_json(cls.Config, saved, functions)
        agent._setup(spec, network, log_dir, info_keywords)
        agent._restore(path, manifest)
        agent.config = config
        if envs is not None:
            agent._train_in(envs, env)
        else:
            agent.spec, agent._agent, agent._programs, state = agent._regrouped(number)
            agent._run = agent._run._replace(learner_state=state)
        return agent

    def _restore(self, path: str | os.PathLike, manifest: dict[str, Any]) -> None:
        """Takes over the state that a file holds, with that of the environments where those are the same."""
        template = {
            "agent": self._run.learner_state._asdict(),
            "key": self._run.key,
            "step": self._run.step,
            "moves": self._run.act_calls,
        }
        missing = tuple(f"['agent']['{part}']" for part in manifest["excluded"])
        going_on = (
            self._runner is not None
            and self._runner.name is not None
            and self._runner.name == manifest.get("worlds")
        )
        if self._runner is not None and going_on:
            self._runner.reset(self.seed)
            template["worlds"], self._seed_next_reset = (
                gather(self._runner.rollout_state, self.mesh),
                False,
            )
        loaded = checkpoint.load(path, template, missing, surplus="['worlds']")
        if self._runner is not None:
            self._runner.rollout_state = shard(loaded.pop("worlds", None), self.mesh)
        state = type(self._run.learner_state)(**loaded["agent"])
        if manifest.get("revision", 1) < REVISION:
            state = self.upgrade(state, self.spec)
        self._run = RunState(
            replicate(state, self.mesh),
            replicate(loaded["key"], self.mesh),
            loaded["step"],
            loaded["moves"],
        )
        self._predictions, self._logged_step = manifest["predictions"], loaded["step"]

    @staticmethod
    def upgrade(state: Any, spec: EnvSpec) -> Any:
        """Convert the agent's state from a file of revision 1 to what it means today."""
        return state

    def _describe_run(self) -> dict[str, Any]:
        network = (
            getattr(self.network, "__name__", type(self.network).__name__)
            if self.network is not None
            else None
        )
        return {
            "algorithm": type(self).__name__,
            "env_id": self.env_id,
            "env_kwargs": self.env_kwargs,
            "seed": self.seed,
            "hyperparameters": configs.to_json(self.config),
            "network": network,
            "spec": json.loads(spec_to_json(self.spec)),
        }

    def _open_log(self, new: bool) -> None:
        if new:
            self.run_dir = self._make_run_dir() if self.log_dir is not None else None
            self.logger = Logger(self.run_dir)
        self.logger.open()
        self.logger.write_config(self._describe_run() | describe_device())

    def _make_run_dir(self) -> Path:
        assert self.log_dir is not None and self._envs is not None
        host = jax.process_index() if self.mesh is not None else 0
        log_dir = Path(self.log_dir) / f"host_{host}" if host else Path(self.log_dir)
        try:
            return make_folder(log_dir, type(self).__name__, self.env_id or _class_of(self._envs))
        except (FileExistsError, NotADirectoryError) as error:
            raise ConfigurationError(
                f"log_dir={str(self.log_dir)!r} is a file, or lies in one; choose a folder."
            ) from error


@functools.lru_cache(maxsize=16)
def _build(
    make_agent: Callable[..., Agent],
    config: Any,
    spec: str,
    network: Callable | None,
    mesh: Mesh | None,
) -> tuple[Agent, Programs]:
    """Agents are pure functions, so that those with the same settings share them, and their compiled programs."""
    agent = make_agent(config, spec_from_json(spec), network)
    return agent, compile_agent(agent, mesh)


def spec_to_json(spec: EnvSpec) -> str:
    """What an agent knows of its environments, as text."""
    return json.dumps(
        [spaces.to_json(spec.observation_space), spaces.to_json(spec.action_space), spec.num_envs]
    )


def spec_from_json(text: str) -> EnvSpec:
    """What `spec_to_json` wrote."""
    observation_space, action_space, num_envs = json.loads(text)
    return EnvSpec(spaces.from_json(observation_space), spaces.from_json(action_space), num_envs)


def _describe(spec: EnvSpec) -> str:
    return f"observations {spec.observation_space} and actions {spec.action_space}"


def _either(names: Sequence[str]) -> str:
    """Names as a text, such as "A, B or C"."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _carry_over(old_num: int, num: int, name: str, part: PyTree, old: PyTree) -> PyTree:
    """A part of the state of an agent for `num` environments: what `old` holds, but for what it holds of each environment."""

    def carry(new: Any, before: Any) -> Any:
        if (new.shape, new.dtype) == (before.shape, before.dtype):
            return before
        if before.shape[:1] == (old_num,) and new.shape == (num, *before.shape[1:]):
            return new  # new episodes begin in all environments
        raise ConfigurationError(
            f"The agent holds {name!r} as {before.dtype}{list(before.shape)}, but with these hyperparameters it would be "
            f"{new.dtype}{list(new.shape)}; go on with the hyperparameters that the agent was made with."
        )

    if jax.tree.structure(part) != jax.tree.structure(old):
        raise ConfigurationError(
            f"The agent holds another {name!r} than it would with these hyperparameters; "
            f"go on with the hyperparameters that the agent was made with."
        )
    return jax.tree.map(carry, part, old)


def _names_of(function: Callable[..., Any]) -> list[str]:
    """The arguments that a function has by name."""
    parameters = inspect.signature(function).parameters.values()
    names = [
        one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    ]
    return [name for name in names if name not in ("self", "cls")]


def _class_of(envs: Envs) -> str:
    """The name of the environments' class, for those without an id."""
    _, env = _first_of(envs)
    env = getattr(env, "unwrapped", env)
    while isinstance(env, _AROUND_ANOTHER):
        env = env.env
    return type(env).__name__


def _first_of(envs: Envs) -> tuple[Any, Any]:
    """The first of the environments, or the vector environment that it belongs to, and the first of those in it."""
    envs = getattr(envs, "shares", [envs])[0]
    outer: Any = getattr(envs, "env", None) or getattr(envs, "envs", [None])[0]
    return outer, getattr(outer, "envs", [outer])[0]


class Turns:
    """Lets threads take turns with the one that trains an agent, since JAX overwrites the agent's state within a cycle."""

    def __init__(self):
        self._lock = threading.RLock()
        self._learner: int | None = None
        self._waiting: deque[tuple[Callable[[], Any], Future]] = deque()

    @contextlib.contextmanager
    def learning(self) -> Iterator[None]:
        """A context in which this thread trains the agent, and has to call `serve` after each cycle.

        Raises:
          ConfigurationError: if the agent is learning already.
        """
        with self._lock:
            if self._learner is not None:
                raise ConfigurationError(
                    "The agent is learning already; wait until `learn` has returned, or make another agent."
                )
            self._learner = threading.get_ident()
        try:
            yield
        finally:
            with self._lock:
                self._learner = None
                self.serve()

    @property
    def is_awaited(self) -> bool:
        """Whether another thread is waiting for its turn."""
        return bool(self._waiting)

    def call(self, function: Callable[[], Any]) -> Any:
        """Returns what a function returns, which is called when no cycle is going on."""
        with self._lock:
            if self._learner in (None, threading.get_ident()):
                return function()
            result: Future = Future()
            self._waiting.append((function, result))
        return result.result()

    def serve(self) -> None:
        """Calls the functions for which other threads are waiting."""
        while self._waiting:
            function, result = self._waiting.popleft()
            try:
                result.set_result(function())
            except Exception as error:
                result.set_exception(error)


@contextlib.contextmanager
def interrupt_between_cycles() -> Iterator[Callable[[], bool]]:
    """Lets Ctrl-C wait for the end of a cycle, since JAX overwrites the agent's state within it.

    A second one does not wait.
    """
    pressed, previous = threading.Event(), signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or previous in (
        signal.SIG_IGN,
        None,
    ):
        yield pressed.is_set
        return

    def press(*_: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
