"""Haiku networks, and the rules by which spaces choose them."""

from agentzoo.networks.action_masks import ActionMasks, Seen, action_masks, rule_out, uniform_action
from agentzoo.networks.actions import ActionBounds, action_bounds
from agentzoo.networks.convolutions import Conv2D, max_pool
from agentzoo.networks.encoders import (
    Activation,
    Cnn,
    LayerNorm,
    Layers,
    Network,
    encode,
    example,
    mlp,
    torso,
)
from agentzoo.networks.heads import NoisyLinear, q_head
from agentzoo.networks.normalization import (
    Statistics,
    init_reward_normalizer,
    init_statistics,
    normalize,
    normalize_rewards,
    update_statistics,
)
from agentzoo.networks.observations import Images, View, describe, make_view
from agentzoo.networks.successors import successor_values

__all__ = [
    "ActionBounds",
    "ActionMasks",
    "Activation",
    "Cnn",
    "Conv2D",
    "Images",
    "LayerNorm",
    "Layers",
    "Network",
    "NoisyLinear",
    "Seen",
    "Statistics",
    "View",
    "action_bounds",
    "action_masks",
    "describe",
    "encode",
    "example",
    "init_reward_normalizer",
    "init_statistics",
    "make_view",
    "max_pool",
    "mlp",
    "normalize",
    "normalize_rewards",
    "q_head",
    "rule_out",
    "successor_values",
    "torso",
    "uniform_action",
    "update_statistics",
]
