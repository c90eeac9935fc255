"""Plots of how well frames are predicted, figure by figure, over the frames of a sequence."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnngen_jax.errors import UserError
from rnngen_jax.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Z = 1.96  # standard errors on either side of a mean in a 95 % interval
FORCED = "_teacher_forced"
# Title of each panel, and its curves: a figure and what its line is called.
PANELS = {
    "MSE, summed over a frame": {
        "mse": "predicted",
        "mse_best_of_k": "best of k futures",
        f"mse{FORCED}": "given the true frames",
        "mse_copy_last": "last given frame",
    },
    "PSNR, dB": {"psnr": "predicted", f"psnr{FORCED}": "given the true frames"},
    "SSIM": {"ssim": "predicted", f"ssim{FORCED}": "given the true frames"},
    "soft cross-entropy, nats": {
        "soft_cross_entropy": "predicted",
        f"soft_cross_entropy{FORCED}": "given the true frames",
    },
    "−log p given the true frames, nats": {"nats_per_frame": "each frame"},
}


def require_plots(flag: str) -> None:
    """Raises a `UserError` that names the extra to install unless plots can be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"{flag} needs matplotlib (pip install rnngen_jax[plots]).")


def curve(seeds: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """The mean of a figure at each frame, and half of its interval.

    Args:
      seeds: the `forecast` of a record of evaluation.json, one mapping per seed.
      name: of the figure.

    Returns:
      Mean and half-width, `[M]` each: of one seed the 95 % interval over sequences; of several the
      mean of all, and the greatest distance of a seed from it.
    """
    each = np.array([one[name] for one in seeds])
    mean = each.mean(0)
    if len(seeds) == 1:
        return mean, Z * np.array(seeds[0][f"{name}_error"])
    return mean, np.abs(each - mean).max(0)


def write_plot(
    path: str | os.PathLike[str], seeds: Sequence[Mapping[str, Any]], title: str
) -> None:
    """Writes a PNG with a panel for each kind of figure; replaces a file only by a complete one.

    Frames are counted from 1, and a dotted line parts given from predicted ones.

    Args:
      path: the file.
      seeds: the `forecast` of a record of evaluation.json, one mapping per seed.
      title: of the whole picture.
    """
    with replacing(path) as temporary:
        figure_of(seeds, title).savefig(temporary, dpi=100, format="png")


def figure_of(seeds: Sequence[Mapping[str, Any]], title: str) -> "Figure":
    """The figure that `write_plot` writes."""
    # Not pyplot, which would select a GUI backend.
    from matplotlib import ticker
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    first = seeds[0]
    context, horizon = first["context"], first["horizon"]
    panels = {
        panel: {name: label for name, label in curves.items() if name in first}
        for panel, curves in PANELS.items()
    }
    panels = {panel: curves for panel, curves in panels.items() if curves}
    figure = Figure(figsize=(3.6 * len(panels), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    whose = "95 % over sequences" if len(seeds) == 1 else f"range over {len(seeds)} seeds"
    figure.suptitle(f"{title} (bands: {whose})", fontsize=10)
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (panel, curves) in zip(every, panels.items(), strict=True):
        for name, label in curves.items():
            mean, half = curve(seeds, name)
            begin = 1 if len(mean) > horizon else context + 1  # nats are of all frames
            at = np.arange(begin, begin + len(mean))
            (line,) = axes.plot(at, mean, ".-", label=label)
            axes.fill_between(at, mean - half, mean + half, color=line.get_color(), alpha=0.25)
        if begin <= context:
            axes.axvline(context + 0.5, color="grey", linestyle=":")
        axes.set_title(panel, fontsize=9)
        axes.set_xlabel("frame")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(fontsize=7)
    return figure
