"""An agent's functions, compiled.

Hyperparameters that are numbers are an argument of every compiled function, so agents that differ
only in numbers share the same programs.
"""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agentzoo.background import Background, jax_checks_values, jax_context
from agentzoo.envs import trajectory_shapes
from agentzoo.runners.base import RunState
from agentzoo.runners.counters import ActCounters, LearnCounters
from agentzoo.runners.faults import is_finite
from agentzoo.runners.kept import kept
from agentzoo.sharding import Mesh, replicate, use_mesh
from agentzoo.types import Agent, Array, EnvSpec, PyTree

MakeAgent = Callable[[Array], Agent]
"""Makes an agent from the numbers among its hyperparameters, which may be traced.

Makers that are equal share their compiled programs.
"""


class InPlace:
    """Compiles a function of a state, so that a call overwrites the arrays of the state.

    The first argument of the function is the vector of numbers, which `bind` sets.
    The `params` of the state stay as they are: a user, an actor or another thread may still hold
    them. Everything else, such as a large replay buffer, is updated without a copy. A program that
    calls Python functions, such as an environment with `jax.pure_callback`, overwrites nothing,
    because these functions may raise exceptions. For the same reason, nothing is overwritten under
    `jax_debug_nans` and `jax_debug_infs`.

    Args:
      function: the function. The state is a NamedTuple with a field `params`.
      overwritten: how many of the arguments after the state are overwritten, too.

    Attributes:
      compiled: the compiled function. It takes what `arguments` returns, and returns a list from
        which `results` makes the results.
    """

    def __init__(self, function: Callable[..., Any], overwritten: int = 0):
        # How to make the results from what the compiled function returns: plain arrays in a list.
        # JAX executes Python code to make a NamedTuple or a key, and an exception may arrive there.
        unpack: list[Callable[[list[Array]], Any]] = []

        def call(
            numbers: Array,
            params: PyTree,
            arrays: list[Array],
            keys: list[Array],
            layout: _Layout,
            *arguments: Any,
        ) -> list[Array]:
            rest, *others = layout.join(arrays, keys)
            results = function(numbers, rest._replace(params=params), *others, *arguments)
            packed, unpack[:] = _pack(results)
            return packed

        # The name of the program in JAX's logs and profiles.
        call.__name__ = getattr(function, "__name__", "call")
        self.compiled = self._overwriting = jax.jit(call, static_argnums=4, donate_argnums=2)
        self._copying = jax.jit(call, static_argnums=4)
        # How many calls in a row had arguments of a kind that JAX knew, in one context: in all
        # runs, and in this run.
        self._known_calls = self._calls = 0
        self._context: Any = None  # of the last call
        # How many kinds of arguments JAX knew, and the context, when the program became hot.
        self._heat: tuple[int, Any] | None = None
        self._overwritten = overwritten
        self._layouts: dict[Any, _Layout] = {}
        self._unpack = unpack
        self._numbers: Any = None

    def bind(self, numbers: Array) -> "InPlace":
        """Return the function with these numbers as its first argument."""
        bound = copy.copy(self)
        bound._numbers = numbers
        return bound

    @property
    def is_warm(self) -> bool:
        """Whether the program has been hot in this context, and JAX still knows it."""
        return self._known_calls > 1 and self._known() > 0 and self._context == jax_context()

    @property
    def is_hot(self) -> bool:
        """Whether JAX will not execute Python code in the next call."""
        return self._heat == (self._known(), jax_context())

    def _known(self) -> int:
        """Return for how many kinds of arguments JAX calls the program without Python."""
        return self.compiled._cache_size()  # type: ignore[attr-defined]

    def cool(self) -> None:
        """Forget that the function has been called, because the next arguments may be others."""
        self._heat, self._calls = None, 0

    @contextlib.contextmanager
    def heating(self) -> Iterator[None]:
        """Return a context in which the function is called, perhaps for the first time."""
        known, context = self._known(), jax_context()
        yield
        is_known = self._known() == known and self._context == context
        self._known_calls = self._known_calls + 1 if is_known else 0
        self._calls = self._calls + 1 if is_known else 0
        self._context = context
        # The results of a call, which are arguments of the next one, may be another kind than its
        # arguments. So two calls in a row are needed.
        if self._calls > 1:
            self._heat = known, context

    def arguments(self, state: Any, *arguments: Any) -> tuple[Any, ...]:
        """Return the arguments of `compiled` for a state and the arguments after it."""
        others, kept = arguments[: self._overwritten], arguments[self._overwritten :]
        leaves, structure = jax.tree.flatten((state._replace(params=None), *others))
        layout = self._layouts.get(structure)
        if layout is None:
            layout = self._layouts[structure] = _Layout(structure, _places_of_keys(leaves))
        # Keys are not overwritten: they come back as plain arrays, which JAX takes for other types.
        keys = [leaves.pop(place) for place in reversed(layout.keys)]
        return self._numbers, state.params, leaves, keys, layout, *kept

    def results(self, output: list[Array]) -> Any:
        """Return the results of the function, given what `compiled` has returned."""
        return self._unpack[0](output)

    def __call__(self, state: Any, *arguments: Any) -> Any:
        """Call the function."""
        return self.results(self.compiled(*self.arguments(state, *arguments)))

    def lower(self, state: Any, *arguments: Any) -> jax.stages.Lowered:
        """Return the function for arguments like these, not compiled yet."""
        return self.prepare(self.arguments(state, *arguments))

    def prepare(self, arguments: Sequence[Any]) -> jax.stages.Lowered:
        """Choose `compiled` for arguments of it, and return it, not compiled yet."""
        if not jax_checks_values():
            traced = self._overwriting.trace(*arguments)
            # Effects are what is printed, for example.
            if not (traced.jaxpr.effects or _calls_python(traced.jaxpr.jaxpr)):
                self.compiled = self._overwriting
                return traced.lower()
        self.compiled = self._copying
        return self._copying.trace(*arguments).lower()


