"""Completion with latent-variable models: Gibbs sampling of latents and unknown values.

The target is p(z, u | k), of the latents z and the unknown values u given the known values k, where
p is the distribution of `sample` at the same temperature. Each round has two steps, both of which
leave the target invariant:

1. z given x = (k, u), by multiple-try Metropolis (`ops.resampling.multiple_try`). Draws of q(z|x),
   which are independent of the current z given an intermediate point (`ops.resampling.around`), and
   the current z are weighted by p(x|z) p(z) / q(z|x). Mattei and Frellsen 2018, section 3.3, use
   one independent draw. The weights are for all of x: weights for k alone would have p(z|k) as the
   target, which is invalid here, since the draws depend on u, and u on the current z.
2. u given z and k. Values that are independent given z are drawn directly. An autoregressive
   decoder draws each unknown value given the values before it: such draws and the current u are
   weighted by the probability of the known values, each given those before it, again with
   multiple-try Metropolis.

From noise it would take hundreds of rounds to approach the target. The first rounds are therefore a
search, after Rezende et al. 2014, appendix F: z is chosen among several draws of q(z|x) by their
weights for k alone, and the previous state is discarded. The search ends at images that are too
likely; the remaining rounds start from there.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from rnngen_jax import keys
from rnngen_jax.models.base import Completion, Given, Params, Scalar, completer
from rnngen_jax.models.latent_networks import Inference, Network, log_ratio
from rnngen_jax.ops import gaussians, resampling
from rnngen_jax.ops.gaussians import Pick
from rnngen_jax.ops.likelihoods import PixelLikelihood
from rnngen_jax.shapes import ImageSpec

ROUNDS = 40
SEARCH = 10  # the first rounds, which search
CANDIDATES = 8  # default number of draws to choose from in each step
AT_ONCE = 16  # draws that are made in parallel, to limit memory

METHOD = f"{ROUNDS} rounds of Gibbs sampling"


def gibbs(
    network: Network,
    likelihood: PixelLikelihood,
    spec: ImageSpec,
    shape: tuple[int, int],
    log_prior: Callable[..., Array],
) -> Callable[..., Completion]:
    """`Model.complete` of a latent-variable model.

    Args:
      network: the encoder and the decoder.
      likelihood: the distribution of a value, given its raw outputs.
      spec: the images.
      shape: (S, Z) of the latents.
      log_prior: `log_prior(params, latents, label, temperature) -> [B, S, Z]`, nats, up to a
        constant.
    """

    def complete(
        params: Params, key: Array, given: Given, label: Array, temperature: Scalar, candidates: int
    ) -> Completion:
        num, image, known = label.shape[0], given.image.astype(jnp.int32), given.known
        given, visible = Given(image, known), known[..., None]

        def log_p(raw: Array, values: Array, where: Array) -> Array:
            each = likelihood.log_prob(raw, values, temperature)
            return jnp.where(where, each, 0.0).sum((1, 2, 3))

        def new_latents(
            key: Array, latents: Array, current: Array, searches: Array
        ) -> tuple[Array, Array]:
            """Step 1: latents, and whether each image's are new."""

            def infer(noise: Array, pick: Pick) -> tuple[Inference, Array]:
                found = network.infer(params, current, label, noise, None, pick)
                weight = log_p(found.raw, current, visible | ~searches)
                log_p_z = log_prior(params, found.latents, label, temperature)
                return found, weight + log_ratio(found, log_p_z)

            def draw(noise: Array) -> tuple[Array, Array]:
                found, weight = infer(noise, gaussians.reparameterised)
                return found.latents, weight

            own, weight = infer(latents, lambda posterior, latents: latents)
            near = jax.random.uniform(keys.named(key, "near"), (num, 1, 1))
            noise = resampling.around(
                keys.named(key, "noise"),
                gaussians.standardised(own.posterior, latents),
                jnp.where(searches, 0.0, near),
                candidates,
            )
            weight = jnp.where(searches, -jnp.inf, weight)
            return _chosen(keys.named(key, "which"), latents, weight, draw, noise)

        def new_values(key: Array, latents: Array, current: Array, searches: Array) -> Array:
            """Step 2: the image with new unknown values."""

            def choose(key: Array, raw: Array) -> Array:
                return likelihood.draw(key, raw, temperature)

            def draw(key: Array, fixed: Given) -> tuple[Array, Array]:
                raw, drawn = network.draw(params, latents, label, key, choose, fixed)
                return drawn, log_p(raw, image, visible)

            if not network.autoregressive:
                return draw(key, given)[0]
            _, weight = draw(key, Given(current, jnp.ones_like(known)))
            weight = jnp.where(searches, -jnp.inf, weight)
            drawing, which = jax.random.split(key, candidates), keys.named(key, "which")
            return _chosen(which, current, weight, lambda key: draw(key, given), drawing)[0]

        def one_round(
            state: tuple[Array, Array], each: tuple[Array, Array]
        ) -> tuple[tuple[Array, Array], Array]:
            (latents, current), (key, searches) = state, each
            latents, moved = new_latents(keys.named(key, "latents"), latents, current, searches)
            current = new_values(keys.named(key, "values"), latents, current, searches)
            return (latents, current), moved

        unknown = jax.random.randint(keys.named(key, "first"), image.shape, 0, spec.levels)
        first = jnp.zeros((num, *shape)), jnp.where(visible, image, unknown)
        rounds = jax.random.split(key, ROUNDS), jnp.arange(ROUNDS) < SEARCH
        (_, completed), moved = jax.lax.scan(one_round, first, rounds)
        return Completion(completed.astype(jnp.uint8), moved=moved[SEARCH:].mean(0))

    return completer(complete, candidates=CANDIDATES)


def _chosen(
    key: Array,
    current: Array,
    weight: Array,
    draw: Callable[[Array], tuple[Array, Array]],
    sources: Array,
) -> tuple[Array, Array]:
    """The current state or one of the draws, by a multiple-try Metropolis step.

    Args:
      key: a random key.
      current: `[B, ...]`, of log-weight `weight`, `[B]`.
      draw: makes another state and its log-weight from a source.
      sources: `[K, ...]`.

    Returns:
      The states `[B, ...]`, and which of them are drawn, bool `[B]`.
    """
    drawn, weights = jax.lax.map(draw, sources, batch_size=min(len(sources), AT_ONCE))
    which, taken = resampling.multiple_try(key, weight, weights)
    there = drawn[which, jnp.arange(len(current))]
    return jnp.where(taken.reshape(-1, *[1] * (current.ndim - 1)), there, current), taken
