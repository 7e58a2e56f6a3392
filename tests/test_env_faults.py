"""Environments that raise errors, do not answer, lose their processes, and are made again."""

import _thread
import os
import pickle
import signal
import sys
import time
import warnings

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import agentzoo
from agentzoo import DQN, evaluate_policy
from agentzoo.algos import ALGORITHMS
from agentzoo.callbacks import EvalCallback
from agentzoo.cli import main
from agentzoo.envs import Guard, make_envs, make_trajectory
from agentzoo.envs.guard import MAX_FAILURES, Caller, NoAnswer
from agentzoo.envs.restarts import Restarts
from agentzoo.runners.counters import LearnCounters
from agentzoo.types import ConfigurationError, EnvError, InvalidStep, TrainingError
from benchmarks.faults import run_one
from tests.agents import FAST, make
from tests.probes import Continuous, Counter, Truncated


class Failing(gym.Env):
    """Observes (t), with reward t, in episodes of 4 steps. It fails in one of its steps or resets.

    The first step and the first reset have the number 1.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, kind="raise", at=30, in_reset=False, again=False):
        self.kind, self.at, self.in_reset, self.again = kind, at, in_reset, again
        self.steps = self.resets = self.t = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.resets += 1
        if self.in_reset:
            self.fail(self.resets)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        self.steps += 1
        if not self.in_reset:
            self.fail(self.steps)
        return np.full(1, self.t, np.float32), float(self.t), self.t == 4, False, {}

    def fail(self, number):
        if number != self.at and not (self.again and number > self.at):
            return
        if self.kind == "raise":
            raise OSError("the simulator is gone.\nAnd more text.")
        if self.kind == "exit":
            sys.exit(3)
        if self.kind == "end":
            os._exit(4)
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "hang":
            time.sleep(60)
        if self.kind == "nan":
            self.t = np.nan


class Boxed(Failing):
    """A `Failing` whose actions are numbers."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)


def failing(algorithm):
    """Return the class of environments that an algorithm can act in."""
    return Boxed if algorithm in ("SAC", "MPO") else Failing


def gym_envs(agent):
    """Return all environments that an agent trains in."""
    envs = agent.trainer.envs
    return [env for share in getattr(envs, "shares", [envs]) for env in share.envs]


def finite(agent):
    return all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(agent.params)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "options", [{}, dict(runner="threads", n_actors=2)], ids=["host", "threads"]
)
def test_an_error_of_an_environment_names_its_place(algorithm, options, tmp_path):
    agent = make(algorithm, failing(algorithm), n_envs=2, log_dir=tmp_path, **options)
    with pytest.raises(
        EnvError,
        match=r"^Environment [01] at step \d+ \(step 2 of its episode 8\): step raised OSError: "
        r"the simulator is gone \(.*test_env_faults.py, line \d+\)\. Correct the environment\. "
        r'With on_env_error="restart", .* The agent keeps what it has learned up to step \d+ and '
        r"is saved in .*_1\.$",
    ) as caught:
        agent.learn(400, progress_bar=False)
    assert isinstance(caught.value, TrainingError)
    assert type(caught.value.__cause__) is OSError
    step = agent.num_timesteps
    assert 0 < step < caught.value.step <= step + 32
    assert agentzoo.load(agent.run_dir / "model").num_timesteps == step
    for env in gym_envs(agent):
        env.at = 0
    agent.learn(64, progress_bar=False, reset_num_timesteps=False)  # in new episodes
    assert agent.num_timesteps >= step + 64
    assert finite(agent)


@pytest.mark.parametrize("at", [1, 5])
def test_an_error_in_reset(at):
    agent = DQN(lambda: Failing(in_reset=True, at=at), **FAST)
    where = r"\(reset of its episode 5\)" if at > 1 else r"\(reset of its episode 1\)"
    with pytest.raises(EnvError, match=rf"^Environment 0.* {where}: reset raised OSError: the "):
        agent.learn(100, progress_bar=False)
    assert agent.learn(100, progress_bar=False).num_timesteps == 100


