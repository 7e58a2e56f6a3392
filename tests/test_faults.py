"""Wrong data from environments, and numbers that are not finite in learning."""

import csv
import pickle
import re

import gymnasium as gym
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import agentzoo
from agentzoo import ConfigurationError, evaluate_policy, learn_together
from agentzoo.algos import ALGORITHMS
from agentzoo.checkpoint import all_finite
from agentzoo.envs import Step, checking, make_envs
from agentzoo.types import InvalidStep, TrainingError
from tests.probes import ConstantReward, Probe, take_actions
from tests.test_device import Walk

OFF_POLICY = dict(
    learning_starts=8, train_freq=4, gradient_steps=1, batch_size=8, buffer_size=100, net_arch=(8,)
)
SETTINGS = {
    "DQN": OFF_POLICY,
    "QRDQN": {**OFF_POLICY, "n_quantiles": 3},
    "SAC": OFF_POLICY,
    "MPO": {**OFF_POLICY, "n_steps": 1},
    "PPO": dict(n_steps=8, batch_size=8, n_epochs=2, net_arch=(8,)),
    "IMPALA": dict(n_steps=8, net_arch=(8,)),
}


def make(algorithm, env, **options):
    return getattr(agentzoo, algorithm)(env, **{**SETTINGS[algorithm], **options})


class Scripted(Probe):
    """Returns the values in `wrong` at the fifth step."""

    length = 3

    def __init__(self, space=None, **wrong):
        self.wrong, self.steps = wrong, 0
        if space is not None:
            self.observation_space = space
            self.good = space.sample()

    def observe(self):
        return getattr(self, "good", np.zeros(1, np.float32))

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        self.steps += 1
        values = dict(obs=obs, reward=reward, terminated=terminated, truncated=truncated, info=info)
        if self.steps == 5:
            values |= self.wrong
        return tuple(
            values[name]
            for name in ("obs", "reward", "terminated", "truncated", "info")
            if name in values
        )


class AsVector(gym.vector.VectorEnv):
    """Two scripted environments without Gymnasium's conversions. Only the second one goes wrong."""

    def __init__(self, make):
        self.envs = [make(), make()]
        self.envs[0].wrong = {}
        self.num_envs = 2
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = self.observation_space = self.envs[0].observation_space
        self.single_action_space = self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return self.batch([env.reset()[0] for env in self.envs]), {}

    def step(self, actions):
        results = [env.step(action) for env, action in zip(self.envs, actions, strict=True)]
        obs, *rest = zip(*results, strict=True)
        return self.batch(obs), *(list(column) for column in rest[:-1]), {}

    def batch(self, obs):
        if isinstance(obs[0], dict):
            return {name: [one.get(name) for one in obs] for name in obs[0]}
        return obs


BOX = spaces.Box(-np.inf, np.inf, (2,), np.float32)
BYTES = spaces.Box(0, 255, (2,), np.uint8)
WRONG = [
    (BOX, dict(obs=[0.5]), "shape"),
    (BOX, dict(obs=0.5), "shape"),
    (BOX, dict(obs="far"), "'far'|shape"),
    (BOX, dict(obs=None), "None"),
    (BOX, dict(obs=np.array([0, np.nan])), "holds nan. Expected a finite number"),
    (BOX, dict(obs=np.array([0, np.inf], np.float32)), "holds inf. Expected a finite number"),
    (BOX, dict(obs=np.array([0, 1e300])), "holds 1e\\+300. Expected a finite number"),
    (BYTES, dict(obs=np.array([0.7, 0.0])), "holds 0.7. Expected integers"),
    (BYTES, dict(obs=np.array([300, 0])), "holds 300"),
    (BYTES, dict(obs=np.array([-1, 0])), "holds -1"),
    (spaces.Box(-5, 5, (2,), np.int64), dict(obs=np.array([2**31, 0])), "holds 2147483648"),
    (spaces.Discrete(4), dict(obs=7), "is 7. Expected an integer from 0 to 3"),
    (spaces.Discrete(4), dict(obs=0.5), "is 0.5"),
    (spaces.Discrete(4, start=2), dict(obs=1), "is 1. Expected an integer from 2 to 5"),
    (spaces.MultiDiscrete([2, 3]), dict(obs=np.array([1, 3])), "holds 3"),
    (spaces.MultiBinary(2), dict(obs=np.array([0, 2], np.int8)), "holds 2"),
    (spaces.Dict(a=BOX, b=BYTES), dict(obs={"a": np.zeros(2, np.float32)}), "'b'"),
    (
        spaces.Dict(a=BOX, b=BYTES),
        dict(obs={"a": np.zeros(2), "b": np.array([300, 0])}),
        r"\['b'\] holds 300",
    ),
    (BOX, dict(reward=np.nan), "the reward is nan. Expected a finite number"),
    (BOX, dict(reward=-np.inf), "the reward is -inf"),
    (BOX, dict(reward=1e39), "below 3.4e38"),
    (BOX, dict(reward=None), "rewards? (is|are) .*None"),
    (BOX, dict(reward="1"), "rewards? (is|are) .*'1'"),
    (BOX, dict(reward=np.zeros(2)), "rewards? (is|are) "),
    (BOX, dict(terminated="no"), "terminated (is|are) .*'no'"),
    (BOX, dict(terminated=2), "terminated is 2. Expected True or False"),
    (BOX, dict(truncated=None), "truncated (is|are) .*None"),
]