class Interruptible:
    """A compiled function whose first call is made in another thread.

    JAX compiles the function then, which may take seconds for a large network. The thread that
    waits for it can be interrupted, and handles signals.

    Args:
      program: the function. Its first argument is the vector of numbers, which `bind` sets. The
        fifth one is bool `[N]`, and those after the seventh are static.
    """

    def __init__(self, program: Any):
        self.program = program
        self._called: set[Any] = set()  # the kinds of arguments of calls that have ended
        self._numbers: Any = None

    def bind(self, numbers: Array) -> "Interruptible":
        """Return the function with these numbers as its first argument."""
        bound = copy.copy(self)
        bound._numbers = numbers
        return bound

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        kind = len(arguments[3]), arguments[6:]
        if not self.program._cache_size():  # JAX may have dropped its programs
            self._called.clear()
        if kind not in self._called:
            results: list[Any] = []
            calling = Background(
                lambda: results.append(self.program(self._numbers, *arguments)),
                name="compile",
                awaited=True,
            )
            calling.start()
            calling.wait()
            self._called.add(kind)
            return results[0]
        return self.program(self._numbers, *arguments)


def _calls_python(jaxpr: Any) -> bool:
    """Return whether a program calls Python functions, by itself or in one of its parts."""
    for equation in jaxpr.eqns:
        if "callback" in equation.primitive.name:
            return True
        parts = [getattr(part, "jaxpr", part) for part in jax.tree.leaves(equation.params)]
        if any(hasattr(part, "eqns") and _calls_python(part) for part in parts):
            return True
    return False


class _Layout(NamedTuple):
    """How a tree is divided into arrays and random keys.

    Attributes:
      structure: the structure of the tree.
      keys: the places of the keys among the leaves, in ascending order.
    """

    structure: Any
    keys: tuple[int, ...]

    def join(self, arrays: Sequence[Array], keys: Sequence[Array]) -> PyTree:
        """Return the tree, given its arrays, and its keys in descending order of their places."""
        leaves = list(arrays)
        for place, key in zip(self.keys, reversed(keys), strict=True):
            leaves.insert(place, key)
        return jax.tree.unflatten(self.structure, leaves)


def _places_of_keys(leaves: Sequence[Any]) -> tuple[int, ...]:
    is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    return tuple(place for place, key in enumerate(is_key) if key)


