"""How a network takes the parts of an observation: as images, numbers, bits or categories.

A Box holds images if all of these conditions are true:

- Its dtype is uint8, and its bounds are 0 and 255.
- An element has the shape `[H, W]`, `[H, W, C]` or `[C, H, W]`, or a first axis holds frames of
  such a shape.
- `H` and `W` are at least 10.

The first axis of a `FrameStack` holds frames, and so does the first axis of any other Box with four
axes. If there are three axes, the first or the last one holds the channels. It is the axis of size
1 to 4 if only one of the two is so small. Otherwise, it is the axis that leaves a square, then the
smaller axis, then the last axis. Images are divided by their largest bound, so that bytes become
numbers from 0 to 1.

Any other Box holds numbers. Floats and booleans stay as they are. Integers are scaled by their
bounds. If 0 lies within the bounds, they become numbers from -1 to 1, and 0 stays 0. Otherwise,
they become numbers from 0 to 1.

A bound that is a limit of the dtype says nothing about the numbers. For example, the codes of
MiniGrid, from 0 to 10, are declared as bytes from 0 to 255, and all of them would be close to 0 if
they were divided by 255. So bytes with such a bound become their 8 bits. "The Arcade Learning
Environment" by Bellemare et al. (https://arxiv.org/abs/1207.4708) does the same with the memory of
Atari games. A layer can read both codes and magnitudes from bits. Larger integers with such a bound
stay as they are.

The hyperparameters `images` and `scale_obs` overrule these rules.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.elements import has_channels_first
from agentzoo.types import Array, ConfigurationError, FrameStack

Images = bool | str | tuple[str, ...]
"""Which parts of an observation are images: "auto", True for all, False for none, or names."""

# The smallest side of an image in pixels. MinAtar's boards have sides of 10, MiniGrid's codes of 7.
SMALLEST = 10


@dataclass(frozen=True, eq=False)
class Image:
    """Images of `height` x `width` pixels.

    Attributes:
      axes: the meaning of each axis of an element, such as "HWC". S stands for frames.
      height: H.
      width: W.
      divisor: the number that pixels are divided by.
      text: a description for users.
    """

    axes: str
    height: int
    width: int
    divisor: float
    text: str

    def __call__(self, images: Array) -> Array:
        """Convert elements `[N, ...]` to images `[N, H, W, C]`; frames become channels."""
        # Axis 0 of the batch is N, so the axes of an element begin at 1. The order is
        # [N, H, W, S, C], and the reshape merges frames S and channels C.
        order = [1 + self.axes.index(axis) for axis in "HWSC" if axis in self.axes]
        images = images.transpose(0, *order).reshape(images.shape[0], self.height, self.width, -1)
        return images.astype(jnp.float32) / self.divisor


@dataclass(frozen=True, eq=False)
class Numbers:
    """F numbers of a Box, or the bits of a MultiBinary.

    Attributes:
      text: a description for users.
      offset: `[F]`, where a scaled number is `(x - offset) / divisor`. None if the numbers stay as
        they are.
      divisor: `[F]`, see `offset`.
      as_bits: `[F]`, whether a number becomes its 8 bits instead.
      is_box: whether the numbers may be normalised by statistics.
    """

    text: str
    offset: np.ndarray | None = None
    divisor: np.ndarray | float = 1.0
    as_bits: np.ndarray | None = None
    is_box: bool = True

    def __call__(self, x: Array) -> Array:
        """Convert elements `[N, ...]` to features `[N, G]`."""
        x = x.reshape(x.shape[0], -1)
        # Numbers that have been normalised by statistics are floats, and are not scaled again.
        if self.offset is None or self.as_bits is None or jnp.issubdtype(x.dtype, jnp.floating):
            return x.astype(jnp.float32)
        scaled = (x.astype(jnp.float32) - self.offset) / self.divisor
        if not self.as_bits.any():
            return scaled
        # The B numbers [N, B] that become bits turn into [N, 8 * B], behind the scaled numbers.
        bits = jnp.unpackbits(x[:, self.as_bits].astype(jnp.uint8), axis=1).astype(jnp.float32)
        return jnp.concatenate([scaled[:, ~self.as_bits], bits], axis=1)


@dataclass(frozen=True, eq=False)
class Categories:
    """D categories, each of which becomes a one-hot vector.

    Attributes:
      text: a description for users.
      start: the first value of each category, in the shape of an element.
      counts: `[D]`, the number of values of each category.
    """

    text: str
    start: np.ndarray
    counts: list[int]

    def __call__(self, values: Array) -> Array:
        """Convert elements `[N, ...]` to concatenated one-hot vectors `[N, sum(counts)]`."""
        values = (values - self.start).reshape(values.shape[0], -1)  # [N, D]
        one_hot = [
            jax.nn.one_hot(values[:, i], count, dtype=jnp.float32)
            for i, count in enumerate(self.counts)
        ]
        return jnp.concatenate(one_hot, axis=-1)


View = Any
"""How a network takes observations: `Image`, `Numbers`, `Categories`, a dict or a tuple of them."""


def make_view(space: spaces.Space, images: Images = "auto", scale_obs: bool = True) -> View:
    """Decide how a network takes observations.

    Args:
      space: the space of one observation.
      images: which parts are images: "auto" for the parts that look like images, True for every Box
        that can be an image, False for none, or names of parts of a Dict. The name of a part inside
        another part is "outer/inner".
      scale_obs: scale integers by their bounds. If False, images of bytes are divided by 255, and
        other integers stay as they are.

    Raises:
      ConfigurationError: if `images` names a part that does not exist or cannot be an image.
    """
    chosen = _image_names(space, images)

    def take(part: spaces.Space, name: str) -> View:
        if isinstance(part, spaces.Dict | spaces.Tuple):
            taken = {key: take(inner, _join(name, key)) for key, inner in _items(part)}
            return taken if isinstance(part, spaces.Dict) else tuple(taken.values())
        if isinstance(part, spaces.Box):
            return _image(part, scale_obs) if name in chosen else _numbers(part, scale_obs)
        return _categories(part)

    return take(space, "")


def describe(view: View) -> dict[str, str]:
    """Return a description of each part of an observation, by name; "" names the whole."""
    if isinstance(view, dict | tuple):
        items = view.items() if isinstance(view, dict) else enumerate(view)
        return {
            _join(str(key), name): text
            for key, part in items
            for name, text in describe(part).items()
        }
    return {"": view.text}


def _image_names(space: spaces.Space, images: Images) -> set[str]:
    """Return the names of the parts that are images.

    Raises:
      ConfigurationError: if `images` names a part that does not exist or cannot be an image.
    """
    names = (images,) if isinstance(images, str) and images != "auto" else images
    boxes = {name: part for name, part in _leaves(space) if isinstance(part, spaces.Box)}
    if isinstance(names, tuple):
        chosen = set(names)
    elif names == "auto":
        chosen = {name for name, box in boxes.items() if _looks_like_an_image(box)}
    else:
        chosen = {name for name, box in boxes.items() if names and _axes(box)}
    for name in sorted(chosen - boxes.keys()):
        choices = (
            ", ".join(repr(box) for box in boxes if box)
            or "True and False, because the observation has no named Box"
        )
        raise ConfigurationError(
            f"images={images!r} names {name!r}, which is no Box of the observation. "
            f"Choose from {choices}."
        )
    for name in chosen:
        if not _axes(boxes[name]):
            raise ConfigurationError(
                f"images={images!r}, but {boxes[name]} cannot be an image. Choose a Box of the "
                f"shape [H, W], [H, W, C] or [C, H, W]."
            )
    if names is True and not chosen:
        raise ConfigurationError(
            f"images=True, but no part of {space} has the shape of an image. Leave images out."
        )
    return chosen


def _join(outer: str, inner: Any) -> str:
    """Return "outer/inner", without the slash if a name is empty."""
    return "/".join(name for name in (outer, str(inner)) if name)


def _items(space: spaces.Space) -> Iterable[tuple[Any, spaces.Space]]:
    """Return the parts of a Dict or Tuple with their keys."""
    if isinstance(space, spaces.Dict):
        return space.items()
    return enumerate(space)  # type: ignore[arg-type]


def _leaves(space: spaces.Space, name: str = "") -> Iterator[tuple[str, spaces.Space]]:
    """Yield the parts of a space that have no parts themselves, with their names."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for key, part in _items(space):
            yield from _leaves(part, _join(name, key))
    else:
        yield name, space


