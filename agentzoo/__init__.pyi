"""The public face of agentzoo for type checkers and editors. `make stubs` writes this file."""

# fmt: off
# ruff: noqa
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

from agentzoo import algos as algos
from agentzoo import callbacks as callbacks
from agentzoo import core as core
from agentzoo import envs as envs
from agentzoo import networks as networks
from agentzoo import replay as replay
from agentzoo import runners as runners
from agentzoo import lab as lab
from agentzoo import settings as settings
from agentzoo import zoo as zoo
from agentzoo.algos.base import Algorithm as Algorithm
from agentzoo.algos.dqn import DQN as _DQN
from agentzoo.algos.impala import IMPALA as _IMPALA
from agentzoo.algos.loading import load as load
from agentzoo.algos.loading import register as register
from agentzoo.algos.mpo import MPO as _MPO
from agentzoo.algos.ppo import PPO as _PPO
from agentzoo.algos.qrdqn import QRDQN as _QRDQN
from agentzoo.algos.resuming import resume as resume
from agentzoo.algos.sac import SAC as _SAC
from agentzoo.check import check_env as check_env
from agentzoo.compilation import use_compilation_cache as use_compilation_cache
from agentzoo.config import Linear as Linear
from agentzoo.envs import make_env as make_env
from agentzoo.evaluation import evaluate_policy as evaluate_policy
from agentzoo.training.together import learn_together as learn_together
from agentzoo.types import ConfigurationError as ConfigurationError
from agentzoo.types import EnvError as EnvError
from agentzoo.zoo import pretrained as pretrained
from agentzoo.zoo.hub import load_from_hub as load_from_hub
from agentzoo.zoo.hub import push_to_hub as push_to_hub
from agentzoo.config import Schedule
from agentzoo.envs import EnvLike, OnError
from agentzoo.logging import TrackersLike
from agentzoo.runners import OnNan, RunnerName
from agentzoo.types import PyTree

__version__: str
__all__ = ['Algorithm', 'ConfigurationError', 'DQN', 'EnvError', 'IMPALA', 'Linear', 'MPO', 'PPO', 'QRDQN', 'SAC', 'check_env', 'evaluate_policy', 'learn_together', 'load', 'load_from_hub', 'make_env', 'pretrained', 'push_to_hub', 'register', 'resume', 'use_compilation_cache']

class DQN(_DQN):
    """Deep Q-Networks for Discrete actions. `agentzoo.algos.dqn` describes the method.

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
      learning_rate: Learning rate of Adam. A number above 0, Linear(start, end) or a function of
        the remaining progress; default Linear(start=0.001, end=0.0).
      adam_eps: Epsilon of Adam. A number above 0; default 1e-08.
      max_grad_norm: Gradients are clipped to this global norm. A number above 0; default 10.0.
      buffer_size: Transitions that the replay buffer holds. An integer of at least 1; default
        100000.
      learning_starts: Environment steps with random actions before learning starts. An integer of
        at least 0; default 1000.
      batch_size: Transitions per gradient step. An integer of at least 1; default 64.
      gamma: Discount factor per environment step. A number from 0 to 1; default 0.99.
      train_freq: Environment steps per environment between two phases of learning. An integer of at
        least 1; default 16.
      gradient_steps: Gradient steps per phase of learning; -1 takes one per environment step. An
        integer of at least -1; default 8.
      target_update_interval: Environment steps between two updates of the target network. An
        integer of at least 1; default 500.
      tau: Fraction by which an update moves the target network to the online one; 1 copies it. A
        number above 0 and up to 1; default 1.0.
      exploration_fraction: Fraction of the run during which epsilon falls. A number from 0 to 1;
        default 0.1.
      exploration_initial_eps: Probability of a random action (epsilon) when the run begins. A
        number from 0 to 1; default 1.0.
      exploration_final_eps: Probability of a random action (epsilon) after it has fallen. A number
        from 0 to 1; default 0.02.
      n_steps: Environment steps that a transition spans. An integer of at least 1; default 10.
      double_q: Select next actions by the online network, and value them by the target network.
        Default True.
      dueling: Split the network into a value stream and an advantage stream. Default False.
      noisy: Explore by noise on the parameters of the head instead of by epsilon. Default False.
      prioritized_replay: Replay each transition with a probability in proportion to (abs(td_error)
        + eps)^alpha. Default False.
      prioritized_replay_alpha: Exponent alpha of the priorities; 0 replays uniformly. A number from
        0 to 1; default 0.6.
      prioritized_replay_beta0: Initial exponent of the importance weights. It rises to 1 at the end
        of the run. A number from 0 to 1; default 0.4.
      prioritized_replay_eps: Constant eps of the priorities, which keeps every priority above 0. A
        number above 0; default 1e-06.
      clip_reward: Learn from rewards clipped to [-1, 1]. The logged returns are not clipped.
        Default False.
      images: Parts of observations that are images: "auto", True for all that can be one, False for
        none, or names of parts of a Dict. True, False, a string or a tuple of strings; default
        'auto'.
      scale_obs: Scale integers in observations by their bounds. False divides images by 255 and
        leaves other integers as they are. Default True.
      cnn: Convolutional layers for images. 'nature', 'impala' or 'efficient'; default 'nature'.
      net_arch: Sizes of the hidden layers. A tuple of integers of at least 1; default (128, 128).
      activation: Activation function of the hidden layers. 'relu', 'tanh', 'silu', 'gelu' or 'elu';
        default 'relu'.
      layer_norm: Layer normalisation before the activation of each hidden layer. "first" normalises
        only the first one, and its activation is then tanh. True, False or 'first'; default False.
      residual: Residual blocks (SimBa) as hidden layers, one for each size in net_arch. They have
        layer normalisation of their own, whatever layer_norm says. Default False.

    Raises:
      ConfigurationError: if the arguments do not fit each other or the environment. The message
        says what to write instead.
    """
    def __init__(
        self,
        env: EnvLike,
        *,
        n_envs: int=1,
        seed: int | None=0,
        runner: RunnerName='auto',
        n_actors: int=1,
        max_lag: int=1,
        n_devices: int | Literal['all']=1,
        env_timeout: float | None=None,
        on_env_error: OnError='raise',
        on_nan: OnNan='stop',
        log_dir: str | os.PathLike[str] | None=None,
        run_dir: str | os.PathLike[str] | None=None,
        network: Callable[[PyTree], Any] | None=None,
        info_keywords: Sequence[str]=(),
        trackers: TrackersLike=(),
        preset: str | None=None,
        learning_rate: Schedule = Linear(start=0.001, end=0.0),
        adam_eps: float = 1e-08,
        max_grad_norm: float = 10.0,
        buffer_size: int = 100000,
        learning_starts: int = 1000,
        batch_size: int = 64,
        gamma: float = 0.99,
        train_freq: int = 16,
        gradient_steps: int = 8,
        target_update_interval: int = 500,
        tau: float = 1.0,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.02,
        n_steps: int = 10,
        double_q: bool = True,
        dueling: bool = False,
        noisy: bool = False,
        prioritized_replay: bool = False,
        prioritized_replay_alpha: float = 0.6,
        prioritized_replay_beta0: float = 0.4,
        prioritized_replay_eps: float = 1e-06,
        clip_reward: bool = False,
        images: bool | str | Sequence[str] = 'auto',
        scale_obs: bool = True,
        cnn: Literal["nature", "impala", "efficient"] = 'nature',
        net_arch: Sequence[int] = (128, 128),
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = 'relu',
        layer_norm: bool | Literal["first"] = False,
        residual: bool = False,
    ) -> None: ...
    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        env: EnvLike | None=None,
        *,
        n_envs: int | None=None,
        runner: RunnerName='auto',
        n_actors: int=1,
        max_lag: int=1,
        n_devices: int | Literal['all']=1,
        env_timeout: float | None=None,
        on_env_error: OnError='raise',
        on_nan: OnNan='stop',
        log_dir: str | os.PathLike[str] | None=None,
        run_dir: str | os.PathLike[str] | None=None,
        network: Callable[[PyTree], Any] | None=None,
        info_keywords: Sequence[str]=(),
        trackers: TrackersLike=(),
        learning_rate: Schedule = Linear(start=0.001, end=0.0),
        adam_eps: float = 1e-08,
        max_grad_norm: float = 10.0,
        buffer_size: int = 100000,
        learning_starts: int = 1000,
        batch_size: int = 64,
        gamma: float = 0.99,
        train_freq: int = 16,
        gradient_steps: int = 8,
        target_update_interval: int = 500,
        tau: float = 1.0,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.02,
        n_steps: int = 10,
        double_q: bool = True,
        dueling: bool = False,
        noisy: bool = False,
        prioritized_replay: bool = False,
        prioritized_replay_alpha: float = 0.6,
        prioritized_replay_beta0: float = 0.4,
        prioritized_replay_eps: float = 1e-06,
        clip_reward: bool = False,
        images: bool | str | Sequence[str] = 'auto',
        scale_obs: bool = True,
        cnn: Literal["nature", "impala", "efficient"] = 'nature',
        net_arch: Sequence[int] = (128, 128),
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = 'relu',
        layer_norm: bool | Literal["first"] = False,
        residual: bool = False,
    ) -> Self: ...
    @classmethod
    def tuned(
        cls,
        env: EnvLike,
        *,
        row: str | None = ...,
        settings: str | os.PathLike[str] | None = ...,
        n_envs: int = ...,
        seed: int | None = ...,
        runner: RunnerName = ...,
        n_actors: int = ...,
        max_lag: int = ...,
        n_devices: int | Literal['all'] = ...,
        env_timeout: float | None = ...,
        on_env_error: OnError = ...,
        on_nan: OnNan = ...,
        log_dir: str | os.PathLike[str] | None = ...,
        run_dir: str | os.PathLike[str] | None = ...,
        network: Callable[[PyTree], Any] | None = ...,
        info_keywords: Sequence[str] = ...,
        trackers: TrackersLike = ...,
        learning_rate: Schedule = ...,
        adam_eps: float = ...,
        max_grad_norm: float = ...,
        buffer_size: int = ...,
        learning_starts: int = ...,
        batch_size: int = ...,
        gamma: float = ...,
        train_freq: int = ...,
        gradient_steps: int = ...,
        target_update_interval: int = ...,
        tau: float = ...,
        exploration_fraction: float = ...,
        exploration_initial_eps: float = ...,
        exploration_final_eps: float = ...,
        n_steps: int = ...,
        double_q: bool = ...,
        dueling: bool = ...,
        noisy: bool = ...,
        prioritized_replay: bool = ...,
        prioritized_replay_alpha: float = ...,
        prioritized_replay_beta0: float = ...,
        prioritized_replay_eps: float = ...,
        clip_reward: bool = ...,
        images: bool | str | Sequence[str] = ...,
        scale_obs: bool = ...,
        cnn: Literal["nature", "impala", "efficient"] = ...,
        net_arch: Sequence[int] = ...,
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = ...,
        layer_norm: bool | Literal["first"] = ...,
        residual: bool = ...,
    ) -> Self: ...

