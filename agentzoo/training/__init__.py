"""A training run: what it is, how it goes on, and how it is kept. No algorithm is known here."""

from agentzoo.runners import RunnerName
from agentzoo.training.log import RunLog
from agentzoo.training.loop import train
from agentzoo.training.recipe import Recipe, name_of, spec_from_json
from agentzoo.training.session import EpisodeWindow, Session, read_manifest
from agentzoo.training.trainer import Placement, Trainer

__all__ = [
    "EpisodeWindow",
    "Placement",
    "Recipe",
    "RunLog",
    "RunnerName",
    "Session",
    "Trainer",
    "name_of",
    "read_manifest",
    "spec_from_json",
    "train",
]
