"""The callback that shows the progress of a run."""

from agentzoo import progress
from agentzoo.callbacks.base import BaseCallback


class ProgressBarCallback(BaseCallback):
    """A callback that shows the progress of a run.

    It shows the mean return of the last 100 episodes, the speed and the time left. In a terminal or
    a notebook it is a bar. Elsewhere, it prints one line per log entry.
    """

    def _on_training_start(self) -> None:
        self._budget: progress.Budget = self.locals["budget"]
        name = type(self.model).__name__
        if note := self._budget.note(name):
            progress.write(note)
        first = self._budget.first
        self._progress = progress.Progress(name, first, self._budget.end(first))
        # How many log entries are due up to this step, one for each multiple of the interval.
        self._entries = first // self.locals["log_interval"]

    def _on_step(self) -> bool:
        step = self.num_timesteps
        note = f"return {self.model.ep_rew_mean:.1f}" if self.locals["episodes"] else ""
        before, self._entries = self._entries, step // self.locals["log_interval"]
        self._progress.move(step, self._budget.end(step), note, due=self._entries > before)
        return True

    def _on_training_end(self) -> None:
        self._progress.close()
