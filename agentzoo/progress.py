"""The progress of a run: a bar in a terminal or a notebook, and lines of text elsewhere."""

import sys
import time
from typing import Any, NamedTuple

from tqdm.auto import tqdm


class Budget(NamedTuple):
    """The environment steps of a run.

    Attributes:
      first: the step at which the run begins.
      goal: the step that the run has to reach. The run ends with the training cycle that does so.
      cycle: the steps of a training cycle, over all environments together.
      exact: whether every cycle has exactly this many steps. Cycles of vector environments with
        dummy steps may have fewer, because dummy steps do not count.
    """

    first: int
    goal: int
    cycle: int
    exact: bool

    def end(self, step: int) -> int:
        """Return the step at which the run will end, as far as it is known at `step`."""
        remaining = max(self.goal - step, 0)
        num_cycles = -(-remaining // self.cycle)  # the remaining cycles, rounded up
        return step + num_cycles * self.cycle

    def note(self, name: str) -> str | None:
        """Return a sentence about the rounding of the budget, or None if it is not rounded.

        Args:
          name: the name of the algorithm.
        """
        budget, taken = self.goal - self.first, self.end(self.first) - self.first
        if not self.exact:
            return (
                f"{name} learns in cycles of up to {self.cycle:,} steps, and training ends with "
                f"the cycle that uses up the budget of {budget:,} steps."
            )
        if budget == taken:
            return None
        return (
            f"{name} learns in cycles of {self.cycle:,} steps, so the budget of {budget:,} steps "
            f"is rounded up to {taken:,}."
        )


class Progress:
    """A display of the progress of a run on stderr.

    Args:
      name: the text at the beginning of the bar or the lines.
      first: the step at which the run begins.
      total: the step at which the run ends.
    """

    def __init__(self, name: str, first: int, total: int):
        self.name, self.total = name, total
        self._step = first
        # `disable=None` asks tqdm for a bar only in a terminal, or as a widget of a notebook. A
        # notebook without widgets shows text, but its stream says that it is no terminal. Where
        # Python runs without a console, there is no stream.
        text_in_notebook = type(sys.stderr).__module__.startswith("ipykernel")
        disable = True if sys.stderr is None else False if text_in_notebook else None
        layout: dict[str, Any] = dict(desc=name, unit="step", dynamic_ncols=True)
        self._bar = tqdm(total=total, initial=first, disable=disable, **layout)
        self._began = self._printed_at = time.perf_counter()
        self._printed, self._note = first, ""

    def move(self, step: int, total: int, note: str = "", due: bool = False) -> None:
        """Show that the run has reached a step.

        Args:
          step: the step.
          total: the step at which the run will end.
          note: a text to show beside it. If it is empty, the last note stays.
          due: whether to print a line if there is no bar.
        """
        self._step, self.total = step, total
        self._note = note or self._note
        if self._bar.disable:
            if due:
                self._print()
            return
        self._bar.total = total
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Show the last step, and leave the bar on the screen."""
        if self._bar.disable and self._step > self._printed:
            self._print()
        self._bar.close()

    def _print(self) -> None:
        now = time.perf_counter()
        # The rate since the last line predicts best: the random steps before the first update are
        # faster than what follows, and compilation is slower.
        rate = (self._step - self._printed) / max(now - self._printed_at, 1e-9)
        write(
            tqdm.format_meter(
                self._step,
                self.total,
                now - self._began,
                prefix=self.name,
                unit="step",
                rate=rate,
                postfix=self._note,
                bar_format="{desc}: {n_fmt}/{total_fmt} steps ({percentage:.0f}%){postfix}, "
                f"{rate:,.0f} steps/s, {{elapsed}} elapsed, {{remaining}} left",
            )
        )
        self._printed, self._printed_at = self._step, now


def write(text: str) -> None:
    """Print a line on stderr, above the bar if there is one."""
    if sys.stderr is not None:
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()
