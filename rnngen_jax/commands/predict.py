"""Predict the frames that follow given ones.

  rnngen predict --workdir=runs/video --num=4 --out=predicted.gif
  rnngen predict --workdir=runs/video --context=5 --horizon=30 --out=predicted.png
  rnngen predict --workdir=runs/video --input=clip.gif --horizon=20 --futures=3 --out=futures.gif

The given frames are the first --context of sequences of --split, or of one's own: an npz with the
array `frames` (uint8 [N, T, H, W, C], with `levels`), an animation (.gif, .webp or .png) or a
folder of numbered images. Values of 8 bits are rounded to the model's levels.

By default each predicted frame is the expected one, given the expected frames before it, which
grows blurred where the future is uncertain. With --futures=K, K futures are drawn instead, each
frame given those drawn before it; --temperature and --seed are as for `sample`.

--out ends in .gif or .webp for an animation of one column per sequence, in .png for strips of
frames side by side, or in .npz for the arrays `frames`, the given and the true ones, and
`prediction`, float32 [N, K, M, H, W, C] in [0, 1] or drawn levels. Pictures show the given and true
frames, in blue where there are none; under them each prediction, after the given frames; and, where
the truth is known, how far it is from the first one, white being far.
"""

from typing import TYPE_CHECKING

from rnngen_jax.commands import flags
from rnngen_jax.commands.base import (
    check_amount,
    check_label,
    first,
    joining,
    open_run,
    read_images,
)
from rnngen_jax.commands.flags import Chosen, Flag, Which
from rnngen_jax.config import require
from rnngen_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from rnngen_jax.runs import Run

ENDINGS = (".gif", ".webp", ".png", ".npz")
FLAGS = (
    flags.RUN,
    Flag("context", "integer", "given frames; by default config.data.context"),
    Flag("horizon", "integer", "frames to predict; by default config.data.horizon"),
    Flag("futures", "integer", "how many futures to draw; 0 for the expected frames", 0),
    flags.images(num=4),
    flags.TEMPERATURE._replace(help=f"of drawn futures: {flags.TEMPERATURE.help}"),
    flags.SEED,
    flags.OUT._replace(default="predicted.gif", help="FILE.gif, FILE.webp, FILE.png or FILE.npz"),
    flags.HOSTS,
)


@joining
def run(
    which: Which,
    context: int | None,
    horizon: int | None,
    futures: int,
    chosen: Chosen,
    temperature: float,
    seed: int,
    out: str,
) -> None:
    """Predicts frames.

    Args:
      which: the run and checkpoint.
      context, horizon: numbers of given and of predicted frames; `None` for those of the config.
      futures: how many to draw, 0 for the expected frames.
      chosen: the sequences.
      temperature: of drawn futures.
      seed: seed of the draw.
      out: the animation, picture or npz to write.

    Raises:
      UserError: an invalid flag; no such run, checkpoint or seed; sequences of another size or with
        fewer frames than are to be given; or a model that predicts or draws no frames.
    """
    chosen.check()
    require(futures >= 0, "--futures", futures, "≥ 1, or 0 for the expected frames")
    require(horizon is None or horizon >= 1, "--horizon", horizon, "≥ 1")
    require(context is None or context >= 1, "--context", context, "≥ 1")
    if temperature != 1.0 and not futures:
        raise UserError(
            f"--temperature={temperature} has no effect without drawn futures; give --futures=1."
        )
    from rnngen_jax.evaluation import pictures
    from rnngen_jax.runs import arguments

    arguments.check_seed(seed, "--seed")
    arguments.check_temperature(temperature, "--temperature")
    pictures.require_out(out, folder=False, endings=ENDINGS)
    opened = open_run(which)
    if opened.model.sequential is None:
        raise UserError(f"{opened.model.name} is no model of sequences, so it predicts no frames.")
    settings = opened.experiment.data
    given = settings.context if context is None else context
    length = settings.horizon if horizon is None else horizon
    frames, labels = _sequences(opened, chosen)
    most = frames.shape[1]
    require(given <= most, "--context", given, f"≤ {most}, the frames of {chosen.place}")
    check_amount("--num", len(frames) * (futures or 1) * length, opened.spec, out, size=4)

    import numpy as np

    options = {"labels": labels, "temperature": temperature, "drawn": futures > 0}
    each = [
        opened.predict(frames[:, :given], length, seed=seed + future, **options)
        for future in range(futures or 1)
    ]
    if not first():
        return
    levels = opened.spec.levels
    if pictures.ending(out) == ".npz":
        stored = {"frames": frames, "prediction": np.stack(each, 1), "levels": np.int32(levels)}
        pictures.write_npz(out, {**stored, "context": np.int32(given)})
    else:
        _write(out, frames, each, given, levels)
    known = min(length, frames.shape[1] - given)
    if known:
        truth = frames[:, given : given + known] / (levels - 1)
        scale = levels - 1 if futures else 1
        errors = [np.square(made[:, :known] / scale - truth).sum((2, 3, 4)).mean() for made in each]
        print(
            f"mse: {np.mean(errors):.4f} summed over a frame, {known} known frames of "
            f"{len(frames)} sequences"
        )
    print(out)


