"""Taking over what a program has computed, so that no exception can lose it.

The programs that learn overwrite the state that they are given. An exception may arrive between any
two instructions of Python: from a signal handler, such as `KeyboardInterrupt`, or from another
thread. If one arrived between the end of a program and the assignment of its results, the only copy
of the state would be gone.

A `Handover` therefore calls the program and stores its results without executing an instruction of
Python in between. Everything else about the training cycle is known before. So the cycle can be
completed later, even after an interruption.

In the first call of a program, JAX itself executes Python. So this call is made in another thread,
which nobody interrupts, after the program has been compiled.
"""

from collections.abc import Callable, Sequence
from typing import Any

from agentzoo.background import (
    Background,
    jax_context,
    with_signals_deferred,
)
from agentzoo.runners.base import Cycle
from agentzoo.runners.programs import InPlace


class Handover:
    """The results of the program of a training cycle, from which the cycle is completed.

    Args:
      complete: function from the results of the program to the cycle. It may be called twice if an
        exception interrupts it, so it must not change anything but by assignment.
    """

    def __init__(self, complete: Callable[[Any], Cycle]):
        self._complete = complete
        self._program: InPlace | None = None
        self._outputs: list[Any] = []  # what the compiled function has returned
        self._calling: Background | None = None  # calls the program in another thread

    def call(self, program: InPlace, *arguments: Any) -> Cycle:
        """Call the program, and return the completed cycle."""
        self._program = program
        columns = [(argument,) for argument in program.arguments(*arguments)]
        if program.is_hot:
            # `map` calls the program and `extend` stores its output, and all of this is written
            # in C.
            self._outputs.extend(map(program.compiled, *columns))
        else:
            self._call_first(program, columns)
        cycle = self.cycle()
        assert cycle is not None
        return cycle

    def _call_first(self, program: InPlace, columns: Sequence[tuple[Any]]) -> None:
        """Call the program, of which JAX may execute a part in Python."""
        context = jax_context()

        def call(elsewhere: bool) -> None:
            # A program that another thread has called serves this one in the same context alone.
            if not elsewhere or (context is not None and jax_context() == context):
                with program.heating():
                    self._outputs.extend(map(program.compiled, *columns))

        if not program.is_warm:
            arguments = [argument for (argument,) in columns]
            compiling = Background(
                lambda: program.prepare(arguments).compile(), name="compile", awaited=True
            )
            compiling.start()
            compiling.wait()
        # If an exception interrupts this thread, `cycle` waits for the other one.
        self._calling = Background(call, True, name="first call", awaited=True)
        self._calling.start()
        self._calling.wait()
        if not self._outputs:
            with_signals_deferred(lambda: call(elsewhere=False))

    def cycle(self) -> Cycle | None:
        """Return the completed cycle, or None if the program has not been run."""
        if self._calling is not None:
            self._calling.wait()
        if self._program is None or not self._outputs:
            return None
        return self._complete(self._program.results(self._outputs[0]))
