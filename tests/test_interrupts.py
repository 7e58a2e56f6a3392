"""Whatever exception arrives at whatever moment, an agent keeps the last finished cycle."""

import _thread
import contextlib
import ctypes
import functools
import gc
import queue
import random
import signal
import subprocess
import sys
import threading
import time
import weakref

import gymnasium as gym
import jax
import pytest
from gymnasium.vector import AsyncVectorEnv

import agentzoo
from agentzoo import background
from agentzoo.background import Background, with_signals_deferred
from agentzoo.callbacks import BaseCallback
from agentzoo.envs.guard import Caller
from agentzoo.runners import handover
from agentzoo.training import together, trainer
from agentzoo.training.interrupts import TERMINATED, FirstError, insist, interrupts
from agentzoo.training.turns import Turns
from agentzoo.types import ConfigurationError
from tests.agents import CATCH, SETTINGS, arrays, assert_same, make

ALGORITHMS = sorted(SETTINGS)
CONTINUOUS = ("SAC", "MPO")
TOTAL = 10**8


# Python ignores exceptions that arrive while it collects garbage.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Break(BaseException):
    """Raised by the handler of a signal, or in a thread from outside."""


@contextlib.contextmanager
def alarm(seconds, interval=0.0):
    """Raise `Break` from the handler of a signal after some seconds, and then at an interval."""

    def ring(*_):
        raise Break

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, interval)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextlib.contextmanager
def asynchronous(seconds):
    """Raise `Break` in this thread, from another thread, after some seconds."""
    thread = threading.get_ident()
    raised = []

    def strike():
        raised.append(True)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Break))

    timer = threading.Timer(seconds, strike)
    timer.start()
    try:
        yield
        # Nobody was interrupted, so the exception may still come.
        timer.cancel()
        timer.join()
        time.sleep(0.01 if raised else 0)
    finally:
        timer.cancel()
        timer.join()


class InjectedAt:
    """Raises `Break` at an instruction of Python code, counted from 1.

    An asynchronous exception arrives between two instructions, too, but nobody can choose which.

    Args:
      at: the number of the instruction.
      parts: parts of the names of the files whose instructions count.

    Attributes:
      count: how many instructions were executed.
    """

    def __init__(self, at, parts):
        self.at = at
        self.parts = parts
        self.count = 0

    def __enter__(self):
        self.previous = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *_):
        sys.settrace(self.previous)

    def _call(self, frame, event, argument):
        if any(part in frame.f_code.co_filename for part in self.parts):
            frame.f_trace_opcodes = True
            return self._step
        return None

    def _step(self, frame, event, argument):
        if event == "opcode":
            self.count += 1
            if self.count == self.at:
                raise Break
        return self._step


def go_on(agent, callback=None):
    agent.learn(
        TOTAL - agent.num_timesteps, callback, progress_bar=False, reset_num_timesteps=False
    )


def interrupt(agent, how):
    """Break off the training of an agent again and again."""
    rng = random.Random(0)
    for _ in range(8):
        end = time.monotonic() + 1.0  # Python may have ignored the exception
        with contextlib.suppress(Break), how(rng.uniform(1e-4, 0.02)):
            go_on(agent, lambda _, end=end: time.monotonic() < end)
        assert not any(x.is_deleted() for x in jax.tree.leaves(agent.learner_state))