@pytest.mark.parametrize("mode", AutoresetMode)
def test_an_error_in_a_vector_environment(mode):
    agent = DQN(SyncVectorEnv([lambda: Failing(at=99), Failing], autoreset_mode=mode), **FAST)
    with pytest.raises(EnvError, match=r"^Environment 1 .*step raised OSError: the simulator is"):
        agent.learn(200, progress_bar=False)
    assert agent.learn(40, progress_bar=False).num_timesteps >= 40


# Forked workers do not import JAX again, which would take seconds.
FORKS = pytest.mark.filterwarnings(
    "ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning"
)
HOW = {
    "raise": r"step raised OSError: the simulator is gone \(.*test_env_faults.py, line \d+\)\.",
    "exit": r"its worker process ended in step with exit code 3\.",
    "end": r"its worker process ended in step with exit code 4\.",
    "kill": r"its worker process ended in step by signal 9\.",
    "hang": r"step has not answered for 1 s",
}


@FORKS
@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
@pytest.mark.parametrize("kind", HOW)
@pytest.mark.parametrize("number", [0, 2])
def test_a_worker_process_that_fails(kind, number):
    made = []

    def make_vector():
        kinds = ["", "", ""]
        kinds[number] = "" if made else kind
        made.append(AsyncVectorEnv([lambda k=k: Failing(k) for k in kinds]))
        return made[-1]

    agent = DQN(make_vector, n_envs=3, env_timeout=1.0 if kind == "hang" else None, **FAST)
    with pytest.raises(EnvError, match=rf"^Environment {number} at step \d+ .*: {HOW[kind]}"):
        agent.learn(400, progress_bar=False)
    assert not any(process.is_alive() for process in made[0].processes)
    made[0].close()
    agent.learn(40, progress_bar=False)
    assert len(made) == 2
    made[1].close(terminate=True)


@FORKS
@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_a_vector_environment_without_a_factory_cannot_be_used_again():
    env = AsyncVectorEnv([Failing, lambda: Failing("kill")])
    agent = DQN(env, **FAST)
    with pytest.raises(EnvError):
        agent.learn(400, progress_bar=False)
    with pytest.raises(ConfigurationError, match=r"cannot be used again .* Pass another one to"):
        agent.learn(400, progress_bar=False)
    agent.set_env(SyncVectorEnv([lambda: Failing(at=0)] * 2))
    assert agent.learn(40, progress_bar=False).num_timesteps >= 40
    env.close()


@pytest.mark.parametrize("algorithm", ["DQN", "PPO"])
@pytest.mark.parametrize("kind", ["factory", "object", "vector", "threads"])
def test_an_environment_that_does_not_answer(algorithm, kind):
    made = []

    def one():
        made.append(Failing("" if made else "hang"))
        return made[-1]

    env = {"object": one, "vector": lambda: SyncVectorEnv([one])}.get(kind, lambda: one)()
    options = dict(runner="threads") if kind == "threads" else {}
    agent = make(algorithm, env, env_timeout=1.0, **options)
    began = time.monotonic()
    with pytest.raises(EnvError, match=r"step has not answered for 1 s \(.*test_env_"):
        agent.learn(200, progress_bar=False)
    assert time.monotonic() - began < 30  # most of it for compilation
    if kind in ("object", "vector"):
        with pytest.raises(ConfigurationError, match="Pass another"):
            agent.learn(200, progress_bar=False)
    else:
        assert agent.learn(40, progress_bar=False).num_timesteps >= 40
        assert len(made) == 2


