"""Describing a trained agent in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agentzoo import __version__


def card(record: Mapping[str, Any]) -> str:
    """Return the card of a trained agent: what it scored, and how it was trained.

    Args:
      record: the record of the agent; see `agentzoo.zoo.publishing`.
    """
    score = record["score"]
    seeds: Mapping[str, float] = record["seeds"]
    parts = [
        f"# {record['algorithm']} in {record['env']}",
        f"Mean return over {score['episodes']} episodes with the deterministic policy: "
        f"**{_number(score['mean'])} ± {_number(score['std'])}** (mean and standard deviation of "
        f"the episodes; lowest {_number(score['min'])}, highest {_number(score['max'])}).",
        _choice(record, seeds),
        "## Use",
        _code("python", _usage(record)),
        "## Training",
        f"- Environment steps: {record['steps']:,}, in {record['n_envs']} environment(s)\n"
        f"- Random seed: {record['seed']}\n"
        f"- Duration: {record['seconds']:,.0f} seconds ({_machine(record['machine'])})\n"
        f"- Date: {record['date']}",
        "The benchmark that trained this agent:",
        _code("console", f"$ {record['command']}"),
        "## Hyperparameters",
        _table("hyperparameter", "value", record["hyperparameters"]),
        "## Versions",
        _table("package", "version", record["versions"]),
    ]
    return "\n\n".join(parts) + "\n"


def hub_card(
    algorithm: str,
    env: str,
    repo_id: str,
    hyperparameters: Mapping[str, Any],
    returns: Sequence[float] | None,
) -> str:
    """Return the text of the card of an agent on the Hugging Face Hub.

    Args:
      algorithm: the name of the algorithm's class.
      env: the id of the environment.
      repo_id: the repository.
      hyperparameters: the hyperparameters, as plain JSON.
      returns: the returns of evaluation episodes, or None.
    """
    score = "It was not evaluated."
    if returns is not None:
        mean, std = _number(float(np.mean(returns))), _number(float(np.std(returns)))
        score = f"Its mean return over {len(returns)} evaluation episodes is **{mean} ± {std}**."
    usage = f'import agentzoo\n\nagent = agentzoo.load_from_hub("{repo_id}")'
    parts = [
        f"# {algorithm} in {env}",
        f"This agent was trained with agentzoo {__version__}. {score}",
        "The file holds the policy and no code. It can be loaded with:",
        _code("python", usage),
        "## Hyperparameters",
        _table("hyperparameter", "value", hyperparameters),
    ]
    return "\n\n".join(parts) + "\n"


def _choice(record: Mapping[str, Any], seeds: Mapping[str, float]) -> str:
    """Return how the agent was chosen among the runs of the benchmark."""
    if len(seeds) == 1:
        return "The benchmark had a single run, so nothing is known about other seeds."
    each = ", ".join(f"{seed}: {_number(mean)}" for seed, mean in seeds.items())
    mean = sum(seeds.values()) / len(seeds)
    return (
        f"This is the best of {len(seeds)} runs. The mean of all runs is {_number(mean)} (mean "
        f"return by seed: {each}). The agent was chosen by the episodes above, so its score is "
        f"slightly optimistic."
    )


def _usage(record: Mapping[str, Any]) -> str:
    algorithm, env = record["algorithm"], record["env"]
    return (
        f"import agentzoo\n\n"
        f'agent = agentzoo.load("{env.replace("/", "--")}.safetensors")\n'
        f'print(agentzoo.evaluate_policy(agent, "{env}"))\n'
        f'agent = agentzoo.{algorithm}.load("{env.replace("/", "--")}.safetensors", "{env}")\n'
        f"agent.learn(10_000)  # with a new optimiser"
    )


def _machine(machine: Mapping[str, Any]) -> str:
    cores = f", {machine['cores']} cores" if "cores" in machine else ""
    return f"{machine.get('cpu', 'unknown processor')}{cores}, device {machine.get('device')}"


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _table(name: str, value: str, content: Mapping[str, Any]) -> str:
    rows = [f"| {key} | {_value(each)} |" for key, each in content.items()]
    return "\n".join([f"| {name} | {value} |", "|---|---|", *rows])


def _value(value: Any) -> str:
    """Return a value of a record for a cell of a table."""
    match value:
        case {"linear": [start, end]}:
            return f"linear from {start:g} to {end:g}"
        case list() | tuple():
            return ", ".join(map(str, value))
        case _:
            return str(value).replace("|", "\\|")


def _number(value: float) -> str:
    """Return a return with as many digits as are of interest."""
    return f"{value:,.3g}" if abs(value) < 10 else f"{value:,.1f}"
