"""Taking over what a program has computed, so that no exception can lose it.

The programs that learn overwrite the state that they are given. An exception may arrive between any
two instructions of Python: from a signal handler, such as `KeyboardInterrupt`, or from another
thread. If one arrived between the end of a program and the assignment of its results, the only copy
of the state would be gone.

A `Handover` therefore calls the program and stores its results without executing an instruction of
Python in between. Everything else about the training cycle is known before. So the cycle can be
completed later, even after an interruption.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from agentzoo.background import signals_deferred
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

    def call(self, program: InPlace, *arguments: Any) -> Cycle:
        """Call the program, and return the completed cycle."""
        self._program = program
        columns = [(argument,) for argument in program.arguments(*arguments)]
        with contextlib.nullcontext() if program.is_warm else signals_deferred():
            # `map` calls the program and `extend` stores its output, and both are written in C.
            # So is the call of a program, except for the first one.
            self._outputs.extend(map(program.compiled, *columns))
        program.is_warm = True
        cycle = self.cycle()
        assert cycle is not None
        return cycle

    def cycle(self) -> Cycle | None:
        """Return the completed cycle, or None if the program has not been run."""
        if self._program is None or not self._outputs:
            return None
        return self._complete(self._program.results(self._outputs[0]))
