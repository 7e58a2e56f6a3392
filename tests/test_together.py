"""Several agents at once."""

import csv
import subprocess
import sys

import jax
import numpy as np
import pytest

import agentzoo
from agentzoo import DQN, PPO, ConfigurationError, evaluate_policy, learn_together
from agentzoo.training import together
from tests import probes
from tests.agents import CATCH, SETTINGS, make


def assert_same_params(a, b):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), a.params, b.params
    )


def test_each_learns_what_it_would_have_learned_alone(monkeypatch, tmp_path):
    def agents(**more):
        options = [dict(learning_rate=1e-3), dict(learning_rate=1e-2, gamma=0.9)]
        return [
            make("DQN", CATCH, seed=seed, **options[i], **more)
            for seed, i in ((0, 0), (1, 0), (1, 1))
        ]

    def forbidden(*_):
        raise AssertionError("not in one program")

    monkeypatch.setattr(together, "_learn_in_turn", forbidden)
    some, alone = agents(log_dir=tmp_path), agents()
    curves = learn_together(some, 200, log_interval=48, progress_bar=False)
    for one, other, curve in zip(some, alone, curves, strict=True):
        other.learn(200, log_interval=48, progress_bar=False)
        assert_same_params(one, other)
        assert one.num_timesteps == other.num_timesteps and one.ep_rew_mean == other.ep_rew_mean
        assert (
            curve.timesteps[0] == 48
            and len(curve.timesteps) == 4
            and np.isfinite(curve.returns[-1])
        )
        assert one.metrics.keys() == other.metrics.keys()
        np.testing.assert_allclose(
            one.metrics["train/loss"], other.metrics["train/loss"], rtol=1e-2, atol=1e-4
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"DQN_agentzoo-Catch-v0_{i}" for i in (1, 2, 3)
    ]
    one, other = some[-1], alone[-1]
    for agent in (one, other):  # they are ordinary agents
        agent.learn(100, progress_bar=False, reset_num_timesteps=False)
    assert_same_params(one, other)
    assert (
        one.num_timesteps == other.num_timesteps
        and agentzoo.load(one.run_dir / "model", CATCH).config == one.config
    )
    assert (one.run_dir / "progress.csv").read_text().count("\n") > 4


def test_python_environments_one_after_the_other():
    agents = [DQN(probes.CueReward, seed=seed, **SETTINGS["DQN"]) for seed in range(2)]
    curves = learn_together(agents, 60, log_interval=20, progress_bar=False)
    assert [curve.timesteps.tolist() for curve in curves] == [[20, 40, 60]] * 2 and agents[
        0
    ].num_timesteps == 60
    alone = DQN(probes.CueReward, seed=1, **SETTINGS["DQN"]).learn(60, progress_bar=False)
    assert_same_params(agents[1], alone)


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_every_number_may_differ_in_one_program(algorithm, monkeypatch):
    monkeypatch.setattr(together, "_learn_in_turn", None)
    one = make(
        algorithm,
        CATCH,
        **{"learning_rate": 1e-3, **({"ent_coef": 0.1} if algorithm == "SAC" else {})},
    )
    numbers = {
        name: 0.9 * value + 0.01
        for name, value in vars(one.config).items()
        if isinstance(value, float)
    }
    assert {"learning_rate", "gamma"} <= numbers.keys()
    other, alone = (make(algorithm, CATCH, **numbers) for _ in range(2))
    learn_together([one, other], 64, progress_bar=False)
    assert_same_params(other, alone.learn(64, progress_bar=False))


def test_what_cannot_be_one_program_learns_all_the_same(capsys):
    """Different networks, and a number by which the algorithm decides what to compute."""
    agents = [make("QRDQN", CATCH, cvar_alpha=alpha) for alpha in (0.5, 0.6)] + [
        make("QRDQN", CATCH, net_arch=(8,))
    ]
    curves = learn_together(agents, 40, log_interval=20)
    assert (
        all(len(curve.timesteps) == 2 for curve in curves)
        and [agent.num_timesteps for agent in agents] == [40] * 3
    )
    assert "120/120" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match="appears twice"):
        learn_together(agents[:1] * 2, 40)
    with pytest.raises(ConfigurationError, match="total_timesteps"):
        learn_together(agents, 0)


DIES = """
import os, sys
from agentzoo import learn_together
from tests.agents import make

def die(agent):
    if agent.num_timesteps >= 200:
        for each in agents:  # those that have begun
            if each.trainer.checkpoints is not None:
                each.trainer.checkpoints.close()
        os._exit(7)

{agents}
learn_together(agents, 320, 20, False, callback=die, checkpoint_freq=64)
"""


@pytest.mark.parametrize("algorithm", SETTINGS)
@pytest.mark.parametrize("runner", ["device", "host"])
def test_each_run_goes_on_by_itself_after_the_process_was_killed(algorithm, runner):
    """Agents in Python environments learn in turn, and the first one dies."""
    env = "agentzoo/Pendulum-v0" if algorithm in ("SAC", "MPO") else CATCH
    agents = (
        f"agents = [make({algorithm!r}, {env!r}, runner={runner!r}, n_envs=2, seed=seed, "
        "run_dir=run_dir.format(seed)) for seed in (0, 1)]"
    )
    script = DIES.format(agents=f"run_dir = 'cut{{}}'\n{agents}")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    scope = {"make": make, "run_dir": "whole{}"}
    exec(agents, scope)
    learn_together(scope["agents"], 320, 20, progress_bar=False)
    for seed, whole in enumerate(scope["agents"]):
        if runner == "host" and seed == 1:
            continue
        agent = agentzoo.resume(f"cut{seed}")
        assert agent.num_timesteps == whole.num_timesteps == 320
        assert_same_params(agent, whole)
        steps = logged_steps(f"cut{seed}")
        assert steps == logged_steps(f"whole{seed}") and len(steps) >= 10


def logged_steps(folder):
    with open(f"{folder}/progress.csv") as file:
        return [row["time/total_timesteps"] for row in csv.DictReader(file)]


@pytest.mark.learning
def test_all_seeds_learn():
    agents = [
        PPO(CATCH, seed=seed, n_envs=16, n_steps=32, batch_size=128, learning_rate=3e-3)
        for seed in range(3)
    ]
    learn_together(agents, 20_000, progress_bar=False)
    assert all(evaluate_policy(agent, CATCH, 30, seed=7)[0] > 0.9 for agent in agents)


def test_agents_may_come_from_a_generator():
    made = []
    curves = learn_together(
        (made.append(agent) or agent for agent in (make("DQN", CATCH, seed=i) for i in range(2))),
        32,
        progress_bar=False,
    )
    assert [agent.num_timesteps for agent in made] == [32, 32] and len(curves) == 2