def _axes(space: spaces.Box) -> str:
    """Return the meaning of each axis of an image, or "" if elements cannot be images."""
    frames = "S" if isinstance(space, FrameStack) or len(space.shape) == 4 else ""
    shape = space.shape[len(frames) :]
    if len(shape) not in (2, 3) or 0 in space.shape:
        return ""
    return frames + ("HW" if len(shape) == 2 else "CHW" if has_channels_first(*shape) else "HWC")


def _looks_like_an_image(space: spaces.Box) -> bool:
    """Return whether a Box holds images by the rules of this module."""
    axes = _axes(space)
    if not axes or space.dtype != np.uint8 or (space.low > 0).any() or (space.high < 255).any():
        return False
    return min(space.shape[axes.index(axis)] for axis in "HW") >= SMALLEST


def _image(space: spaces.Box, scale_obs: bool) -> Image:
    """Return how a network takes a Box of images."""
    axes = _axes(space)
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    sizes = dict(zip(axes, space.shape, strict=True))
    divisor = float(np.maximum(-low, high).max())
    if not scale_obs:
        divisor = 255.0 if space.dtype == np.uint8 else 1.0
    elif not 0 < divisor < 2**31 - 1:  # the Box has no bounds that say anything
        divisor = 1.0
    channels = math.prod(sizes.get(axis, 1) for axis in "SC")
    height, width = sizes["H"], sizes["W"]
    what = f"{channels} channel{'s' * (channels != 1)}"
    scaled = f"divided by {divisor:g}" if divisor != 1 else "as it is"
    text = f"an image of {height} x {width} pixels with {what}, {scaled}"
    return Image(axes, height, width, divisor, text)


