"""Show the KL divergences of MPO beside their bounds, and its temperature, over a run.

    python benchmarks/mpo_constraints.py --env Pendulum-v1 --steps 2e4 --out mpo_constraints.png

The script draws a picture and prints numbers. Every point is the mean over a hundredth of the run.
It needs matplotlib: `pip install 'agentzoo[plots]'`.
"""

import argparse

import jax
import matplotlib.pyplot as plt
import numpy as np
from learning import TASKS

from agentzoo import MPO

SETTINGS = {task.env: task.hyperparameters for task in TASKS.values() if task.algorithm == "MPO"}
PAIRS = {
    "kl_improved": ("epsilon", "E-step: improved policy to target policy"),
    "kl_mean": ("epsilon_mean", "M-step: means, worst dimension"),
    "kl_stddev": ("epsilon_stddev", "M-step: standard deviations, worst dimension"),
    "kl": ("epsilon_kl", "M-step: policy"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="Pendulum-v1")
    parser.add_argument("--steps", type=float, default=2e4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="mpo_constraints.png")
    arguments = parser.parse_args()
    agent = MPO(arguments.env, seed=arguments.seed, **SETTINGS.get(arguments.env, {}))
    steps, rows = [], []

    def keep(agent: MPO) -> None:
        steps.append(agent.num_timesteps)
        rows.append(agent.metrics)

    agent.learn(arguments.steps, callback=keep, progress_bar=False)
    rows = jax.device_get(rows)
    learned = [i for i, row in enumerate(rows) if not np.isnan(row["train/temperature"])]
    parts = np.array_split(learned, 100)  # the indices of the rows in each hundredth of the run
    at = np.array([steps[part[-1]] for part in parts])

    def mean(name: str) -> np.ndarray:
        return np.array(
            [np.mean([rows[i][f"train/{name}"] for i in part], axis=0) for part in parts]
        )

    pairs = {name: pair for name, pair in PAIRS.items() if f"train/{name}" in rows[0]}
    figure, axes = plt.subplots(
        1, len(pairs) + 1, figsize=(4.4 * (len(pairs) + 1), 3.5), layout="constrained"
    )
    for axis, (name, (bound, title)) in zip(axes, pairs.items(), strict=False):
        kl, limit = mean(name), getattr(agent.config, bound)
        axis.plot(at, kl, label="KL")
        axis.axhline(limit, color="black", linestyle="--", label=f"{bound} = {limit:g}")
        axis.set(title=title, xlabel="environment steps", ylim=(0, None))
        axis.legend()
        axis.locator_params(axis="x", nbins=4)
        second_half = kl[50:]
        print(
            f"{name}: bound {limit:g}; second half of the run: mean {second_half.mean():.3g}, "
            f"highest hundredth {second_half.max():.3g}"
        )
    temperature = mean("temperature")
    axes[-1].plot(at, temperature)
    axes[-1].locator_params(axis="x", nbins=4)
    axes[-1].set(title="Temperature", xlabel="environment steps", ylim=(0, None))
    print(
        f"temperature: {temperature[0]:.3g} at first, {temperature[50]:.3g} halfway, "
        f"{temperature[-1]:.3g} at the end"
    )
    figure.savefig(arguments.out, dpi=120)


if __name__ == "__main__":
    main()