def _pack(tree: PyTree) -> tuple[list[Array], list[Callable[[list[Array]], Any]]]:
    """Return the leaves of a tree, with keys as plain arrays, and a function that undoes this.

    JAX gives the memory of overwritten arguments to results of the same shape, in their order. So
    the results that stand for them come in the order of the arguments, and `params`, which are not
    overwritten, come last. Otherwise, XLA would copy these arrays from one place to another.
    """
    found, structure = jax.tree.flatten_with_path(tree)
    order = sorted(range(len(found)), key=lambda index: _is_of_params(found[index][0]))
    leaves = [found[index][1] for index in order]
    keys = {place: jax.random.key_impl(leaves[place]) for place in _places_of_keys(leaves)}
    # Where each leaf of the tree is among the arrays.
    places = sorted(range(len(order)), key=order.__getitem__)

    def unpack(arrays: list[Array]) -> PyTree:
        arrays = list(arrays)
        for place, implementation in keys.items():
            arrays[place] = jax.random.wrap_key_data(arrays[place], impl=implementation)
        return jax.tree.unflatten(structure, [arrays[place] for place in places])

    packed = [jax.random.key_data(x) if i in keys else x for i, x in enumerate(leaves)]
    return packed, [unpack]


def _is_of_params(path: Sequence[Any]) -> bool:
    """Return whether a leaf of results belongs to the `params` of the state."""
    names = [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)]
    return names[:1] == ["params"]


class Programs(NamedTuple):
    """An agent's functions, compiled to be called from Python.

    Attributes:
      make_agent: makes the agent from the numbers among its hyperparameters.
      numbers: these numbers, `[P]`.
      init: `(key) -> state`.
      act: `(params, memory, obs, first, key, counters) -> (memory before, action, memory, extras)`.
      predict: `(params, memory, obs, first, key, count, deterministic) -> (action, memory)`.
      learn: `(state, trajectory, counters) -> (state, metrics, finite)`.
      queries: the agent's `queries`.
      mesh: the devices that share the work; None for one device.
    """

    make_agent: MakeAgent
    numbers: Any
    init: Any
    act: Any
    predict: Any
    learn: Any
    queries: dict[str, Any]
    mesh: Mesh | None


def reset_memory(initial_memory: Callable[[int], PyTree], memory: PyTree, first: Array) -> PyTree:
    """Return the memory `[N, ...]`, with the initial memory where an episode begins."""

    def choose(initial: Array, old: Array) -> Array:
        begins = first.reshape(first.shape + (1,) * (old.ndim - first.ndim))
        return jnp.where(begins, initial, old)

    return jax.tree.map(choose, initial_memory(first.shape[0]), memory)


def matmul_precision() -> str | None:
    """Return the precision of matrix products and convolutions; None for JAX's default.

    On the CPU, JAX's default is float32. Some accelerators multiply with fewer digits by default,
    such as TF32 on GPUs, so agents ask for float32. A user's own `jax_default_matmul_precision`
    has priority.
    """
    given = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return given or (None if jax.default_backend() == "cpu" else "highest")


