"""Every algorithm learns with every runner: the table of `docs/how-to/runners.md`."""

import functools
import re
from pathlib import Path

import gymnasium as gym
import pytest

import agentzoo
from agentzoo import Linear, evaluate_policy
from agentzoo.runners import RUNNERS

ENV = functools.partial(gym.make, "agentzoo/Catch-v0", rows=4)
OFF_POLICY = dict(
    learning_rate=3e-3,
    n_envs=4,
    n_steps=3,
    train_freq=2,
    gradient_steps=4,
    learning_starts=1_000,
    batch_size=32,
    buffer_size=5_000,
    gamma=0.9,
    net_arch=(32,),
)
ON_POLICY = dict(n_envs=4, net_arch=(32,), gamma=0.9)
PPO = dict(n_steps=32, batch_size=32, n_epochs=4, learning_rate=3e-3, ent_coef=0.05)
# For each algorithm its hyperparameters, and the number of environment steps.
SETTINGS = {
    "DQN": (OFF_POLICY, 6_000),
    "QRDQN": ({**OFF_POLICY, "n_quantiles": 5}, 6_000),
    "SAC": ({**OFF_POLICY, "ent_coef": 0.05}, 6_000),
    "MPO": ({**OFF_POLICY, "target_update_interval": 20}, 4_000),
    "PPO": ({**ON_POLICY, **PPO}, 12_000),
    "IMPALA": ({**ON_POLICY, "n_steps": 8, "learning_rate": Linear(1e-2)}, 8_000),
}
CELLS = [(algorithm, runner) for runner in RUNNERS if runner != "auto" for algorithm in SETTINGS]


@pytest.mark.learning
@pytest.mark.parametrize("algorithm, runner", CELLS)
def test_it_learns(algorithm, runner, request):
    hyperparameters, steps = SETTINGS[algorithm]
    if runner == "ray":
        request.getfixturevalue("cluster")
        if "train_freq" in hyperparameters:  # the same number of updates, in fewer messages
            hyperparameters = {**hyperparameters, "train_freq": 16, "gradient_steps": 32}
    actors = {"n_actors": 2} if runner in ("threads", "ray") else {}
    agent = getattr(agentzoo, algorithm)(ENV, runner=runner, seed=1, **hyperparameters, **actors)
    agent.learn(steps, progress_bar=False)
    assert evaluate_policy(agent, ENV, 100, seed=5)[0] > 0.9  # a random policy has -0.6


def test_the_table_names_them_all():
    text = (Path(__file__).parent.parent / "docs" / "how-to" / "runners.md").read_text()
    names = re.findall(r'^\| `"(\w+)"`', text, re.MULTILINE)
    assert sorted(names) == sorted(RUNNERS)
    assert all(f"| {algorithm} |" in text for algorithm in SETTINGS)
