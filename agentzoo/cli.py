"""The command line: `agentzoo train dqn --env CartPole-v1 --steps 1e5`, `agentzoo eval RUN`, `agentzoo video RUN`."""

import ast
import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import os
import select
import shlex
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import tyro
from gymnasium.wrappers import RecordVideo

from agentzoo import __version__, checkpoint
from agentzoo import config as configs
from agentzoo.algos.loading import ALGORITHMS, find, load
from agentzoo.compilation import use_compilation_cache
from agentzoo.envs import make_env
from agentzoo.evaluation import evaluate_policy
from agentzoo.types import ConfigurationError, TrainingError


@dataclasses.dataclass
class Train:
    """Train an agent, save it in a run folder, and evaluate it."""

    # Gymnasium id of the environment; in my_module:MyEnv-v0, my_module registers it.
    env: str
    # Arguments of the environment as key:value, such as is_slippery:False.
    env_kwargs: tuple[str, ...] = ()
    # Environment steps to train for.
    steps: float = 1e5
    # How many environments to step at once.
    n_envs: int = 1
    # How to train: host steps environments from Python, device compiles them, threads and ray step
    # them while learning, auto chooses.
    runner: Literal["auto", "host", "device", "threads", "ray"] = "auto"
    # Between how many threads or processes the environments are shared, with the runners "threads"
    # and "ray".
    n_actors: int = 1
    # How many trajectories each of them may be ahead of what was learned.
    max_lag: int = 1
    # How many devices share every batch that is learned from.
    n_devices: int | Literal["all"] = 1
    # Seed of networks, exploration and environments.
    seed: int = 0
    # Folder in which the run gets a folder of its own.
    log_dir: Path = Path("runs")
    # Fresh episodes to evaluate the agent in at the end; 0 for none.
    eval_episodes: int = 20
    # Start from a named set of hyperparameters instead of the defaults.
    preset: str | None = None


@dataclasses.dataclass
class Eval:
    """Evaluate a trained agent in fresh episodes."""

    # A run folder, or a saved agent.
    run: tyro.conf.Positional[Path]
    # How many episodes.
    episodes: int = 100
    # Seed of the environments.
    seed: int = 1_000_000
    # Explore as in training instead of choosing the best action.
    stochastic: bool = False
    # Another environment than the agent was trained in.
    env: str | None = None
    # Other arguments of the environment, as key:value.
    env_kwargs: tuple[str, ...] = ()


@dataclasses.dataclass
class Video:
    """Record a trained agent as an MP4 file per episode."""

    # A run folder, or a saved agent.
    run: tyro.conf.Positional[Path]
    # How many episodes.
    episodes: int = 1
    # Seed of the environment.
    seed: int = 1_000_000
    # Folder for the videos; "videos" beside the saved agent if left out.
    out: Path | None = None
    # Another environment than the agent was trained in.
    env: str | None = None
    # Other arguments of the environment, as key:value.
    env_kwargs: tuple[str, ...] = ()


