"""The command line: `agentzoo train dqn --env CartPole-v1`, `agentzoo eval RUN`, ...

`agentzoo.cli.options` has the options of each command.
"""

import os
import sys

import tyro

from agentzoo import __version__, background
from agentzoo.algos import loading
from agentzoo.cli import signals
from agentzoo.cli.benchmark import benchmark
from agentzoo.cli.evaluate import evaluate, video
from agentzoo.cli.export import export
from agentzoo.cli.lab import plot, report
from agentzoo.cli.options import parse_train
from agentzoo.cli.train import train
from agentzoo.cli.tune import tune
from agentzoo.cli.tuned import tuned
from agentzoo.cli.zoo import list_zoo
from agentzoo.compilation import use_compilation_cache
from agentzoo.training.interrupts import TERMINATED
from agentzoo.types import ConfigurationError, TrainingError


def main(arguments: list[str] | None = None) -> None:
    """Run a command.

    A request that cannot work ends with one line of text and exit code 2, training that cannot go
    on with one line and exit code 1, and an interrupt with exit code 130.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        try:
            with signals.remember_interrupts():
                _run(arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except (ConfigurationError, FileNotFoundError) as error:
        print(f"agentzoo: {error}", file=sys.stderr)
        sys.exit(2)
    except TrainingError as error:
        print(f"agentzoo: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        print(f"agentzoo: {str(interrupt) or 'interrupted.'}", file=sys.stderr)
        sys.exit(130)
    except SystemExit as end:
        if end.code == TERMINATED:
            background.exit_code = TERMINATED
        raise
    except BrokenPipeError:
        if not signals.reader_is_gone():
            raise
        sys.exit(141)  # the code that a shell reports for a program in C


def _run(arguments: list[str]) -> None:
    if arguments[:1] == ["--version"]:
        print(f"agentzoo {__version__}")
        return
    here = os.getcwd()
    if not {"", here} & set(sys.path):
        sys.path.insert(0, here)  # for my_module:MyEnv-v0, as `python -m` does it
    use_compilation_cache()
    given = arguments[1:2] if arguments[:1] == ["train"] else []
    if given and not given[0].startswith("-"):
        _train(given[0], arguments[2:])
    elif given and given[0] not in ("-h", "--help"):
        names = ",".join(loading.names()).lower()
        form = f"agentzoo train {{{names}}} --env ENV"
        raise ConfigurationError(
            f"The option {given[0]} stands where the algorithm belongs. Write {form}."
        )
    else:
        tyro.extras.subcommand_cli_from_dict(
            {
                "train": _train_help,
                "eval": evaluate,
                "video": video,
                "report": report,
                "plot": plot,
                "export": export,
                "tune": tune,
                "tuned": tuned,
                "benchmark": benchmark,
                "zoo": list_zoo,
            },
            prog="agentzoo",
            description="Train agents, and use them. `agentzoo --version` prints the version.",
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes,),
        )


# Options of rl-baselines3-zoo and others, and what to write instead.
_OPTIONS_ELSEWHERE = {
    "--algo": "the algorithm first: agentzoo train dqn",
    "--lr": "--learning-rate",
    "--n-timesteps": "--steps",
    "--num-envs": "--n-envs",
    "--total-timesteps": "--steps",
    "--timesteps": "--steps",
    "-n": "--steps",
    "-f": "--log-dir",
    "--log-folder": "--log-dir",
    "--tensorboard-log": "--log-dir",
    "--vec-env": "--runner",
}


def _train(name: str, arguments: list[str]) -> None:
    """Train an agent of the algorithm of that name, with the options in `arguments`."""
    algorithm = loading.find(name)
    for argument in arguments:
        option = argument.split("=")[0]
        if option in _OPTIONS_ELSEWHERE:
            other = _OPTIONS_ELSEWHERE[option]
            raise ConfigurationError(f"There is no option {option}. Write {other}.")
    options, hyperparameters = parse_train(algorithm, name, arguments)
    train(algorithm, options, hyperparameters)


_NAMES = ", ".join(loading.names()).lower()


def _train_help(algorithm: tyro.conf.Positional[str]) -> None:
    pass


_train_help.__doc__ = f"""Train an agent. `agentzoo train dqn --help` shows the options of DQN.

    Args:
      algorithm: {_NAMES}, or my_module:MyAlgorithm for your own class.
"""