def test_a_time_limit_changes_nothing_else():
    agents = [DQN(Counter, env_timeout=limit, **FAST) for limit in (None, 60)]
    for agent in agents:
        agent.learn(60, progress_bar=False)
    for x, y in zip(*(jax.tree.leaves(agent.params) for agent in agents), strict=True):
        np.testing.assert_array_equal(x, y)
    before = _thread._count()
    agents[1].trainer.envs.close()
    time.sleep(0.1)
    assert _thread._count() < before


def test_a_caller_whose_thread_could_not_start_begins_another(monkeypatch):
    caller = Caller(5.0)

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(_thread, "start_new_thread", fail)
        caller.call(lambda: 1)
    assert caller.call(lambda: 2) == 2
    caller.close()


class Closing(gym.Env):
    """Needs some time to close."""

    closed = False

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def close(self):
        time.sleep(self.seconds)
        self.closed = True


def test_an_environment_that_does_not_close_keeps_no_other_one_open():
    envs = [Closing(1.0), Closing()]
    with pytest.warns(RuntimeWarning, match=r"Environment 0 was left open.* for 0.05 s"):
        Restarts(2, None, Guard(0.05)).close(envs)
    assert envs[1].closed


def test_an_environment_that_is_stuck_is_not_used_before_there_is_another_one():
    made = iter([OSError("port in use"), Closing()])

    def make_env():
        result = next(made)
        if isinstance(result, OSError):
            raise result
        return result

    restarts = Restarts(1, make_env, Guard(0.05))
    stuck = Closing(0.5)
    with pytest.raises(EnvError, match="has not answered"):
        restarts.restart(0, NoAnswer(0), False, 1, stuck, lambda env: None)
    used = []
    with pytest.raises(OSError, match="port in use"):
        restarts.renew_lost([stuck], lambda n, env: used.append(env))
    restarts.renew_lost([stuck], lambda n, env: used.append(env))
    assert len(used) == 1 and used[0] is not stuck


def test_a_call_that_is_late():
    caller = Caller(0.05)
    assert caller.call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        caller.call(lambda: 1 / 0)
    with pytest.raises(NoAnswer):
        caller.call(time.sleep, 0.2)
    assert caller.call(lambda: 8) == 8  # and not the late result
    caller.close()


@pytest.mark.parametrize("value", [0, -1, "5", np.inf, True])
def test_wrong_time_limits(value):
    with pytest.raises(
        ConfigurationError, match=r"^env_timeout=.* is not a time\. Pass a positive"
    ):
        DQN("CartPole-v1", env_timeout=value)


def test_restarts_need_environments_that_can_be_made_again():
    for env in (Failing(), SyncVectorEnv([Failing]), lambda: SyncVectorEnv([Failing])):
        with pytest.raises(ConfigurationError, match=r'^on_env_error="restart" needs env'):
            DQN(env, on_env_error="restart")
    with pytest.raises(ConfigurationError, match=r"Choose .*raise.* or .*restart"):
        DQN(Failing, on_env_error="ignore")


def test_the_failed_step_is_a_dummy_step():
    envs = make_envs(Failing, 2, guard=Guard(on_error="restart"))
    envs.envs[1].at = 2
    obs = envs.reset(0)
    actions = np.zeros((7, 2), int)
    steps = [envs.step(action) for action in actions]
    trajectory = make_trajectory(obs, np.ones(2, bool), actions, steps)
    # Environment 1 fails in its second step, and begins a new episode.
    assert trajectory.mask[:, 1].tolist() == [True, False, True, True, True, True, True]
    assert trajectory.obs_tm1[:, 1, 0].tolist() == [0, 1, 0, 1, 2, 3, 0]
    assert trajectory.obs_t[:, 1, 0].tolist() == [1, 0, 1, 2, 3, 4, 1]
    assert trajectory.r_t[:, 1].tolist() == [1, 0, 1, 2, 3, 4, 1]
    assert trajectory.first_tm1[:, 1].tolist() == [True, False, True, False, False, False, True]
    assert trajectory.last_t[:, 1].tolist() == [False, False, False, False, False, True, False]
    assert trajectory.mask[:, 0].all()
    assert envs.restarts == 1
    assert trajectory.first_tm1[:, 0].tolist() == [True, False, False, False, True, False, False]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", ["raise", "nan"])
