"""`agentzoo train`."""

import functools
import importlib.util
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentzoo import config as configs
from agentzoo.algos.resuming import open_run, read_config
from agentzoo.cli import signals
from agentzoo.cli.environments import (
    check_at_least,
    clear_folder,
    warnings_unless_refused,
)
from agentzoo.cli.options import Train
from agentzoo.cli.pairs import parse_keywords
from agentzoo.envs import env_maker
from agentzoo.evaluation import evaluate_policy
from agentzoo.training.folder import holds_run
from agentzoo.types import ConfigurationError


def train(algorithm: Any, options: Train, hyperparameters: dict[str, Any]) -> None:
    """Train an agent of a class, save it in a run folder, and evaluate it."""
    # These are checked before training, and not when they are needed.
    if not 1 <= options.steps < 2**31:
        raise ConfigurationError(
            f"--steps {options.steps:g} is out of range. Choose a number from 1 to 2^31 - 1."
        )
    check_at_least(0, "--eval-episodes", options.eval_episodes)
    if options.resume and options.run_dir is None:
        raise ConfigurationError("--resume needs the folder of the run. Name it with --run-dir.")
    env = env_maker(options.env, parse_keywords(options.env_kwargs))
    if options.resume and options.run_dir is not None and holds_run(options.run_dir):
        agent = _resume(algorithm, env, options, hyperparameters)
    else:
        agent = _begin(algorithm, env, options, hyperparameters)
    folder = options.log_dir if options.run_dir is None else options.run_dir
    print(f"Saved in {agent.run_dir or folder}; {_curves(folder)}")
    if options.eval_episodes:
        episodes, seed = options.eval_episodes, options.seed + 1_000_000
        mean, std = evaluate_policy(agent, env, episodes, seed=seed)
        print(f"Mean return of {episodes} evaluation episodes: {mean:.1f} +- {std:.1f}")


def _begin(algorithm: Any, env: Any, options: Train, hyperparameters: dict[str, Any]) -> Any:
    """Train a new agent."""
    if options.run_dir is not None and holds_run(options.run_dir):
        raise ConfigurationError(
            f"--run-dir {options.run_dir} holds a run already. Add --resume to resume the run, or "
            f"choose another --run-dir."
        )
    place = (
        {"log_dir": options.log_dir} if options.run_dir is None else {"run_dir": options.run_dir}
    )
    with warnings_unless_refused():
        make = algorithm
        if options.tuned:
            make = functools.partial(algorithm.tuned, row=options.env, settings=options.settings)
        agent = make(
            env,
            n_envs=options.n_envs,
            seed=options.seed,
            **_values(options, _PLACEMENT + _GUARD),
            trackers=options.track,
            **place,
            **hyperparameters,
        )
    if options.run_dir is None:
        with clear_folder(options.log_dir):
            options.log_dir.mkdir(parents=True, exist_ok=True)
    freq, keep = options.checkpoint_freq, options.keep
    _learn(
        agent, options.steps, lambda: agent.learn(options.steps, checkpoint_freq=freq, keep=keep)
    )
    return agent


_PLACEMENT = ("runner", "n_actors", "max_lag", "n_devices", "on_nan")
_GUARD = ("env_timeout", "on_env_error")  # which may change when a run is resumed


def _values(options: Train, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}


def _resume(algorithm: Any, env: Any, options: Train, hyperparameters: dict[str, Any]) -> Any:
    """Resume the run in the folder, after checking that it is the one that is asked for."""
    assert options.run_dir is not None
    _check_same(options.run_dir, algorithm, options, hyperparameters)
    changes = _values(options, (*_GUARD, "checkpoint_freq", "keep"))
    if options.track:
        changes["trackers"] = options.track
    opened = open_run(options.run_dir, env, changes=changes)
    _learn(opened.agent, options.steps, opened.train)
    return opened.agent


