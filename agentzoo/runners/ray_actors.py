"""Training with Ray: actors in processes of a cluster, and the learner in the process that calls.

Each actor is a process anywhere in the cluster, with its own environments and a copy of `act`.
`agentzoo.runners.parallel` describes how actors and learner work together. In the learner's
process, a thread stands for each actor and waits for its trajectories. Each version of the
parameters is put into Ray's object store once, and actors get a reference to it.

The learner's process never calls the object store itself, because Ray ends a process that does so
after Ray's local process has died. What is sent between the processes is cut into pieces that Ray
keeps in its messages. A process beside the learner, the `Publisher`, puts parameters into the
store.

If the process or the node of an actor dies, a standby worker replaces it, and a new standby worker
is created. The new worker begins new episodes and collects the trajectory that was lost. A worker
that hangs is killed and replaced, too. The run ends if the same trajectory fails `MOST_FAILURES`
times, or if there is no worker for `PATIENCE` seconds. If an environment raises an error, or if
Ray's own processes die, the run ends at once. Every end is an exception, so the agent can be saved.

Ray: https://arxiv.org/abs/1712.05889.
"""

import os
import pickle
import threading
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agentzoo.envs import Envs
from agentzoo.process import tune_process
from agentzoo.runners.actor import Actor, Rollout
from agentzoo.runners.base import Cycle, RunState
from agentzoo.runners.parallel import ParallelRunner, Stop
from agentzoo.runners.programs import MakeAgent, Programs, compile_agent
from agentzoo.runners.ray_link import Link
from agentzoo.types import Agent, Array, ConfigurationError, PyTree, TrainingError

PATIENCE = 300.0
"""Seconds for which an actor may be without a worker before the run ends."""

STEP_PATIENCE = 10.0
"""Seconds that a step may take, on average, before a worker is taken to hang."""

MOST_FAILURES = 5
"""How often in a row a trajectory may fail before the run ends."""

# Ray sends up to 100 KiB of an argument or result, and 10 MiB of a call, without its object store.
_PIECE = 90_000
_MOST_PIECES = 100


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
        self, params: bytes, key: np.ndarray, step: int, act_calls: int, total: int
    ) -> bytes | int:
        """Take T steps in each environment; see `Actor.rollout`.

        The parameters are given as `pack` returns them, and the key as its data.

        Returns:
          The packed rollout, or the number of pieces in which `take` returns it.
        """
        if self._failure is not None:
            raise self._failure
        typed_key = jax.random.wrap_key_data(jnp.asarray(key))
        on_device = jax.device_put(pickle.loads(params))
        rollout = self.actor.rollout(on_device, typed_key, step, act_calls, total)
        trajectory = jax.device_get(rollout.trajectory)
        packed = pack(rollout._replace(trajectory=trajectory, position=None))
        self._pieces = cut(packed)
        return packed if len(self._pieces) == 1 else len(self._pieces)

    def take(self, start: int, stop: int) -> Any:
        """Return some pieces of the last rollout, as separate results."""
        pieces = self._pieces[start:stop]
        return pieces[0] if len(pieces) == 1 else pieces


