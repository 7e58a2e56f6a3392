"""`agentzoo tune`, which searches for hyperparameters."""

import importlib.util
import json
from typing import Any

from agentzoo import config as configs
from agentzoo.algos.loading import find
from agentzoo.cli.environments import check_at_least, warnings_unless_refused
from agentzoo.cli.options import Tune
from agentzoo.settings import find_row, read_file
from agentzoo.types import ConfigurationError


def tune(options: Tune) -> None:
    """Search for the hyperparameters with the highest mean return.

    The same command, typed again, continues the search in --storage, and several processes can
    share it.
    """
    from agentzoo import lab  # which imports Optuna

    check_at_least(1, "--trials", options.trials)
    algorithm = find(options.algorithm)
    start, steps, n_envs = _start(algorithm, options)
    _check_outputs(algorithm, options)
    try:
        with warnings_unless_refused():
            tuning = lab.tune(
                algorithm,
                options.env,
                options.trials,
                steps,
                storage=options.storage,
                space=options.space,
                structure=options.structure,
                start=start,
                n_envs=n_envs,
                evaluations=options.evaluations,
                episodes=options.episodes,
                seed=options.seed,
                progress=lambda line: print(line, flush=True),
            )
    except KeyboardInterrupt:
        kept = "the same command continues the search" if options.storage else "nothing was kept"
        raise KeyboardInterrupt(f"interrupted; {kept}.") from None
    print(f"Best mean return: {tuning.score:.1f} in trial {tuning.best_trial.number}, with")
    config = configs.make_config(algorithm.Config, tuning.best)
    for name in tuning.best:
        print(f"  {name}: {json.dumps(configs.to_json(config)[name])}")
    if options.save is not None:
        tuning.save(options.save)
        print(f"Saved as the row {tuning.row.key} in {options.save}")
    if options.page is not None:
        tuning.write_page(options.page)
        print(f"The page of the search is {options.page}")


def _check_outputs(algorithm: Any, options: Tune) -> None:
    """Refuse files that could not be written after the search.

    Raises:
      ConfigurationError: if --save names a file with a mistake, or --page needs a package.
    """
    if options.save is not None and options.save.exists():
        read_file(options.save, algorithm.Config)
    if options.page is not None and importlib.util.find_spec("plotly") is None:
        raise ConfigurationError(
            "--page needs a package that is not installed. Run: pip install 'agentzoo[tune]'"
        )


def _start(algorithm: Any, options: Tune) -> tuple[dict[str, Any], float, int]:
    """Return the first hyperparameters, the steps of a trial, and the number of environments."""
    start: dict[str, Any] = {}
    steps, n_envs = 1e5, 1
    if options.tuned:
        row = find_row(algorithm, options.env)
        start, steps, n_envs = dict(row.hyperparameters), row.steps, row.n_envs
    return (
        start,
        steps if options.steps is None else options.steps,
        n_envs if options.n_envs is None else options.n_envs,
    )
