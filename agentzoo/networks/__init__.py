"""Haiku networks, and how spaces choose them."""

from agentzoo.networks.actions import ActionBounds, action_bounds
from agentzoo.networks.encoders import Network, check, encode, example, mlp, torso
from agentzoo.networks.heads import NoisyLinear, q_head
from agentzoo.networks.normalization import Statistics, init_statistics, normalize, normalize_rewards, update_statistics
from agentzoo.networks.observations import Images, View, describe, make_view

__all__ = [
    "ActionBounds",
    "Images",
    "Network",
    "NoisyLinear",
    "Statistics",
    "View",
    "action_bounds",
    "check",
    "describe",
    "encode",
    "example",
    "init_statistics",
    "make_view",
    "mlp",
    "normalize",
    "normalize_rewards",
    "q_head",
    "torso",
    "update_statistics",
]
