"""Haiku networks, and how spaces choose them."""

from agentzoo.networks.encoders import Network, check_activation, encode, example, is_image, torso
from agentzoo.networks.heads import NoisyLinear, q_head

__all__ = ["Network", "NoisyLinear", "check_activation", "encode", "example", "is_image", "q_head", "torso"]
