"""What all runners share: the agent's compiled functions, and the state and the outcome of a training run."""

import ctypes
import functools
import os
import sys
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from agentzoo.envs import make_buffers, spaces
from agentzoo.sharding import Mesh, replicate, use_mesh
from agentzoo.types import Agent, Array, Clock, EnvSpec, PyTree, resolve_metrics

# On the CPU, programs run in the thread that calls them: to hand one over to another thread takes
# longer than `act` itself. It has an effect only before JAX runs its first program, and gives way
# to a user's own setting.
if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def keep_freed_memory() -> None:
    """Has glibc keep up to 512 MiB of freed memory, unless a user has set one of its variables `MALLOC_...`.

    XLA allocates the intermediate results of a program anew at every call. By default it depends on
    their exact size whether glibc gives them back to the system each time, and every page has to be
    fetched again: that took a fifth of the time of some gradient steps.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and not any(name.startswith("MALLOC_") for name in os.environ):
        trim_threshold, mmap_threshold = -1, -3  # their numbers in malloc.h
        mallopt(trim_threshold, 512 * 2**20)
        mallopt(mmap_threshold, 256 * 2**20)  # which would stay at 128 KiB, once the other is set


keep_freed_memory()


class Episode(NamedTuple):
    """A finished episode."""

    reward: float  # sum of its rewards
    length: int  # its number of steps
    info: dict[str, Any] = {}  # entries of its last step's `info`; never written to  # noqa: RUF012
    env: int = 0  # the environment that it took place in


class RunState(NamedTuple):
    """All state of a training run as one pytree."""

    learner_state: Any  # what `init` and `learn` of the agent return
    key: Array  # randomness of acting
    step: int  # environment steps of this run
    act_calls: int  # calls of `act` since the agent was made, by all actors; with the key, it determines the randomness of the next


class Cycle(NamedTuple):
    """What a runner yields after each trajectory, or after several.

    Attributes:
      run: the state of the run.
      episodes: the episodes that ended in these cycles.
      metrics: the metrics of the last cycle, or of the one that went wrong.
      fault: why training cannot go on, as a sentence; None if all is well.
    """

    run: RunState
    episodes: list[Episode]
    metrics: dict[str, Any]
    fault: str | None = None


class InPlace:
    """Compiles `(state, *arguments)`, so that a call overwrites the state but leaves its `params` as they are.

    Whoever holds parameters, a user, an actor or another thread, can go on with them. What is
    large, such as a replay, is not copied.

    Args:
      function: the function. The state is a NamedTuple with the field `params`.
      overwritten: how many of the arguments after the state are overwritten too.
    """

    def __init__(self, function: Callable[..., Any], overwritten: int = 0):
        def call(params: PyTree, rest: Any, *arguments: Any) -> Any:
            return function(rest._replace(params=params), *arguments)

        call.__name__ = getattr(
            function, "__name__", "call"
        )  # the program's name in JAX's logs and profiles
        self._compiled = jax.jit(call, donate_argnums=tuple(range(1, 2 + overwritten)))

    def __call__(self, state: Any, *arguments: Any) -> Any:
        """Call the function."""
        return self._compiled(state.params, state._replace(params=None), *arguments)

    def lower(self, state: Any, *arguments: Any) -> jax.stages.Lowered:
        """The function for arguments like these, not yet compiled."""
        return self._compiled.lower(state.params, state._replace(params=None), *arguments)


class Programs(NamedTuple):
    """An agent's functions, compiled to be called from Python."""

    init: Any
    act: Any
    predict: Any
    learn: Any
    queries: dict[str, Any]
    mesh: Mesh | None


LIKELY_CAUSES = (
    "Likely causes are a learning_rate that is too large, rewards or observations that are very large (try "
    "normalize_obs, normalize_reward, clip_reward or a wrapper), or a network of your own that divides by zero."
)


