"""The shell around an algorithm: everything of `learn`, `predict`, `save` and `load` that is the same for all of them."""

import contextlib
import functools
import json
import math
import os
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import jax
import numpy as np

from agentzoo import checkpoint
from agentzoo import config as configs
from agentzoo.callbacks import BaseCallback, CallbackLike, CallbackList, ProgressBarCallback, make_callback
from agentzoo.envs import EnvLike, Envs, make_shared_envs, spaces
from agentzoo.logging import Logger, next_folder, versions
from agentzoo.runners import Programs, Runner, RunState, check_runner, compile_agent, make_runner
from agentzoo.sharding import Mesh, collect, make_mesh, replicate, spread
from agentzoo.types import Agent, ConfigurationError, EnvSpec, PyTree, TrainingError, all_finite, resolve_metrics

Config = TypeVar("Config")

# What the arrays of a saved agent mean, which files say from 2 on. In files of revision 1, the Box actions
# of PPO and IMPALA are in the environment's units.
REVISION = 2


class Algorithm(Generic[Config]):
    """An agent that learns in Gymnasium environments.

    Args:
      env: a Gymnasium id, a `gym.Env`, a function that makes one, a `VectorEnv`, or an `agentzoo.envs.FunctionalEnv`.
      n_envs: how many environments to make of an id, a function or a functional environment, for all actors together.
      seed: of networks, exploration and environments; None draws one.
      runner: how to train. "host" steps environments from Python and learns in turn. "device" compiles both into one program, which needs
        environments that are written in JAX. "threads" does both at the same time, which pays where environments wait, for a simulator, a
        network or a clock: see `agentzoo.runners.threads`. "ray" does so in processes, on a cluster or on this machine, which pays where
        environments compute for long: see `agentzoo.runners.ray_actors`. "auto" is "device" where it can be, and else "host".
      n_actors: between how many threads or, with `runner="ray"`, processes the environments are shared.
      max_lag: how many trajectories each of them may be ahead of what was learned; 0 takes turns.
      n_devices: how many of JAX's devices learn, each from its share of every batch, or "all"; the result is that of one.
      log_dir: folder in which each run gets a folder of its own (`DQN_1`, ...) with TensorBoard and CSV logs, the
        hyperparameters, and the trained agent. None writes nothing.
      network: a Haiku function from a batch of observations to features `[N, F]`, in place of our layers; see "Networks" in the docs.
      preset: the name of a set of hyperparameters to start from instead of the defaults, see `presets`.
      **hyperparameters: fields of the algorithm's config.

    Raises:
      ConfigurationError: if any of this cannot work; the message says what to write instead.
    """

    Config: ClassVar[type]
    make_agent: ClassVar[Callable[..., Agent]]
    action_spaces: ClassVar[tuple[str, ...]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

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
        preset: str | None = None,
        **hyperparameters: Any,
    ):
        name = type(self).__name__
        if misplaced:
            policy = isinstance(env, str) and env.endswith("Policy")
            advice = f"{name}({misplaced[0]!r})" if policy else f"{name}(env, learning_rate=...)"
            reason = "the environment comes first and the network follows from its spaces" if policy else "only env goes without a name"
            raise ConfigurationError(f"Write {advice}: {reason}.")
        check_runner(runner, n_actors, max_lag)
        self.runner, self.n_actors, self.max_lag, self.mesh = runner, n_actors, max_lag, make_mesh(n_devices)
        if preset is not None and preset not in self.presets:
            raise ConfigurationError(f"{name} has no preset {preset!r}; choose from {', '.join(self.presets) or 'none'}.")
        if n_envs < 1:
            raise ConfigurationError(f"n_envs={n_envs}; expected at least 1.")
        hyperparameters = {**(self.presets[preset] if preset else {}), **hyperparameters}
        self.config: Config = configs.make_config(self.Config, hyperparameters)
        self.seed = random.SystemRandom().randrange(2**31) if seed is None else int(seed)
        self._envs: Envs | None = make_shared_envs(env, n_envs, n_actors, distant=runner == "ray")
        self._setup(self._envs.spec, network, log_dir)
        self.env_id = env if isinstance(env, str) else _id_of(self._envs)

    def _setup(self, spec: EnvSpec, network: Callable | None, log_dir: str | os.PathLike[str] | None) -> None:
        """What is common to making an agent and loading one."""
        action_space = type(spec.action_space).__name__
        if action_space not in self.action_spaces:
            raise ConfigurationError(
                f"{type(self).__name__} needs a {' or '.join(self.action_spaces)} action space, "
                f"but the environment has {spec.action_space}."
            )
        if network is not None and not callable(network):
            raise ConfigurationError(f"network={network!r}; expected a function from a batch of observations to features [N, F].")
        self.spec, self.network, self.log_dir = spec, network, log_dir
        self._agent, self._programs = _build(type(self).make_agent, self.config, spec_to_json(spec), network, self.mesh)
        init_key, act_key, self._predict_key = jax.random.split(jax.random.key(self.seed), 3)
        self._run = RunState(self._programs.init(init_key), replicate(act_key, self.mesh), 0, 0)
        self._predictions = 0
        self._runner = self._make_runner(self._envs) if self._envs is not None else None
        self._seed_next_reset = True
        self._episodes: deque = deque(maxlen=100)
        self._metrics: dict[str, Any] = {}
        self.logger = Logger()
        self.run_dir: Path | None = None

    def _make_runner(self, envs: Envs) -> Runner:
        return make_runner(self.runner, self._agent, self._programs, envs, self.max_lag)

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
        """What acting needs: network parameters and the like."""
        return self._run.agent.params

    @property
    def metrics(self) -> dict[str, float]:
        """What the latest training cycle reported, by tag. A metric that does not exist yet is absent."""
        return resolve_metrics(self._metrics)

    @property
    def ep_rew_mean(self) -> float:
        """Mean return of the last 100 training episodes; NaN before the first."""
        return float(np.mean([episode.reward for episode in self._episodes])) if self._episodes else math.nan

    def learn(
        self,
        total_timesteps: float,
        callback: CallbackLike = None,
        log_interval: int = 1_000,
        progress_bar: bool = True,
        reset_num_timesteps: bool = True,
    ) -> Self:
        """Trains the agent.

        A run ends with the training cycle in which the budget is used up. It can be interrupted (Ctrl-C): the agent keeps what it
        has learned.

        Args:
          total_timesteps: environment steps to take, over all environments together; `1e5` is fine.
          callback: a `BaseCallback`, a function of the agent, or a list of those.
          log_interval: environment steps between two entries of the log.
          progress_bar: show a bar with return, speed and time left.
          reset_num_timesteps: begin a new run, with schedules and step counter at their start. False goes on with the last one,
            for `total_timesteps` more, in its log and its episodes.

        Returns:
          The agent.

        Raises:
          ConfigurationError: if an argument is out of range, or the agent was loaded without an environment.
        """
        callbacks = [make_callback(callback), *([ProgressBarCallback()] if progress_bar else [])]
        total = self._check_run(total_timesteps, log_interval, reset_num_timesteps)
        self._begin(reset_num_timesteps)
        try:
            self._train(total, CallbackList(callbacks), log_interval)
        finally:
            self._end()
        return self

    def _check_run(self, total_timesteps: float, log_interval: int, reset_num_timesteps: bool) -> int:
        """The step at which a run ends; raises `ConfigurationError` if it cannot be."""
        if not (isinstance(total_timesteps, int | float | np.number) and 1 <= total_timesteps < 2**31):
            raise ConfigurationError(f"total_timesteps={total_timesteps!r}; expected a number of environment steps, 1 to 2^31 - 1.")
        if log_interval < 1:
            raise ConfigurationError(f"log_interval={log_interval}; expected at least 1 environment step.")
        if self._runner is None:
            raise ConfigurationError("The agent was loaded without an environment; give it one with set_env(env) or load(path, env=...).")
        total = (0 if reset_num_timesteps else self._run.step) + int(total_timesteps)
        if total >= 2**31:
            raise ConfigurationError(f"The run would be {total} steps long, and a run has 2^31 - 1 at most; begin a new one.")
        return total

    def _begin(self, reset_num_timesteps: bool) -> None:
        """Prepares a run."""
        assert self._runner is not None
        if reset_num_timesteps or self._seed_next_reset:
            self._runner.reset(self.seed if self._seed_next_reset else None)
            self._seed_next_reset = False
        if reset_num_timesteps:
            self._run = self._run._replace(step=0)
            self._episodes.clear()
        self._open_log(new=reset_num_timesteps or self.run_dir is None)
        self._started, self._first_step = time.perf_counter(), self._run.step

    def _end(self) -> None:
        """Keeps what a run has learned, unless that is not finite."""
        if self.run_dir is not None and all_finite(self.params):
            self.save(self.run_dir / "model")
        self.logger.close()

    def _train(self, total: int, callback: BaseCallback, log_interval: int) -> None:
        assert self._runner is not None
        callback.init_callback(self)
        callback.on_training_start({"total_timesteps": total, "episodes": []}, {})
        logged = self._run.step // log_interval

        def pause(step: int) -> float:
            return min((step // log_interval + 1) * log_interval, callback.next_step(step))

        try:
            with interrupt_between_cycles() as interrupted, contextlib.closing(self._runner.run(self._run, total, pause)) as cycles:
                callback.on_rollout_start()
                for cycle in cycles:
                    self._run, self._metrics = cycle.run, cycle.metrics
                    self._episodes.extend(cycle.episodes)
                    if cycle.fault is not None:
                        raise TrainingError(cycle.fault)
                    callback.update_locals({"episodes": cycle.episodes})
                    callback.on_rollout_end()
                    proceed = callback.on_step()
                    if self._run.step // log_interval > logged:
                        logged = self._run.step // log_interval
                        self.dump_logs()
                    if interrupted():
                        raise KeyboardInterrupt
                    if not proceed:
                        break
                    callback.on_rollout_start()
        finally:
            self.dump_logs()
            callback.on_training_end()

    def dump_logs(self) -> None:
        """Writes an entry of the log now."""
        if self._episodes:
            self.logger.record("rollout/ep_rew_mean", self.ep_rew_mean)
            self.logger.record("rollout/ep_len_mean", float(np.mean([episode.length for episode in self._episodes])))
        elapsed = time.perf_counter() - self._started
        self.logger.record("time/fps", (self._run.step - self._first_step) / elapsed)
        self.logger.record("time/time_elapsed", elapsed)
        for tag, value in self.metrics.items():
            self.logger.record(tag, value)
        self.logger.dump(self._run.step)

    def predict(
        self, observation: Any, state: PyTree = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, PyTree]:
        """Chooses an action for an observation, or for each of a batch.

        Args:
          observation: an element of the observation space, or a batch of them.
          state: what the last call returned, for agents with memory.
          episode_start: whether the observation begins an episode (an array for a batch); memory is reset there.
          deterministic: leave out exploration.

        Returns:
          The action (or a batch of them), as the environment takes it, and the state for the next call.

        Raises:
          ConfigurationError: if the observation does not fit the observation space.
        """
        obs, batched = self._batch(observation)
        num = jax.tree.leaves(obs)[0].shape[0]
        memory = self._agent.initial_memory(num) if state is None else state
        start = np.zeros(num, bool) if episode_start is None else np.broadcast_to(np.asarray(episode_start, bool), (num,))
        key = jax.random.fold_in(self._predict_key, self._predictions) if not deterministic else self._predict_key
        self._predictions += not deterministic
        action, memory = self._programs.predict(self.params, memory, obs, start, key, deterministic)
        action = np.asarray(action) + getattr(self.spec.action_space, "start", 0)
        return (action if batched else action[0]), (memory if jax.tree.leaves(memory) else None)

    def values(self, observation: Any, action: Any = None) -> np.ndarray:
        """The values `[A]` that an agent gives to the actions in an observation, or `[N, A]` for a batch.

        The value of an action that is illegal by an "action_mask" is -inf.

        Args:
          observation: an element of the observation space, or a batch of them.
          action: where actions are no indices, the action to be valued, or a batch of them; the result is a number, or `[N]`.

        Raises:
          ConfigurationError: if an argument does not fit its space, or the agent has no action values.
        """
        if "values" not in self._programs.queries:
            raise ConfigurationError(f"{type(self).__name__} has no action values.")
        space = self.spec.action_space
        if (action is None) != hasattr(space, "n"):
            wanted = "values(observation), without an action" if hasattr(space, "n") else "values(observation, action)"
            raise ConfigurationError(f"Write {wanted}: actions are {space}.")
        if action is None:
            return self._query("values", observation)
        return self._query("values", observation, action if spaces.is_batched(space, action) else np.expand_dims(action, 0))

    def _query(self, name: str, observation: Any, *arguments: Any) -> np.ndarray:
        """What one of the agent's `queries` gives for an observation, or for each of a batch."""
        obs, batched = self._batch(observation)
        answer = np.asarray(self._programs.queries[name](self.params, obs, *arguments))
        return answer if batched else answer[0]

    def _batch(self, observation: Any) -> tuple[PyTree, bool]:
        """The observation as a batch of arrays, and whether it was a batch before."""
        space = self.spec.observation_space
        batched = spaces.is_batched(space, observation)
        return (spaces.copy(space, observation) if batched else spaces.stack(space, [observation])), batched

    def get_env(self) -> Envs | None:
        """The environments that the agent trains in."""
        return self._envs

    def set_env(self, env: EnvLike) -> None:
        """Trains in other environments from now on. Of an id, a function or a functional environment there will be as many as before.

        Raises:
          ConfigurationError: if their number or spaces differ.
        """
        made = hasattr(env, "metadata") and not isinstance(env, type)
        envs = make_shared_envs(env, 1 if made else self.n_envs, self.n_actors, distant=self.runner == "ray")
        if envs.spec != self.spec:
            raise ConfigurationError(
                f"The agent was made for {_describe(self.spec)}, but the new environment is {_describe(envs.spec)}; make a new agent."
            )
        self._runner, self._seed_next_reset = self._make_runner(envs), True
        self._envs, self.env_id = envs, env if isinstance(env, str) else _id_of(envs)

    def save(self, path: str | os.PathLike, exclude: tuple[str, ...] | list[str] = ()) -> Path:
        """Saves the agent as one safetensors file, all or nothing. The state of environments that are compiled is part of it.

        Args:
          path: where to; the suffix "safetensors" is added if it is missing.
          exclude: parts of the agent's state to leave out, such as "replay"; they are empty after loading.

        Returns:
          The path of the file.

        Raises:
          ConfigurationError: if there is no such part, or parameters that are not finite would replace a saved file.
        """
        if checkpoint.exists(path) and not all_finite(self.params):
            raise ConfigurationError(f"The agent's parameters are not finite, so that it does not replace {path}; save it elsewhere.")
        for part in exclude:
            if part not in self._run.agent._fields or part == "params":
                raise ConfigurationError(f"exclude={part!r}; choose from {', '.join(self._run.agent._fields[1:])}.")
        run = self._run._replace(agent=self._run.agent._asdict())
        run = run._replace(agent={part: value for part, value in run.agent.items() if part not in exclude})
        manifest = {**self._describe_run(), "excluded": sorted(exclude), "predictions": self._predictions, "versions": versions()}
        manifest["revision"] = REVISION
        if self._runner is None or self._runner.worlds is None:
            return checkpoint.save(path, run._asdict(), manifest)
        worlds = collect(self._runner.worlds, self.mesh)
        return checkpoint.save(path, run._asdict() | {"worlds": worlds}, manifest | {"worlds": self._runner.name})

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        env: EnvLike | None = None,
        *,
        runner: str = "auto",
        n_actors: int = 1,
        max_lag: int = 1,
        n_devices: int | str = 1,
        log_dir: str | os.PathLike[str] | None = None,
        network: Callable[[PyTree], Any] | None = None,
        **hyperparameters: Any,
    ) -> Self:
        """Loads an agent; without an environment it can predict but not learn.

        In the functional environment that it was saved in, it learns on exactly where it was. Others begin new episodes.

        Args:
          path: the file that `save` wrote.
          env: the environment to go on in.
          runner: as for a new agent.
          n_actors: as for a new agent.
          max_lag: as for a new agent.
          n_devices: as for a new agent.
          log_dir: as for a new agent.
          network: the network that the agent was made with, if it was a user's.
          **hyperparameters: those to be replaced, and those that were functions.

        Raises:
          FileNotFoundError: if there is no such file.
          ConfigurationError: if the file is damaged, belongs to another algorithm, or does not fit what is given.
        """
        manifest = checkpoint.read_manifest(path)
        if manifest["algorithm"] != cls.__name__:
            raise ConfigurationError(f"{path} holds a {manifest['algorithm']}; load it with agentzoo.load(path).")
        if manifest["network"] is not None and network is None:
            raise ConfigurationError(
                f"The agent was made with your network {manifest['network']!r}, which is not stored in the file (no code is); "
                f"pass it again: load(path, network=...)."
            )
        agent = cls.__new__(cls)
        check_runner(runner, n_actors, max_lag)
        agent.runner, agent.n_actors, agent.max_lag, agent.mesh = runner, n_actors, max_lag, make_mesh(n_devices)
        agent.config = configs.from_json(cls.Config, manifest["hyperparameters"], hyperparameters)
        agent.seed, agent.env_id = manifest["seed"], manifest["env_id"]
        agent._envs = None
        agent._setup(spec_from_json(json.dumps(manifest["spec"])), network, log_dir)
        template = agent._run._replace(agent=agent._run.agent._asdict())._asdict()
        missing = tuple(f"['agent']['{part}']" for part in manifest["excluded"])
        if env is not None:
            agent.set_env(env)
        going_on = agent._runner is not None and agent._runner.name is not None and agent._runner.name == manifest.get("worlds")
        if agent._runner is not None and going_on:
            agent._runner.reset(agent.seed)
            template["worlds"], agent._seed_next_reset = collect(agent._runner.worlds, agent.mesh), False
        loaded = checkpoint.load(path, template, missing, surplus="['worlds']")
        if agent._runner is not None:
            agent._runner.worlds = spread(loaded.pop("worlds", None), agent.mesh)
        state = type(agent._run.agent)(**loaded["agent"])
        if manifest.get("revision", 1) < REVISION:
            state = cls.upgrade(state, agent.spec)
        agent._run = RunState(replicate(state, agent.mesh), replicate(loaded["key"], agent.mesh), loaded["step"], loaded["moves"])
        agent._predictions = manifest["predictions"]
        return agent

    @staticmethod
    def upgrade(state: Any, spec: EnvSpec) -> Any:
        """Convert the agent's state from a file of revision 1 to what it means today."""
        return state

    def _describe_run(self) -> dict[str, Any]:
        network = getattr(self.network, "__name__", type(self.network).__name__) if self.network is not None else None
        return {
            "algorithm": type(self).__name__,
            "env_id": self.env_id,
            "seed": self.seed,
            "hyperparameters": configs.to_json(self.config),
            "network": network,
            "spec": json.loads(spec_to_json(self.spec)),
        }

    def _open_log(self, new: bool) -> None:
        if self.log_dir is not None and new:
            host = jax.process_index() if self.mesh is not None else 0
            self.run_dir = next_folder(Path(self.log_dir) / f"host_{host}" if host else Path(self.log_dir), type(self).__name__)
        self.logger = Logger(self.run_dir)
        self.logger.write_config(self._describe_run())


@functools.lru_cache(maxsize=16)
def _build(make_agent: Callable[..., Agent], config: Any, spec: str, network: Callable | None, mesh: Mesh | None) -> tuple[Agent, Programs]:
    """Agents are pure functions, so that those with the same settings share them, and their compiled programs."""
    agent = make_agent(config, spec_from_json(spec), network)
    return agent, compile_agent(agent, mesh)


def spec_to_json(spec: EnvSpec) -> str:
    """What an agent knows of its environments, as text."""
    return json.dumps([spaces.to_json(spec.observation_space), spaces.to_json(spec.action_space), spec.num_envs])


def spec_from_json(text: str) -> EnvSpec:
    """What `spec_to_json` wrote."""
    observation_space, action_space, num_envs = json.loads(text)
    return EnvSpec(spaces.from_json(observation_space), spaces.from_json(action_space), num_envs)


def _describe(spec: EnvSpec) -> str:
    return f"{spec.num_envs} environment(s) with observations {spec.observation_space} and actions {spec.action_space}"


def _id_of(envs: Envs) -> str | None:
    envs = getattr(envs, "shares", [envs])[0]
    env: Any = getattr(envs, "env", None) or getattr(envs, "envs", [None])[0]
    return getattr(getattr(env, "spec", None), "id", None)  # EnvPool's specs have none


@contextlib.contextmanager
def interrupt_between_cycles() -> Iterator[Callable[[], bool]]:
    """Lets Ctrl-C wait for the end of a cycle, since JAX overwrites the agent's state within it. A second one does not wait."""
    pressed, previous = threading.Event(), signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or previous in (signal.SIG_IGN, None):
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
