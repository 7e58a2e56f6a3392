"""Actors on a Ray cluster, and the learner in the process that calls.

Each actor is a process anywhere in the cluster, with its own environments and a copy of `act`. What
they do, how far they may be ahead and what is learned from is as in `agentzoo.runners.threads`:
here a thread of the learner's process stands for each of them, and waits for its trajectories.
Parameters go to Ray's object store once per version, and actors get a reference; trajectories come
back through it.

An actor whose process or node dies is replaced by one that stands by, and another is made to stand
by. New episodes begin, and what the dead one was busy with is asked for again. Only an actor that
fails `PATIENCE` seconds long ends the run. What an environment raises ends it at once.

Ray: https://arxiv.org/abs/1712.05889.
"""

import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agentzoo.envs import Envs
from agentzoo.runners.host import HostRunner
from agentzoo.runners.programs import Episode, Programs, compile_agent
from agentzoo.runners.threads import Stop, ThreadsRunner
from agentzoo.types import Agent, Array, ConfigurationError, PyTree, TrainingError, Trajectory

PATIENCE = 300.0


class Worker:
    """What runs in an actor's process."""

    def __init__(self, agent: Agent, make: Callable[[], Envs], actor: int, n_actors: int):
        self.runner = HostRunner(agent, compile_agent(agent), make(), actor, n_actors)

    def reset(self, seed: int | None) -> None:
        """Begins new episodes."""
        self.runner.reset(seed)

    def stand_by(self) -> None:
        """Takes a trajectory that nobody asked for, so that all is compiled."""
        key = jax.random.key(0)
        params = jax.eval_shape(lambda key: self.runner.agent.init(key).params, key)
        self.runner.reset()
        self.runner.rollout(
            jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params), key, 0, 0, 1
        )

    def replace(self, actor: int) -> None:
        """Takes the place of an actor."""
        self.runner.actor = actor
        self.runner.reset()

    def rollout(
        self, params: PyTree, key: np.ndarray, *progress: int
    ) -> tuple[Trajectory, list[Episode]]:
        """Takes T steps in each environment, as `HostRunner.rollout`."""
        trajectory = self.runner.rollout(
            jax.device_put(params), jax.random.wrap_key_data(jnp.asarray(key)), *progress
        )
        return jax.device_get(trajectory), self.runner.finished_episodes(trajectory)


class Spare:
    """The worker that stands by for `n_actors` actors."""

    def __init__(self, make_worker: Callable[[int], Any]):
        self._make_worker, self._lock = make_worker, threading.Lock()
        self._order()

    def take(self, actor: int) -> Any:
        """It, in the place of that actor."""
        with self._lock:
            worker = self._worker
            self._order()
        worker.replace.remote(actor)
        return worker

    def _order(self) -> None:
        self._worker = self._make_worker(0)
        self._worker.stand_by.remote()


class Handle:
    """An actor as the learner sees it: which one it is, the worker that it is now, and what takes its place if that dies."""

    def __init__(self, actor: int, worker: Any, spare: Spare):
        self.actor, self._worker, self._spare, self.replaced = actor, worker, spare, 0

    def reset(self, seed: int | None) -> None:
        """Begins new episodes, before the next trajectory; does not wait for it."""
        self._worker.reset.remote(seed)

    def rollout(
        self, stopped: Callable[[], bool], *arguments: Any
    ) -> tuple[Trajectory, list[Episode]]:
        """Waits for a trajectory, of another process if the actor's dies.

        Raises:
          Stop: as soon as it is no longer wanted.
          ray.exceptions.RayTaskError: what the environment raised, which the error is an instance
          of, too. ray.exceptions.RayError: if there was no trajectory for so long as `PATIENCE`, or
          the actor cannot be made.
        """
        import ray
        from ray.exceptions import ActorDiedError, RayError, RayTaskError

        began, failed = time.monotonic(), False
        while True:
            try:
                waiting = [self._worker.rollout.remote(*arguments)]
                while not ray.wait(waiting, timeout=0.2)[0]:
                    if stopped():
                        raise Stop
                return ray.get(waiting[0])
            except RayTaskError as error:
                if isinstance(error.cause, ConfigurationError | TrainingError):
                    raise error.cause from error  # its sentence, in place of the worker's traceback
                raise
            except RayError as error:
                died = isinstance(error, ActorDiedError)
                if stopped():
                    raise Stop from error
                if time.monotonic() - began > PATIENCE or (died and "creation task" in str(error)):
                    raise
                self.replaced += not failed
                failed = True
                if died:
                    self._worker = self._spare.take(self.actor)
                else:
                    time.sleep(0.2)


class RayRunner(ThreadsRunner):
    """Trains an agent by actors on a Ray cluster: the one that Ray is connected to, or a new one on this machine alone.

    Args:
      agent: the agent.
      programs: its functions, compiled.
      parts: stands for the environments of each actor, all as many.
      make: makes them, in the process that calls it.
      max_lag: how many trajectories an actor may be ahead of the learner.
    """

    tag = "ray"

    def __init__(
        self,
        agent: Agent,
        programs: Programs,
        parts: Sequence[Envs],
        make: Callable[[], Envs],
        max_lag: int = 1,
    ):
        super().__init__(agent, programs, parts, max_lag)
        self._local_actors = []
        connect()
        import ray

        # So that an actor takes one core at most, and leaves accelerators to the learner.
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
        runtime_env = {"env_vars": {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}}
        remote = ray.remote(max_restarts=0, scheduling_strategy="SPREAD", runtime_env=runtime_env)(
            Worker
        ).remote

        def make_worker(actor: int) -> Any:
            return remote(agent, make, actor, len(parts))

        workers = [make_worker(i) for i in range(len(parts))]
        spare = Spare(make_worker)
        self.handles = [Handle(i, worker, spare) for i, worker in enumerate(workers)]

    def reset(self, seed: int | None = None) -> None:
        """Begins new episodes."""
        for handle, actor in zip(self.handles, self.actors, strict=True):
            handle.reset(None if seed is None else seed + handle.actor * actor.envs.spec.num_envs)
        self._continues = True

    def _publish(self, params: PyTree) -> Any:
        import ray

        return ray.put(jax.device_get(params))

    def _rollout(
        self, actor: HostRunner, params: Any, key: Array, *progress: int
    ) -> tuple[Trajectory, list[Episode]]:
        return self.handles[actor.actor].rollout(
            self._stopped.is_set, params, np.asarray(jax.random.key_data(key)), *progress
        )

    def _measure(self) -> dict[str, float]:
        return {"ray/replaced_actors": float(sum(handle.replaced for handle in self.handles))}


def connect() -> None:
    """Connects to the cluster that `RAY_ADDRESS` names, or begins one of this machine, which others cannot reach; once per process."""
    os.environ.setdefault(
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"
    )  # which makes Ray listen on the loopback interface alone
    import ray

    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS", "local")
        options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "os.fork", RuntimeWarning
            )  # of JAX; what Ray forks becomes another program at once
            ray.init(address=address, log_to_driver=False, **options)