class IMPALA(_IMPALA):
    """Importance-weighted actor-learner. `agentzoo.algos.impala` describes the method.

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
      learning_rate: Learning rate of the optimizer. A number above 0, Linear(start, end) or a
        function of the remaining progress; default Linear(start=0.001, end=0.0).
      optimizer: The optimizer. 'adam' or 'rmsprop'; default 'adam'.
      optimizer_eps: Epsilon of the optimizer. A number above 0; default 1e-05.
      rms_decay: Decay of the mean square of the gradients per gradient step, for RMSProp. A number
        from 0 to 1; default 0.99.
      max_grad_norm: Gradients are clipped to this global norm. A number above 0; default 0.5.
      n_steps: Environment steps per environment and gradient step. An integer of at least 1;
        default 128.
      gamma: Discount factor per environment step. A number from 0 to 1; default 0.99.
      vtrace_lambda: Lambda of V-trace: 0 relies on the values, 1 on the rewards. A number from 0 to
        1; default 0.95.
      clip_rho: Largest importance ratio in the targets of the values. A number above 0; default
        1.0.
      clip_pg_rho: Largest importance ratio in the policy gradient. A number above 0; default 1.0.
      ent_coef: Weight of the entropy bonus. A number of at least 0, Linear(start, end) or a
        function of the remaining progress; default Linear(start=0.01, end=0.0).
      vf_coef: Weight of the value loss. A number of at least 0; default 0.5.
      normalize_reward: Divide rewards by the standard deviation of their discounted sum. Default
        True.
      clip_reward: Learn from rewards clipped to [-1, 1]. The logged returns are not clipped.
        Default False.
      log_std_init: Initial logarithm of the standard deviation of Box actions, which are scaled to
        [-1, 1]. A number; default 0.0.
      state_dependent_std: Let the standard deviation of Box actions depend on the observation.
        Default False.
      recurrent: Recurrent memory after the hidden layers; None for no memory. 'lstm', 'gru' or
        None; default None.
      recurrent_size: Units of the recurrent memory. An integer of at least 1; default 64.
      recurrent_span: Environment steps that an untrained memory spans at most; None for the length
        of a sequence. An integer of at least 1 or None; default None.
      ortho_init: Initialise the network orthogonally. Default True.
      share_layers: Share the hidden layers and the memory between policy and value. Default False.
      images: Parts of observations that are images: "auto", True for all that can be one, False for
        none, or names of parts of a Dict. True, False, a string or a tuple of strings; default
        'auto'.
      scale_obs: Scale integers in observations by their bounds. False divides images by 255 and
        leaves other integers as they are. Default True.
      cnn: Convolutional layers for images. 'nature', 'impala' or 'efficient'; default 'impala'.
      net_arch: Sizes of the hidden layers. A tuple of integers of at least 1; default (64, 64).
      activation: Activation function of the hidden layers. 'relu', 'tanh', 'silu', 'gelu' or 'elu';
        default 'tanh'.
      layer_norm: Layer normalisation before the activation of each hidden layer. "first" normalises
        only the first one, and its activation is then tanh. True, False or 'first'; default False.
      residual: Residual blocks (SimBa) as hidden layers, one for each size in net_arch. They have
        layer normalisation of their own, whatever layer_norm says. Default False.

    Raises:
      ConfigurationError: if the arguments do not fit each other or the environment. The message
        says what to write instead.
    """
    def __init__(
        self,
        env: EnvLike,
        *,
        n_envs: int=1,
        seed: int | None=0,
        runner: RunnerName='auto',
        n_actors: int=1,
        max_lag: int=1,
        n_devices: int | Literal['all']=1,
        env_timeout: float | None=None,
        on_env_error: OnError='raise',
        on_nan: OnNan='stop',
        log_dir: str | os.PathLike[str] | None=None,
        run_dir: str | os.PathLike[str] | None=None,
        network: Callable[[PyTree], Any] | None=None,
        info_keywords: Sequence[str]=(),
        trackers: TrackersLike=(),
        preset: str | None=None,
        learning_rate: Schedule = Linear(start=0.001, end=0.0),
        optimizer: Literal["adam", "rmsprop"] = 'adam',
        optimizer_eps: float = 1e-05,
        rms_decay: float = 0.99,
        max_grad_norm: float = 0.5,
        n_steps: int = 128,
        gamma: float = 0.99,
        vtrace_lambda: float = 0.95,
        clip_rho: float = 1.0,
        clip_pg_rho: float = 1.0,
        ent_coef: Schedule = Linear(start=0.01, end=0.0),
        vf_coef: float = 0.5,
        normalize_reward: bool = True,
        clip_reward: bool = False,
        log_std_init: float = 0.0,
        state_dependent_std: bool = False,
        recurrent: Literal["lstm", "gru"] | None = None,
        recurrent_size: int = 64,
        recurrent_span: int | None = None,
        ortho_init: bool = True,
        share_layers: bool = False,
        images: bool | str | Sequence[str] = 'auto',
        scale_obs: bool = True,
        cnn: Literal["nature", "impala", "efficient"] = 'impala',
        net_arch: Sequence[int] = (64, 64),
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = 'tanh',
        layer_norm: bool | Literal["first"] = False,
        residual: bool = False,
    ) -> None: ...
    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        env: EnvLike | None=None,
        *,
        n_envs: int | None=None,
        runner: RunnerName='auto',
        n_actors: int=1,
        max_lag: int=1,
        n_devices: int | Literal['all']=1,
        env_timeout: float | None=None,
        on_env_error: OnError='raise',
        on_nan: OnNan='stop',
        log_dir: str | os.PathLike[str] | None=None,
        run_dir: str | os.PathLike[str] | None=None,
        network: Callable[[PyTree], Any] | None=None,
        info_keywords: Sequence[str]=(),
        trackers: TrackersLike=(),
        learning_rate: Schedule = Linear(start=0.001, end=0.0),
        optimizer: Literal["adam", "rmsprop"] = 'adam',
        optimizer_eps: float = 1e-05,
        rms_decay: float = 0.99,
        max_grad_norm: float = 0.5,
        n_steps: int = 128,
        gamma: float = 0.99,
        vtrace_lambda: float = 0.95,
        clip_rho: float = 1.0,
        clip_pg_rho: float = 1.0,
        ent_coef: Schedule = Linear(start=0.01, end=0.0),
        vf_coef: float = 0.5,
        normalize_reward: bool = True,
        clip_reward: bool = False,
        log_std_init: float = 0.0,
        state_dependent_std: bool = False,
        recurrent: Literal["lstm", "gru"] | None = None,
        recurrent_size: int = 64,
        recurrent_span: int | None = None,
        ortho_init: bool = True,
        share_layers: bool = False,
        images: bool | str | Sequence[str] = 'auto',
        scale_obs: bool = True,
        cnn: Literal["nature", "impala", "efficient"] = 'impala',
        net_arch: Sequence[int] = (64, 64),
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = 'tanh',
        layer_norm: bool | Literal["first"] = False,
        residual: bool = False,
    ) -> Self: ...
    @classmethod
    def tuned(
        cls,
        env: EnvLike,
        *,
        row: str | None = ...,
        settings: str | os.PathLike[str] | None = ...,
        n_envs: int = ...,
        seed: int | None = ...,
        runner: RunnerName = ...,
        n_actors: int = ...,
        max_lag: int = ...,
        n_devices: int | Literal['all'] = ...,
        env_timeout: float | None = ...,
        on_env_error: OnError = ...,
        on_nan: OnNan = ...,
        log_dir: str | os.PathLike[str] | None = ...,
        run_dir: str | os.PathLike[str] | None = ...,
        network: Callable[[PyTree], Any] | None = ...,
        info_keywords: Sequence[str] = ...,
        trackers: TrackersLike = ...,
        learning_rate: Schedule = ...,
        optimizer: Literal["adam", "rmsprop"] = ...,
        optimizer_eps: float = ...,
        rms_decay: float = ...,
        max_grad_norm: float = ...,
        n_steps: int = ...,
        gamma: float = ...,
        vtrace_lambda: float = ...,
        clip_rho: float = ...,
        clip_pg_rho: float = ...,
        ent_coef: Schedule = ...,
        vf_coef: float = ...,
        normalize_reward: bool = ...,
        clip_reward: bool = ...,
        log_std_init: float = ...,
        state_dependent_std: bool = ...,
        recurrent: Literal["lstm", "gru"] | None = ...,
        recurrent_size: int = ...,
        recurrent_span: int | None = ...,
        ortho_init: bool = ...,
        share_layers: bool = ...,
        images: bool | str | Sequence[str] = ...,
        scale_obs: bool = ...,
        cnn: Literal["nature", "impala", "efficient"] = ...,
        net_arch: Sequence[int] = ...,
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = ...,
        layer_norm: bool | Literal["first"] = ...,
        residual: bool = ...,
    ) -> Self: ...

