"""`agentzoo zoo`, and the agents of the zoo in place of runs."""

from pathlib import Path

from agentzoo import checkpoint, zoo
from agentzoo.cli.options import Zoo


def find_run(run: Path) -> Path:
    """Return the file of the agent that a command names.

    Args:
      run: a run folder, a saved agent, or the name of an agent in the zoo.

    Raises:
      FileNotFoundError: if there is no such file.
      ConfigurationError: if the zoo has no such agent.
    """
    return zoo.locate(run) if zoo.is_name(run) else checkpoint.find(run)


def list_zoo(options: Zoo) -> None:
    """List the trained agents of the zoo with their scores."""
    found = zoo.entries(options.folder)
    if not found:
        print("The zoo has no agents yet.")
        return
    width = max(len(entry.name) for entry in found)
    print(f"{'agent':{width}}  {'mean return':>20}  {'episodes':>8}  {'steps':>11}  {'size':>8}")
    for entry in found:
        score = f"{entry.mean:,.1f} +- {entry.std:,.1f}"
        size = f"{entry.path.stat().st_size / 1e3:,.0f} kB"
        episodes, steps = entry.record["score"]["episodes"], entry.record["steps"]
        print(f"{entry.name:{width}}  {score:>20}  {episodes:>8}  {steps:>11,}  {size:>8}")
    if options.folder is None:
        print(f"Watch one with: agentzoo video {found[0].name}")
