"""Environments that several actors step, each actor an equal share."""

import functools
from collections.abc import Sequence

import gymnasium as gym
import jax
import numpy as np

from agentzoo.envs.base import Envs, EnvStep
from agentzoo.envs.episodes import Resumed, Running, Start
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
    def alive(self) -> bool:
        """Whether the environments stand where they were left; see `Envs.alive`."""
        return all(share.alive for share in self.shares)

    @property
    def restarts(self) -> int:
        """How often an environment was created again after it failed."""
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

    @property
    def replayable(self) -> str | None:
        """Why running episodes cannot be resumed in new environments; see `Envs`."""
        return next(filter(None, (share.replayable for share in self.shares)), None)

    @property
    def starts(self) -> tuple[Start, ...]:
        """How the running episode of each environment began."""
        return tuple(start for share in self.shares for start in share.starts)

    @property
    def own_state(self) -> PyTree:
        """The state of the environments, if they can give it."""
        return _joined([share.own_state for share in self.shares])

    def own_state_template(self) -> PyTree:
        """Return a tree with the structure, shapes and dtypes of `own_state`."""
        return _joined([share.own_state_template() for share in self.shares])

    def reset(self, seed: int | None = None, first: int = 0) -> PyTree:
        """Begin new episodes; environment i is seeded with `seed + first + i`."""
        num = self.shares[0].spec.num_envs
        # Share i holds the environments i * num to (i + 1) * num - 1.
        obs = [share.reset(seed, first + i * num) for i, share in enumerate(self.shares)]
        return _joined(obs)

    def resume(
        self, seed: int, first: int, running: Sequence[Running], own_state: PyTree
    ) -> Resumed:
        """Bring each environment back to where its episode stood; see `Envs`."""
        num = self.shares[0].spec.num_envs
        parts = []
        problems: dict[int, str] = {}
        for i, share in enumerate(self.shares):
            own = slice(i * num, (i + 1) * num)
            state = jax.tree.map(lambda x, own=own: x[own], own_state)
            part = share.resume(seed, first + own.start, running[own], state)
            problems |= {own.start + n: problem for n, problem in part.problems.items()}
            parts.append(part)
        begun = np.concatenate([part.begun for part in parts])
        return Resumed(_joined([part.obs for part in parts]), begun, problems)

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
        joined = _joined(steps)
        return joined._replace(final_infos=final_infos)

    def render(self) -> None:
        """Render the environments."""
        for share in self.shares:
            share.render()

    def close(self) -> None:
        """Close the environments."""
        for share in self.shares:
            share.close()


def _joined(trees: Sequence[PyTree]) -> PyTree:
    """Concatenate the arrays of the shares."""
    return jax.tree.map(lambda *x: np.concatenate(x), *trees)


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
        self.guard = guard
        self.make = functools.partial(make_envs, env, n_envs // n_actors, guard=guard)
        self.shares = [self.make()] * n_actors
        self.spec = self.shares[0].spec._replace(num_envs=n_envs)

    @property
    def replayable(self) -> str | None:
        """Why running episodes cannot be resumed in new environments."""
        return (
            'Training with runner="ray" does not resume exactly, because the episodes of actors '
            "in other processes are not saved. New episodes begin instead."
        )


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