def main(arguments: list[str] | None = None) -> None:
    """Runs a command.

    A request that cannot work ends with one sentence and exit code 2, training that cannot go on
    with one sentence and exit code 1, and an interrupt with exit code 130.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        try:
            with _remember_interrupts():
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
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        sys.exit(141)  # as a shell reports it of programs in C


def _run(arguments: list[str]) -> None:
    if arguments[:1] == ["--version"]:
        print(f"agentzoo {__version__}")
        return
    here = os.getcwd()
    if not {"", here} & set(sys.path):
        sys.path.insert(0, here)  # for `--env my_module:MyEnv-v0`, as `python -m` does it
    use_compilation_cache()
    given = arguments[1:2] if arguments[:1] == ["train"] else []
    if given and not given[0].startswith("-"):
        algorithm = find(given[0])
        for option in arguments[2:]:
            other = _OPTIONS_ELSEWHERE.get(option.split("=")[0])
            if other is not None:
                raise ConfigurationError(
                    f"There is no option {option.split('=')[0]}; write {other}."
                )
        options, config = _parse_train(algorithm, given[0], arguments[2:])
        _train(algorithm, options, config)
    elif given and given[0] not in ("-h", "--help"):
        form = f"agentzoo train {{{','.join(ALGORITHMS)}}} --env ENV"
        raise ConfigurationError(f"The algorithm comes before {given[0]}: write {form}.")
    else:
        commands = {"train": _train_help, "eval": _eval, "video": _video}
        tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="agentzoo",
            description="Train agents, and use them. `agentzoo --version` prints the version.",
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes,),
        )


# Options of rl-baselines3-zoo and others -> ours.
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

_interrupts: list[int] = []
"""The signals of Ctrl-C that came while a command ran."""


@contextlib.contextmanager
def _remember_interrupts() -> Iterator[None]:
    """Notes Ctrl-C beside raising `KeyboardInterrupt`, which libraries may swallow while they are imported."""
    previous = signal.getsignal(signal.SIGINT)
    _interrupts.clear()
    if (
        threading.current_thread() is not threading.main_thread()
        or previous is not signal.default_int_handler
    ):
        yield
        return

    def note(number: int, frame: Any) -> None:
        _interrupts.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _reader_is_gone() -> bool:
    """Whether nobody reads what is printed, as after `agentzoo --help | head -1`.

    Then what is still to be printed is dropped.
    """
    if sys.stdout is None or not hasattr(select, "poll"):  # Windows has none
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not poll.poll(0):
        return False
    # Python flushes once more when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _train_help(algorithm: tyro.conf.Positional[Literal[tuple(ALGORITHMS)]]) -> None:  # type: ignore[valid-type]
    """Train an agent; see `agentzoo train dqn --help` for the options of an algorithm."""


@dataclasses.dataclass
class _Preset:
    preset: str | None = None


def _parse_train(algorithm: Any, name: str, arguments: list[str]) -> tuple[Train, Any]:
    """The options of `Train` and the fields of the algorithm's config, with the preset's values as defaults."""
    # Once for the preset alone, in whatever form, since it decides about the defaults of the rest.
    given, _ = tyro.cli(_Preset, args=arguments, add_help=False, return_unknown_args=True)
    preset = given.preset
    if preset is not None and preset not in algorithm.presets:
        raise ConfigurationError(
            f"{algorithm.__name__} has no preset {preset!r}; choose from {', '.join(algorithm.presets) or 'none'}."
        )
    defaults = configs.make_config(algorithm.Config, algorithm.presets[preset] if preset else {})
    flat = tyro.conf.arg(name="", prefix_name=False)
    options = dataclasses.make_dataclass(
        "Options",
        [
            ("run", Annotated[Train, flat]),
            ("config", Annotated[algorithm.Config, flat], dataclasses.field(default=defaults)),
        ],
    )
    options.__doc__ = Train.__doc__
    parsed: Any = tyro.cli(
        options, prog=f"agentzoo train {name}", args=arguments, registry=_REGISTRY
    )
    return parsed.run, parsed.config


_REGISTRY = tyro.constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _schedule_rule(
    type_info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """Schedules on the command line: a number, or `linear:START,END`, or None where that is allowed."""
    optional = type_info.type == configs.Schedule | None
    if type_info.type != configs.Schedule and not optional:
        return None

    def parse(arguments: list[str]) -> configs.Schedule | None:
        if optional and arguments[0] == "None":
            return None
        if arguments[0].startswith("linear:"):
            return configs.Linear(
                *(float(part) for part in arguments[0].removeprefix("linear:").split(","))
            )
        return float(arguments[0])

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT|linear:START,END" + optional * "|None",
        instance_from_str=parse,
        is_instance=lambda value: (
            isinstance(value, int | float | configs.Linear) or (optional and value is None)
        ),
        str_from_instance=lambda value: [
            f"linear:{value.start},{value.end}" if isinstance(value, configs.Linear) else str(value)
        ],
    )


def _train(algorithm: Any, options: Train, config: Any) -> None:
    # Refused before training, and not after it.
    if not 1 <= options.steps < 2**31:
        raise ConfigurationError(f"--steps {options.steps:g}; expected 1 to 2^31 - 1.")
    _at_least(0, "--eval-episodes", options.eval_episodes)
    env = _environment(options.env, _keywords(options.env_kwargs))
    hyperparameters = {
        field.name: getattr(config, field.name) for field in dataclasses.fields(config)
    }
    with _warnings_unless_refused():
        agent = algorithm(
            env,
            n_envs=options.n_envs,
            runner=options.runner,
            n_actors=options.n_actors,
            max_lag=options.max_lag,
            n_devices=options.n_devices,
            seed=options.seed,
            log_dir=options.log_dir,
            **hyperparameters,
        )
    with _clear_folder(options.log_dir):
        options.log_dir.mkdir(parents=True, exist_ok=True)
    _learn(agent, options.steps)
    print(f"Saved in {agent.run_dir}; {_curves(options.log_dir)}")
    if options.eval_episodes:
        episodes, seed = options.eval_episodes, options.seed + 1_000_000
        mean, std = evaluate_policy(agent, env, episodes, seed=seed)
        print(f"Mean return of {episodes} fresh episodes: {mean:.1f} +- {std:.1f}")


def _learn(agent: Any, steps: float) -> None:
    """Trains an agent; an interrupt, or a request to terminate, says where the agent is."""
    with _interrupt_on_termination() as terminated:
        try:
            if _interrupts:
                raise KeyboardInterrupt
            agent.learn(steps)
        except KeyboardInterrupt:
            saved = agent.run_dir is not None and (agent.run_dir / "model.safetensors").is_file()
            where = f"the agent is saved in {agent.run_dir}" if saved else "nothing was saved"
            sentence = f"interrupted after {agent.num_timesteps:,} of {steps:,.0f} steps; {where}."
            if not terminated:
                raise KeyboardInterrupt(sentence) from None
            print(f"agentzoo: {sentence}", file=sys.stderr)
            sys.exit(128 + signal.SIGTERM)


@contextlib.contextmanager
def _interrupt_on_termination() -> Iterator[list[int]]:
    """Has SIGTERM end a run as Ctrl-C does, and lists it if it came."""
    received: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        received.append(number)
        signal.raise_signal(signal.SIGINT)

    ignored = signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None)
    if ignored or threading.current_thread() is not threading.main_thread():
        yield received  # SIGTERM ends the process, as usual
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, previous)


def _curves(log_dir: Path) -> str:
    """What to do to see how training went."""
    if shutil.which("tensorboard") is not None:
        command = "tensorboard"
    elif importlib.util.find_spec("tensorboard") is not None:
        command = "python -m tensorboard.main"
    else:
        return "the curves are in its progress.csv, and in files for TensorBoard."
    return f"see the curves with: {command} --logdir {shlex.quote(str(log_dir))}"


def _at_least(lowest: int, name: str, value: int) -> None:
    if value < lowest:
        raise ConfigurationError(f"{name} {value}; expected at least {lowest}.")


@contextlib.contextmanager
def _clear_folder(path: Path) -> Iterator[None]:
    """Turns the error of a folder that cannot be made into ours."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"The folder {path} cannot be made: {error.strerror}.") from error


