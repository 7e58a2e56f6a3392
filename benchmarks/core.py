"""Speed of `agentzoo.core` compared with RLax 0.1.9.

Create a virtual environment that has both libraries and run this file in it, on an idle machine:

    python -m venv peer && peer/bin/pip install rlax==0.1.9 .
    peer/bin/python benchmarks/core.py

Both libraries run in one process and take turns. Times are the least of many short rounds. Inputs
are random float32: 32 trajectories of length T unless a row says otherwise. The layout is `[B, T]`
through `jax.vmap`, or `[T, B]`, where RLax is mapped over the second axis. A gradient is the
gradient of the sum of sines of the results with respect to the values, through the targets.

`ratio` is RLax's time divided by agentzoo's time, so a ratio above 1 means that agentzoo is faster.
On a busy or virtual machine, single rows differ by 10% to 20% from run to run. To run parts of the
table, name its sections.
"""

import argparse
import functools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from agentzoo import core

try:
    import rlax
except ImportError:
    sys.exit(
        "This needs RLax beside agentzoo, in an environment of its own: pip install rlax==0.1.9"
    )

LIBRARIES = {"rlax": rlax, "ours": core}
B, A, LAMBDA = 32, 6, 0.95
# Each is a function of a library and the arguments from `inputs`. Gradients are taken with respect
# to the first of these arguments.
TRACED = {
    "lambda_returns": lambda lib, v, r, d: lib.lambda_returns(
        r, d, v, LAMBDA, stop_target_gradients=False
    ),
    "discounted_returns": lambda lib, v, r, d: lib.discounted_returns(
        r, d, v, stop_target_gradients=False
    ),
    "GAE": lambda lib, v, r, d: lib.truncated_generalized_advantage_estimation(
        r, d, LAMBDA, v, stop_target_gradients=False
    ),
    "vtrace_td_error_and_advantage": lambda lib, v_t, v_tm1, r, d, rho: (
        lib.vtrace_td_error_and_advantage(v_tm1, v_t, r, d, rho, stop_target_gradients=False)[:2]
    ),
    "retrace": lambda lib, q_t, q_tm1, a_tm1, a_t, r, d, pi, mu: lib.retrace(
        q_tm1, q_t, a_tm1, a_t, r, d, pi, mu, LAMBDA, stop_target_gradients=False
    ),
}
Row = tuple[str, str, float, float, str]  # name, sizes, seconds of RLax, of agentzoo, and the bar


def inputs(name: str, length: int, batch: tuple[int, ...] = ()) -> list[jax.Array]:
    """Return arguments for a function of `TRACED`, `[T, *batch]`."""
    rng = np.random.default_rng(0)
    steps = (length, *batch)
    r, d = rng.normal(size=steps), 0.99 * (rng.random(steps) > 0.02)
    rho = rng.uniform(0.1, 1, steps)
    states = (length + 1, *batch)
    v, q = rng.normal(size=states), rng.normal(size=(*states, A))
    actions = rng.integers(A, size=states)
    arrays = {
        "GAE": (v, r, d),
        "vtrace_td_error_and_advantage": (v[1:], v[:-1], r, d, rho),
        "retrace": (
            q[1:],
            q[:-1],
            actions[:-1],
            actions[1:],
            r,
            d,
            rng.dirichlet(np.ones(A), steps),
            rho,
        ),
    }.get(name, (v[1:], r, d))
    return [
        jnp.asarray(x, jnp.int32 if np.issubdtype(x.dtype, np.integer) else jnp.float32)
        for x in arrays
    ]


def gradient(function: Callable) -> Callable:
    return jax.grad(
        lambda *arguments: sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(function(*arguments)))
    )


def interleaved(
    functions: dict[str, Callable], arguments: list[jax.Array], rounds: int, seconds: float = 1e-3
) -> list[float]:
    """Return the least time of a call of each function, in seconds.

    In each round, the functions take turns of about `seconds`. Each round copies the arguments to
    new addresses, because the addresses change the time by up to a half.
    """
    turns = {}
    for name, function in functions.items():
        jax.block_until_ready(function(*arguments))
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        turns[name] = max(1, int(seconds / (time.perf_counter() - start)))
    least = dict.fromkeys(functions, float("inf"))
    order, kept = list(functions.items()), []
    for _ in range(rounds):
        copies = jax.block_until_ready([jnp.array(x) for x in arguments])
        kept = [*kept[-3:], copies]  # kept alive, so that the next copies get other addresses
        order.reverse()  # so that neither library always goes first
        for name, function in order:
            start = time.perf_counter()
            for _ in range(turns[name]):
                result = function(*copies)
            jax.block_until_ready(result)
            least[name] = min(least[name], (time.perf_counter() - start) / turns[name])
    return list(least.values())


def compiled(
    functions: dict[str, Callable], arguments: list[jax.Array]
) -> tuple[dict[str, Callable], list[float]]:
    """Compile the function of each library, check that the results agree, and time the compilation.

    Returns:
      The executables, and the compilation times in seconds.
    """
    executables, seconds = {}, []
    for name, function in functions.items():
        start = time.perf_counter()
        executables[name] = jax.jit(function).lower(*arguments).compile()
        seconds.append(time.perf_counter() - start)
    results = [jax.tree.leaves(executable(*arguments)) for executable in executables.values()]
    for theirs, ours in zip(*results, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=2e-3, atol=2e-3)
    return executables, seconds


