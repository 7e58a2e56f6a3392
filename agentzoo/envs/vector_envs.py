"""Gymnasium's vector environments, in any of their three autoreset modes, behind `Envs`.

A vector environment in NEXT_STEP mode begins each episode with a dummy step. The step's mask marks
it, and nothing is learned from it.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import jax
import numpy as np
from gymnasium.vector import AutoresetMode

from agentzoo.envs import checking, frame_stacks, spaces, workers
from agentzoo.envs.base import EnvStep
from agentzoo.envs.episodes import Resumed, Running, Start, extend_checksum
from agentzoo.envs.functional import FunctionalVectorEnv
from agentzoo.envs.guard import UNGUARDED, Caller, Guard, NoAnswer, cause_of
from agentzoo.envs.infos import Info, of_one, plain
from agentzoo.envs.restarts import CANNOT_RESTART
from agentzoo.envs.seeding import Differs, Starts, describe_error, find_vector_obstacle
from agentzoo.envs.use import Used
from agentzoo.types import ConfigurationError, EnvError, EnvSpec, InvalidStep, PyTree


class VectorEnvs(Used):
    """Steps a user's `VectorEnv` in any of Gymnasium's three autoreset modes.

    Args:
      env: the vector environment.
      make: makes another vector environment like it; None if that is impossible.
      guard: what is done about environments that fail.

    Raises:
      ConfigurationError: if the autoreset mode is unknown, if agents do not support the spaces, or
        if environments that fail have to be created again.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv,
        make: Callable[[], gym.vector.VectorEnv] | None = None,
        guard: Guard = UNGUARDED,
    ):
        if guard.restarts:
            raise ConfigurationError(CANNOT_RESTART)
        self.env = env
        self._make, self._guard = make, guard
        self._caller = Caller(guard.timeout)
        workers.prepare(env, guard)
        self._interrupted = False  # whether an interrupt has broken off the last call
        self._unusable = ""  # why the vector environment cannot be used any longer
        self.mode = _autoreset_mode(env)
        observation_space = spaces.plain(frame_stacks.single_observation_space(env))
        action_space = spaces.plain(env.single_action_space)
        self.spec = EnvSpec(observation_space, action_space, int(env.num_envs))
        spaces.check_observation_space(observation_space)
        self._empty = spaces.make_empty(observation_space, self.spec.num_envs)
        self._no_dummies = np.ones(self.spec.num_envs, bool)
        self._ended = np.zeros(self.spec.num_envs, bool)  # whether the newest step ended an episode
        self._check = checking.make_batch_check(observation_space, self.spec.num_envs)
        self._check_one = checking.make_check(observation_space, "info['final_obs']")
        self._watch = checking.BufferWatch()
        self._info: Info = {}
        self.replayable = find_vector_obstacle(env)
        self._starts = Starts(self.spec.num_envs)
        # Whether each episode has its own seed.
        self._seeds = self.mode == AutoresetMode.DISABLED and self.replayable is None

    @property
    def starts(self) -> tuple[Start, ...]:
        """How the running episode of each environment began."""
        return self._starts.current

    @property
    def alive(self) -> bool:
        """Whether the environments stand where they were left; see `Envs.alive`."""
        if not self._unusable and workers.have_ended(self.env):
            self._unusable = "its worker processes have ended."
            workers.end(self.env)
        return not self._unusable

    @property
    def own_state(self) -> PyTree:
        """The state of functional environments; `()` for others."""
        return self.env.env_states if isinstance(self.env, FunctionalVectorEnv) else ()

    def own_state_template(self) -> PyTree:
        """Return a tree with the structure, shapes and dtypes of `own_state`."""
        return self.env.example_states() if isinstance(self.env, FunctionalVectorEnv) else ()

    def reset(self, seed: int | None = None, first: int = 0) -> PyTree:
        """Begin new episodes in all environments.

        Raises:
          ConfigurationError: if the vector environment failed before, and cannot be used again.
          EnvError: if an environment fails.
        """
        self._use_anew()
        if seed is not None:
            self._starts.seed(seed, first)
        if self._seeds:
            return self._begin_next(np.ones(self.spec.num_envs, bool))
        for n in range(self.spec.num_envs):
            self._starts.begun(n, 0)
        return self._begin(seed=None if seed is None else seed + first)

    def _use_anew(self) -> None:
        self._renew()
        self._claim([self.env])
        self._ended = np.zeros(self.spec.num_envs, bool)
        self._watch = checking.BufferWatch()

    def resume(
        self, seed: int, first: int, running: Sequence[Running], own_state: PyTree = ()
    ) -> Resumed:
        """Bring each environment back to where its episode stood; see `Envs`."""
        self._use_anew()
        self._starts.resume(seed, first, [one.start for one in running])
        newest = jax.tree.map(lambda *x: np.concatenate(x), *(one.obs for one in running))
        begun = np.array([one.steps < 0 for one in running])
        if isinstance(self.env, FunctionalVectorEnv):
            self.env.env_states = own_state
            return Resumed(self._begin() if begun.any() else newest, begun, {})
        problems: dict[int, str] = {}
        try:
            obs, begun = self._replay(running)
            error: Exception = Differs()
        except Exception as raised:
            obs, begun, error = None, np.ones_like(begun), raised
            self._renew()
        for n in np.flatnonzero(begun).tolist():
            reason = describe_error(error, running[n])
            problems |= {n: reason} if reason else {}
        return Resumed(self._begin_next(begun) if begun.any() else obs, begun, problems)

    def _replay(self, running: Sequence[Running]) -> tuple[PyTree, np.ndarray]:
        """Begin all episodes again, so that they arrive where they stood at the same time.

        Environments whose episodes are shorter than the longest one wait. They take any actions
        until it is their turn.

        Returns:
          The newest observations, and bool `[N]`, which environments are somewhere else.
        """
        space = copy.deepcopy(self.spec.action_space)  # its random numbers are the user's
        space.seed(0)
        waiting = space.sample()
        lengths = np.array([max(one.steps, 0) for one in running])
        differs = np.array([one.steps < 0 for one in running])
        elements = [spaces.to_elements(space, one.actions) for one in running]
        seeds = [self._starts.again(n)["seed"] for n in range(len(running))]
        checksums = [0] * len(running)
        obs = self._begin(seed=seeds)
        for left in range(lengths.max(), 0, -1):  # steps that are left
            active = lengths >= left
            actions = np.stack(
                [
                    each[length - left] if length >= left else waiting
                    for each, length in zip(elements, lengths, strict=True)
                ]
            )
            before, (obs, reward, ended) = obs, self._try(actions)
            for n in np.flatnonzero(active).tolist():
                one = jax.tree.map(lambda x, n=n: x[n : n + 1], before)
                checksums[n] = extend_checksum(checksums[n], one, reward[n : n + 1])
            differs |= ended & active
            again = ended | (lengths == left - 1)
            if again.any():
                obs = self._begin_some(again, seeds)
        for n, one in enumerate(running):
            own = jax.tree.map(lambda x, n=n: x[n : n + 1], obs)
            differs[n] |= checksums[n] != one.checksum or not spaces.identical(own, one.obs)
        return obs, differs

    def _try(self, actions: np.ndarray) -> tuple[PyTree, np.ndarray, np.ndarray]:
        """Take actions, and return observations, rewards, and whether episodes ended."""
        num_envs = self.spec.num_envs
        obs, reward, terminated, truncated, self._info = checking.unpack_step(
            self._call("step", actions)
        )
        self._check(obs)
        terminated = checking.flags_of(terminated, num_envs, "terminated")
        ended = checking.flags_of(truncated, num_envs, "truncated") | terminated
        return self._copy(obs), checking.rewards_of(reward, num_envs).astype(np.float32), ended

    def _begin_next(self, mask: np.ndarray) -> PyTree:
        """Begin the next episode of the environments that are chosen by `mask`."""
        seeds: list[Any] = [None] * self.spec.num_envs
        for n in np.flatnonzero(mask).tolist():
            seeds[n] = self._starts.next(n, after_others=True).get("seed")
            self._starts.begun(n, self._starts.current[n].number + 1)
        return self._begin(seed=seeds) if mask.all() else self._begin_some(mask, seeds)

    def _begin_some(self, mask: np.ndarray, seeds: Sequence[Any]) -> PyTree:
        chosen = [seed if begins else None for seed, begins in zip(seeds, mask, strict=True)]
        return self._begin(seed=chosen, options={"reset_mask": mask})

    def _begin(self, **arguments: Any) -> PyTree:
        """Reset the environments, and return a copy of their observations."""
        obs, _ = checking.unpack_reset(self._call("reset", **arguments))
        self._check(obs)
        return self._copy(obs)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call `reset` or `step` of the vector environment.

        Raises:
          EnvError: if an environment fails.
        """
        method = getattr(self.env, name)
        try:
            if self._interrupted:
                self._settle()
            self._interrupted = True  # unless the call comes to its end
            if self._guard.timeout is None or workers.has_workers(self.env):
                result = method(*args, **kwargs)
            else:
                result = self._caller.call(method, *args, **kwargs)
            self._interrupted = False
            return result
        except Exception as error:
            self._interrupted = False
            failure = workers.explain(self.env, error, self._guard, in_reset=name == "reset")
            if isinstance(error, NoAnswer) or workers.has_workers(self.env):
                self._unusable = failure.problem if isinstance(failure, EnvError) else "it failed."
                workers.end(self.env)
            raise failure from cause_of(error)

    def _settle(self) -> None:
        """Wait for the call that an interrupt has broken off."""
        try:
            workers.settle(self.env, self._guard)
        except BaseException as error:
            if not isinstance(error, Exception):
                self._unusable = "it was interrupted twice while its workers were working."
                workers.end(self.env)
            raise

    def _renew(self) -> None:
        """Make the vector environment again if it cannot be used any longer."""
        if not self._unusable:
            return
        if self._make is None:
            raise ConfigurationError(
                "The vector environment cannot be used again after it failed: "
                f"{self._unusable} Pass another one to set_env, or make the agent with a function "
                "that makes the vector environment."
            )
        env = self._make()
        if (env.num_envs, env.single_observation_space, env.single_action_space) != (
            self.env.num_envs,
            self.env.single_observation_space,
            self.env.single_action_space,
        ):
            raise ConfigurationError(
                "The vector environment that was made again has other spaces or another number of "
                "environments than before. Make the same ones."
            )
        self.env, self._unusable = env, ""
        workers.prepare(env, self._guard)

    def _copy(self, obs: Any) -> PyTree:
        """Copy a batch of observations, because the vector environment may overwrite it."""
        copied = self._empty()
        spaces.write(copied, ..., obs)
        return copied

    def step(self, actions: np.ndarray) -> EnvStep:
        """Take one action in each environment; see `Envs.step`."""
        num_envs = self.spec.num_envs
        obs, reward, terminated, truncated, info = checking.unpack_step(self._call("step", actions))
        self._check(obs)
        terminated = checking.flags_of(terminated, num_envs, "terminated")
        last = checking.flags_of(truncated, num_envs, "truncated") | terminated
        self._watch.check()
        self._info = info
        any_ended = bool(last.any())
        first, mask = last, self._no_dummies
        if self.mode == AutoresetMode.NEXT_STEP:
            # An episode that ended in the step before begins in this one, by a dummy step.
            first, mask = self._ended, ~self._ended
            if first.any():
                reward = np.where(first, 0.0, reward)  # a dummy step's reward may be anything
            self._ended = last
        reward = checking.rewards_of(reward, num_envs).astype(np.float32)
        discount = (~terminated).astype(np.float32)
        final_infos = self._final_infos(info, last) if any_ended else {}
        new_obs = successor = self._copy(obs)
        if any_ended and self.mode == AutoresetMode.SAME_STEP:
            successor = self._with_final_obs(obs, info, last)
        elif any_ended and self.mode == AutoresetMode.DISABLED:
            new_obs = (
                self._begin_next(last) if self._seeds else self._begin(options={"reset_mask": last})
            )
        return EnvStep(new_obs, first, successor, reward, discount, last, mask, final_infos)

    def _with_final_obs(self, obs: Any, info: Info, last: np.ndarray) -> PyTree:
        """Return a copy of `obs` with the last observations of the episodes that ended.

        Raises:
          InvalidStep: if `info` lacks such an observation, or if it is invalid.
        """
        successor = self._copy(obs)
        for n in np.flatnonzero(last).tolist():
            final_obs = _pick(info["final_obs"], n) if "final_obs" in info else None
            if final_obs is None:
                raise InvalidStep(
                    "The vector environment resets in the same step but gives no "
                    "info['final_obs'], so the last observation of an episode is lost. Add it, "
                    "or use another autoreset mode.",
                    n,
                )
            try:
                self._check_one(final_obs)
            except InvalidStep as error:
                raise InvalidStep(error.problem, n) from None
            spaces.write(successor, n, final_obs)
            self._watch.saw(n, final_obs, _pick(obs, n))
        return successor

    def _final_infos(self, info: Info, last: np.ndarray) -> dict[int, Info]:
        """Return the plain `info` of each environment whose episode ended, by its index."""
        if self.mode == AutoresetMode.SAME_STEP:  # other entries belong to the next episode
            info = info.get("final_info", {}) if info else {}
        indices = np.flatnonzero(last).tolist()
        return {n: plain(of_one(info, n, self.spec.num_envs)) for n in indices}

    def infos(self) -> list[Info]:
        """Return the `info` of each environment's newest step."""
        return [of_one(self._info, n, self.spec.num_envs) for n in range(self.spec.num_envs)]

    def render(self) -> None:
        """Render the environments."""
        self.env.render()

    def close(self) -> None:
        """Close the environments."""
        if not self._unusable:
            self.env.close()
        self._caller.close()


def _autoreset_mode(env: gym.vector.VectorEnv) -> AutoresetMode:
    """Return when a vector environment begins new episodes.

    Raises:
      ConfigurationError: if its metadata does not say so.
    """
    mode = (env.metadata or {}).get("autoreset_mode")
    try:
        return AutoresetMode(mode)
    except ValueError:
        raise ConfigurationError(
            f"The vector environment's metadata['autoreset_mode'] is {mode!r}, so it is not known "
            "when the environment resets. Set it to one of gymnasium.vector.AutoresetMode."
        ) from None


def _pick(batch: Any, n: int) -> Any:
    """Return element n of a batch, which may be a dict or a tuple of batches."""
    if isinstance(batch, dict):
        return {name: _pick(part, n) for name, part in batch.items()}
    return tuple(_pick(part, n) for part in batch) if isinstance(batch, tuple) else batch[n]
