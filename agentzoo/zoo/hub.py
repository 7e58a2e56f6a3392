"""Sharing agents on the Hugging Face Hub.

A repository of an agent holds two files: `model.safetensors`, the policy as `agent.save` writes it,
and `README.md`, the card that the Hub shows.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentzoo import __version__
from agentzoo import config as configs
from agentzoo.algos import loading
from agentzoo.algos.base import Algorithm
from agentzoo.checkpoint import SUFFIX
from agentzoo.envs import EnvLike
from agentzoo.types import ConfigurationError
from agentzoo.zoo import cards

MODEL = f"model{SUFFIX}"
"""The file of the agent in a repository."""


def push_to_hub(
    agent: Algorithm,
    repo_id: str,
    *,
    returns: Sequence[float] | None = None,
    license: str | None = None,
    private: bool = False,
    commit_message: str = "Upload an agent of agentzoo",
    api: Any = None,
) -> str:
    """Upload an agent to the Hugging Face Hub.

    The repository is created if it does not exist. The agent's policy and a card are uploaded. The
    optimiser and the replay buffer are not. `huggingface_hub` finds your access token, after
    `hf auth login` or in the environment variable `HF_TOKEN`.

    Args:
      agent: the agent.
      repo_id: the repository, as "user/name".
      returns: the returns of evaluation episodes, which the card reports. Pass those of
        `evaluate_policy(..., return_episode_rewards=True)`. None reports no score.
      license: the license of the agent, such as "apache-2.0".
      private: whether a new repository is private.
      commit_message: the message of the commit.
      api: a `huggingface_hub.HfApi` with settings of your own, such as another endpoint.

    Returns:
      The address of the repository.

    Raises:
      ConfigurationError: if `huggingface_hub` is not installed, or the Hub refuses the upload or
        cannot be reached.
    """
    if returns is not None and not (len(returns) and np.isfinite(returns).all()):
        raise ConfigurationError(
            f"returns={returns!r} is empty or holds a value that is no number. Pass the return of "
            f"at least one episode, or leave it out."
        )
    api = _api() if api is None else api
    with tempfile.TemporaryDirectory() as name, _clear_errors(repo_id):
        folder = Path(name)
        agent.save(folder / MODEL, policy_only=True)
        (folder / "README.md").write_text(_readme(agent, repo_id, returns, license), "utf-8")
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=str(folder), commit_message=commit_message)
    return str(address)


def load_from_hub(
    repo_id: str,
    env: EnvLike | None = None,
    *,
    filename: str = MODEL,
    revision: str | None = None,
    api: Any = None,
    **kwargs: Any,
) -> Algorithm:
    """Load an agent from the Hugging Face Hub.

    One file is downloaded, which `huggingface_hub` keeps in its cache. The file holds no code, and
    loading it runs none: other files of the repository are not read, and pickles of other libraries
    are refused.

    Args:
      repo_id: the repository, as "user/name".
      env: the environment in which to train further; None if the agent should only act.
      filename: the file in the repository. It must be a safetensors file of agentzoo.
      revision: the branch, tag or commit; None for the newest version. Name a commit to load the
        same agent every time.
      api: a `huggingface_hub.HfApi` with settings of your own.
      **kwargs: other arguments of `agentzoo.load`.

    Returns:
      The agent.

    Raises:
      ConfigurationError: if `huggingface_hub` is not installed, there is no such file, the Hub
        cannot be reached, or the file is not an agent of agentzoo.
    """
    if not filename.endswith(SUFFIX):
        raise ConfigurationError(
            f"filename={filename!r} is not a {SUFFIX} file. agentzoo loads no other format, "
            f"because other formats can contain code."
        )
    api = _api() if api is None else api
    with _clear_errors(repo_id):
        path = api.hf_hub_download(repo_id, filename, revision=revision)
    return loading.load(path, env, **kwargs)


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ConfigurationError(
            "The Hugging Face Hub needs a package that is not installed. "
            "Run: pip install 'agentzoo[hub]'"
        ) from error
    return huggingface_hub


def _api() -> Any:
    return _hub().HfApi(library_name="agentzoo", library_version=__version__)


@contextlib.contextmanager
def _clear_errors(repo_id: str) -> Iterator[None]:
    """Return a context in which errors of the Hub say which repository they are about.

    Raises:
      ConfigurationError: in place of the errors of `huggingface_hub`.
    """
    errors = _hub().errors
    refused = (errors.HFValidationError, errors.EntryNotFoundError, errors.HTTPError)
    refused = (*refused, ConnectionError, ValueError)  # the offline mode, and names with ".."
    try:
        yield
    except (*refused, errors.HfHubHTTPError, errors.LocalEntryNotFoundError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigurationError(
            f"The repository {repo_id!r} on the Hugging Face Hub cannot be used ({reason}). Check "
            f"its name, your access token and the connection."
        ) from error


def _readme(
    agent: Algorithm, repo_id: str, returns: Sequence[float] | None, license: str | None
) -> str:
    """Return the card of the repository, with the data that the Hub reads."""
    hub, algorithm = _hub(), type(agent).__name__
    env = agent.env_id or "an environment without an id"
    results = None
    if returns is not None:
        score = f"{np.mean(returns):.2f} +/- {np.std(returns):.2f}"
        results = [
            hub.EvalResult(
                task_type="reinforcement-learning",
                task_name="reinforcement-learning",
                dataset_type=env,
                dataset_name=env,
                metric_type="mean_reward",
                metric_name="mean_reward",
                metric_value=score,
            )
        ]
    data = hub.ModelCardData(
        library_name="agentzoo",
        license=license,
        tags=["reinforcement-learning", "deep-reinforcement-learning", "agentzoo", env],
        model_name=algorithm if results else None,
        eval_results=results,
    )
    settings = configs.to_json(agent.config)
    text = cards.hub_card(algorithm, env, repo_id, settings, returns)
    return f"---\n{data.to_yaml()}\n---\n\n{text}"
