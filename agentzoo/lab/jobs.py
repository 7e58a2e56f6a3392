"""The runs of a plan, each with everything that its process has to know."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium as gym

from agentzoo import config as configs
from agentzoo.algos.loading import find
from agentzoo.envs import env_maker, find_native, make_envs, spaces
from agentzoo.lab.plan import Plan, Protocol, Variant
from agentzoo.settings import find_row
from agentzoo.types import ConfigurationError

DEFAULT_STEPS = 100_000


class Job(NamedTuple):
    """One run of a benchmark, as plain JSON.

    Attributes:
      label: the name of the algorithm or variant in the comparison.
      spec: the algorithm as `find` takes it.
      algorithm: the name of the algorithm's class.
      env: the id of the environment.
      seed: the random seed.
      steps: environment steps of the run.
      n_envs: number of environments that are stepped at once.
      hyperparameters: all hyperparameters, as `config.to_json` returns them.
      changes: those that the plan sets.
      tuned: the key of the tuned settings, or None.
      settings: where the tuned settings come from; None for the package.
      evaluations: as in `Protocol`.
      eval_episodes: as in `Protocol`.
      final_episodes: as in `Protocol`.
      compiled: whether the environment can be compiled, so that seeds can learn together.
      env_kwargs: the arguments of the environment.
    """

    label: str
    spec: str
    algorithm: str
    env: str
    seed: int
    steps: int
    n_envs: int
    hyperparameters: dict[str, Any]
    changes: dict[str, Any]
    tuned: str | None
    settings: str | None
    evaluations: int
    eval_episodes: int
    final_episodes: int
    compiled: bool = False
    env_kwargs: Mapping[str, Any] = {}

    @property
    def maker(self) -> str | Callable[[], gym.Env]:
        """The environment as agents take it."""
        return env_maker(self.env, self.env_kwargs)

    @property
    def about(self) -> dict[str, Any]:
        """What all seeds of a label in an environment have in common, for the record."""
        return {
            "algorithm": self.algorithm,
            "steps": self.steps,
            "n_envs": self.n_envs,
            "tuned": self.tuned is not None,
            "changes": self.changes,
            "hyperparameters": self.hyperparameters,
            **({"env_kwargs": self.env_kwargs} if self.env_kwargs else {}),
        }


def jobs_of(plan: Plan, note: Callable[[str], None] | None = None) -> list[Job]:
    """Return the runs of a plan, those of seed 0 first.

    Every environment is made once, and every configuration is checked, so that mistakes are found
    before anything starts. An algorithm has no run in an environment with other actions than its
    own if both have other runs.

    Args:
      plan: the plan.
      note: called with a sentence about what has no run.

    Raises:
      ConfigurationError: if an algorithm, an environment or a hyperparameter is unknown, or an
        algorithm suits none of its environments, or an environment none of its algorithms.
    """
    about: dict[str, _Env] = {}
    for env in plan.envs:
        with plan.located("envs", env):
            about[env] = _inspect(env, plan.env_kwargs)
    for variant in plan.variants:
        for env in variant.envs or ():
            if env not in about:
                with plan.located("algos", variant.label):
                    about[env] = _inspect(env, plan.env_kwargs)
    pairs = _suitable(plan, about, note)
    first = [_job(plan, variant, env, about[env]) for variant, env in pairs]
    return [job._replace(seed=seed) for seed in range(plan.seeds) for job in first]


class _Env(NamedTuple):
    action_space: Any
    compiled: bool


def _inspect(env: str, kwargs: Mapping[str, Any]) -> _Env:
    """Make an environment, and return what a plan has to know of it."""
    envs = make_envs(env_maker(env, kwargs), 1)
    try:
        return _Env(envs.spec.action_space, find_native(envs) is not None)
    finally:
        envs.close()


def _suitable(
    plan: Plan, about: Mapping[str, _Env], note: Callable[[str], None] | None
) -> list[tuple[Variant, str]]:
    """Return which algorithm has runs in which environment."""
    pairs, skipped = [], []
    for variant in plan.variants:
        with plan.located("algos", variant.label):
            cls = find(variant.algorithm)
        for env in plan.envs if variant.envs is None else variant.envs:
            suits = spaces.kind(about[env].action_space) in cls.action_spaces
            (pairs if suits else skipped).append((variant, env))
    trained = {variant.label for variant, _ in pairs}
    used = {env for _, env in pairs}
    for variant, env in skipped:
        if variant.envs is None and variant.label in trained and env in used:
            continue
        advice = f"Leave out {env}, or add an algorithm that suits it."
        if variant.envs is not None or variant.label not in trained:
            advice = f"Name other environments for {variant.label}, or leave it out."
        with plan.located("algos", variant.label):
            raise ConfigurationError(
                f"{find(variant.algorithm).__name__} has no policy for the actions of {env}, "
                f"{about[env].action_space}. {advice}"
            )
    if skipped and note is not None:
        each = ", ".join(f"{variant.label} on {env}" for variant, env in skipped)
        note(f"Left out, because the algorithm has no policy for the actions: {each}.")
    return pairs


def _job(plan: Plan, variant: Variant, env: str, about: _Env) -> Job:
    with plan.located("algos", variant.label):
        cls = find(variant.algorithm)
        row = find_row(cls, env, path=plan.settings) if plan.tuned else None
        configs.make_config(cls.Config, variant.changes)
    for name, value in plan.changes.items():
        with plan.located("set", name):
            configs.make_config(cls.Config, {name: value})
    changes = {**plan.changes, **variant.changes}
    values = {**({} if row is None else row.hyperparameters), **changes}
    config = configs.make_config(cls.Config, values)
    steps, n_envs = (DEFAULT_STEPS, 1) if row is None else (row.steps, row.n_envs)
    given = {name: configs.to_json(config)[name] for name in changes}
    return Job(
        label=variant.label,
        spec=variant.algorithm,
        algorithm=cls.__name__,
        env=env if row is None or row.key != env else row.env,
        seed=0,
        steps=steps if plan.steps is None else plan.steps,
        n_envs=n_envs if plan.n_envs is None else plan.n_envs,
        hyperparameters=_json(configs.to_json(config)),
        changes=_json(given),
        tuned=None if row is None else row.key,
        settings=plan.settings,
        **plan.protocol._asdict(),
        compiled=about.compiled,
        env_kwargs=dict(plan.env_kwargs),
    )


def _json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters as they are after they have been written and read.

    Raises:
      ConfigurationError: if one is a function, which another process cannot get.
    """
    for name, value in values.items():
        if configs.is_function(value):
            raise ConfigurationError(
                f"The hyperparameter {name!r} is a function, which cannot be recorded. Use a "
                f"number or a Linear schedule, or give your own algorithm another default."
            )
    return json.loads(json.dumps(dict(values)))


def make_agent(job: Job, **options: Any) -> Any:
    """Return the new agent of a run. `options` are further arguments of a new agent."""
    cls = find(job.spec)
    config = configs.from_json(cls.Config, job.hyperparameters, {})
    values = {name: getattr(config, name) for name in job.hyperparameters}
    options = {"n_envs": job.n_envs, "seed": job.seed, **options, **values}
    if job.tuned is None:
        return cls(job.maker, **options)
    return cls.tuned(job.maker, row=job.tuned, settings=job.settings, **options)


def protocol_of(job: Job) -> Protocol:
    """Return how the agent of a run is evaluated."""
    return Protocol(job.evaluations, job.eval_episodes, job.final_episodes)
