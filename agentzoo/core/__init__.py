"""Reinforcement-learning operators, compiled and checked, for use in any agent.

`from agentzoo import core` gives access to all of them. Every public name of RLax is here, with the
same arguments, and more. Each module is one subject, and its `__all__` lists the public names.
"""

# Star imports and sums of `__all__` keep each public name in one place. Type checkers know them.
# ruff: noqa: F403, F405

import importlib
from typing import TYPE_CHECKING, Any

from agentzoo.core import (
    actor_critic,
    advantages,
    arrays,
    bandits,
    categorical_mpo,
    categorical_values,
    distributions,
    divergences,
    embedding,
    episodic_memory,
    expectile_values,
    exploration,
    gaussian_mpo,
    general_value_functions,
    lagrange,
    losses,
    moving_averages,
    mpo,
    n_step,
    nonlinear_bellman,
    offline,
    policy_gradients,
    policy_targets,
    pop_art,
    ppo,
    quantile_values,
    returns,
    sequences,
    traces,
    transforms,
    trees,
    value_learning,
    vmpo,
)
from agentzoo.core import vtrace as _vtrace
from agentzoo.core._operator import ShapeError
from agentzoo.core.actor_critic import *
from agentzoo.core.advantages import *
from agentzoo.core.arrays import *
from agentzoo.core.bandits import *
from agentzoo.core.categorical_mpo import *
from agentzoo.core.categorical_values import *
from agentzoo.core.distributions import *
from agentzoo.core.divergences import *
from agentzoo.core.embedding import *
from agentzoo.core.episodic_memory import *
from agentzoo.core.expectile_values import *
from agentzoo.core.exploration import *
from agentzoo.core.gaussian_mpo import *
from agentzoo.core.general_value_functions import *
from agentzoo.core.lagrange import *
from agentzoo.core.losses import *
from agentzoo.core.moving_averages import *
from agentzoo.core.mpo import *
from agentzoo.core.n_step import *
from agentzoo.core.nonlinear_bellman import *
from agentzoo.core.offline import *
from agentzoo.core.policy_gradients import *
from agentzoo.core.policy_targets import *
from agentzoo.core.pop_art import *
from agentzoo.core.ppo import *
from agentzoo.core.quantile_values import *
from agentzoo.core.returns import *
from agentzoo.core.sequences import *
from agentzoo.core.traces import *
from agentzoo.core.transforms import *
from agentzoo.core.trees import *
from agentzoo.core.value_learning import *
from agentzoo.core.vmpo import *
from agentzoo.core.vtrace import *

# Distributions that need distrax, which is slow to import. They are imported when they are used.
if TYPE_CHECKING:
    from agentzoo.core.policies import *

__all__ = [
    "Bernoulli",
    "Categorical",
    "ClippedEntropySoftmax",
    "DiagonalGaussian",
    "EpsilonGreedy",
    "Greedy",
    "MultiCategorical",
    "ShapeError",
    "Softmax",
    "TanhGaussian",
]
__all__ += actor_critic.__all__
__all__ += advantages.__all__
__all__ += arrays.__all__
__all__ += bandits.__all__
__all__ += categorical_mpo.__all__
__all__ += categorical_values.__all__
__all__ += distributions.__all__
__all__ += divergences.__all__
__all__ += embedding.__all__
__all__ += episodic_memory.__all__
__all__ += expectile_values.__all__
__all__ += exploration.__all__
__all__ += gaussian_mpo.__all__
__all__ += general_value_functions.__all__
__all__ += lagrange.__all__
__all__ += losses.__all__
__all__ += moving_averages.__all__
__all__ += mpo.__all__
__all__ += n_step.__all__
__all__ += nonlinear_bellman.__all__
__all__ += offline.__all__
__all__ += policy_gradients.__all__
__all__ += policy_targets.__all__
__all__ += pop_art.__all__
__all__ += ppo.__all__
__all__ += quantile_values.__all__
__all__ += returns.__all__
__all__ += sequences.__all__
__all__ += traces.__all__
__all__ += transforms.__all__
__all__ += trees.__all__
__all__ += value_learning.__all__
__all__ += vmpo.__all__
__all__ += _vtrace.__all__


def __getattr__(name: str) -> Any:
    if name in __all__ or name == "policies":
        policies = importlib.import_module("agentzoo.core.policies")
        return policies if name == "policies" else getattr(policies, name)
    raise AttributeError(f"module 'agentzoo.core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
