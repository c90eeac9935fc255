"""Tiny adversarial models with fixed parameters, and their networks written out in NumPy.

Everything in NumPy is float64. Parameters and running moments are random, biases and scales
included, so that nothing is left out unnoticed.
"""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from rnngen_jax import keys, models
from rnngen_jax.ops.augment import augment
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(4, 4, channels=1, levels=17, classes=3)
LARGE = ImageSpec(8, 8, channels=2, levels=17, classes=3)
TINY = {
    "mlp_gan": {"noise": 3, "hidden": 5, "layers": 2},
    "dcgan": {"noise": 3, "features": 2, "stages": 2},
    "gru_gan": {"noise": 3, "features": 4, "channels": 3, "cell": "rnn", "norm": "none"},
}
KEY = jax.random.key(8)
B = 4
SLOPE, EPSILON, MOMENTUM = 0.2, 1e-5, 0.9


def batch(spec=SPEC):
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, spec.levels, (B, *spec.shape), np.uint8),
        "label": np.array([0, 2, 1, 2], np.int32),
        "index": np.array([3, 11, 5, 6], np.int32),
    }


@functools.cache
def _made(name, spec, items):
    model = models.build(name, TINY[name] | dict(items), spec)
    shapes = jax.eval_shape(model.init, jax.random.key(0))

    def fill(path, leaf):
        where = jax.tree_util.keystr(path)
        rng = np.random.default_rng(zlib.crc32(where.encode()))
        if "variance" in where:
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return (0.5 * rng.standard_normal(leaf.shape)).astype(np.float32)

    params, extra = jax.tree_util.tree_map_with_path(fill, shapes)
    if "schedule" in extra:
        extra["schedule"] = jax.tree.map(np.zeros_like, extra["schedule"])
    return model, params, extra


def made(name, spec=SPEC, **fields):
    """A model, its parameters and its `extra`."""
    return _made(name, spec, tuple(fields.items()))


def wide(tree):
    """Leaves as float64."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


# Random values, from the keys that the models are documented to use.


def each_key(player, purpose, index, key=None):
    """One key per example, for one purpose."""
    return keys.per_example(keys.named(KEY if key is None else key, purpose), index)


def noise_of(each, fields, steps=1):
    """Vectors `[B, S, Z']`, categories and continuous codes from one key per image."""
    size, codes, traits = fields["noise"], fields.get("codes", 0), fields.get("traits", 0)
    found = []
    for key in each:
        of = keys.named(key, "noise")
        if fields.get("noise_kind") == "uniform":
            vectors = jax.random.uniform(of, (steps, size), minval=-1)
        else:
            vectors = jax.random.normal(of, (steps, size))
        code = int(jax.random.randint(keys.named(key, "code"), (), 0, max(codes, 1)))
        trait = jax.random.uniform(keys.named(key, "traits"), (traits,), minval=-1)
        told = np.concatenate([np.eye(max(codes, 1))[code][:codes], trait])
        found.append((np.hstack([vectors, np.tile(told, (steps, 1))]), code, trait))
    vectors, code, trait = zip(*found, strict=True)
    return np.stack(vectors).astype(np.float64), np.array(code), np.float64(np.stack(trait))


def with_class(vectors, label, classes):
    told = np.broadcast_to(np.eye(classes)[label][:, None], (*vectors.shape[:2], classes))
    return np.concatenate([vectors, told], axis=-1)


def seen(image, purpose, fields, spec=SPEC, key=None):
    """Images as shown to the discriminator, from real levels or generated images in [-1, 1]."""
    image = 2.0 * image / (spec.levels - 1) - 1 if purpose == "augment/real" else image
    policy = fields.get("augmentation", "")
    if not policy:
        return np.asarray(image, np.float64)
    each = each_key(None, purpose, batch(spec)["index"], key)
    return np.float64(augment(jnp.float32(image), each, policy))


def masks(purpose, name, rate, size, key=None):
    """Dropout masks `[B, size]`."""
    each = each_key(None, purpose, batch()["index"], key)
    kept = [jax.random.bernoulli(keys.named(one, name), 1 - rate, (size,)) for one in each]
    return np.float64(np.stack(kept)) / (1 - rate)


# Layers.


def leaky(x, slope=SLOPE):
    return np.where(x > 0, x, slope * x)


def softplus(x):
    return np.logaddexp(0, x)


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def batch_norm(p, x, label, moments=None):
    """Normalised by the batch's own moments, returned too, or by running moments."""
    axes = tuple(range(x.ndim - 1))
    mean, variance = (x.mean(axes), x.var(axes)) if moments is None else moments
    scale, bias = p["scale"], p["bias"]
    if "class_scale" in p:
        middle = (len(x), *(1,) * (x.ndim - 2), -1)
        scale = scale + p["class_scale"]["table"][label].reshape(middle)
        bias = bias + p["class_bias"]["table"][label].reshape(middle)
    return (x - mean) / np.sqrt(variance + EPSILON) * scale + bias, (mean, variance)