@contextlib.contextmanager
def _warnings_unless_refused() -> Iterator[None]:
    """Shows the warnings of what works.

    Gymnasium calls an id out of date before it says that there is no such environment any more.
    """
    with warnings.catch_warnings(record=True) as caught:
        yield
    for one in caught:
        warnings.showwarning(one.message, one.category, one.filename, one.lineno)


def _keywords(pairs: Sequence[str]) -> dict[str, Any]:
    """Arguments from `key:value` pairs; a value that is no literal of Python is text."""
    keywords = {}
    for pair in pairs:
        key, colon, text = pair.partition(":")
        if not (colon and key.isidentifier()):
            expected = "key:value, such as is_slippery:False"
            raise ConfigurationError(f"--env-kwargs {pair}; expected {expected}.")
        try:
            keywords[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError):
            keywords[key] = text
    return keywords


def _environment(env_id: str, kwargs: dict[str, Any]) -> str | Callable[[], gym.Env]:
    return functools.partial(make_env, env_id, **kwargs) if kwargs else env_id


def _environment_of(agent: Any, options: Eval | Video) -> tuple[str, dict[str, Any]]:
    """The id and the arguments of the environment: those of training, unless others are given."""
    given = _keywords(options.env_kwargs)
    if options.env is not None:
        return options.env, given
    if agent.env_id is None:
        raise ConfigurationError(
            "The agent was not trained in an environment with an id; name one with --env."
        )
    if agent.env_kwargs is None:
        raise ConfigurationError(
            f"The agent was trained in {agent.env_id!r} with arguments that its file cannot hold; "
            f"name an environment with --env, and its arguments with --env-kwargs."
        )
    return agent.env_id, {**agent.env_kwargs, **given}


def _eval(options: Eval) -> None:
    """Evaluate a trained agent in fresh episodes."""
    _at_least(1, "--episodes", options.episodes)
    _at_least(0, "--seed", options.seed)
    agent = load(options.run)
    env_id, kwargs = _environment_of(agent, options)
    with _warnings_unless_refused():
        mean, std = evaluate_policy(
            agent,
            _environment(env_id, kwargs),
            options.episodes,
            deterministic=not options.stochastic,
            seed=options.seed,
        )
    print(f"Mean return of {options.episodes} episodes of {env_id}: {mean:.1f} +- {std:.1f}")


def _play(agent: Any, env: gym.Env, options: Video) -> None:
    """Has an agent act in whole episodes, and closes the environment."""
    for episode in range(options.episodes):
        obs, _ = env.reset(seed=options.seed + episode)
        state, ended, start = None, False, True
        while not ended:
            action, state = agent.predict(obs, state=state, episode_start=start, deterministic=True)
            obs, _, terminated, truncated, _ = env.step(action)
            ended, start = terminated or truncated, False
    env.close()


def _video(options: Video) -> None:
    """Record a trained agent as an MP4 file per episode."""
    _at_least(1, "--episodes", options.episodes)
    _at_least(0, "--seed", options.seed)
    path = checkpoint.find(options.run)
    agent = load(path)
    out = options.out or path.parent / "videos"
    env_id, kwargs = _environment_of(agent, options)
    try:
        # What Gymnasium imports when it saves the first video, after an episode was played.
        importlib.import_module("moviepy.video.io.ImageSequenceClip")
        with _warnings_unless_refused():
            env = make_env(env_id, **{**kwargs, "render_mode": "rgb_array"})
        if env.render_mode != "rgb_array":
            raise ConfigurationError(f"{env_id!r} cannot be recorded: it does not render images.")
        with _clear_folder(out):
            env = RecordVideo(env, str(out), episode_trigger=lambda _: True, disable_logger=True)
        _play(agent, env, options)
    except (gym.error.DependencyNotInstalled, ImportError) as error:
        missing = "Recording videos needs a package that is not installed"
        raise ConfigurationError(f"{missing}; run: pip install 'agentzoo[video]'") from error
    print(f"{options.episodes} video(s) in {out}")