@pytest.mark.parametrize(
    ("space", "wrong", "message"), WRONG, ids=[f"{s}-{w}" for s, w, _ in WRONG]
)
@pytest.mark.parametrize("kind", ["ordinary", "vector"])
def test_what_a_space_does_not_allow_is_refused(space, wrong, message, kind):
    def scripted():
        return Scripted(space, **wrong)

    envs = make_envs(scripted if kind == "ordinary" else AsVector(scripted))
    actions = np.zeros((5, envs.spec.num_envs), int)
    take_actions(envs, actions[:4])
    with pytest.raises(InvalidStep, match=message) as caught:
        envs.step(actions[4])
    assert caught.value.env in ((0,) if kind == "ordinary" else (1, None))
    assert isinstance(caught.value, ConfigurationError)


@pytest.mark.parametrize("values", [4, 6])
def test_a_step_of_another_number_of_values(values):
    class Old(ConstantReward):
        def step(self, action):
            return (*super().step(action), {})[6 - values :]

    envs = make_envs(Old)
    envs.reset(0)
    with pytest.raises(InvalidStep, match=f"step returned {values} values. Expected the five"):
        envs.step(np.zeros(1, int))


@pytest.mark.parametrize(
    "result", [np.zeros(1, np.float32), (np.zeros(1, np.float32),), np.zeros((2, 1), np.float32)]
)
def test_a_reset_without_info(result):
    class Old(ConstantReward):
        def reset(self, **_):
            return result

    with pytest.raises(
        InvalidStep,
        match=r"Environment 0: reset returned .*. Expected two: the observation, and info",
    ):
        make_envs(Old).reset(0)


@pytest.mark.parametrize(
    ("reward", "expected"),
    [(np.array([2.0]), 2), (np.float32(2), 2), (np.int64(2), 2), (True, 1), (np.array(2), 2)],
)
def test_numbers_of_every_kind_are_rewards(reward, expected):
    envs = make_envs(lambda: Scripted(reward=reward))
    assert take_actions(envs, np.zeros((5, 1), int)).r_t[4, 0] == expected


@pytest.mark.parametrize("rewards", [[1, 2], np.array([[1.0], [2.0]]), np.array([1, 2], np.int8)])
def test_a_vector_of_rewards_may_be_a_column(rewards):
    np.testing.assert_array_equal(checking.rewards_of(rewards, 2), [1, 2])


@pytest.mark.parametrize("flag", [np.bool_(True), 1, np.array([True])])
def test_flags_of_every_kind_end_an_episode(flag):
    envs = make_envs(lambda: Scripted(terminated=flag))
    out = take_actions(envs, np.zeros((5, 1), int))
    assert out.last_t[4, 0] and out.discount_t[4, 0] == 0


def test_an_exact_conversion_is_no_fault():
    for space, obs in [
        (BYTES, np.array([3.0, 255.0])),
        (BYTES, [3, 255]),
        (BOX, [1, 2]),
        (spaces.Discrete(4), np.array(3)),
    ]:
        envs = make_envs(lambda space=space, obs=obs: Scripted(space, obs=obs))
        out = take_actions(envs, np.zeros((5, 1), int))
        np.testing.assert_array_equal(out.obs_t[4, 0], obs)