class Publisher:
    """What runs in a process on the learner's machine, which puts parameters into the store."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def add(self, *pieces: bytes) -> None:
        """Take over some pieces of packed parameters."""
        self._pieces.extend(pieces)

    def publish(self) -> bytes:
        """Return the packed parameters whose pieces were added. Ray puts them into its store."""
        packed = b"".join(self._pieces)
        self._pieces = []
        return packed


def pack(tree: Any) -> bytes:
    """Return a tree of arrays and other objects as bytes, which `pickle` can load."""
    from ray.cloudpickle import cloudpickle  # it also packs objects of classes of a script

    return cloudpickle.dumps(tree, protocol=5)


def cut(packed: bytes) -> list[bytes]:
    """Return bytes in pieces that Ray sends without its object store."""
    return [packed[i : i + _PIECE] for i in range(0, len(packed), _PIECE)]


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
      link: tells whether Ray can be called.
      seconds: how long a rollout may take before the worker is taken to hang.

    Attributes:
      replaced: number of trajectories that had to be requested again after a failure.
    """

    # Actors in other processes begin new episodes themselves if they lose theirs.
    continues = True

    def __init__(
        self,
        index: int,
        worker: Any,
        standby: Standby,
        stopped: Callable[[], bool],
        link: Link,
        seconds: float,
    ):
        self.index = index
        self.worker = worker
        self.replaced = 0
        self._standby = standby
        self._stopped = stopped
        self._link = link
        self._seconds = seconds

    def reset(self, seed: int | None = None) -> None:
        """Ask the worker to begin new episodes before its next trajectory, without waiting."""
        self._link.check()
        self.worker.reset.remote(seed)

    def rollout(self, params: Any, key: Array, step: int, act_calls: int, total: int) -> Rollout:
        """Wait for the next rollout. If the worker dies or hangs, another one collects it.

        Raises:
          Stop: if the run ended meanwhile.
          EnvError: if an environment fails.
          InvalidStep: if an environment returns a wrong value.
          ray.exceptions.RayTaskError: if something else raised an error. The exception is also an
            instance of that error.
          TrainingError: if the trajectory failed `MOST_FAILURES` times, if there was no worker, or
            if Ray cannot be called any more.
        """
        from ray.exceptions import ActorDiedError, RayError, RayTaskError

        arguments = params, np.asarray(jax.random.key_data(key)), step, act_calls, total
        began, failed, failures = time.monotonic(), False, 0
        while True:
            try:
                return self._request(arguments)
            except RayTaskError as error:
                if isinstance(error.cause, ConfigurationError | TrainingError):
                    # Without the worker's traceback, and from the error of the environment.
                    raise error.cause from (error.cause.__cause__ or error)
                raise
            except (RayError, TimeoutError) as error:
                self._link.check()
                if self._stopped():
                    raise Stop from error
                failures += isinstance(error, ActorDiedError | TimeoutError)
                self._recover(error, failures, time.monotonic() - began)
                self.replaced += not failed
                failed = True

    def _request(self, arguments: tuple[Any, ...]) -> Rollout:
        """Return the rollout of the current worker."""
        self._link.check()
        deadline = time.monotonic() + self._seconds
        [packed] = self._wait([self.worker.rollout.remote(*arguments)], deadline)
        if isinstance(packed, int):
            pieces = []
            for start in range(0, packed, _MOST_PIECES):
                stop = min(start + _MOST_PIECES, packed)
                take = self.worker.take.options(num_returns=stop - start)
                taken = take.remote(start, stop)
                pieces += self._wait(taken if stop - start > 1 else [taken], deadline)
            packed = b"".join(pieces)
        return pickle.loads(packed)

    def _wait(self, results: list[Any], deadline: float) -> list[Any]:
        """Wait for results that Ray sends without its object store."""
        import ray

        # `fetch_local=False` keeps Ray from asking its local process, which may be dead.
        while ray.wait(results, num_returns=len(results), timeout=0.2, fetch_local=False)[1]:
            self._link.check()
            if self._stopped():
                raise Stop
            if time.monotonic() > deadline:
                raise TimeoutError(f"there was no trajectory for {self._seconds:g} seconds")
        return ray.get(results)

    def _recover(self, error: Exception, failures: int, seconds: float) -> None:
        """Replace a dead or hanging worker, wait a moment after another failure, or give up."""
        import ray
        from ray.exceptions import ActorDiedError

        died = isinstance(error, ActorDiedError)
        hangs = isinstance(error, TimeoutError)
        if died and "creation task" in str(error):
            raise self._error("cannot be created", error) from error
        if failures >= MOST_FAILURES:
            raise self._error(f"failed {failures} times in a row", error) from error
        if seconds > (1.5 * self._seconds if hangs else PATIENCE) and not died:
            raise self._error(f"has been without a worker for {seconds:.0f} s", error) from error
        if hangs:
            ray.kill(self.worker)
        if died or hangs:
            self.worker = self._standby.take(self.index)
        else:
            time.sleep(0.2)

    def _error(self, what: str, error: Exception) -> TrainingError:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # A traceback ends with the exception; the first line says what Ray thinks of it.
        reason = lines[-1] if "Traceback" in str(error) else lines[0]
        return TrainingError(
            f"Training ended because actor {self.index} {what}: {reason.rstrip('.')}. Look into "
            f"Ray's log files for the worker's output, and correct the environment or the cluster."
        )