def test_training_goes_on_in_a_new_environment(algorithm, kind, tmp_path):
    made = []

    def one():
        made.append(failing(algorithm)(kind, at=30 if len(made) < 3 else 0))
        return made[-1]

    agent = make(algorithm, one, n_envs=2, on_env_error="restart", log_dir=tmp_path)
    agent.learn(160, progress_bar=False)
    assert agent.num_timesteps >= 160
    assert len(made) == 5  # two at first, and one for each of the three that failed
    assert agent.metrics["env/restarts"] == 3
    assert "env/restarts" in (agent.run_dir / "progress.csv").read_text()
    assert finite(agent)
    # Episodes that were broken off are not counted, since their returns are not known.
    assert set(agent.trainer.episodes.rewards) == {1 + 2 + 3 + 4}


@pytest.mark.parametrize("runner", ["host", "threads"])
def test_an_environment_that_hangs_is_replaced(runner):
    made = []

    def one():
        made.append(Failing("" if made else "hang"))
        return made[-1]

    agent = DQN(one, runner=runner, env_timeout=1.0, on_env_error="restart", **FAST)
    agent.learn(80, progress_bar=False)
    assert len(made) == 2


def test_restarts_end_after_too_many_failures():
    agent = DQN(lambda: Failing(at=3), on_env_error="restart", **FAST)
    with pytest.raises(EnvError, match=rf"It was failure number {MAX_FAILURES} of this environme"):
        agent.learn(400, progress_bar=False)
    assert agent.trainer.envs.restarts == MAX_FAILURES - 1
    agent = DQN(lambda: Failing("nan", at=3), on_env_error="restart", **FAST)
    with pytest.raises(InvalidStep, match="the observation holds nan"):
        agent.learn(400, progress_bar=False)


def test_rare_failures_do_not_end_a_run(monkeypatch, capsys):
    monkeypatch.setattr("agentzoo.envs.guard.WINDOW", 100)
    agent = DQN(lambda: Failing(at=20), on_env_error="restart", **FAST)
    agent.learn(600, progress_bar=False)
    assert agent.metrics["env/restarts"] > 2 * MAX_FAILURES
    assert capsys.readouterr().err.count("An environment failed and is created again") == 1


def test_a_reset_that_fails_is_repeated_in_a_new_environment():
    made = []

    def one():
        made.append(Failing(in_reset=True, at=5 if len(made) == 0 else 1 if len(made) == 1 else 0))
        return made[-1]

    envs = make_envs(one, guard=Guard(on_error="restart"))
    envs.reset(0)
    steps = [envs.step(np.zeros(1, int)) for _ in range(20)]
    assert len(made) == 3  # the second one fails in its first reset
    # The step before happened, so that there is no dummy step.
    assert all(step.mask.all() for step in steps)
    assert [bool(step.last[0]) for step in steps] == [False, False, False, True] * 5


class Changing(Failing):
    """An environment of another size at each call, as a mistake."""

    number = 0

    def __init__(self):
        super().__init__()
        Changing.number += 1
        self.observation_space = spaces.Box(-1, 1, (Changing.number,), np.float32)


def test_a_new_environment_needs_the_same_spaces():
    agent = DQN(Changing, on_env_error="restart", **FAST)
    with pytest.raises(ConfigurationError, match=r"made again has other spaces than before"):
        agent.learn(100, progress_bar=False)


def test_an_action_space_that_changes():
    class Shrinking(Failing):
        def reset(self, **arguments):
            result = super().reset(**arguments)
            self.action_space = spaces.Discrete(2 if self.resets < 4 else 1)
            return result

    agent = DQN(lambda: Shrinking(at=0), **FAST)
    with pytest.raises(
        EnvError, match=r"\(reset of its episode 4\): its action space changed from "
    ):
        agent.learn(100, progress_bar=False)


