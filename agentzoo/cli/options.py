"""The options of each command. Those of an algorithm are read from its config class."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

import tyro

from agentzoo import config as configs
from agentzoo.config import Hyperparameter, Linear, Schedule
from agentzoo.envs import OnError
from agentzoo.hyperparameters import descriptions
from agentzoo.runners import OnNan, RunnerName
from agentzoo.settings import Row, find_row
from agentzoo.types import ConfigurationError

Class = TypeVar("Class")


@dataclass_transform()
def _described(cls: type[Class]) -> type[Class]:
    """Make the strings below the fields its help texts, without their line breaks."""
    for name, text in descriptions(cls).items():
        hint = cls.__annotations__[name]
        cls.__annotations__[name] = Annotated[hint, tyro.conf.arg(help=text)]
    return dataclasses.dataclass(cls)


@_described
class Train:
    """Train an agent, save it in a run folder, and evaluate it."""

    env: str
    """Gymnasium id of the environment. For my_module:MyEnv-v0, my_module is imported first."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment as key:value, such as is_slippery:False."""
    steps: float = 1e5
    """Environment steps to train for, over all environments together."""
    n_envs: int = 1
    """Number of environments that are stepped at once."""
    runner: RunnerName = "auto"
    """How to train: host steps environments from Python, device compiles them, threads and ray
    step them while the agent learns, and auto chooses between host and device."""
    n_actors: int = 1
    """Number of threads or processes that share the environments, for the runners threads and
    ray."""
    max_lag: int = 1
    """Number of trajectories that an actor may be ahead of the learner."""
    n_devices: int | Literal["all"] = 1
    """Number of devices that share each batch in learning."""
    env_timeout: float | None = None
    """Seconds that a step or a reset of an environment may take; None for no limit."""
    on_env_error: OnError = "raise"
    """What happens if an environment fails: raise ends the run, and restart creates the
    environment again."""
    on_nan: OnNan = "stop"
    """What happens if a loss or a parameter is not finite: stop ends the run, and skip drops the
    update."""
    seed: int = 0
    """Seed of the networks, the exploration and the environments."""
    log_dir: Path = Path("runs")
    """Folder in which the run gets its own folder."""
    track: tuple[Literal["wandb", "mlflow"], ...] = ()
    """Services that get the log beside the files. Their settings are environment variables, such as
    WANDB_PROJECT and MLFLOW_TRACKING_URI."""
    run_dir: Path | None = None
    """Folder of the run itself, instead of a numbered folder in --log-dir."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Resume the run in --run-dir, or start it if there is none. The same command can be repeated
    until the run has finished."""
    checkpoint_freq: float | None = None
    """Environment steps between two checkpoints. None writes one every five minutes."""
    keep: int = 2
    """Number of the last checkpoints that are kept, besides the best one."""
    eval_episodes: int = 20
    """Number of evaluation episodes at the end; 0 for none."""
    preset: str | None = None
    """Name of a set of hyperparameters that replaces the defaults."""
    tuned: tyro.conf.FlagCreatePairsOff[bool] = False
    """Use the tuned settings of --env as defaults: steps, number of environments and
    hyperparameters. `agentzoo tuned` lists them."""
    settings: Path | None = None
    """File of tuned settings of your own for --tuned, or a folder with a file ALGORITHM.yaml."""


@_described
class Tuned:
    """List tuned settings, with what agents scored with them."""

    algorithm: tyro.conf.Positional[str | None] = None
    """Name of an algorithm, or my_module:MyAlgorithm; the default is all algorithms."""
    env: str | None = None
    """Show all values of the settings of this environment."""
    settings: Path | None = None
    """File of settings of your own, or a folder with a file ALGORITHM.yaml."""