class RayRunner(ParallelRunner):
    """Trains an agent with actors on a Ray cluster.

    The cluster is the one that Ray is connected to, or a new one on this machine alone. If Ray
    dies, a run ends, and the next run connects to Ray again.

    Args:
      agent: the agent.
      programs: its functions, compiled.
      parts: examples of the environments of each actor, all with the same number of environments.
      make_envs: makes an actor's environments, in the process that calls it.
      max_lag: how many trajectories an actor may be ahead of the learner.
      env_timeout: seconds that a step of an environment may take; None for `STEP_PATIENCE` on
        average.
    """

    tag = "ray"

    def __init__(
        self,
        agent: Agent,
        programs: Programs,
        parts: Sequence[Envs],
        make_envs: Callable[[], Envs],
        max_lag: int = 1,
        env_timeout: float | None = None,
    ):
        num_envs = sum(envs.spec.num_envs for envs in parts)
        spec = parts[0].spec._replace(num_envs=num_envs)
        self.agent = agent
        self.programs = programs
        self._make_envs = make_envs
        self._n_actors = len(parts)
        steps = agent.unroll_length * parts[0].spec.num_envs
        self._seconds = PATIENCE + steps * (STEP_PATIENCE if env_timeout is None else env_timeout)
        self._connect()
        super().__init__(agent, programs, spec, self.actors, max_lag)

    def _connect(self) -> None:
        """Connect to Ray, and create the actors."""
        is_ours = connect()
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # An actor uses at most one core, and leaves accelerators to the learner.
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
        environment = {"env_vars": {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}}
        options: dict[str, Any] = {"max_restarts": 0, "scheduling_strategy": "SPREAD"}
        remote = ray.remote(runtime_env=environment, **options)(Worker).remote
        numbers = np.asarray(self.programs.numbers)

        def make_worker(index: int) -> Any:
            return remote(self.programs.make_agent, numbers, self._make_envs, index, self._n_actors)

        self._link = link = Link(is_ours)
        beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        publisher: Any = ray.remote(num_cpus=0)(Publisher)
        self._publisher = publisher.options(scheduling_strategy=beside).remote()
        workers = [make_worker(index) for index in range(self._n_actors)]
        standby = Standby(make_worker)
        self.actors: list[RemoteActor] = [
            RemoteActor(index, worker, standby, lambda: self.stopped, link, self._seconds)
            for index, worker in enumerate(workers)
        ]

    def reset(self, seed: int | None = None) -> None:
        """Begin new episodes, after connecting to Ray again if necessary."""
        self.stop()
        if self._link.problem() is not None:
            self._disconnect()
            self._connect()
        super().reset(seed)

    def run(
        self, run: RunState, total: int, next_stop: Callable[[int], float]
    ) -> Generator[Cycle, None, None]:
        """Act and learn at the same time; see `ParallelRunner.run`.

        Raises:
          TrainingError: if Ray's processes have died. Then the process no longer uses Ray.
        """
        if self._link.problem() is not None:
            self._continues = False  # so that `reset` connects again
        try:
            yield from super().run(run, total, next_stop)
        finally:
            if self._link.problem() is not None:
                self._disconnect()

    def _disconnect(self) -> None:
        """Leave Ray, which would otherwise end this process later on."""
        import ray

        self._link.close()
        self.actors = []
        self._publisher: Any = None
        ray.shutdown()
        self._link.clean_up()

    def publish(self, params: PyTree) -> Any:
        """Return packed parameters, or a reference to them in Ray's object store.

        Raises:
          TrainingError: if Ray cannot be called any more.
        """
        packed = pack(jax.device_get(params))
        pieces = cut(packed)
        if len(pieces) == 1:
            return packed
        self._link.check()
        for start in range(0, len(pieces), _MOST_PIECES):
            self._publisher.add.remote(*pieces[start : start + _MOST_PIECES])
        return self._publisher.publish.remote()

    def measure(self) -> dict[str, float]:
        """Return how many trajectories had to be requested again."""
        return {"ray/replaced_actors": float(sum(actor.replaced for actor in self.actors))}


def connect() -> bool:
    """Connect to a Ray cluster, once per process.

    The cluster is the one that `RAY_ADDRESS` names. Without it, a new one starts on this machine,
    which other machines cannot reach.

    Returns:
      Whether the cluster has been started here.
    """
    # Without this, Ray also listens on other network interfaces than the loopback interface.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():
        return False
    address = os.environ.get("RAY_ADDRESS", "local")
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    with warnings.catch_warnings():
        # JAX warns about every fork, but what Ray forks becomes another program at once.
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
        ray.init(address=address, log_to_driver=False, **options)
    return address == "local"
