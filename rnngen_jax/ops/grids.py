"""Maps `[H, W, B, D]` of an image's pixels: neighbours, channel masks, and diagonals as time.

Rows are the first axis, so a map is time-major for a recurrence over rows, and a pixel's values are
contiguous. `Taps` are the places that a pixel sees, (row, column) offsets relative to its own; in a
causal network all precede it, or are the pixel itself.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Taps = tuple[tuple[int, int], ...]


def channel_mask(kind: str, channels: int, sources: int, targets: int) -> np.ndarray:
    """The masks A and B within a pixel (van den Oord et al. 2016, section 3.4).

    Features form `channels` groups of about equal size, one per channel in the order R, G, B. With
    "A" a group sees the groups of earlier channels, with "B" its own group too.

    Returns:
      float32 `[sources, targets]` of zeros and ones.
    """
    source, target = (np.arange(n) * channels // n for n in (sources, targets))
    seen = source[:, None] < target if kind == "A" else source[:, None] <= target
    return seen.astype(np.float32)


def tap_mask(kind: str, channels: int, taps: Taps, sources: int, targets: int) -> np.ndarray:
    """`channel_mask` for taps that are the pixel itself; all groups see earlier pixels.

    Returns:
      float32 `[K · sources, targets]` for K taps.
    """
    own = channel_mask(kind, channels, sources, targets)
    return np.concatenate([own if tap == (0, 0) else np.ones_like(own) for tap in taps])


def before(radius: int, rows: int | None = None) -> Taps:
    """All places before a pixel in raster order, in the square of side `2·radius + 1` around it.

    Args:
      radius: how many columns to each side and, unless `rows` is given, rows above.
      rows: how many rows above the pixel's own.
    """
    rows = radius if rows is None else rows
    above = [(-up, aside) for up in range(rows, 0, -1) for aside in range(-radius, radius + 1)]
    return (*above, *left(radius))


def left(radius: int) -> Taps:
    """The `radius` places to the left of a pixel."""
    return tuple((0, -n) for n in range(radius, 0, -1))


def gather(x: Array, taps: Taps) -> Array:
    """The taps of each pixel: `[H, W, ..., D]` to `[H, W, ..., K · D]`, 0 outside the image."""
    return jnp.concatenate([moved(x, *tap) for tap in taps], axis=-1)


def gather_columns(x: Array, taps: Taps) -> Array:
    """`gather` of a map `[H, W, B, D]`, written features first, for cells that are run so.

    A TPU's compiler then moves pixels along its 128 lanes, which few features would leave empty.
    """
    height, width, batch, features = x.shape
    first = x.reshape(height, width * batch, features).swapaxes(1, 2)
    seen = []
    for row, column in taps:
        aside = abs(column) * batch
        padded = jnp.pad(first, [(-row, 0), (0, 0), (aside, aside)])
        start = aside + column * batch
        seen.append(padded[:height, :, start : start + width * batch])
    return jnp.concatenate(seen, axis=1).swapaxes(1, 2).reshape(height, width, batch, -1)


def moved(x: Array, row: int, column: int) -> Array:
    """`x[i + row, j + column]` at (i, j), 0 outside; `row` ≤ 0."""
    height, width = x.shape[:2]
    aside = abs(column)
    padding = [(-row, 0), (aside, aside)] + [(0, 0)] * (x.ndim - 2)
    start = aside + column
    return jnp.pad(x, padding)[:height, start : start + width]


def first_rows(taps: Taps, width: int, batch: int, features: int) -> Array:
    """A sampler's empty buffer for `look`: the current row and those above it.

    Returns:
      `[R, W + 2r, B, D]` of zeros: R rows, the current one last, with a border of r places.
    """
    rows = 1 + max(-row for row, _ in taps)
    return jnp.zeros((rows, width + 2 * _radius(taps), batch, features))


def next_row(rows: Array) -> Array:
    """Shifts the buffer by one row; the new current row is empty."""
    return jnp.concatenate([rows[1:], jnp.zeros_like(rows[:1])])


def put(rows: Array, taps: Taps, x: Array, column: Array | int) -> Array:
    """Writes a pixel `[B, D]` of the current row."""
    return rows.at[-1, column + _radius(taps)].set(x)


def look(rows: Array, taps: Taps, column: Array | int) -> Array:
    """The taps of one pixel of the current row, `[B, K · D]`: one place of `gather`'s result."""
    last, radius = rows.shape[0] - 1, _radius(taps)
    seen = [
        jax.lax.dynamic_index_in_dim(rows[last + row], radius + column + aside, keepdims=False)
        for row, aside in taps
    ]
    return jnp.concatenate(seen, axis=-1)


def side_by_side(x: Array, count: int) -> Array:
    """Concatenates images of a batch horizontally, with a column of zeros between them.

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
    """Shifts row i by i places to the right and makes columns time: diagonals become columns.

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
