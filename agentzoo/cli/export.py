"""`agentzoo export`, which writes the policy of a trained agent for use elsewhere."""

from pathlib import Path

from agentzoo import zoo
from agentzoo.cli.evaluate import load
from agentzoo.cli.options import Export
from agentzoo.cli.zoo import find_run


def export(options: Export) -> None:
    """Write the policy of a trained agent as a file that can be used without agentzoo."""
    path = find_run(options.run)
    home = Path() if zoo.is_name(options.run) else path.parent
    out = home / "policy.stablehlo" if options.out is None else options.out
    written = load(path, options.algorithm).export(out)
    print(f"Wrote the policy to {written} ({written.stat().st_size:,} bytes).")
