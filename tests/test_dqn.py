"""DQN against environments whose values are known, and what holds for each of its options."""

import itertools

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agentzoo import DQN, Linear, evaluate_policy
from agentzoo.replay import make_replay
from tests import probes

FAST = dict(
    n_steps=1,
    learning_rate=5e-3,
    net_arch=(32,),
    learning_starts=50,
    batch_size=32,
    train_freq=8,
    gradient_steps=8,
    target_update_interval=40,
    buffer_size=2_000,
    exploration_final_eps=0.3,
)
OPTIONS = {
    "plain": dict(double_q=False),
    "double": {},
    "dueling": dict(dueling=True),
    "three-step": dict(n_steps=3),
    "prioritised": dict(prioritized_replay=True),
    "noisy": dict(noisy=True),
    "polyak": dict(tau=0.2, target_update_interval=8),
    "rainbow": dict(dueling=True, n_steps=2, prioritized_replay=True, noisy=True),
}
GAMMA = 0.9


def trained(env, steps=1_500, **hyperparameters):
    return DQN(env, **{**FAST, "gamma": GAMMA, **hyperparameters}).learn(steps, progress_bar=False)


def obs(value):
    return np.array([value], np.float32)


@pytest.mark.learning
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_of_the_probes(options):
    # The mean network of a noisy one is trained only through its noise, and knows the values less
    # exactly.
    near = {"atol": 0.45 if options.get("noisy") else 0.15}
    np.testing.assert_allclose(
        trained(probes.ConstantReward, 600, **options).values(obs(0)), 1, **near
    )
    agent = trained(probes.ObservationReward, 800, **options)
    np.testing.assert_allclose(agent.values(np.array([[-1.0], [1.0]])), [[-1, -1], [1, 1]], **near)
    agent = trained(probes.DelayedReward, **options)
    np.testing.assert_allclose(
        agent.values(np.array([[0.0], [1.0]])), [[GAMMA, GAMMA], [1, 1]], **near
    )
    np.testing.assert_allclose(
        trained(probes.ActionReward, 800, **options).values(obs(0)), [-1, 1], **near
    )
    agent = trained(probes.CueReward, **options)
    np.testing.assert_allclose(agent.values(np.array([[-1.0], [1.0]])), [[1, -1], [-1, 1]], **near)
    assert [int(agent.predict(obs(cue), deterministic=True)[0]) for cue in (-1, 1)] == [0, 1]


@pytest.mark.learning
@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("mode", [None, *AutoresetMode], ids=str)
def test_a_time_limit_bootstraps_from_the_true_last_observation(mode, n_steps):
    def env(probe):
        return probe if mode is None else SyncVectorEnv([probe], autoreset_mode=mode)

    # The state never changes and every step is rewarded with 1, so that the value is that of going
    # on for ever.
    agent = trained(
        env(probes.Truncated), 3_000, n_steps=n_steps, gamma=0.5, target_update_interval=24
    )
    np.testing.assert_allclose(agent.values(obs(0)), 2, atol=0.2)
    # Where the episode terminates, nothing follows.
    agent = trained(env(probes.ConstantReward), 600, n_steps=n_steps)
    np.testing.assert_allclose(agent.values(obs(0)), 1, atol=0.1)


@pytest.mark.learning
def test_a_time_limit_bootstraps_at_the_last_observation_and_not_at_the_next_first():
    class OneStep(gym.Wrapper):
        """Starts at 0 or at -1, and is cut off after a step to -1.

        Reward 1 from 0, and 0 from -1.
        """

        def reset(self, **kwargs):
            super().reset(**kwargs)
            self.position = -1.0 if self.unwrapped.cue < 0 else 0.0
            return obs(self.position), {}

        def step(self, action):
            reward, self.position = float(self.position == 0), -1.0
            return obs(-1.0), reward, False, True, {}

    # q(-1) = 0 and q(0) = 1. Bootstrapping from the next episode's first observation would give
    # both more.
    agent = trained(lambda: OneStep(probes.ConstantReward()), 2_000)
    np.testing.assert_allclose(agent.values(np.array([[-1.0], [0.0]])), [[0, 0], [1, 1]], atol=0.12)


