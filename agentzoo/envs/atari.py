"""Atari games with the preprocessing of "Revisiting the Arcade Learning Environment" (Machado et al., https://arxiv.org/abs/1709.06009).

A step repeats the action for 4 frames, of which the last two are pooled by their maximum, in grey
and at 84 x 84; an observation is the last 4 of those, black ones before the episode's first.
Actions stick with probability 0.25 (in `ALE/...-v5`), episodes begin with up to 30 no-ops and are
cut off after 108,000 frames (half an hour), the loss of a life does not end them, and rewards are
raw scores.
"""

from typing import Any

import gymnasium as gym
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation


def register() -> None:
    """Makes Gymnasium know the games."""
    import ale_py  # pyright: ignore[reportMissingImports] (an extra)

    gym.register_envs(ale_py)


def is_atari(env_id: str, kwargs: dict[str, Any]) -> bool:
    """Whether an id is registered as a game of which one sees the screen."""
    spec = gym.registry.get(env_id)
    return (
        spec is not None
        and str(spec.entry_point).startswith("ale_py")
        and {**spec.kwargs, **kwargs}.get("obs_type") != "ram"
    )


def make(env_id: str, terminal_on_life_loss: bool = False, **kwargs: Any) -> gym.Env:
    """One game.

    Args:
      env_id: such as `ALE/Pong-v5`.
      terminal_on_life_loss: let the loss of a life end an episode.
      **kwargs: arguments of ale-py's environment, such as `render_mode`, `mode` or
        `repeat_action_probability`.
    """
    register()
    env = gym.make(
        env_id, frameskip=1, **kwargs
    )  # the preprocessing skips, since it has to see the frames that it pools
    env = AtariPreprocessing(
        env, noop_max=30, frame_skip=4, screen_size=84, terminal_on_life_loss=terminal_on_life_loss
    )
    return FrameStackObservation(env, 4, padding_type="zero")


def make_vec(env_id: str, num_envs: int, **kwargs: Any) -> gym.vector.VectorEnv:
    """Several games by ale-py's own vector environment, which does the same in C++ and in threads.

    Args:
      env_id: one of `ALE/...-v5`.
      num_envs: how many.
      **kwargs: arguments of ale-py's `AtariVectorEnv`.
    """
    register()
    return gym.make_vec(
        env_id,
        num_envs,
        vectorization_mode="vector_entry_point",
        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
        **{"reward_clipping": False, "use_fire_reset": False, **kwargs},
    )
