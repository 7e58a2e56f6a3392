"""Trackers: services that get the entries of a log beside the files, such as Weights & Biases."""

import contextlib
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from agentzoo.logging.files import write_whole
from agentzoo.types import ConfigurationError

FILE = "tracking.json"
"""The file of a run folder that says what each tracker has got."""

_PAUSE = 60.0  # seconds between two attempts to reach a tracker that fails
_PATIENCE = 20.0  # the pause is also this multiple of what an attempt took


class TrackedRun(NamedTuple):
    """What a tracker is told about a run.

    Attributes:
      name: the name of the run, such as "DQN_CartPole-v1_1".
      folder: the run folder, or None.
      config: hyperparameters by name, and algorithm, env, seed and other facts, as plain JSON.
      id: what `Tracker.start` returned when the run began, if the run goes on; None for a new run.
    """

    name: str
    folder: Path | None
    config: Mapping[str, Any]
    id: str | None


@runtime_checkable
class Tracker(Protocol):
    """A service that gets the entries of a log. Any object with these members is a tracker.

    An exception in a method causes a warning and does not end training.

    Attributes:
      name: the name of the service, which is also a place for `logger.record(..., exclude=)`.
    """

    name: str

    def start(self, run: TrackedRun) -> str:
        """Begin a run, or go on with the run `run.id`, and return its id."""
        ...

    def log(self, values: Mapping[str, float | str], step: int) -> None:
        """Take scalars and texts of an environment step, by tag. Steps never decrease."""
        ...

    def finish(self, succeeded: bool) -> None:
        """End the run. `succeeded` says whether training came to its end."""
        ...


TrackersLike: TypeAlias = str | Tracker | Sequence[str | Tracker]


def _wandb() -> Tracker:
    from agentzoo.logging.wandb_tracker import WandbTracker

    return WandbTracker()


def _mlflow() -> Tracker:
    from agentzoo.logging.mlflow_tracker import MlflowTracker

    return MlflowTracker()


MAKERS: Mapping[str, Callable[[], Tracker]] = {"wandb": _wandb, "mlflow": _mlflow}
"""The trackers that have a name, with their default settings."""


def make_trackers(given: TrackersLike) -> tuple[list[Tracker], list[str]]:
    """Return trackers, and the names among what was given.

    Args:
      given: "wandb", "mlflow", an object with the members of `Tracker`, or a list of these.

    Raises:
      ConfigurationError: if one is something else, or needs a package that is missing.
    """
    each = [given] if isinstance(given, str) or not isinstance(given, Sequence) else list(given)
    trackers: list[Tracker] = []
    for one in each:
        if isinstance(one, str):
            if one not in MAKERS:
                raise ConfigurationError(
                    f"There is no tracker {one!r}. Choose from {', '.join(map(repr, MAKERS))}, or "
                    f"pass an object with the members of agentzoo.logging.Tracker."
                )
            trackers.append(MAKERS[one]())
        elif isinstance(one, type) or not isinstance(one, Tracker):
            what = f"the class {one.__name__}" if isinstance(one, type) else type(one).__name__
            raise ConfigurationError(
                f"trackers holds {what}, which is not a tracker. Pass objects with a name and the "
                f"methods start, log and finish; see agentzoo.logging.Tracker."
            )
        else:
            trackers.append(one)
    return trackers, [one for one in each if isinstance(one, str)]


