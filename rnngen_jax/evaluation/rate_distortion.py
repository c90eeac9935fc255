"""Rate against distortion of runs beside JPEG and WebP: points, a table, a plot and sheets."""

import importlib.util
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import lossy_formats, pictures
from rnngen_jax.evaluation.distortion import Distortion, distortion
from rnngen_jax.evaluation.formats import sheet
from rnngen_jax.files import filling

FORMATS = {"JPEG": lossy_formats.jpeg, "WebP": lossy_formats.webp}
SHOWN = 6  # see `_plot`
COLUMNS = ("bytes", "payload", "bits/pixel", "PSNR", "SSIM")


class Point(NamedTuple):
    """Images at one rate.

    Attributes:
      name: a run, "JPEG" or "WebP".
      quality: the format's, or `None` for a run.
      size: bytes of the file.
      payload: bytes without headers.
      pixels: how many the images have.
      distortion: of what comes back against the originals.
    """

    name: str
    quality: float | None
    size: int
    payload: int
    pixels: int
    distortion: Distortion

    @property
    def title(self) -> str:
        """The name, with the quality of a format."""
        return self.name if self.quality is None else f"{self.name} {self.quality:g}"

    @property
    def bits_per_pixel(self) -> float:
        """Of the payload."""
        return 8 * self.payload / self.pixels

    def record(self) -> dict[str, Any]:
        """For JSON; a PSNR that is infinite is `None`."""
        psnr, ssim, window = self.distortion
        return {
            "name": self.name,
            "quality": self.quality,
            "bytes": self.size,
            "payload": self.payload,
            "bits_per_pixel": self.bits_per_pixel,
            "psnr": psnr if math.isfinite(psnr) else None,
            "ssim": ssim,
            "ssim_window": window,
        }


def point(
    name: str, images: np.ndarray, back: np.ndarray, levels: int, size: int, payload: int
) -> Point:
    """A run's point.

    Args:
      name: the run's.
      images, back: what went in and what comes back, grey levels `[N, H, W, C]`.
      levels: number of grey levels.
      size, payload: bytes of the file, and without headers.
    """
    before, after = (lossy_formats.eight_bit(x, levels) for x in (images, back))
    return _point(name, None, before, after, size, payload)


def curve(name: str, images: np.ndarray, levels: int) -> list[Point]:
    """The points of a format, in the order of qualities.

    Args:
      name: one of `FORMATS`.
      images: grey levels `[N, H, W, C]`.
      levels: number of grey levels.
    """
    before = lossy_formats.eight_bit(images, levels)
    return [
        _point(name, one.quality, before, one.images, one.size, one.payload)
        for one in FORMATS[name](before)
    ]


def at_like_psnr(point: Point, points: Sequence[Point]) -> Point:
    """The smallest of a format's points with at least the PSNR of another, or else its best."""
    enough = [one for one in points if one.distortion.psnr >= point.distortion.psnr]
    if not enough:
        return max(points, key=lambda one: one.distortion.psnr)
    return min(enough, key=lambda one: one.payload)


def table(rows: Iterable[Point]) -> list[str]:
    """Lines of a table in Markdown."""
    rows = list(rows)
    width = max(len(row.title) for row in rows)
    lines = [f"| {'':<{width}} | {' | '.join(f'{column:>10}' for column in COLUMNS)} |"]
    lines.append(f"| {'-' * width} | {' | '.join(['-' * 9 + ':'] * len(COLUMNS))} |")
    for row in rows:
        psnr, ssim, _ = row.distortion
        cells = [f"{row.size:,}", f"{row.payload:,}", f"{row.bits_per_pixel:.4f}", f"{psnr:.2f}"]
        cells.append("" if ssim is None else f"{ssim:.4f}")
        lines.append(f"| {row.title:<{width}} | {' | '.join(f'{cell:>10}' for cell in cells)} |")
    return lines