def moved(running, *each):
    """Running moments after updates with the moments of several batches, in turn."""
    for now in each:
        running = tuple(
            MOMENTUM * old + (1 - MOMENTUM) * new for old, new in zip(running, now, strict=True)
        )
    return running


def halve(p, x, kernel):
    """A convolution of stride 2, for even sides and even kernels."""
    size, blocks, before = x.shape[-1], kernel // 2, kernel // 2 - 1
    weights = p["kernel"].reshape(blocks, blocks, 2, 2, size, -1)
    weights = np.swapaxes(weights, 1, 2).reshape(kernel, kernel, size, -1)
    rows, columns = x.shape[1] // 2, x.shape[2] // 2
    around = np.pad(x, ((0, 0), (before, before), (before, before), (0, 0)))
    total = sum(
        around[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] @ weights[i, j]
        for i in range(kernel)
        for j in range(kernel)
    )
    return total + p["bias"]


def double(p, x, kernel):
    """The transpose: each pixel adds its multiple of the kernel to the larger map."""
    count, rows, columns, size = x.shape
    before, out = kernel // 2 - 1, p["bias"].shape[0]
    weights = p["kernel"].reshape(size, kernel, kernel, out)
    whole = np.zeros((count, 2 * rows + 2 * before, 2 * columns + 2 * before, out))
    for i in range(kernel):
        for j in range(kernel):
            whole[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] += x @ weights[:, i, j]
    return whole[:, before : before + 2 * rows, before : before + 2 * columns] + p["bias"]


def same(p, x, side=3):
    """A convolution of stride 1 with zero padding."""
    reach = side // 2
    around = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    weights = p["kernel"].reshape(side, side, x.shape[-1], -1)
    height, width = x.shape[1:3]
    return p["bias"] + sum(
        around[:, i : i + height, j : j + width] @ weights[i, j]
        for i in range(side)
        for j in range(side)
    )


def attended(p, x):
    """Self-attention (Zhang et al. 2019), pixel by pixel."""
    flat = x.reshape(len(x), -1, x.shape[-1])
    query, key, value = (flat @ p[name]["kernel"] for name in ("query", "key", "value"))
    scores = np.exp(query @ np.swapaxes(key, 1, 2))
    told = scores / scores.sum(-1, keepdims=True) @ value @ p["out"]["kernel"]
    return x + p["gamma"] * told.reshape(x.shape)


# Networks.


def mlp_generator(p, z, label, spec=SPEC, running=None):
    """Images, and the moments of each batch norm's inputs."""
    x, moments = z.reshape(len(z), -1), []
    layers = len([name for name in p if name.startswith("Dense")]) - 1
    for n in range(layers):
        x = dense(p[f"Dense_{n}"], x)
        if f"BatchNorm_{n}" in p:
            known = None if running is None else running[n]
            x, now = batch_norm(p[f"BatchNorm_{n}"], x, label, known)
            moments.append(now)
        x = leaky(x)
    return np.tanh(dense(p[f"Dense_{layers}"], x)).reshape(-1, *spec.shape), moments


def mlp_body(p, image, label, drop=None):
    """Features, the moments of each batch norm's inputs, and where each layer is above 0."""
    x, moments, above = image.reshape(len(image), -1), [], []
    for n in range(len([name for name in p if name.startswith("Dense")])):
        x = dense(p[f"Dense_{n}"], x)
        if f"BatchNorm_{n}" in p:
            x, now = batch_norm(p[f"BatchNorm_{n}"], x, label)
            moments.append(now)
        above.append(x > 0)
        x = leaky(x)
        if drop is not None:
            x = x * masks(drop[0], f"layer {n}", drop[1], x.shape[-1], drop[2])
    return x, moments, above


def mlp_slope(p, above):
    """The gradient of each image's score, `[B, D]`, of an MLP with a plain head."""
    slope = np.tile(p["score"]["kernel"][:, 0], (len(above[0]), 1))
    for n in reversed(range(len(above))):
        slope = slope * np.where(above[n], 1, SLOPE) @ p["body"][f"Dense_{n}"]["kernel"].T
    return slope


def verdict(p, body, image, label, conditioning=None):
    """Score, logits of the class and of the code, mean and log-scale of the traits."""
    if conditioning == "concat":
        shown = p["class_map"]["table"][label].reshape(*image.shape[:3], 1)
        image = np.concatenate([image, shown], axis=-1)
    features, *rest = body(p["body"], image, label)
    score = dense(p["score"], features)[:, 0]
    if conditioning == "projection":
        score = score + (features * p["class_vector"]["table"][label]).sum(-1)
    names = ("class", "code", "trait", "trait_log_scale")
    return score, {name: dense(p[name], features) for name in names if name in p}, rest


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def picked(logits, index):
    """log p of the given categories."""
    return log_softmax(logits)[np.arange(len(index)), index]


