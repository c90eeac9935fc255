"""Maps `[H, W, B, D]` of an image's pixels: neighbours, channel masks, and diagonals as time.

Rows are the first axis, so that a map is time-major for a recurrence over rows, and what belongs
to one pixel lies together. `Taps` are the places that a pixel looks at, pairs of rows and columns
relative to its own; in a causal network all come before it, or are the pixel itself.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Taps = tuple[tuple[int, int], ...]


def channel_mask(kind: str, channels: int, sources: int, targets: int) -> np.ndarray:
    """The masks A and B within a pixel (van den Oord et al. 2016, section 3.4).

    Features are in `channels` groups of about the same size, one a channel in the order R, G, B.
    Under "A" a group sees the groups of the channels before its own, under "B" its own group too.

    Returns:
      float32 `[sources, targets]` of zeros and ones.
    """
    source, target = (np.arange(n) * channels // n for n in (sources, targets))
    seen = source[:, None] < target if kind == "A" else source[:, None] <= target
    return seen.astype(np.float32)


def tap_mask(kind: str, channels: int, taps: Taps, sources: int, targets: int) -> np.ndarray:
    """`channel_mask` where a tap is the pixel itself; earlier pixels are seen by all groups.

    Returns:
      float32 `[K · sources, targets]` for K taps.
    """
    own = channel_mask(kind, channels, sources, targets)
    return np.concatenate([own if tap == (0, 0) else np.ones_like(own) for tap in taps])


def before(radius: int, rows: int | None = None) -> Taps:
    """All places before a pixel in raster order, within a square of side `2·radius + 1` about it.

    Args:
      radius: how far to the left, to the right and, unless `rows` is given, up.
      rows: how many rows above the pixel's own.
    """
    rows = radius if rows is None else rows
    above = [(-up, aside) for up in range(rows, 0, -1) for aside in range(-radius, radius + 1)]
    return (*above, *left(radius))


def left(radius: int) -> Taps:
    """The `radius` places to the left of a pixel."""
    return tuple((0, -n) for n in range(radius, 0, -1))


def gather(x: Array, taps: Taps) -> Array:
    """What each pixel sees: `[H, W, ..., D]` to `[H, W, ..., K · D]`, 0 outside the image."""
    return jnp.concatenate([moved(x, *tap) for tap in taps], axis=-1)


def moved(x: Array, row: int, column: int) -> Array:
    """`x[i + row, j + column]` in place (i, j), 0 outside; `row` is 0 or negative."""
    height, width = x.shape[:2]
    aside = abs(column)
    padding = [(-row, 0), (aside, aside)] + [(0, 0)] * (x.ndim - 2)
    start = aside + column
    return jnp.pad(x, padding)[:height, start : start + width]


def first_rows(taps: Taps, width: int, batch: int, features: int) -> Array:
    """What a sampler keeps of a map for `look`: the present row and those above it.

    Returns:
      `[R, W + 2r, B, D]` of zeros: R rows, the present one last, with a border of r places.
    """
    rows = 1 + max(-row for row, _ in taps)
    return jnp.zeros((rows, width + 2 * _radius(taps), batch, features))


def next_row(rows: Array) -> Array:
    """The rows as the next one begins, which is empty."""
    return jnp.concatenate([rows[1:], jnp.zeros_like(rows[:1])])


def put(rows: Array, taps: Taps, x: Array, column: Array | int) -> Array:
    """Writes a pixel `[B, D]` of the present row."""
    return rows.at[-1, column + _radius(taps)].set(x)


def look(rows: Array, taps: Taps, column: Array | int) -> Array:
    """What a pixel of the present row sees, `[B, K · D]`: one place of `gather`'s result."""
    last, radius = rows.shape[0] - 1, _radius(taps)
    seen = [
        jax.lax.dynamic_index_in_dim(rows[last + row], radius + column + aside, keepdims=False)
        for row, aside in taps
    ]
    return jnp.concatenate(seen, axis=-1)


def side_by_side(x: Array, count: int) -> Array:
    """Lays images of a batch next to one another, with a column of zeros between them.

    `[H, W, B, D]` to `[H, count · (W + 1) - 1, B / count, D]`.
    """
    height, width, batch, features = x.shape
    apart = x.reshape(height, width, count, batch // count, features)
    apart = jnp.pad(jnp.moveaxis(apart, 2, 1), [(0, 0), (0, 0), (0, 1), (0, 0), (0, 0)])
    return apart.reshape(height, count * (width + 1), batch // count, features)[:, :-1]


def batched(x: Array, count: int) -> Array:
    """Undoes `side_by_side`: `[H, count · (W + 1) - 1, B / count, D]` to `[H, W, B, D]`."""
    height, _, batch, features = x.shape
    padded = jnp.pad(x, [(0, 0), (0, 1), (0, 0), (0, 0)])
    apart = padded.reshape(height, count, -1, batch, features)[:, :, :-1]
    return jnp.moveaxis(apart, 1, 2).reshape(height, -1, count * batch, features)


def skew(x: Array) -> Array:
    """Moves row i by i places to the right, and makes columns time: diagonals side by side.

        y[i + j, i] = x[i, j],  0 elsewhere     (van den Oord et al. 2016, section 3.2)

    `[H, W, ...]` to `[W + H - 1, H, ...]`, without arithmetic or index tables.
    """
    height, width = x.shape[:2]
    rest = x.shape[2:]
    padded = jnp.pad(x, [(0, 0), (0, height)] + [(0, 0)] * len(rest))
    flat = padded.reshape(height * (width + height), *rest)[:-height]
    return jnp.swapaxes(flat.reshape(height, width + height - 1, *rest), 0, 1)


def unskew(y: Array, width: int) -> Array:
    """Undoes `skew`: `[W + H - 1, H, ...]` to `[H, W, ...]`."""
    steps, height = y.shape[:2]
    rest = y.shape[2:]
    flat = jnp.swapaxes(y, 0, 1).reshape(height * steps, *rest)
    padded = jnp.pad(flat, [(0, height)] + [(0, 0)] * len(rest))
    return padded.reshape(height, steps + 1, *rest)[:, :width]


def _radius(taps: Taps) -> int:
    return max(abs(column) for _, column in taps)