def _check_same(
    folder: Path, algorithm: Any, options: Train, hyperparameters: dict[str, Any]
) -> None:
    """Refuse to resume a run that other options began.

    Raises:
      ConfigurationError: if an option differs. The message has the values of both.
    """
    record = read_config(folder)
    _check_kind(folder, algorithm, record)
    plan = record["plan"]
    before = {
        "--env": record["env_id"],
        "--env-kwargs": record["env_kwargs"],
        "--steps": plan["total"],
        "--n-envs": record["spec"][2],
        "--seed": record["seed"],
        **{_option(name): plan["placement"].get(name) for name in _PLACEMENT},
        **{_option(name): value for name, value in record["hyperparameters"].items()},
    }
    config = configs.make_config(algorithm.Config, hyperparameters)
    now = {
        "--env": options.env,
        "--env-kwargs": parse_keywords(options.env_kwargs),
        "--steps": int(options.steps),
        "--n-envs": options.n_envs,
        "--seed": options.seed,
        **{_option(name): value for name, value in _values(options, _PLACEMENT).items()},
        **{_option(name): value for name, value in configs.to_json(config).items()},
    }
    if options.n_devices == "all":  # a saved run has their number
        del now["--n-devices"]
    plain = json.loads(json.dumps(now))  # tuples are lists in a saved run
    differing = [name for name in plain if before.get(name) != plain[name]]
    if differing:
        each = [
            f"{name} {_text(before.get(name))}, not {name} {_text(plain[name])}"
            for name in differing
        ]
        raise ConfigurationError(
            f"The run in {folder} was started with {'; '.join(each)}. Give the same options to "
            f"resume it, or choose another --run-dir."
        )


def _check_kind(folder: Path, algorithm: Any, record: Mapping[str, Any]) -> None:
    """Refuse a run of another algorithm, and one in an environment that no option can name."""
    if record["algorithm"] != algorithm.__name__:
        raise ConfigurationError(
            f"The run in {folder} is one of {record['algorithm']}, not of {algorithm.__name__}. "
            f"Give the same algorithm to resume it, or choose another --run-dir."
        )
    if record.get("custom_env"):
        raise ConfigurationError(
            f"The run in {folder} trained in an environment that was made in Python. Resume it "
            f"there with agentzoo.resume({str(folder)!r}, env)."
        )


def _text(value: Any) -> str:
    """Return a value of a run's record as it is written on the command line."""
    match value:
        case {"linear": [start, end]}:
            return f"linear:{start},{end}"
        case list():
            return " ".join(map(str, value))
        case dict():
            return " ".join(f"{key}:{each}" for key, each in value.items()) or "None"
        case _:
            return str(value)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _learn(agent: Any, steps: float, learn: Callable[[], Any]) -> None:
    """Train an agent. After an interrupt or SIGTERM, say where the agent is saved."""
    try:
        if signals.interrupts:
            raise KeyboardInterrupt
        learn()
    except (KeyboardInterrupt, SystemExit) as error:
        saved = agent.run_dir is not None and (agent.run_dir / "model.safetensors").is_file()
        where = f"the agent is saved in {agent.run_dir}" if saved else "nothing was saved"
        if agent.run_dir is not None and holds_run(agent.run_dir):
            where += f"; resume it with --run-dir {shlex.quote(str(agent.run_dir))} --resume"
        sentence = f"interrupted after {agent.num_timesteps:,} of {steps:,.0f} steps; {where}."
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(sentence) from None
        print(f"agentzoo: {sentence}", file=sys.stderr)
        raise


def _curves(log_dir: Path) -> str:
    """How to look at the learning curves."""
    if shutil.which("tensorboard") is not None:
        command = "tensorboard"
    elif importlib.util.find_spec("tensorboard") is not None:
        command = "python -m tensorboard.main"
    else:
        return "the curves are in its progress.csv, and in files for TensorBoard."
    return f"see the curves with: {command} --logdir {shlex.quote(str(log_dir))}"