def information(said, code, traits):
    """The bound on the images' information about the codes, nats, the mean over images."""
    total = picked(said["code"], code) + np.log(said["code"].shape[-1])
    mean, log_scale = said["trait"], said["trait_log_scale"]
    density = -0.5 * ((traits - mean) / np.exp(log_scale)) ** 2 - log_scale
    density = density - 0.5 * np.log(2 * np.pi)
    return (total + (density + np.log(2)).sum(-1)).mean()


def rnn_generator(p, z, steps, shape, spec=SPEC):
    """The GRU-GAN's generator with an Elman cell; `shape` is that of its smaller map."""
    cell, h, ys = p["recurrent"]["cell"], 0.0, []
    for t in range(steps):
        x = z[:, min(t, z.shape[1] - 1)]
        h = np.tanh(
            x @ cell["input"] + h @ cell["recurrent"] + cell["bias"]
            if t
            else x @ cell["input"] + cell["bias"]
        )
        ys.append(h)
    x = dense(p["places"], np.stack(ys, axis=1))
    x = leaky(x.reshape(len(z), *shape, -1))
    for name in ("near_0", "near_1"):
        x = leaky(same(p[name], x))
    return np.tanh(double(p["image"], x, 4))


def rnn_judge(p, image, label):
    """The convolutional body of the GRU-GAN's discriminator."""
    x = leaky(halve(p["Halve_0"], image, 4))
    for name in ("near_0", "near_1"):
        x = leaky(same(p[name], x))
    x = leaky(halve(p["Halve_1"], x, 4))
    return x.reshape(len(x), -1), None


def dcgan_generator(p, z, label, kernel=4, stages=2, spec=LARGE, running=None):
    """DCGAN's generator with batch norm and attention where the parameters have them."""
    smallest = spec.height >> stages
    x = dense(p["Dense_0"], z.reshape(len(z), -1)).reshape(len(z), smallest, smallest, -1)
    for stage in range(stages):
        if f"BatchNorm_{stage}" in p:
            known = None if running is None else running[stage]
            x, _ = batch_norm(p[f"BatchNorm_{stage}"], x, label, known)
        x = leaky(x)
        if stage == stages - 1 and "SelfAttention_0" in p:
            x = attended(p["SelfAttention_0"], x)
        x = double(p[f"Double_{stage}"], x, kernel)
    return np.tanh(x)


def dcgan_body(p, image, label, kernel=4, stages=2):
    """DCGAN's discriminator's convolutions."""
    x = image
    for stage in range(stages):
        x = halve(p[f"Halve_{stage}"], x, kernel)
        if stage:
            x, _ = batch_norm(p[f"BatchNorm_{stage - 1}"], x, label)
        x = leaky(x)
        if stage == 0 and "SelfAttention_0" in p:
            x = attended(p["SelfAttention_0"], x)
    return x.reshape(len(x), -1), None


def one_iteration(weights, vectors):
    """The discriminator's kernels divided by σ after one power iteration, and its vectors."""
    after = {}
    for path, u in vectors.items():
        *above, last = path.split("/")
        holder = weights
        for name in above:
            holder = holder[name]
        matrix = holder[last]
        v = matrix @ u / np.linalg.norm(matrix @ u)
        after[path] = v @ matrix / np.linalg.norm(v @ matrix)
        holder[last] = matrix / (v @ matrix @ after[path])
    return weights, after


def blocks(images, side):
    """The mean of each block of that many pixels, repeated over the block."""
    count, height, width, channels = images.shape
    cut = images.reshape(count, height // side, side, width // side, side, channels)
    means = np.broadcast_to(cut.mean((2, 4), keepdims=True), cut.shape)
    return means.reshape(images.shape)


def grown(p, z, shares):
    """The growing generator's image before its tanh, blended from three resolutions."""
    x = leaky(dense(p["Dense_0"], z[:, 0]).reshape(B, 2, 2, -1))
    image = dense(p["image_2"], x)
    for stage, share in zip((1, 0), shares, strict=True):
        x = leaky(double(p[f"Double_{1 - stage}"], x, 4))
        low = image.repeat(2, axis=1).repeat(2, axis=2)
        image = (1 - share) * low + share * dense(p[f"image_{stage}"], x)
    return np.tanh(image)


def judged_small(p, image, shares):
    """Features of the growing discriminator."""
    x = leaky(dense(p["map_0"], image))
    for stage, share in zip((0, 1), reversed(shares), strict=True):
        x = leaky(halve(p[f"Halve_{stage}"], x, 4))
        image = blocks(image, 2)[:, ::2, ::2]
        low = leaky(dense(p[f"map_{stage + 1}"], image))
        x = (1 - share) * low + share * x
    return x.reshape(len(x), -1), None


def loss(player, model, params, extra, data=None, step=0):
    return model.losses[player](
        params, extra, batch() if data is None else data, KEY, jnp.int32(step)
    )