class MPO(_MPO):
    """Maximum a posteriori Policy Optimisation. `agentzoo.algos.mpo` describes the method.

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
      learning_rate: Learning rate of Adam for the policy and the critic. A number above 0,
        Linear(start, end) or a function of the remaining progress; default 0.0003.
      dual_learning_rate: Learning rate of Adam for the temperatures and the alphas. A number above
        0; default 0.03.
      max_grad_norm: Gradients of the networks are clipped to this global norm. A number above 0;
        default 40.0.
      buffer_size: Transitions that the replay buffer holds. An integer of at least 1; default
        1000000.
      learning_starts: Environment steps with random actions before learning starts. An integer of
        at least 0; default 1000.
      batch_size: Transitions per gradient step. An integer of at least 1; default 128.
      gamma: Discount factor per environment step. A number from 0 to 1; default 0.99.
      train_freq: Environment steps per environment between two phases of learning. An integer of at
        least 1; default 1.
      gradient_steps: Gradient steps per phase of learning; -1 takes one per environment step. An
        integer of at least -1; default 1.
      target_update_interval: Gradient steps between two updates of the target networks. An integer
        of at least 1; default 100.
      n_steps: Environment steps that a transition spans; with Retrace, the length of a sequence. An
        integer of at least 1; default 5.
      retrace: Correct for the age of replayed actions by Retrace. A batch then consists of
        batch_size / n_steps sequences. Default False.
      retrace_lambda: Lambda of Retrace: 0 looks one step ahead, 1 as far as the policy agrees with
        the actions. A number from 0 to 1; default 0.95.
      num_samples: E-step: actions sampled per state. An integer of at least 2; default 20.
      num_value_samples: Actions sampled per state for the target of the critic. An integer of at
        least 1; default 4.
      epsilon: E-step: bound on the KL divergence between the improved policy and the target policy.
        A number above 0; default 0.1.
      epsilon_mean: M-step: bound on the KL divergence between the target policy and the online
        policy that is due to the mean, for each action dimension. A number above 0; default 0.01.
      epsilon_stddev: M-step: bound on the KL divergence that is due to the standard deviation, for
        each action dimension. A number above 0; default 1e-05.
      epsilon_kl: M-step for Discrete actions: bound on the KL divergence between the target policy
        and the online policy. A number above 0; default 0.01.
      action_penalty: Penalise actions outside the bounds. Default True.
      epsilon_penalty: Bound on the KL divergence between the policy that the penalty improves and
        the target policy. A number above 0; default 0.001.
      init_temperature: Initial temperature, in units of the action values. A number above 0;
        default 1.0.
      init_alpha_mean: Initial alpha of the mean, or of the policy for Discrete actions. A number
        above 0; default 1.0.
      init_alpha_stddev: Initial alpha of the standard deviation. A number above 0; default 10.0.
      init_stddev: Initial standard deviation of the policy, whose actions lie in [-1, 1]. A number
        above 0; default 0.5.
      noise_steps: Environment steps for which the noise of Box actions persists during training; 1
        draws new noise at each step. With more steps, the agent tries a movement for longer. An
        integer of at least 1; default 1.
      normalize_obs: Normalise numbers in observations by their running mean and standard deviation.
        Default False.
      images: Parts of observations that are images: "auto", True for all that can be one, False for
        none, or names of parts of a Dict. True, False, a string or a tuple of strings; default
        'auto'.
      scale_obs: Scale integers in observations by their bounds. False divides images by 255 and
        leaves other integers as they are. Default True.
      cnn: Convolutional layers for images. 'nature', 'impala' or 'efficient'; default 'nature'.
      net_arch: Sizes of the hidden layers of the policy and of the critic. A tuple of integers of
        at least 1; default (256, 256).
      activation: Activation function of the hidden layers. 'relu', 'tanh', 'silu', 'gelu' or 'elu';
        default 'relu'.
      layer_norm: Layer normalisation before the activation of each hidden layer. "first" normalises
        only the first one, and its activation is then tanh. True, False or 'first'; default False.
      residual: Residual blocks (SimBa) as hidden layers, one for each size in net_arch. They have
        layer normalisation of their own, whatever layer_norm says. Default False.

    Raises:
      ConfigurationError: if the arguments do not fit each other or the environment. The message
        says what to write instead.
    """
    def __init__(
        self,
        env: EnvLike,
        *,
        n_envs: int=1,
        seed: int | None=0,
        runner: RunnerName='auto',
        n_actors: int=1,
        max_lag: int=1,
        n_devices: int | Literal['all']=1,
        env_timeout: float | None=None,
        on_env_error: OnError='raise',
        on_nan: OnNan='stop',
        log_dir: str | os.PathLike[str] | None=None,
        run_dir: str | os.PathLike[str] | None=None,
        network: Callable[[PyTree], Any] | None=None,
        info_keywords: Sequence[str]=(),
        trackers: TrackersLike=(),
        preset: str | None=None,
        learning_rate: Schedule = 0.0003,
        dual_learning_rate: float = 0.03,
        max_grad_norm: float = 40.0,
        buffer_size: int = 1000000,
        learning_starts: int = 1000,
        batch_size: int = 128,
        gamma: float = 0.99,
        train_freq: int = 1,
        gradient_steps: int = 1,
        target_update_interval: int = 100,
        n_steps: int = 5,
        retrace: bool = False,
        retrace_lambda: float = 0.95,
        num_samples: int = 20,
        num_value_samples: int = 4,
        epsilon: float = 0.1,
        epsilon_mean: float = 0.01,
        epsilon_stddev: float = 1e-05,
        epsilon_kl: float = 0.01,
        action_penalty: bool = True,
        epsilon_penalty: float = 0.001,
        init_temperature: float = 1.0,
        init_alpha_mean: float = 1.0,
        init_alpha_stddev: float = 10.0,
        init_stddev: float = 0.5,
        noise_steps: int = 1,
        normalize_obs: bool = False,
        images: bool | str | Sequence[str] = 'auto',
        scale_obs: bool = True,
        cnn: Literal["nature", "impala", "efficient"] = 'nature',
        net_arch: Sequence[int] = (256, 256),
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = 'relu',
        layer_norm: bool | Literal["first"] = False,
        residual: bool = False,
    ) -> None: ...
    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        env: EnvLike | None=None,
        *,
        n_envs: int | None=None,
        runner: RunnerName='auto',
        n_actors: int=1,
        max_lag: int=1,
        n_devices: int | Literal['all']=1,
        env_timeout: float | None=None,
        on_env_error: OnError='raise',
        on_nan: OnNan='stop',
        log_dir: str | os.PathLike[str] | None=None,
        run_dir: str | os.PathLike[str] | None=None,
        network: Callable[[PyTree], Any] | None=None,
        info_keywords: Sequence[str]=(),
        trackers: TrackersLike=(),
        learning_rate: Schedule = 0.0003,
        dual_learning_rate: float = 0.03,
        max_grad_norm: float = 40.0,
        buffer_size: int = 1000000,
        learning_starts: int = 1000,
        batch_size: int = 128,
        gamma: float = 0.99,
        train_freq: int = 1,
        gradient_steps: int = 1,
        target_update_interval: int = 100,
        n_steps: int = 5,
        retrace: bool = False,
        retrace_lambda: float = 0.95,
        num_samples: int = 20,
        num_value_samples: int = 4,
        epsilon: float = 0.1,
        epsilon_mean: float = 0.01,
        epsilon_stddev: float = 1e-05,
        epsilon_kl: float = 0.01,
        action_penalty: bool = True,
        epsilon_penalty: float = 0.001,
        init_temperature: float = 1.0,
        init_alpha_mean: float = 1.0,
        init_alpha_stddev: float = 10.0,
        init_stddev: float = 0.5,
        noise_steps: int = 1,
        normalize_obs: bool = False,
        images: bool | str | Sequence[str] = 'auto',
        scale_obs: bool = True,
        cnn: Literal["nature", "impala", "efficient"] = 'nature',
        net_arch: Sequence[int] = (256, 256),
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = 'relu',
        layer_norm: bool | Literal["first"] = False,
        residual: bool = False,
    ) -> Self: ...
    @classmethod
    def tuned(
        cls,
        env: EnvLike,
        *,
        row: str | None = ...,
        settings: str | os.PathLike[str] | None = ...,
        n_envs: int = ...,
        seed: int | None = ...,
        runner: RunnerName = ...,
        n_actors: int = ...,
        max_lag: int = ...,
        n_devices: int | Literal['all'] = ...,
        env_timeout: float | None = ...,
        on_env_error: OnError = ...,
        on_nan: OnNan = ...,
        log_dir: str | os.PathLike[str] | None = ...,
        run_dir: str | os.PathLike[str] | None = ...,
        network: Callable[[PyTree], Any] | None = ...,
        info_keywords: Sequence[str] = ...,
        trackers: TrackersLike = ...,
        learning_rate: Schedule = ...,
        dual_learning_rate: float = ...,
        max_grad_norm: float = ...,
        buffer_size: int = ...,
        learning_starts: int = ...,
        batch_size: int = ...,
        gamma: float = ...,
        train_freq: int = ...,
        gradient_steps: int = ...,
        target_update_interval: int = ...,
        n_steps: int = ...,
        retrace: bool = ...,
        retrace_lambda: float = ...,
        num_samples: int = ...,
        num_value_samples: int = ...,
        epsilon: float = ...,
        epsilon_mean: float = ...,
        epsilon_stddev: float = ...,
        epsilon_kl: float = ...,
        action_penalty: bool = ...,
        epsilon_penalty: float = ...,
        init_temperature: float = ...,
        init_alpha_mean: float = ...,
        init_alpha_stddev: float = ...,
        init_stddev: float = ...,
        noise_steps: int = ...,
        normalize_obs: bool = ...,
        images: bool | str | Sequence[str] = ...,
        scale_obs: bool = ...,
        cnn: Literal["nature", "impala", "efficient"] = ...,
        net_arch: Sequence[int] = ...,
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = ...,
        layer_norm: bool | Literal["first"] = ...,
        residual: bool = ...,
    ) -> Self: ...