def plots() -> bool:
    """Whether plots can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def write(
    folder: str,
    facts: dict[str, Any],
    images: np.ndarray,
    levels: int,
    runs: Sequence[tuple[Point, np.ndarray]],
    curves: Mapping[str, Sequence[Point]],
) -> None:
    """Writes a folder, all of it or nothing.

    `rate_distortion.json` has all points, `rate_distortion.png` the plot (if matplotlib is
    installed), `original.png` the sheet of images. For each run there are the sheets `NAME.png`,
    `NAME_jpeg.png` and `NAME_webp.png`, the last two `at_like_psnr`.

    Args:
      folder: made if missing.
      facts: what the points are of, for the JSON.
      images: the originals, grey levels `[N, H, W, C]`.
      levels: number of grey levels.
      runs: the runs' points, of distinct names, and what comes back of the images.
      curves: the formats' points by name.
    """
    own, before = [one for one, _ in runs], lossy_formats.eight_bit(images, levels)
    with filling(folder) as temporary:
        points = [*own, *(one for points in curves.values() for one in points)]
        content = {**facts, "points": [one.record() for one in points]}
        (temporary / "rate_distortion.json").write_text(json.dumps(content, indent=1) + "\n")
        if plots():
            _plot(temporary / "rate_distortion.png", own, curves)
        _write_sheet(temporary / "original.png", before)
        for one, back in runs:
            _write_sheet(temporary / f"{one.name}.png", lossy_formats.eight_bit(back, levels))
            for name, points in curves.items():
                (like,) = FORMATS[name](before, [at_like_psnr(one, points).quality])
                _write_sheet(temporary / f"{one.name}_{name.lower()}.png", like.images)


def require_names(names: Sequence[str]) -> None:
    """Raises a `UserError` unless names of runs are distinct, as files are called by them."""
    if len(set(names)) < len(names):
        raise UserError(
            f"--workdir: two of the runs' folders have one name, of {', '.join(names)}; rename one."
        )


def _point(
    name: str, quality: float | None, before: np.ndarray, after: np.ndarray, size: int, payload: int
) -> Point:
    """A point of 8-bit images."""
    pixels = before[..., 0].size
    return Point(name, quality, size, payload, pixels, distortion(after, before, 256))


def _write_sheet(path: pathlib.Path, images: np.ndarray) -> None:
    """Writes 8-bit images side by side."""
    pictures.write_png(path, pictures.to_pixels(sheet(images), 256))


def _plot(path: pathlib.Path, runs: Sequence[Point], curves: Mapping[str, Sequence[Point]]) -> None:
    """PSNR and SSIM over the payload's bits per pixel, and dotted or hollow over the whole file's.

    Of the formats only what is within `SHOWN` times the runs' highest rate is shown, or their first
    points.
    """
    # Not pyplot, which would select a GUI backend.
    from matplotlib import ticker
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    most = SHOWN * max(one.bits_per_pixel for one in runs)
    fields = {"psnr": "PSNR, dB", "ssim": "SSIM"}
    if runs[0].distortion.ssim is None:
        del fields["ssim"]
    every = figure.subplots(1, len(fields), squeeze=False)[0]
    for axes, (field, title) in zip(every, fields.items(), strict=True):
        for name, points in curves.items():
            finite = [one for one in points if math.isfinite(one.distortion.psnr)]
            shown = [one for one in finite if one.bits_per_pixel <= most] or finite[:2]
            values = [getattr(one.distortion, field) for one in shown]
            (line,) = axes.plot(_rates(shown, "payload"), values, label=name)
            axes.plot(_rates(shown, "size"), values, ":", color=line.get_color())
        for one in runs:
            value = [getattr(one.distortion, field)]
            (mark,) = axes.plot(_rates([one], "payload"), value, "o", label=one.name)
            hollow = {"color": mark.get_color(), "fillstyle": "none"}
            axes.plot(_rates([one], "size"), value, "o", **hollow)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        axes.set_xlabel("bits per pixel: payload; files dotted and hollow")
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
    every[0].legend(fontsize=8)
    figure.savefig(path, dpi=100)


def _rates(points: Sequence[Point], field: str) -> list[float]:
    """Bits per pixel of files or payloads."""
    return [8 * getattr(one, field) / one.pixels for one in points]