def with_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function, to be compiled, whose matrix products have our precision."""

    @functools.wraps(function)
    def precise(*arguments: Any) -> Any:
        precision = matmul_precision()
        if precision is None:
            return function(*arguments)
        with jax.default_matmul_precision(precision):
            return function(*arguments)

    return precise


def describe_device() -> dict[str, Any]:
    """Return the device and the precision of programs, for the record of a run."""
    return {
        "device": jax.local_devices()[0].device_kind,
        "platform": jax.default_backend(),
        "matmul_precision": matmul_precision() or "default",
    }


def act(
    agent: Agent,
    params: PyTree,
    memory: PyTree,
    obs: PyTree,
    first: Array,
    key: Array,
    counters: ActCounters,
) -> tuple[PyTree, Array, PyTree, PyTree]:
    """Act once in each environment.

    Returns:
      The memory before, which is the initial one where an episode begins; the actions; the memory
      after; and the extras.
    """
    memory = reset_memory(agent.initial_memory, memory, first)
    key = jax.random.fold_in(key, counters.act_calls)
    return memory, *agent.act(params, memory, obs, key, counters.clock)


def learn(
    agent: Agent, mesh: Mesh | None, state: Any, trajectory: Any, counters: LearnCounters
) -> tuple[Any, dict[str, Any], Array]:
    """Learn from a trajectory. Returns the state, the metrics, and whether all is finite."""
    with use_mesh(mesh):
        state, metrics = agent.learn(state, trajectory, counters.clock)
    return state, metrics, is_finite(state.params, metrics)


def compile_agent(
    agent: Agent,
    make_agent: MakeAgent | None = None,
    numbers: Any = (),
    mesh: Mesh | None = None,
) -> Programs:
    """Compile an agent.

    Memory is reset where an episode begins. Learning overwrites the state that it is given, except
    its `params`.

    Args:
      agent: the agent.
      make_agent: makes the agent from its numbers. Equal makers share their programs. None makes
        an agent whose numbers are constants.
      numbers: the numbers among its hyperparameters, int32 `[P]`; see `config.numbers_of`.
      mesh: devices that share the batches from which the agent learns. Each of them has a copy of
        the state.
    """
    programs = _compile(make_agent or (lambda _: agent), tuple(agent.queries), mesh)
    numbers = replicate(jnp.asarray(numbers, jnp.int32), mesh)
    queries = programs.queries.items()
    return programs._replace(
        numbers=numbers,
        init=lambda key, without=(): replicate(programs.init(numbers, key, without), mesh),
        act=programs.act.bind(numbers),
        predict=programs.predict.bind(numbers),
        learn=programs.learn.bind(numbers),
        queries={name: functools.partial(query, numbers) for name, query in queries},
    )


@kept
def _compile(make_agent: MakeAgent, queries: tuple[str, ...], mesh: Mesh | None) -> Programs:
    """Compile the functions of all agents that differ only in their numbers."""

    def init(numbers, key, without):
        state = make_agent(numbers).init(key)
        return state._replace(**dict.fromkeys(without))

    def act_packed(numbers, params, memory, obs, first, key, packed):
        counters = ActCounters.unpack(packed)
        return act(make_agent(numbers), params, memory, obs, first, key, counters)

    def predict(numbers, params, memory, obs, first, key, count, deterministic):
        agent = make_agent(numbers)
        # Outside of a compiled function, deriving a key takes longer than the rest of the call.
        key = jax.random.fold_in(key, count)
        memory = reset_memory(agent.initial_memory, memory, first)
        return agent.predict(params, memory, obs, key, deterministic)

    def learn_packed(numbers, state, trajectory, packed):
        counters = LearnCounters.unpack(packed)
        return learn(make_agent(numbers), mesh, state, trajectory, counters)

    def make_query(name: str) -> Callable[..., Array]:
        def query(numbers, *arguments):
            return make_agent(numbers).queries[name](*arguments)

        return query

    return Programs(
        make_agent=make_agent,
        numbers=None,
        init=jax.jit(with_precision(init), static_argnums=2),
        act=Interruptible(jax.jit(with_precision(act_packed))),
        predict=Interruptible(jax.jit(with_precision(predict), static_argnums=7)),
        learn=InPlace(with_precision(learn_packed)),
        queries={name: jax.jit(with_precision(make_query(name))) for name in queries},
        mesh=mesh,
    )


def compile_ahead(
    agent: Agent, programs: Programs, run: RunState, spec: EnvSpec, lags: bool = False
) -> Background:
    """Compile `learn` in a thread before there is a trajectory, while `act` compiles and runs.

    There is nothing to wait for if it has been called before.

    Args:
      agent: the agent.
      programs: its functions, compiled.
      run: the state of the run.
      spec: what the agent knows of all environments together.
      lags: whether the parameters that act may be older than those of the state.

    Returns:
      The thread.
    """
    if programs.learn.is_warm:
        return Background(lambda: None, name="compile")
    length, num_envs = agent.unroll_length, spec.num_envs
    memory = agent.initial_memory(num_envs)
    shapes = trajectory_shapes(spec, length)._replace(memory=memory)
    # Observations and flags of a single step, `[N, ...]`.
    obs, first = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (shapes.obs_tm1, shapes.first_tm1)
    )

    def compile_learn() -> None:
        act_counters, learn_counters = ActCounters(0, 1, 0), LearnCounters(1, 1, 1)
        params = run.learner_state.params
        *_, extras = jax.eval_shape(
            programs.act.program,
            programs.numbers,
            params,
            memory,
            obs,
            first,
            run.key,
            act_counters.pack(),
        )
        extras = agent.without_newest(extras) if lags else extras
        extras = jax.tree.map(lambda x: jax.ShapeDtypeStruct((length, *x.shape), x.dtype), extras)
        trajectory = shapes._replace(extras=extras)
        programs.learn.lower(run.learner_state, trajectory, learn_counters.pack()).compile()

    compiling = Background(compile_learn, name="compile", awaited=True)
    compiling.start()
    return compiling
