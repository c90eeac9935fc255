"""`moving:SOURCE`: still images that move about, made as they are read (Srivastava et al. 2015).

Moving MNIST from any source of still images: `moving:idx:FOLDER` is the published one, `moving` or
`moving:digits` are the embedded digits. Each sequence has `objects` images, drawn at random from
the source's images of the same split. Each begins at a random place and moves in a random direction
by `speed` per frame, also before the first frame, in units of the slack from wall to wall. At a
wall it stops at the wall, and the component of its velocity towards it is reversed; with stochastic
bounces (Denton and Fergus 2018) it goes on at the same speed in a direction drawn anew from those
that lead away from that wall. Places are cut to whole pixels, and each pixel is as bright as the
brightest image there.

Object o of sequence i of a split is a pure function of (split, i, o): its numbers are the raw words
of a Philox generator with the key `(SEED, split)`, split 0, 1, 2 for train, validation, test, and
the counter `(0, 0, o, i)`. Word 0 chooses the image, 1 and 2 the place in x and y, 3 the direction,
4 the colour, and 5 + t the direction after a stochastic bounce in frame t. A word's upper 53 bits
are a number in [0, 1). So a sequence does not depend on the batch, on the order of reading, on the
number of hosts or on NumPy's version, longer sequences begin as shorter ones do, and adding an
object leaves the others as they are.
"""

import numpy as np

from rnngen_jax import data
from rnngen_jax.config import require
from rnngen_jax.data.base import SPLITS, DataConfig, Dataset, Split
from rnngen_jax.data.source import Source
from rnngen_jax.errors import UserError
from rnngen_jax.shapes import FRAMES

SEED = 2015  # of the paper; must never change
TRAINING = 1_000_000  # sequences of the training split
FEWEST, MOST = 1_000, 10_000  # sequences of the other splits: as many as images within these bounds

_IMAGE, _X, _Y, _DIRECTION, _COLOUR, _BOUNCE = range(6)  # first words of an object
_DIGIT, _CANVAS = 28, 64  # MNIST's images and the canvas of Moving MNIST


def canonical(argument: str) -> str:
    """The name of the still images, with its path resolved."""
    return data.canonical(argument)


def load_source(argument: str, config: DataConfig) -> Source:
    """Sequences `[context + horizon, canvas, canvas, C]` with the source's levels.

    With one object, a sequence has the object's label; with several it has none. C is that of the
    images, or 3 with `colour`.

    Args:
      argument: the still images' source, as in `config.data.name`; by default the digits.
      config: `validation_fraction` is that of the still images, if they lack a split.

    Raises:
      UserError: a source that cannot be read or whose items are not still images, a canvas that
        leaves no room to move, colours for colour images, or placement "device".
    """
    if config.placement == "device":
        raise UserError(
            f"config.data.placement='device' needs all sequences of {config.name} at once, which "
            "are made as they are read; leave it at 'auto'."
        )
    stills = _stills(argument or "digits", config)
    spec = stills.spec
    side = max(spec.height, spec.width)
    canvas = config.canvas or (_CANVAS if side == _DIGIT else 2 * side)
    allowed = f"> {side}, the longer side of the images of {stills.name}"
    require(canvas > side, "config.data.canvas", canvas, allowed)
    if config.colour and spec.channels != 1:
        raise UserError(
            f"config.data.colour gives grey images a colour, but those of {stills.name} have "
            "their own; leave it at False."
        )
    splits = {
        name: _split(images, name, canvas, config, spec.levels)
        for name, images in stills.splits.items()
    }
    channels = 3 if config.colour else spec.channels
    shape = (config.context + config.horizon, canvas, canvas, channels)
    return Source(splits, shape, spec.levels, spec.classes if config.objects == 1 else 0)


