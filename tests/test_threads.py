"""Actors in threads: they learn as in turns, act at the same time, and leave nothing behind."""

import functools
import signal
import threading
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agentzoo import DQN, IMPALA, SAC, ConfigurationError, background
from agentzoo.envs import GymEnvs
from agentzoo.runners import RunState, ThreadsRunner, compile_agent
from agentzoo.types import Agent, Array, EnvError
from tests import probes

FAST = dict(n_steps=8, net_arch=(16,))
OFF_POLICY = dict(
    learning_rate=1e-3,
    learning_starts=20,
    train_freq=4,
    gradient_steps=2,
    net_arch=(16,),
    buffer_size=1_000,
)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not [thread.name for thread in background.running() if thread.name.startswith("actor")]


def learned(make, steps=300, **kwargs):
    agent = make(seed=3, **kwargs)
    return agent.learn(steps, progress_bar=False)


def assert_same(a, b):
    assert a.num_timesteps == b.num_timesteps and list(a.trainer.episodes.rewards) == list(
        b.trainer.episodes.rewards
    )
    keys_apart = (
        jax.tree.map(
            lambda x: jax.random.key_data(x) if x.dtype == a.trainer.run.key.dtype else x,
            agent.learner_state,
        )
        for agent in (a, b)
    )
    jax.tree.map(np.testing.assert_array_equal, *map(jax.device_get, keys_apart))


def next_step():
    return SyncVectorEnv([lambda: probes.Counter()] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)


