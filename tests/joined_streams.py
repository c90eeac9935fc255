"""Streams as earlier versions wrote them: one for all batches, all labels before the images."""

import constriction
import jax
import numpy as np

from rnngen_jax.evaluation import coding_steps
from rnngen_jax.models.autoregressive import in_raster_order


def encode(model, params, extra, size, images, labels):
    """The stream of `images` [N, ...] in batches of `size`, each value with one table of all."""
    encoder = constriction.stream.queue.RangeEncoder()
    family = constriction.stream.model.Categorical(perfect=False)
    if labels is not None:
        uniform = constriction.stream.model.Uniform(model.spec.classes)
        encoder.encode(labels, uniform)
    programs = coding_steps.compile_stages(
        model, params, extra, size, jax.devices()[:1], coarse=False
    )
    for first in range(0, len(images), size):
        real = min(size, len(images) - first)
        rows = first + np.arange(size) * (np.arange(size) < real)
        label, before = np.zeros(size, np.int32) if labels is None else labels[rows], []
        for program in programs:
            items, width = program.values(images[rows], label), program.stage.steps.width
            known = in_raster_order(items).astype(np.int32)
            state = program.begin(label, *before)
            previous = coding_steps.no_previous(program.stage, size)
            for place in program.places:
                state, probabilities = program.step(state, previous, place)
                previous = (place.start, known[place.start : place.start + width])
                table = np.asarray(probabilities[0])[:real].reshape(-1, program.stage.spec.levels)
                encoder.encode(previous[1][:, :real].T.reshape(-1), family, table)
            before.append(items)
    return encoder.get_compressed().astype("<u4").tobytes()
