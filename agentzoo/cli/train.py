"""`agentzoo train`."""

import importlib.util
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from agentzoo.cli import signals
from agentzoo.cli.environments import (
    check_at_least,
    clear_folder,
    environment,
    parse_keywords,
    warnings_unless_refused,
)
from agentzoo.cli.options import Train
from agentzoo.evaluation import evaluate_policy
from agentzoo.types import ConfigurationError


def train(algorithm: Any, options: Train, hyperparameters: dict[str, Any]) -> None:
    """Train an agent of a class, save it in a run folder, and evaluate it."""
    # These are checked before training, and not when they are needed.
    if not 1 <= options.steps < 2**31:
        raise ConfigurationError(
            f"--steps {options.steps:g} is out of range. Choose a number from 1 to 2^31 - 1."
        )
    check_at_least(0, "--eval-episodes", options.eval_episodes)
    env = environment(options.env, parse_keywords(options.env_kwargs))
    with warnings_unless_refused():
        agent = algorithm(
            env,
            n_envs=options.n_envs,
            runner=options.runner,
            n_actors=options.n_actors,
            max_lag=options.max_lag,
            n_devices=options.n_devices,
            env_timeout=options.env_timeout,
            on_env_error=options.on_env_error,
            seed=options.seed,
            log_dir=options.log_dir,
            **hyperparameters,
        )
    with clear_folder(options.log_dir):
        options.log_dir.mkdir(parents=True, exist_ok=True)
    _learn(agent, options.steps)
    print(f"Saved in {agent.run_dir}; {_curves(options.log_dir)}")
    if options.eval_episodes:
        episodes, seed = options.eval_episodes, options.seed + 1_000_000
        mean, std = evaluate_policy(agent, env, episodes, seed=seed)
        print(f"Mean return of {episodes} evaluation episodes: {mean:.1f} +- {std:.1f}")


def _learn(agent: Any, steps: float) -> None:
    """Train an agent. After an interrupt or SIGTERM, say where the agent is saved."""
    try:
        if signals.interrupts:
            raise KeyboardInterrupt
        agent.learn(steps)
    except (KeyboardInterrupt, SystemExit) as error:
        saved = agent.run_dir is not None and (agent.run_dir / "model.safetensors").is_file()
        where = f"the agent is saved in {agent.run_dir}" if saved else "nothing was saved"
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
