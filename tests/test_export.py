"""Policies as pure functions, and as files that need no agentzoo."""

import json
import subprocess
import sys

import gymnasium as gym
import haiku as hk
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import agentzoo
from agentzoo import ConfigurationError
from agentzoo.cli import main
from agentzoo.export import onnx as onnx_export
from tests.agents import CATCH, SETTINGS, make

PENDULUM = "agentzoo/Pendulum-v0"
NUMBERS = spaces.Box(-1, 1, (3,), np.float32)
ACTIONS = spaces.Discrete(4, start=2)
TORQUES = spaces.Box(np.array([-2, 0], np.float32), np.array([1, 5], np.float32))
IMAGES = spaces.Box(0, 255, (20, 24, 3), np.uint8)
MASKED = spaces.Dict({"obs": NUMBERS, "action_mask": spaces.MultiBinary(4)})
PARTS = spaces.Dict({
    "grey": spaces.Box(0, 255, (12, 12), np.uint8),
    "bytes": spaces.Box(0, 255, (5,), np.uint8),
    "integers": spaces.Box(-3, 9, (2,), np.int64),
    "choice": spaces.Discrete(3, start=1),
    "bits": spaces.MultiBinary(4),
    "inner": spaces.Tuple((NUMBERS, spaces.MultiDiscrete([2, 3]))),
})  # fmt: skip


