"""`agentzoo.check_env`: report before training what will not work or will be slow."""

import warnings

from agentzoo.algos import loading
from agentzoo.config import integer
from agentzoo.envs import EnvLike, spaces
from agentzoo.envs.check_env import examine
from agentzoo.envs.findings import Report
from agentzoo.types import ConfigurationError


def check_env(
    env: EnvLike,
    warn: bool = True,
    *,
    raise_errors: bool = True,
    n_steps: int = 1_000,
    seed: int = 0,
) -> Report:
    """Check an environment before training.

    The check takes random actions, and compares rollouts with the same seed. It takes a few
    seconds. An environment or a vector environment that is given as an object is reset and stepped.
    Pass an id or a function rather than an object: the check can then compare an episode in a used
    environment with the same episode in a new one.

    Args:
      env: what agents accept: a Gymnasium id, an environment, a function that makes one, a vector
        environment, or a functional environment.
      warn: whether to issue a warning for each finding of the level "warning".
      raise_errors: whether to raise an error if training in the environment would fail.
      n_steps: number of steps of the longest rollout.
      seed: seed of the environment and of the actions.

    Returns:
      The findings. `print(report)` shows them all.

    Raises:
      ConfigurationError: if there are findings of the level "error", or if the environment cannot
        be made.
    """
    n_steps, seed = integer("n_steps", n_steps, 1), integer("seed", seed, 0)
    report = examine(env, n_steps, seed)
    if report.action_space is not None:
        kind = spaces.kind(report.action_space)
        fitting = [name for name in loading.names() if kind in loading.find(name).action_spaces]
        if fitting:
            report.add("info", f"Algorithms for {kind} actions: {', '.join(fitting)}.")
        else:
            report.add(
                "error",
                f"No algorithm supports the action space {report.action_space}.",
                "Use Box, Discrete, MultiDiscrete or MultiBinary.",
            )
    if report.errors and raise_errors:
        found = " ".join(f"({i + 1}) {error}" for i, error in enumerate(report.errors))
        raise ConfigurationError(f"Agents cannot train in {report.name}: {found}")
    for finding in report.warnings if warn else ():
        warnings.warn(f"{report.name}: {finding}", stacklevel=2)
    return report