def collected(algorithm, **options):
    """Return an agent, and trajectories of its policy in environments that fail."""
    environment = failing(algorithm)
    pattern = iter([5, 7, 3, 11, 13, 2, 9, 4, 6] + 100 * [0])

    def one():
        return environment(at=next(pattern))

    agent = make(algorithm, one, n_envs=2, on_env_error="restart", **options)
    actor = agent.trainer.runner.actor
    actor.reset(0)
    num = 96 // (2 * agent.functions.unroll_length)
    run, steps = agent.trainer.run, 0
    trajectories = []
    for cycle in range(num):
        calls = cycle * agent.functions.unroll_length
        rollout = actor.rollout(run.learner_state.params, run.key, steps, calls, 1_000)
        trajectories.append(jax.tree.map(np.array, jax.device_get(rollout.trajectory)))
        steps += int(rollout.trajectory.mask.sum())
    assert sum((~one.mask).sum() for one in trajectories) >= 4
    return agent, trajectories


def learned(agent, trajectories):
    """Return the parameters and statistics after learning from trajectories."""
    programs, steps = agent.trainer.programs, 0
    state = programs.init(jax.random.key(0))
    for trajectory in trajectories:
        number = int(trajectory.mask.sum())
        steps += number
        state, _, _ = programs.learn(state, trajectory, LearnCounters(steps, number, 1_000).pack())
    parts = {name: part for name, part in state._asdict().items() if name not in ("replay", "key")}
    return jax.tree.leaves(jax.device_get(parts))


def spoil(trajectory):
    """Write wrong values into the steps that never happened."""
    wrong = ~trajectory.mask

    def spoil(x):
        x = x.copy()
        x[wrong] = x[wrong] * 0 + (3 if x.dtype.kind == "f" else 1)
        return x

    return jax.tree.map(spoil, trajectory._replace(mask=(), memory=()))._replace(
        mask=trajectory.mask, memory=trajectory.memory, first_tm1=trajectory.first_tm1
    )


def truncate(trajectories):
    """Mark the steps before those that never happened as the ends of episodes."""
    mask = np.concatenate([one.mask for one in trajectories])
    last = np.concatenate([one.last_t for one in trajectories])
    last[:-1] |= ~mask[1:]
    length = len(trajectories[0].mask)
    return [
        one._replace(last_t=last[i * length : (i + 1) * length])
        for i, one in enumerate(trajectories)
    ]


