"""Runs on the codes of another run: the tokenizer writes its codes once, and shows those drawn."""

import functools
from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np
from jax import Array

from rnngen_jax import keys
from rnngen_jax.data import codes as stored
from rnngen_jax.data.base import SPLITS, DataConfig
from rnngen_jax.data.transforms import evaluation_transform
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import sampling
from rnngen_jax.evaluation.batching import map_batches, split_batches
from rnngen_jax.evaluation.likelihood import SEED
from rnngen_jax.models.base import Batch, Extra, Params
from rnngen_jax.runs.run import Run, load
from rnngen_jax.runs.tokenizers import require_codes


def pinned(config: DataConfig, say: Callable[[str], None] = lambda line: None) -> DataConfig:
    """Data that name the digest of their codes, which are written first if they are not there.

    Other data are returned as they are. Each process encodes by itself, so that none waits for
    another.

    Args:
      config: the data.
      say: called with a line about the codes that are written.

    Raises:
      UserError: no such run, one that is no tokenizer, one whose own data are missing, codes of
        parameters that it no longer has, or a folder that cannot be written to.
    """
    where = stored.origin(config.name)
    if where is None:
        return config
    stored.check(config)
    if where.digest and stored.is_written(where):
        return config
    run = open_tokenizer(where, f"config.data.name={config.name!r}")
    where = stored.Origin(where.run, run.digest.hex())
    if not stored.is_written(where):
        arrays = {split: encoded(run, split) for split in SPLITS}
        stored.write(where, arrays, run.model.codes.spec)
        sizes = ", ".join(f"{len(found)} {split}" for split, (found, _) in arrays.items())
        say(f"codes: {sizes}, by {run.workdir} at step {run.step}; kept in {where.folder}")
    return replace(config, name=where.name)


def open_tokenizer(where: stored.Origin, asked: str) -> Run:
    """Opens the run that codes come from.

    Args:
      where: the run; with a digest, it must have those parameters.
      asked: the flag that asks for it, for messages.

    Raises:
      UserError: no such run, one that is no tokenizer, or one of other parameters.
    """
    try:
        run = load(where.run)
    except UserError as error:
        raise UserError(f"{asked}: {error}") from None
    require_codes(run, asked)
    levels = run.model.codes.names
    if len(levels) > 1:
        raise UserError(
            f"{asked}: {where.run} has two grids of codes for each image, {' and '.join(levels)}, "
            "and neither is one by itself; a prior over both is config=code_rnn with "
            f"config.tokenizer={where.run!r}."
        )
    digest = run.digest.hex()
    if where.digest and digest != where.digest:
        raise UserError(
            f"{asked}: {where.run} has trained on since, and has the digest {digest}, not "
            f"{where.digest}; give a copy of the run as it was, or train anew on codes:{where.run}."
        )
    return run


def encoded(run: Run, split: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The codes of a split's images as in evaluation: not augmented, of one binarisation.

    Args:
      run: the tokenizer's.
      split: the split.

    Returns:
      `[N, H, W, depth]` in the dtype of the codes, and labels int32 `[N]`, `None` without classes.
    """
    transform, codes = evaluation_transform(run.dataset), run.model.codes

    @jax.jit
    def encode(params: Params, extra: Extra, batch: Batch, key: Array) -> Array:
        image = transform(batch, keys.named(key, "transform"))[run.spec.key]
        return codes.encode(params, extra, image)

    key, found, labels = jax.random.key(SEED), [], []
    size = run.experiment.evaluation.batch_size
    for num, batch in split_batches(run.dataset.splits[split], size, track=run.track):
        found.append(np.asarray(encode(run.params, run.extra, batch, key))[:num])
        labels.append(batch["label"][:num])
    return np.concatenate(found), np.concatenate(labels) if codes.spec.classes else None


def decoded(
    run: Run, grids: np.ndarray, *, seed: int = 0, temperature: float = 1.0, mean: bool = False
) -> np.ndarray:
    """Images of codes.

    Args:
      run: the tokenizer's.
      grids: codes `[N, H, W, depth]`.
      seed: of the pixels drawn.
      temperature: divides logits, multiplies scales.
      mean: whether to return expected images.

    Returns:
      `[N, H, W, C]`: grey levels drawn, in the spec's dtype, or the expected ones in [0, 1],
      float32.
    """
    common = jax.random.key(seed), np.float32(temperature)
    one = _decoder(run, mean)
    size = sampling.BATCH
    return map_batches(one, run.params, run.extra, common, len(grids), size, grids, track=run.track)


@functools.lru_cache(maxsize=4)
def _decoder(run: Run, mean: bool) -> Callable[..., Array]:
    """The function of one batch, the same object for the same run, so compiled once."""
    codes, dtype = run.model.codes, run.spec.dtype

    def one(
        params: Params, extra: Extra, batch: tuple[Array, Array], common: tuple[Array, Array]
    ) -> Array:
        (number, found), (key, temperature) = batch, common
        raw = codes.raw(params, extra, found)
        if mean:
            return codes.likelihood.mean(raw)
        own = keys.named(jax.random.fold_in(key, number), "pixels")
        return codes.likelihood.draw(own, raw, temperature).astype(dtype)

    return one
