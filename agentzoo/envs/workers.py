"""Vector environments that fail, in particular those with worker processes (`AsyncVectorEnv`)."""

import contextlib
import re
import time
import traceback
from typing import Any

import gymnasium as gym
from gymnasium.vector.async_vector_env import AsyncState

from agentzoo.envs.guard import CORRECT, LONGER, Guard, NoAnswer
from agentzoo.envs.guard import explain as explain_error
from agentzoo.types import ConfigurationError, EnvError, TrainingError

_GONE = (EOFError, BrokenPipeError, ConnectionError, OSError)
"""What a pipe raises after the process at its other end has ended."""

_ORIGIN = "_agentzoo_worker"
"""Attribute of an error: the index of the worker that raised it, and the traceback there."""


def has_workers(env: gym.vector.VectorEnv) -> bool:
    """Return whether the environments run in processes of an `AsyncVectorEnv`."""
    return isinstance(env.unwrapped, gym.vector.AsyncVectorEnv)


def have_ended(env: gym.vector.VectorEnv) -> bool:
    """Return whether a worker process has ended, perhaps because of Ctrl-C in a terminal."""
    base: Any = env.unwrapped
    return has_workers(env) and not all(process.is_alive() for process in base.processes)


def prepare(env: gym.vector.VectorEnv, guard: Guard) -> None:
    """Let errors say from which worker they come, and limit the time that workers may take.

    Gymnasium prints the errors of workers, and waits for answers without a limit.
    """
    base: Any = env.unwrapped
    if not has_workers(env):
        return
    base._raise_if_errors = lambda successes: _raise_error_of_worker(base, successes)
    if (limit := guard.timeout) is not None:
        original = base._poll_pipe_envs

        def poll(timeout: float | None = None) -> bool:
            if timeout is not None:
                return original(timeout)
            deadline = time.monotonic() + limit
            for index, pipe in enumerate(base.parent_pipes):
                if not pipe.poll(max(deadline - time.monotonic(), 0)):
                    raise NoAnswer(index)
            return True

        base._poll_pipe_envs = poll


def settle(env: gym.vector.VectorEnv, guard: Guard) -> None:
    """Discard the results of calls that an interrupt has broken off.

    Any number of the workers may still be working, and any of their results may have been read. So
    each worker gets a question. What it sends before the answer is discarded.
    """
    base: Any = env.unwrapped
    if not has_workers(env):
        return
    for pipe in base.parent_pipes:
        pipe.send(("_call", ("has_wrapper_attr", ("spec",), {})))
    deadline = None if guard.timeout is None else time.monotonic() + guard.timeout
    successes = []
    for index, pipe in enumerate(base.parent_pipes):
        result, success = None, True
        while success and not isinstance(result, bool):  # `reset` and `step` send tuples
            if deadline is not None and not pipe.poll(max(deadline - time.monotonic(), 0)):
                raise NoAnswer(index)
            result, success = pipe.recv()
        successes.append(success)
    base._raise_if_errors(successes)
    base._state = AsyncState.DEFAULT


def _raise_error_of_worker(env: Any, successes: Any) -> None:
    """Raise the first error that a worker reported, as Gymnasium does after it has printed it."""
    failed = [i for i, success in enumerate(successes) if not success]
    reports = [env.error_queue.get() for _ in failed]
    if not reports:
        return
    for index, *_ in reports:
        env.parent_pipes[index].close()
        env.parent_pipes[index] = None
    index, kind, value, trace = min(reports, key=lambda report: report[0])
    try:
        error = value if isinstance(value, kind) else kind(value)
    except Exception:  # an exception with other arguments
        error = None
    if not isinstance(error, Exception):  # KeyboardInterrupt must not end this process, too
        time.sleep(0.1)  # If it came from a terminal, the signal reaches this process about now.
        error = RuntimeError(f"{kind.__name__}: {value}".rstrip(": "))
    error.__dict__[_ORIGIN] = index, str(trace)
    raise error


def explain(env: gym.vector.VectorEnv, error: Exception, guard: Guard, in_reset: bool) -> Exception:
    """Return the error to raise for an error of a vector environment."""
    if isinstance(error, ConfigurationError | TrainingError):
        return error
    call = "reset" if in_reset else "step"
    worker = getattr(error, _ORIGIN, None)
    if worker is not None:
        index, trace = worker
        name = type(error).__name__
        text = f"{name}: {error}" if str(error) else name
        problem = f"{call} raised {text.splitlines()[0].rstrip('. ')}{_place(trace)}."
        return EnvError(problem, CORRECT, index, in_reset)
    silent = isinstance(error, NoAnswer)
    if has_workers(env) and (silent or isinstance(error, _GONE)):
        index, ended = _ended_worker(env.unwrapped)
        if ended is not None:
            problem = f"its worker process ended in {call} {ended}."
            return EnvError(problem, CORRECT, index, in_reset)
        index = error.env if isinstance(error, NoAnswer) else None
    elif isinstance(error, NoAnswer):
        index = error.loops.get(id(env.unwrapped))
    else:
        index = _index_in_loop(env.unwrapped, error)
    failure = explain_error(error, guard, index, in_reset)
    if isinstance(failure, EnvError):  # a restart is impossible here
        failure.advice = LONGER if silent else CORRECT
    return failure


def _ended_worker(env: Any) -> tuple[int | None, str | None]:
    """Return the first worker whose process has ended, and how it ended."""
    for index, process in enumerate(env.processes):
        process.join(0.2 if index == 0 else 0.05)
        if process.exitcode is not None:
            code = process.exitcode
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            return index, how
    return None, None


def _index_in_loop(env: Any, error: Exception) -> int | None:
    """Return the environment that a `SyncVectorEnv` was calling when it raised an error."""
    if not isinstance(env, gym.vector.SyncVectorEnv):
        return None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_locals.get("self") is env and isinstance(frame.f_locals.get("i"), int):
            return frame.f_locals["i"]
    return None


def _place(trace: str) -> str:
    """Return the place of an error from the traceback that a worker has sent."""
    found = re.findall(r'File "(.+?)", line (\d+)', trace)
    return f" ({found[-1][0]}, line {found[-1][1]})" if found else ""


def end(env: gym.vector.VectorEnv) -> None:
    """End the worker processes of a vector environment that cannot be used again."""
    base: Any = env.unwrapped
    if not has_workers(env):
        return
    for process in base.processes:
        with contextlib.suppress(ValueError):  # a process that is closed already
            process.terminate()
    for process in base.processes:
        process.join(1.0)
        if process.is_alive():  # it does not react, because it is stuck
            process.kill()
            process.join()
    for pipe in base.parent_pipes:
        if pipe is not None:
            pipe.close()
    base.closed = True  # `close` would wait for answers
