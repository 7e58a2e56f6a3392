"""Plot the distributions of returns that QR-DQN learns, in a safe and a dangerous CartPole state.

It needs matplotlib: `pip install agentzoo[plots]`.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from agentzoo import QRDQN

STATES = {"upright and still": [0.0, 0.0, 0.0, 0.0], "falling to the right": [0.0, 0.0, 0.15, 1.0]}


def draw(agent: QRDQN, path: Path) -> None:
    figure, axes = plt.subplots(1, len(STATES), figsize=(9, 3.5), sharey=True, layout="constrained")
    for axis, (name, state) in zip(axes, STATES.items(), strict=True):
        for action, quantiles in zip(
            ("push left", "push right"), agent.quantiles(np.array(state)), strict=True
        ):
            levels = (np.arange(len(quantiles)) + 0.5) / len(quantiles)
            axis.step(
                quantiles, levels, where="mid", label=f"{action}, mean {quantiles.mean():.1f}"
            )
        axis.set(title=name, xlabel="discounted return", ylim=(0, 1))
        axis.legend(loc="upper left")
    axes[0].set_ylabel("probability of at most this return")
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    agent = QRDQN("CartPole-v1", gamma=0.95).learn(5e4)
    draw(agent, Path("return_distribution.png"))
    print("Saved return_distribution.png")
