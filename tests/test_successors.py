"""Values of successors, compared with those of evaluating every successor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agentzoo import PPO
from agentzoo.algos import impala, ppo
from agentzoo.envs import make_envs
from agentzoo.networks import successor_values
from tests import probes
from tests.agents import CATCH
from tests.jaxprs import equations
from tests.test_ppo import BOX, CLOCK, FAST, PPOConfig, make_agent, rollout


def value(memory, obs):
    """A function of an observation and of the recurrent state, if there is any."""
    return jnp.sin(obs["x"] @ jnp.array([1.0, 2.5])) + sum(jax.tree.leaves(memory), start=0.0)


def every_value(memory, trajectory):
    """The values of all sources, and of all successors."""
    sources = {"x": trajectory.obs_tm1}, {"x": trajectory.obs_t}
    return [jax.vmap(value)(memory, obs) for obs in sources]


def episodes_with_ends(mode=None, num_steps=14):
    """Three environments that end at different steps: terminated, truncated, in turn."""

    class Later(probes.Counter):
        made = 0

        def __init__(self):
            super().__init__()
            self.episode += Later.made
            self.length = 3 + Later.made
            Later.made += 1

        def step(self, action):
            obs, reward, *_, info = super().step(action)
            over, odd = self.t == self.length, self.episode % 2 == 1
            return obs, reward, over and not odd, over and odd, info

    envs = make_envs(
        Later if mode is None else SyncVectorEnv([Later] * 3, autoreset_mode=mode),
        3 if mode is None else 1,
    )
    return probes.take_actions(envs, np.zeros((num_steps, 3), int))


def assert_as_every_value(trajectory, memory=()):
    v_tm1, expected = every_value(memory, trajectory)
    evaluations = []

    def counted(memory, obs):
        jax.debug.callback(lambda: evaluations.append(len(obs["x"])))
        return value(memory, obs)

    named = trajectory._replace(obs_tm1=(), obs_t={"x": trajectory.obs_t})
    found = jax.jit(lambda v, m, data: successor_values(v, m, data, counted))(v_tm1, memory, named)
    jax.effects_barrier()
    counts = np.asarray(trajectory.mask & (trajectory.discount_t > 0))
    assert counts.sum() > 10
    np.testing.assert_allclose(found[counts], expected[counts], rtol=1e-6)
    return len(evaluations)


@pytest.mark.parametrize("mode", [None, *AutoresetMode], ids=str)
def test_values_of_environments(mode):
    trajectory = episodes_with_ends(mode)
    assert (trajectory.last_t & (trajectory.discount_t > 0)).any()
    # No environment has more than two truncations, or else one and the end of the trajectory.
    assert 1 < assert_as_every_value(trajectory) <= 3


def test_a_single_evaluation_without_truncations():
    trajectory = episodes_with_ends(num_steps=5)
    never = trajectory._replace(last_t=np.zeros_like(trajectory.last_t))
    obs = np.random.default_rng(0).normal(size=(6, 3, 2)).astype(np.float32)
    first = np.zeros_like(never.first_tm1)
    never = never._replace(
        obs_tm1=obs[:-1], obs_t=obs[1:], first_tm1=first, discount_t=np.ones_like(never.discount_t)
    )
    assert assert_as_every_value(never) == 1


@pytest.mark.parametrize("seed", range(4))
def test_any_trajectory(seed):
    """Random ends, steps that never happened, and recurrent states."""
    rng, shape = np.random.default_rng(seed), (9, 4)
    obs = rng.normal(size=(10, 4, 2)).astype(np.float32)
    last, mask = rng.random(shape) < 0.3, rng.random(shape) < 0.8
    terminated = last & (rng.random(shape) < 0.5)
    obs_t = np.where(last[..., None], rng.normal(size=(*shape, 2)), obs[1:]).astype(np.float32)
    # An episode begins after an end, and after a step that never happened.
    first = np.concatenate([np.ones((1, 4), bool), (last | ~mask)[:-1]])
    base = episodes_with_ends(num_steps=9)
    trajectory = base._replace(obs_tm1=obs[:-1], obs_t=obs_t, last_t=last, first_tm1=first,
        mask=mask, discount_t=1.0 - terminated)  # fmt: skip
    # A successor is evaluated with the state after its step. So is the source of the next step.
    memory = (rng.normal(size=shape).astype(np.float32),)
    _, v_t = every_value(memory, trajectory)
    v_tm1 = np.concatenate([rng.normal(size=(1, 4)), v_t[:-1]]).astype(np.float32)
    named = jax.tree.map(jnp.asarray, trajectory._replace(obs_tm1=(), obs_t={"x": obs_t}))

    def found(v_tm1, memory):
        return successor_values(v_tm1, memory, named, value)

    counts = mask & ~terminated
    one = jax.jit(found)(v_tm1, memory)
    np.testing.assert_allclose(one[counts], v_t[counts], rtol=1e-5, atol=1e-6)
    several = jax.vmap(found)(jnp.stack([v_tm1, v_tm1]), (jnp.stack([*memory, *memory]),))
    np.testing.assert_allclose(several[1], one, rtol=1e-5, atol=1e-6)


def learned(agent, state, data):
    state, metrics = jax.jit(agent.learn)(state, data, CLOCK)
    return jax.device_get((state.params.network, metrics["train/value_loss"]))


@pytest.mark.parametrize("options", [{}, dict(normalize_obs=True)], ids=["plain", "normalised"])
def test_ppo_keeps_the_values_of_acting(options):
    """It learns the same, up to rounding, if it has to compute the values again."""
    options = {**FAST, "n_steps": 32, "n_epochs": 1, "batch_size": 64, **options}
    agent = make_agent(PPOConfig(**options), BOX)
    state = jax.jit(agent.init)(jax.random.key(0))
    data = rollout(BOX, agent, state, 32, dummies=[(3, 0), (8, 1)])
    again = data._replace(extras=agent.without_newest(data.extras))
    assert set(data.extras) - set(again.extras) == {"v_tm1"} == agent.newest
    kept, computed = learned(agent, state, data), learned(agent, state, again)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5),
        kept, computed)  # fmt: skip
    other = data._replace(extras={**data.extras, "v_tm1": data.extras["v_tm1"] + 1})
    assert abs(learned(agent, state, other)[1] - kept[1]) > 0.01


@pytest.mark.parametrize("max_lag", [0, 1])
def test_values_of_older_parameters_are_not_used(max_lag, monkeypatch):
    agent = PPO(CATCH, n_envs=2, runner="threads", max_lag=max_lag, **FAST)
    program, seen = agent.trainer.runner.programs.learn, []
    arguments = program.arguments

    def spy(state, trajectory, *rest):
        seen.append(set(trajectory.extras))
        return arguments(state, trajectory, *rest)

    monkeypatch.setattr(program, "arguments", spy)
    agent.learn(256, progress_bar=False)
    assert seen and all(("v_tm1" in names) == (max_lag == 0) for names in seen)


@pytest.mark.parametrize("module, config, passes", [
    (ppo, PPOConfig(n_steps=32, batch_size=16, share_layers=True), 0),
    (ppo, PPOConfig(n_steps=32, batch_size=16, share_layers=True, recurrent="gru"), 1),
    (impala, impala.IMPALAConfig(n_steps=32, share_layers=True), 1),
])  # fmt: skip
def test_passes_over_all_observations(module, config, passes):
    """How often the first layer is applied to the whole cycle. IMPALA's gradient needs it once."""
    spec = BOX._replace(observation_space=spaces.Box(-1, 1, (5,)))
    agent = module.make_agent(config, spec)
    state = jax.jit(agent.init)(jax.random.key(0))
    data = rollout(spec, agent, state, 32)
    products = [
        equation.invars[0].aval.shape
        for equation in equations(agent.learn, state, data, CLOCK)
        if equation.primitive.name == "dot_general"
        and equation.params["dimension_numbers"][0][0] == (1,)  # not the gradient of the weights
    ]
    num_steps, num_envs, size = data.obs_tm1.shape
    assert products.count((num_steps * num_envs, size)) == passes
    assert products.count((num_envs, size)) == 1  # the last successors, in a loop
