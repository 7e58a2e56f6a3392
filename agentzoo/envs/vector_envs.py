"""Gymnasium's vector environments, in any of their three autoreset modes, with the one meaning of `step` that `Envs` describes.

A vector environment of mode NEXT_STEP begins an episode with a dummy step: the mask marks it, and
nothing is learned from it.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from agentzoo.envs import checking, frame_stacks, spaces
from agentzoo.envs.infos import Info, of_one, plain
from agentzoo.envs.use import Used
from agentzoo.types import ConfigurationError, EnvSpec, InvalidStep, PyTree, Trajectory


class VectorEnvs(Used):
    """Steps a user's `VectorEnv` in any of Gymnasium's three autoreset modes."""

    def __init__(self, env: gym.vector.VectorEnv):
        mode = (env.metadata or {}).get("autoreset_mode")
        try:
            self.mode = AutoresetMode(mode)
        except ValueError:
            raise ConfigurationError(
                f"The vector environment's metadata['autoreset_mode'] is {mode!r}, so it is not known when it resets; set it to one "
                f"of gymnasium.vector.AutoresetMode."
            ) from None
        self.env = env
        observation_space = spaces.plain(frame_stacks.single_observation_space(env))
        self.spec = EnvSpec(
            observation_space, spaces.plain(env.single_action_space), int(env.num_envs)
        )
        spaces.check_observation_space(self.spec.observation_space)
        self._ended = np.zeros(env.num_envs, bool)
        self._check = checking.make_batch_check(self.spec.observation_space, env.num_envs)
        self._check_one = checking.make_check(self.spec.observation_space, "info['final_obs']")
        self._watch = checking.BufferWatch()
        self._info: Info = {}
        self._finals: dict[tuple[int, int], Info] = {}

    def reset(self, seed: int | None = None) -> PyTree:
        """Begins new episodes in all environments."""
        self._claim([self.env])
        self._ended, self._watch = np.zeros(self.spec.num_envs, bool), checking.BufferWatch()
        return spaces.copy(self.spec.observation_space, self._begin(seed=seed))

    def _begin(self, **arguments: Any) -> Any:
        """Reset the environments, and return their observations."""
        obs, _ = checking.unpack_reset(self.env.reset(**arguments))
        self._check(obs)
        return obs

    def step(self, actions: np.ndarray, out: Trajectory, t: int) -> None:
        """Takes one action in each environment; see `Envs`."""
        space, write = self.spec.observation_space, spaces.write
        num_envs = self.spec.num_envs
        result = self.env.step(spaces.to_elements(self.spec.action_space, actions))
        obs, reward, terminated, truncated, info = checking.unpack_step(result)
        self._check(obs)
        terminated = checking.flags_of(terminated, num_envs, "terminated")
        ended = checking.flags_of(truncated, num_envs, "truncated") | terminated
        self._watch.check()
        self._info = info
        if info and ended.any():
            self._keep_finals(info, ended, t)
        if self.mode == AutoresetMode.NEXT_STEP and self._ended.any():
            reward = np.where(self._ended, 0.0, reward)  # nothing is learned from dummy steps
        write(space, out.obs_t, t, obs)
        out.r_t[t] = checking.rewards_of(reward, num_envs)
        out.discount_t[t], out.last_t[t] = ~terminated, ended
        out.first_tm1[t + 1] = ended
        if self.mode == AutoresetMode.NEXT_STEP:
            out.mask[t], out.first_tm1[t + 1], self._ended = ~self._ended, self._ended, ended
        elif ended.any() and self.mode == AutoresetMode.SAME_STEP:
            for n in np.flatnonzero(ended).tolist():
                self._write_final(
                    out, t, n, _pick(info["final_obs"], n) if "final_obs" in info else None, obs
                )
        elif ended.any():
            obs = self._begin(options={"reset_mask": ended})
        write(space, out.obs_tm1, t + 1, obs)

    def _write_final(self, out: Trajectory, t: int, n: int, final_obs: Any, obs: Any) -> None:
        """Store the last observation of environment n, whose episode has ended, in place of the next first one."""
        if final_obs is None:
            raise InvalidStep(
                "The vector environment resets in the same step but gives no info['final_obs'], so the last "
                "observation of an episode is lost; add it, or use another autoreset mode.",
                n,
            )
        try:
            self._check_one(final_obs)
        except InvalidStep as error:
            raise InvalidStep(error.problem, n) from None
        spaces.write(self.spec.observation_space, out.obs_t, (t, n), final_obs)
        self._watch.saw(n, final_obs, _pick(obs, n))

    def _keep_finals(self, info: Info, ended: np.ndarray, t: int) -> None:
        if self.mode == AutoresetMode.SAME_STEP:  # the rest belongs to the next episode
            info = info.get("final_info", {})
        for n in np.flatnonzero(ended).tolist():
            self._finals[t, n] = plain(of_one(info, n, self.spec.num_envs))

    def infos(self) -> list[Info]:
        """Returns the `info` of each environment's newest step."""
        return [of_one(self._info, n, self.spec.num_envs) for n in range(self.spec.num_envs)]

    def pop_finals(self) -> dict[tuple[int, int], Info]:
        """Returns the `info` of each step that has ended an episode; see `Envs`."""
        finals, self._finals = self._finals, {}
        return finals

    def render(self) -> None:
        """Renders the environments."""
        self.env.render()

    def close(self) -> None:
        """Closes the environments."""
        self.env.close()


def _pick(batch: Any, n: int) -> Any:
    """Element n of a batch that may be a dict or a tuple of batches."""
    if isinstance(batch, dict):
        return {name: _pick(part, n) for name, part in batch.items()}
    return tuple(_pick(part, n) for part in batch) if isinstance(batch, tuple) else batch[n]