def _sequences(opened: "Run", chosen: Chosen) -> "tuple[np.ndarray, np.ndarray | None]":
    """The sequences, integers `[N, T, H, W, C]` of the model's levels, and labels for its classes.

    T is the model's own number of frames only for those of a split.
    """
    import dataclasses

    import numpy as np

    from rnngen_jax import paths
    from rnngen_jax.data.npz import read_arrays
    from rnngen_jax.evaluation import inputs

    if chosen.input is None:
        return read_images(opened, chosen)
    place = paths.reached(chosen.input)
    if place.suffix.lower() == ".npz":
        stored = read_arrays(place).get("frames")
        length = stored.shape[1] if stored is not None and stored.ndim == 5 else 1
        spec = opened.spec._replace(frames=length)
        of_length = dataclasses.replace(opened, model=opened.model._replace(spec=spec))
        return read_images(of_length, chosen)
    clip = inputs.read_clip(chosen.input, opened.spec)
    label = check_label(chosen.label, opened.model)
    if not opened.model.conditional:
        return clip[None], None
    if label is None:
        raise UserError(
            f"--input={chosen.input} has no label, and the model needs classes; "
            f"give --label, 0 to {opened.spec.classes - 1}."
        )
    return clip[None], np.full(1, label, np.int32)


def _write(
    out: str, frames: "np.ndarray", each: "list[np.ndarray]", given: int, levels: int
) -> None:
    """Writes the picture or the animation."""
    import numpy as np

    from rnngen_jax.evaluation import animations, pictures

    def pixels(made: "np.ndarray") -> "np.ndarray":
        if made.dtype.kind == "f":
            return pictures.to_pixels(pictures.to_bytes(made), 256)
        return pictures.to_pixels(made, levels)

    length = each[0].shape[1]
    before, true = pixels(frames[:, :given]), pixels(frames[:, given : given + length])
    unknown = length - true.shape[1]
    blue = np.broadcast_to(
        np.array(pictures.MISSING_COLOUR, np.uint8), (len(frames), unknown, *true.shape[2:])
    )
    rows = [np.concatenate([before, true, blue], axis=1)]
    rows += [np.concatenate([before, pixels(made)], axis=1) for made in each]
    if true.shape[1]:
        gap = np.abs(true.astype(int) - pixels(each[0])[:, : true.shape[1]]).astype(np.uint8)
        rows.append(np.concatenate([np.zeros_like(before), gap, blue], axis=1))
    if pictures.ending(out) == ".png":
        pictures.write_png(out, pictures.predictions(rows))
    else:
        animations.write_animation(out, animations.predicted(rows))
