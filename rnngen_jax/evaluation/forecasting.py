"""How well a model predicts the frames of a split's sequences, in the terms of several protocols.

All figures are of expected frames, each of which is given the expected ones before it, after the
context of true frames. They are no likelihoods.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnngen_jax import keys
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation.batching import Batches
from rnngen_jax.evaluation.likelihood import SEED, Transform
from rnngen_jax.evaluation.similarity import WINDOW, uniform_ssim
from rnngen_jax.evaluation.spread import spread
from rnngen_jax.models.base import Batch, Extra, Model, Params
from rnngen_jax.shapes import ImageSpec

FUTURES = 10  # draws per sequence of a stochastic model
# The range R of SSIM: ours; that of float images of unknown range, as in OpenSTL; of bytes.
RANGES = {"strict": 1.0, "openstl": 2.0, "predrnn": 255.0, "vpn": 1.0}
PROTOCOLS = tuple(RANGES)

Measures = dict[str, Array]  # of each sequence and frame, `[B, M]`, or `[B, T]`
Look = Callable[[Params, Extra, Batch, Array], Measures]


class Forecasts(NamedTuple):
    """How well a split's frames are predicted.

    Attributes:
      means: the mean over sequences of each measure at each frame, `[M]`, or `[T]` for `nats`.
      errors: their standard errors over sequences.
      totals: the mean over frames and sequences, and its standard error over sequences.
      context, horizon: numbers of given and of predicted frames.
    """

    means: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    totals: dict[str, tuple[float, float]]
    context: int
    horizon: int

    def metrics(self) -> dict[str, float]:
        """Scalars by name, for evaluation.json; `mse` and others over the predicted frames."""
        found = {}
        for name, (mean, error) in self.totals.items():
            if name != "nats_per_frame":
                found[name], found[f"{name}_error"] = mean, error
        return found

    def arrays(self) -> dict[str, Any]:
        """The curves over frames as lists, for evaluation.json."""
        curves = {name: mean.tolist() for name, mean in self.means.items()}
        errors = {f"{name}_error": error.tolist() for name, error in self.errors.items()}
        return {"context": self.context, "horizon": self.horizon, **curves, **errors}


def looker(
    model: Model, transform: Transform, lengths: tuple[int, int], protocol: str = "strict"
) -> Look:
    """The jitted `look(params, extra, batch, key)` that `measure` calls.

    Its measures, by sequence and frame: `mse`, the squared error of values in [0, 1] summed over a
    frame's pixels, of the prediction and, as `mse_copy_last`, of the last given frame; `psnr` in
    dB; `ssim` for frames of 7x7 pixels or more; `soft_cross_entropy`, Bernoulli with grey levels as
    probabilities, nats per frame; all these again, as `mse_teacher_forced` and so on, of frames
    expected given the true ones before; `nats_per_frame`, the negative log-likelihood of each of
    the T frames given the true ones before it, where there is a likelihood. Of a stochastic model
    the mean over `FUTURES` draws, and `mse_best_of_k`.

    Args:
      model: a model of frames.
      transform: of the data, as in evaluation.
      lengths: numbers of given and of predicted frames.
      protocol: one of `PROTOCOLS`: the range of SSIM; for "openstl" `mse` of predictions that are
        not clipped to [0, 1]; and for "predrnn" PSNR and SSIM of bytes.

    Raises:
      UserError: a model of still images.
    """
    sequential = model.sequential
    if sequential is None:
        raise UserError(f"{model.name} is no model of sequences, so it predicts no frames.")
    context, horizon = lengths
    spec = model.spec

    def unit(frames: Array) -> Array:
        return frames.astype(jnp.float32) / (spec.levels - 1)

    def look(params: Params, extra: Extra, batch: Batch, key: Array) -> Measures:
        batch = transform(batch, keys.named(key, "transform"))
        frames, label = batch[spec.key], batch["label"]
        given, truth = frames[:, :context], unit(frames[:, context : context + horizon])

        def expected(key: Array, given: Array, label: Array) -> Array:
            made = sequential.forecast(params, extra, key, given, horizon, label, 1.0, "mean")
            return made.mean

        def drawn(key: Array) -> Measures:
            """Of one future; a sequence's is the same in any batch."""
            own = keys.per_example(key, batch["index"])
            made = jax.vmap(expected)(own, given[:, None], label[:, None])[:, 0]
            return compared(made, truth, spec, protocol)

        own = keys.named(key, "forecast")
        if sequential.stochastic:
            each = jax.lax.map(drawn, jax.random.split(own, FUTURES))
            found = jax.tree.map(lambda x: x.mean(0), each)
            best = jnp.argmin(each["mse"].mean(-1), axis=0)  # of the whole horizon
            found["mse_best_of_k"] = jnp.take_along_axis(each["mse"], best[None, :, None], 0)[0]
        else:
            found = compared(expected(own, given, label), truth, spec, protocol)
        last = unit(frames[:, context - 1 : context]) if context else jnp.zeros_like(truth[:, :1])
        last = jnp.broadcast_to(last, truth.shape)
        found["mse_copy_last"] = compared(last, truth, spec, protocol)["mse"]
        forced = sequential.teacher_forced(params, extra, batch, keys.named(key, "log_prob"))
        forced = forced[:, context : context + horizon]
        for name, figures in compared(forced, truth, spec, protocol).items():
            found[f"{name}_teacher_forced"] = figures
        if sequential.log_probs is not None:
            own = keys.named(key, "log_prob")
            found["nats_per_frame"] = -sequential.log_probs(params, extra, batch, own)
        return found

    return jax.jit(look)


