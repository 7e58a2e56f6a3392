"""`agentzoo benchmark`, which compares algorithms."""

import shlex

from agentzoo.cli import signals
from agentzoo.cli.options import Benchmark
from agentzoo.cli.pairs import parse_changes, parse_keywords
from agentzoo.types import ConfigurationError, TrainingError


def benchmark(options: Benchmark) -> None:
    """Compare algorithms in several environments with several seeds."""
    # They are imported here because other commands do without them.
    from agentzoo import zoo
    from agentzoo.lab.benchmarking import benchmark as compare

    if signals.interrupts:  # while they were being imported
        raise KeyboardInterrupt
    if options.publish is not None and options.env_kwargs:
        raise ConfigurationError(
            "--publish takes no agents of environments with arguments, which the name of an agent "
            "in the zoo cannot hold. Leave out --publish or --env-kwargs."
        )
    found = compare(
        _names(options.algos),
        _names(options.envs),
        options.seeds,
        options.out,
        steps=options.steps,
        n_envs=options.n_envs,
        tuned=options.tuned or None,
        settings=options.settings,
        hyperparameters=parse_changes(options.set) or None,
        env_kwargs=parse_keywords(options.env_kwargs) or None,
        evaluations=options.evaluations,
        eval_episodes=options.eval_episodes,
        final_episodes=options.final_episodes,
        plan=options.plan,
        jobs=options.jobs,
        together=options.together,
        ray=options.ray,
        scores=options.save_scores,
    )
    failed = [run for run in found.runs if run.status == "failed"]
    if failed:
        first = failed[0]
        raise TrainingError(
            f"{len(failed)} of {len(found.runs)} runs in {options.out} failed, the first one "
            f"{first.label} on {first.env} with seed {first.seed}: {first.error} The same command "
            f"tries them again."
        )
    if options.publish is not None:
        for entry in zoo.publish(options.out, options.publish):
            print(f"Published {entry.name}, with a mean return of {entry.mean:.1f}.")
    print(f"All {len(found.runs)} runs in {shlex.quote(str(options.out))} have finished.")


def _names(texts: tuple[str, ...]) -> list[str] | None:
    """Return the names in texts, each of which may hold several names; None if none were given."""
    return [name for text in texts for name in text.replace(",", " ").split()] if texts else None
