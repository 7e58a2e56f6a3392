"""Environments that several actors step, each actor an equal share."""

import functools
from collections.abc import Sequence

import gymnasium as gym
import jax
import numpy as np

from agentzoo.envs.base import Envs, EnvStep
from agentzoo.envs.guard import UNGUARDED, Guard
from agentzoo.envs.infos import Info
from agentzoo.envs.make import EnvLike, make_envs
from agentzoo.types import ConfigurationError, PyTree


class SharedEnvs:
    """Shares of the same size, as one object.

    Args:
      shares: the environments of each actor.

    Raises:
      ConfigurationError: if an environment is there twice, or if spaces differ.
    """

    def __init__(self, shares: Sequence[Envs]):
        self.shares = list(shares)
        first = self.shares[0].spec
        made = [
            env
            for share in shares
            for env in getattr(share, "envs", None) or [getattr(share, "env", share)]
        ]
        if len({id(env) for env in made}) < len(made):
            raise ConfigurationError(
                "The environment factory returned the same environment twice. Make a new "
                "environment at each call."
            )
        if any(share.spec != first for share in shares):
            raise ConfigurationError(
                "The environments have different spaces. Use environments with the same "
                "observation space and the same action space."
            )
        self.spec = first._replace(num_envs=len(shares) * first.num_envs)

    @property
    def disturbed(self) -> bool:
        """Whether another user has reset or stepped the environments since `reset`."""
        return any(share.disturbed for share in self.shares)

    @property
    def restarts(self) -> int:
        """How often an environment was made again after it failed."""
        return sum(share.restarts for share in self.shares)

    def occupy(self, busy: bool) -> None:
        """Record whether actors in threads are stepping the environments; see `Envs.occupy`."""
        for share in self.shares:
            share.occupy(busy)

    def disturb(self) -> None:
        """Record that another user has reset or stepped the environments."""
        for share in self.shares:
            share.disturb()

    def infos(self) -> list[Info]:
        """Return the `info` of each environment's newest step."""
        return [info for share in self.shares for info in share.infos()]

    def reset(self, seed: int | None = None) -> PyTree:
        """Begin new episodes; environment i is seeded with `seed + i`."""
        num = self.shares[0].spec.num_envs
        # Share i holds the environments i * num to (i + 1) * num - 1.
        seeds = [None if seed is None else seed + i * num for i in range(len(self.shares))]
        obs = [share.reset(seed) for share, seed in zip(self.shares, seeds, strict=True)]
        return jax.tree.map(lambda *x: np.concatenate(x), *obs)

    def step(self, actions: np.ndarray) -> EnvStep:
        """Take one action in each environment; see `Envs.step`."""
        num = self.shares[0].spec.num_envs
        final_infos: dict[int, Info] = {}
        steps = []
        for i, share in enumerate(self.shares):
            # Environment n of share i is number i * num + n of all.
            step = share.step(actions[i * num : (i + 1) * num])
            final_infos |= {i * num + n: info for n, info in step.final_infos.items()}
            steps.append(step._replace(final_infos={}))
        joined = jax.tree.map(lambda *x: np.concatenate(x), *steps)
        return joined._replace(final_infos=final_infos)

    def render(self) -> None:
        """Render the environments."""
        for share in self.shares:
            share.render()

    def close(self) -> None:
        """Close the environments."""
        for share in self.shares:
            share.close()


class DistantEnvs(SharedEnvs):
    """Environments that actors in other processes make for themselves, by calling `make`.

    This process holds one share as an example, from which it knows the spaces.

    Args:
      env: what `make_envs` accepts.
      n_envs: number of environments of all actors together.
      n_actors: number of actors.
      guard: what is done about environments that fail.
    """

    def __init__(
        self,
        env: EnvLike,
        n_envs: int,
        n_actors: int,
        guard: Guard = UNGUARDED,
    ):
        self.make = functools.partial(make_envs, env, n_envs // n_actors, guard=guard)
        self.shares = [self.make()] * n_actors
        self.spec = self.shares[0].spec._replace(num_envs=n_envs)


def make_shared_envs(
    env: EnvLike,
    n_envs: int,
    n_actors: int,
    distant: bool = False,
    guard: Guard = UNGUARDED,
) -> Envs:
    """Make the environments of several actors.

    Args:
      env: a Gymnasium id or a factory of environments. A single actor also accepts an environment.
      n_envs: number of environments of all actors together, a multiple of `n_actors`.
      n_actors: number of actors.
      distant: whether actors in other processes make the environments themselves.
      guard: what is done about environments that fail.

    Raises:
      ConfigurationError: if the environments cannot be shared, or if `make_envs` raises it.
    """
    if n_actors == 1 and not distant:
        return make_envs(env, n_envs, guard=guard)
    if isinstance(env, gym.Env | gym.vector.VectorEnv):
        needs = 'runner="ray" needs' if distant else f"n_actors={n_actors} needs"
        raise ConfigurationError(
            f"{needs} environments for each actor. Pass an id or a factory (lambda: ...)."
        )
    if n_envs % n_actors:
        raise ConfigurationError(
            f"n_envs={n_envs} environments cannot be shared evenly between n_actors={n_actors}. "
            "Choose a multiple of n_actors."
        )
    if distant:
        return DistantEnvs(env, n_envs, n_actors, guard)
    return SharedEnvs([make_envs(env, n_envs // n_actors, guard=guard) for _ in range(n_actors)])


def has_dummy_steps(envs: Envs) -> bool:
    """Return whether the environments have dummy steps, which begin an episode and do not count."""
    parts = getattr(envs, "shares", [envs])
    return any(getattr(part, "mode", None) == gym.vector.AutoresetMode.NEXT_STEP for part in parts)