@_described
class Benchmark:
    """Compare algorithms in several environments with several seeds.

    Every run has a process of its own. Type the same command again after an interruption, and the
    benchmark goes on.
    """

    algos: tuple[str, ...] = ()
    """Algorithms, separated by commas or spaces, such as dqn,qrdqn or my_module:MyAlgorithm."""
    envs: tuple[str, ...] = ()
    """Ids of environments, separated by commas or spaces, such as CartPole-v1,Acrobot-v1. An
    algorithm that cannot act in one of several environments has no run there."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of all environments as key:value, such as is_slippery:False."""
    seeds: int | None = None
    """Number of seeds; None for 5."""
    out: Path = Path("results")
    """Folder of the results."""
    steps: float | None = None
    """Environment steps of each run; None for those of the tuned settings, or 100,000."""
    n_envs: int | None = None
    """Number of environments of each run; None for that of the tuned settings, or 1."""
    tuned: tyro.conf.FlagCreatePairsOff[bool] = False
    """Use the tuned settings of each environment."""
    settings: Path | None = None
    """File or folder of tuned settings of your own for --tuned."""
    set: tuple[str, ...] = ()
    """Hyperparameters of all algorithms as name=value, such as learning_rate=1e-3."""
    evaluations: int | None = None
    """Number of evaluations during each run; None for 20."""
    eval_episodes: int | None = None
    """Episodes of each of these evaluations; None for 10."""
    final_episodes: int | None = None
    """Episodes of the evaluation at the end; None for 100."""
    plan: Path | None = None
    """YAML file with the options above except --out, in place of these options."""
    jobs: int = 1
    """Number of processes that run at once."""
    together: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train the seeds of a compiled environment side by side in one process. After an interruption,
    they begin anew."""
    ray: tyro.conf.FlagCreatePairsOff[bool] = False
    """Do the runs as Ray tasks."""
    save_scores: Path | None = None
    """Folder of files of tuned settings, into which the scores are written."""
    publish: Path | None = None
    """Folder of a zoo, in which the best agent of each algorithm in each environment is published
    when all runs have finished."""


@_described
class Eval:
    """Evaluate a trained agent in fresh episodes."""

    run: tyro.conf.Positional[Path]
    """A run folder, a saved agent, or an agent of the zoo, such as zoo:dqn/CartPole-v1. A module
    that the file names is not imported."""
    episodes: int = 100
    """Number of evaluation episodes."""
    seed: int = 1_000_000
    """Seed of the environments."""
    stochastic: bool = False
    """Draw actions from the policy, with its final exploration, instead of the best ones."""
    env: str | None = None
    """Evaluate in another environment than the agent was trained in. For
    my_module:MyEnv-v0, my_module is imported first."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment as key:value, which replace those of training."""
    algorithm: str | None = None
    """Class of the agent, as my_module:MyAlgorithm, if it is your own."""


@_described
class Video:
    """Record a trained agent as an MP4 file per episode."""

    run: tyro.conf.Positional[Path]
    """A run folder, a saved agent, or an agent of the zoo, such as zoo:dqn/CartPole-v1. A module
    that the file names is not imported."""
    episodes: int = 1
    """Number of episodes."""
    seed: int = 1_000_000
    """Seed of the environment."""
    out: Path | None = None
    """Folder for the videos; the default is the folder videos beside the saved agent, or in the
    current folder for an agent of the zoo."""
    env: str | None = None
    """Record another environment than the agent was trained in. For
    my_module:MyEnv-v0, my_module is imported first."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment as key:value, which replace those of training."""
    algorithm: str | None = None
    """Class of the agent, as my_module:MyAlgorithm, if it is your own."""


@_described
class Report:
    """Make a page about the results of a benchmark, and the same as Markdown."""

    results: tyro.conf.Positional[Path]
    """The results folder, which `agentzoo benchmark` has made."""
    out: Path | None = None
    """Folder for the report; the default is the folder report in the results folder."""
    peers: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show published scores of other libraries beside ours."""
    videos: tyro.conf.FlagCreatePairsOff[bool] = False
    """Record the best and the worst episode of each algorithm in each environment."""


@_described
class Plot:
    """Draw curves of one or several runs as PNG or SVG."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    out: Path = Path("curves.png")
    """The picture, whose name ends in .png or .svg."""
    x: Literal["steps", "time"] = "steps"
    """What the horizontal axis shows: environment steps, or seconds."""
    metric: str = "rollout/ep_rew_mean"
    """A column of progress.csv, such as train/loss or only loss."""


@_described
class Tune:
    """Search for the hyperparameters with the highest mean return."""

    algorithm: tyro.conf.Positional[str]
    """Name of the algorithm, or my_module:MyAlgorithm for your own class."""
    env: str
    """Gymnasium id of the environment. For my_module:MyEnv-v0, my_module is imported first."""
    trials: int = 50
    """Number of trials in total, those of earlier calls and other processes included."""
    steps: float | None = None
    """Environment steps of each trial. None takes those of the tuned settings with --tuned, and
    100,000 otherwise."""
    storage: str | None = None
    """File of an SQLite database in which the trials are kept, or the address of another database.
    None keeps them in memory, so the search cannot be continued."""
    space: Path | None = None
    """YAML file with the hyperparameters to vary, and their ranges."""
    structure: tyro.conf.FlagCreatePairsOff[bool] = False
    """Vary hyperparameters, too, of which each value needs a compilation, such as net_arch."""
    tuned: tyro.conf.FlagCreatePairsOff[bool] = False
    """Start from the tuned settings of --env instead of the defaults."""
    n_envs: int | None = None
    """Number of environments that are stepped at once. None takes the number of the tuned settings
    with --tuned, and 1 otherwise."""
    evaluations: int = 10
    """Number of evaluations of each trial, by which bad trials are ended early."""
    episodes: int = 10
    """Number of episodes per evaluation."""
    seed: int = 0
    """Seed of the search."""
    save: Path | None = None
    """YAML file of settings into which the best hyperparameters are written as a row."""
    page: Path | None = None
    """HTML page with the history and the importance of the hyperparameters."""