def compared(made: Array, truth: Array, spec: ImageSpec, protocol: str) -> Measures:
    """The measures of frames `[B, M, H, W, C]` in [0, 1] beside the true ones, each `[B, M]`."""
    raw, made = made, jnp.clip(made, 0.0, 1.0)
    # OpenSTL takes the squared error before it clips (`metric`, openstl/core/metrics.py).
    error = _summed(jnp.square((raw if protocol == "openstl" else made) - truth))
    values = spec.height * spec.width * spec.channels
    inside = jnp.clip(made, 1e-7, 1 - 1e-7)
    entropy = -_summed(truth * jnp.log(inside) + (1 - truth) * jnp.log1p(-inside))
    if protocol == "predrnn":
        # Bytes are for PSNR and SSIM alone (`test`, core/trainer.py), as `np.uint8` makes them: cut
        # off, not rounded. 1e-3 keeps what is a byte already from falling to the one below.
        made, truth = (jnp.floor(255 * x + 1e-3) / 255 for x in (made, truth))
    psnr = -10 * jnp.log10(jnp.maximum(_summed(jnp.square(made - truth)) / values, 1e-10))
    found = {"mse": error, "psnr": psnr, "soft_cross_entropy": entropy}
    if min(spec.height, spec.width) >= WINDOW:
        unit = 255.0 if protocol == "predrnn" else 1.0
        found["ssim"] = uniform_ssim(unit * made, unit * truth, RANGES[protocol])
    return found


def measure(
    look: Look, params: Params, extra: Extra, batches: Batches, lengths: tuple[int, int]
) -> Forecasts:
    """Measures each sequence of a split exactly once; sums are float64 on the host.

    Args:
      look: from `looker`.
      params, extra: the model's parameters and state.
      batches: from `split_batches`; their size does not change the numbers.
      lengths: those of `look`.
    """
    key, rows = jax.random.key(SEED), {}
    for num, found in spread(look)(params, extra, batches, key):
        for name, array in found.items():
            rows.setdefault(name, []).append(np.asarray(array, np.float64)[:num])
    each = {name: np.concatenate(parts) for name, parts in rows.items()}
    return Forecasts(
        {name: rows.mean(0) for name, rows in each.items()},
        {name: _error(rows) for name, rows in each.items()},
        {name: (float(rows.mean()), float(_error(rows.mean(1)))) for name, rows in each.items()},
        *lengths,
    )


def _summed(x: Array) -> Array:
    """Sums over a frame's values, `[B, M, H, W, C]` to `[B, M]`."""
    return x.sum((2, 3, 4))


def _error(rows: np.ndarray) -> np.ndarray:
    """The standard error of the mean over rows; 0 of a single one."""
    num = len(rows)
    return rows.std(0, ddof=1) / np.sqrt(num) if num > 1 else np.zeros(rows.shape[1:])
