"""Advice about arguments that do not exist, such as those of Stable-Baselines3 and CleanRL."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from agentzoo.types import ConfigurationError

Function = TypeVar("Function", bound=Callable[..., Any])

# Names in other libraries, and our names for the same thing. The first one that exists is advised.
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

_ACCELERATOR = "Leave it out: JAX uses an accelerator if there is one."
_EVALUATION = (
    "Write callback=EvalCallback(eval_env, {}), with EvalCallback from agentzoo.callbacks."
)
_LOG_DIR = "Write log_dir=, the folder in which each run gets its own folder."
_NETWORK = (
    "Describe the network by net_arch=, activation= and cnn=, or give your own layers by network=."
)
_ROLLOUT = "Leave it out: a rollout has n_steps= steps of each environment."
_SDE = "Generalised state-dependent exploration does not exist here"

# Names in other libraries, and what to write instead: a text, or a function of the value.
_ADVICE: dict[str, str | Callable[[Any], str]] = {
    "_init_setup_model": "Leave it out: the networks are always made at once.",
    "action_masks": 'Put the mask into the observation, a Dict with an entry "action_mask".',
    "action_noise": lambda _: (
        "Leave it out: the policy explores with its own noise. In SAC and MPO, noise_steps= makes "
        "the noise persist."
    ),
    "activation_fn": 'Write activation="relu", "tanh", "silu", "gelu" or "elu".',
    "anneal_lr": (
        "For a learning rate that falls to 0, write learning_rate=Linear(3e-4), with Linear from "
        "agentzoo."
    ),
    "autotune": 'Write ent_coef="auto".',
    "capture_video": "Record videos of a trained agent with the command agentzoo video RUN.",
    "cuda": f"{_ACCELERATOR} Set JAX_PLATFORMS=cpu to prevent that.",
    "custom_objects": (
        "Give the hyperparameters to replace by their names: load(path, learning_rate=1e-4)."
    ),
    "device": lambda value: (
        f"{_ACCELERATOR} To choose yourself, set the environment variable "
        f"JAX_PLATFORMS={'cuda' if 'cuda' in str(value) else 'cpu'} before Python starts."
    ),
    "env_id": lambda value: f"The environment is the first argument, without a name: {value!r}.",
    "env_kwargs": lambda value: (
        f"Give a function that makes the environment: "
        f"lambda: gymnasium.make(env_id, {_arguments(value, 'env_kwargs')})."
    ),
    "env_wrapper": (
        "Give a function that makes the wrapped environment: "
        "lambda: Wrapper(gymnasium.make(env_id))."
    ),
    "eval_env": _EVALUATION.format("eval_freq=..."),
    "eval_freq": _EVALUATION.format("eval_freq=..."),
    "eval_log_path": _EVALUATION.format("log_path=..."),
    "exp_name": _LOG_DIR,
    "features_extractor_class": _NETWORK,
    "features_extractor_kwargs": _NETWORK,
    "force_reset": "Leave it out: new environments always begin new episodes.",
    "frame_stack": (
        "Give a function that wraps the environment in gymnasium.wrappers.FrameStackObservation."
    ),
    "include": "Leave it out: everything is saved except what exclude= names.",
    "monitor_wrapper": "Leave it out: returns and lengths of episodes are always logged.",
    "n_eval_episodes": _EVALUATION.format("n_eval_episodes=..."),
    "num_minibatches": "Write batch_size=, the number of environment steps in a minibatch.",
    "optimize_memory_usage": (
        "Leave it out: the replay buffer always stores a frame that observations share only once."
    ),
    "policy": (
        "Leave it out: the network follows from the spaces. Its hidden layers are "
        "net_arch=(64, 64)."
    ),
    "policy_kwargs": lambda value: _policy(value),
    "print_system_info": (
        "Leave it out: config.json in the run folder has the versions of all packages."
    ),
    "replay_buffer_class": (
        "Leave it out: each agent has its own replay buffer. Write prioritized_replay=True for "
        "prioritised replay."
    ),
    "replay_buffer_kwargs": (
        "Leave it out: buffer_size= is the size of the replay buffer, and prioritized_replay= is "
        "how it draws."
    ),
    "rollout_buffer_class": _ROLLOUT,
    "rollout_buffer_kwargs": _ROLLOUT,
    "save_vecnormalize": (
        "Leave it out: the statistics of normalize_obs= and normalize_reward= are saved with the "
        "agent."
    ),
    "sde_sample_freq": f"{_SDE}, so leave it out.",
    "stats_window_size": "Leave it out: returns are averaged over the last 100 episodes.",
    "support_multi_env": "Leave it out: all agents train in several environments, n_envs=.",
    "tb_log_name": "Leave it out: each run gets its own folder in log_dir= of the agent.",
    "tensorboard_log": lambda value: f"Write log_dir={value!r}.",
    "torch_deterministic": "Leave it out: runs with the same seed are equal.",
    "track": _LOG_DIR,
    "use_rms_prop": 'IMPALA has optimizer="rmsprop". The other agents use Adam.',
    "use_sde": (
        f"{_SDE}. Leave it out, or make the noise of SAC and MPO persist with noise_steps=."
    ),
    "use_sde_at_warmup": f"{_SDE}, so leave it out.",
    "vec_env_cls": "Write n_envs= for several environments, or give a VectorEnv of Gymnasium.",
    "verbose": lambda value: (
        "Leave it out: learn shows a progress bar."
        if value
        else "Leave it out, and write learn(..., progress_bar=False)."
    ),
    "warn": "Leave it out: episodes are counted whether or not a Monitor wraps the environment.",
}


def unknown(
    where: str, name: str, value: Any, known: Iterable[str], listed: Iterable[str] = ()
) -> ConfigurationError:
    """Return the error for an argument that does not exist.

    Args:
      where: the class or method that has no such argument, for example "DQN".
      name: the name of the argument.
      value: its value.
      known: all names that exist.
      listed: the names to list if there is no better advice; by default all of them.
    """
    known = list(known)
    aliases = [own for own in _ALIASES.get(name, ()) if own in known]
    advice = _ADVICE.get(name)
    # A name that differs by a letter or two. A guess that is further away is mostly wrong.
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.72)
    if aliases:
        hint = f"Write {aliases[0]}={_shown(value)}."
    elif advice is not None:
        hint = advice(value) if callable(advice) else advice
    elif close:
        hint = f"Did you mean {close[0]!r}?"
    else:
        hint = f"Choose from {', '.join(listed or known)}."
    return ConfigurationError(f"{where} has no argument {name!r}. {hint}")


def checked(function: Function) -> Function:
    """Decorate a method, so that an argument that it does not have is refused with advice."""
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
        except TypeError:  # it may come from anywhere, so the arguments decide what it was
            if function.__name__ == "__init__" and args and "env" in kwargs:
                raise ConfigurationError(
                    policy_first(type(self).__name__, args[0], kwargs["env"])
                ) from None
            for name, value in kwargs.items():
                if name not in names and not free:
                    method = "" if function.__name__ == "__init__" else f".{function.__name__}"
                    raise unknown(f"{type(self).__name__}{method}", name, value, names) from None
            raise

    return call  # type: ignore[return-value]


def policy_first(name: str, policy: Any, env: Any) -> str:
    """Return what to write if the policy comes first, as in Stable-Baselines3."""
    text = repr(env) if isinstance(env, str) else "env"
    if isinstance(policy, str) and policy.endswith("Policy"):
        return (
            f"The policy {policy!r} stands where the environment belongs. Write {name}({text}): "
            f"the environment comes first and the network follows from its spaces."
        )
    return (
        f"{name} has one argument without a name, the environment. "
        f"Write {name}(env, learning_rate=...)."
    )


def _shown(value: Any) -> str:
    """A value as a user would write it, or dots if the text would be long."""
    text = repr(tuple(value) if isinstance(value, list) else value)
    return text if len(text) <= 40 and not text.startswith("<") else "..."


def _arguments(value: Any, name: str) -> str:
    """Keyword arguments as a user would write them."""
    if isinstance(value, dict) and value and len(repr(value)) <= 60:
        return ", ".join(f"{key}={one!r}" for key, one in value.items())
    return f"**{name}"


def _policy(value: Any) -> str:
    """What to write instead of `policy_kwargs` of Stable-Baselines3."""
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
