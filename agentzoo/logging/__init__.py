"""The log of a run: scalars and texts in TensorBoard and CSV files, and at trackers."""

from agentzoo.logging.logger import Logger, LogMark, make_folder, versions
from agentzoo.logging.mlflow_tracker import MlflowTracker
from agentzoo.logging.tracking import (
    MAKERS,
    TrackedRun,
    Tracker,
    TrackersLike,
    Tracking,
    make_trackers,
)
from agentzoo.logging.wandb_tracker import WandbTracker

TRACKERS = tuple(MAKERS)
"""The names of trackers."""

__all__ = [
    "TRACKERS",
    "LogMark",
    "Logger",
    "MlflowTracker",
    "TrackedRun",
    "Tracker",
    "TrackersLike",
    "Tracking",
    "WandbTracker",
    "make_folder",
    "make_trackers",
    "versions",
]
