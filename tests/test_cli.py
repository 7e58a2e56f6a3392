import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import gymnasium as gym
import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import agentzoo
from agentzoo import use_compilation_cache
from agentzoo.algos import ALGORITHMS
from agentzoo.cli import main
from tests import probes


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(sys, "path", sys.path[:])  # to which the current folder is added
    settings = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in settings}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def no_cache(monkeypatch):
    """JAX keeps no compiled programs, as in a process that a user starts."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


def test_compiled_programs_are_kept(tmp_path, no_cache):
    found = []

    def listen(event, **_):
        found.append(event.endswith("cache_hits"))

    def program(x):
        return x * 7 + 3

    jax.monitoring.register_event_listener(listen)
    assert use_compilation_cache() == tmp_path / "caches" / "agentzoo"
    assert use_compilation_cache(tmp_path / "mine") == use_compilation_cache() == tmp_path / "mine"
    jax.jit(program)(1.0)
    assert not any(found) and any((tmp_path / "mine").iterdir())
    jax.clear_caches()
    jax.jit(program)(1.0)
    jax.monitoring.unregister_event_listener(listen)
    assert any(found)


def test_train_evaluate_and_record(tmp_path, capsys, monkeypatch, no_cache):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    main(
        [
            "train",
            "dqn",
            "--env",
            "CartPole-v1",
            "--steps",
            "200",
            "--learning-rate",
            "linear:1e-3,1e-4",
            "--net-arch",
            "16",
            "16",
            "--no-double-q",
            "--eval-episodes",
            "2",
        ]
    )
    out = capsys.readouterr().out
    assert any((tmp_path / "caches" / "agentzoo").iterdir())
    assert "Saved in runs/DQN_CartPole-v1_1" in out and "of 2 evaluation episodes" in out
    config = json.loads((tmp_path / "runs" / "DQN_CartPole-v1_1" / "config.json").read_text())[
        "hyperparameters"
    ]
    assert (config["learning_rate"], config["net_arch"], config["double_q"]) == (
        {"linear": [1e-3, 1e-4]},
        [16, 16],
        False,
    )
    main(["eval", "runs/DQN_CartPole-v1_1", "--episodes", "3"])
    assert "Mean return of 3 episodes of CartPole-v1" in capsys.readouterr().out
    main(["video", "runs/DQN_CartPole-v1_1", "--episodes", "2"])
    assert len(list((tmp_path / "runs" / "DQN_CartPole-v1_1" / "videos").glob("*.mp4"))) == 2


def test_help_is_made_from_the_config(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "dqn", "--help"])
    out = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert (
        stop.value.code == 0
        and "--target-update-interval" in out
        and "Environment steps between two updates of the target network." in out
    )
    for command in (["--help"], ["train", "--help"], ["eval", "--help"], ["video", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 0


def test_what_may_be_none(capsys):
    for given, expected in (("None", None), ("linear:0.2,0.1", {"linear": [0.2, 0.1]})):
        options = [
            "--clip-range-vf",
            given,
            "--target-kl",
            "0.1",
            "--recurrent",
            "gru",
            "--eval-episodes",
            "0",
        ]
        main(
            [
                "train",
                "ppo",
                "--env",
                "CartPole-v1",
                "--steps",
                "8",
                "--n-steps",
                "8",
                "--batch-size",
                "8",
                *options,
            ]
        )
        config = json.loads(sorted(Path("runs").glob("*/config.json"))[-1].read_text())[
            "hyperparameters"
        ]
        assert (config["clip_range_vf"], config["target_kl"], config["recurrent"]) == (
            expected,
            0.1,
            "gru",
        )


@pytest.mark.parametrize(
    "form", [["--preset", "pixels"], ["--preset=pixels"], ["--n-envs", "2", "--preset=pixels"]]
)
def test_a_preset_changes_the_defaults(form, capsys):
    with pytest.raises(SystemExit):
        main(["train", "dqn", *form, "--help"])
    assert "0.0001" in capsys.readouterr().out


def test_an_option_beside_a_preset_wins(tmp_path):
    options = ["--steps", "4", "--eval-episodes", "0", "--n-steps", "4", "--batch-size", "4"]
    main(["train", "ppo", "--env", "CartPole-v1", *options, "--preset=pixels", "--gamma", "0.9"])
    config = json.loads((run_folder() / "config.json").read_text())["hyperparameters"]
    preset = agentzoo.PPO.presets["pixels"]
    assert config["gamma"] == 0.9 and config["n_steps"] == 4
    assert config["n_epochs"] == preset["n_epochs"] and config["clip_reward"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train dqm --env CartPole-v1", "no algorithm 'dqm' in agentzoo. Did you mean DQN?"),
        ("train qr-dqn --env CartPole-v1", "Did you mean QRDQN?"),
        (
            "train --env CartPole-v1 dqn",
            "The option --env stands where the algorithm belongs. Write agentzoo train {dqn,",
        ),
        ("train dqn --env CartPoll-v1", "Did you mean 'CartPole-v1'"),
        ("train dqn --env CartPole-v1 --gamma 3", "gamma=3.0 is out of range"),
        ("train dqn --env CartPole-v1 --preset big", "no preset 'big'"),
        ("train dqn --env CartPole-v1 --preset=big", "no preset 'big'"),
        ("train dqn --env CartPole-v1 --steps 0", "--steps 0 is out of range"),
        ("train dqn --env CartPole-v1 --steps=-5", "--steps -5 is out of range"),
        ("train dqn --env CartPole-v1 --steps nan", "--steps nan is out of range"),
        (
            "train dqn --env CartPole-v1 --n-envs -1",
            "n_envs=-1 is out of range",
        ),
        (
            "train dqn --env CartPole-v1 --seed -1",
            "seed=-1 is out of range",
        ),
        (
            "train dqn --env CartPole-v1 --eval-episodes -1",
            "--eval-episodes -1 is too small",
        ),
        ("train dqn --env CartPole-v1 --log-dir a_file", "The folder a_file cannot be made"),
        (
            "train dqn --env CartPole-v1 --env-kwargs fast",
            "--env-kwargs fast is not a pair",
        ),
        ("train dqn --env CartPole-v1 --env-kwargs n:{[]:1}", "unexpected keyword argument 'n'"),
        (
            "train dqn --env CartPole-v1 --n-timesteps 100",
            "There is no option --n-timesteps. Write --steps",
        ),
        ("train dqn --env CartPole-v1 --env-kwargs fast:1", "unexpected keyword argument 'fast'"),
        (
            "train dqn --env FrozenLake-v1 --env-kwargs map_name:9x9",
            "with map_name='9x9': KeyError",
        ),
        ("train dqn --env nowhere:Goal-v0", "no module 'nowhere'"),
        ("train dqn --env LunarLander-v2", "Please use `LunarLander-v3` instead"),
        ("train sac --env HalfCheetah-v3", "The newest version is 'HalfCheetah-v5'."),
        ("train dqn --env a+b", "Malformed environment ID"),
        ("eval nowhere", "no saved agent at nowhere"),
        ("eval nowhere --episodes 0", "--episodes 0 is too small. Choose at least 1"),
        ("eval nowhere --seed -1", "--seed -1 is too small. Choose at least 0"),
        ("video nowhere", "no saved agent at nowhere"),
        ("video nowhere --episodes -1", "--episodes -1 is too small. Choose at least 1"),
        ("eval .", "no saved agent in the folder ."),
    ],
)
def test_bad_requests_end_with_one_sentence(command, message, capsys):
    Path("a_file").touch()
    with warnings.catch_warnings(), pytest.raises(SystemExit) as stop:
        # As outside of the tests, where Gymnasium's warnings are no errors.
        warnings.filterwarnings("always", ".*out of date", DeprecationWarning)
        main(command.split())
    error = capsys.readouterr().err
    assert (
        stop.value.code == 2
        and message in error
        and error.startswith("agentzoo: ")
        and error.count("\n") == 1
    )


@pytest.mark.parametrize(
    "command", ["", "train", "trian", "eval", "train dqn", "train dqn --env X --no-such-option 1"]
)
def test_incomplete_commands_show_how_they_are_used(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    assert stop.value.code == 2 and "--help" in capsys.readouterr().err


def test_training_that_cannot_go_on_ends_with_one_sentence(monkeypatch, capsys):
    class Huge(probes.CueReward):
        def reward(self, action):
            return 1e30

    spec = gym.envs.registration.EnvSpec("Huge-v0", Huge, disable_env_checker=True)
    monkeypatch.setitem(gym.registry, "Huge-v0", spec)
    command = "train ppo --env Huge-v0 --n-steps 16 --batch-size 16 --learning-rate 1e30"
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    error = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 1 and error.startswith("agentzoo: Training ended at step ")


# environments


MODULE = """
    import gymnasium as gym
    import numpy as np


    class Goal(gym.Env):
        metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
        observation_space = gym.spaces.Box(-1, 1, (2,))
        action_space = gym.spaces.Discrete(2)

        def __init__(self, reward=1, name="", render_mode=None):
            self.reward, self.render_mode = reward, render_mode
            assert name in ("", "8x8")

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(2, np.float32), {}

        def step(self, action):
            return np.zeros(2, np.float32), self.reward, True, False, {}

        def render(self):
            return np.zeros((32, 32, 3), np.uint8)


    gym.register("Goal-v0", Goal)
