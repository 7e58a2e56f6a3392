"""The same seed gives the same result, whatever happens beside the training."""

import hashlib
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from agentzoo import callbacks
from tests import agents
from tests.agents import CATCH, SETTINGS

STEPS = 128
ACTORS = {"host": {}, "device": {}, "threads": {"n_actors": 2, "max_lag": 0}}


def make(algorithm, runner, **options):
    return agents.make(
        algorithm, CATCH, runner=runner, n_envs=4, seed=5, **ACTORS[runner], **options
    )


def digest(agent):
    """A text that differs if one bit of the run differs."""
    whole = hashlib.sha256()
    for x in agents.arrays(agent):
        whole.update(np.asarray(x).tobytes())
    return whole.hexdigest()


@pytest.mark.parametrize("runner", ACTORS)
@pytest.mark.parametrize("algorithm", SETTINGS)
def test_the_same_seed_gives_the_same_run(algorithm, runner):
    one, other = (make(algorithm, runner).learn(STEPS, progress_bar=False) for _ in range(2))
    agents.assert_same(one, other)
    assert list(one.trainer.episodes.rewards) == list(other.trainer.episodes.rewards)
    leaves = jax.tree.leaves(one.params)
    begun = jax.tree.leaves(make(algorithm, runner).params)
    assert any((x != y).any() for x, y in zip(leaves, begun, strict=True))  # it has learned


def everything(folder):
    """Callbacks of all kinds."""
    stop = callbacks.StopTrainingOnNoModelImprovement(max_no_improvement_evals=100)
    evaluate = callbacks.EvalCallback(
        CATCH,
        callback_after_eval=stop,
        n_eval_episodes=2,
        eval_freq=32,
        best_model_save_path=folder,
        verbose=0,
    )
    draws = callbacks.EveryNTimesteps(16, lambda agent: np.random.random() >= 0)
    checkpoints = callbacks.CheckpointCallback(32, folder / "checkpoints")
    return [evaluate, checkpoints, draws, callbacks.LogEveryNTimesteps(16)]


@pytest.mark.parametrize("runner", ACTORS)
@pytest.mark.parametrize("algorithm", SETTINGS)
def test_watching_a_run_does_not_change_it(algorithm, runner, tmp_path):
    """Callbacks, logs, checkpoints, evaluations and the progress bar leave no trace."""
    alone = make(algorithm, runner).learn(STEPS, progress_bar=False)
    watched = make(algorithm, runner, log_dir=tmp_path)
    watched.learn(STEPS, everything(tmp_path), log_interval=16)
    agents.assert_same(alone, watched)


PROCESS = """
import sys
from tests import test_determinism
agent = test_determinism.make(sys.argv[1], sys.argv[2])
print(test_determinism.digest(agent.learn(test_determinism.STEPS, progress_bar=False)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "runner"), [("PPO", "host"), ("DQN", "device")])
def test_processes_agree(algorithm, runner):
    """The order of sets and dictionaries, which Python varies, decides nothing."""

    def run(hash_seed):
        command = [sys.executable, "-c", PROCESS, algorithm, runner]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "JAX_PLATFORMS": "cpu"}
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        done = subprocess.run(
            command, env=environment, cwd=root, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.split()[-1]

    assert run("1") == run("2")
