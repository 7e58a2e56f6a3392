"""Making the trainer of an agent from the file in which the agent was saved."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentzoo import config as configs
from agentzoo.envs import EnvLike
from agentzoo.training import (
    Placement,
    RunLog,
    Trainer,
    check_learner_state,
    made_later,
    named,
    read_manifest,
    read_spec,
)
from agentzoo.types import ConfigurationError


def load_trainer(
    cls: Any,
    path: str | os.PathLike[str],
    env: EnvLike | None,
    n_envs: int | None,
    placement: Placement,
    log: RunLog,
    network: Callable[..., Any] | None,
    info_keywords: Sequence[str],
    hyperparameters: Mapping[str, Any],
    arguments: Sequence[str],
) -> Trainer:
    """Return the trainer of a saved agent; see `Algorithm.load`.

    Args:
      cls: the class of the agent.
      path: the file.
      env: the environment in which to train, or None.
      n_envs: number of environments to make from it, if it changes.
      placement: where and how the agent trains.
      log: the log of its runs.
      network: the network that the agent was made with, if it was a user's.
      info_keywords: names of entries in the environments' `info` that are logged.
      hyperparameters: hyperparameters to replace, and the ones that were functions.
      arguments: the names of all arguments, which errors mention.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if the file is damaged, belongs to another algorithm, or does not fit the
        arguments.
    """
    manifest = read_manifest(path)
    _check_manifest(cls, path, manifest, network)
    saved = manifest["hyperparameters"]
    with named(path):
        config = configs.from_json(cls.Config, saved, hyperparameters, arguments)
        spec = read_spec(path, manifest, n_envs)
    made = None if env is None else placement.make_similar_envs(spec, env, n_envs)
    if made is not None:
        num_envs = made.envs.spec.num_envs
    else:
        n_envs = spec.num_envs if n_envs is None else n_envs
        num_envs = configs.integer("n_envs", n_envs, 1)
    # If the number of environments changes, the agent is first made as it was saved, because
    # hyperparameters that suit the new number need not suit the old one.
    regrouped = num_envs != spec.num_envs
    with named(path):
        first = _as_saved(cls.Config, saved, hyperparameters) if regrouped else config
        recipe = cls._make_recipe(first, spec, network, manifest["seed"])
        recipe = recipe.with_env(
            manifest["env_id"], manifest["env_kwargs"], manifest.get("custom_env", False)
        ).with_tuned(manifest.get("tuned"))
        shapes = recipe.shapes()
        check_learner_state(path, manifest, shapes)
    trainer = Trainer(recipe, placement, log, info_keywords, made_later(manifest, shapes))
    if made is not None and not regrouped:
        trainer.use_envs(made)
    trainer.restore(path, manifest, cls.upgrade)
    if regrouped:
        trainer.change(config, num_envs)
    if made is not None and regrouped:
        trainer.use_envs(made)
    return trainer


def _check_manifest(
    cls: type[Any], path: str | os.PathLike[str], manifest: Mapping[str, Any], network: Any
) -> None:
    """Refuse a saved agent that this class cannot load with this network."""
    if manifest["algorithm"] != cls.__name__:
        raise ConfigurationError(
            f"{path} holds a {manifest['algorithm']}; load it with agentzoo.load(path)."
        )
    if manifest["network"] is not None and network is None:
        raise ConfigurationError(
            f"The agent was made with your network {manifest['network']!r}, which is not "
            f"stored in the file (no code is); pass it again: load(path, network=...)."
        )


def _as_saved(cls: type, saved: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Return the saved config; only hyperparameters that were functions are the given ones."""
    functions = {
        name: value for name, value in given.items() if configs.is_function(saved.get(name))
    }
    return configs.from_json(cls, saved, functions)
