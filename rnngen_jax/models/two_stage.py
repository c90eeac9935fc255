"""Two stages as one model: a trained tokenizer, frozen, and a prior over its codes.

The tokenizer's parameters are in `extra`, so that a checkpoint is whole without its run. Trained is
the prior alone: its loss is that of the codes. Beside its own, the bound is known under two simple
priors: `uniform`, all codes equally likely, and `unigram`, how frequent each code was at its depth
among the training images that the prior has seen. The trained prior's own is called `recurrent`,
whatever its layers are.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.models.base import Aux, Batch, Extra, Model, Params
from rnngen_jax.models.codes import Prior, coded_model, uniform
from rnngen_jax.models.frozen import Frozen, kept
from rnngen_jax.ops import batch as over_batch
from rnngen_jax.ops import precision


def two_stage(tokenizer: Model, prior: Model, frozen: Frozen | None = None) -> Model:
    """Builds the model.

    Args:
      tokenizer: a model with `codes`.
      prior: a model of its grids of codes, with `steps`.
      frozen: the tokenizer's arrays, those that its codes need; `None` where they come from a
        checkpoint, as for `models.frozen.kept`.
    """
    codes, spec = tokenizer.codes, tokenizer.spec
    grid = codes.spec
    even = uniform(grid)

    def init(key: Array) -> tuple[Params, Extra]:
        params, _ = prior.init(key)
        own = kept(lambda key: codes.needs(*tokenizer.init(key)), frozen, key)
        counts = jnp.zeros((grid.channels, grid.levels))
        return params, {"tokenizer": own, "counts": counts}

    def of_tokenizer(params: Params, extra: Extra) -> tuple[Params, Extra]:
        del params
        return extra["tokenizer"]["params"], extra["tokenizer"]["extra"]

    def loss(
        params: Params, extra: Extra, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        """The prior's loss on the codes of a batch; their counts are added up for the unigram."""
        # The codes are those of evaluation, whatever the prior is computed in.
        with precision.unrounded():
            found = codes.encode(*of_tokenizer(params, extra), batch[spec.key])
        found = jax.lax.stop_gradient(found)
        of_codes = {grid.key: found, "label": batch["label"], "index": batch["index"]}
        value, aux = prior.losses["model"](params, {}, of_codes, key, step)
        flat = found.reshape(-1, grid.channels).astype(jnp.int32)
        own = jax.nn.one_hot(flat, grid.levels).sum(0)
        counts = extra["counts"] + over_batch.sum_over_devices(own)
        nats = aux.metrics["nats_per_image"]
        metrics = {"code_nats": nats, "bits_per_code": nats / (grid.dims * math.log(2))}
        return value, Aux(metrics, {**extra, "counts": counts})

    def unigram(params: Params, extra: Extra, batch: Batch) -> Array:
        """log p(c), `[B]`: codes independent, with one added to each count."""
        del params
        more = extra["counts"] + 1
        log_p = jnp.log(more) - jnp.log(more.sum(-1, keepdims=True))
        flat = batch[grid.key].reshape(-1, grid.height * grid.width, grid.channels)
        each = log_p[jnp.arange(grid.channels), flat.astype(jnp.int32)]
        return each.sum((1, 2))

    def log_uniform(params: Params, extra: Extra, batch: Batch) -> Array:
        return even.log_prob(params, extra, batch, None)

    def log_recurrent(params: Params, extra: Extra, batch: Batch) -> Array:
        del extra
        return prior.log_prob(params, {}, batch, _no_key())

    return coded_model(
        prior.name,
        init,
        {"model": loss},
        codes,
        of_tokenizer,
        Prior(prior, lambda params, extra: params),
        "VQ bound, recurrent prior",
        {"uniform": log_uniform, "unigram": unigram, "recurrent": log_recurrent},
    )


def _no_key() -> Any:
    """For a prior whose likelihood is exact and draws nothing."""
    return jax.random.key(0)