class Random(gym.Env):
    """Random observations of a space, in episodes of ten steps."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self._steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self._steps += 1
        return self.observation_space.sample(), 1.0, False, self._steps == 10, {}


def observations(agent, num, seed=0):
    space = agent.spec.observation_space
    space.seed(seed)
    return jax.tree.map(lambda *x: np.stack(x), *[space.sample() for _ in range(num)])


def element(batch, n):
    return jax.tree.map(lambda x: x[n], batch)


def predict(agent, *arguments, **options):
    return agent.predict(*arguments, deterministic=True, **options)


# the pure function


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_the_policy_chooses_the_actions_of_predict(algorithm):
    agent = make(algorithm, CATCH)
    obs = observations(agent, 5)
    found = agent.policy(agent.params, obs)
    action = found[0] if agent.policy.is_recurrent else found
    np.testing.assert_array_equal(action, predict(agent, obs)[0])
    one = agent.policy(agent.params, element(obs, 2))
    one = one[0] if agent.policy.is_recurrent else one
    assert one.shape == () and one == action[2]
    assert agent.policy is agent.policy  # so that jax.jit compiles it once
    assert agent.policy.is_recurrent == (algorithm in ("PPO", "IMPALA"))


def test_jit_vmap_and_other_parameters():
    agent, other = make("SAC", PENDULUM), make("SAC", PENDULUM, seed=1)
    obs = observations(agent, 5)
    whole = agent.policy(agent.params, obs)
    np.testing.assert_allclose(jax.jit(agent.policy)(agent.params, obs), whole, rtol=1e-6)
    each = jax.vmap(agent.policy, in_axes=(None, 0))(agent.params, obs)
    np.testing.assert_allclose(each, whole, rtol=1e-6)
    theirs = agent.policy(other.params, obs)
    np.testing.assert_array_equal(theirs, other.policy(other.params, obs))
    assert not np.array_equal(theirs, whole)
    assert all(agent.spec.action_space.contains(np.asarray(action)) for action in whole)


def test_a_key_draws_actions():
    agent = make("SAC", PENDULUM)
    obs = observations(agent, 4)
    draw = jax.jit(agent.policy)
    first, again = (draw(agent.params, obs, jax.random.key(0)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, draw(agent.params, obs, jax.random.key(1)))
    assert not np.array_equal(first, draw(agent.params, obs))


@pytest.mark.parametrize("algorithm", ["PPO", "IMPALA"])
def test_memory_of_the_policy(algorithm):
    agent = make(algorithm, CATCH)
    steps = observations(agent, 12).reshape(6, 2, *agent.spec.observation_space.shape)
    starts = np.array([[1, 1], [0, 0], [0, 1], [0, 0], [1, 0], [0, 0]], bool)
    state, wanted = None, []
    for obs, start in zip(steps, starts, strict=True):
        action, state = predict(agent, obs, state=state, episode_start=start)
        wanted.append((action, state))

    def step(state, inputs):
        obs, start = inputs
        action, state = agent.policy(agent.params, obs, state=state, episode_start=start)
        return state, (action, state)

    found = jax.lax.scan(step, agent.policy.initial_state(2), (steps, starts))[1]
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
        found,
        jax.tree.map(lambda *x: np.stack(x), *wanted),
    )
    # A single observation has a state without the axis of the batch.
    one = agent.policy(agent.params, steps[0, 0], state=agent.policy.initial_state())
    shapes = (jax.tree.map(np.shape, each) for each in (one[1], agent.policy.initial_state()))
    assert next(shapes) == next(shapes)
    assert one[0] == wanted[0][0][0]


def test_noise_for_exploration_is_no_memory_of_the_policy():
    agent = make("SAC", PENDULUM, noise_steps=4)
    assert not agent.policy.is_recurrent and agent.policy.initial_state() is None
    assert predict(agent, observations(agent, 2))[1] is not None
    assert agent.policy(agent.params, observations(agent, 2)).shape == (2, 1)


def test_observations_that_do_not_fit():
    agent = make("DQN", Random(MASKED, ACTIONS))
    obs = observations(agent, 3)
    with pytest.raises(ConfigurationError, match=r"shape \(2,\)"):
        agent.policy(agent.params, {**obs, "obs": obs["obs"][:, :2]})
    with pytest.raises(ConfigurationError, match="lacks 'action_mask'"):
        agent.policy(agent.params, {"obs": obs["obs"]})
    with pytest.raises(ConfigurationError, match=r"batch of 2.* batch of 3"):
        agent.policy(agent.params, {**obs, "obs": obs["obs"][:2]})


# files

CASES = {
    **{f"{name}-discrete": (name, NUMBERS, ACTIONS, {}) for name in SETTINGS},
    **{
        f"{name}-continuous": (name, NUMBERS, TORQUES, {"normalize_obs": True})
        for name in ("SAC", "MPO", "PPO")
    },
    "IMPALA-continuous": ("IMPALA", NUMBERS, TORQUES, {}),
    "QRDQN-masks": ("QRDQN", MASKED, ACTIONS, {}),
    "PPO-masks": ("PPO", MASKED, ACTIONS, {}),
    "PPO-multidiscrete": ("PPO", NUMBERS, spaces.MultiDiscrete([2, 3]), {"recurrent": "gru"}),
    "PPO-bits": ("PPO", NUMBERS, spaces.MultiBinary(3), {"recurrent": None}),
    "DQN-images": ("DQN", IMAGES, ACTIONS, {"dueling": True, "noisy": True}),
    "PPO-images": ("PPO", IMAGES, TORQUES, {"cnn": "impala"}),
    "SAC-parts": ("SAC", PARTS, TORQUES, {"noise_steps": 3}),
}


@pytest.fixture(scope="module", params=CASES)
def agent(request):
    name, observation_space, action_space, options = CASES[request.param]
    agent = make(name, Random(observation_space, action_space), **options)
    if options.get("normalize_obs"):  # statistics that change observations
        agent.learn(32, progress_bar=False)
    return agent


def rollout(agent, call):
    """Compare a file's actions with those of `predict` in three steps of four episodes.

    Args:
      agent: the agent.
      call: a function from observation, state (or None) and episode_start to action and state.
    """
    ours = theirs = None
    for step in range(3):
        obs = observations(agent, 4, seed=step)
        start = np.array([step == 0, step == 0, step == 0, step != 1])
        wanted, ours = predict(agent, obs, state=ours, episode_start=start)
        found, theirs = call(obs, theirs, start)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
        assert found.shape == wanted.shape


def zeros(agent, avals):
    return tuple(np.zeros((4, *aval.shape[1:]), aval.dtype) for aval in avals)


def test_stablehlo(agent, tmp_path):
    exported = jax.export.deserialize(agent.export(tmp_path / "policy.stablehlo").read_bytes())

    def call(obs, state, start):
        leaves, structure = jax.tree.flatten(obs)
        avals = exported.in_avals[: len(leaves)]
        leaves = [np.asarray(x, aval.dtype) for x, aval in zip(leaves, avals, strict=True)]
        stored = jax.tree.unflatten(structure, leaves)
        if not agent.policy.is_recurrent:
            return exported.call(stored), None
        if state is None:
            state = zeros(agent, exported.in_avals[len(leaves) : -1])
        return exported.call(stored, state, start)

    rollout(agent, call)
    assert {"cpu", "cuda", "tpu"} <= set(exported.platforms)


def test_onnx(agent, tmp_path):
    pytest.importorskip("jax2onnx")
    import onnxruntime

    path = agent.export(tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    types = {
        one.name: onnx_dtypes[one.type.removeprefix("tensor(")[:-1]] for one in session.get_inputs()
    }

    def call(obs, state, start):
        inputs = named("observation", obs)
        inputs = {name: np.asarray(x, types[name]) for name, x in inputs.items()}
        if agent.policy.is_recurrent:
            avals = [one for one in session.get_inputs() if one.name.startswith("state_")]
            state = state or [np.zeros((4, one.shape[1]), np.float32) for one in avals]
            inputs |= {one.name: x for one, x in zip(avals, state, strict=True)}
            inputs["episode_start"] = start
        assert inputs.keys() == types.keys()
        action, *state = session.run(None, inputs)
        return action, state

    rollout(agent, call)
    assert session.get_outputs()[0].name == "action"
    about = session.get_modelmeta().custom_metadata_map
    assert about["algorithm"] == type(agent).__name__
    assert json.loads(about["versions"])["agentzoo"] == agentzoo.__version__


onnx_dtypes = {"float": np.float32, "uint8": np.uint8, "int8": np.int8, "int32": np.int32}
onnx_dtypes["bool"] = np.bool_


def named(name, obs):
    """Return the parts of observations by the names that ONNX files give them."""
    if isinstance(obs, np.ndarray):
        return {name: obs}
    items = obs.items() if isinstance(obs, dict) else enumerate(obs)
    return {key: x for part, inner in items for key, x in named(f"{name}/{part}", inner).items()}


def test_a_file_needs_jax_alone(tmp_path):
    agent = make("PPO", PENDULUM, recurrent=None, normalize_obs=True)
    agent.learn(32, progress_bar=False)
    path, obs = agent.export(tmp_path / "policy"), observations(agent, 3)
    assert path.name == "policy.stablehlo"
    np.save(tmp_path / "obs.npy", obs)
    program = f"""
