"""Compare bandit algorithms over many seeds, and plot their regret in `bandit_regret.png`."""

import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from agentzoo.core import bandits
from agentzoo.envs import MultiArmedBandit

PULLS, SEEDS, A = 2_000, 100, 5
BERNOULLI = MultiArmedBandit(means=(0.1, 0.3, 0.5, 0.7, 0.9))
GAUSSIAN = MultiArmedBandit(means=(-1.0, -0.5, 0.0, 0.5, 1.0), std=1.0)
GAMMA = min(1.0, math.sqrt(A * math.log(A) / ((math.e - 1) * PULLS)))

PANELS = {
    "rewards of 0 or 1": BERNOULLI,
    "Gaussian rewards with a standard deviation of 1": GAUSSIAN,
}
LEARNERS = {
    "ε-greedy, ε = 0.1": {
        env: bandits.epsilon_greedy_bandit(A, 0.1) for env in (BERNOULLI, GAUSSIAN)
    },
    "ε-greedy, ε = 50 / t": {BERNOULLI: bandits.epsilon_greedy_bandit(A, lambda t: 50 / t)},
    "UCB": {BERNOULLI: bandits.ucb_bandit(A), GAUSSIAN: bandits.ucb_bandit(A, exploration=8.0)},
    "Thompson sampling": {
        BERNOULLI: bandits.thompson_bernoulli_bandit(A),
        GAUSSIAN: bandits.thompson_gaussian_bandit(A),
    },
    "EXP3": {BERNOULLI: bandits.exp3_bandit(A, GAMMA)},
    "gradient": {
        BERNOULLI: bandits.gradient_bandit(A, 0.2),
        GAUSSIAN: bandits.gradient_bandit(A, 0.1),
    },
}


def play(env: MultiArmedBandit, bandit: bandits.Bandit, key: jax.Array) -> jax.Array:
    """Return the cumulative regret `[PULLS]` of one learner."""
    arms, _ = env.reset(key)

    def pull(state, key):
        act_key, step_key = jax.random.split(key)
        arm = bandit.act(act_key, state)
        _, step = env.step(arms, arm, step_key)
        return bandit.update(state, arm, step.reward), env.regret(arms, arm)

    return jnp.cumsum(jax.lax.scan(pull, bandit.init(), jax.random.split(key, PULLS))[1])


def main() -> None:
    """Run all learners and plot their regret."""
    figure, axes = plt.subplots(1, len(PANELS), figsize=(11, 4.5), layout="constrained")
    keys = jax.random.split(jax.random.key(0), SEEDS)
    for axis, (title, env) in zip(axes, PANELS.items(), strict=True):
        for color, (name, bandit_of) in enumerate(LEARNERS.items()):
            if env in bandit_of:
                regret = jax.jit(
                    jax.vmap(lambda key, env=env, bandit=bandit_of[env]: play(env, bandit, key))
                )(keys)
                mean, error = regret.mean(axis=0), regret.std(axis=0) / math.sqrt(SEEDS)
                axis.plot(range(1, PULLS + 1), mean, color=f"C{color}", label=name)
                axis.fill_between(
                    range(1, PULLS + 1),
                    mean - 2 * error,
                    mean + 2 * error,
                    color=f"C{color}",
                    alpha=0.2,
                    linewidth=0,
                )
                print(f"{title}: {name}: {mean[-1]:.1f} +- {error[-1]:.1f}")
        axis.set(
            title=f"5 arms, {title}",
            xlabel="pulls",
            ylabel="cumulative regret",
            xlim=(0, PULLS),
            ylim=(0, None),
        )
        axis.grid(alpha=0.3)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(LEARNERS),
        frameon=False,
    )
    figure.suptitle(f"Mean of {SEEDS} seeds, with two standard errors")
    figure.savefig("bandit_regret.png", dpi=150)


if __name__ == "__main__":
    main()
