"""Ordinary Gymnasium environments, stepped one after the other in the calling thread."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from agentzoo.envs import checking, frame_stacks, spaces
from agentzoo.envs.base import EnvStep
from agentzoo.envs.episodes import Resumed, Running, Start, extend_checksum
from agentzoo.envs.guard import CORRECT, UNGUARDED, Guard, NoAnswer
from agentzoo.envs.infos import Info, plain
from agentzoo.envs.restarts import Restarts
from agentzoo.envs.seeding import Differs, Starts, describe_error, find_obstacle
from agentzoo.envs.use import Used
from agentzoo.types import ConfigurationError, EnvError, EnvSpec, PyTree

_REPLAYED_AT_ONCE = 256  # steps


class GymEnvs(Used):
    """Steps ordinary environments, and resets each one as soon as its episode ends.

    If `reset` was given a seed, every episode has its own seed, so that it can be repeated.

    Args:
      envs: the environments, which have the same spaces.
      make: makes another environment like these; None if that is impossible.
      guard: what is done about environments that fail.

    Raises:
      ConfigurationError: if an environment has no spaces, if it is there twice, or if agents do not
        support the spaces.
    """

    def __init__(
        self,
        envs: Sequence[gym.Env],
        make: Callable[[], gym.Env] | None = None,
        guard: Guard = UNGUARDED,
    ):
        self.envs = list(envs)
        self.spec = _common_spec(self.envs)
        space = self.spec.observation_space
        self._check = checking.make_check(space)
        self._infos: list[Info] = [{} for _ in self.envs]
        self._empty = spaces.make_empty(space, len(self.envs))
        self._empty_reward = functools.partial(np.empty, len(self.envs), np.dtype(np.float32))
        self._ones, self._none = np.ones(len(self.envs), np.float32), np.zeros(len(self.envs), bool)
        self._mask = np.ones(len(self.envs), bool)  # none of these environments has dummy steps
        # For a single array, `__setitem__` saves a call of Python at each observation.
        is_array = not isinstance(space, gym.spaces.Dict | gym.spaces.Tuple)
        self._write = np.ndarray.__setitem__ if is_array else spaces.write
        self._guarded = Restarts(len(self.envs), make, guard)
        self._call = self._guarded.call if guard.timeout else None
        self._action_spaces = [env.action_space for env in self.envs]
        self._steps = 0  # of each environment
        self._starts = Starts.of(self.envs)
        self.replayable = next(filter(None, map(find_obstacle, self.envs)), None)
        self.own_state = ()

    @property
    def restarts(self) -> int:
        """How often an environment was created again after it failed."""
        return self._guarded.count

    @property
    def starts(self) -> tuple[Start, ...]:
        """How the running episode of each environment began."""
        return self._starts.current

    def own_state_template(self) -> PyTree:
        """Return `()`, because these environments do not give their state."""
        return ()

    def reset(self, seed: int | None = None, first: int = 0) -> PyTree:
        """Begin new episodes; environment i is seeded with `seed + first + i`."""
        self._guarded.renew_lost(self.envs, self._use_new)
        self._claim(self.envs)
        if seed is not None:
            self._starts.seed(seed, first)
        obs = [self._begin_next(n, after_others=True) for n in range(len(self.envs))]
        return spaces.stack(self.spec.observation_space, obs)

    def resume(
        self, seed: int, first: int, running: Sequence[Running], own_state: PyTree = ()
    ) -> Resumed:
        """Reset each environment as its episode began, and take the same actions; see `Envs`."""
        self._guarded.renew_lost(self.envs, self._use_new)
        self._claim(self.envs)
        self._starts.resume(seed, first, [one.start for one in running])
        elements, problems = [], {}
        begun = np.zeros(len(self.envs), bool)
        for n, one in enumerate(running):
            try:
                elements.append(self._replay(n, one))
            except Exception as error:
                begun[n] = True
                reason = describe_error(error, one)
                problems |= {n: reason} if reason else {}
                stuck = error if isinstance(error, NoAnswer) else None
                elements.append(self._begin_next(n, after_others=True, failed=stuck))
        return Resumed(spaces.stack(self.spec.observation_space, elements), begun, problems)

    def _replay(self, n: int, episode: Running) -> Any:
        """Bring environment n to where an episode stood, and return its newest observation.

        Raises:
          Differs: if the environment arrives somewhere else, or if there is no such episode.
        """
        if episode.steps < 0:
            raise Differs
        obs = self._reset_one(n, **self._starts.again(n))
        env, call, checksum = self.envs[n], self._call, 0
        for begin in range(0, episode.steps, _REPLAYED_AT_ONCE):
            part = episode.actions[begin : begin + _REPLAYED_AT_ONCE]
            space = self.spec.action_space
            seen = spaces.make_empty(self.spec.observation_space, len(part))()
            rewards = np.empty(len(part), np.float32)
            for t, action in enumerate(spaces.split(space, spaces.to_elements(space, part))):
                self._write(seen, t, obs)
                result = call(env.step, action) if call else env.step(action)
                step = checking.read_step(result, self._check)
                obs, rewards[t], terminated, truncated, self._infos[n] = step
                if terminated or truncated:
                    raise Differs
            checksum = extend_checksum(checksum, seen, rewards)
        newest = spaces.stack(self.spec.observation_space, [obs])
        if checksum != episode.checksum or not spaces.identical(newest, episode.obs):
            raise Differs
        return obs

    def _begin_next(
        self, n: int, after_others: bool = False, failed: Exception | None = None
    ) -> Any:
        """Begin the next episode of environment n, and return its first observation.

        Args:
          n: the index of the environment.
          after_others: whether others may have used the environment since the last episode began.
          failed: the error that the environment raised in a step; it is then created again.
        """
        arguments = self._starts.next(n, after_others)
        if failed is None:
            obs = self._begin(n, **arguments)
        else:
            obs = self._restart(n, failed, in_reset=False, **arguments)
        self._starts.begun(n, self._starts.current[n].number + 1, self.envs[n])
        return obs

    def _begin(self, n: int, **arguments: Any) -> Any:
        """Reset environment n, and return its first observation."""
        try:
            return self._reset_one(n, **arguments)
        except Exception as error:
            return self._restart(n, error, in_reset=True, **arguments)

    def _reset_one(self, n: int, **arguments: Any) -> Any:
        env = self.envs[n]
        result = self._call(env.reset, **arguments) if self._call else env.reset(**arguments)
        obs, _ = checking.unpack_reset(result)
        self._check(obs)
        if env.action_space is not self._action_spaces[n]:
            self._check_action_space(n, env.action_space)
        return obs

    def _restart(self, n: int, error: Exception, in_reset: bool, **arguments: Any) -> Any:
        """Make environment n again after an error, and return its first observation.

        Raises:
          EnvError: if the user did not ask for it, or if the environment failed too often.
        """

        def begin(env: gym.Env) -> Any:
            self._use_new(n, env)
            return self._reset_one(n, **arguments)

        return self._guarded.restart(n, error, in_reset, self._steps, self.envs[n], begin)

    def step(self, actions: np.ndarray) -> EnvStep:
        """Take one action in each environment; see `Envs.step`."""
        write, call = self._write, self._call
        self._steps += 1
        obs = successor = self._empty()
        reward, final_infos = self._empty_reward(), {}
        discount, last = self._ones, self._none
        restarted: list[int] = []
        elements = spaces.split(self.spec.action_space, actions)
        for n, env in enumerate(self.envs):
            try:
                result = call(env.step, elements[n]) if call else env.step(elements[n])
                element, r, terminated, truncated, info = checking.read_step(result, self._check)
            except Exception as error:
                # The step did not happen, so that a dummy step takes its place.
                element, r = self._begin_next(n, after_others=True, failed=error), 0.0
                terminated, truncated, info = False, False, {}
                restarted.append(n)
            reward[n] = r
            self._infos[n] = info
            write(successor, n, element)
            if terminated or truncated:
                if not final_infos:  # the first environment whose episode ends
                    obs = spaces.copy(self.spec.observation_space, successor)
                    discount, last = self._ones.copy(), self._none.copy()
                discount[n], last[n] = not terminated, True
                final_infos[n] = plain(info)
                element = self._begin_next(n)
            if obs is not successor:
                write(obs, n, element)
        first, mask = last, self._mask  # an episode begins where one ended
        if restarted:
            first, mask = last.copy(), self._mask.copy()
            first[restarted], mask[restarted] = True, False
        return EnvStep(
            obs=obs,
            first=first,
            successor=successor,
            reward=reward,
            discount=discount,
            last=last,
            mask=mask,
            final_infos=final_infos,
        )

    def _use_new(self, n: int, env: gym.Env) -> None:
        """Use an environment in the place of environment n.

        Raises:
          ConfigurationError: if its spaces are others.
        """
        if _common_spec([env]) != self.spec._replace(num_envs=1):
            raise ConfigurationError(
                "The environment that was made again has other spaces than before. Make "
                "environments with the same spaces."
            )
        self.envs[n] = env
        self._action_spaces[n] = env.action_space
        self._mark([env])

    def _check_action_space(self, n: int, space: gym.Space) -> None:
        """Check an action space that is another object than before.

        Raises:
          EnvError: if it is another space.
        """
        if space != self._action_spaces[n]:
            raise EnvError(
                f"its action space changed from {self._action_spaces[n]} to {space} during "
                "training.",
                CORRECT,
                n,
                in_reset=True,
            )
        self._action_spaces[n] = space

    def infos(self) -> list[Info]:
        """Return the `info` of each environment's newest step."""
        return [info if isinstance(info, dict) else {} for info in self._infos]

    def render(self) -> None:
        """Render the environments."""
        for env in self.envs:
            env.render()

    def close(self) -> None:
        """Close the environments."""
        self._guarded.close(self.envs)


def _common_spec(envs: Sequence[gym.Env]) -> EnvSpec:
    """Return the spec of N different environments with the same spaces.

    Raises:
      ConfigurationError: as `GymEnvs` does.
    """
    for env in envs:
        for name in ("observation_space", "action_space"):
            if not isinstance(getattr(env, name, None), gym.Space):
                raise ConfigurationError(
                    f"The environment {type(env.unwrapped).__name__} has no {name}. Set it to a "
                    "space of gymnasium.spaces."
                )
    # The spaces of each environment.
    pairs = [
        (spaces.plain(frame_stacks.observation_space(env)), spaces.plain(env.action_space))
        for env in envs
    ]
    spec = EnvSpec(*pairs[0], num_envs=len(envs))
    spaces.check_observation_space(spec.observation_space)
    for i, env in enumerate(envs):
        if env in envs[:i]:
            raise ConfigurationError(
                "The environment factory returned the same environment twice. Make a new "
                "environment at each call."
            )
        if pairs[i] != pairs[0]:
            raise ConfigurationError(
                "The environments have different spaces. Use environments with the same "
                "observation space and the same action space."
            )
    return spec