def _numbers(space: spaces.Box, scale_obs: bool) -> Numbers:
    """Return how a network takes a Box of numbers."""
    count = math.prod(space.shape)
    integers = np.issubdtype(space.dtype, np.integer)
    kind = "integer" if integers else "boolean" if space.dtype == bool else "number"
    text = f"{count} {kind}{'s' * (count != 1)}"
    if not integers or not scale_obs:
        return Numbers(f"{text}, unscaled")
    low, high = space.low.reshape(-1), space.high.reshape(-1)
    limits = np.iinfo(space.dtype)  # type: ignore[arg-type]
    # [F], whether a bound is a limit of the dtype, or of int32 for larger dtypes.
    is_open = (high >= min(limits.max, 2**31 - 1)) | (
        (low <= max(limits.min, -(2**31))) & (limits.min < 0)
    )
    low, high = low.astype(np.float32), high.astype(np.float32)
    # Numbers [F] with bounds on both sides of 0 keep 0 at 0; the others become 0 at their low.
    around_zero = (low <= 0) & (high >= 0)
    offset = np.where(around_zero | is_open, 0.0, low)
    divisor = np.where(around_zero, np.maximum(-low, high), high - low)
    divisor = np.where(is_open | (divisor == 0), 1.0, divisor)
    as_bits = is_open & (limits.bits == 8)
    ways = []
    if not is_open.all():
        ways.append(f"scaled from [{low[~is_open].min():g}, {high[~is_open].max():g}]")
    if as_bits.any():
        ways.append("each as its 8 bits")
    if (is_open & ~as_bits).any():
        ways.append("unscaled")
    return Numbers(
        f"{text}, {' or '.join(ways)}",
        offset.astype(np.float32),
        divisor.astype(np.float32),
        as_bits,
    )


def _categories(space: spaces.Space) -> Numbers | Categories:
    """Return how a network takes a Discrete, MultiDiscrete or MultiBinary space."""
    if isinstance(space, spaces.Discrete):
        return Categories(
            f"one of {space.n} categories, one-hot", np.asarray(space.start), [int(space.n)]
        )
    if isinstance(space, spaces.MultiDiscrete):
        counts = [int(n) for n in space.nvec.reshape(-1)]
        return Categories(
            f"{len(counts)} categories, one-hot ({sum(counts)} numbers)", space.start, counts
        )
    count = math.prod(space.shape)  # type: ignore[arg-type]
    return Numbers(f"{count} bit{'s' * (count != 1)}", is_box=False)  # MultiBinary