import sys, jax, numpy
policy = jax.export.deserialize(open({str(path)!r}, "rb").read())
numpy.save("actions.npy", policy.call(numpy.load("obs.npy")))
assert not {{"agentzoo", "haiku", "distrax", "optax", "gymnasium"}} & set(sys.modules)
"""
    subprocess.run(
        [sys.executable, "-c", "import jax.export\n" + program], check=True, cwd=tmp_path
    )
    found = np.load(tmp_path / "actions.npy")
    np.testing.assert_allclose(found, predict(agent, obs)[0], rtol=1e-5, atol=1e-6)


# refusals


def test_paths_that_cannot_be_written(tmp_path):
    agent = make("DQN", CATCH)
    with pytest.raises(ConfigurationError, match=r"names no format.*\.onnx or \.stablehlo"):
        agent.export(tmp_path / "policy.pt")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        agent.export(tmp_path / "nowhere" / "policy.onnx")
    (tmp_path / "policy.stablehlo").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be written"):
        agent.export(tmp_path / "policy.stablehlo")
    assert [path.name for path in tmp_path.iterdir()] == ["policy.stablehlo"]


def test_onnx_without_its_packages(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'agentzoo\[onnx\]'"):
        make("DQN", CATCH).export(tmp_path / "policy.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_onnx_has_no_operators_for(tmp_path):
    pytest.importorskip("jax2onnx")

    def network(obs):
        x = hk.Linear(4)(hk.Flatten()(obs))
        return jax.lax.linalg.householder_product(x[..., None], x[..., :1])[..., 0]

    agent = make("DQN", CATCH, network=network)
    with pytest.raises(ConfigurationError, match=r"cannot be converted to ONNX \(.*\.stablehlo"):
        agent.export(tmp_path / "policy.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_conversion_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("jax2onnx")
    agent = make("SAC", PENDULUM)
    convert = onnx_export._convert

    def wrong(converter, program, about):
        def call(obs):
            return program.call(obs) + jnp.float32(1e-3)

        return convert(converter, program._replace(call=call), about)

    monkeypatch.setattr(onnx_export, "_convert", wrong)
    with pytest.raises(ConfigurationError, match=r"actions that differ by 0\.001"):
        agent.export(tmp_path / "policy.onnx")
    assert list(tmp_path.iterdir()) == []


# the command line


def test_the_command(tmp_path, capsys):
    agent = make("DQN", CATCH)
    agent.save(tmp_path / "model")
    main(["export", str(tmp_path)])
    main(["export", str(tmp_path), "--out", "my.stablehlo"])
    assert "Wrote the policy to my.stablehlo" in capsys.readouterr().out
    data = (tmp_path / "policy.stablehlo").read_bytes()
    assert b".py" not in data  # the files of this machine
    assert data == (tmp_path / "my.stablehlo").read_bytes()
    obs = observations(agent, 3)
    actions = jax.export.deserialize(data).call(obs)
    np.testing.assert_array_equal(actions, predict(agent, obs)[0])
    with pytest.raises(SystemExit) as ended:
        main(["export", str(tmp_path), "--out", "my.txt"])
    assert ended.value.code == 2 and "names no format" in capsys.readouterr().err
