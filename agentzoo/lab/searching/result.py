"""What a search has found."""

import datetime
import os
from typing import Any, NamedTuple

from agentzoo import __version__, settings
from agentzoo.lab.searching import page
from agentzoo.lab.searching.space import Space
from agentzoo.settings import Row


class Tuning(NamedTuple):
    """The trials of a search, and the best hyperparameters.

    Attributes:
      study: the study of Optuna, with all trials.
      space: what the search varied.
      algorithm: the name of the algorithm's class.
      env: the id of the environment.
      steps: environment steps of each trial.
      n_envs: number of environments that were stepped at once.
    """

    study: Any
    space: Space
    algorithm: str
    env: str
    steps: int
    n_envs: int

    @property
    def best_trial(self) -> Any:
        """The trial with the highest mean return; None if no trial reached its end."""
        found = self.study.get_trials(deepcopy=False)
        complete = [trial for trial in found if trial.state == type(trial.state).COMPLETE]
        return max(complete, key=lambda trial: trial.value, default=None)

    @property
    def score(self) -> float:
        """The mean return of the best trial."""
        return self.best_trial.value

    @property
    def best(self) -> dict[str, Any]:
        """The hyperparameters of the best trial, those included that did not vary."""
        return self.space.values(self.best_trial.params)

    @property
    def row(self) -> Row:
        """The best hyperparameters as a row of a file of settings."""
        count = len(self.study.get_trials(deepcopy=False))
        source = (
            f"Best of {count} trials of agentzoo tune {__version__} on "
            f"{datetime.date.today().isoformat()}, with a mean return of {self.score:.1f}."
        )
        return Row(self.env, self.steps, self.n_envs, self.best, source)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the best hyperparameters as a row of a YAML file of settings.

        The other rows and the comments of the file stay.

        Args:
          path: the file, which is created if necessary.

        Raises:
          ConfigurationError: if the file is no YAML.
        """
        settings.write_row(path, self.row)

    def write_page(self, path: str | os.PathLike[str]) -> None:
        """Write an HTML page with the history and the importance of the hyperparameters.

        The page needs no network.

        Args:
          path: the file.

        Raises:
          ConfigurationError: if plotly is not installed.
        """
        page.write(path, self)
