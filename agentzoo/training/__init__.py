"""A training run: how it is described, trained and saved. Nothing here depends on an algorithm."""

from agentzoo.runners import OnNan, RunnerName
from agentzoo.training.folder import Lock
from agentzoo.training.log import RunLog
from agentzoo.training.loop import train
from agentzoo.training.plan import RunPlan
from agentzoo.training.recipe import Recipe, name_of
from agentzoo.training.session import (
    EpisodeWindow,
    Session,
    check_learner_state,
    made_later,
    named,
    read_manifest,
    read_spec,
)
from agentzoo.training.trainer import Placement, Trainer

__all__ = [
    "EpisodeWindow",
    "Lock",
    "OnNan",
    "Placement",
    "Recipe",
    "RunLog",
    "RunPlan",
    "RunnerName",
    "Session",
    "Trainer",
    "check_learner_state",
    "made_later",
    "name_of",
    "named",
    "read_manifest",
    "read_spec",
    "train",
]
