"""Haiku networks, and how spaces choose them."""

from agentzoo.networks.encoders import Network, check, encode, example, is_image, torso
from agentzoo.networks.heads import NoisyLinear, q_head
from agentzoo.networks.normalization import Statistics, init_statistics, normalize, update_statistics

__all__ = [
    "Network",
    "NoisyLinear",
    "Statistics",
    "check",
    "encode",
    "example",
    "init_statistics",
    "is_image",
    "normalize",
    "q_head",
    "torso",
    "update_statistics",
]
