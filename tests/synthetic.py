"""Results folders for tests, with made-up curves instead of trained agents."""

import numpy as np

from agentzoo.lab import results
from agentzoo.lab.results import Episodes, Evaluation, Result

VERSIONS = {"agentzoo": "0.1.0", "jax": "0.10.2", "numpy": "2.4.6", "python": "3.11.2"}
MACHINE = {"cpu": "Made-up CPU", "cores": 2, "memory_gb": 8.0, "device": "cpu", "system": "Linux"}


def result(
    label="dqn", env="CartPole-v1", seed=0, reached=400.0, start=20.0, evaluations=20, **fields
):
    """Return the result of a run whose returns rise from `start` to about `reached`."""
    # Seeds, labels and environments differ from each other, and not from one call to the next.
    random = np.random.default_rng([seed, *map(ord, label), *map(ord, env)])
    level = reached + 0.05 * (reached - start) * random.normal()
    steps = fields.get("steps", 10_000)

    def episodes(progress, count):
        mean = level - (level - start) * np.exp(-4 * progress)
        returns = mean + 0.05 * abs(reached - start) * random.normal(size=count)
        return Episodes(tuple(returns.tolist()), (200,) * count)

    curve = tuple(
        Evaluation(
            steps * (i + 1) // evaluations,
            round(2.5 * (i + 1), 3),
            episodes((i + 1) / evaluations, 10),
        )
        for i in range(evaluations)
    )
    values = {
        "label": label,
        "algorithm": label.split("-")[0].upper(),
        "env": env,
        "seed": seed,
        "steps": steps,
        "hyperparameters": {"learning_rate": 1e-3, "net_arch": [64, 64], "gamma": 0.99},
        "changes": {},
        "tuned": True,
        "n_envs": 1,
        "versions": VERSIONS,
        "machine": MACHINE,
        "seconds": 50.0,
        "date": "2026-12-01",
        "curve": curve,
        "final": episodes(1.0, 100),
    }
    return Result(**{**values, **fields})


def failed(label="dqn", env="CartPole-v1", seed=0, error="The reward of step 3 is nan.", **fields):
    """Return the result of a run that failed after a quarter of its steps."""
    whole = result(label, env, seed, **fields)
    fields = {"curve": whole.curve[:5], "final": None, "status": "failed", "error": error}
    return results.Result(**{**vars(whole), **fields})


def write(folder, runs, plan=None):
    """Write a results folder."""
    results.write_plan(folder, plan or {})
    for run in runs:
        results.write(folder, run)
    return folder


def comparison(folder):
    """Write the results of three algorithms in three environments with four seeds.

    The algorithms reach lower scores in the order of their labels. One run failed.
    """
    labels = ("dqn", "ppo", "sac")
    envs = ("CartPole-v1", "LunarLander-v3", "A/<b>&c-v0")
    runs = [
        result(
            label,
            env,
            seed,
            reached=300 - 40 * i,
            start=-100,
            hyperparameters={"gamma": 0.99, "learning_rate": {"linear": [i * 1e-3, 0]}},
        )
        for i, label in enumerate(labels)
        for env in envs
        for seed in range(4)
    ]
    same = runs[5].hyperparameters
    runs[6] = failed("dqn", "LunarLander-v3", 2, hyperparameters=same)
    return write(folder, runs, {"seeds": 4})
