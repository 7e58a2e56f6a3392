"""Videos of the best and the worst episode of each algorithm in each environment."""

import importlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from agentzoo import checkpoint
from agentzoo.algos.loading import find_saved
from agentzoo.envs import make_env, needs_import
from agentzoo.lab.reports.comparison import Comparison, Group
from agentzoo.lab.reports.document import Text, Video, Videos, number, slug
from agentzoo.lab.results import RUN, Result, Results, run_folder
from agentzoo.types import ConfigurationError

EPISODES = 10  # from which the best and the worst one are chosen
SEED = 3_000_000  # of the first one
FOLDER = "videos"


def record(results: Results, comparison: Comparison, out: Path) -> dict[str, list[Any]]:
    """Record videos.

    The best episode is one of the run with the highest score, and the worst one is one of the run
    with the lowest score.

    Args:
      results: the results, in whose folder the saved agents are.
      comparison: the groups of runs.
      out: the folder of the report.

    Returns:
      For each environment, the videos, and texts about those that could not be recorded.

    Raises:
      ConfigurationError: if the package that writes videos is not installed.
    """
    try:
        # Gymnasium imports this only when it saves the first video, after an episode.
        importlib.import_module("moviepy.video.io.ImageSequenceClip")
    except ImportError as error:
        raise ConfigurationError(
            "Recording videos needs a package that is not installed. "
            "Run: pip install 'agentzoo[video]'"
        ) from error
    return {env: _of_environment(results, comparison.of(env), out) for env in comparison.envs}


def _of_environment(results: Results, groups: Sequence[Group], out: Path) -> list[Any]:
    videos: list[Video] = []
    texts: list[Text] = []
    for group in groups:
        if not group.finished:
            continue
        best, worst = (group.finished[int(pick(group.scores))] for pick in (np.argmax, np.argmin))
        for which, run in (("best", best), ("worst", worst)):
            try:
                videos.append(_record(results, run, which, out))
            except (ConfigurationError, FileNotFoundError, gym.error.Error, ImportError) as error:
                sentence = f"No video of {group.label} on {group.env}: {error}"
                texts.append(Text(sentence))
                break
    return [*([Videos(videos)] if videos else []), *texts]


def _record(results: Results, run: Result, which: str, out: Path) -> Video:
    """Record the best or the worst one of some episodes of a run."""
    if needs_import(run.env):
        raise ConfigurationError(
            f"a results folder cannot make agentzoo import a module. Import the module of "
            f"{run.env} in Python, and call agentzoo.lab.report there."
        )
    home = run_folder(results.folder, run.label, run.env, run.seed)
    path = checkpoint.find(home / RUN)
    agent: Any = find_saved(path).load(path)
    kwargs = agent.env_kwargs or {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's, which training has shown already
        env = make_env(run.env, **kwargs)
        modes = env.metadata.get("render_modes") or ()
        if "rgb_array" not in modes:
            env.close()
            raise ConfigurationError("the environment does not render images.")
        returns = [_play(agent, env, SEED + episode) for episode in range(EPISODES)]
        env.close()
        chosen = int(np.argmax(returns) if which == "best" else np.argmin(returns))
        name = f"{slug(run.label)}-{slug(run.env)}-{which}"
        recorder = gym.wrappers.RecordVideo(
            make_env(run.env, **{**kwargs, "render_mode": "rgb_array"}),
            str(out / FOLDER),
            episode_trigger=lambda _: True,
            name_prefix=name,
            disable_logger=True,
        )
        reached = _play(agent, recorder, SEED + chosen)
        recorder.close()
    file = out / FOLDER / f"{name}.mp4"
    (out / FOLDER / f"{name}-episode-0.mp4").replace(file)
    caption = (
        f"{run.label}, {which} run (seed {run.seed}): {which} of {EPISODES} episodes, "
        f"return {number(reached)}"
    )
    return Video(caption, f"{FOLDER}/{file.name}")


def _play(agent: Any, env: gym.Env, seed: int) -> float:
    """Let an agent act in a whole episode, and return the sum of the rewards."""
    obs, _ = env.reset(seed=seed)
    state, ended, start, total = None, False, True, 0.0
    while not ended:
        action, state = agent.predict(obs, state=state, episode_start=start, deterministic=True)
        obs, reward, terminated, truncated, _ = env.step(action)
        total += float(reward)
        ended, start = terminated or truncated, False
    return total