def is_finite(params: PyTree, metrics: dict[str, Any]) -> Array:
    """Whether parameters, and the metrics whose tags end in "loss", are free of NaN and infinity."""
    losses = {tag: value for tag, value in metrics.items() if tag.endswith("loss")}
    leaves = [x for x in jax.tree.leaves((params, losses)) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all() if leaves else jnp.bool_(True)


def describe_fault(params: PyTree, metrics: dict[str, Any], step: int) -> str:
    """Say which numbers are not finite after a cycle for which `is_finite` is False."""
    values = resolve_metrics(metrics)
    bad = [f"{tag} is {value}" for tag, value in values.items() if not np.isfinite(value)]
    if not bad:
        named = jax.tree_util.tree_leaves_with_path(jax.device_get(params))
        leaves = [path for path, x in named if not np.isfinite(np.asarray(x, float)).all()]
        bad = [f"the parameter {jax.tree_util.keystr(path)} is not finite" for path in leaves[:1]]
    return f"Training ended at step {step} because {', '.join(bad) or 'a parameter is not finite'}. {LIKELY_CAUSES}"


def reset_memory(initial_memory: Callable[[int], PyTree], memory: PyTree, first: Array) -> PyTree:
    """Memory `[N, ...]` with that of the beginning where an episode begins."""

    def choose(initial: Array, old: Array) -> Array:
        return jnp.where(first.reshape(first.shape + (1,) * (old.ndim - first.ndim)), initial, old)

    return jax.tree.map(choose, initial_memory(first.shape[0]), memory)


def matmul_precision() -> str | None:
    """Precision of matrix products and convolutions in an agent's programs; None for JAX's default.

    On the CPU, JAX's default is float32. Some accelerators multiply with fewer digits by default,
    such as TF32 on GPUs, so that we ask for float32. A user's own `jax_default_matmul_precision`
    has priority.
    """
    given = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return given or (None if jax.default_backend() == "cpu" else "highest")


def with_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function to be compiled, whose matrix products have our precision."""

    @functools.wraps(function)
    def precise(*arguments: Any) -> Any:
        precision = matmul_precision()
        if precision is None:
            return function(*arguments)
        with jax.default_matmul_precision(precision):
            return function(*arguments)

    return precise


def describe_device() -> dict[str, Any]:
    """What programs run on, and with which precision, for the record of a run."""
    return {
        "device": jax.local_devices()[0].device_kind,
        "platform": jax.default_backend(),
        "matmul_precision": matmul_precision() or "default",
    }


def compile_agent(agent: Agent, mesh: Mesh | None = None) -> Programs:
    """Compiles an agent.

    Memory is reset where an episode begins; learning overwrites the state that it is given, but not
    its `params`.

    `learn` also returns whether what was learned is finite, see `is_finite`.

    With a mesh, its devices share the batches that the agent learns from, and each of them has a
    copy of the state.

    Numbers arrive packed in one array, since each argument that is passed to a compiled function
    costs time.
    """

    def act(params, memory, obs, first, key, numbers):
        step, total, act_calls = numbers
        memory = reset_memory(agent.initial_memory, memory, first)
        clock = Clock(step, jnp.zeros_like(step), total)
        return memory, *agent.act(params, memory, obs, jax.random.fold_in(key, act_calls), clock)

    def predict(params, memory, obs, first, key, count, deterministic):
        # Outside of a compiled function, deriving a key takes longer than the rest of the call.
        key = jax.random.fold_in(key, count)
        memory = reset_memory(agent.initial_memory, memory, first)
        return agent.predict(params, memory, obs, key, deterministic)

    def learn(state, trajectory, numbers):
        with use_mesh(mesh):
            state, metrics = agent.learn(state, trajectory, Clock(*numbers))
        return state, metrics, is_finite(state.params, metrics)

    init = jax.jit(with_precision(agent.init))
    return Programs(
        init=lambda key: replicate(init(key), mesh),
        act=jax.jit(with_precision(act)),
        predict=jax.jit(with_precision(predict), static_argnums=6),
        learn=InPlace(with_precision(learn)),
        queries={name: jax.jit(with_precision(query)) for name, query in agent.queries.items()},
        mesh=mesh,
    )


def compile_ahead(agent: Agent, programs: Programs, run: RunState, spec: EnvSpec) -> Future:
    """Compiles `learn` for trajectories of these environments before there is one: in a thread, while `act` is compiled and first used."""
    length, num_envs = agent.unroll_length, spec.num_envs
    out, memory = make_buffers(spec, length), agent.initial_memory(num_envs)
    out = out._replace(
        obs_tm1=spaces.at(out.obs_tm1, slice(length)),
        first_tm1=out.first_tm1[:length],
        memory=memory,
    )
    numbers = np.zeros(3, np.int32)

    def compile_learn() -> None:
        *_, extras = jax.eval_shape(
            programs.act,
            run.learner_state.params,
            memory,
            spaces.at(out.obs_t, 0),
            out.last_t[0],
            run.key,
            numbers,
        )
        extras = jax.tree.map(lambda x: jax.ShapeDtypeStruct((length, *x.shape), x.dtype), extras)
        programs.learn.lower(run.learner_state, out._replace(extras=extras), numbers).compile()

    pool = ThreadPoolExecutor(1, "compile")
    try:
        return pool.submit(compile_learn)
    finally:
        pool.shutdown(wait=False)


class Runner(Protocol):
    """Moves trajectories between environments and an agent.

    It keeps the environments' episodes between runs.

    Attributes:
      rollout_state: the state of the environments, if it can be kept: all that a runner has to keep beside
        a `RunState`. Otherwise None.
      name: tells environments apart, of which one can go on with the state of another; None where
        there is no such state.
      busy: whether actors in other threads are stepping the environments at this moment.
    """

    rollout_state: Any = None
    name: str | None = None
    busy: bool = False

    def reset(self, seed: int | None = None) -> None:
        """Begins new episodes; without a seed, the random numbers go on."""
        ...

    def run(
        self, run: RunState, total: int, next_stop: Callable[[int], float]
    ) -> Generator[Cycle, None, None]:
        """Acts and learns until `total` environment steps are done.

        Yields after each cycle, or after several: but not later than with the one that reaches the
        step `next_stop(step)`.
        """
        ...

    def infos(self) -> list[dict[str, Any]]:
        """Returns the `info` of each environment's newest step; empty where it is out of reach."""
        return []
