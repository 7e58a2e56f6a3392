"""The face of every algorithm: `learn`, `predict`, `save` and `load`.

`agentzoo.training` does the work.
"""

import copy
import inspect
import os
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np

from agentzoo import __version__, description, keywords, signatures
from agentzoo import config as configs
from agentzoo.algos.restoring import load_trainer
from agentzoo.callbacks import (
    BaseCallback,
    CallbackLike,
    CallbackList,
    ProgressBarCallback,
    make_callback,
)
from agentzoo.envs import EnvLike, Envs, OnError, TrainingEnv, spaces
from agentzoo.export import export
from agentzoo.logging import Logger, TrackersLike, versions
from agentzoo.policy import PolicyFunction
from agentzoo.process import tune_process
from agentzoo.settings import find_row, presets_of
from agentzoo.training import (
    OnNan,
    Placement,
    Recipe,
    RunLog,
    RunnerName,
    RunPlan,
    Session,
    Trainer,
    train,
)
from agentzoo.types import Agent, ConfigurationError, EnvSpec, PyTree, resolve_metrics

Config = TypeVar("Config")


class _Presets:
    """The presets of a class, which are read from the file of its settings when they are used."""

    def __get__(self, agent: Any, cls: type[Any]) -> Mapping[str, Mapping[str, Any]]:
        return presets_of(cls)


