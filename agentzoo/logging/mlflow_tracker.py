"""MLflow as a tracker."""

import importlib.util
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from agentzoo.logging.tracking import TrackedRun
from agentzoo.types import ConfigurationError

_LONGEST = 500  # characters of a parameter's value that every version of MLflow takes


class MlflowTracker:
    """Sends the log to MLflow (`pip install 'agentzoo[mlflow]'`).

    Scalars become metrics, texts become tags, and hyperparameters become parameters. A run that is
    resumed goes on with the same MLflow run.

    Args:
      experiment: the experiment, which is made if it does not exist; None for the environment
        variable `MLFLOW_EXPERIMENT_NAME`, or "agentzoo".
      tracking_uri: the server or the database; None for `MLFLOW_TRACKING_URI`, or MLflow's default.
      run_name: the name of the run; None for the name of the run folder.
      tags: tags of the run.

    Attributes:
      name: "mlflow".
      run_id: the id of the MLflow run while an agent trains, and of the last one afterwards; None
        before.

    Raises:
      ConfigurationError: if MLflow is not installed.
    """

    def __init__(
        self,
        experiment: str | None = None,
        tracking_uri: str | None = None,
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
    ):
        if importlib.util.find_spec("mlflow") is None:
            raise ConfigurationError(
                "MLflow needs a package that is not installed. Run: pip install 'agentzoo[mlflow]'"
            )
        self.name = "mlflow"
        self.run_id: str | None = None
        self._experiment = experiment
        self._tracking_uri = tracking_uri
        self._run_name = run_name
        self._tags = dict(tags or {})
        self._client: Any = None

    def start(self, run: TrackedRun) -> str:
        """Begin an MLflow run, or go on with one."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        # A client has no global state, so several agents can train in one process.
        self._client = client = MlflowClient(self._tracking_uri)
        if run.id is not None:
            client.update_run(run.id, status="RUNNING")
            self.run_id = run.id
            return run.id
        name = self._experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", "agentzoo")
        known = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if known is None else known.experiment_id
        made = client.create_run(experiment, run_name=self._run_name or run.name, tags=self._tags)
        self.run_id = made.info.run_id
        parameters = [Param(_key(key), str(value)[:_LONGEST]) for key, value in run.config.items()]
        client.log_batch(self.run_id, params=parameters)
        return made.info.run_id

    def log(self, values: Mapping[str, float | str], step: int) -> None:
        """Send the values of a step."""
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        metrics, tags = [], []
        for tag, value in values.items():
            if isinstance(value, str):
                tags.append(RunTag(_key(tag), value))
            else:
                metrics.append(Metric(_key(tag), value, now, step))
        self._client.log_batch(self.run_id, metrics=metrics, tags=tags)

    def finish(self, succeeded: bool) -> None:
        """End the MLflow run."""
        self._client.set_terminated(self.run_id, "FINISHED" if succeeded else "FAILED")


def _key(name: str) -> str:
    """Return a name as MLflow allows it."""
    return re.sub(r"[^\w. :/-]", "_", name)
