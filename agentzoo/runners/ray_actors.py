"""Training with Ray: actors in processes of a cluster, and the learner in the process that calls.

Each actor is a process anywhere in the cluster, with its own environments and a copy of `act`.
`agentzoo.runners.parallel` describes how actors and learner work together. In the learner's
process, a thread stands for each actor and waits for its trajectories. Each version of the
parameters is put into Ray's object store once, and actors get a reference to it. Trajectories come
back through the object store.

If the process or the node of an actor dies, a standby worker replaces it, and a new standby worker
is created. The new worker begins new episodes and collects the trajectory that was lost. The run
only ends if an actor fails for `PATIENCE` seconds. If an environment raises an error, the run ends
at once.

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
from agentzoo.process import tune_process
from agentzoo.runners.actor import Actor, Rollout
from agentzoo.runners.parallel import ParallelRunner, Stop
from agentzoo.runners.programs import MakeAgent, Programs, compile_agent
from agentzoo.types import Agent, Array, ConfigurationError, PyTree, TrainingError

PATIENCE = 300.0
"""Seconds for which an actor may fail before the run ends."""


class Worker:
    """What runs in an actor's process.

    Args:
      make_agent: makes the agent from the numbers among its hyperparameters.
      numbers: these numbers, `[P]`.
      make_envs: makes the actor's environments.
      index: which of the actors this is.
      n_actors: how many actors there are.
    """

    def __init__(
        self,
        make_agent: MakeAgent,
        numbers: np.ndarray,
        make_envs: Callable[[], Envs],
        index: int,
        n_actors: int,
    ):
        tune_process()
        agent = make_agent(jnp.asarray(numbers))
        programs = compile_agent(agent, make_agent, numbers)
        self.actor = Actor(agent, programs, make_envs(), index, n_actors)
        self._failure: Exception | None = None  # of a reset, whose result nobody waits for

    def reset(self, seed: int | None) -> None:
        """Begin new episodes. If an environment fails, the next rollout raises its error."""
        try:
            self.actor.reset(seed)
            self._failure = None
        except Exception as error:
            self._failure = error

    def stand_by(self) -> None:
        """Collect a trajectory that nobody needs, so that everything is compiled."""
        key = jax.random.key(0)
        shapes = jax.eval_shape(lambda key: self.actor.agent.init(key).params, key)
        params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        self.actor.reset()
        self.actor.rollout(params, key, 0, 0, 1)

    def replace(self, index: int) -> None:
        """Take the place of an actor."""
        self.actor.index = index
        self.actor.reset()

    def rollout(
        self, params: PyTree, key: np.ndarray, step: int, act_calls: int, total: int
    ) -> Rollout:
        """Take T steps in each environment; see `Actor.rollout`. The key is given as its data."""
        if self._failure is not None:
            raise self._failure
        typed_key = jax.random.wrap_key_data(jnp.asarray(key))
        rollout = self.actor.rollout(jax.device_put(params), typed_key, step, act_calls, total)
        trajectory = jax.device_get(rollout.trajectory)
        return rollout._replace(trajectory=trajectory, position=None)


class Standby:
    """Keeps one worker ready to replace any actor.

    Args:
      make_worker: makes the worker of an actor, from the actor's index.
    """

    def __init__(self, make_worker: Callable[[int], Any]):
        self._make_worker = make_worker
        self._lock = threading.Lock()
        self._prepare()

    def take(self, index: int) -> Any:
        """Return the standby worker, reassigned to an actor, and prepare the next one."""
        with self._lock:
            worker = self._worker
            self._prepare()
        worker.replace.remote(index)
        return worker

    def _prepare(self) -> None:
        self._worker = self._make_worker(0)
        self._worker.stand_by.remote()


class RemoteActor:
    """An actor as the learner's process sees it: its current worker, and how to replace it.

    Args:
      index: which of the actors this is.
      worker: the worker.
      standby: provides another worker if this one dies.
      stopped: whether the run is over.

    Attributes:
      replaced: how often the worker was replaced or failed.
    """

    # Actors in other processes begin new episodes themselves if they lose theirs.
    continues = True

    def __init__(self, index: int, worker: Any, standby: Standby, stopped: Callable[[], bool]):
        self.index = index
        self.worker = worker
        self.replaced = 0
        self._standby = standby
        self._stopped = stopped

    def reset(self, seed: int | None = None) -> None:
        """Ask the worker to begin new episodes before its next trajectory, without waiting."""
        self.worker.reset.remote(seed)

    def rollout(self, params: Any, key: Array, step: int, act_calls: int, total: int) -> Rollout:
        """Wait for the next rollout. If the worker dies, another one collects it.

        Raises:
          Stop: if the run ended meanwhile.
          EnvError: if an environment fails.
          InvalidStep: if an environment returns a wrong value.
          ray.exceptions.RayTaskError: if something else raised an error. The exception is also an
            instance of that error.
          ray.exceptions.RayError: if there was no trajectory for `PATIENCE` seconds, or the worker
            cannot be created.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        arguments = params, np.asarray(jax.random.key_data(key)), step, act_calls, total
        began = time.monotonic()
        failed = False
        while True:
            try:
                waiting = [self.worker.rollout.remote(*arguments)]
                while not ray.wait(waiting, timeout=0.2)[0]:
                    if self._stopped():
                        raise Stop
                return ray.get(waiting[0])
            except RayTaskError as error:
                if isinstance(error.cause, ConfigurationError | TrainingError):
                    # Without the worker's traceback, and from the error of the environment.
                    raise error.cause from (error.cause.__cause__ or error)
                raise
            except RayError as error:
                self._recover(error, time.monotonic() - began)
                self.replaced += not failed
                failed = True

    def _recover(self, error: Exception, seconds: float) -> None:
        """Replace a dead worker, or wait a moment after another failure."""
        from ray.exceptions import ActorDiedError

        died = isinstance(error, ActorDiedError)
        if self._stopped():
            raise Stop from error
        if seconds > PATIENCE or (died and "creation task" in str(error)):
            raise error
        if died:
            self.worker = self._standby.take(self.index)
        else:
            time.sleep(0.2)