class PPO(_PPO):
    """Proximal Policy Optimization. `agentzoo.algos.ppo` describes the method.

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
      learning_rate: Learning rate of Adam. A number above 0, Linear(start, end) or a function of
        the remaining progress; default Linear(start=0.0003, end=0.0).
      adam_eps: Epsilon of Adam. A number above 0; default 1e-05.
      max_grad_norm: Gradients are clipped to this global norm. A number above 0; default 0.5.
      n_steps: Environment steps per environment in each training cycle. An integer of at least 1;
        default 2048.
      batch_size: Environment steps per gradient step. An integer of at least 1; default 64.
      n_epochs: Passes over the steps of a training cycle. An integer of at least 1; default 10.
      gamma: Discount factor per environment step. A number from 0 to 1; default 0.99.
      gae_lambda: Lambda of the advantages (GAE): 0 relies on the values, 1 on the rewards. A number
        from 0 to 1; default 0.95.
      clip_range: Clipping range of the probability ratio around 1. A number above 0, Linear(start,
        end) or a function of the remaining progress; default 0.2.
      clip_range_vf: Clipping range of the value around its old value; None for no clipping. A
        number above 0, Linear(start, end), a function of the remaining progress or None; default
        None.
      normalize_advantage: Normalise the advantages of each minibatch to mean 0 and standard
        deviation 1. Default True.
      ent_coef: Weight of the entropy bonus. A number of at least 0, Linear(start, end) or a
        function of the remaining progress; default 0.0.
      vf_coef: Weight of the value loss. A number of at least 0; default 0.5.
      target_kl: End a training cycle early if the KL divergence to the old policy exceeds 1.5 times
        this number; None for no limit. A number above 0 or None; default None.
      normalize_obs: Normalise numbers in observations by the mean and standard deviation of earlier
        cycles. Default False.
      normalize_reward: Divide rewards by the standard deviation of their discounted sum. Default
        False.
      clip_reward: Learn from rewards clipped to [-1, 1]. The logged returns are not clipped.
        Default False.
      log_std_init: Initial logarithm of the standard deviation of Box actions, which are scaled to
        [-1, 1]. A number; default 0.0.
      state_dependent_std: Let the standard deviation of Box actions depend on the observation.
        Default False.
      recurrent: Recurrent memory after the hidden layers; None for no memory. 'lstm', 'gru' or
        None; default None.
      recurrent_size: Units of the recurrent memory. An integer of at least 1; default 64.
      sequence_length: Environment steps through which gradients flow back in the memory. It divides
        n_steps or is larger. An integer of at least 1; default 64.
      recurrent_span: Environment steps that an untrained memory spans at most; None for the length
        of a sequence. An integer of at least 1 or None; default None.
      ortho_init: Initialise the network orthogonally. Default True.
      share_layers: Share the hidden layers and the memory between policy and value. Default False.
      images: Parts of observations that are images: "auto", True for all that can be one, False for
        none, or names of parts of a Dict. True, False, a string or a tuple of strings; default
        'auto'.
      scale_obs: Scale integers in observations by their bounds. False divides images by 255 and
        leaves other integers as they are. Default True.
      cnn: Convolutional layers for images. 'nature', 'impala' or 'efficient'; default 'nature'.
      net_arch: Sizes of the hidden layers. A tuple of integers of at least 1; default (64, 64).
      activation: Activation function of the hidden layers. 'relu', 'tanh', 'silu', 'gelu' or 'elu';
        default 'tanh'.
      layer_norm: Layer normalisation before the activation of each hidden layer. "first" normalises
        only the first one, and its activation is then tanh. True, False or 'first'; default False.
      residual: Residual blocks (SimBa) as hidden layers, one for each size in net_arch. They have
        layer normalisation of their own, whatever layer_norm says. Default False.

    Raises:
      ConfigurationError: if the arguments do not fit each other or the environment. The message
        says what to write instead.
    """
    def __init__(
        self,
        env: EnvLike,
        *,
        n_envs: int=1,
        seed: int | None=0,
        runner: RunnerName='auto',
        n_actors: int=1,
        max_lag: int=1,
        n_devices: int | Literal['all']=1,
        env_timeout: float | None=None,
        on_env_error: OnError='raise',
        on_nan: OnNan='stop',
        log_dir: str | os.PathLike[str] | None=None,
        run_dir: str | os.PathLike[str] | None=None,
        network: Callable[[PyTree], Any] | None=None,
        info_keywords: Sequence[str]=(),
        trackers: TrackersLike=(),
        preset: str | None=None,
        learning_rate: Schedule = Linear(start=0.0003, end=0.0),
        adam_eps: float = 1e-05,
        max_grad_norm: float = 0.5,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: Schedule = 0.2,
        clip_range_vf: Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: Schedule = 0.0,
        vf_coef: float = 0.5,
        target_kl: float | None = None,
        normalize_obs: bool = False,
        normalize_reward: bool = False,
        clip_reward: bool = False,
        log_std_init: float = 0.0,
        state_dependent_std: bool = False,
        recurrent: Literal["lstm", "gru"] | None = None,
        recurrent_size: int = 64,
        sequence_length: int = 64,
        recurrent_span: int | None = None,
        ortho_init: bool = True,
        share_layers: bool = False,
        images: bool | str | Sequence[str] = 'auto',
        scale_obs: bool = True,
        cnn: Literal["nature", "impala", "efficient"] = 'nature',
        net_arch: Sequence[int] = (64, 64),
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = 'tanh',
        layer_norm: bool | Literal["first"] = False,
        residual: bool = False,
    ) -> None: ...
    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        env: EnvLike | None=None,
        *,
        n_envs: int | None=None,
        runner: RunnerName='auto',
        n_actors: int=1,
        max_lag: int=1,
        n_devices: int | Literal['all']=1,
        env_timeout: float | None=None,
        on_env_error: OnError='raise',
        on_nan: OnNan='stop',
        log_dir: str | os.PathLike[str] | None=None,
        run_dir: str | os.PathLike[str] | None=None,
        network: Callable[[PyTree], Any] | None=None,
        info_keywords: Sequence[str]=(),
        trackers: TrackersLike=(),
        learning_rate: Schedule = Linear(start=0.0003, end=0.0),
        adam_eps: float = 1e-05,
        max_grad_norm: float = 0.5,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: Schedule = 0.2,
        clip_range_vf: Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: Schedule = 0.0,
        vf_coef: float = 0.5,
        target_kl: float | None = None,
        normalize_obs: bool = False,
        normalize_reward: bool = False,
        clip_reward: bool = False,
        log_std_init: float = 0.0,
        state_dependent_std: bool = False,
        recurrent: Literal["lstm", "gru"] | None = None,
        recurrent_size: int = 64,
        sequence_length: int = 64,
        recurrent_span: int | None = None,
        ortho_init: bool = True,
        share_layers: bool = False,
        images: bool | str | Sequence[str] = 'auto',
        scale_obs: bool = True,
        cnn: Literal["nature", "impala", "efficient"] = 'nature',
        net_arch: Sequence[int] = (64, 64),
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = 'tanh',
        layer_norm: bool | Literal["first"] = False,
        residual: bool = False,
    ) -> Self: ...
    @classmethod
    def tuned(
        cls,
        env: EnvLike,
        *,
        row: str | None = ...,
        settings: str | os.PathLike[str] | None = ...,
        n_envs: int = ...,
        seed: int | None = ...,
        runner: RunnerName = ...,
        n_actors: int = ...,
        max_lag: int = ...,
        n_devices: int | Literal['all'] = ...,
        env_timeout: float | None = ...,
        on_env_error: OnError = ...,
        on_nan: OnNan = ...,
        log_dir: str | os.PathLike[str] | None = ...,
        run_dir: str | os.PathLike[str] | None = ...,
        network: Callable[[PyTree], Any] | None = ...,
        info_keywords: Sequence[str] = ...,
        trackers: TrackersLike = ...,
        learning_rate: Schedule = ...,
        adam_eps: float = ...,
        max_grad_norm: float = ...,
        n_steps: int = ...,
        batch_size: int = ...,
        n_epochs: int = ...,
        gamma: float = ...,
        gae_lambda: float = ...,
        clip_range: Schedule = ...,
        clip_range_vf: Schedule | None = ...,
        normalize_advantage: bool = ...,
        ent_coef: Schedule = ...,
        vf_coef: float = ...,
        target_kl: float | None = ...,
        normalize_obs: bool = ...,
        normalize_reward: bool = ...,
        clip_reward: bool = ...,
        log_std_init: float = ...,
        state_dependent_std: bool = ...,
        recurrent: Literal["lstm", "gru"] | None = ...,
        recurrent_size: int = ...,
        sequence_length: int = ...,
        recurrent_span: int | None = ...,
        ortho_init: bool = ...,
        share_layers: bool = ...,
        images: bool | str | Sequence[str] = ...,
        scale_obs: bool = ...,
        cnn: Literal["nature", "impala", "efficient"] = ...,
        net_arch: Sequence[int] = ...,
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = ...,
        layer_norm: bool | Literal["first"] = ...,
        residual: bool = ...,
    ) -> Self: ...

