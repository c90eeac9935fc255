"""The config sections `optimizer` and `training`."""

import functools
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from rnngen_jax.config import refuse_unread, require, require_at_least, require_choice
from rnngen_jax.ops.precision import DTYPES

OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")
DECAYS = ("cosine", "linear", "exponential")
SCHEDULES = ("constant", *DECAYS)
PARALLELISMS = ("jit", "pmap")
MOST_SAMPLES = 10_000  # in one grid of samples, a hundred a side
MOST_CALLS = 10_000_000  # dispatches to the device in one run, which are listed before it starts

# Fields of `OptimizerConfig` that are read only for some values of another: (that field, values).
_READ_BY = {
    "b1": ("name", ("adam", "adamw")),
    "b2": ("name", ("adam", "adamw")),
    "decay": ("name", ("rmsprop",)),
    "eps": ("name", ("adam", "adamw", "rmsprop")),
    "momentum": ("name", ("sgd", "rmsprop")),
    "weight_decay": ("name", ("adamw",)),
    "decay_steps": ("schedule", DECAYS),
    "final_fraction": ("schedule", DECAYS),
}


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser of a model, or of its players without a section of their own.

    A field that the chosen optimiser or schedule does not read must keep its default, so that every
    setting has an effect.

    Attributes:
      name: "adam", "adamw" (Adam with decoupled weight decay), "rmsprop" or "sgd".
      learning_rate: the peak learning rate, reached after the warm-up.
      schedule: "constant", or a decay from the end of the warm-up to `decay_steps`: half a
        "cosine", "linear" or "exponential", down to `final_fraction`, which later steps keep.
      warmup_steps: the learning rate grows linearly over this many steps, of which the first
        already takes one part; 0 for no warm-up, -1 to use `warmup_fraction`.
      warmup_fraction: the warm-up's length as a fraction of the schedule's length, or under
        "constant" of the run's initial number of steps. A shorter run so has a shorter warm-up.
      decay_steps: length of the schedule in training steps, warm-up included; 0 stands for the
        run's initial number of steps. A resumed run keeps its schedule, warm-up included.
      final_fraction: the learning rate at the end of the schedule over `learning_rate`.
      b1: Adam's decay rate of the mean of gradients.
      b2: Adam's decay rate of the mean of squared gradients.
      decay: RMSProp's decay rate of the mean of squared gradients, which starts at 0.
      momentum: of SGD, and of RMSProp's scaled gradients; 0 for none.
      eps: Adam adds it to the square root of the mean of squared gradients, RMSProp under the root.
      weight_decay: AdamW's; on arrays with two or more axes, so not on biases and scales.
      l1: adds l1 · sign(w) to the gradient of arrays with two or more axes.
      l2: adds l2 · w to the gradient of arrays with two or more axes.
      clip_norm: gradients, penalties l1 and l2 included, are clipped to this global norm (over one
        player's arrays); 0 for no clipping.
      clip_weights: after each update all parameters are clipped to ± this value (Arjovsky et al.
        2017, algorithm 1); 0 for no clipping.
      updates_per_step: consecutive updates of the player in one training step, each from its own
        batch.
      private_noise: above 0, gradients are private (Abadi et al. 2016, algorithm 1): each example's
        gradient is clipped to the norm `private_clip`, and their sum gets Gaussian noise of scale
        `private_noise` times that norm.
      private_clip: the norm that each example's gradient is clipped to; see `private_noise`.
      private_delta: the δ of the ε in metrics.jsonl.
    """

    SECTION: ClassVar[str] = "config.optimizer"

    name: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_steps: int = -1
    warmup_fraction: float = 0.0
    decay_steps: int = 0
    final_fraction: float = 0.01
    b1: float = 0.9
    b2: float = 0.999
    decay: float = 0.9
    momentum: float = 0.0
    eps: float = 1e-8
    weight_decay: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    clip_norm: float = 0.0
    clip_weights: float = 0.0
    updates_per_step: int = 1
    private_noise: float = 0.0
    private_clip: float = 1.0
    private_delta: float = 1e-5

    def __post_init__(self) -> None:
        at = f"{self.SECTION}."
        require_choice(f"{at}name", self.name, OPTIMIZERS)
        require_choice(f"{at}schedule", self.schedule, SCHEDULES)
        require(self.learning_rate > 0, f"{at}learning_rate", self.learning_rate, "> 0")
        require(self.decay_steps >= 0, f"{at}decay_steps", self.decay_steps, "≥ 0")
        given, allowed = self.warmup_steps, "≥ 0, or -1 to use warmup_fraction"
        require(given >= -1, f"{at}warmup_steps", given, allowed)
        given = self.warmup_fraction
        require(0 <= given < 1, f"{at}warmup_fraction", given, "in [0, 1)")
        for name in ("b1", "b2", "decay", "momentum"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{at}{name}", value, "in [0, 1)")
        require(self.eps > 0, f"{at}eps", self.eps, "> 0")
        weights = ("weight_decay", "l1", "l2", "clip_norm", "clip_weights", "private_noise")
        require_at_least(self, self.SECTION, 0, *weights)
        require(self.updates_per_step >= 1, f"{at}updates_per_step", self.updates_per_step, "≥ 1")
        require(self.private_clip > 0, f"{at}private_clip", self.private_clip, "> 0")
        given = self.private_delta
        require(0 < given < 1, f"{at}private_delta", given, "in (0, 1)")
        given = self.final_fraction
        require(0 <= given <= 1, f"{at}final_fraction", given, "in [0, 1]")
        if self.schedule == "exponential":
            allowed = "> 0 with schedule='exponential'"
            require(given > 0, f"{at}final_fraction", given, allowed)
        self._refuse_unread()

    def resolved(self, steps: int) -> Self:
        """The section with the lengths of its schedule and warm-up, for a new run.

        Lengths that are resolved already are kept. A constant schedule has no length.

        Args:
          steps: number of training steps of the run.
        """
        length = self.decay_steps or steps
        warmup = self.warmup_steps
        if warmup < 0:
            warmup = round(self.warmup_fraction * length)
        decay_steps = length if self.schedule in DECAYS else 0
        return replace(self, decay_steps=decay_steps, warmup_steps=warmup, warmup_fraction=0.0)

    def _refuse_unread(self) -> None:
        """Raises an `UnreadError` if a field is set that the other choices leave unread."""
        at = self.SECTION
        for name, (choice, readers) in _READ_BY.items():
            if getattr(self, choice) not in readers:
                remedy = f", or set {at}.{choice} to {' or '.join(readers)}"
                refuse_unread(self, at, name, (choice,), remedy=remedy)
        if self.warmup_steps >= 0:
            remedy = f", or set {at}.warmup_steps to -1"
            refuse_unread(self, at, "warmup_fraction", ("warmup_steps",), remedy=remedy)
        if not self.private_noise:
            for name in ("private_clip", "private_delta"):
                remedy = f", or set {at}.private_noise above 0"
                refuse_unread(self, at, name, ("private_noise",), remedy=remedy)


@functools.cache
def optimizer_section(name: str) -> type[OptimizerConfig]:
    """The config class of an optimiser's section, whose errors name that section.

    Args:
      name: the section's name, such as "optimizer" or "discriminator".
    """
    path = f"config.{name}"
    if path == OptimizerConfig.SECTION:
        return OptimizerConfig
    about = f"The same as config.optimizer, for the {name} alone."
    return type(f"{name.title()}Config", (OptimizerConfig,), {"SECTION": path, "__doc__": about})


@dataclass(frozen=True)
class TrainingConfig:
    """Length, batches and schedule of training.

    Attributes:
      steps: total number of training steps.
      batch_size: images per step of one seed, over all devices and hosts.
      micro_batches: parts of a batch whose gradients are accumulated sequentially, which divides
        the memory for activations; batch statistics are those of a part.
      compute_dtype: "float32", or "bfloat16", which rounds the operands of matrix products in
        training to bfloat16, in both passes. Sums, parameters, carries, gradients and losses are
        float32 in either, and so is everything in validation, evaluation, sampling and coding. The
        strategy "newton" needs float32.
      seed: of the initial parameters, the order of the images and all noise.
      seeds: runs trained at once, with the seeds `seed`, `seed + 1` and so on and otherwise alike;
        the best checkpoint and early stopping use their mean.
      steps_per_call: steps per dispatch to the device; the numbers do not depend on it.
      ema_decay: decay of the moving average of the parameters, which is what is evaluated; at step
        t at most (1 + t) / (10 + t), so that the start is soon forgotten. 0 for no average.
      log_every: steps between lines of training metrics; a line is the mean over them.
      validate_every: steps between validations; 0 for none. The best validation so far also saves
        a checkpoint, the best one.
      checkpoint_every: steps between checkpoints; 0 for only one at the end.
      sample_every: steps between grids of samples; 0 for none.
      num_samples: images in a grid of samples, up to 10,000.
      keep: how many of the newest checkpoints stay on disk, beside the best.
      patience: training stops after this many validations in a row without improvement; 0 to never
        stop early.
      parallelism: "jit", over all devices of all hosts, or "pmap", over those of one host.
    """

    steps: int = 2000
    batch_size: int = 64
    micro_batches: int = 1
    compute_dtype: str = "float32"
    seed: int = 0
    seeds: int = 1
    steps_per_call: int = 10
    ema_decay: float = 0.0
    log_every: int = 100
    validate_every: int = 100
    checkpoint_every: int = 500
    sample_every: int = 500
    num_samples: int = 64
    keep: int = 2
    patience: int = 0
    parallelism: str = "jit"

    def __post_init__(self) -> None:
        at = "config.training."
        require_choice(f"{at}parallelism", self.parallelism, PARALLELISMS)
        require_choice(f"{at}compute_dtype", self.compute_dtype, DTYPES)
        sizes = ("batch_size", "micro_batches", "seeds", "num_samples", "keep")
        require_at_least(self, "config.training", 1, *sizes)
        require_at_least(self, "config.training", 1, "steps", "steps_per_call", "log_every")
        given, allowed = self.num_samples, f"in [1, {MOST_SAMPLES}]"
        require(given <= MOST_SAMPLES, f"{at}num_samples", given, allowed)
        cadences = ("validate_every", "checkpoint_every", "sample_every", "patience")
        require_at_least(self, "config.training", 0, *cadences)
        calls = self.steps / self.steps_per_call
        most = f"≤ {MOST_CALLS} times config.training.steps_per_call={self.steps_per_call}"
        require(calls <= MOST_CALLS, f"{at}steps", self.steps, most)
        last = 2**31 - self.seeds  # so that the last seed is below 2**31
        require(0 <= self.seed <= last, f"{at}seed", self.seed, f"in [0, {last}]")
        alone = self.seeds == 1 or self.parallelism == "jit"
        allowed = "1 unless config.training.parallelism='jit'"
        require(alone, f"{at}seeds", self.seeds, allowed)
        require(0 <= self.ema_decay < 1, f"{at}ema_decay", self.ema_decay, "in [0, 1)")
        for name in ("log_every", "validate_every", "checkpoint_every", "sample_every"):
            given, unit = getattr(self, name), self.steps_per_call
            allowed = f"a multiple of config.training.steps_per_call={unit}"
            require(given % unit == 0, f"{at}{name}", given, allowed)
        possible = self.validate_every > 0 or self.patience == 0
        require(possible, f"{at}patience", self.patience, "0 with config.training.validate_every=0")