"""
# Runs the command line as its console script does, without the current folder on the path.
CONSOLE_SCRIPT = [
    sys.executable,
    "-c",
    "import sys; sys.path[:] = sys.path[1:]; from agentzoo.cli import main; main()",
]
MODULE_SCRIPT = [sys.executable, "-m", "agentzoo"]
SHORT = ["--steps", "64", "--eval-episodes", "2"]


def run(program, *arguments, code=0, **options):
    """What a command line of its own prints."""
    root = str(Path(agentzoo.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "SDL_VIDEODRIVER": "dummy"}
    done = subprocess.run(
        [*program, *arguments], env=environment, capture_output=True, text=True, **options
    )
    assert done.returncode == code, done.stderr
    return done


def run_folder():
    """The folder of the latest run."""
    return max(Path("runs").iterdir(), key=lambda path: path.stat().st_mtime)


def test_environments_of_the_current_folder_and_their_arguments(tmp_path, capsys):
    (tmp_path / "my_env.py").write_text(textwrap.dedent(MODULE))
    kwargs = ["--env-kwargs", "reward:3", "name:8x8"]
    trained = run(CONSOLE_SCRIPT, "train", "dqn", "--env", "my_env:Goal-v0", *kwargs, *SHORT)
    assert "Mean return of 2 evaluation episodes: 3.0 +- 0.0" in trained.stdout
    folder = run_folder()
    config = json.loads((folder / "config.json").read_text())
    assert config["env_id"] == "my_env:Goal-v0"
    assert config["env_kwargs"] == {"reward": 3, "name": "8x8"}
    refused = run(CONSOLE_SCRIPT, "eval", str(folder), "--episodes", "2", code=2)
    command = "--env my_env:Goal-v0 --env-kwargs reward:3 name:8x8"
    assert f"If you trust the module, add {command}." in refused.stderr
    evaluated = run(CONSOLE_SCRIPT, "eval", str(folder), "--episodes", "2", *command.split())
    assert "Mean return of 2 episodes of my_env:Goal-v0: 3.0 +- 0.0" in evaluated.stdout
    main(["video", str(folder), "--env", "my_env:Goal-v0", "--env-kwargs", "reward:4"])
    assert "1 video(s)" in capsys.readouterr().out
    assert len(list((folder / "videos").glob("*.mp4"))) == 1


def test_what_is_evaluated_is_what_was_trained_in(capsys, tmp_path, monkeypatch):
    (tmp_path / "my_env_too.py").write_text(textwrap.dedent(MODULE.replace("Goal", "Prize")))
    monkeypatch.syspath_prepend(tmp_path)
    agent = agentzoo.DQN("my_env_too:Prize-v0", n_envs=2)
    assert (agent.env_id, agent.env_kwargs) == ("my_env_too:Prize-v0", {})
    for i, env in enumerate(
        [lambda: gym.make("Prize-v0", reward=3), lambda: gym.make_vec("Prize-v0", 2, reward=3)]
    ):
        path = agentzoo.DQN(env).save(tmp_path / str(i))
        main(["eval", str(path), "--episodes", "2"])
        assert "2 episodes of Prize-v0: 3.0 +- 0.0" in capsys.readouterr().out
        main(["eval", str(path), "--episodes", "2", "--env", "Prize-v0"])
        assert "2 episodes of Prize-v0: 1.0 +- 0.0" in capsys.readouterr().out
    agent.set_env(
        lambda: gym.make("Prize-v0", reward=2, max_episode_steps=7, render_mode="rgb_array")
    )
    assert agent.env_kwargs == {"reward": 2, "max_episode_steps": 7}
    path = agentzoo.DQN(lambda: gym.make("Prize-v0", reward=np.ones(()))).save(tmp_path / "array")
    with pytest.raises(SystemExit):
        main(["eval", str(path)])
    assert "with arguments that its file cannot hold" in capsys.readouterr().err


# files


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_agent_is_found_in_its_folder(name, tmp_path):
    kind = getattr(agentzoo, name)
    env = probes.ContinuousCue if "Discrete" not in kind.action_spaces else probes.CueReward
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / ".model.safetensors.0123.safetensors").touch()  # what a crash leaves
    with pytest.raises(FileNotFoundError, match="no saved agent in the folder"):
        agentzoo.load(folder)
    for seed, name in enumerate(("one", "best_model", "model")):  # each precedes the one before
        agent = kind(env, seed=seed)
        agent.save(folder / name)
        assert agentzoo.load(folder).seed == kind.load(str(folder)).seed == seed
    for name in ("best_model", "model"):
        (folder / f"{name}.safetensors").unlink()
    agent.save(folder / "two")
    with pytest.raises(agentzoo.ConfigurationError, match=r"2 saved agents\. Choose one of one"):
        agentzoo.load(folder)
    with pytest.raises(FileNotFoundError, match="Choose a folder in it: one"):
        agentzoo.load(folder.parent)


def test_the_best_agent_of_an_evaluation(capsys):
    evaluation = agentzoo.callbacks.EvalCallback(
        "CartPole-v1", n_eval_episodes=1, eval_freq=10, best_model_save_path="best", verbose=0
    )
    agentzoo.DQN("CartPole-v1").learn(16, evaluation, progress_bar=False)
    main(["eval", "best", "--episodes", "2"])
    assert "Mean return of 2 episodes of CartPole-v1" in capsys.readouterr().out


# what is missing


def test_videos_without_moviepy(monkeypatch, capsys):
    path = agentzoo.DQN("CartPole-v1").save("agent")
    for module in ("moviepy", "moviepy.video.io.ImageSequenceClip", "pygame"):
        # The first is found missing at once, the second when a video is saved, and the third when
        # an image is drawn.
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(SystemExit) as stop:
                main(["video", str(path), "--out", module])
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.count("\n") == 1
        assert "pip install 'agentzoo[video]'" in error


def test_videos_of_what_is_not_drawn(capsys):
    path = agentzoo.DQN("agentzoo/Bandit-v0").save("agent")
    with pytest.raises(SystemExit) as stop:
        main(["video", str(path)])
    assert stop.value.code == 2 and "'agentzoo/Bandit-v0' cannot be" in capsys.readouterr().err


def test_the_hint_about_tensorboard_can_be_followed(monkeypatch, capsys, tmp_path):
    def hint():
        command = (
            "train ppo --env CartPole-v1 --steps 8 --n-steps 8 --batch-size 8 --eval-episodes 0"
        )
        main([*command.split(), "--log-dir", "my runs"])
        return capsys.readouterr().out

    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert "Saved in my runs" in hint() and "tensorboard" not in hint() and "progress.csv" in hint()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tensorboard").touch(0o755)
    assert "see the curves with: tensorboard --logdir 'my runs'" in hint()


# as a process


def test_version_and_module():
    for program in (MODULE_SCRIPT, CONSOLE_SCRIPT):
        assert run(program, "--version").stdout == f"agentzoo {agentzoo.__version__}\n"


@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_reader_that_leaves(buffered):
    command = f"PYTHONUNBUFFERED={buffered} {' '.join(MODULE_SCRIPT)} --version | true"
    done = run(["bash", "-o", "pipefail", "-c"], command, code=141)
    assert done.stderr == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_says_where_the_agent_is(number, code):
    root = str(Path(agentzoo.__file__).parents[1])
    command = [*MODULE_SCRIPT, "train", "ppo", "--env", "CartPole-v1", "--steps", "1e8"]
    with subprocess.Popen(
        [*command, "--n-steps", "64", "--n-epochs", "1"],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("PPO: ")  # it learns
            process.send_signal(number)
            out, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code and "Traceback" not in error and out == ""
    sentence, folder = error.splitlines()[-1], run_folder()
    assert sentence.startswith("agentzoo: interrupted after ")
    saved = f"the agent is saved in {folder}; resume it with --run-dir {folder} --resume."
    assert sentence.endswith(f"of 100,000,000 steps; {saved}")
    assert agentzoo.load(folder).num_timesteps > 0


COMPILES = """
import sys, time
import jax
from agentzoo.cli import main


def compile(self):
    print("compiling", flush=True)
    time.sleep(60)


jax.stages.Lowered.compile = compile
main(sys.argv[1:])
"""


@pytest.mark.parametrize("env", ["CartPole-v1", "agentzoo/CartPole-v0"])
def test_sigterm_does_not_wait_for_the_compiler(env):
    words = ["train", "dqn", "--env", env, "--steps", "1e5", "--run-dir", "run"]
    with subprocess.Popen(
        [sys.executable, "-c", COMPILES, *words],
        env={**os.environ, "PYTHONPATH": str(Path(agentzoo.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "compiling\n"
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, error = process.communicate(timeout=60)
    assert process.returncode == 143 and "interrupted" in error, error
    assert time.monotonic() - began < 20  # seconds; the compiler would take three times as long
    assert agentzoo.load("run").num_timesteps == 0


def test_an_interrupt_before_training(monkeypatch, capsys):
    def press(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(agentzoo.DQN, "__init__", press)
    with pytest.raises(SystemExit) as stop:
        main(["train", "dqn", "--env", "CartPole-v1"])
    assert stop.value.code == 130 and capsys.readouterr().err == "agentzoo: interrupted.\n"