class StopAt(BaseCallback):
    """Ends the training at an environment step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def next_step(self, step):
        return self.step

    def _on_step(self):
        return self.num_timesteps < self.step


@pytest.mark.parametrize("how", [alarm, asynchronous])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_compiled_training_survives_exceptions(algorithm, how):
    env = "agentzoo/Pendulum-v0" if algorithm in CONTINUOUS else CATCH
    agent, other = (make(algorithm, env, runner="device") for _ in range(2))
    for one in (agent, other):  # compiles
        go_on(one, StopAt(64))
    interrupt(agent, how)
    assert agent.num_timesteps > 64
    go_on(other, StopAt(agent.num_timesteps))
    assert_same(agent, other)


@pytest.mark.parametrize("how", [alarm, asynchronous])
@pytest.mark.parametrize("runner", ["host", "threads"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_in_python_survives_exceptions(algorithm, how, runner):
    env = "Pendulum-v1" if algorithm in CONTINUOUS else "CartPole-v1"
    agent = make(algorithm, env, runner=runner)
    agent.learn(64, progress_bar=False)
    interrupt(agent, how)
    agent.learn(32, progress_bar=False)


class Slow(gym.Wrapper):
    """Waits in each step, and fails if two threads step it at the same time."""

    inside = False

    def step(self, action):
        if self.inside:
            raise AssertionError("Two threads step the environment.")
        self.inside = True
        time.sleep(0.3)
        self.inside = False
        return super().step(action)


def slow():
    return Slow(gym.make("CartPole-v1"))


# A second exception interrupts the end of a run, which waits for its threads.
@pytest.mark.parametrize("interval", [0.0, 0.1])
@pytest.mark.parametrize(
    "options", [{"runner": "threads"}, {"runner": "host", "env_timeout": 10}, {"runner": "host"}]
)
def test_what_the_run_before_has_begun_is_awaited(options, interval):
    if len(options) == 1 and options["runner"] == "host":
        env = AsyncVectorEnv([slow, slow])
    else:
        env = slow()
    agent = make("DQN", env, **options)
    agent.learn(8, progress_bar=False)
    with pytest.raises(Break), alarm(0.1, interval):
        go_on(agent)
    go_on(agent, StopAt(agent.num_timesteps + 8))
    env.close()


def test_groups_survive_exceptions():
    agents, others = ([make("DQN", CATCH, seed=i) for i in range(3)] for _ in range(2))
    for group in (agents, others):
        agentzoo.learn_together(group, 64, progress_bar=False)
    rng = random.Random(0)
    breaks = 0
    while agents[0].num_timesteps < 8_000:
        rest = 8_000 - agents[0].num_timesteps
        try:
            with alarm(rng.uniform(0.005, 0.1)):
                agentzoo.learn_together(agents, rest, progress_bar=False, reset_num_timesteps=False)
        except Break:
            breaks += 1
        assert len({agent.num_timesteps for agent in agents}) == 1
    assert breaks
    agentzoo.learn_together(others, 8_000 - 64, progress_bar=False, reset_num_timesteps=False)
    for agent, other in zip(agents, others, strict=True):
        assert_same(agent, other)


PARTS = ("agentzoo/training", "agentzoo/runners", "agentzoo/background", "contextlib")


@pytest.mark.parametrize("runner", ["host", "device", "threads"])
@pytest.mark.parametrize("is_first", [False, True])
def test_an_exception_at_any_instruction_loses_nothing(runner, is_first, tmp_path):
    """Tries instructions at random. In the first call of a program, JAX executes Python code."""

    def learn(at, parts=PARTS):
        if is_first:
            jax.clear_caches()
        with InjectedAt(at, parts) as injected:
            agent.learn(24, progress_bar=False, reset_num_timesteps=False)
        return injected.count

    agent = make("DQN", "CartPole-v1" if runner != "device" else CATCH, runner=runner)
    agent.learn(64, progress_bar=False)
    parts = (*PARTS, "jax/_src/pjit", "jax/_src/interpreters/pxla") if is_first else PARTS
    most = learn(-1, parts)
    rng = random.Random(0)
    for _ in range(30 if is_first else 100):
        before = agent.num_timesteps
        with contextlib.suppress(Break):
            learn(rng.randint(1, most), parts)
        assert not any(x.is_deleted() for x in jax.tree.leaves(agent.learner_state))
        assert before <= agent.num_timesteps <= before + 24
    agent.learn(24, progress_bar=False, reset_num_timesteps=False)


class ClearingCaches(BaseCallback):
    """Drops all compiled programs after each training cycle, as a user may."""

    def _on_step(self):
        jax.clear_caches()
        return True


@pytest.mark.parametrize("how", [alarm, asynchronous])
@pytest.mark.parametrize("runner", ["host", "device", "threads"])
def test_the_first_call_of_a_program_is_not_interrupted(runner, how):
    """JAX executes Python code in the first call, where an exception would lose the results."""
    for delay in (0.02, 0.1, 0.2, 0.3, 0.5):
        # Gymnasium's checker does not survive an exception in the first reset.
        env = CATCH if runner == "device" else lambda: gym.make(CATCH, disable_env_checker=True)
        agent = make("DQN", env, runner=runner, seed=int(1e3 * delay))
        with contextlib.suppress(Break), how(delay):
            agent.learn(400, ClearingCaches(), progress_bar=False)
        assert not any(x.is_deleted() for x in jax.tree.leaves(agent.learner_state))
        agent.learn(8, progress_bar=False, reset_num_timesteps=False)


@pytest.mark.parametrize("runner", ["host", "device", "threads"])
def test_settings_of_a_thread_hold_in_those_that_work_for_it(runner):
    """Otherwise, the program that another thread has called would be compiled again."""
    device = jax.devices()[1]
    with jax.default_device(device), jax.debug_nans(True):
        agent = make("DQN", CATCH, runner=runner, net_arch=(13,)).learn(64, progress_bar=False)
        programs = agent.trainer.runner._chunk if runner == "device" else agent.trainer.programs
        learn = programs if runner == "device" else programs.learn
        assert learn.is_hot and learn.compiled._cache_size() == 1
    assert {x.device for x in jax.tree.leaves(agent.params)} == {device}


@pytest.mark.parametrize("runner", ["host", "device", "threads"])
def test_the_mesh_of_a_thread_holds_in_those_that_work_for_it(runner, monkeypatch):
    """Otherwise, JAX would compile in the main thread, and signals would wait for it."""

    def fail(_):
        raise AssertionError("The first call was made in the main thread.")

    monkeypatch.setattr(handover, "with_signals_deferred", fail)
    axis_types = (jax.sharding.AxisType.Auto,)
    with jax.set_mesh(jax.make_mesh((1,), ("x",), axis_types=axis_types)):
        make("DQN", CATCH, runner=runner).learn(64, progress_bar=False)


def test_a_program_is_hot_only_if_jax_knows_its_results_as_arguments():
    """In the first call, the state may be another kind of array than the program returns."""

    class Watch(BaseCallback):
        was_hot, known = False, 0

        def _on_step(self):
            chunk = self.model.trainer.runner._chunk
            known = chunk.compiled._cache_size()
            assert known == self.known or not self.was_hot
            self.was_hot, self.known = chunk.is_hot, known
            return True

    for steps in (4, 400):
        agent = make("DQN", CATCH, runner="device", net_arch=(9,))
        state = agent.learner_state
        agent.learner_state = jax.tree.map(lambda x: jax.device_put(x, jax.devices()[0]), state)
        agent.learn(steps, Watch(), progress_bar=False)
        assert (agent.trainer.runner._chunk.is_hot) == (steps > 4)


@pytest.mark.parametrize("runner", ["host", "device", "threads"])
def test_exceptions_that_interrupt_the_end_of_a_run_lose_nothing(runner, monkeypatch):
    def fail(*_):
        raise Break

    agent, other = (make("DQN", CATCH, runner=runner, max_lag=0) for _ in range(2))
    for one in (agent, other):
        one.learn(64, progress_bar=False)
    with monkeypatch.context() as patched, pytest.raises(Break):
        patched.setattr(trainer.Trainer, "take_over", fail)
        patched.setattr(trainer, "insist", fail)
        go_on(agent)
    assert not any(x.is_deleted() for x in jax.tree.leaves(agent.learner_state))
    assert agent.num_timesteps > 64
    for one in (agent, other):
        go_on(one, StopAt(128))
    assert_same(agent, other)


def test_exceptions_that_interrupt_the_end_of_a_run_lose_no_agent_of_a_group(monkeypatch):
    def fail(*_):
        raise Break

    agents, others = ([make("DQN", CATCH, seed=i) for i in range(2)] for _ in range(2))
    with monkeypatch.context() as patched, pytest.raises(Break):
        patched.setattr(together._Together, "hand_over", fail)
        patched.setattr(together, "insist", fail)
        agentzoo.learn_together(agents, 64, progress_bar=False)
    agentzoo.learn_together(others, 64, progress_bar=False)
    for agent, other in zip(agents, others, strict=True):
        assert_same(agent, other)
        agent.learn(8, progress_bar=False, reset_num_timesteps=False)
        assert agent.num_timesteps == 72


def test_an_error_at_the_end_of_a_run_does_not_hide_the_first_one():
    class Bad(BaseCallback):
        def _on_step(self):
            raise ZeroDivisionError("first")

        def _on_training_end(self):
            raise KeyError("second")

    agent = make("DQN", CATCH)
    with pytest.raises(ZeroDivisionError, match="first") as caught:
        agent.learn(64, Bad(), progress_bar=False)
    assert caught.value.__notes__ == ["After this, KeyError was raised: 'second'"]
    agent.learn(64, progress_bar=False)


WITH_WORKERS = """
import os, signal, threading, time
import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv
from tests.agents import make
agent = make("DQN", lambda: AsyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2))
agent.learn(64, progress_bar=False)
threading.Timer(0.3, os.killpg, (0, signal.SIGINT)).start()
try:
    agent.learn(1e8, progress_bar=False)
