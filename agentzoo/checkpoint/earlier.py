"""What the manifests and the names of leaves of earlier versions mean."""

from typing import Any

from agentzoo.elements import has_channels_first
from agentzoo.types import ConfigurationError

RENAMED_LEAVES = {"['params'].statistics": "['params'].obs_statistics"}
"""Parts of the names of leaves in earlier versions, and what they are called today."""


def current_name(name: str) -> str:
    """Return what a leaf of a saved file is called today."""
    for before, today in RENAMED_LEAVES.items():
        name = name.replace(before, today)
    return name


def upgrade(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest with the hyperparameters that earlier versions lacked.

    Files without the hyperparameters `images` and `scale_obs` get values with which the agent reads
    observations as it did when it was saved.

    Raises:
      ConfigurationError: if no such values exist.
    """
    hyperparameters = manifest.get("hyperparameters", {})
    if "cnn" not in hyperparameters or "images" in hyperparameters:
        return manifest
    observation_space = manifest["spec"][0]
    names = _earlier_images(observation_space)
    # The name is "" if the whole observation is an image.
    images = bool(names) if "" in names or not names else names
    kept = {"images": images, "scale_obs": False}
    return manifest | {"hyperparameters": hyperparameters | kept}


def _earlier_images(space: dict[str, Any]) -> list[str]:
    """Return the names of the parts of an observation that earlier versions took for images.

    These are bytes with three axes, and stacks of images.
    """
    if space["type"] in ("Dict", "Tuple"):
        spaces: dict[str, dict[str, Any]] | list[dict[str, Any]] = space["spaces"]
        parts = spaces.items() if isinstance(spaces, dict) else enumerate(spaces)
        return [
            "/".join(filter(None, (str(key), name)))
            for key, part in parts
            for name in _earlier_images(part)
        ]
    axes = {"Box": (3,), "FrameStack": (3, 4)}.get(space["type"], ())
    if space.get("dtype") != "uint8" or len(space["shape"]) not in axes:
        return []
    image = space["shape"][-3:]
    # Earlier versions took the first axis of an image for its channels if no axis is shorter. In
    # stacks of images, they took the last axis.
    channels_were_first = space["type"] == "Box" and image[0] == min(image)
    is_grey = space["type"] == "FrameStack" and len(space["shape"]) == 3
    if not is_grey and has_channels_first(*image) != channels_were_first:
        axis = "first" if channels_were_first else "last"
        raise ConfigurationError(
            f"The agent was saved by an earlier version of agentzoo, which took the {axis} axis of "
            f"images of shape {image} for their channels. Train the agent again."
        )
    return [""]
