"""Atari games with the standard preprocessing.

The preprocessing is that of "Revisiting the Arcade Learning Environment" by Machado et al.
(https://arxiv.org/abs/1709.06009). A step repeats the action for 4 frames. The maximum of the last
two frames, in grey and scaled to 84 x 84, becomes one image. An observation is the stack of the
last 4 images, with black images before the first one of an episode.

In `ALE/...-v5`, the previous action is repeated with probability 0.25. Episodes begin with up to 30
no-ops and are truncated after 108,000 frames (half an hour). The loss of a life does not end an
episode, and rewards are raw scores.
"""

from typing import Any

import gymnasium as gym
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation


def register() -> None:
    """Register the games with Gymnasium."""
    import ale_py  # pyright: ignore[reportMissingImports] (an extra)

    gym.register_envs(ale_py)


def is_atari(env_id: str, kwargs: dict[str, Any]) -> bool:
    """Return whether an id is registered as an Atari game that is observed as images."""
    spec = gym.registry.get(env_id)
    return (
        spec is not None
        and str(spec.entry_point).startswith("ale_py")
        and {**spec.kwargs, **kwargs}.get("obs_type") != "ram"
    )


def make(env_id: str, terminal_on_life_loss: bool = False, **kwargs: Any) -> gym.Env:
    """Make one game.

    Args:
      env_id: id such as `ALE/Pong-v5`.
      terminal_on_life_loss: whether the loss of a life ends an episode.
      **kwargs: arguments of ale-py's environment, such as `render_mode`, `mode` or
        `repeat_action_probability`.
    """
    register()
    # The preprocessing skips frames itself, because it needs the frames that it pools.
    env = gym.make(env_id, frameskip=1, **kwargs)
    env = AtariPreprocessing(
        env, noop_max=30, frame_skip=4, screen_size=84, terminal_on_life_loss=terminal_on_life_loss
    )
    return FrameStackObservation(env, 4, padding_type="zero")


def make_vec(env_id: str, num_envs: int, **kwargs: Any) -> gym.vector.VectorEnv:
    """Make ale-py's vector environment, which does the same preprocessing in C++ with threads.

    Args:
      env_id: id such as `ALE/Pong-v5`.
      num_envs: number of games.
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
