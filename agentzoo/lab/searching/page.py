"""The page of a search: history, importance, and the values that were tried."""

import functools
import html
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentzoo import __version__
from agentzoo.logging.files import write_whole
from agentzoo.types import ConfigurationError

_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid var(--line); padding: 0.3rem 0.8rem 0.3rem 0; text-align: left; }
figure { margin: 1rem 0; background: white; border-radius: 6px; overflow-x: auto; }
"""


def write(path: str | os.PathLike[str], tuning: Any) -> None:
    """Write the page of a search.

    Args:
      path: the file.
      tuning: what the search has found, an `agentzoo.lab.searching.result.Tuning`.

    Raises:
      ConfigurationError: if plotly is not installed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _page(tuning))


def _page(tuning: Any) -> str:
    title = html.escape(f"{tuning.algorithm} in {tuning.env}: search for hyperparameters")
    parts = [
        f"<h1>{title}</h1>",
        f"<p>{html.escape(_summary(tuning))}</p>",
        "<h2>Best hyperparameters</h2>",
        _table(("hyperparameter", "value"), tuning.best.items()),
        *_figures(tuning.study),
        *_failures(tuning.study),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n"
        f"<body>{chr(10).join(parts)}</body></html>\n"
    )


def _summary(tuning: Any) -> str:
    states = [trial.state.name for trial in tuning.study.get_trials(deepcopy=False)]
    complete, pruned = states.count("COMPLETE"), states.count("PRUNED")
    best = tuning.best_trial
    return (
        f"{len(states)} trials of {tuning.steps:,} environment steps: {complete} reached their "
        f"end, {pruned} were ended early, and {states.count('FAIL')} failed. The best one is trial "
        f"{best.number} with a mean return of {best.value:.1f}. It was the best of many, so expect "
        f"a lower return of new agents. agentzoo {__version__}."
    )


def _figures(study: Any) -> Iterator[str]:
    """Return the plots of Optuna. The first one has the code that draws them all."""
    from optuna import visualization

    named = {"target_name": "mean return"}
    plots = [
        ("History", functools.partial(visualization.plot_optimization_history, **named)),
        ("Importance", _importance),
        ("Values that were tried", functools.partial(visualization.plot_slice, **named)),
        ("Curves", visualization.plot_intermediate_values),
    ]
    script: bool = True
    for title, plot in plots:
        try:
            figure = plot(study)
        except ImportError as error:
            raise ConfigurationError(
                "The page needs a package that is not installed. Run: pip install 'agentzoo[tune]'"
            ) from error
        yield f"<h2>{title}</h2>"
        if isinstance(figure, str):
            yield f"<p>{html.escape(figure)}</p>"
            continue
        legend = {"orientation": "h", "y": 1.08}  # above, since narrow windows lack the width
        figure.update_layout(title=None, margin={"t": 60}, legend=legend)
        drawn = figure.to_html(
            full_html=False, include_plotlyjs=script, config={"responsive": True}
        )
        script = False
        yield f"<figure>{drawn}</figure>"


def _importance(study: Any) -> Any:
    """Return the plot of the importance, or why there is none."""
    from optuna import visualization

    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.value is not None]
    if len({trial.value for trial in complete}) < 2:
        return "The importance needs at least two trials with different returns."
    return visualization.plot_param_importances(study)


def _failures(study: Any) -> Iterator[str]:
    failed = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "FAIL"]
    if failed:
        yield "<h2>Failed trials</h2>"
        rows = [(one.number, one.user_attrs.get("error", "interrupted")) for one in failed]
        yield _table(("trial", "reason"), rows)


def _table(head: tuple[str, ...], rows: Any) -> str:
    def line(cells: Any, tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"
