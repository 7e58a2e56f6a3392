"""This process's link to Ray, watched from outside of Ray.

If a process calls Ray's local process, the raylet, after the raylet has died, Ray ends the process
without an exception. Ray also ends the process 60 seconds after the head of the cluster has died.
So a `Link` monitors both, and the learner asks the link before each call of Ray. If one of them is
gone, training ends with an exception, and the agent can be saved.
"""

import contextlib
import os
import signal
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

from agentzoo.types import TrainingError

HEAD_PATIENCE = 20.0
"""Seconds for which the cluster head may be unreachable. Ray ends the process after 60 seconds."""

_KILLED = 1 << 8  # the bit of SIGKILL, signal 9, in a set of pending signals


class Link:
    """Tells whether Ray's local process and the head of the cluster are alive.

    A thread connects to the head every two seconds. The threads that are about to call the local
    process check it.

    Args:
      is_ours: whether this process has started the cluster.
    """

    def __init__(self, is_ours: bool) -> None:
        import ray

        context = ray.get_runtime_context()
        own = context.get_node_id()
        node = next(node for node in ray.nodes() if node["NodeID"] == own)
        host, _, port = context.gcs_address.rpartition(":")
        self._address = context.gcs_address
        self._lost: str | None = None
        self._head = host.strip("[]"), int(port)
        self._socket = _connect(node["ObjectStoreSocketName"])
        self._pid = _peer(self._socket)
        # Ray's processes of this machine form a group, and the workers have groups of their own.
        self._group = os.getpgid(self._pid) if is_ours and self._pid else 0
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="ray link", daemon=True).start()

    def problem(self) -> str | None:
        """Return what is wrong with the link; None if Ray can be called."""
        if self._lost is None and (self._has_ended() or _is_ending(self._pid)):
            process = f" {self._pid}" if self._pid else ""
            self._lost = f"Ray's process{process} on this machine (the raylet) has ended"
        return self._lost

    def check(self) -> None:
        """Raise an error if Ray cannot be called any more.

        Raises:
          TrainingError: if the local process or the head is gone.
        """
        problem = self.problem()
        if problem is not None:
            raise TrainingError(
                f"Training ended because {problem}, so that no actor can be reached. The agent "
                f"keeps what it has learned; start Ray again if it was not started by agentzoo, "
                f"and call learn again with reset_num_timesteps=False."
            )

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it may be gone already
                self._socket.shutdown(socket.SHUT_RDWR)

    def clean_up(self) -> None:
        """End what Ray's local process has left behind, if this process has started the cluster.

        The processes would end by themselves, but only minutes later.
        """
        if not self._group or self._group == os.getpgid(0):
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._group, signal.SIGKILL)
        for worker in _workers_of(self._pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(worker, signal.SIGKILL)

    def _has_ended(self) -> bool:
        """Whether the local process has closed its end of the socket."""
        if self._socket is None:
            return False
        try:
            return self._socket.recv(1, socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _watch(self) -> None:
        seen = time.monotonic()
        while not self._closed.wait(2.0) and self._lost is None:
            if _answers(self._head):
                seen = time.monotonic()
            elif time.monotonic() - seen > HEAD_PATIENCE:
                away = f"has not answered for {HEAD_PATIENCE:g} seconds"
                self._lost = f"the head of the Ray cluster at {self._address} {away}"


def _connect(path: str) -> socket.socket | None:
    """Return a socket that is connected to the local process; None where there are none."""
    if not hasattr(socket, "AF_UNIX"):
        return None
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.connect(path)
    except OSError:
        connected.close()
        return None
    return connected


def _peer(connected: socket.socket | None) -> int:
    """Return the process at the other end of a socket; 0 if that is unknown."""
    option: Any = getattr(socket, "SO_PEERCRED", None)
    if connected is None or option is None:
        return 0
    pid, _, _ = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, option, 12))
    return pid


def _is_ending(pid: int) -> bool:
    """Whether a process of this machine has been killed, but still holds its sockets.

    That takes some milliseconds, which is time enough to call it.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text() if pid else ""
    except OSError:
        return Path("/proc/self/status").exists()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    pending = [int(fields.get(name, "0"), 16) for name in ("SigPnd", "ShdPnd")]
    return fields.get("State", "")[:1] in ("Z", "X") or any(one & _KILLED for one in pending)


def _workers_of(pid: int) -> list[int]:
    """Return the processes that a local process of Ray has started as workers."""
    found, mark = [], f"RAY_RAYLET_PID={pid}".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if mark in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return found


def _answers(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=2.0):
            return True
    except OSError:
        return False
