"""`agentzoo eval` and `agentzoo video`, which use a trained agent."""

import importlib
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.wrappers import RecordVideo

from agentzoo import zoo
from agentzoo.algos.loading import find, find_saved
from agentzoo.cli.environments import (
    check_at_least,
    clear_folder,
    environment_of,
    warnings_unless_refused,
)
from agentzoo.cli.options import Eval, Video
from agentzoo.cli.zoo import find_run
from agentzoo.envs import env_maker, make_env
from agentzoo.evaluation import evaluate_policy
from agentzoo.types import ConfigurationError


def evaluate(options: Eval) -> None:
    """Evaluate a trained agent in fresh episodes."""
    check_at_least(1, "--episodes", options.episodes)
    check_at_least(0, "--seed", options.seed)
    agent = load(find_run(options.run), options.algorithm)
    env_id, kwargs = environment_of(agent, options)
    with warnings_unless_refused():
        mean, std = evaluate_policy(
            agent,
            env_maker(env_id, kwargs),
            options.episodes,
            deterministic=not options.stochastic,
            seed=options.seed,
        )
    print(f"Mean return of {options.episodes} episodes of {env_id}: {mean:.1f} +- {std:.1f}")


def video(options: Video) -> None:
    """Record a trained agent as an MP4 file per episode."""
    check_at_least(1, "--episodes", options.episodes)
    check_at_least(0, "--seed", options.seed)
    path = find_run(options.run)
    agent = load(path, options.algorithm)
    home = Path() if zoo.is_name(options.run) else path.parent
    out = options.out or home / "videos"
    env_id, kwargs = environment_of(agent, options)
    try:
        # Gymnasium imports this only when it saves the first video, after an episode.
        importlib.import_module("moviepy.video.io.ImageSequenceClip")
        with warnings_unless_refused():
            env = make_env(env_id, **{**kwargs, "render_mode": "rgb_array"})
        if env.render_mode != "rgb_array":
            raise ConfigurationError(
                f"{env_id!r} cannot be recorded, because it does not render images. "
                f"Name another environment with --env."
            )
        with clear_folder(out):
            env = RecordVideo(env, str(out), episode_trigger=lambda _: True, disable_logger=True)
        _play(agent, env, options)
    except (gym.error.DependencyNotInstalled, ImportError) as error:
        raise ConfigurationError(
            "Recording videos needs a package that is not installed. "
            "Run: pip install 'agentzoo[video]'"
        ) from error
    print(f"{options.episodes} video(s) in {out}")


def load(path: Path, algorithm: str | None) -> Any:
    """Load an agent. The module of a class of the user's own is imported if the user names it."""
    return (find_saved(path) if algorithm is None else find(algorithm)).load(path)


def _play(agent: Any, env: gym.Env, options: Video) -> None:
    """Let an agent act in whole episodes, and close the environment."""
    for episode in range(options.episodes):
        obs, _ = env.reset(seed=options.seed + episode)
        state, ended, start = None, False, True
        while not ended:
            action, state = agent.predict(obs, state=state, episode_start=start, deterministic=True)
            obs, _, terminated, truncated, _ = env.step(action)
            ended, start = terminated or truncated, False
    env.close()