@_described
class Zoo:
    """List the trained agents of the zoo with their scores."""

    folder: Path | None = None
    """Folder of another zoo, which agentzoo benchmark --publish wrote."""


@_described
class Export:
    """Write the policy of a trained agent as a file that can be used without agentzoo."""

    run: tyro.conf.Positional[Path]
    """A run folder, a saved agent, or an agent of the zoo, such as zoo:dqn/CartPole-v1."""
    out: Path | None = None
    """The file. It ends in .stablehlo, for jax.export, or in .onnx. The default is
    policy.stablehlo beside the saved agent, or in this folder for an agent of the zoo."""
    algorithm: str | None = None
    """Class of the agent, as my_module:MyAlgorithm, if it is your own."""


@dataclasses.dataclass
class _Defaults:
    """The options that decide about the defaults of the others."""

    env: str | None = None
    preset: str | None = None
    tuned: tyro.conf.FlagCreatePairsOff[bool] = False
    settings: Path | None = None


def parse_train(algorithm: Any, name: str, arguments: list[str]) -> tuple[Train, dict[str, Any]]:
    """Return the options of a training run, and the hyperparameters by name.

    Args:
      algorithm: the class of the agent.
      name: the algorithm as the user wrote it.
      arguments: what the user wrote after it.

    Raises:
      ConfigurationError: if there is no such preset, or no tuned settings of the environment.
    """
    # These are parsed first, because they decide about the defaults of all other options.
    given, _ = tyro.cli(_Defaults, args=arguments, add_help=False, return_unknown_args=True)
    row = _row(algorithm, given)
    values = _preset(algorithm, given.preset) if row is None else row.hyperparameters
    defaults = configs.make_config(algorithm.Config, values)
    hyperparameters = dataclasses.make_dataclass(
        "Hyperparameters",
        [
            (one.name, _option(one), dataclasses.field(default=getattr(defaults, one.name)))
            for one in configs.hyperparameters(algorithm.Config).values()
        ],
    )
    flat = tyro.conf.arg(name="", prefix_name=False)
    run: tuple[Any, ...] = ("run", Annotated[Train, flat])
    if row is not None:
        changed = Train(env=tyro.MISSING, steps=row.steps, n_envs=row.n_envs)
        run = (*run, dataclasses.field(default_factory=lambda: changed))
    own = dataclasses.field(default_factory=hyperparameters)
    options = dataclasses.make_dataclass(
        "Options", [run, ("config", Annotated[hyperparameters, flat], own)]
    )
    options.__doc__ = Train.__doc__
    parsed: Any = tyro.cli(options, prog=f"agentzoo train {name}", args=arguments)
    return parsed.run, vars(parsed.config)


def _row(algorithm: Any, given: _Defaults) -> Row | None:
    """Return the tuned settings that the options ask for, or None."""
    if given.settings is not None and not given.tuned:
        raise ConfigurationError("--settings has no effect without --tuned. Add --tuned.")
    if not given.tuned or given.env is None:  # tyro asks for --env
        return None
    if given.preset is not None:
        raise ConfigurationError(
            "--preset and --tuned both replace the defaults. Choose one of them."
        )
    return find_row(algorithm, given.env, path=given.settings)


def _preset(algorithm: Any, preset: str | None) -> Mapping[str, Any]:
    """Return the hyperparameters of a preset; none for None."""
    if preset is None:
        return {}
    if preset not in algorithm.presets:
        known = ", ".join(algorithm.presets) or "none"
        raise ConfigurationError(
            f"{algorithm.__name__} has no preset {preset!r}. Choose from {known}."
        )
    return algorithm.presets[preset]


def _option(about: Hyperparameter) -> Any:
    """The type of an option, with its description."""
    described = tyro.conf.arg(help=about.text)
    if about.type == Schedule or about.type == Schedule | None:
        return Annotated[about.type, described, _schedule(about.type != Schedule)]
    return Annotated[about.type, described]


def _schedule(optional: bool) -> tyro.constructors.PrimitiveConstructorSpec:
    """How a schedule is written: a number, linear:START,END, or None where that is allowed."""

    def parse(arguments: list[str]) -> Schedule | None:
        text = arguments[0]
        if optional and text == "None":
            return None
        if text.startswith("linear:"):
            return Linear(*(float(part) for part in text.removeprefix("linear:").split(",")))
        return float(text)

    def write(value: Any) -> list[str]:
        return [f"linear:{value.start},{value.end}" if isinstance(value, Linear) else str(value)]

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT|linear:START,END" + optional * "|None",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, int | float | Linear) or value is None,
        str_from_instance=write,
    )
