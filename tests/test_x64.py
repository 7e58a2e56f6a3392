"""Agents learn where JAX uses 64 bits, and their own arrays stay in 32 bits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

OFF_POLICY = {"learning_starts": 0, "n_steps": 3}
REPLAY = {**OFF_POLICY, "prioritized_replay": True}
# Each algorithm learns with the defaults, and with each of these.
OPTIONS = {
    "DQN": [
        {**REPLAY, "noisy": True, "dueling": True},
        {**OFF_POLICY, "double_q": False, "tau": 0.5},
    ],
    "QRDQN": [{**REPLAY, "noisy": True}, {**OFF_POLICY, "cvar_alpha": 0.5}],
    "SAC": [{**REPLAY, "normalize_obs": True, "policy_delay": 2}, {**OFF_POLICY, "noise_steps": 3}],
    "MPO": [{**OFF_POLICY, "normalize_obs": True}, {**OFF_POLICY, "retrace": True}],
    "PPO": [
        {"normalize_obs": True, "normalize_reward": True, "target_kl": 0.1},
        {"recurrent": None},
    ],
    "IMPALA": [
        {"recurrent": "lstm"},
        {"recurrent": None, "optimizer": "rmsprop", "state_dependent_std": True},
    ],
}

# Learns in environments with numbers, categories and masks, and in one of 64-bit numbers. Prints
# what is not in 32 bits.
SCRIPT = """
import sys
import warnings

import gymnasium as gym
import jax
import numpy as np

assert jax.config.jax_enable_x64
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "jax.core.pytype_aval_mappings", DeprecationWarning)
warnings.filterwarnings("ignore", "Error reading persistent compilation cache", UserWarning)
warnings.filterwarnings("ignore", category=UserWarning, module="gymnasium")

from tests import probes
from tests.agents import make
from tests.test_action_masks import Fork
from tests.test_device import Walk
from tests.test_x64 import OPTIONS


class Wide(probes.Probe):
    observation_space = gym.spaces.Box(-1, 1, (20,), np.float64)

    def observe(self):
        return self.np_random.uniform(-1, 1, 20)


def learn(algorithm, env, runner, **options):
    agent = make(algorithm, env, runner=runner, n_envs=2, **options).learn(64, progress_bar=False)
    agent.predict(agent.spec.observation_space.sample())
    assert agent.metrics["train/n_updates"] > 0, algorithm
    for path, x in jax.tree_util.tree_leaves_with_path(agent.learner_state):
        name = jax.tree_util.keystr(path)
        if str(x.dtype) == "float64" and "replay" not in name:
            print(algorithm, env, runner, options, name)


algorithm = sys.argv[1]
first, second = OPTIONS[algorithm]
box = algorithm in ("SAC", "MPO", "PPO", "IMPALA")
learn(algorithm, Fork(), "host", **first)
learn(algorithm, Walk(discrete=not box), "device", **(second if box else {**first, **second}))
learn(algorithm, Wide, "host", **({"learning_starts": 0} if "learning_starts" in first else {}))
print("learned")
"""


@pytest.mark.parametrize("algorithm", OPTIONS)
def test_agents_learn_with_64_bits(algorithm):
    root = Path(__file__).parents[1]
    env = {**os.environ, "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", SCRIPT, algorithm]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=1_800
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    assert done.stdout == "learned\n"