except KeyboardInterrupt:
    time.sleep(1.0)  # the workers end
    agent.learn(64, progress_bar=False, reset_num_timesteps=False)
    print("interrupted")
"""


def test_ctrl_c_in_a_terminal_also_interrupts_workers():
    done = subprocess.run(
        [sys.executable, "-c", WITH_WORKERS],
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,  # a group of processes, as in a terminal
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


SCRIPT = """
import os, signal, sys, threading, time
from tests.agents import make
agent = make({algorithm!r}, {env!r}, runner={runner!r}, log_dir=sys.argv[1])
def terminate(agent):
    if agent.num_timesteps >= 64:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
agent.learn(1e8, terminate, progress_bar=False)
"""


@pytest.mark.parametrize("runner", ["host", "device"])
def test_sigterm_saves_the_agent(runner, tmp_path):
    script = SCRIPT.format(algorithm="DQN", env=CATCH, runner=runner)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 143 and done.stderr == ""
    [folder] = tmp_path.iterdir()
    agent = agentzoo.load(folder, CATCH)
    assert agent.num_timesteps >= 64
    agent.learn(32, progress_bar=False, reset_num_timesteps=False)


COMPILING = """
import os, signal, sys, time
import jax
from tests.agents import make, CATCH
def compile(lowered):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1000)
jax.stages.Lowered.compile = compile
make("DQN", CATCH, runner={runner!r}, log_dir=sys.argv[1]).learn(1e8, progress_bar=False)
"""


@pytest.mark.parametrize("runner", ["host", "device", "threads"])
def test_sigterm_does_not_wait_for_the_compiler(runner, tmp_path):
    script = COMPILING.format(runner=runner)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 143 and done.stderr == ""
    [folder] = tmp_path.iterdir()
    agent = agentzoo.load(folder, CATCH)
    agent.learn(32, progress_bar=False, reset_num_timesteps=False)


TRACING = """
import hashlib, os, signal, sys, threading
from tests.agents import make, CATCH
from agentzoo.callbacks import EvalCallback
from agentzoo.runners import programs
reset_memory = programs.reset_memory
def slow(*arguments):
    if sys._getframe(1).f_code.co_name == {function!r}:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # C code, which no signal interrupts
    return reset_memory(*arguments)
