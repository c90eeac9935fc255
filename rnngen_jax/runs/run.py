"""A trained run, opened from its folder: sampling, completion, scoring and encoding."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from rnngen_jax import continuing, data, experiment, paths
from rnngen_jax.config import require
from rnngen_jax.data.base import Dataset
from rnngen_jax.data.source import array_split
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import container, likelihood, sampling
from rnngen_jax.evaluation.batching import Track, split_batches
from rnngen_jax.experiment import Experiment
from rnngen_jax.models.base import Completion, Extra, Forecast, Model, Params
from rnngen_jax.paths import Path
from rnngen_jax.runs import arguments, coding
from rnngen_jax.runs.backend import start_backend
from rnngen_jax.runs.folder import CONFIG
from rnngen_jax.shapes import ImageSpec
from rnngen_jax.training import digests
from rnngen_jax.training.checkpoints import open_checkpoints
from rnngen_jax.training.seeds import pick


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Run:
    """One checkpoint of a run, opened by `load`.

    Images in and out are grey levels in `[0, spec.levels)`, uint8 `[N, H, W, C]`, never rescaled;
    those of a binarised run are 0 and 1. Draws depend on the seed alone: the first 10 of 1,000
    samples equal the 10 samples of the same seed.

    Attributes:
      workdir: the run's folder.
      experiment: its checked config.
      model: the model, a set of pure functions (`models.base.Model`).
      params: the checkpoint's parameters (their moving average if the run keeps one), on the
        default device.
      extra: the checkpoint's state, likewise.
      step: the checkpoint's step.
      seed_index: index of the seed, counted from 0; 0 for a run of one seed.
      track: wraps each range over batches, such as a progress bar.
      identity: what the checkpoint says that it belongs to; `None` for arrays of no checkpoint.
    """

    workdir: Path
    experiment: Experiment
    model: Model
    params: Params
    extra: Extra
    step: int
    seed_index: int = 0
    track: Track = iter
    identity: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        """The folder, model, step and seed; not the parameters, which fill pages in a notebook."""
        return (
            f"Run({str(self.workdir)!r}, model={self.model.name!r}, step={self.step}, "
            f"seed_index={self.seed_index})"
        )

    @property
    def seed(self) -> int:
        """The seed that the run was trained with."""
        return self.experiment.training.seed + self.seed_index

    @property
    def spec(self) -> ImageSpec:
        """The shape, levels and classes of an image."""
        return self.model.spec

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data set that the config names; nothing else reads it.

        Raises:
          UserError: the data are missing, or no longer those that the run was trained on.
        """
        dataset = data.load(self.experiment.data)  # codes are of the digest in its name
        if dataset.spec != self.spec:
            raise UserError(
                f"config.data.name={dataset.name!r} must have the images that {self.workdir} was "
                f"trained on, {self.spec}, got {dataset.spec}."
            )
        return dataset

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol of `nats`; likelihoods of different protocols must not be compared."""
        return likelihood.ruler(self.model, self.experiment.data)

    @functools.cached_property
    def digest(self) -> bytes:
        """An 8-byte digest of the model's fields, images and parameters.

        The fields are those of the checkpoint, so that a field that was added to the project since
        leaves the digest as it was.
        """
        arrays = digests.named({"params": self.params, "extra": self.extra})
        facts = {
            "identity": self.identity or continuing.identity(self.experiment, self.spec),
            "arrays": {name: digests.describe(np.asarray(array)) for name, array in arrays.items()},
        }
        return container.digest([digests.digest(facts).encode()])

    def sample(
        self,
        num: int,
        *,
        seed: int = 0,
        labels: np.ndarray | None = None,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Draws images.

        Args:
          num: number of images, N ≥ 1.
          seed: seed of the draw, 0 to 2³¹ - 1.
          labels: classes `[N]`; by default a class-conditional model cycles through its classes.
          temperature: divides logits and multiplies scales, latents and noise.

        Returns:
          uint8 `[N, H, W, C]`.

        Raises:
          UserError: an invalid argument, or a model that cannot sample.
        """
        arguments.check_count("num", num, 1)
        arguments.check_seed(seed)
        arguments.check_temperature(temperature)
        draw = self._sampler  # refuses a model that cannot sample, before labels are checked
        if labels is None:
            labels = sampling.cycled(self.model, num)
        labels = arguments.check_labels(labels, num, self.model)
        return draw(self.params, self.extra, jax.random.key(seed), num, labels, temperature)

    def complete(
        self,
        images: np.ndarray,
        mask: np.ndarray,
        *,
        seed: int = 0,
        labels: np.ndarray | None = None,
        temperature: float = 1.0,
        candidates: int | None = None,
    ) -> np.ndarray:
        """Draws the unknown pixels of images, given the known ones.

        Args:
          images: grey levels `[N, H, W, C]`.
          mask: bool `[N, H, W]` or `[H, W]`, true where a pixel is known.
          seed: seed of the draw.
          labels: classes `[N]` of a class-conditional model.
          temperature: as for `sample`.
          candidates: draws among which each completion is chosen by importance weight; by default
            1, 8 per round for a latent-variable model, or 64 for a model of codes.

        Returns:
          uint8 `[N, H, W, C]`, with the known pixels unchanged.

        Raises:
          UserError: an invalid argument, or a model that cannot complete images.
        """
        images = arguments.check_images(images, self.spec)
        known = arguments.check_mask(mask, len(images), self.spec)
        labels = arguments.check_labels(labels, len(images), self.model)
        arguments.check_seed(seed)
        arguments.check_temperature(temperature)
        if candidates is not None:
            arguments.check_count("candidates", candidates, 1)
        complete = self._completer(candidates)
        key = jax.random.key(seed)
        return complete(self.params, self.extra, key, images, known, labels, temperature).image

    def nats(
        self, images: np.ndarray, *, labels: np.ndarray | None = None, iw_samples: int = 0
    ) -> np.ndarray:
        """The negative log-likelihood of each image, by this run's `protocol`.

        Divide by `spec.dims` and log 2 for bits per dimension.

        Args:
          images: grey levels `[N, H, W, C]`.
          labels: classes `[N]` of a class-conditional model.
          iw_samples: draws of the importance-weighted bound of a latent-variable model; 0 for its
            ELBO.

        Returns:
          float64 `[N]`, nats.

        Raises:
          UserError: an invalid argument, or a model without a likelihood or without that bound.
        """
        arguments.check_count("iw_samples", iw_samples, 0)
        score = self._scorer(iw_samples)
        images = arguments.check_images(images, self.spec)
        labels = arguments.check_labels(labels, len(images), self.model)
        return likelihood.nats_of_each(
            score,
            self.params,
            self.extra,
            split_batches(
                array_split(images, labels),
                self.experiment.evaluation.batch_size,
                track=self.track,
            ),
        )

    def encode(self, images: np.ndarray, *, labels: np.ndarray | None = None) -> np.ndarray:
        """The posterior means of the latents of images.

        Args:
          images: grey levels `[N, H, W, C]`.
          labels: classes `[N]` of a class-conditional model.

        Returns:
          float32 `[N, S, Z]`: Z variables in each of S steps.

        Raises:
          UserError: an invalid argument, or a model without latents.
        """
        encode = self._encoder
        images = arguments.check_images(images, self.spec)
        labels = arguments.check_labels(labels, len(images), self.model)
        return encode(self.params, self.extra, images, labels)

    def decode(self, latents: np.ndarray, *, labels: np.ndarray | None = None) -> np.ndarray:
        """The expected images of latents.

        Args:
          latents: float `[N, S, Z]`.
          labels: classes `[N]` of a class-conditional model.

        Returns:
          float32 `[N, H, W, C]` in [0, 1].

        Raises:
          UserError: an invalid argument, or a model without latents.
        """
        decode, shape = self._decoder, self.model.latent.shape
        latents = np.asarray(latents, np.float32)
        if latents.shape[1:] != shape or not latents.size:
            raise UserError(f"latents must be of shape {('N', *shape)}, got {latents.shape}.")
        labels = arguments.check_labels(labels, len(latents), self.model)
        return decode(self.params, self.extra, latents, labels)

    def compress(
        self, images: np.ndarray, *, labels: np.ndarray | None = None, lossy: bool = False
    ) -> bytes:
        """Compresses images, to the content of a .rnn file.

        Args:
          images: grey levels `[N, H, W, C]`.
          labels: classes `[N]` of a class-conditional model, which are stored, too.
          lossy: whether to keep the codes alone, of a model that has them.

        Raises:
          UserError: an invalid argument, or a model that cannot compress, or not with loss.
          RunError: probabilities that are not finite.
        """
        coding.model_coded(self.model, lossy)
        images = arguments.check_images(images, self.spec)
        labels = arguments.check_labels(labels, len(images), self.model)
        return coding.compress(self, images, labels, loss=lossy).whole

    def decompress(self, whole: bytes) -> tuple[np.ndarray, np.ndarray | None]:
        """The inverse of `compress`: bit for bit, or with loss the expected images, rounded.

        Args:
          whole: the content of a .rnn file.

        Returns:
          Grey levels `[N, H, W, C]` and, if they are stored, labels int32 `[N]`, else `None`.

        Raises:
          UserError: the content is damaged, or another model's.
          RunError: it cannot be decoded here, as floating point differs from the machine that made
            it.
        """
        name = "the compressed content"
        found = coding.decompress(self, container.unpack(whole, name), name)
        return found.images, found.labels

    def predict(
        self,
        frames: np.ndarray,
        horizon: int,
        *,
        drawn: bool = False,
        seed: int = 0,
        labels: np.ndarray | None = None,
        temperature: float = 1.0,
    ) -> np.ndarray:
        """Predicts the frames that follow given ones.

        Args:
          frames: grey levels `[N, T, H, W, C]` of T ≥ 1 given frames, as many as one likes.
          horizon: number of frames to predict, M ≥ 1; it may be longer than in training.
          drawn: draws frames, each given those drawn before it; by default frames are the expected
            ones, each given the expected ones before it.
          seed: seed of the draw; another one is another future.
          labels: classes `[N]` of a class-conditional model.
          temperature: of drawn frames, as for `sample`.

        Returns:
          float32 `[N, M, H, W, C]` in [0, 1]; of drawn frames grey levels, in `spec.dtype`.

        Raises:
          UserError: an invalid argument, a model of still images, or one that cannot draw.
        """
        arguments.check_count("horizon", horizon, 1)
        arguments.check_seed(seed)
        arguments.check_temperature(temperature)
        forecast = self._forecaster(horizon, "sample" if drawn else "mean")
        frames = np.asarray(frames)
        length = frames.shape[1] if frames.ndim >= 2 else 0
        frames = arguments.check_images(frames, self.spec._replace(frames=max(length, 1)))
        labels = arguments.check_labels(labels, len(frames), self.model)
        key = jax.random.key(seed)
        found = forecast(self.params, self.extra, key, frames, labels, temperature)
        return found.frames if drawn else found.mean

    # Each is compiled once, at the first call.

    @functools.cached_property
    def _forecaster(self) -> Callable[[int, str], Callable[..., Forecast]]:
        return functools.cache(
            lambda horizon, fed: sampling.forecaster(self.model, horizon, fed, self.track)
        )

    @functools.cached_property
    def _sampler(self) -> sampling.Sampler:
        return sampling.sampler(self.model, self.track)

    @functools.cached_property
    def _completer(self) -> Callable[[int | None], Callable[..., Completion]]:
        return functools.cache(
            lambda candidates: sampling.completer(self.model, self.track, candidates)
        )

    @functools.cached_property
    def _encoder(self) -> Callable[..., np.ndarray]:
        return sampling.encoder(self.model, self.track)

    @functools.cached_property
    def _decoder(self) -> Callable[..., np.ndarray]:
        return sampling.decoder(self.model, self.track)

    @functools.cached_property
    def _scorer(self) -> Callable[[int], likelihood.Score]:
        return functools.cache(
            lambda samples: likelihood.scorer(self.model, lambda batch, key: batch, samples)
        )


