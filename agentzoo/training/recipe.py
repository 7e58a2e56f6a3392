"""What an agent is made of, and how its functions follow from it."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax

from agentzoo import config as configs
from agentzoo.envs import spaces
from agentzoo.runners import Programs, compile_agent, skipping
from agentzoo.sharding import Mesh
from agentzoo.types import Agent, Array, EnvSpec


@dataclass(frozen=True)
class Maker:
    """Makes an agent from the numbers among its hyperparameters, which may be traced.

    Equal makers make agents that share their compiled programs.

    Attributes:
      make_agent: the algorithm's function of config, spec and network.
      structure: the hyperparameters without their numbers; see `config.structure_of`.
      network: the user's network, or None.
      skips: whether the agent drops updates that are not finite.
      spec_text: the environments' spaces and number as text. Spaces have no hash, but text has.
      spec: the same as an `EnvSpec`.
    """

    make_agent: Callable[..., Agent]
    structure: Any
    network: Callable[..., Any] | None
    skips: bool
    spec_text: str
    spec: EnvSpec = field(compare=False)

    def __call__(self, numbers: Array) -> Agent:
        """Return the agent with these numbers, int32 `[P]`."""
        config = configs.with_numbers(self.structure, numbers)
        agent = self.make_agent(config, self.spec, self.network)
        return skipping(agent) if self.skips else agent


@dataclass(frozen=True)
class Recipe:
    """What an agent is made of. All of it is known before training begins.

    Attributes:
      algorithm: the name of the algorithm's class.
      make_agent: the algorithm's function of config, spec and network.
      config: the hyperparameters.
      spec: what the agent knows of its environments.
      network: the user's network, or None.
      seed: the seed of networks, exploration and environments.
      env_id: the Gymnasium id of the environments, or None.
      env_kwargs: the arguments with which the environments were made; None if they cannot be saved.
      module: the module of the algorithm's class.
      custom_env: whether the environments may differ from those that id and arguments make.
      tuned: which tuned settings the hyperparameters began with, as plain JSON, or None.
    """

    algorithm: str
    make_agent: Callable[..., Agent]
    config: Any
    spec: EnvSpec
    network: Callable[..., Any] | None
    seed: int
    env_id: str | None = None
    env_kwargs: Mapping[str, Any] | None = None
    module: str | None = None
    custom_env: bool = False
    tuned: Mapping[str, Any] | None = None

    def with_tuned(self, tuned: Mapping[str, Any] | None) -> "Recipe":
        """Return the recipe with a note of the tuned settings that it comes from."""
        return dataclasses.replace(self, tuned=tuned)

    def with_env(
        self, env_id: str | None, env_kwargs: Mapping[str, Any] | None, custom: bool
    ) -> "Recipe":
        """Return the recipe with other environments."""
        return dataclasses.replace(self, env_id=env_id, env_kwargs=env_kwargs, custom_env=custom)

    def shapes(self) -> Any:
        """Return the shapes of the learner's state, without any of its memory.

        Raises:
          ConfigurationError: if the hyperparameters do not fit together or the environments.
        """

        def init(key: Array) -> Any:
            return self.make_agent(self.config, self.spec, self.network).init(key)

        return jax.eval_shape(init, jax.random.key(0))

    def build(self, mesh: Mesh | None, skips: bool) -> tuple[Agent, Programs]:
        """Return the agent's functions, plain and compiled.

        Args:
          mesh: the devices that learn together; None for one device.
          skips: whether the agent drops updates that are not finite.

        Raises:
          ConfigurationError: if the hyperparameters do not fit together or the environments.
        """
        agent = self.make_agent(self.config, self.spec, self.network)
        if skips:
            agent = skipping(agent)
        structure, numbers = configs.structure_of(self.config), configs.numbers_of(self.config)
        text = json.dumps(spec_to_json(self.spec))
        maker = Maker(self.make_agent, structure, self.network, skips, text, self.spec)
        return agent, compile_agent(agent, maker, numbers, mesh)

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain JSON. Of a network or another function, it has the name."""
        return {
            "algorithm": self.algorithm,
            "module": self.module,
            "env_id": self.env_id,
            "env_kwargs": self.env_kwargs,
            "custom_env": self.custom_env,
            "seed": self.seed,
            "hyperparameters": configs.to_json(self.config),
            "network": None if self.network is None else name_of(self.network),
            "spec": spec_to_json(self.spec),
            "tuned": None if self.tuned is None else dict(self.tuned),
        }


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function, or of the class of a callable object."""
    return getattr(function, "__name__", type(function).__name__)


def spec_to_json(spec: EnvSpec) -> list[Any]:
    """Return what an agent knows of its environments as plain JSON."""
    observations, actions = map(spaces.to_json, (spec.observation_space, spec.action_space))
    return [observations, actions, spec.num_envs]


def spec_from_json(data: list[Any], most: int | None = None) -> EnvSpec:
    """Return what `spec_to_json` has written; see `envs.spaces.from_json` for `most`."""
    observations, actions, num_envs = data
    return EnvSpec(spaces.from_json(observations, most), spaces.from_json(actions, most), num_envs)
