"""Reinforcement-learning operators, compiled and checked, for use in any agent: `from agentzoo import core`."""

from agentzoo.core._operator import ShapeError
from agentzoo.core.losses import huber_loss, l2_loss
from agentzoo.core.value_learning import double_q_learning, q_learning

__all__ = ["ShapeError", "double_q_learning", "huber_loss", "l2_loss", "q_learning"]