def test_integers_with_bounds_beyond_32_bits_are_taken_as_floats():
    space = spaces.Box(0, 2**40, (1,), np.int64)
    envs = make_envs(lambda: Scripted(space, obs=np.array([2**40])))
    out = take_actions(envs, np.zeros((5, 1), int))
    assert out.obs_t.dtype == np.float32 and out.obs_t[4, 0, 0] == 2.0**40
    with pytest.raises(ConfigurationError, match="values beyond int32"):
        make_envs(lambda: Scripted(spaces.Discrete(3, start=2**40)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("runner", ["host", "threads"])
@pytest.mark.parametrize(
    "wrong", [dict(reward=np.nan), dict(obs=np.array([np.nan], np.float32))], ids=["reward", "obs"]
)
def test_training_ends_where_wrong_data_enters(algorithm, runner, wrong):
    made = []

    def env():
        made.append(Scripted(**(wrong if len(made) == 1 else {})))  # the second of two goes wrong
        return made[-1]

    agent = make(algorithm, env, n_envs=2, runner=runner, log_dir="runs")
    for one in made:
        one.steps = -40
    with pytest.raises(InvalidStep, match=r"^Environment 1 at step 90: .* nan"):  # 45 steps of each
        agent.learn(200, progress_bar=False)
    assert all_finite(agent.params) and 70 <= agent.num_timesteps <= 90
    assert all_finite(agentzoo.load(agent.run_dir / "model").params)


class Broken:
    """A functional environment whose episodes of 5 steps may go wrong at the 4th step."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, kind):
        self.kind = kind

    def __repr__(self):
        return f"Broken({self.kind!r})"

    def reset(self, key):
        return (jnp.int32(0), jax.random.bernoulli(key, 0.05)), jnp.zeros(1)

    def step(self, state, action, key):
        t, bad = state
        wrong = jnp.where(bad & (t == 3), jnp.nan, 0.0)
        obs, reward = (wrong, 1.0) if self.kind == "obs" else (0.0, wrong)
        return (t + 1, bad), Step(jnp.full(1, obs), jnp.float32(reward), jnp.bool_(False), t == 4)


BROKEN = {kind: Broken(kind) for kind in ("reward", "obs")}


# The runner checks data in the same way for all algorithms.
FAULTS = [*((algorithm, "obs") for algorithm in ALGORITHMS), ("DQN", "reward"), ("PPO", "reward")]


@pytest.mark.parametrize(("algorithm", "kind"), FAULTS)
def test_compiled_training_ends_with_wrong_data(algorithm, kind):
    expected = None
    for runner in ("host", "device"):
        agent = make(algorithm, BROKEN[kind], n_envs=3, runner=runner, log_dir="runs")
        with pytest.raises(
            (InvalidStep, TrainingError), match=r"^Environment \d at step \d+: "
        ) as caught:
            agent.learn(3_000, progress_bar=False)
        where = re.match(r"Environment \d at step \d+", str(caught.value)).group()
        assert expected in (None, where)  # both runners name the same environment and step
        expected = where
        assert all_finite(agent.params)
        assert all_finite(agentzoo.load(agent.run_dir / "model").params)


RUNNERS = {"host": "CartPole-v1", "device": "agentzoo/CartPole-v0"}


def network_without_a_gradient(obs):
    """A network whose features are 0 and whose gradient is NaN."""
    x = hk.Linear(8)(obs)
    return jnp.sqrt(x - x)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("runner", RUNNERS)
def test_what_is_learned_has_to_be_finite(algorithm, runner):
    options = dict(network=network_without_a_gradient, activation="tanh")
    agent = make(algorithm, RUNNERS[runner], runner=runner, log_dir="runs", **options)
    agent.save("good")
    with pytest.raises(
        TrainingError, match=r"^Training ended at step (8|12) because .*(is nan|not finite)"
    ) as caught:
        agent.learn(400, progress_bar=False)
    assert "learning_rate" in str(caught.value)
    assert (
        all_finite(agent.params) and np.isfinite(agent.predict(np.zeros(4, np.float32))[0]).all()
    )  # those before
    assert agent.num_timesteps >= 8
    assert not (agent.run_dir / "model.safetensors").exists()
    with pytest.raises(
        ConfigurationError, match=r"state is not finite, so that it does not replace good"
    ):
        agent.save("good")
    assert all_finite(agentzoo.load("good", **options).params)


@pytest.mark.parametrize("algorithm", ["DQN", "QRDQN", "SAC", "MPO"])
@pytest.mark.parametrize("runner", RUNNERS)
def test_a_loss_that_overflows_is_named_and_logged(algorithm, runner):
    agent = make(algorithm, RUNNERS[runner], runner=runner, learning_rate=1e38, log_dir="runs")
    with pytest.raises(
        TrainingError, match=r"^Training ended at step \d+ because train/\w*loss is (nan|-?inf)"
    ) as caught:
        agent.learn(400, progress_bar=False)
    step, tag = re.search(r"step (\d+) because (\S+)", str(caught.value)).groups()
    assert int(step) < 100 and not np.isfinite(agent.metrics[tag])
    with open(agent.run_dir / "progress.csv", newline="") as file:
        assert not np.isfinite(float(list(csv.DictReader(file))[-1][tag]))


def test_actions_of_a_policy_that_is_not_finite_are_told_from_faults_of_the_environment():
    agent = make("IMPALA", "CartPole-v1", learning_rate=1e38)
    with pytest.raises(
        TrainingError,
        match=r"at step 9 because the policy's outputs are not finite: its actions were \[-1\]",
    ):
        agent.learn(400, progress_bar=False)


def test_a_good_model_of_a_run_stays():
    agent = make("DQN", "CartPole-v1", log_dir="runs").learn(50, progress_bar=False)
    before = (agent.run_dir / "model.safetensors").read_bytes()
    bad = agentzoo.DQN.load(agent.run_dir / "model", "CartPole-v1", learning_rate=1e38)
    bad.trainer.log.folder = agent.run_dir
    with pytest.raises(TrainingError):
        bad.learn(200, progress_bar=False, reset_num_timesteps=False)
    assert (agent.run_dir / "model.safetensors").read_bytes() == before


def test_of_agents_that_learn_together_the_faulty_one_is_named():
    agents = [make("DQN", "agentzoo/CartPole-v0", learning_rate=rate) for rate in (1e-3, 1e38)]
    with pytest.raises(
        TrainingError, match=r"number 1, learning_rate=1e\+38: Training ended at step"
    ):
        learn_together(agents, 400, progress_bar=False)
    assert all_finite([agent.params for agent in agents])
    assert [all_finite(agent.learner_state) for agent in agents] == [True, False]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("runner", RUNNERS)
def test_no_nan_is_computed(algorithm, runner):
    """With `JAX_DEBUG_NANS=1`, JAX stops at the first NaN that a program returns."""
    with jax.debug_nans(True):
        agent = make(algorithm, RUNNERS[runner], runner=runner).learn(64, progress_bar=False)
    assert all_finite(agent.params)


class Simulated(Walk):
    """A compiled environment that calls a Python function, which fails in some call."""

    def __init__(self, discrete, fails_at):
        super().__init__(discrete)
        self.fails_at, self.calls = fails_at, 0

    def step(self, state, action, key):
        (x, t), step = super().step(state, action, key)
        t = jax.pure_callback(self.call, t, t, vmap_method="sequential")
        return (x, t), step

    def call(self, t):
        self.calls += 1
        if self.calls == self.fails_at:
            raise ValueError("The simulator has failed")
        return t


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("fails_at", [1, 300])
def test_what_a_python_function_in_a_program_raises_loses_nothing(algorithm, fails_at):
    env = Simulated(algorithm in ("DQN", "QRDQN"), fails_at)
    agent = make(algorithm, env, runner="device")
    with pytest.raises(Exception, match="The simulator has failed") as caught:
        agent.learn(2_000, progress_bar=False)
    step = agent.num_timesteps
    assert (step == 0) == (fails_at == 1)
    assert caught.value.__notes__[-1].startswith(f"Compiled steps from {step} to ")
    agent.learn(64, progress_bar=False, reset_num_timesteps=False)
    assert agent.num_timesteps >= step + 64 and all_finite(agent.learner_state)


def test_what_a_python_function_raises_loses_no_agent_of_a_group():
    env = Simulated(True, 600)
    agents = [make("DQN", env, runner="device", seed=seed) for seed in (0, 1)]
    with pytest.raises(Exception, match="The simulator has failed"):
        learn_together(agents, 2_000, progress_bar=False)
    learn_together(agents, 64, progress_bar=False, reset_num_timesteps=False)
    assert all(all_finite(agent.learner_state) for agent in agents)


class Printing(Walk):
    """A compiled environment that prints, which is a call of a Python function, too."""

    def step(self, state, action, key):
        jax.debug.print("{}", state[1])
        return super().step(state, action, key)


def test_a_program_that_prints_overwrites_nothing():
    agent = make("DQN", Printing(True), runner="device")
    state = agent.learner_state
    agent.learn(16, progress_bar=False)
    assert all_finite(state)


class Huge(gym.RewardWrapper):
    """Gives rewards whose squares are not finite."""

    def reward(self, reward):
        return 3e38


@pytest.mark.parametrize("setting", ["debug_nans", "debug_infs"])
@pytest.mark.parametrize("runner", ["host", "threads"])
@pytest.mark.parametrize("learned", [False, True])
def test_what_jax_raises_for_values_that_are_not_finite_loses_nothing(setting, runner, learned):
    agent = make("DQN", lambda: Huge(gym.make("CartPole-v1")), runner=runner)
    if learned:
        agent.learn(4, progress_bar=False)
    with getattr(jax, setting)(True), pytest.raises(FloatingPointError):
        agent.learn(200, progress_bar=False)
    assert all_finite(agent.learner_state) and agent.num_timesteps > 0


@pytest.mark.parametrize("algorithm", ["DQN", "QRDQN", "SAC", "MPO"])
@pytest.mark.parametrize("runner", RUNNERS)
def test_what_was_not_learned_is_not_reported(algorithm, runner):
    options = (
        {"learning_starts": 30, "ent_coef": 0.1} if algorithm == "SAC" else {"learning_starts": 30}
    )
    tags = []
    agent = make(algorithm, RUNNERS[runner], runner=runner, **options)
    agent.learn(
        60, progress_bar=False, callback=lambda a: tags.append((a.num_timesteps, set(a.metrics)))
    )
    for step, found in tags:
        losses = {tag for tag in found if tag.endswith("loss")}
        assert bool(losses) == (step > 30) and "train/ent_coef_loss" not in losses
    assert tags[-1][0] == 60


class Reusing(Probe):
    """Writes every observation into the same array."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    length = 3

    def __init__(self, random=True, copies=False):
        self.random, self.copies, self.buffer = random, copies, np.zeros(2, np.float32)

    def observe(self):
        self.buffer[:] = self.t, self.cue if self.random else 0
        return self.buffer.copy() if self.copies else self.buffer


@pytest.mark.parametrize("random", [True, False])
def test_an_environment_that_reuses_its_observation(random):
    agent = make(
        "DQN", SyncVectorEnv([lambda: Reusing(random)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    )
    with pytest.raises(
        InvalidStep,
        match=r"^Environment [01] at step \d+: info\['final_obs'\] holds the first observation",
    ):
        agent.learn(100, progress_bar=False)
    for mode in AutoresetMode:
        copies = mode == AutoresetMode.SAME_STEP
        envs = SyncVectorEnv(
            [lambda copies=copies: Reusing(random, copies)] * 2, autoreset_mode=mode
        )
        make("DQN", envs).learn(100, progress_bar=False)
    make("DQN", lambda: Reusing(random), n_envs=2).learn(100, progress_bar=False)


class Shuffled(gym.Env):
    """Episodes of one step, whose last observation often equals the next first one by chance."""

    observation_space = action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return int(self.np_random.integers(2)), {}

    def step(self, action):
        return int(self.np_random.integers(2)), 0.0, True, False, {}


class Persistent(Reusing):
    """An environment whose `reset` continues where the last episode ended."""

    def reset(self, *, seed=None, options=None):
        last = self.buffer[1]
        _, info = super().reset(seed=seed, options=options)
        self.t, self.buffer[1] = 0, last
        return self.buffer.copy(), info

    def step(self, action):
        _, reward, terminated, truncated, info = super().step(action)
        self.buffer[1] += 1
        return self.buffer.copy() * [0, 1], reward, terminated, truncated, info


@pytest.mark.parametrize("env", [Shuffled, Persistent])
def test_equal_observations_are_no_fault(env):
    make("DQN", SyncVectorEnv([env] * 2, autoreset_mode=AutoresetMode.SAME_STEP)).learn(
        200, progress_bar=False
    )


def test_rewards_of_dummy_steps_do_not_matter():
    class Odd(AsVector):
        def __init__(self):
            super().__init__(Probe)
            self.metadata, self.over = (
                {"autoreset_mode": AutoresetMode.NEXT_STEP},
                np.zeros(2, bool),
            )

        def step(self, actions):
            if self.over.any():
                self.over[:] = False
                return np.zeros((2, 1), np.float32), np.full(2, np.nan), self.over, self.over, {}
            self.over[:] = True
            return np.zeros((2, 1), np.float32), np.ones(2), self.over.copy(), ~self.over, {}

    make("DQN", Odd()).learn(40, progress_bar=False)


@pytest.mark.parametrize("number", [2, 40])
def test_batches_are_checked_as_single_observations_are(number):
    for space in (
        spaces.Box(-9, 9, (3,), np.float32),
        spaces.Box(-9, 9, (3,), np.float64),
        spaces.Box(-9, 9, (3,), np.float16),
        spaces.Box(0, 255, (3,), np.uint8),
        spaces.Box(-5, 5, (3,), np.int64),
        spaces.Discrete(3, start=1),
        spaces.MultiDiscrete([3, 4, 5]),
        spaces.MultiBinary(3),
    ):
        check, good = (
            checking.make_batch_check(space, number),
            np.stack([space.sample() for _ in range(number)]),
        )
        check(good)
        check(good.astype(np.float64))
        for wrong in (
            np.nan,
            0.5 if good.dtype.kind in "iu" else -np.inf,
            2.0**40 if good.dtype.kind in "iu" else 1e39,
        ):
            bad = good.astype(np.float64)
            bad.reshape(number, -1)[number - 1, -1] = wrong
            with pytest.raises(InvalidStep) as caught:
                check(bad)
            assert caught.value.env == number - 1


@pytest.mark.parametrize("algorithm", ["DQN", "PPO"])
def test_predict_refuses_what_environments_may_not_return(algorithm):
    agent = make(algorithm, lambda: Scripted(BYTES))
    for wrong, message in [
        (np.array([0.7, 0]), "holds 0.7. Expected integers"),
        (np.array([[1, 2], [3, 300]]), "holds 300"),
        ((np.zeros(2, np.uint8), {}), "Write obs, info = env.reset"),
        ([[1], [2, 3]], "unequal parts"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            agent.predict(wrong)
    agent.predict([1, 2])
    agent.predict(np.array([[1, 2], [3, 4], [5, 6]]))
    with pytest.raises(ConfigurationError, match="The observation holds nan"):
        make(algorithm, ConstantReward).predict(np.array([np.nan]))


def test_an_environment_without_spaces():
    class Bare(gym.Env):
        action_space = spaces.Discrete(2)

    with pytest.raises(ConfigurationError, match="The environment Bare has no observation_space"):
        make("DQN", Bare)


def test_observations_that_never_change_are_no_fault():
    make("DQN", SyncVectorEnv([ConstantReward] * 2, autoreset_mode=AutoresetMode.SAME_STEP)).learn(
        100, progress_bar=False
    )


def test_evaluation_refuses_wrong_data_too():
    agent = make("DQN", ConstantReward)
    with pytest.raises(InvalidStep, match="Environment 0: the reward is nan"):
        evaluate_policy(agent, lambda: Scripted(reward=np.nan), 20)


def test_the_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(InvalidStep("the reward is nan.", 1, 5).at(2, 7)))
    assert (error.env, error.step, str(error)) == (
        3,
        7,
        "Environment 3 at step 7: the reward is nan.",
    )


@pytest.mark.parametrize("wrong", ["shape", "dtype"])
def test_a_functional_environment_whose_observations_do_not_fit(wrong):
    class Misfit(Broken):
        observation_space = (
            spaces.Box(0, 9, (1,), np.int32)
            if wrong == "dtype"
            else spaces.Box(-1, 1, (2,), np.float32)
        )

    with pytest.raises(ConfigurationError, match="but its observation_space is"):
        make("DQN", Misfit("obs")).learn(10, progress_bar=False)