def test_dummy_steps_are_neither_counted_nor_stored():
    agent = DQN(
        SyncVectorEnv([probes.DelayedReward] * 2, autoreset_mode=AutoresetMode.NEXT_STEP),
        **{**FAST, "train_freq": 6},
    )
    lengths = []
    agent.learn(96, progress_bar=False, callback=lambda a: lengths.append(a.num_timesteps))
    # Two real steps of every three.
    assert lengths[:3] == [8, 16, 24]
    assert agent.num_timesteps == 96
    replay = agent.learner_state.replay
    assert replay.size.tolist() == [48, 48]
    stored = make_replay(agent.spec, agent.config.buffer_size, 6, GAMMA).sample(
        replay, jax.random.key(0), 512
    )
    np.testing.assert_array_equal(
        stored.obs_t, stored.obs_tm1 + 1
    )  # and never the way from an episode's end to the next beginning
    np.testing.assert_array_equal(stored.r_t, stored.obs_tm1[:, 0])
    assert agent.ep_rew_mean == 1.0


def image_space():
    return spaces.Box(0, 255, (40, 40, 3), np.uint8)


@pytest.mark.parametrize(
    "space",
    [
        image_space(),
        spaces.Box(0, 255, (3, 40, 40), np.uint8),
        spaces.Box(0, 255, (10, 10, 4), np.uint8),
        spaces.Discrete(4, start=2),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Dict(
            image=image_space(),
            place=spaces.Discrete(2),
            inner=spaces.Tuple((spaces.Box(0, 1, (2,)), spaces.MultiBinary(2))),
        ),
        spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 1, (2,), np.float64))),
    ],
    ids=str,
)
def test_every_observation_space_can_be_learned_from(space):
    space.seed(0)
    agent = DQN(lambda: probes.Spaced(space), n_envs=2, **{**FAST, "buffer_size": 200})
    before = jax.device_get(agent.params)
    agent.learn(128, progress_bar=False)
    changed = jax.tree.map(lambda x, y: bool((x != y).any()), before, jax.device_get(agent.params))
    assert all(jax.tree.leaves(changed))  # gradients reach every part of the network
    one = space.sample()
    action, state = agent.predict(one, deterministic=True)
    assert agent.spec.action_space.contains(action) and state is None
    assert agent.values(one).shape == (2,)


@pytest.mark.parametrize(
    "vectors",
    [lambda: SyncVectorEnv([probes.CueReward] * 3), lambda: gym.make_vec("CartPole-v1", 3)],
)
def test_vector_environments(vectors):
    agent = DQN(vectors(), **FAST).learn(300, progress_bar=False)
    assert agent.n_envs == 3 and agent.num_timesteps >= 300


def test_an_async_vector_environment():
    vector = gym.vector.AsyncVectorEnv([probes.CueReward] * 2, context="spawn")
    agent = DQN(vector, **FAST).learn(200, progress_bar=False)
    assert agent.ep_rew_mean > -1
    vector.close()


@pytest.mark.learning
def test_cartpole_is_learned():
    agent = DQN(
        "CartPole-v1",
        seed=1,
        train_freq=64,
        gradient_steps=32,
        net_arch=(64, 64),
        target_update_interval=64,
        learning_rate=2.3e-3,
    )
    agent.learn(15_000, progress_bar=False)
    mean, _ = evaluate_policy(agent, "CartPole-v1", 20, seed=77)
    assert mean > 150  # a random policy has 22


def test_the_same_seed_gives_the_same_parameters_and_another_seed_others():
    def params(seed):
        return jax.tree.leaves(
            jax.device_get(
                DQN("CartPole-v1", seed=seed, **FAST).learn(300, progress_bar=False).params
            )
        )

    for x, y in zip(params(3), params(3), strict=True):
        np.testing.assert_array_equal(x, y)
    assert any((x != y).any() for x, y in zip(params(3), params(4), strict=True))


