"""Run a long task of `learning.py` in several parts.

    python benchmarks/parts.py runs/pong qrdqn-pong --score 17
    python benchmarks/parts.py runs/pong qrdqn-pong --score 17      # continues the run

Every `--every` steps, the script saves the whole agent, including its replay buffer, and adds a
line to `curve.csv`: environment steps, seconds of training in all parts together, and the mean raw
score of the last 100 training episodes. With `--episodes N`, the line also has the mean score of N
fresh episodes with the deterministic policy, and the time that they take does not count. The run
ends at `--steps` or at a mean training score of `--score`, and the part ends after `--minutes`.

`--set` changes hyperparameters, as in `learning.py`. A part continues with the hyperparameters of
the part before, and may change them again.
"""

import argparse
import csv
import time
from pathlib import Path

from learning import TASKS, read_changes

import agentzoo
from agentzoo.algos.loading import find

COLUMNS = ("step", "seconds", "score", "evaluation")


class Curve:
    """The rows of `curve.csv` up to the step at which the agent was saved.

    Later rows belong to a part that was lost.
    """

    def __init__(self, path: Path, step: int):
        self.path, self.rows = path, []
        if path.exists():
            with path.open() as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self.seconds = float(self.rows[-1]["seconds"]) if self.rows else 0.0

    def append(self, **row: object) -> None:
        """Add a row, and write the whole file."""
        self.rows.append(row)
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument(
        "--steps",
        type=float,
        help="environment steps of the whole run, on which schedules depend; default: the task's",
    )
    parser.add_argument("--every", type=int, default=10_000, help="steps between two saves")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="time of this part")
    parser.add_argument(
        "--score",
        type=float,
        default=float("inf"),
        help="mean training score at which the run ends",
    )
    parser.add_argument(
        "--episodes", type=int, default=0, metavar="N", help="fresh episodes at every save"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="hyperparameters to change, as JSON values",
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    task = TASKS[arguments.task]
    env, steps = task.env, int(arguments.steps or task.steps)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    algorithm = find(task.algorithm)
    path = arguments.folder / "agent.safetensors"
    changes = read_changes(arguments.set)
    if path.exists():
        agent = algorithm.load(path, env, **changes)
    else:
        agent = algorithm(env, seed=arguments.seed, **{**task.hyperparameters, **changes})
    curve = Curve(arguments.folder / "curve.csv", agent.num_timesteps)
    start = saved_at = time.perf_counter()
    saved_step = agent.num_timesteps
    seconds = curve.seconds  # of training in the parts before
    lost = 0.0  # seconds of this part that were not training

    def keep(agent) -> bool:
        nonlocal saved_at, saved_step, lost
        step, now = agent.num_timesteps, time.perf_counter()
        done = (
            step >= steps
            or agent.ep_rew_mean >= arguments.score
            or now - start > 60 * arguments.minutes
        )
        if done or step // arguments.every > saved_step // arguments.every:
            speed = (step - saved_step) / (now - saved_at)
            agent.save(path)
            row = {
                "step": step,
                "seconds": round(seconds + now - start - lost),
                "score": round(agent.ep_rew_mean, 2),
                "evaluation": "",
            }
            if arguments.episodes:
                mean, _ = agentzoo.evaluate_policy(
                    agent, env, arguments.episodes, seed=1_000_000 + arguments.seed
                )
                row["evaluation"] = round(float(mean), 2)
            curve.append(**row)
            print(row, f"{speed:.0f} steps/s", flush=True)
            saved_at, saved_step = time.perf_counter(), step
            lost += saved_at - now
        return not done

    if agent.num_timesteps < steps:
        agent.learn(
            steps - agent.num_timesteps,
            callback=keep,
            progress_bar=False,
            reset_num_timesteps=False,
        )


if __name__ == "__main__":
    main()
