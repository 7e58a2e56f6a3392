"""The progress of a run, in a terminal and elsewhere."""

import contextlib
import io
import os
import re
import struct
import sys
import threading

import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agentzoo import DQN, IMPALA, MPO, PPO, QRDQN, SAC, learn_together
from agentzoo.progress import Budget, Progress
from tests import probes
from tests.agents import CATCH

# Windows has no pseudo-terminals.
fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))

OFF_POLICY = dict(net_arch=(8,), batch_size=8, learning_starts=8, train_freq=4, buffer_size=1_000)
SETTINGS = {
    DQN: OFF_POLICY,
    QRDQN: dict(OFF_POLICY, n_quantiles=4),
    SAC: OFF_POLICY,
    MPO: dict(OFF_POLICY, num_samples=4),
    PPO: dict(net_arch=(8,), n_steps=16, batch_size=8, n_epochs=1),
    IMPALA: dict(net_arch=(8,), n_steps=16),
}
CYCLES = {DQN: 4, QRDQN: 4, SAC: 4, MPO: 4, PPO: 16, IMPALA: 16}


@contextlib.contextmanager
def captured(monkeypatch, terminal):
    """Yield a list that holds, at the end, what was written to a pseudo-terminal or a pipe."""
    reading, writing = pty.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    text, chunks = [], []

    def read():
        with contextlib.suppress(OSError):  # which ends a pseudo-terminal
            while chunk := os.read(reading, 4096):
                chunks.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with open(writing, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        yield text
    reader.join()
    os.close(reading)
    text.append(b"".join(chunks).decode().replace("\r\n", "\n"))


def last(text):
    """The last state of a bar."""
    return re.split("[\r\n]+", text.rstrip())[-1]


@pytest.mark.parametrize("algorithm", SETTINGS, ids=lambda algorithm: algorithm.__name__)
@pytest.mark.parametrize("env", [probes.CueReward, CATCH], ids=["host", "device"])
def test_the_bar_ends_with_the_steps_that_were_taken(algorithm, env, monkeypatch):
    agent = algorithm(env, n_envs=3, **SETTINGS[algorithm])
    name, cycle = algorithm.__name__, 3 * CYCLES[algorithm]
    with captured(monkeypatch, terminal=True) as text:
        agent.learn(100)
    taken = -(-100 // cycle) * cycle
    assert agent.num_timesteps == taken
    note = f"{name} learns in cycles of {cycle} steps, so the budget of 100 steps is rounded up to"
    assert text[0].startswith(f"{note} {taken}.\n")
    assert f"| 0/{taken} [" in text[0] and text[0].count("\n") == 2  # one note, and one bar
    assert re.fullmatch(
        rf"{name}: 100%\|█+\| {taken}/{taken} \[.*step/s, return .*\]", last(text[0])
    )


@pytest.mark.parametrize("algorithm", [PPO, DQN], ids=lambda algorithm: algorithm.__name__)
def test_a_line_for_each_entry_of_the_log_where_there_is_no_terminal(
    algorithm, monkeypatch, tmp_path
):
    agent = algorithm(probes.CueReward, log_dir=tmp_path, **SETTINGS[algorithm])
    with captured(monkeypatch, terminal=False) as text:
        agent.learn(160, log_interval=64)
    lines = text[0].splitlines()
    assert "\r" not in text[0]
    assert [line.split(" steps ")[0] for line in lines] == [
        f"{algorithm.__name__}: {step}/160" for step in (64, 128, 160)
    ]
    assert [re.findall(r"\d+%", line) for line in lines] == [["40%"], ["80%"], ["100%"]]
    assert all("return" in line and "steps/s" in line for line in lines)
    with open(agent.run_dir / "progress.csv") as file:
        assert len(file.readlines()) == 1 + len(lines)


def test_the_steps_of_several_actors(monkeypatch):
    agent = IMPALA(probes.CueReward, n_envs=4, runner="threads", n_actors=2, **SETTINGS[IMPALA])
    with captured(monkeypatch, terminal=True) as text:
        agent.learn(100)
    assert "rounded up to 128." in text[0] and "| 128/128 [" in last(text[0])


def test_a_run_that_goes_on_begins_inside(monkeypatch):
    agent = PPO(probes.CueReward, **SETTINGS[PPO]).learn(20, progress_bar=False)
    with captured(monkeypatch, terminal=True) as text:
        agent.learn(40, reset_num_timesteps=False)
    assert "so the budget of 40 steps is rounded up to 48." in text[0]
    assert " 40%|" in text[0] and "| 32/80 [" in text[0] and "| 80/80 [" in last(text[0])
    with captured(monkeypatch, terminal=False) as text:
        agent.learn(16, reset_num_timesteps=False)
    assert text[0].startswith("PPO: 96/96 steps (100%)") and text[0].count("\n") == 1


def test_a_budget_that_needs_no_rounding_is_not_talked_about(monkeypatch):
    with captured(monkeypatch, terminal=True) as text:
        PPO(probes.CueReward, **SETTINGS[PPO]).learn(32)
    assert "rounded" not in text[0] and "100%" in last(text[0])


def test_a_run_that_is_too_short_to_learn(monkeypatch):
    agent = DQN(probes.CueReward, **{**SETTINGS[DQN], "learning_starts": 1_000})
    for terminal in (True, False):
        with captured(monkeypatch, terminal) as text:
            agent.learn(40)
        assert "40/40" in last(text[0]) and "100%" in last(text[0])


@pytest.mark.parametrize("terminal", [True, False])
def test_dummy_steps_do_not_count(terminal, monkeypatch):
    envs = SyncVectorEnv([probes.CueReward] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    agent = PPO(envs, **SETTINGS[PPO])
    with captured(monkeypatch, terminal) as text:
        agent.learn(70)
    taken = agent.num_timesteps
    assert taken == 80  # it would be 96 if every step counted
    assert text[0].startswith("PPO learns in cycles of up to 32 steps, and training ends with")
    assert f"{taken}/{taken}" in last(text[0]) and "100%" in last(text[0])


@pytest.mark.parametrize("terminal", [True, False])
def test_a_run_that_is_stopped_stays_where_it_was(terminal, monkeypatch):
    agent = DQN(probes.CueReward, **SETTINGS[DQN])
    with captured(monkeypatch, terminal) as text:
        agent.learn(100, lambda agent: agent.num_timesteps < 24)
    assert "24/100" in last(text[0]) and "24%" in last(text[0])


@pytest.mark.parametrize("env", [probes.CueReward, CATCH], ids=["in turn", "as one"])
@pytest.mark.parametrize("terminal", [True, False])
def test_several_agents(env, terminal, monkeypatch):
    agents = [PPO(env, seed=seed, **SETTINGS[PPO]) for seed in range(2)]
    with captured(monkeypatch, terminal) as text:
        learn_together(agents, 72, log_interval=50)  # the last entry is due before the end
    assert text[0].startswith(
        "PPO learns in cycles of 16 steps, so the budget of 72 steps is rounded"
    )
    assert text[0].count("rounded") == 1
    assert "2 agents: " in last(text[0]) and "160/160" in last(text[0]) and "100%" in last(text[0])
    with captured(monkeypatch, terminal) as text:
        learn_together(agents, 16, reset_num_timesteps=False)
        learn_together(agents, 16, progress_bar=False)
    assert "32/32" in last(text[0]) and text[0].count("\n") == 1


def test_a_notebook_keeps_its_bar(monkeypatch):
    class OutStream(io.StringIO):  # what a notebook has in the place of stderr is no terminal
        pass

    OutStream.__module__ = "ipykernel.iostream"
    stream = OutStream()
    monkeypatch.setattr(sys, "stderr", stream)
    DQN(probes.CueReward, **SETTINGS[DQN]).learn(40)
    assert "100%|##########|" in stream.getvalue()


def test_without_any_output(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)  # as in `pythonw`
    assert PPO(probes.CueReward, **SETTINGS[PPO]).learn(40).num_timesteps == 48


def test_the_rate_of_a_line_is_that_since_the_last(monkeypatch):
    clock = iter([0.0, 10.0, 12.0])
    monkeypatch.setattr("agentzoo.progress.time.perf_counter", lambda: next(clock))
    with captured(monkeypatch, terminal=False) as text:
        progress = Progress("DQN", 0, 400)
        progress.move(100, 400, due=True)
        progress.move(200, 400, "return 1.0", due=True)
        progress.close()
    first, second = text[0].splitlines()
    assert "10 steps/s" in first and "00:10 elapsed, 00:30 left" in first
    assert "50 steps/s" in second and "00:12 elapsed, 00:04 left" in second


def test_budgets():
    budget = Budget(first=32, goal=72, cycle=16, exact=True)
    assert [budget.end(step) for step in (32, 48, 64, 71, 72, 80)] == [80, 80, 80, 87, 72, 80]
    assert budget.note("PPO") and Budget(0, 32, 16, True).note("PPO") is None
