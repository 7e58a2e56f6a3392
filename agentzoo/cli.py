"""The command line: `agentzoo train dqn --env CartPole-v1 --steps 1e5`, `agentzoo eval RUN`, `agentzoo video RUN`."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agentzoo import checkpoint
from agentzoo import config as configs
from agentzoo.algos.loading import ALGORITHMS, find, load
from agentzoo.compilation import use_compilation_cache
from agentzoo.envs import make_env
from agentzoo.evaluation import evaluate_policy
from agentzoo.types import ConfigurationError


@dataclasses.dataclass
class Train:
    """Train an agent, save it in a run folder, and evaluate it."""

    # Gymnasium id of the environment.
    env: str
    # Environment steps to train for.
    steps: float = 1e5
    # How many environments to step at once.
    n_envs: int = 1
    # How to train: host steps environments from Python, device compiles them, threads and ray step them while learning, auto chooses.
    runner: Literal["auto", "host", "device", "threads", "ray"] = "auto"
    # Between how many threads or processes the environments are shared, with the runners "threads" and "ray".
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


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; a request that cannot work ends with one sentence and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    use_compilation_cache()
    try:
        if arguments[:1] == ["train"] and len(arguments) > 1 and not arguments[1].startswith("-"):
            algorithm = find(arguments[1])
            options, config = _parse_train(algorithm, arguments[1], arguments[2:])
            _train(algorithm, options, config)
        else:
            commands = {"train": _train_help, "eval": _eval, "video": _video}
            tyro.extras.subcommand_cli_from_dict(commands, prog="agentzoo", args=arguments, config=(tyro.conf.OmitArgPrefixes,))
    except (ConfigurationError, FileNotFoundError) as error:
        print(f"agentzoo: {error}", file=sys.stderr)
        sys.exit(2)


def _train_help(algorithm: tyro.conf.Positional[Literal[tuple(ALGORITHMS)]]) -> None:  # type: ignore[valid-type]
    """Train an agent; see `agentzoo train dqn --help` for the options of an algorithm."""


def _parse_train(algorithm: Any, name: str, arguments: list[str]) -> tuple[Train, Any]:
    """The options of `Train` and the fields of the algorithm's config, with the preset's values as defaults."""
    preset = arguments[arguments.index("--preset") + 1] if "--preset" in arguments[:-1] else None
    if preset is not None and preset not in algorithm.presets:
        raise ConfigurationError(f"{algorithm.__name__} has no preset {preset!r}; choose from {', '.join(algorithm.presets) or 'none'}.")
    defaults = configs.make_config(algorithm.Config, algorithm.presets[preset] if preset else {})
    flat = tyro.conf.arg(name="", prefix_name=False)
    options = dataclasses.make_dataclass(
        "Options",
        [("run", Annotated[Train, flat]), ("config", Annotated[algorithm.Config, flat], dataclasses.field(default=defaults))],
    )
    options.__doc__ = Train.__doc__
    parsed: Any = tyro.cli(options, prog=f"agentzoo train {name}", args=arguments, registry=_REGISTRY)
    return parsed.run, parsed.config


_REGISTRY = tyro.constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _schedule_rule(type_info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """Schedules on the command line: a number, or `linear:START,END`, or None where that is allowed."""
    optional = type_info.type == configs.Schedule | None
    if type_info.type != configs.Schedule and not optional:
        return None

    def parse(arguments: list[str]) -> configs.Schedule | None:
        if optional and arguments[0] == "None":
            return None
        if arguments[0].startswith("linear:"):
            return configs.Linear(*(float(part) for part in arguments[0].removeprefix("linear:").split(",")))
        return float(arguments[0])

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT|linear:START,END" + optional * "|None",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, int | float | configs.Linear) or (optional and value is None),
        str_from_instance=lambda value: [f"linear:{value.start},{value.end}" if isinstance(value, configs.Linear) else str(value)],
    )


def _train(algorithm: Any, options: Train, config: Any) -> None:
    hyperparameters = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    agent = algorithm(
        options.env,
        n_envs=options.n_envs,
        runner=options.runner,
        n_actors=options.n_actors,
        max_lag=options.max_lag,
        n_devices=options.n_devices,
        seed=options.seed,
        log_dir=options.log_dir,
        **hyperparameters,
    )
    agent.learn(options.steps)
    print(f"Saved in {agent.run_dir}; see the curves with: tensorboard --logdir {options.log_dir}")
    if options.eval_episodes:
        mean, std = evaluate_policy(agent, options.env, options.eval_episodes, seed=options.seed + 1_000_000)
        print(f"Mean return of {options.eval_episodes} fresh episodes: {mean:.1f} +- {std:.1f}")


def _saved(run: Path) -> Path:
    return run / "model.safetensors" if run.is_dir() else run


def _environment(agent: Any, given: str | None) -> str:
    if given is None and agent.env_id is None:
        raise ConfigurationError("The agent was not trained in an environment with an id; name one with --env.")
    return given or agent.env_id


def _eval(options: Eval) -> None:
    """Evaluate a trained agent in fresh episodes."""
    agent = load(_saved(options.run))
    env = _environment(agent, options.env)
    mean, std = evaluate_policy(agent, env, options.episodes, deterministic=not options.stochastic, seed=options.seed)
    print(f"Mean return of {options.episodes} episodes of {env}: {mean:.1f} +- {std:.1f}")


def _video(options: Video) -> None:
    """Record a trained agent as an MP4 file per episode."""
    from gymnasium.wrappers import RecordVideo

    path = checkpoint.find(_saved(options.run))
    agent = load(path)
    out = options.out or path.parent / "videos"
    try:
        env = RecordVideo(
            make_env(_environment(agent, None), render_mode="rgb_array"), str(out), episode_trigger=lambda _: True, disable_logger=True
        )
    except Exception as error:
        if "moviepy" in str(error):
            raise ConfigurationError(
                "Recording videos needs a package that is not installed; run: pip install 'agentzoo[video]'"
            ) from error
        raise
    for episode in range(options.episodes):
        obs, _ = env.reset(seed=options.seed + episode)
        state, ended, start = None, False, True
        while not ended:
            action, state = agent.predict(obs, state=state, episode_start=start, deterministic=True)
            obs, _, terminated, truncated, _ = env.step(action)
            ended, start = terminated or truncated, False
    env.close()
    print(f"{options.episodes} video(s) in {out}")
