"""Measure how long a trial of a search takes beside a training of the same length.

    python benchmarks/tune.py --trials 20
    python benchmarks/tune.py --trials 20 --peers peers/bin/python

Both halves train PPO on CartPole-v1 for 20,000 steps, with the same evaluations:

- "search": `agentzoo.lab.tune` without pruning, so that every trial takes all its steps.
- "one setting": as many seeds of the defaults, one after the other in one process.

The two halves are processes of their own, which take turns. Each prints the seconds of all trials,
and the first one with its compilation. With --peers, Optuna searches over PPO of
Stable-Baselines3 in the given Python, with the same steps, evaluations and ranges. Nothing else
should run meanwhile. CPU times are also given, which other processes disturb less.
"""

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

STEPS, EVALUATIONS, EPISODES = 20_000, 10, 10

SEARCH = """
import json, time, optuna
from agentzoo.lab import tune
from agentzoo.lab.searching import study

optuna.pruners.MedianPruner = lambda **_: optuna.pruners.NopPruner()
began, cpu = time.perf_counter(), time.process_time()
found = tune("ppo", "CartPole-v1", {trials}, {steps}, evaluations={evaluations},
             episodes={episodes}, progress=None)
seconds = [trial.duration.total_seconds() for trial in found.study.trials]
print(json.dumps({{"total": time.perf_counter() - began, "cpu": time.process_time() - cpu,
                   "seconds": seconds, "best": found.score}}))
"""

ONE_SETTING = """
import json, time
import agentzoo
from agentzoo.lab.searching import trial

task = trial.Task(agentzoo.PPO, "CartPole-v1", {steps}, evaluations={evaluations},
                  episodes={episodes})
began, cpu = time.perf_counter(), time.process_time()
seconds, scores = [], []
for number in range({trials}):
    start = time.perf_counter()
    scores.append(trial.train(task, {{}}, number, lambda index, score: True))
    seconds.append(time.perf_counter() - start)
print(json.dumps({{"total": time.perf_counter() - began, "cpu": time.process_time() - cpu,
                   "seconds": seconds, "best": max(scores)}}))
"""

PEER = """
import json, time, optuna
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

optuna.logging.set_verbosity(optuna.logging.ERROR)

def objective(trial):
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1"), device="cpu",
        learning_rate=lambda remaining: rate * remaining,
        max_grad_norm=trial.suggest_float("max_grad_norm", 0.3, 5, log=True),
        gamma=trial.suggest_categorical("gamma", [0.9, 0.95, 0.98, 0.99, 0.995, 0.999]),
        gae_lambda=trial.suggest_float("gae_lambda", 0.8, 1),
        clip_range=trial.suggest_float("clip_range", 0.1, 0.4),
        ent_coef=trial.suggest_float("ent_coef", 1e-8, 0.1, log=True),
        vf_coef=trial.suggest_float("vf_coef", 0.2, 1), seed=trial.number)
    envs = make_vec_env("CartPole-v1", {episodes})
    callback = EvalCallback(envs, n_eval_episodes={episodes}, eval_freq={steps} // {evaluations},
                            verbose=0)
    model.learn({steps}, callback)
    return float(evaluate_policy(model, envs, {episodes})[0])

study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
began, cpu = time.perf_counter(), time.process_time()
study.optimize(objective, {trials})
seconds = [trial.duration.total_seconds() for trial in study.trials]
print(json.dumps({{"total": time.perf_counter() - began, "cpu": time.process_time() - cpu,
                   "seconds": seconds, "best": study.best_value}}))
"""


def run(python: str, program: str, trials: int, steps: int) -> dict[str, Any]:
    """Run a program in a process of its own, and return what it measured."""
    numbers = {"steps": steps, "evaluations": EVALUATIONS, "episodes": EPISODES}
    code = program.format(trials=trials, **numbers)
    done = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--steps", type=float, default=STEPS)
    parser.add_argument("--peers", help="Python interpreter with Stable-Baselines3 and Optuna")
    arguments = parser.parse_args()
    programs = {
        "search": (sys.executable, SEARCH),
        "one setting": (sys.executable, ONE_SETTING),
    }
    if arguments.peers:
        programs["Optuna over SB3"] = (arguments.peers, PEER)
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    for _ in range(arguments.repeats):
        for name, (python, program) in programs.items():
            measured[name].append(run(python, program, arguments.trials, int(arguments.steps)))
    per_trial, cpu = {}, {}
    for name, runs in measured.items():
        per_trial[name] = statistics.median(one["total"] / arguments.trials for one in runs)
        cpu[name] = statistics.median(one["cpu"] / arguments.trials for one in runs)
        first = statistics.median(one["seconds"][0] for one in runs)
        later = statistics.median(x for one in runs for x in one["seconds"][1:])
        best = max(one["best"] for one in runs)
        print(
            f"{name:16} {per_trial[name]:7.2f} s and {cpu[name]:6.2f} CPU seconds per trial; first "
            f"{first:6.2f} s, median of the others {later:6.2f} s; best return {best:.1f}"
        )
    ratio, of_cpu = (each["search"] / each["one setting"] for each in (per_trial, cpu))
    print(
        f"A trial takes {ratio:.2f} times as long as a training of one setting, and {of_cpu:.2f} "
        f"times as much CPU time (goal: at most 1.3)."
    )


if __name__ == "__main__":
    main()