RESTARTED = {
    "DQN": dict(n_steps=3, prioritized_replay=True),
    "QRDQN": dict(n_steps=3),
    "SAC": dict(n_steps=3, normalize_obs=True),
    "MPO": dict(retrace=True, n_steps=4, normalize_obs=True),
    "PPO": dict(normalize_reward=True, normalize_obs=True),
    "IMPALA": dict(normalize_reward=True),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_nothing_is_learned_from_a_failed_step(algorithm):
    agent, trajectories = collected(algorithm, **RESTARTED[algorithm])
    as_it_was = learned(agent, trajectories)
    spoiled = learned(agent, [spoil(one) for one in trajectories])
    # The step before the failure is a truncation: its return bootstraps from its true successor.
    truncated = learned(agent, truncate(trajectories))
    for x, y, z in zip(as_it_was, spoiled, truncated, strict=True):
        assert np.isfinite(x).all()
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(x, z)
    # An episode that ends there would teach something else.
    wrong = [
        one._replace(discount_t=one.discount_t * ~last.last_t)
        for one, last in zip(trajectories, truncate(trajectories), strict=True)
    ]
    assert any((x != y).any() for x, y in zip(as_it_was, learned(agent, wrong), strict=True))


class Unreliable(Truncated):
    """A `Truncated` that fails in three of ten steps."""

    def step(self, action):
        if self.np_random.random() < 0.3:
            raise OSError("the simulator is gone")
        return super().step(action)


class ContinuousUnreliable(Continuous, Unreliable):
    """The same, with numbers as actions."""


@pytest.mark.learning
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_values_are_those_of_an_environment_that_never_fails(algorithm, monkeypatch):
    monkeypatch.setattr("agentzoo.envs.guard.MAX_FAILURES", 10**6)
    module = __import__(f"tests.test_{algorithm.lower()}", fromlist=["trained"])
    env = ContinuousUnreliable if algorithm in ("SAC", "MPO") else Unreliable
    agent = module.trained(env, 3_000, gamma=0.5, on_env_error="restart")
    obs = np.zeros((1, 1), np.float32)
    arguments = (obs,) if algorithm in ("SAC", "MPO") else ()
    value = (
        agent.values
        if hasattr(agent, "values") and "values" in agent.functions.queries
        else (agent.value)
    )
    # As terminations, the failures would lower the value to 1 / (1 - 0.5 * 0.7) = 1.5.
    np.testing.assert_allclose(value(obs, *arguments), 2, atol=0.2)


def test_errors_in_evaluations_name_their_place(tmp_path):
    agent = DQN(lambda: Failing(at=0), **FAST)
    with pytest.raises(EnvError, match=r"^Evaluation environment 0 \(step 2 of its episode 8\): "):
        evaluate_policy(agent, Failing(), 20)
    agent = DQN(lambda: Failing(at=0), log_dir=tmp_path, **FAST)
    callback = EvalCallback(lambda: Failing(at=5), eval_freq=40, verbose=0)
    with pytest.raises(
        EnvError,
        match=r"^Evaluation environment \d .* The agent keeps .* step 80 and is saved",
    ):
        agent.learn(100, callback, progress_bar=False)
    with pytest.raises(InvalidStep):
        evaluate_policy(agent, Failing("nan"), 20)


def test_an_episode_that_never_ends_is_reported_once(monkeypatch):
    monkeypatch.setattr("agentzoo.runners.actor.LONG", 50)

    class Endless(Failing):
        def step(self, action):
            obs, *_ = super().step(action)
            return obs * 0, 1.0, False, False, {}

    agent = DQN(lambda: Endless(at=0), n_envs=2, **FAST)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        agent.learn(400, progress_bar=False)
    texts = [str(one.message) for one in caught if "TimeLimit" in str(one.message)]
    assert texts == [
        "An episode of environment 0 has more than 50 steps. If its episodes never end by "
        "themselves, limit them with gymnasium.wrappers.TimeLimit; otherwise no return is logged."
    ]


def test_the_error_can_be_sent_between_processes():
    error = EnvError("step raised OSError.", "Correct the environment.", 3)
    error.step = 5
    error.__cause__ = OSError("gone")
    twin = pickle.loads(pickle.dumps(error))
    assert str(twin) == str(error)
    assert twin.__cause__.args == ("gone",)
    error.__cause__ = OSError(lambda: 0)  # cannot be pickled
    assert pickle.loads(pickle.dumps(error)).__cause__ is None


def test_the_command_line_prints_one_sentence(tmp_path, capsys, monkeypatch):
    gym.register("Failing-v0", Failing)
    try:
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    "train",
                    "dqn",
                    "--env",
                    "Failing-v0",
                    "--steps",
                    "100",
                    "--log-dir",
                    str(tmp_path),
                ]
            )
    finally:
        del gym.registry["Failing-v0"]
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert "agentzoo: Environment 0 at step 30 (step 2 of its episode 8): step raised" in error
    assert "Traceback" not in error


@FORKS
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_faults_at_random_moments():
    for seed in range(10):  # `benchmarks/faults.py` runs hundreds
        chosen, problem = run_one(seed)
        assert problem is None, (chosen, problem)
