"""Two stages as one model: a trained tokenizer, frozen, and a prior over its codes.

The tokenizer's parameters are in `extra`, so that a checkpoint is whole without its run. Trained is
the prior alone: its loss is that of the codes. Beside its own, the bound is known under two simple
priors: `uniform`, all codes equally likely, and `unigram`, how frequent each code was at its depth
and level among the training images that the prior has seen. The trained prior's own is called
`recurrent`, whatever its layers are.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax.models.base import Aux, Batch, Extra, Model, Params
from rnngen_jax.models.codes import SCORES, coded_model
from rnngen_jax.models.frozen import Frozen, kept
from rnngen_jax.models.levels import packed
from rnngen_jax.models.uniform_prior import Prior, uniform_prior
from rnngen_jax.ops import batch as over_batch
from rnngen_jax.ops import precision
from rnngen_jax.shapes import IMAGE


def two_stage(tokenizer: Model, prior: Model, frozen: Frozen | None = None) -> Model:
    """Builds the model.

    Args:
      tokenizer: a model with `codes`.
      prior: a model of its grids of codes, with `steps`, or `stages` of several levels.
      frozen: the tokenizer's arrays, those that its codes need; `None` where they come from a
        checkpoint, as for `models.frozen.kept`.
    """
    codes, spec = tokenizer.codes, tokenizer.spec
    even = uniform_prior(codes.specs)

    def init(key: Array) -> tuple[Params, Extra]:
        params, _ = prior.init(key)
        own = kept(lambda key: codes.needs(*tokenizer.init(key)), frozen, key)
        counts = packed([jnp.zeros((grid.channels, grid.levels)) for grid in codes.specs])
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
        of_codes = {IMAGE: found, "label": batch["label"], "index": batch["index"]}
        value, aux = prior.losses["model"](params, {}, of_codes, key, step)
        own = over_batch.sum_over_devices(jax.tree.map(counted, found, extra["counts"]))
        counts = jax.tree.map(jnp.add, extra["counts"], own)
        nats = aux.metrics["nats_per_image"]
        metrics = dict(zip(SCORES, (nats, nats / (codes.dims * math.log(2))), strict=True))
        for level in filter(None, codes.names):
            metrics[f"{level}/code_nats"] = aux.metrics[f"{level}/nats_per_image"]
        return value, Aux(metrics, {**extra, "counts": counts})

    def counted(grid: Array, counts: Array) -> Array:
        """How often a batch has each code at each depth, `[depth, K]`."""
        flat = grid.reshape(-1, grid.shape[-1]).astype(jnp.int32)
        return jax.nn.one_hot(flat, counts.shape[-1]).sum(0)

    def unigram(params: Params, extra: Extra, batch: Batch) -> Array:
        """log p(c), `[B]`: codes independent, with one added to each count."""
        del params

        def of_level(grid: Array, counts: Array) -> Array:
            more = counts + 1
            log_p = jnp.log(more) - jnp.log(more.sum(-1, keepdims=True))
            flat = grid.reshape(grid.shape[0], -1, grid.shape[-1])
            each = log_p[jnp.arange(grid.shape[-1]), flat.astype(jnp.int32)]
            return each.sum((1, 2))

        each = jax.tree.leaves(jax.tree.map(of_level, batch[IMAGE], extra["counts"]))
        return functools.reduce(jnp.add, each)

    def log_uniform(params: Params, extra: Extra, batch: Batch) -> Array:
        return even.model.log_prob(even.params(params, extra), extra, batch, None)

    return coded_model(
        prior.name,
        init,
        {"model": loss},
        codes,
        of_tokenizer,
        Prior(prior, lambda params, extra: params),
        "VQ bound, recurrent prior",
        {"uniform": log_uniform, "unigram": unigram, "recurrent": None},
    )
