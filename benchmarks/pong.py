"""A long run on Pong, in as many parts as it takes.

    python benchmarks/pong.py runs/pong --steps 2e6
    python benchmarks/pong.py runs/pong --steps 2e6      # again: it goes on where it was

Every `--every` steps the whole agent is saved, replay included, and a line goes to `curve.csv`: environment steps and frames (4 a step),
seconds of training in all parts together, and the mean raw score of the last 100 training episodes. The run ends at `--steps`, at
`--score`, or after `--minutes` in this part. `--evaluate N` then plays N fresh episodes with the deterministic policy.

`--set` changes hyperparameters, as in `learning.py`: `--set cnn='"efficient"' n_steps=3 double_q=true`. A part may change them again.

Environment: `ALE/Pong-v5` as `agentzoo.make_env` makes it (sticky actions 0.25, a step is 4 frames). A gradient step is taken every 4
steps, however many environments there are.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import agentzoo
from agentzoo.algos.loading import find

ENV = "ALE/Pong-v5"
COLUMNS = ("step", "frames", "seconds", "score")


class Curve:
    """The rows of `curve.csv`; those after the step at which the agent was saved belong to a part that was lost."""

    def __init__(self, path: Path, step: int):
        self.path, self.rows = path, []
        if path.exists():
            with path.open() as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self.seconds = float(self.rows[-1]["seconds"]) if self.rows else 0.0

    def append(self, **row: object) -> None:
        """Adds a row, and writes the file anew."""
        self.rows.append(row)
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--algorithm", default="DQN", choices=("DQN", "QRDQN"))
    parser.add_argument("--steps", type=float, default=2e6, help="environment steps of the whole run, which its schedules follow")
    parser.add_argument("--every", type=int, default=50_000, help="steps between two saves")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for this part")
    parser.add_argument("--score", type=float, default=18.0, help="end when the mean training score reaches this")
    parser.add_argument("--n-envs", type=int, default=4, choices=(1, 2, 4))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-starts", type=int, default=10_000)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="hyperparameters to change, as JSON values")
    parser.add_argument("--evaluate", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    kind, path = find(arguments.algorithm), arguments.folder / "agent.safetensors"
    changes = {name: json.loads(value) for name, value in (change.split("=", 1) for change in arguments.set)}
    if path.exists():
        agent = kind.load(path, ENV, **changes)
    else:
        settings = {"train_freq": 4 // arguments.n_envs, "learning_starts": arguments.learning_starts, **changes}
        agent = kind(ENV, preset="pixels", n_envs=arguments.n_envs, seed=arguments.seed, **settings)
    curve = Curve(arguments.folder / "curve.csv", agent.num_timesteps)
    start = saved_at = time.perf_counter()
    saved_step, earlier = agent.num_timesteps, curve.seconds

    def keep(agent) -> bool:
        nonlocal saved_at, saved_step
        step, now = agent.num_timesteps, time.perf_counter()
        done = step >= arguments.steps or agent.ep_rew_mean >= arguments.score or now - start > 60 * arguments.minutes
        if done or step // arguments.every > saved_step // arguments.every:
            agent.save(path)
            row = {"step": step, "frames": 4 * step, "seconds": round(earlier + now - start), "score": round(agent.ep_rew_mean, 2)}
            curve.append(**row)
            print(row, f"{(step - saved_step) / (now - saved_at):.0f} steps/s", flush=True)
            saved_at, saved_step = now, step
        return not done

    if agent.num_timesteps < arguments.steps:
        agent.learn(arguments.steps - agent.num_timesteps, callback=keep, progress_bar=False, reset_num_timesteps=False)
    if arguments.evaluate:
        mean, std = agentzoo.evaluate_policy(agent, ENV, arguments.evaluate, seed=1_000_000 + arguments.seed)
        print(f"{agent.num_timesteps} steps: {mean:.1f} +- {std:.1f} over {arguments.evaluate} fresh episodes, deterministic policy")


if __name__ == "__main__":
    main()
