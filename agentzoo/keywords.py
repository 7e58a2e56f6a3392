"""Advice for arguments that do not exist here, above all for those of Stable-Baselines3 and CleanRL."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from agentzoo.types import ConfigurationError

Function = TypeVar("Function", bound=Callable[..., Any])

# Names of other libraries -> ours, of which the first counts that exists where the name is used.
_ALIASES = {
    "alpha": ("ent_coef",),
    "batch": ("batch_size",),
    "buffer_capacity": ("buffer_size",),
    "clip_coef": ("clip_range",),
    "end_e": ("exploration_final_eps",),
    "entropy_coef": ("ent_coef",),
    "epsilon": ("exploration_final_eps",),
    "final_eps": ("exploration_final_eps",),
    "hidden_dims": ("net_arch",),
    "hidden_layer_sizes": ("net_arch",),
    "hidden_sizes": ("net_arch",),
    "hidden_size": ("net_arch",),
    "initial_eps": ("exploration_initial_eps",),
    "layers": ("net_arch",),
    "learning_rate_schedule": ("learning_rate",),
    "lr": ("learning_rate",),
    "lr_schedule": ("learning_rate",),
    "mask": ("episode_start",),
    "max_timesteps": ("total_timesteps",),
    "n_epoch": ("n_epochs",),
    "n_timesteps": ("total_timesteps",),
    "norm_adv": ("normalize_advantage",),
    "num_actors": ("n_actors",),
    "num_envs": ("n_envs",),
    "num_epochs": ("n_epochs",),
    "num_steps": ("n_steps",),
    "num_timesteps": ("total_timesteps",),
    "obs": ("observation",),
    "policy_frequency": ("policy_delay",),
    "policy_lr": ("learning_rate",),
    "q_lr": ("learning_rate",),
    "qf_learning_rate": ("learning_rate",),
    "replay_size": ("buffer_size",),
    "rms_prop_eps": ("optimizer_eps",),
    "start_e": ("exploration_initial_eps",),
    "target_network_frequency": ("target_update_interval",),
    "timesteps": ("total_timesteps",),
    "update_epochs": ("n_epochs",),
    "value_coef": ("vf_coef",),
}

_MEMORY = "A replay stores frames that observations share only once, so leave it out."
_NETWORK = "Describe the network by net_arch=, activation= and cnn=, or give layers of your own by network=."
_SAMPLES = "Exploration by generalised state-dependent noise does not exist here"

# Names of other libraries -> what to write, as a text or as a function of the value.
_ADVICE: dict[str, str | Callable[[Any], str]] = {
    "_init_setup_model": "Leave it out: the networks are always made at once.",
    "action_masks": 'Put the mask into the observation, a Dict with an entry "action_mask".',
    "action_noise": lambda _: (
        "Leave it out: the policy explores by its own noise, which noise_steps= of SAC and MPO makes last longer."
    ),
    "anneal_lr": "Write learning_rate=Linear(3e-4), with Linear from agentzoo, for a rate that falls to 0.",
    "autotune": 'Write ent_coef="auto".',
    "capture_video": "Record videos of a trained agent by the command agentzoo video RUN.",
    "cuda": "Leave it out: JAX uses an accelerator if there is one. Set JAX_PLATFORMS=cpu to prevent that.",
    "custom_objects": "Give hyperparameters that are to be replaced by their names: load(path, learning_rate=1e-4).",
    "device": lambda value: (
        f"Leave it out: JAX uses an accelerator if there is one. Set the environment variable "
        f"JAX_PLATFORMS={'cuda' if 'cuda' in str(value) else 'cpu'} before Python starts to choose yourself."
    ),
    "env_id": lambda value: f"The environment goes first, without a name: {value!r}.",
    "env_kwargs": lambda value: (
        f"Give a function that makes the environment: lambda: gymnasium.make(env_id, {_arguments(value, 'env_kwargs')})."
    ),
    "env_wrapper": "Give a function that makes the wrapped environment: lambda: Wrapper(gymnasium.make(env_id)).",
    "eval_env": "Write callback=EvalCallback(eval_env, eval_freq=...), from agentzoo.callbacks.",
    "eval_freq": "Write callback=EvalCallback(eval_env, eval_freq=...), from agentzoo.callbacks.",
    "eval_log_path": "Write callback=EvalCallback(eval_env, log_path=...), from agentzoo.callbacks.",
    "exp_name": "Write log_dir=, the folder in which each run gets a folder of its own.",
    "force_reset": "Leave it out: new environments always begin new episodes.",
    "frame_stack": "Give a function that makes the environment in gymnasium.wrappers.FrameStackObservation.",
    "include": "Leave it out: everything is saved that is not named by exclude=.",
    "monitor_wrapper": "Leave it out: returns and lengths of episodes are always logged.",
    "n_eval_episodes": "Write callback=EvalCallback(eval_env, n_eval_episodes=...), from agentzoo.callbacks.",
    "num_minibatches": "Write batch_size=, the number of steps of a minibatch.",
    "optimize_memory_usage": _MEMORY,
    "policy": "Leave it out: the network follows from the spaces. Its hidden layers are net_arch=(64, 64).",
    "policy_kwargs": lambda value: _policy(value),
    "print_system_info": "Leave it out: the versions of all packages are in config.json of a run folder.",
    "replay_buffer_class": "Leave it out: every agent has its own replay. Prioritised replay is prioritized_replay=True.",
    "replay_buffer_kwargs": "Leave it out: the replay's size is buffer_size=, and prioritized_replay= its way of drawing.",
    "rollout_buffer_class": "Leave it out: a rollout has n_steps= steps of each environment.",
    "rollout_buffer_kwargs": "Leave it out: a rollout has n_steps= steps of each environment.",
    "sde_sample_freq": f"{_SAMPLES}, so leave it out.",
    "stats_window_size": "Leave it out: returns are averaged over the last 100 episodes.",
    "support_multi_env": "Leave it out: all agents train in several environments, n_envs=.",
    "tb_log_name": "Leave it out: a run gets a folder of its own in the agent's log_dir=.",
    "tensorboard_log": lambda value: f"Write log_dir={value!r}.",
    "torch_deterministic": "Leave it out: runs with the same seed are equal.",
    "track": "Write log_dir=, the folder in which each run gets a folder of its own.",
    "use_rms_prop": 'IMPALA has optimizer="rmsprop"; the other agents use Adam.',
    "use_sde": f"{_SAMPLES}. Leave it out, or make the noise of SAC and MPO last by noise_steps=.",
    "use_sde_at_warmup": f"{_SAMPLES}, so leave it out.",
    "vec_env_cls": "Write n_envs= for several environments of an id, or give a VectorEnv of Gymnasium.",
    "verbose": lambda value: (
        "Leave it out: learn shows a progress bar."
        if value
        else "Leave it out, and write learn(..., progress_bar=False)."
    ),
    "features_extractor_class": _NETWORK,
    "features_extractor_kwargs": _NETWORK,
    "activation_fn": 'Write activation="relu", "tanh", "silu" or "gelu".',
}


def unknown(
    where: str, name: str, value: Any, known: Iterable[str], listed: Iterable[str] = ()
) -> ConfigurationError:
    """Return the error for an argument that does not exist.

    Args:
      where: what has no such argument, for example "DQN".
      name: of the argument.
      value: of the argument.
      known: all names that exist.
      listed: the names to choose from, if there is no better advice.
    """
    known = list(known)
    aliases = [own for own in _ALIASES.get(name, ()) if own in known]
    advice = _ADVICE.get(name)
    # A name that differs by a letter or two; what is further away is more often wrong than right.
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.72)
    if aliases:
        hint = f"Write {aliases[0]}={_shown(value)}."
    elif advice is not None:
        hint = advice(value) if callable(advice) else advice
    elif close:
        hint = f"Did you mean {close[0]!r}?"
    elif listed:
        hint = f"Choose from {', '.join(listed)}."
    else:
        hint = f"Choose from {', '.join(known)}."
    return ConfigurationError(f"{where} has no argument {name!r}. {hint}")


def checked(function: Function) -> Function:
    """Decorate a method, so that arguments that it does not have are refused with advice."""
    parameters = inspect.signature(function).parameters
    names = [
        name
        for name, one in parameters.items()
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    ]
    names = [name for name in names if name != "self"]
    free = any(one.kind == one.VAR_KEYWORD for one in parameters.values())

    @functools.wraps(function)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(self, *args, **kwargs)
        except TypeError:  # which may come from anywhere, so that the arguments decide
            if function.__name__ == "__init__" and args and "env" in kwargs:
                raise ConfigurationError(
                    policy_first(type(self).__name__, args[0], kwargs["env"])
                ) from None
            for name, value in kwargs.items():
                if name not in names and not free:
                    raise unknown(
                        f"{type(self).__name__}.{function.__name__}", name, value, names
                    ) from None
            raise

    return call  # type: ignore[return-value]


def policy_first(name: str, policy: Any, env: Any) -> str:
    """What to write where the policy was put before the environment, as in Stable-Baselines3."""
    text = repr(env) if isinstance(env, str) else "env"
    if isinstance(policy, str) and policy.endswith("Policy"):
        return f"Write {name}({text}): the environment comes first and the network follows from its spaces."
    return f"Write {name}(env, learning_rate=...): only env goes without a name."


def _shown(value: Any) -> str:
    """A value as one would write it, or dots for one that has no short form."""
    text = repr(tuple(value) if isinstance(value, list) else value)
    return text if len(text) <= 40 and not text.startswith("<") else "..."


def _arguments(value: Any, name: str) -> str:
    """Keyword arguments as one would write them."""
    if isinstance(value, dict) and value and len(repr(value)) <= 60:
        return ", ".join(f"{key}={one!r}" for key, one in value.items())
    return f"**{name}"


def _policy(value: Any) -> str:
    """What to write for `policy_kwargs` of Stable-Baselines3."""
    value = value if isinstance(value, dict) else {}
    sizes, function = value.get("net_arch"), value.get("activation_fn")
    words = []
    if isinstance(sizes, list | tuple) and all(isinstance(size, int) for size in sizes):
        words.append(f"net_arch={tuple(sizes)}")
    elif "net_arch" in value:
        words.append("net_arch=(64, 64), for policy and value alike")
    if function is not None:
        words.append(f'activation="{getattr(function, "__name__", "relu").lower()}"')
    words += [
        f"{name}={_shown(value[name])}"
        for name in ("ortho_init", "log_std_init", "n_quantiles", "n_critics")
        if name in value
    ]
    others = not words or len(words) < len(value)
    return " ".join([f"Write {', '.join(words)}."] * bool(words) + [_NETWORK] * others)