programs.reset_memory = slow
evaluation = EvalCallback(CATCH, eval_freq=4, n_eval_episodes=1)
agent = make("DQN", CATCH, runner={runner!r}, log_dir=sys.argv[1])
agent.learn(1e8, evaluation, progress_bar=False)
"""


@pytest.mark.parametrize(
    ("function", "runner"),
    [("act", "host"), ("act", "threads"), ("predict", "host"), ("predict", "device")],
)
def test_sigterm_does_not_wait_for_a_slow_network(function, runner, tmp_path):
    """JAX executes a network's Python code when it compiles `act` or `predict`."""
    script = TRACING.format(function=function, runner=runner)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 143 and done.stderr == ""
    [folder] = tmp_path.iterdir()
    agentzoo.load(folder, CATCH)


ENDING = """
import os, sys, time
from agentzoo import background
background.Background(time.sleep, 1000, name="compile", awaited=True).start()
"""
CLOSED = "background.exit_code = 143; sys.stdout.close()"
FORKED = """
child = os.fork()
if child:
    background.end_process(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
sys.exit(143)
"""


@pytest.mark.parametrize("how", [CLOSED, FORKED], ids=["closed", "forked"])
def test_a_process_ends_although_a_thread_is_running(how):
    """A closed output does not prevent it. The thread does not exist in a forked process."""
    command = [sys.executable, "-W", "ignore", "-c", ENDING + how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 143 and done.stderr == ""


SLOW = """
import os, signal, sys, threading, time
import gymnasium as gym
from tests.agents import make
class Slow(gym.Wrapper):
    def step(self, action):
        if agent.num_timesteps >= 64:
            if signals:
                os.kill(os.getpid(), signals.pop())
            time.sleep(1000)
        return super().step(action)
signals = [signal.SIGTERM]
make_env = lambda: Slow(gym.make("CartPole-v1"))
agent = make("DQN", make_env, runner="threads", log_dir=sys.argv[1])
agent.learn(1e8, progress_bar=False)
"""


def test_sigterm_does_not_wait_for_slow_environments_in_threads(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SLOW, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 143 and done.stderr == ""
    [folder] = tmp_path.iterdir()
    assert agentzoo.load(folder, "CartPole-v1").num_timesteps >= 64


def test_threads_learn_whether_the_process_ends():
    """A callback that ends the process is outside of the runner, which closes its threads."""
    agent = make("DQN", slow, runner="threads")
    with pytest.raises(SystemExit):
        agent.learn(1e8, lambda _: sys.exit(3), progress_bar=False)
    agent.learn(8, progress_bar=False)  # waits for the threads


def test_an_interrupt_does_not_leave_a_thread_waiting_for_its_turn():
    turns = Turns()
    calls, results = [], []

    def function():
        calls.append(threading.get_ident())
        if len(calls) == 1:
            raise Break
        return "result"

    thread = threading.Thread(target=lambda: results.append(turns.call(function)), daemon=True)
    with pytest.raises(Break), turns.learning():
        thread.start()
        while not turns.is_awaited:
            time.sleep(0.001)
        turns.serve()
    thread.join(10)
    assert results == ["result"] and len(calls) == 2


def test_handlers_of_signals_are_restored_whatever_they_raise(monkeypatch):
    arrived = []

    def fail(number, _):
        arrived.append(number)
        raise Break

    numbers = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM]
    previous = {number: signal.signal(number, fail) for number in numbers}
    original = signal.signal

    def exchange(at, number, handler):
        if at == (number, handler is fail):
            signal.raise_signal(number)
        return original(number, handler)

    try:
        for at in ((signal.SIGUSR2, False), (signal.SIGUSR1, True)):
            arrived.clear()
            with monkeypatch.context() as patched, pytest.raises(Break):
                patched.setattr(signal, "signal", functools.partial(exchange, at))
                with_signals_deferred(lambda: None)
            assert arrived and all(signal.getsignal(number) is fail for number in numbers)
        arrived.clear()
        with pytest.raises(Break):
            with_signals_deferred(lambda: [signal.raise_signal(number) for number in numbers])
        assert arrived == numbers
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def test_a_thread_whose_start_is_broken_off_is_known():
    """Raises an exception at each instruction of `start`."""
    outcomes = set()
    for instruction in range(1, 200):
        go_on, ran = queue.SimpleQueue(), []
        background = Background(lambda ran=ran, go_on=go_on: (ran.append(1), go_on.get()), name="")
        try:
            with InjectedAt(instruction, parts=("agentzoo/background",)):
                background.start()
        except Break:
            started = background.running
            outcomes.add(started)
            time.sleep(0.01)
            assert bool(ran) == started
        else:
            break
        finally:
            go_on.put(None)
            assert background.wait(10)
    assert outcomes == {False, True}


def test_a_thread_that_cannot_be_started_holds_no_arrays(monkeypatch):
    def fail(*_):
        raise RuntimeError("can't start new thread")

    array = jax.numpy.zeros(3)
    reference = weakref.ref(array)
    thread = Background(print, array, name="test", awaited=True)
    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(_thread, "start_new_thread", fail)
        thread.start()
    del array, thread
    gc.collect()
    assert reference() is None and not any(one.name == "test" for one in background.running())


def test_a_run_in_another_thread_does_not_change_how_the_process_ends():
    def run():
        with interrupts(True):
            pass

    background.exit_code = TERMINATED
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert background.exit_code == TERMINATED
    finally:
        background.exit_code = None


def test_another_thread_may_begin_to_train_as_soon_as_one_has_ended():
    class Handing(Turns):
        """Lets another thread begin at once when the first one has ended."""

        @property
        def _learner(self):
            return self.learner

        @_learner.setter
        def _learner(self, learner):
            had, self.learner = getattr(self, "learner", None), learner
            if had == threading.get_ident() and learner is None and not begun.is_set():
                thread.start()
                begun.wait(10)

    def learn():
        with turns.learning():
            begun.set()
            ended.wait(10)

    begun, ended = threading.Event(), threading.Event()
    thread = threading.Thread(target=learn)
    turns = Handing()
    with turns.learning():
        pass
    assert turns.is_learning
    ended.set()
    thread.join()
    assert not turns.is_learning


@pytest.mark.parametrize("where", ["call", "close"])
def test_a_caller_survives_an_exception_at_any_instruction(where):
    """During `call`, it comes after another exception, which has broken off the wait."""

    class Interrupted:
        def __init__(self, results):
            self.results = results

        def get(self, timeout):
            server.results = self.results
            raise Break

    for instruction in range(1, 400):
        caller = Caller(2.0)
        assert caller.call(lambda: 0) == 0
        server = caller._server
        with contextlib.suppress(Break), InjectedAt(instruction, ("agentzoo/envs/guard",)) as trace:
            if where == "close":
                caller.close()
            else:
                server.results = Interrupted(server.results)
                caller.call(lambda: 1)
        if isinstance(server.results, Interrupted):
            server.results = server.results.results
        assert caller.call(lambda: 2) == 2
        caller.close()
        if trace.count < instruction:
            break
    assert trace.count < instruction


def test_a_thread_that_ends_before_it_has_begun_is_started_again(monkeypatch):
    """Python may give it an asynchronous exception that was meant for the thread that starts it."""
    original, starts, ran = _thread.start_new_thread, [], []

    def start(target, arguments):
        starts.append(1)
        return original(target if len(starts) == 3 else int, arguments)

    monkeypatch.setattr(_thread, "start_new_thread", start)
    background = Background(ran.append, 1, name="")
    background.start()
    assert background.wait(10) and len(starts) == 3 and ran == [1]


@pytest.mark.parametrize("change", ["environments", "state"])
def test_what_training_uses_cannot_be_exchanged_while_the_agent_learns(change):
    def exchange(agent):
        if change == "environments":
            agent.set_env(CATCH, n_envs=2)
        else:
            agent.learner_state = agent.learner_state

    agent = make("DQN", CATCH)
    with pytest.raises(ConfigurationError, match="while the agent is learning"):
        agent.learn(64, exchange, progress_bar=False)
    exchange(agent)
    agent.learn(32, progress_bar=False)


def test_a_new_run_forgets_the_last_cycle_of_the_one_before():
    class Bad(BaseCallback):
        def _on_rollout_start(self):
            self.begun = self.model.trainer.runner.rollout_state
            raise Break

    agent = make("DQN", CATCH, runner="device").learn(64, progress_bar=False)
    with pytest.raises(Break):
        agent.learn(64, bad := Bad(), progress_bar=False)
    assert agent.trainer.runner.rollout_state is bad.begun


def test_parts_keep_the_first_error():
    parts = FirstError()
    ran = []
    with parts:
        raise KeyboardInterrupt
    with parts:
        ran.append(1)
        raise OSError("no space")
    with parts:
        ran.append(2)
    with pytest.raises(KeyboardInterrupt) as caught:
        parts.raise_it()
    assert ran == [1, 2] and caught.value.__notes__ == ["After this, OSError was raised: no space"]


def test_insist_calls_again_after_interrupts_alone():
    calls = []

    def function(error):
        calls.append(1)
        if len(calls) < 5:
            raise error
        return "result"

    assert insist(lambda: function(KeyboardInterrupt)) == "result"
    calls.clear()
    with pytest.raises(OSError):
        insist(lambda: function(OSError))
    assert len(calls) == 1


def test_arrays_of_a_session_are_compared():
    """`assert_same` above would notice a difference."""
    agent, other = (make("DQN", CATCH, seed=seed).learn(64, progress_bar=False) for seed in (0, 1))
    assert any((x != y).any() for x, y in zip(arrays(agent), arrays(other), strict=True))