def trajectories(
    words: np.ndarray, frames: int, speed: float, stochastic: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The places of objects in each frame, in units of the slack, 0 to 1.

    Args:
      words: numbers in [0, 1) of each object, float64 `[N, 5 + T]`, as above.
      frames: T.
      speed: length of the way per frame.
      stochastic: whether an object leaves a wall in a random direction.

    Returns:
      x and y, float64 `[N, T]`.
    """
    place = np.stack([words[:, _X], words[:, _Y]], -1)
    velocity = _directions(words[:, _DIRECTION])
    places = np.empty((len(words), frames, 2))
    for frame in range(frames):
        place = place + velocity * speed
        low, high = place <= 0, place >= 1
        place = np.clip(place, 0, 1)
        if stochastic:
            hit = (low | high).any(-1, keepdims=True)
            velocity = np.where(hit, _directions(words[:, _BOUNCE + frame]), velocity)
            velocity = np.where(low, np.abs(velocity), velocity)
            velocity = np.where(high, -np.abs(velocity), velocity)
        else:
            velocity = np.where(low | high, -velocity, velocity)
        places[:, frame] = place
    return places[..., 0], places[..., 1]


def _stills(name: str, config: DataConfig) -> Dataset:
    """The still images with their three splits."""
    if name.partition(":")[0] in ("codes", "moving"):
        raise UserError(
            f"config.data.name='moving:{name}': only pictures can move; name a source of still "
            "images, such as moving:digits."
        )
    stills = data.load(DataConfig(name=name, validation_fraction=config.validation_fraction))
    if stills.spec.frames or stills.spec.levels > 256:
        kind = "sequences" if stills.spec.frames else "codes"
        raise UserError(
            f"config.data.name='moving:{name}': needs still images, but {name} has {kind}; give "
            f"{name} itself."
        )
    return stills


def _split(images: Split, name: str, canvas: int, config: DataConfig, levels: int) -> Split:
    """A split of sequences of the images of one split."""
    frames = config.context + config.horizon
    num = TRAINING if name == "train" else min(max(images.num, FEWEST), MOST)
    stochastic = config.bounces == "stochastic"

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        words = _words(SPLITS.index(name), indices, config.objects, _BOUNCE + frames)
        chosen = (words[:, _IMAGE] * images.num).astype(np.int64)
        pictures, labels = images.read(chosen)
        if config.colour:
            pictures = coloured(pictures, words[:, _COLOUR])
        x, y = trajectories(words, frames, config.speed, stochastic)
        drawn = np.zeros((len(indices), frames, canvas, canvas, pictures.shape[-1]), np.uint8)
        for place, (picture, xs, ys) in enumerate(zip(pictures, x, y, strict=True)):
            _draw(drawn[place // config.objects], picture, xs, ys)
        labels = labels if config.objects == 1 else np.zeros(len(indices), np.int32)
        return drawn, labels

    return Split(num, read, FRAMES, made=True)


def coloured(images: np.ndarray, hues: np.ndarray) -> np.ndarray:
    """Grey images in full colours of the same brightest channel.

    Args:
      images: uint8 `[N, H, W, 1]`.
      hues: in [0, 1): 0 is red, 1/3 green, 2/3 blue; float64 `[N]`.

    Returns:
      uint8 `[N, H, W, 3]`, rounded to whole levels.
    """
    turns = (6 * hues[:, None] + np.array([0, 4, 2])) % 6
    weights = np.clip(np.abs(turns - 3) - 1, 0, 1)
    return np.rint(images * weights[:, None, None]).astype(np.uint8)


def _words(split: int, indices: np.ndarray, objects: int, num: int) -> np.ndarray:
    """The first numbers of each object of each sequence, float64 `[N * objects, num]`."""
    key = np.array([SEED, split], np.uint64)
    words = [
        np.random.Philox(key=key, counter=np.array([0, 0, each, index], np.uint64)).random_raw(num)
        for index in indices
        for each in range(objects)
    ]
    return (np.stack(words) >> np.uint64(11)) * 2.0**-53


def _directions(turns: np.ndarray) -> np.ndarray:
    """Unit vectors `[N, 2]` in x and y, from fractions of a turn."""
    angles = 2 * np.pi * turns
    return np.stack([np.cos(angles), np.sin(angles)], -1)


def _draw(frames: np.ndarray, image: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Draws an image into frames, where it is brighter than what is there.

    Args:
      frames: uint8 `[T, H, W, C]`, changed in place.
      image: uint8 `[h, w, C]`.
      x, y: its places in units of the slack, float64 `[T]`.
    """
    time, height, width, _ = frames.shape
    h, w, _ = image.shape
    tops, lefts = (y * (height - h)).astype(np.int64), (x * (width - w)).astype(np.int64)
    # A view of every place where the image may be, `[T, H - h + 1, W - w + 1, C, h, w]`.
    places = np.lib.stride_tricks.sliding_window_view(frames, (h, w), (1, 2), writeable=True)
    at = np.arange(time), tops, lefts
    places[at] = np.maximum(places[at], np.moveaxis(image, -1, 0))