class Tracking:
    """Passes the entries of a log to trackers, each value once.

    A run that was interrupted repeats steps after its last checkpoint, and trackers cannot remove
    what they have got. So the run folder says which values each tracker has got, and these values
    are not sent again.

    Args:
      trackers: the trackers.
      names: the trackers that were given by name, which a resumed run can make again.
    """

    def __init__(self, trackers: Sequence[Tracker] = (), names: Sequence[str] = ()):
        self.names = list(names)
        self._links = [_Link(tracker) for tracker in trackers]
        self._folder: Path | None = None

    def __bool__(self) -> bool:
        """Return whether there are trackers."""
        return bool(self._links)

    def start(
        self, folder: Path | None, name: str, config: Mapping[str, Any], goes_on: bool
    ) -> None:
        """Begin a run, or go on with the run in the folder.

        Args:
          folder: the run folder, or None.
          name: the name of the run.
          config: what to tell trackers about it.
          goes_on: whether the run goes on with the last one. A run with a folder goes on if the
            folder says so.
        """
        self._folder = folder
        saved = {} if folder is None else _read(folder / FILE)
        keys = self._keys()
        for key in saved.keys() - set(keys):
            warnings.warn(
                f"The run in {folder} was tracked by {key}. Pass trackers=[...] with this tracker "
                f"to go on there.",
                RuntimeWarning,
                stacklevel=2,
            )
        for key, link in zip(keys, self._links, strict=True):
            before = link.sent if folder is None and goes_on else _Sent(**saved.get(key, {}))
            link.start(TrackedRun(name, folder, config, before.id), before)
        self._save()

    def log(self, place_of: Callable[[str], Mapping[str, Any]], step: int) -> None:
        """Pass an entry on, as far as trackers have not got it.

        Args:
          place_of: returns what a place, given by its name, may get of the entry.
          step: the environment step of the entry.
        """
        sent = [link.log(place_of(link.tracker.name), step) for link in self._links]
        if any(sent):
            self._save()

    def finish(self, succeeded: bool) -> None:
        """End the run. Further calls have no effect."""
        if any(link.is_started for link in self._links):
            for link in self._links:
                link.finish(succeeded)
            self._save()

    def _keys(self) -> list[str]:
        """Return a key for each tracker: its name, with a number for a second of the same name."""
        keys: list[str] = []
        for link in self._links:
            number = 1 + sum(key.split("#")[0] == link.tracker.name for key in keys)
            keys.append(link.tracker.name if number == 1 else f"{link.tracker.name}#{number}")
        return keys

    def _save(self) -> None:
        if self._folder is None or not self._links:
            return
        data = {
            key: link.sent._asdict() for key, link in zip(self._keys(), self._links, strict=True)
        }
        with contextlib.suppress(OSError):  # as on a full disk, of which the log's files warn
            kept = {key: value for key, value in data.items() if value["id"] is not None}
            write_whole(self._folder / FILE, json.dumps({**_read(self._folder / FILE), **kept}))


class _Sent(NamedTuple):
    """What a tracker has got.

    Attributes:
      id: the id of the run there, or None.
      step: the step of the latest values, or None.
      tags: the tags of the values of this step.
    """

    id: str | None = None
    step: int | None = None
    tags: Sequence[str] = ()


class _Link:
    """The connection of a run to a tracker.

    Attributes:
      tracker: the tracker.
      sent: what it has got.
      is_started: whether it takes entries.
    """

    def __init__(self, tracker: Tracker):
        self.tracker = tracker
        self.sent = _Sent()
        self.is_started = False
        self._pending: list[tuple[int, dict[str, Any]]] = []  # what could not be sent yet
        self._next_attempt = 0.0
        self._has_warned = False

    def start(self, run: TrackedRun, sent: _Sent) -> None:
        self._pending, self._next_attempt, self._has_warned = [], 0.0, False
        try:
            identity = str(self.tracker.start(run))
        except Exception as error:
            self._warn(error, "and the run is not tracked there")
            return
        self.is_started = True
        self.sent = sent._replace(id=identity)

    def log(self, values: Mapping[str, Any], step: int) -> bool:
        """Send values, and return whether any have been sent."""
        if not self.is_started:
            return False
        known = [*self._pending[-1:], (self.sent.step, self.sent.tags)]
        for last, tags in known:
            if last is not None and step < last:
                return False
            if step == last:
                values = {tag: value for tag, value in values.items() if tag not in tags}
        if values:
            self._pending.append((step, dict(values)))
        return self._send()

    def _send(self) -> bool:
        """Send what has not been sent, unless the tracker has failed just now."""
        before = self.sent
        began = time.monotonic()
        while self._pending and began >= self._next_attempt:
            step, values = self._pending[0]
            try:
                self.tracker.log(values, step)
            except Exception as error:
                now = time.monotonic()
                self._next_attempt = now + max(_PAUSE, _PATIENCE * (now - began))
                self._warn(error, "and sends the entries later")
                break
            self._pending.pop(0)
            earlier = self.sent.tags if step == self.sent.step else ()
            self.sent = self.sent._replace(step=step, tags=[*earlier, *values])
        return self.sent is not before

    def finish(self, succeeded: bool) -> None:
        if not self.is_started:
            return
        self.is_started, self._next_attempt = False, 0.0
        self._send()
        try:
            self.tracker.finish(succeeded)
        except Exception as error:
            self._warn(error, "but what was logged last may be missing there")

    def _warn(self, error: Exception, consequence: str) -> None:
        """Warn once in a run."""
        if not self._has_warned:
            self._has_warned = True
            reason = str(error).strip().split("\n")[0]
            warnings.warn(
                f"The tracker {self.tracker.name} has failed ({type(error).__name__}: {reason}). "
                f"Training goes on, {consequence}.",
                RuntimeWarning,
                stacklevel=2,
            )


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Return what a run folder says about trackers; nothing if the file is missing or damaged."""
    try:
        data = json.loads(path.read_text())
        return {str(key): _Sent(**value)._asdict() for key, value in data.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