class QRDQN(_QRDQN):
    """DQN that learns the distribution of returns. `agentzoo.algos.qrdqn` describes the method.

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
      learning_rate: Learning rate of Adam. A number above 0, Linear(start, end) or a function of
        the remaining progress; default Linear(start=0.001, end=0.0).
      adam_eps: Epsilon of Adam. A number above 0; default 1e-08.
      max_grad_norm: Gradients are clipped to this global norm. A number above 0; default 10.0.
      buffer_size: Transitions that the replay buffer holds. An integer of at least 1; default
        100000.
      learning_starts: Environment steps with random actions before learning starts. An integer of
        at least 0; default 1000.
      batch_size: Transitions per gradient step. An integer of at least 1; default 64.
      gamma: Discount factor per environment step. A number from 0 to 1; default 0.99.
      train_freq: Environment steps per environment between two phases of learning. An integer of at
        least 1; default 16.
      gradient_steps: Gradient steps per phase of learning; -1 takes one per environment step. An
        integer of at least -1; default 8.
      target_update_interval: Environment steps between two updates of the target network. An
        integer of at least 1; default 500.
      tau: Fraction by which an update moves the target network to the online one; 1 copies it. A
        number above 0 and up to 1; default 1.0.
      exploration_fraction: Fraction of the run during which epsilon falls. A number from 0 to 1;
        default 0.1.
      exploration_initial_eps: Probability of a random action (epsilon) when the run begins. A
        number from 0 to 1; default 1.0.
      exploration_final_eps: Probability of a random action (epsilon) after it has fallen. A number
        from 0 to 1; default 0.02.
      n_steps: Environment steps that a transition spans. An integer of at least 1; default 10.
      n_quantiles: Quantiles of the return that are learned for each action. An integer of at least
        1; default 25.
      kappa: Error at which the Huber loss becomes linear; 0 is plain quantile regression. A number
        of at least 0; default 1.0.
      cvar_alpha: Value an action by the mean of this fraction of its worst returns (CVaR); 1 is the
        mean. A number above 0 and up to 1; default 1.0.
      double_q: Select next actions by the online network, and value them by the target network.
        Default True.
      dueling: Split the network into a value stream and an advantage stream. Default False.
      noisy: Explore by noise on the parameters of the head instead of by epsilon. Default False.
      prioritized_replay: Replay each transition with a probability in proportion to (loss +
        eps)^alpha. Default False.
      prioritized_replay_alpha: Exponent alpha of the priorities; 0 replays uniformly. A number from
        0 to 1; default 0.6.
      prioritized_replay_beta0: Initial exponent of the importance weights. It rises to 1 at the end
        of the run. A number from 0 to 1; default 0.4.
      prioritized_replay_eps: Constant eps of the priorities, which keeps every priority above 0. A
        number above 0; default 1e-06.
      clip_reward: Learn from rewards clipped to [-1, 1]. The logged returns are not clipped.
        Default False.
      images: Parts of observations that are images: "auto", True for all that can be one, False for
        none, or names of parts of a Dict. True, False, a string or a tuple of strings; default
        'auto'.
      scale_obs: Scale integers in observations by their bounds. False divides images by 255 and
        leaves other integers as they are. Default True.
      cnn: Convolutional layers for images. 'nature', 'impala' or 'efficient'; default 'nature'.
      net_arch: Sizes of the hidden layers. A tuple of integers of at least 1; default (128, 128).
      activation: Activation function of the hidden layers. 'relu', 'tanh', 'silu', 'gelu' or 'elu';
        default 'relu'.
      layer_norm: Layer normalisation before the activation of each hidden layer. "first" normalises
        only the first one, and its activation is then tanh. True, False or 'first'; default False.
      residual: Residual blocks (SimBa) as hidden layers, one for each size in net_arch. They have
        layer normalisation of their own, whatever layer_norm says. Default False.

    Raises:
      ConfigurationError: if the arguments do not fit each other or the environment. The message
        says what to write instead.
    """
    def __init__(
        self,
        env: EnvLike,
        *,
        n_envs: int=1,
        seed: int | None=0,
        runner: RunnerName='auto',
        n_actors: int=1,
        max_lag: int=1,
        n_devices: int | Literal['all']=1,
        env_timeout: float | None=None,
        on_env_error: OnError='raise',
        on_nan: OnNan='stop',
        log_dir: str | os.PathLike[str] | None=None,
        run_dir: str | os.PathLike[str] | None=None,
        network: Callable[[PyTree], Any] | None=None,
        info_keywords: Sequence[str]=(),
        trackers: TrackersLike=(),
        preset: str | None=None,
        learning_rate: Schedule = Linear(start=0.001, end=0.0),
        adam_eps: float = 1e-08,
        max_grad_norm: float = 10.0,
        buffer_size: int = 100000,
        learning_starts: int = 1000,
        batch_size: int = 64,
        gamma: float = 0.99,
        train_freq: int = 16,
        gradient_steps: int = 8,
        target_update_interval: int = 500,
        tau: float = 1.0,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.02,
        n_steps: int = 10,
        n_quantiles: int = 25,
        kappa: float = 1.0,
        cvar_alpha: float = 1.0,
        double_q: bool = True,
        dueling: bool = False,
        noisy: bool = False,
        prioritized_replay: bool = False,
        prioritized_replay_alpha: float = 0.6,
        prioritized_replay_beta0: float = 0.4,
        prioritized_replay_eps: float = 1e-06,
        clip_reward: bool = False,
        images: bool | str | Sequence[str] = 'auto',
        scale_obs: bool = True,
        cnn: Literal["nature", "impala", "efficient"] = 'nature',
        net_arch: Sequence[int] = (128, 128),
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = 'relu',
        layer_norm: bool | Literal["first"] = False,
        residual: bool = False,
    ) -> None: ...
    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        env: EnvLike | None=None,
        *,
        n_envs: int | None=None,
        runner: RunnerName='auto',
        n_actors: int=1,
        max_lag: int=1,
        n_devices: int | Literal['all']=1,
        env_timeout: float | None=None,
        on_env_error: OnError='raise',
        on_nan: OnNan='stop',
        log_dir: str | os.PathLike[str] | None=None,
        run_dir: str | os.PathLike[str] | None=None,
        network: Callable[[PyTree], Any] | None=None,
        info_keywords: Sequence[str]=(),
        trackers: TrackersLike=(),
        learning_rate: Schedule = Linear(start=0.001, end=0.0),
        adam_eps: float = 1e-08,
        max_grad_norm: float = 10.0,
        buffer_size: int = 100000,
        learning_starts: int = 1000,
        batch_size: int = 64,
        gamma: float = 0.99,
        train_freq: int = 16,
        gradient_steps: int = 8,
        target_update_interval: int = 500,
        tau: float = 1.0,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.02,
        n_steps: int = 10,
        n_quantiles: int = 25,
        kappa: float = 1.0,
        cvar_alpha: float = 1.0,
        double_q: bool = True,
        dueling: bool = False,
        noisy: bool = False,
        prioritized_replay: bool = False,
        prioritized_replay_alpha: float = 0.6,
        prioritized_replay_beta0: float = 0.4,
        prioritized_replay_eps: float = 1e-06,
        clip_reward: bool = False,
        images: bool | str | Sequence[str] = 'auto',
        scale_obs: bool = True,
        cnn: Literal["nature", "impala", "efficient"] = 'nature',
        net_arch: Sequence[int] = (128, 128),
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = 'relu',
        layer_norm: bool | Literal["first"] = False,
        residual: bool = False,
    ) -> Self: ...
    @classmethod
    def tuned(
        cls,
        env: EnvLike,
        *,
        row: str | None = ...,
        settings: str | os.PathLike[str] | None = ...,
        n_envs: int = ...,
        seed: int | None = ...,
        runner: RunnerName = ...,
        n_actors: int = ...,
        max_lag: int = ...,
        n_devices: int | Literal['all'] = ...,
        env_timeout: float | None = ...,
        on_env_error: OnError = ...,
        on_nan: OnNan = ...,
        log_dir: str | os.PathLike[str] | None = ...,
        run_dir: str | os.PathLike[str] | None = ...,
        network: Callable[[PyTree], Any] | None = ...,
        info_keywords: Sequence[str] = ...,
        trackers: TrackersLike = ...,
        learning_rate: Schedule = ...,
        adam_eps: float = ...,
        max_grad_norm: float = ...,
        buffer_size: int = ...,
        learning_starts: int = ...,
        batch_size: int = ...,
        gamma: float = ...,
        train_freq: int = ...,
        gradient_steps: int = ...,
        target_update_interval: int = ...,
        tau: float = ...,
        exploration_fraction: float = ...,
        exploration_initial_eps: float = ...,
        exploration_final_eps: float = ...,
        n_steps: int = ...,
        n_quantiles: int = ...,
        kappa: float = ...,
        cvar_alpha: float = ...,
        double_q: bool = ...,
        dueling: bool = ...,
        noisy: bool = ...,
        prioritized_replay: bool = ...,
        prioritized_replay_alpha: float = ...,
        prioritized_replay_beta0: float = ...,
        prioritized_replay_eps: float = ...,
        clip_reward: bool = ...,
        images: bool | str | Sequence[str] = ...,
        scale_obs: bool = ...,
        cnn: Literal["nature", "impala", "efficient"] = ...,
        net_arch: Sequence[int] = ...,
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = ...,
        layer_norm: bool | Literal["first"] = ...,
        residual: bool = ...,
    ) -> Self: ...