def test_the_target_network_is_updated_as_often_as_in_sb3():
    agent = DQN(probes.CueReward, **{**FAST, "target_update_interval": 100, "learning_starts": 0})
    snapshots = []

    def watch(a):
        state = jax.device_get(a.learner_state)
        snapshots.append(
            (
                a.num_timesteps,
                jax.tree.leaves(state.target_params)[0],
                jax.tree.leaves(state.params)[0],
            )
        )

    agent.learn(400, progress_bar=False, callback=watch)
    changes = [
        step
        for (_, before, _), (step, after, _) in itertools.pairwise(snapshots)
        if (before != after).any()
    ]
    assert changes == [
        104,
        200,
        304,
        400,
    ]  # in the cycle of 8 steps that holds a multiple of 100, and before learning in it
    for i, (step, target, _) in enumerate(snapshots):
        if step in changes:
            np.testing.assert_array_equal(target, snapshots[i - 1][2])


def test_polyak_averaging_over_several_intervals_in_a_cycle():
    settings = {
        **FAST,
        "learning_starts": 10**6,
        "tau": 0.1,
        "target_update_interval": 2,
    }  # 4 updates per cycle of 8 steps
    agent = DQN(probes.CueReward, **settings)
    state = agent.learner_state
    params = jax.tree.map(lambda x: x + 1.0, state.params)
    agent.trainer.run = agent.trainer.run._replace(learner_state=state._replace(params=params))
    agent.learn(8, progress_bar=False)
    for new, old in zip(
        jax.tree.leaves(agent.learner_state.target_params),
        jax.tree.leaves(agent.params),
        strict=True,
    ):
        np.testing.assert_allclose(old - new, 0.9**4, rtol=1e-4)


def test_nothing_is_learned_before_learning_starts_and_gradient_steps_are_counted():
    agent = DQN("CartPole-v1", **{**FAST, "learning_starts": 80, "gradient_steps": -1})
    agent.learn(80, progress_bar=False)
    assert agent.learner_state.n_updates == 0
    agent.learn(16, progress_bar=False, reset_num_timesteps=False)
    assert agent.learner_state.n_updates == 16


def test_epsilon_falls_as_in_sb3(tmp_path):
    agent = DQN(
        "CartPole-v1",
        **{**FAST, "learning_starts": 0, "exploration_fraction": 0.5, "exploration_final_eps": 0.2},
    )
    eps = {}
    agent.learn(
        400,
        progress_bar=False,
        log_interval=8,
        callback=lambda a: eps.update(
            {a.num_timesteps: float(a.metrics["rollout/exploration_rate"])}
        ),
    )
    began = [1 - 0.8 * step / 200 for step in (0, 96, 192)]  # a cycle has 8 steps
    np.testing.assert_allclose([eps[8], eps[104], eps[200], eps[400]], [*began, 0.2], rtol=1e-5)


def test_schedules():
    agent = DQN("CartPole-v1", **{**FAST, "learning_rate": Linear(1e-2, 1e-3)})
    agent.learn(160, progress_bar=False)
    np.testing.assert_allclose(
        agent.logger.values["train/learning_rate"], 1e-2 - 9e-3 * 152 / 160, rtol=1e-5
    )
    agent = DQN("CartPole-v1", **{**FAST, "learning_rate": lambda remaining: 1e-3 * remaining**2})
    agent.learn(160, progress_bar=False)
    np.testing.assert_allclose(
        agent.logger.values["train/learning_rate"], 1e-3 * (8 / 160) ** 2, rtol=1e-4
    )


def test_the_pixel_preset():
    agent = DQN(
        lambda: probes.Spaced(image_space()), preset="pixels", buffer_size=100, train_freq=2
    )
    assert agent.config.learning_rate == 1e-4 and agent.config.buffer_size == 100


def test_noise_of_noisy_networks_is_for_training_only():
    agent = DQN("CartPole-v1", **{**FAST, "noisy": True})
    observation = np.ones(4, np.float32)
    np.testing.assert_array_equal(agent.values(observation), agent.values(observation))
    agent.learn(400, progress_bar=False)
    assert float(agent.metrics["rollout/exploration_rate"]) == 0