RECURRENT = {**FAST, "recurrent": "lstm", "recurrent_size": 8}
KINDS = {
    "memory": (IMPALA, "CartPole-v1", {"n_envs": 2, **RECURRENT}),
    "dummy steps": (IMPALA, next_step, FAST),
    "off-policy": (DQN, "CartPole-v1", {"n_envs": 2, **OFF_POLICY}),
    "noise that lasts": (
        SAC,
        probes.ContinuousTruncated,
        {"n_envs": 2, "noise_steps": 5, **OFF_POLICY},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_in_turns_an_actor_is_the_host_runner(kind):
    cls, env, options = KINDS[kind]
    make = functools.partial(cls, env, **options)
    host = learned(make)
    assert_same(host, learned(make, runner="threads", max_lag=0))


def test_in_turns_several_actors_follow_from_the_seed():
    def make(**kwargs):
        return IMPALA(
            "CartPole-v1", n_envs=4, runner="threads", n_actors=2, max_lag=0, **FAST, **kwargs
        )

    first = learned(make)
    assert_same(first, learned(make))
    path = first.save("agent")
    loaded = IMPALA.load(path, "CartPole-v1", runner="threads", n_actors=4)
    assert (
        loaded.learn(64, progress_bar=False, reset_num_timesteps=False).num_timesteps
        == first.num_timesteps + 64
    )


# what an agent sees


class WitnessState(NamedTuple):
    params: Array  # how often the agent has learned


def witness(length: int) -> Agent:
    """Learns to count.

    Its trajectories hold the parameters, the clock and the randomness of every call of `act`.
    """

    def act(params, memory, obs, key, clock):
        extras = {"version": params, "step": clock.step, "noise": jax.random.uniform(key)}
        return (
            jnp.zeros(len(obs), jnp.int32),
            memory + 1,
            {name: jnp.full(len(obs), value) for name, value in extras.items()},
        )

    def learn(state, trajectory, clock):
        return WitnessState(state.params + 1), {
            "trajectory": trajectory._replace(memory=trajectory.memory[None]),
            "step": clock.step,
        }

    def init(key):
        return WitnessState(jnp.int32(0))

    return Agent(init, act, lambda *_: None, learn, length, initial_memory=jnp.zeros)


@pytest.mark.parametrize("n_actors, max_lag", [(1, 1), (3, 0), (3, 2)])
def test_trajectories_follow_on_each_other(n_actors, max_lag):
    agent = witness(4)
    runner = ThreadsRunner(
        agent,
        compile_agent(agent),
        [GymEnvs([probes.Counter(), probes.Counter()]) for _ in range(n_actors)],
        max_lag,
    )
    run = RunState(agent.init(None), jax.random.key(0), 0, 0)
    noises, num_envs, obs = [], 2 * n_actors, np.tile([[0, 0]], (2 * n_actors, 1))
    for total in (40 * num_envs, 60 * num_envs):  # a run, and one that goes on from there
        for i, cycle in enumerate(runner.run(run, total, lambda step: 0)):
            trajectory, run = cycle.metrics["trajectory"], cycle.run
            np.testing.assert_array_equal(trajectory.obs_tm1[0], obs)
            ended = trajectory.last_t[-1][:, None]
            obs = np.where(
                ended,
                np.stack([trajectory.obs_t[-1, :, 0] + 1, 0 * obs[:, 0]], -1),
                trajectory.obs_t[-1],
            )
            np.testing.assert_array_equal(
                trajectory.memory[0],
                np.where(trajectory.first_tm1[0], 0, (run.step // num_envs - 4) % 3),
            )
            np.testing.assert_array_equal(
                trajectory.extras["step"],
                np.repeat(run.step - (4 - np.arange(4)) * num_envs, num_envs).reshape(4, -1),
            )
            lag = run.learner_state.params - 1 - trajectory.extras["version"][0]
            assert (lag >= 0).all() and (lag <= min(max_lag, i)).all()
            np.testing.assert_allclose(cycle.metrics["threads/lag"], lag.mean(), rtol=1e-6)
            assert 0 <= cycle.metrics["threads/queue_size"] <= max_lag + 1
            assert all(episode[:2] == (6.0, 3) for episode in cycle.episodes)
            assert {episode.env for episode in cycle.episodes} <= set(range(num_envs))
            noises.append(trajectory.extras["noise"][:, ::2].reshape(-1))
        assert run.step == total == num_envs * run.act_calls // n_actors
    assert (
        len(np.unique(np.concatenate(noises))) == 60 * n_actors
    )  # the randomness of every call is its own


def test_actors_run_ahead_as_far_as_they_may():
    class Counting(probes.CueReward):
        steps = 0

        def step(self, action):
            Counting.steps += 1
            return super().step(action)

    ahead = 8 * (1 + 1 + 2)  # what was learned from, what will be next, and two more

    def wait(_):
        deadline = time.monotonic() + 30
        while Counting.steps < ahead and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert Counting.steps == ahead
        return False

    agent = IMPALA(Counting, runner="threads", max_lag=2, **FAST).learn(
        1_000, wait, progress_bar=False
    )
    assert agent.num_timesteps == 8


def test_actors_step_at_the_same_time():
    together = threading.Barrier(3)

    class Meeting(probes.CueReward):
        def step(self, action):
            together.wait(timeout=60)
            return super().step(action)

    assert (
        IMPALA(Meeting, n_envs=3, runner="threads", n_actors=3, **FAST)
        .learn(96, progress_bar=False)
        .num_timesteps
        == 96
    )


# how it ends


def threaded(env, **kwargs):
    return IMPALA(env, **{**FAST, "runner": "threads", "n_envs": 2, "n_actors": 2, **kwargs})


def test_what_was_learned_survives_an_environment_that_fails(tmp_path):
    class Failing(probes.CueReward):
        made = 0

        def __init__(self):
            self.steps, self.fails = 0, Failing.made == 1
            Failing.made += 1

        def step(self, action):
            self.steps += 1
            if self.fails and self.steps == 43:
                raise OSError("the simulator is gone")
            return super().step(action)

    agent = threaded(Failing, log_dir=tmp_path)
    with pytest.raises(EnvError, match=r"step raised OSError: .*simulator"):
        agent.learn(1_000, progress_bar=False)
    assert agent.num_timesteps == 80  # in all cycles before
    assert np.isfinite(agent.value(np.zeros(1)))
    assert IMPALA.load(agent.run_dir / "model").num_timesteps == 80
    agent.learn(
        32, progress_bar=False, reset_num_timesteps=False
    )  # the environment is back, and new episodes begin
    assert agent.num_timesteps == 112


def test_a_callback_that_fails_or_has_enough_ends_the_actors():
    agent = threaded("CartPole-v1")
    with pytest.raises(ZeroDivisionError):
        agent.learn(1_000, lambda _: 1 / 0, progress_bar=False)
    assert agent.learn(1_000, lambda _: False, progress_bar=False).num_timesteps == 16
    assert agent.learn(160, progress_bar=False).num_timesteps == 160


def test_an_interrupt_ends_the_actors():
    agent = threaded("CartPole-v1")
    previous = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # the tests may run where the signal is ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            agent.learn(1_000, lambda _: signal.raise_signal(signal.SIGINT), progress_bar=False)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert agent.num_timesteps == 16


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="Windows sends no such signals")
def test_a_second_interrupt_does_not_wait_for_the_end_of_the_cycle():
    class Pressing(probes.CueReward):
        def step(self, action):
            for _ in range(2):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                time.sleep(0.2)
            return super().step(action)

    agent = threaded(Pressing, n_envs=1, n_actors=1)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            agent.learn(1_000, progress_bar=False)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert agent.num_timesteps == 0


# asking for it


REFUSED = [
    (
        lambda: IMPALA("CartPole-v1", n_actors=2),
        "n_actors=2, but runner='auto' has a single actor",
    ),
    (
        lambda: threaded("CartPole-v1", n_actors=0),
        "n_actors=0 is out of range. Choose an integer of at least 1",
    ),
    (
        lambda: threaded("CartPole-v1", max_lag=-1),
        "max_lag=-1 is out of range. Choose an integer of at least 0",
    ),
    (
        lambda: threaded("CartPole-v1", n_actors=3),
        "n_envs=2 environments cannot be shared evenly between n_actors=3. Choose a multiple",
    ),
    (
        lambda: threaded(probes.CueReward(), n_envs=1),
        "n_actors=2 needs environments for each actor. Pass an id or a factory",
    ),
    (lambda: threaded(functools.cache(probes.CueReward)), "returned the same environment twice"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_bad_input_is_refused_before_training(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_vector_environments_of_a_factory():
    agent = threaded(lambda: SyncVectorEnv([probes.CueReward] * 3))
    assert agent.n_envs == 6 and agent.learn(96, progress_bar=False).num_timesteps == 96
