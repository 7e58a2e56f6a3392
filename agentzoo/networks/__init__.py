"""Haiku networks, and how spaces choose them."""

from agentzoo.networks.encoders import Network, check, encode, example, is_image, torso
from agentzoo.networks.heads import NoisyLinear, q_head

__all__ = ["Network", "NoisyLinear", "check", "encode", "example", "is_image", "q_head", "torso"]
