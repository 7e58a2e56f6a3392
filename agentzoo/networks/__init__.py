"""Haiku networks, and how spaces choose them."""

from agentzoo.networks.actions import ActionBounds, action_bounds
from agentzoo.networks.encoders import Network, check, encode, example, is_image, mlp, torso
from agentzoo.networks.heads import NoisyLinear, q_head
from agentzoo.networks.normalization import Statistics, init_statistics, normalize, normalize_rewards, update_statistics

__all__ = [
    "ActionBounds",
    "Network",
    "NoisyLinear",
    "Statistics",
    "action_bounds",
    "check",
    "encode",
    "example",
    "init_statistics",
    "is_image",
    "mlp",
    "normalize",
    "normalize_rewards",
    "q_head",
    "torso",
    "update_statistics",
]