class SAC(_SAC):
    """Soft Actor-Critic for Box and Discrete actions. `agentzoo.algos.sac` describes the method.

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
      learning_rate: Learning rate of Adam for the policy, the critics and the entropy coefficient.
        A number above 0, Linear(start, end) or a function of the remaining progress; default
        0.0003.
      buffer_size: Transitions that the replay buffer holds. An integer of at least 1; default
        1000000.
      learning_starts: Environment steps with random actions before learning starts. An integer of
        at least 0; default 100.
      batch_size: Transitions per gradient step. An integer of at least 1; default 256.
      gamma: Discount factor per environment step. A number from 0 to 1; default 0.99.
      train_freq: Environment steps per environment between two phases of learning. An integer of at
        least 1; default 1.
      gradient_steps: Gradient steps per phase of learning; -1 takes one per environment step. An
        integer of at least -1; default 1.
      tau: Fraction by which an update moves the target critics to the online ones; 1 copies them. A
        number above 0 and up to 1; default 0.005.
      target_update_interval: Gradient steps between two updates of the target critics. An integer
        of at least 1; default 1.
      policy_delay: Gradient steps of the critics per update of the policy and the entropy
        coefficient. An integer of at least 1; default 1.
      ent_coef: Weight of the entropy: a number, "auto" to learn it, or "auto_0.1" to learn it from
        0.1 on. A number or a string; default 'auto'.
      log_ent_coef_loss: Learn ent_coef with the loss of Stable-Baselines3, which uses the logarithm
        of ent_coef. It then falls earlier than with the loss of the paper. Default False.
      target_entropy: Entropy that a learned ent_coef aims at. "auto" is minus the number of action
        dimensions, or half of the largest entropy of the legal Discrete actions. A number or
        'auto'; default 'auto'.
      n_critics: Number of critics. The minimum of their values is used, so more critics are more
        pessimistic. An integer of at least 1; default 2.
      n_target_critics: Number of target critics, drawn anew at each gradient step, whose minimum is
        the target of the critics; None for all. An integer of at least 1 or None; default None.
      actor_q: Which value of the critics the policy maximises: their minimum, or their mean. 'min'
        or 'mean'; default 'min'.
      critic_dropout: Probability of dropout in the hidden layers of the critics, such as 0.01; None
        for no dropout. A number from 0 to 0.99 or None; default None.
      n_steps: Environment steps that a transition spans. An integer of at least 1; default 1.
      prioritized_replay: Replay each transition with a probability in proportion to (abs(td_error)
        + eps)^alpha. Default False.
      prioritized_replay_alpha: Exponent alpha of the priorities; 0 replays uniformly. A number from
        0 to 1; default 0.6.
      prioritized_replay_beta0: Initial exponent of the importance weights. It rises to 1 at the end
        of the run. A number from 0 to 1; default 0.4.
      prioritized_replay_eps: Constant eps of the priorities, which keeps every priority above 0. A
        number above 0; default 1e-06.
      noise_steps: Environment steps for which the noise of Box actions persists during training; 1
        draws new noise at each step. With more steps, the agent tries a movement for longer. An
        integer of at least 1; default 1.
      normalize_obs: Normalise numbers in observations by their running mean and standard deviation.
        Default False.
      images: Parts of observations that are images: "auto", True for all that can be one, False for
        none, or names of parts of a Dict. True, False, a string or a tuple of strings; default
        'auto'.
      scale_obs: Scale integers in observations by their bounds. False divides images by 255 and
        leaves other integers as they are. Default True.
      cnn: Convolutional layers for images. 'nature', 'impala' or 'efficient'; default 'nature'.
      net_arch: Sizes of the hidden layers of the policy and of each critic. A tuple of integers of
        at least 1; default (256, 256).
      activation: Activation function of the hidden layers. 'relu', 'tanh', 'silu', 'gelu' or 'elu';
        default 'relu'.
      layer_norm: Layer normalisation before the activation of each hidden layer. "first" normalises
        only the first one, and its activation is then tanh. True, False or 'first'; default False.
      residual: Residual blocks (SimBa) as hidden layers, one for each size in net_arch. They have
        layer normalisation of their own, whatever layer_norm says. Default False.

    Raises:
      ConfigurationError: if the arguments do not fit each other or the environment. The message
        says what to write instead.
    """
    def __init__(
        self,
        env: EnvLike,
        *,
        n_envs: int=1,
        seed: int | None=0,
        runner: RunnerName='auto',
        n_actors: int=1,
        max_lag: int=1,
        n_devices: int | Literal['all']=1,
        env_timeout: float | None=None,
        on_env_error: OnError='raise',
        on_nan: OnNan='stop',
        log_dir: str | os.PathLike[str] | None=None,
        run_dir: str | os.PathLike[str] | None=None,
        network: Callable[[PyTree], Any] | None=None,
        info_keywords: Sequence[str]=(),
        trackers: TrackersLike=(),
        preset: str | None=None,
        learning_rate: Schedule = 0.0003,
        buffer_size: int = 1000000,
        learning_starts: int = 100,
        batch_size: int = 256,
        gamma: float = 0.99,
        train_freq: int = 1,
        gradient_steps: int = 1,
        tau: float = 0.005,
        target_update_interval: int = 1,
        policy_delay: int = 1,
        ent_coef: float | str = 'auto',
        log_ent_coef_loss: bool = False,
        target_entropy: float | Literal["auto"] = 'auto',
        n_critics: int = 2,
        n_target_critics: int | None = None,
        actor_q: Literal["min", "mean"] = 'min',
        critic_dropout: float | None = None,
        n_steps: int = 1,
        prioritized_replay: bool = False,
        prioritized_replay_alpha: float = 0.6,
        prioritized_replay_beta0: float = 0.4,
        prioritized_replay_eps: float = 1e-06,
        noise_steps: int = 1,
        normalize_obs: bool = False,
        images: bool | str | Sequence[str] = 'auto',
        scale_obs: bool = True,
        cnn: Literal["nature", "impala", "efficient"] = 'nature',
        net_arch: Sequence[int] = (256, 256),
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = 'relu',
        layer_norm: bool | Literal["first"] = False,
        residual: bool = False,
    ) -> None: ...
    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        env: EnvLike | None=None,
        *,
        n_envs: int | None=None,
        runner: RunnerName='auto',
        n_actors: int=1,
        max_lag: int=1,
        n_devices: int | Literal['all']=1,
        env_timeout: float | None=None,
        on_env_error: OnError='raise',
        on_nan: OnNan='stop',
        log_dir: str | os.PathLike[str] | None=None,
        run_dir: str | os.PathLike[str] | None=None,
        network: Callable[[PyTree], Any] | None=None,
        info_keywords: Sequence[str]=(),
        trackers: TrackersLike=(),
        learning_rate: Schedule = 0.0003,
        buffer_size: int = 1000000,
        learning_starts: int = 100,
        batch_size: int = 256,
        gamma: float = 0.99,
        train_freq: int = 1,
        gradient_steps: int = 1,
        tau: float = 0.005,
        target_update_interval: int = 1,
        policy_delay: int = 1,
        ent_coef: float | str = 'auto',
        log_ent_coef_loss: bool = False,
        target_entropy: float | Literal["auto"] = 'auto',
        n_critics: int = 2,
        n_target_critics: int | None = None,
        actor_q: Literal["min", "mean"] = 'min',
        critic_dropout: float | None = None,
        n_steps: int = 1,
        prioritized_replay: bool = False,
        prioritized_replay_alpha: float = 0.6,
        prioritized_replay_beta0: float = 0.4,
        prioritized_replay_eps: float = 1e-06,
        noise_steps: int = 1,
        normalize_obs: bool = False,
        images: bool | str | Sequence[str] = 'auto',
        scale_obs: bool = True,
        cnn: Literal["nature", "impala", "efficient"] = 'nature',
        net_arch: Sequence[int] = (256, 256),
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = 'relu',
        layer_norm: bool | Literal["first"] = False,
        residual: bool = False,
    ) -> Self: ...
    @classmethod
    def tuned(
        cls,
        env: EnvLike,
        *,
        row: str | None = ...,
        settings: str | os.PathLike[str] | None = ...,
        n_envs: int = ...,
        seed: int | None = ...,
        runner: RunnerName = ...,
        n_actors: int = ...,
        max_lag: int = ...,
        n_devices: int | Literal['all'] = ...,
        env_timeout: float | None = ...,
        on_env_error: OnError = ...,
        on_nan: OnNan = ...,
        log_dir: str | os.PathLike[str] | None = ...,
        run_dir: str | os.PathLike[str] | None = ...,
        network: Callable[[PyTree], Any] | None = ...,
        info_keywords: Sequence[str] = ...,
        trackers: TrackersLike = ...,
        learning_rate: Schedule = ...,
        buffer_size: int = ...,
        learning_starts: int = ...,
        batch_size: int = ...,
        gamma: float = ...,
        train_freq: int = ...,
        gradient_steps: int = ...,
        tau: float = ...,
        target_update_interval: int = ...,
        policy_delay: int = ...,
        ent_coef: float | str = ...,
        log_ent_coef_loss: bool = ...,
        target_entropy: float | Literal["auto"] = ...,
        n_critics: int = ...,
        n_target_critics: int | None = ...,
        actor_q: Literal["min", "mean"] = ...,
        critic_dropout: float | None = ...,
        n_steps: int = ...,
        prioritized_replay: bool = ...,
        prioritized_replay_alpha: float = ...,
        prioritized_replay_beta0: float = ...,
        prioritized_replay_eps: float = ...,
        noise_steps: int = ...,
        normalize_obs: bool = ...,
        images: bool | str | Sequence[str] = ...,
        scale_obs: bool = ...,
        cnn: Literal["nature", "impala", "efficient"] = ...,
        net_arch: Sequence[int] = ...,
        activation: Literal["relu", "tanh", "silu", "gelu", "elu"] = ...,
        layer_norm: bool | Literal["first"] = ...,
        residual: bool = ...,
    ) -> Self: ...