def load(
    workdir: str | os.PathLike[str],
    checkpoint: str | int | None = None,
    *,
    seed_index: int = 0,
    track: Track = iter,
) -> Run:
    """Opens a run: its config, model and a checkpoint's parameters; not its training data.

    Args:
      workdir: the run's folder, local or gs://BUCKET/NAME.
      checkpoint: "best", "latest", a step, or `None` for the best if the run has been validated,
        else the latest.
      seed_index: index of the seed in a run of several, counted from 0.
      track: wraps each range over batches, such as a progress bar.

    Raises:
      UserError: no such run, checkpoint or seed, a checkpoint of another model, or a bucket that
        cannot be reached.
      RunError: JAX cannot start a device.
    """
    (run,) = load_each(workdir, checkpoint, [seed_index], track=track)
    return run


def load_each(
    workdir: str | os.PathLike[str],
    checkpoint: str | int | None = None,
    which: Iterable[int] | None = None,
    *,
    track: Track = iter,
) -> list[Run]:
    """Opens several seeds of a run, by default all of them; they share a model.

    Args:
      workdir, checkpoint, track: as for `load`.
      which: indices of the seeds, counted from 0.

    Raises:
      UserError, RunError: as `load`.
    """
    folder = paths.reached(workdir)
    settings = experiment.from_json(folder / CONFIG)
    seeds = settings.training.seeds
    chosen = list(range(seeds)) if which is None else list(which)
    for seed_index in chosen:
        allowed = "0, as the run has one seed" if seeds == 1 else f"in [0, {seeds - 1}]"
        require(0 <= seed_index < seeds, "--seed_index", seed_index, allowed)
    start_backend()
    with open_checkpoints(folder / "checkpoints") as checkpoints:
        step = checkpoints.find(checkpoint if checkpoint is not None else checkpoints.default())
        stored = checkpoints.meta(step)["identity"]
        spec = ImageSpec(**stored["spec"])
        model = experiment.build(settings, spec)
        identity = continuing.identity(settings, spec)
        defaults = continuing.defaults(settings)
        found = checkpoints.restore_evaluated(step, model, identity, seeds, defaults)

    def of(seed_index: int) -> Run:
        arrays = pick((found.params, found.extra), seed_index, seeds)
        params, extra = jax.device_put(arrays)
        return Run(folder, settings, model, params, extra, found.step, seed_index, track, stored)

    return list(map(of, chosen))