def import_rows(rounds: int) -> Iterator[Row]:
    """Measure a process that imports minus a process that does not.

    The first row compares with `import jax` instead of RLax.
    """
    least = {}
    for _ in range(rounds):
        for module in ("sys", "jax", "agentzoo.core", "rlax"):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            least[module] = min(least.get(module, float("inf")), time.perf_counter() - start)
    jax_seconds, ours, theirs = (
        least[module] - least["sys"] for module in ("jax", "agentzoo.core", "rlax")
    )
    yield "import, beside `import jax`", "", jax_seconds, ours, ">= 0.77"
    yield "import, beside RLax", "", theirs, ours, ""


def eager_rows(rounds: int) -> Iterator[Row]:
    for name in ("lambda_returns", "GAE", "vtrace_td_error_and_advantage", "retrace"):
        functions = {
            key: functools.partial(TRACED[name], library) for key, library in LIBRARIES.items()
        }
        yield (
            f"{name}, eager",
            "T=100",
            *interleaved(functions, inputs(name, 100), rounds),
            ">= 100",
        )
    points = [jax.random.normal(jax.random.key(0), shape) for shape in ((500, 32), (8, 32))]
    functions = {
        key: functools.partial(library.knn_query, num_neighbors=10)
        for key, library in LIBRARIES.items()
    }
    yield (
        "knn_query, eager",
        "8 queries of 500 rows, D=32, k=10",
        *interleaved(functions, points, rounds),
        ">= 100",
    )


def n_step_rows(rounds: int) -> Iterator[Row]:
    bars = {("", 100): ">= 15", (" gradient", 100): ">= 100"}
    for length in (200, 1000):
        for n in (5, 20, 100):

            def returns(lib, v, r, d, n=n):
                return lib.n_step_bootstrapped_returns(r, d, v, n, stop_target_gradients=False)

            for mode, layout, functions, arguments in batched(
                returns, inputs("n_step", length, (B,))
            ):
                what, sizes = f"n_step_bootstrapped_returns{mode}", f"n={n}, T={length}, {layout}"
                executables, seconds = compiled(functions, arguments)
                yield (
                    what,
                    sizes,
                    *interleaved(executables, arguments, rounds),
                    bars.get((mode, n), ""),
                )
                yield f"{what}, compilation", sizes, *seconds, ""


def traced_rows(rounds: int) -> Iterator[Row]:
    for name, function in TRACED.items():
        for length in (20, 200, 1000):
            for mode, layout, functions, arguments in batched(function, inputs(name, length, (B,))):
                # Compiled twice, because the addresses of code and constants matter too.
                times = [
                    interleaved(compiled(functions, arguments)[0], arguments, rounds // 2)
                    for _ in range(2)
                ]
                yield f"{name}{mode}", f"T={length}, {layout}", *np.min(times, axis=0), ">= 0.9"


def batched(
    function: Callable, arguments: list[jax.Array]
) -> Iterator[tuple[str, str, dict[str, Callable], list[jax.Array]]]:
    """Yield mode, layout, functions and arguments for both layouts, with and without gradient.

    Args:
      function: function of a library and the arguments.
      arguments: arrays `[T, B, ...]`.
    """
    single = {name: functools.partial(function, library) for name, library in LIBRARIES.items()}
    mapped = {name: jax.vmap(f) for name, f in single.items()}
    for mode, wrap in (("", lambda f: f), (" gradient", gradient)):
        yield (
            mode,
            "vmap [B, T]",
            {name: wrap(f) for name, f in mapped.items()},
            [jnp.swapaxes(x, 0, 1) for x in arguments],
        )
        time_first = {"rlax": jax.vmap(single["rlax"], 1, 1), "ours": single["ours"]}
        yield mode, "[T, B]", {name: wrap(f) for name, f in time_first.items()}, arguments


def duration(seconds: float) -> str:
    return f"{seconds * 1e6:7.1f} us" if seconds < 1e-2 else f"{seconds * 1e3:7.1f} ms"


SECTIONS = {
    "import": import_rows,
    "eager": eager_rows,
    "n_step": n_step_rows,
    "traced": traced_rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sections",
        nargs="*",
        metavar="SECTION",
        choices=[*SECTIONS, []],
        help=f"one or more of {', '.join(SECTIONS)} (default: all)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=100,
        help="rounds per row; imports and eager calls take a tenth",
    )
    arguments = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, B={B}")
    print(f"{'':49} {'sizes':34} {'RLax':>10} {'ours':>10} {'ratio':>8}  bar")
    for name in arguments.sections or SECTIONS:
        rounds = max(3, arguments.rounds // 10) if name in ("import", "eager") else arguments.rounds
        for what, sizes, theirs, ours, bar in SECTIONS[name](rounds):
            missed = " MISSED" if bar and theirs / ours < float(bar.split()[1]) else ""
            times = f"{duration(theirs)} {duration(ours)} {theirs / ours:8.2f}"
            print(f"{what:49} {sizes:34} {times}  {bar}{missed}", flush=True)


if __name__ == "__main__":
    main()
