"""Callbacks in the style of Stable-Baselines3.

A callback runs between training cycles. Its `on_step` is called once per cycle, after the agent has
learned from it. A cycle of DQN is `train_freq` steps long, for example. All frequencies
(`eval_freq`, `save_freq`, `n_steps`) count environment steps, whatever the number of environments.

If the environments are compiled together with the agent, cycles run in chunks, and `on_step` is
called once per chunk, a few times a second. A callback that must run at certain steps announces
them by its method `next_step`, as all callbacks with a frequency do. It is then called in the cycle
that reaches such a step. `EveryNTimesteps(1, callback)` therefore calls a callback in every cycle.

Training continues as long as every callback returns None or a true value. Any other value ends the
training: False, 0, or a NumPy or JAX boolean that is false.

A callback object can be used for several calls of `learn`. A new run (`reset_num_timesteps=True`)
starts with `n_calls` equal to 0 and without a best evaluation. The limits of
`StopTrainingOnMaxEpisodes` and `StopTrainingOnNoModelImprovement` apply to each call of `learn`, as
`total_timesteps` does.

A callback with its own counters implements `state`, which returns them as plain JSON, and
`set_state`, which restores them. Checkpoints store these states, and `agentzoo.resume` restores
them, so that limits apply to the whole run. Your own callback does the same with a few lines::

    class StopAfterTenRecords(BaseCallback):
        def __init__(self):
            super().__init__()
            self.best, self.records = None, 0

        def state(self):
            return {**super().state(), "best": self.best, "records": self.records}

        def set_state(self, state):
            super().set_state(state)
            self.best, self.records = state["best"], state["records"]

        def _on_step(self):
            for episode in self.locals["episodes"]:
                if self.best is None or episode.reward > self.best:
                    self.best, self.records = episode.reward, self.records + 1
            return self.records < 10
"""

from agentzoo.callbacks.base import (
    BaseCallback,
    CallbackLike,
    CallbackList,
    ConvertCallback,
    EventCallback,
    Locals,
    make_callback,
)
from agentzoo.callbacks.evaluation import EvalCallback
from agentzoo.callbacks.periodic import CheckpointCallback, EveryNTimesteps, LogEveryNTimesteps
from agentzoo.callbacks.progress_bar import ProgressBarCallback
from agentzoo.callbacks.stopping import (
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)

__all__ = [
    "BaseCallback",
    "CallbackLike",
    "CallbackList",
    "CheckpointCallback",
    "ConvertCallback",
    "EvalCallback",
    "EventCallback",
    "EveryNTimesteps",
    "Locals",
    "LogEveryNTimesteps",
    "ProgressBarCallback",
    "StopTrainingOnMaxEpisodes",
    "StopTrainingOnNoModelImprovement",
    "StopTrainingOnRewardThreshold",
    "make_callback",
]