class RayRunner(ParallelRunner):
    """Trains an agent with actors on a Ray cluster.

    The cluster is the one that Ray is connected to, or a new one on this machine alone.

    Args:
      agent: the agent.
      programs: its functions, compiled.
      parts: examples of the environments of each actor, all with the same number of environments.
      make_envs: makes an actor's environments, in the process that calls it.
      max_lag: how many trajectories an actor may be ahead of the learner.
    """

    tag = "ray"

    def __init__(
        self,
        agent: Agent,
        programs: Programs,
        parts: Sequence[Envs],
        make_envs: Callable[[], Envs],
        max_lag: int = 1,
    ):
        connect()
        import ray

        # An actor uses at most one core, and leaves accelerators to the learner.
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
        environment = {"env_vars": {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}}
        options: dict[str, Any] = {"max_restarts": 0, "scheduling_strategy": "SPREAD"}
        remote = ray.remote(runtime_env=environment, **options)(Worker).remote
        numbers = np.asarray(programs.numbers)

        def make_worker(index: int) -> Any:
            return remote(programs.make_agent, numbers, make_envs, index, len(parts))

        workers = [make_worker(index) for index in range(len(parts))]
        standby = Standby(make_worker)
        self.actors: list[RemoteActor] = [
            RemoteActor(index, worker, standby, lambda: self.stopped.is_set())
            for index, worker in enumerate(workers)
        ]
        num_envs = sum(envs.spec.num_envs for envs in parts)
        spec = parts[0].spec._replace(num_envs=num_envs)
        super().__init__(agent, programs, spec, self.actors, max_lag)

    def publish(self, params: PyTree) -> Any:
        """Put the parameters into Ray's object store, and return a reference."""
        import ray

        return ray.put(jax.device_get(params))

    def measure(self) -> dict[str, float]:
        """Return how many workers were replaced."""
        return {"ray/replaced_actors": float(sum(actor.replaced for actor in self.actors))}


def connect() -> None:
    """Connect to a Ray cluster, once per process.

    The cluster is the one that `RAY_ADDRESS` names. Without it, a new one starts on this machine,
    which other machines cannot reach.
    """
    # Without this, Ray also listens on other network interfaces than the loopback interface.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS", "local")
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    with warnings.catch_warnings():
        # JAX warns about every fork, but what Ray forks becomes another program at once.
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
        ray.init(address=address, log_to_driver=False, **options)