class Algorithm(Generic[Config]):
    """An agent that learns in Gymnasium environments.

    `print(agent)` shows how the agent takes each part of an observation, its network, and the
    hyperparameters that differ from the defaults.

    Args:
      env: a Gymnasium id, a `gym.Env`, a function that makes one, a `VectorEnv`, or an
        `agentzoo.envs.FunctionalEnv`.
      n_envs: number of environments to make from an id, a function or a functional environment, for
        all actors together.
      seed: random seed of networks, exploration and environments. None draws a seed.
      runner: how to train.

        - "host" steps environments from Python and learns in turn.
        - "device" compiles environments and learning into one program. The environments have to be
          written in JAX.
        - "threads" acts and learns at the same time. This helps if environments wait for a
          simulator, a network or a clock; see `agentzoo.runners.threads`.
        - "ray" does so in processes, on a cluster or on this machine. This helps if the steps of
          environments take long; see `agentzoo.runners.ray_actors`.
        - "auto" is "device" if the environments can be compiled, and "host" otherwise.

      n_actors: number of threads or, with `runner="ray"`, processes that share the environments.
      max_lag: how many trajectories each actor may be ahead of the learner. With 0, actors and
        learner take turns.
      n_devices: number of JAX devices that learn together, or "all". Each of them learns from its
        share of every batch, and the result is the one of a single device.
      env_timeout: seconds that an environment's `reset` or `step` may take before it counts as
        failed; None for no limit. The calls then happen in another thread.
      on_env_error: what happens if an environment raises an error, does not answer in time, or
        returns a wrong value. "raise" ends the run with a message. "restart" creates the
        environment again from its id or function and begins a new episode; the run ends if an
        environment fails 10 times within 1,000 of its steps. The log counts restarts as
        `env/restarts`.
      on_nan: what happens if a loss or a parameter is not finite after a training cycle. "stop"
        ends the run with a message. "skip" drops the update: the agent goes on as it was before,
        with a replay buffer that keeps the new transitions, and the log counts such cycles as
        `train/skipped_updates` and leaves out their losses. The run ends after 100 of them in a
        row. Rewards and observations that are not finite always end the run.
      log_dir: folder in which each run gets a folder of its own (`DQN_CartPole-v1_1`, ...) with
        TensorBoard and CSV logs, the hyperparameters, checkpoints, and the trained agent. None
        writes nothing.
      run_dir: folder of the run itself, instead of a folder in `log_dir`. A folder that already
        holds a run is refused; `agentzoo.resume` resumes the run.
      network: a Haiku function from a batch of observations to features `[N, F]`, which replaces
        our layers; see "Networks" in the documentation.
      info_keywords: names of entries of the environments' `info` to log as `rollout/<name>_mean`,
        the mean over the last 100 episodes whose last step had the entry. "is_success" is always
        logged, as `rollout/success_rate`. Compiled environments have no `info`.
      trackers: what gets the log beside the files: "wandb", "mlflow", an object with the members of
        `agentzoo.logging.Tracker`, or a list of these. A tracker that fails does not end training.
      preset: name of a set of hyperparameters that replaces the defaults; see "Tuned settings" in
        the documentation.
      **hyperparameters: fields of the algorithm's config.

    Attributes:
      trainer: what trains the agent: its functions, environments, session and log.

    Raises:
      ConfigurationError: if the arguments do not fit each other or the environment. The message
        says what to write instead.
    """

    Config: ClassVar[type]
    make_agent: ClassVar[Callable[..., Agent]]
    action_spaces: ClassVar[tuple[str, ...]]
    settings_file: ClassVar[str | os.PathLike[str] | None] = None
    presets: ClassVar[Any] = _Presets()

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        signatures.document(cls, Algorithm)

    @keywords.checked
    def __init__(
        self,
        env: EnvLike,
        *misplaced: Any,
        n_envs: int = 1,
        seed: int | None = 0,
        runner: RunnerName = "auto",
        n_actors: int = 1,
        max_lag: int = 1,
        n_devices: int | Literal["all"] = 1,
        env_timeout: float | None = None,
        on_env_error: OnError = "raise",
        on_nan: OnNan = "stop",
        log_dir: str | os.PathLike[str] | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        network: Callable[[PyTree], Any] | None = None,
        info_keywords: Sequence[str] = (),
        trackers: TrackersLike = (),
        preset: str | None = None,
        **hyperparameters: Any,
    ):
        name = type(self).__name__
        if misplaced:
            raise ConfigurationError(keywords.policy_first(name, env, misplaced[0]))
        tune_process()
        placement = Placement.make(
            runner, n_actors, max_lag, n_devices, env_timeout, on_env_error, on_nan
        )
        if preset is not None and preset not in self.presets:
            choices = ", ".join(self.presets) or "none"
            raise ConfigurationError(f"{name} has no preset {preset!r}; choose from {choices}.")
        n_envs = configs.integer("n_envs", n_envs, 1)
        hyperparameters = {**(self.presets[preset] if preset else {}), **hyperparameters}
        config = configs.make_config(self.Config, hyperparameters, _names_of(Algorithm.__init__))
        if seed is None:
            seed = random.SystemRandom().randrange(2**31)
        seed = configs.integer("seed", seed, 0)
        made = placement.make_envs(env, n_envs)
        recipe = self._make_recipe(config, made.envs.spec, network, seed)
        self.trainer = Trainer(
            recipe, placement, RunLog(log_dir, run_dir, trackers), _as_tuple(info_keywords)
        )
        self.trainer.use_envs(made)

    @classmethod
    def tuned(
        cls,
        env: EnvLike,
        *,
        row: str | None = None,
        settings: str | os.PathLike[str] | None = None,
        **changes: Any,
    ) -> Self:
        """Return a new agent with the tuned settings of its environment.

        `agentzoo.settings.read` returns all settings of an algorithm, with the number of steps for
        which they were tuned.

        Args:
          env: as for a new agent. Its id says which settings are used.
          row: key of the settings, if it is not the id of the environment.
          settings: a file of settings of your own, or a folder with a file `<algorithm>.yaml`. None
            uses the settings in the package.
          **changes: arguments of a new agent, hyperparameters included, which replace those of the
            settings.

        Raises:
          ConfigurationError: if there are no settings for the environment, their file is wrong, or
            the arguments do not fit, as for a new agent.
        """
        if changes.get("preset") is not None:
            raise ConfigurationError(
                f"{cls.__name__}.tuned takes no preset, because its hyperparameters are those of "
                f"the tuned settings. Write {cls.__name__}(env, preset={changes['preset']!r})."
            )
        found = find_row(cls, env, row, settings)
        options = {"n_envs": found.n_envs, **found.hyperparameters, **changes}
        agent = cls(found.env if isinstance(env, str) and env == found.key else env, **options)
        source = {"version": __version__} if settings is None else {"file": os.fspath(settings)}
        agent.trainer.recipe = agent.trainer.recipe.with_tuned({"env": found.key, **source})
        return agent

    @classmethod
    def _make_recipe(
        cls, config: Any, spec: EnvSpec, network: Callable[..., Any] | None, seed: int
    ) -> Recipe:
        """Return what an agent is made of, after checking that the algorithm suits the spaces."""
        if spaces.kind(spec.action_space) not in cls.action_spaces:
            raise ConfigurationError(
                f"{cls.__name__} needs a {_either(cls.action_spaces)} action space, but the "
                f"environment has {spec.action_space}."
            )
        if 0 in spaces.shape(spec.action_space):
            raise ConfigurationError(
                f"The action space {spec.action_space} is empty, so there is nothing to choose."
            )
        if network is not None and not callable(network):
            raise ConfigurationError(
                f"network={network!r}; expected a function from a batch of observations to "
                f"features [N, F]."
            )
        name, module = cls.__name__, cls.__module__
        return Recipe(name, cls.make_agent, config, spec, network, seed, module=module)

    def __copy__(self) -> Self:
        """Return an agent that keeps what this one has learned, while this one learns on.

        Both train in the same environments.
        """
        twin = type(self).__new__(type(self))
        twin.trainer = copy.copy(self.trainer)
        return twin

    def __repr__(self) -> str:
        return description.summarize(self)

    def __str__(self) -> str:
        return description.describe(self)

    @property
    def config(self) -> Any:
        """The hyperparameters."""
        return self.trainer.recipe.config

    @property
    def spec(self) -> EnvSpec:
        """The spaces and the number of the environments."""
        return self.trainer.recipe.spec

    @property
    def n_envs(self) -> int:
        """Number of environments in which the agent trains at once."""
        return self.spec.num_envs

    @property
    def seed(self) -> int:
        """The random seed."""
        return self.trainer.recipe.seed

    @property
    def network(self) -> Callable[..., Any] | None:
        """The network that was given in place of our layers, or None."""
        return self.trainer.recipe.network

    @property
    def runner(self) -> str:
        """The name of the runner, as it was given."""
        return self.trainer.placement.runner

    @property
    def n_actors(self) -> int:
        """Number of actors that share the environments."""
        return self.trainer.placement.n_actors

    @property
    def max_lag(self) -> int:
        """How many trajectories each actor may be ahead of the learner."""
        return self.trainer.placement.max_lag

    @property
    def mesh(self) -> Any:
        """The devices that learn together; None for one device."""
        return self.trainer.placement.mesh

    @property
    def info_keywords(self) -> tuple[str, ...]:
        """The names of the entries of `info` that are logged."""
        return tuple(self.trainer.info_keywords)

    @property
    def env_id(self) -> str | None:
        """The Gymnasium id of the environments; None if they have none."""
        return self.trainer.recipe.env_id

    @property
    def env_kwargs(self) -> Mapping[str, Any] | None:
        """The arguments with which the environments were made; None if they cannot be saved."""
        return self.trainer.recipe.env_kwargs

    @property
    def tuned_settings(self) -> Mapping[str, Any] | None:
        """Which tuned settings the agent was made with; None if it was made without any."""
        return self.trainer.recipe.tuned

    @property
    def functions(self) -> Agent:
        """The algorithm as pure functions: `init`, `act`, `predict` and `learn`."""
        return self.trainer.agent

    @property
    def num_timesteps(self) -> int:
        """Environment steps of the current run."""
        return self.trainer.step

    @property
    def params(self) -> PyTree:
        """Network parameters and everything else that acting needs.

        These arrays stay as they are while the agent learns on.
        """
        return self.trainer.params

    @property
    def learner_state(self) -> Any:
        """The state that the agent's functions carry from one training cycle to the next.

        It is a NamedTuple that begins with `params`. The next training cycle overwrites the other
        arrays, so copy what you want to keep. Setting the state replaces it.

        Raises:
          ConfigurationError: if the state is set while the agent is learning.
        """
        return self.trainer.run.learner_state

    @learner_state.setter
    def learner_state(self, state: Any) -> None:
        if self.trainer.turns.is_learning:
            raise ConfigurationError(
                "The state cannot be replaced while the agent is learning, as in a callback. Set "
                "learner_state after learn has returned."
            )
        self.trainer.run = self.trainer.run._replace(learner_state=state)

    @property
    def session(self) -> Session:
        """Everything that decides how the run continues.

        The next training cycle overwrites its arrays, so copy what you want to keep.
        """
        return self.trainer.session

    @property
    def logger(self) -> Logger:
        """The logger of the current run."""
        return self.trainer.log.logger

    @property
    def run_dir(self) -> Path | None:
        """The folder of the current run; None if nothing is written."""
        return self.trainer.log.folder

    @property
    def log_dir(self) -> str | os.PathLike[str] | None:
        """The folder in which runs get their folders, or None. The next new run uses it."""
        return self.trainer.log.log_dir

    @log_dir.setter
    def log_dir(self, log_dir: str | os.PathLike[str] | None) -> None:
        self.trainer.log.log_dir, self.trainer.log.run_dir = log_dir, None

    @property
    def metrics(self) -> dict[str, float]:
        """What the latest training cycle reported, by tag.

        A metric that does not exist yet is absent.
        """
        return resolve_metrics(self.trainer.log.metrics)

    @property
    def ep_rew_mean(self) -> float:
        """Mean return of the last 100 training episodes; NaN before the first."""
        return self.trainer.episodes.mean_reward

    @keywords.checked
    def learn(
        self,
        total_timesteps: float,
        callback: CallbackLike = None,
        log_interval: int = 1_000,
        progress_bar: bool = True,
        reset_num_timesteps: bool = True,
        checkpoint_freq: float | None = None,
        keep: int = 2,
    ) -> Self:
        """Train the agent.

        A run ends with the training cycle in which the budget is used up. Ctrl-C ends it after the
        current cycle, and a second Ctrl-C at once. SIGTERM ends it at once with `SystemExit` if
        there is a run folder. After any exception, the agent keeps the last finished cycle.

        Args:
          total_timesteps: environment steps to take, over all environments together. `1e5` is fine.
          callback: a `BaseCallback`, a function of the agent, or a list of those.
          log_interval: environment steps between two entries of the log.
          progress_bar: show a bar with return, speed and time left. If the output is neither a
            terminal nor a notebook, print one line for each entry of the log instead.
          reset_num_timesteps: begin a new run, with schedules and step counter at their start.
            False continues the last run for `total_timesteps` more, in its log and its episodes.
          checkpoint_freq: environment steps between two checkpoints in the run folder, from which
            `agentzoo.resume` continues. None writes one every five minutes and at the end. Without
            a run folder, there are no checkpoints.
          keep: how many of the last checkpoints are kept, besides the one with the highest mean
            return of the training episodes.

        Returns:
          The agent.

        Raises:
          ConfigurationError: if an argument is out of range, the agent was loaded without an
            environment, or it is learning already.
          TrainingError: if the losses or the parameters are not finite.
          EnvError: if an environment fails. It is a `TrainingError`.
          InvalidStep: if an environment returns a wrong value.
        """
        total = self.check_run(total_timesteps, log_interval, reset_num_timesteps)
        plan = RunPlan.make(total, log_interval, checkpoint_freq, keep, progress_bar)
        self.train_run(plan, callback, reset_num_timesteps)
        return self

    def train_run(
        self, plan: RunPlan, callback: CallbackLike, new: bool, own: Sequence[BaseCallback] = ()
    ) -> None:
        """Train the agent. `learn` calls this.

        Args:
          plan: how long the run is, and what it writes.
          callback: as for `learn`.
          new: whether the run is a new one.
          own: further callbacks, whose state is no part of checkpoints.
        """
        users = make_callback(callback)
        # The state of a single callback is saved as that of a list of one.
        users = users if isinstance(users, CallbackList) else CallbackList([users])
        callbacks = CallbackList([users, *own])
        if plan.progress_bar:
            callbacks.callbacks.append(ProgressBarCallback())
        callbacks.check_agent(self)
        train(self.trainer, self, plan, callbacks, users, new, watched=callback is not None)

    def resume_run(self, folder: Path, plan: RunPlan, callback: CallbackLike, anew: bool) -> None:
        """Resume the run in a folder and train until its end. `agentzoo.resume` calls this.

        Args:
          folder: the run folder.
          plan: the plan of the run.
          callback: as for `learn`.
          anew: whether the run starts again, because it has no checkpoint. Otherwise the agent was
            loaded from its newest state.
        """
        log, session = self.trainer.log, self.session
        if anew:
            log.restart(folder)
        elif session.log is None:
            log.rejoin(folder)
        else:
            log.restore(folder, session.log)
            self.trainer.resume()
        self.train_run(plan, callback, new=anew)

    def attach(self, folder: Path) -> None:
        """Let `learn(..., reset_num_timesteps=False)` go on in the folder of a finished run."""
        session = self.session
        if session.log is not None:
            self.trainer.log.attach(folder, session.log, session.episodes)

    def check_run(
        self, total_timesteps: float, log_interval: int, reset_num_timesteps: bool
    ) -> int:
        """Check the arguments of a run, and return the step at which it ends.

        Raises:
          ConfigurationError: if the run is impossible.
        """
        if np.ndim(total_timesteps) == 0 and hasattr(total_timesteps, "item"):
            total_timesteps = total_timesteps.item()  # type: ignore[union-attr]
        if not (isinstance(total_timesteps, int | float) and 1 <= total_timesteps < 2**31):
            raise ConfigurationError(
                f"total_timesteps={total_timesteps!r}; expected a number of environment steps, 1 "
                f"to 2^31 - 1."
            )
        configs.integer("log_interval", log_interval, 1)
        if self.trainer.runner is None:
            raise ConfigurationError(
                "The agent was loaded without an environment; give it one with set_env(env) or "
                "load(path, env=...)."
            )
        total = (0 if reset_num_timesteps else self.num_timesteps) + int(total_timesteps)
        if total >= 2**31:
            raise ConfigurationError(
                f"The run would be {total} steps long, and a run has 2^31 - 1 at most; begin a new "
                f"one."
            )
        return total

    def dump_logs(self) -> None:
        """Make an entry of the log for this step.

        Everything that callbacks record at this step and dump belongs to the same entry.
        """
        self.trainer.dump_logs()

    @keywords.checked
    def predict(
        self,
        observation: Any,
        state: PyTree = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, PyTree]:
        """Choose an action for an observation, or for each of a batch.

        Args:
          observation: an element of the observation space, or a batch of them.
          state: the state that the last call returned, for agents with memory.
          episode_start: whether the observation begins an episode, as an array for a batch. There,
            memory is reset.
          deterministic: leave out exploration.

        Returns:
          The action, or a batch of actions, as elements of the action space, and the state for the
          next call.

        Raises:
          ConfigurationError: if the observation does not fit the observation space.
        """
        deterministic = bool(deterministic)
        count = 0 if deterministic else self.trainer.count_prediction()
        policy = self.trainer.policy
        return policy.predict(self.params, observation, state, episode_start, deterministic, count)

    @property
    def policy(self) -> PolicyFunction:
        """The policy as a pure function `(params, observation, key=None) -> action`.

        It can be compiled and vectorised by JAX; see `agentzoo.policy.PolicyFunction`.
        """
        return self.trainer.policy.function

    def values(self, observation: Any, action: Any = None) -> np.ndarray:
        """Return the values `[A]` of the actions in an observation, or `[N, A]` for a batch.

        The value of an action that an "action_mask" marks as illegal is -inf.

        Args:
          observation: an element of the observation space, or a batch of them.
          action: the action to be valued, or a batch of actions, if actions are not indices. Then
            the result is a number, or `[N]`.

        Raises:
          ConfigurationError: if an argument does not fit its space, or the agent has no action
            values.
        """
        if "values" not in self.functions.queries:
            raise ConfigurationError(f"{type(self).__name__} has no action values.")
        space = self.spec.action_space
        discrete = hasattr(space, "n")
        if (action is None) != discrete:
            without = "values(observation), without an action"
            wanted = without if discrete else "values(observation, action)"
            raise ConfigurationError(f"Write {wanted}: actions are {space}.")
        if action is None:
            return self._query("values", observation)
        batch = action if spaces.is_batched(space, action) else np.expand_dims(action, 0)
        return self._query("values", observation, batch)

    def _query(self, name: str, observation: Any, *arguments: Any) -> np.ndarray:
        """Return the answer to one of the agent's `queries`, for an observation or a batch."""
        return self.trainer.policy.query(name, self.params, observation, *arguments)

    def get_env(self) -> TrainingEnv | None:
        """Return the environments that the agent trains in, as one Gymnasium `VectorEnv`.

        The result is None if the agent was loaded without environments.

        You may step, render and evaluate in them. `reset`, `step` and `evaluate_policy` break off
        the episodes of training, and training begins new episodes when it continues. While actors
        in threads step the environments, `reset` and `step` are refused.

        Compiled environments keep the state of training elsewhere, so training does not notice
        what happens here. With `runner="ray"`, these are environments of the same kind in this
        process.
        """
        return self.trainer.vector_env()

    def trains_in(self, envs: Envs) -> bool:
        """Return whether any of these environments is one that the agent trains in."""
        return self.trainer.trains_in(envs)

    @keywords.checked
    def set_env(self, env: EnvLike, n_envs: int | None = None) -> None:
        """Train in other environments from now on.

        Their number may differ from the number before. Then the transitions in the replay buffer
        are laid out anew, and everything that was learned stays.

        Args:
          env: as for a new agent.
          n_envs: number of environments to make from an id, a function or a functional environment.
            None keeps the number.

        Raises:
          ConfigurationError: if the agent is learning, their spaces differ from the ones that the
            agent was made for, or the hyperparameters do not allow their number.
        """
        placement = self.trainer.placement
        self.trainer.use_envs(placement.make_similar_envs(self.spec, env, n_envs))

    @keywords.checked
    def save(
        self,
        path: str | os.PathLike[str],
        exclude: str | Sequence[str] = (),
        policy_only: bool = False,
    ) -> Path:
        """Save the agent as one safetensors file, all or nothing.

        The file contains the state of compiled environments, and the actions of the running
        episodes of other environments. If another thread trains the agent,
        that thread saves it at the end of the training cycle.

        Args:
          path: the file. The suffix ".safetensors" is added if it is missing.
          exclude: parts of the agent's state to leave out, such as "replay". They are empty after
            loading, and target networks are copies of the networks that learn. "replay" has no
            effect for an agent without a replay buffer.
          policy_only: save only the parameters, which acting needs. The file holds no optimiser, no
            replay buffer and no running episodes. A loaded agent acts as this one does, and `learn`
            begins with a new optimiser and an empty replay buffer.

        Returns:
          The path of the file.

        Raises:
          ConfigurationError: if there is no such part, or a state that is not finite would replace
            a saved file.
        """
        return self.trainer.save(path, exclude, policy_only)

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write the policy alone as a file that can be used without agentzoo.

        The file holds the parameters of the policy, the scaling and normalisation of observations,
        action masks and memory. It chooses the same actions as `predict(..., deterministic=True)`,
        for batches of observations of any size.

        Args:
          path: the file. A path that ends in ".stablehlo" gives a file for `jax.export.deserialize`
            and one that ends in ".onnx" an ONNX model, which needs `agentzoo[onnx]`. A path without
            a suffix gets the suffix ".stablehlo".

        Returns:
          The path of the file.

        Raises:
          ConfigurationError: if the path ends in something else or cannot be written, a package is
            missing, or the policy cannot be converted.
        """
        recipe = self.trainer.recipe.to_json()
        about = {name: recipe[name] for name in ("algorithm", "env_id", "env_kwargs")}
        observations, actions, _ = recipe["spec"]
        about |= {"observation_space": observations, "action_space": actions}
        about |= {"steps": self.num_timesteps, "versions": versions()}
        return export(path, self.policy, self.params, self.spec, about)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        env: EnvLike | None = None,
        *,
        n_envs: int | None = None,
        runner: RunnerName = "auto",
        n_actors: int = 1,
        max_lag: int = 1,
        n_devices: int | Literal["all"] = 1,
        env_timeout: float | None = None,
        on_env_error: OnError = "raise",
        on_nan: OnNan = "stop",
        log_dir: str | os.PathLike[str] | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        network: Callable[[PyTree], Any] | None = None,
        info_keywords: Sequence[str] = (),
        trackers: TrackersLike = (),
        **hyperparameters: Any,
    ) -> Self:
        """Load an agent. Without an environment, it can predict but not learn.

        In the environment in which it was saved, training resumes exactly where it stopped, with
        `learn(..., reset_num_timesteps=False)`. A Python environment is reset with the same seed,
        and the actions of the running episode are repeated. In environments that cannot repeat an
        episode, and in other environments, training begins new episodes.

        Args:
          path: the file that `save` wrote, a run folder, or the folder in which `EvalCallback`
            saves the best agent.
          env: the environment in which to train.
          n_envs: number of environments to make from it, if it changes; see `set_env`.
          runner: as for a new agent.
          n_actors: as for a new agent.
          max_lag: as for a new agent.
          n_devices: as for a new agent.
          env_timeout: as for a new agent.
          on_env_error: as for a new agent.
          on_nan: as for a new agent.
          log_dir: as for a new agent.
          run_dir: as for a new agent.
          network: the network that the agent was made with, if it was a user's.
          info_keywords: as for a new agent.
          trackers: as for a new agent.
          **hyperparameters: hyperparameters to replace, and the ones that were functions.

        Raises:
          FileNotFoundError: if there is no such file.
          ConfigurationError: if the file is damaged, belongs to another algorithm, or does not fit
            the arguments.
        """
        tune_process()
        placement = Placement.make(
            runner, n_actors, max_lag, n_devices, env_timeout, on_env_error, on_nan
        )
        agent = cls.__new__(cls)
        agent.trainer = load_trainer(
            cls,
            path,
            env,
            n_envs,
            placement,
            RunLog(log_dir, run_dir, trackers),
            network,
            _as_tuple(info_keywords),
            hyperparameters,
            _names_of(Algorithm.load),
        )
        return agent

    @staticmethod
    def upgrade(state: Any, spec: EnvSpec) -> Any:
        """Convert the agent's state from a file of revision 1 to what it means today."""
        return state


def _either(names: Sequence[str]) -> str:
    """Return names as a text, such as "A, B or C"."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _as_tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return names as a tuple, also if there is only one."""
    return (names,) if isinstance(names, str) else tuple(names)


def _names_of(function: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that a function takes by name."""
    parameters = inspect.signature(function).parameters.values()
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [one.name for one in parameters if one.kind in by_name]
    return [name for name in names if name not in ("self", "cls")]
