"""Experiments: config sections with their defaults and checks, and config.json."""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from rnngen_jax import models, paths
from rnngen_jax.config import UnreadError, from_mapping, nearest, require, to_mapping
from rnngen_jax.data import codes as stored
from rnngen_jax.data.base import DataConfig
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation.likelihood import EvaluationConfig
from rnngen_jax.files import read_regular, replacing
from rnngen_jax.models import levels
from rnngen_jax.models.base import Model
from rnngen_jax.models.codes import of_grids
from rnngen_jax.models.frozen import Frozen, Perceptual
from rnngen_jax.models.two_stage import two_stage
from rnngen_jax.shapes import ImageSpec
from rnngen_jax.training.config import OptimizerConfig, TrainingConfig, optimizer_section

# Sections of every experiment; `model` and the sections of its players depend on the model.
SECTIONS = {"data": DataConfig, "training": TrainingConfig, "evaluation": EvaluationConfig}

# Fields in no section: folders of other runs whose models are part of a run's, and what a model is
# that has none of that kind. Beside each is the digest of that run's parameters.
BORROWED = {"tokenizer": "no prior over codes", "perceptual": "no model with a perceptual loss"}
TOP = tuple(field + part for field in BORROWED for part in ("", "_digest"))

MOST_BYTES = 2**20  # largest config.json


@dataclass(frozen=True)
class Experiment:
    """A checked config.

    Attributes:
      name: the model's name, a file in `rnngen_jax/models`.
      model: that file's `Config`.
      data, training, evaluation: the sections of every experiment.
      optimizer_sections: the sections that train the model's players, such as "optimizer", by name.
      tokenizer: for a prior over codes, the folder of the run that gives them; empty to train one
        in the run's own folder first, with the section of the tokenizer's model.
      tokenizer_digest: the digest of that run's parameters, which training sets.
      tokenizer_model: the tokenizer's model, which names its section; empty for other models.
      codes: the tokenizer's `Config`; `None` for other models.
      perceptual: for a model with a perceptual loss, the folder of the run of the classifier whose
        activations it compares; empty without that loss.
      perceptual_digest: the digest of that run's parameters, which training sets.
      judge: the classifier's `Config`, which training sets; `None` without one.
    """

    name: str
    model: Any
    data: DataConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    optimizer_sections: Mapping[str, OptimizerConfig]
    tokenizer: str = ""
    tokenizer_digest: str = ""
    tokenizer_model: str = ""
    codes: Any = None
    perceptual: str = ""
    perceptual_digest: str = ""
    judge: Any = None

    @property
    def optimizers(self) -> dict[str, OptimizerConfig]:
        """The section that trains each player, by player, in the order of their updates."""
        players = models.players(self.name)
        return {player: self.optimizer_sections[name] for player, name in players.items()}

    @property
    def sections(self) -> dict[str, Any]:
        """All sections but `model` by name, in the order of config.json."""
        own = {name: getattr(self, name) for name in SECTIONS} | dict(self.optimizer_sections)
        if self.codes is not None:
            own[self.tokenizer_model] = self.codes
        if self.judge is not None:
            own[judge_of(self.name)] = self.judge
        listed = sections(self.name, self.tokenizer_model, self.judge is not None)
        return {name: own[name] for name in listed}


def sections(name: str, tokenizer: str = "", judged: bool = False) -> dict[str, type]:
    """The dataclasses of all sections but `model` by name, for experiments with a model.

    Args:
      name: the model's name.
      tokenizer: the model of a prior's tokenizer, if it is not `tokenizer_of(name)`.
      judged: whether a classifier of a perceptual loss is known.

    Raises:
      UserError: an unknown model.
    """
    own = {section: optimizer_section(section) for section in models.players(name).values()}
    others = [tokenizer or tokenizer_of(name), judge_of(name) if judged else ""]
    borrowed = {other: models.config_class(other) for other in others if other}
    return {**borrowed, "data": DataConfig, **own, **SECTIONS}


def tokenizer_of(name: str) -> str:
    """The model whose codes a model is a prior over, such as "vqvae"; empty for other models.

    A run that `config.tokenizer` names may be of another model with codes.

    Raises:
      UserError: an unknown model.
    """
    return getattr(models.config_class(name), "TOKENIZER", "")


def judge_of(name: str) -> str:
    """The model whose run `config.perceptual` names, "classifier"; empty for other models.

    Raises:
      UserError: an unknown model.
    """
    return getattr(models.config_class(name), "JUDGE", "")


def borrows(name: str) -> str:
    """Which of `BORROWED` is a field of a model's config; empty for none.

    Raises:
      UserError: an unknown model.
    """
    if tokenizer_of(name):
        return "tokenizer"
    return "perceptual" if judge_of(name) else ""


def default(name: str) -> ConfigDict:
    """The config of a model, with every field of every section at its default.

    It has all fields, so that a config file or `--config.SECTION.FIELD=VALUE` can set each of them.

    Args:
      name: the model's name.

    Raises:
      UserError: an unknown model.
    """
    model = models.config_class(name)
    others = {section: to_mapping(cls()) for section, cls in sections(name).items()}
    top = {field: "" for field in (borrows(name),) if field}
    return ConfigDict({**top, "model": {"name": name, **to_mapping(model())}, **others})


def check(config: Mapping[str, Any]) -> Experiment:
    """Checks a config, section by section and field by field.

    Args:
      config: a `ConfigDict` or nested dict; sections and fields left out keep their defaults, but
        `model.name` is required.

    Returns:
      The experiment.

    Raises:
      UserError: an unknown section, model or field, or a value of another type or out of range.
    """
    values = config.to_dict() if isinstance(config, ConfigDict) else config
    if not isinstance(values, Mapping):
        raise UserError(f"config must be a ConfigDict, got {type(config).__name__}.")
    top = {field: values[field] for field in TOP if field in values}
    values = {section: fields for section, fields in values.items() if section not in top}
    for section, fields in values.items():
        require(isinstance(fields, Mapping), f"config.{section}", fields, "a section of fields")
    model = dict(values.get("model", {}))
    name = model.pop("name", None)
    allowed = f"one of {', '.join(models.names())}"
    require(isinstance(name, str), "config.model.name", name, allowed)
    for field, value in top.items():
        kind = field.removesuffix("_digest")
        if kind != borrows(name):
            raise UserError(f"config.{field} is not a field of {name}, which is {BORROWED[kind]}.")
        require(isinstance(value, str), f"config.{field}", value, "a string")
    tokenizer = _tokenizer(name, values, top.get("tokenizer", ""))
    judge = judge_of(name) if top.get("perceptual") and judge_of(name) in values else ""
    allowed = sections(name, tokenizer, bool(judge))
    for section in values:
        if section != "model" and section not in allowed:
            known = nearest(str(section), ("model", *allowed))
            raise UserError(f"config.{section} is not a section of {name}; {known}")
    own = from_mapping(models.config_class(name), model, "config.model", f" of {name}")
    others = {
        section: _section(cls, values.get(section, {}), section) for section, cls in allowed.items()
    }
    always = {section: others.pop(section) for section in SECTIONS}
    codes = others.pop(tokenizer) if tokenizer else None
    judged = others.pop(judge) if judge else None
    found = Experiment(
        name=name,
        model=own,
        **always,
        optimizer_sections=others,
        **top,
        tokenizer_model=tokenizer,
        codes=codes,
        judge=judged,
    )
    if borrows(name) == "perceptual":
        own.require_judge(found.perceptual)
    for player, section in found.optimizers.items():
        # Defined by a `Config` if private gradients alone would not keep the images private.
        if section.private_noise and hasattr(own, "require_private"):
            own.require_private(player, section.private_noise)
    return found


def _tokenizer(name: str, values: Mapping[str, Any], folder: str) -> str:
    """The model of a prior's tokenizer: the one that has a section, by default `tokenizer_of`.

    Raises:
      UserError: two sections, or one of a model that only another run can have trained.
    """
    own = tokenizer_of(name)
    others = [section for section in values if section != own and models.gives_codes(str(section))]
    if not own or not others:
        return own
    if own in values or len(others) > 1:
        both = " and ".join(f"config.{section}" for section in sorted({*others, own} & {*values}))
        raise UserError(f"{both} are both of a tokenizer; give one of them.")
    if not folder:
        raise UserError(
            f"config.{others[0]} needs config.tokenizer, the folder of its run: without one, a "
            f"tokenizer is trained with config.{own}."
        )
    return others[0]


def _section(cls: type, values: Mapping[str, Any], section: str) -> Any:
    """A section from its fields; a model's messages name the section that it is in.

    Raises:
      UserError: as `check`.
    """
    here, there = f"config.{section}.", "config.model."

    def named(text: str) -> str:
        return text.replace(there, here)

    try:
        return from_mapping(cls, values, f"config.{section}")
    except UnreadError as error:
        choices = frozenset(map(named, error.choices))
        texts = named(error.field), choices, error.default
        raise UnreadError(*texts, named(error.effect), named(error.remedy)) from None
    except UserError as error:
        raise UserError(named(str(error))) from None


def reset_unread(config: ConfigDict, given: Collection[str]) -> list[str]:
    """Resets fields that choices on the command line leave unread to their defaults.

    So one flag changes one choice of a config file, whatever the file sets for the choice that it
    replaces. A field that a flag sets, or that the file's own choices leave unread, is left for
    `check` to refuse.

    Args:
      config: changed in place.
      given: paths of the fields that flags set, such as "config.optimizer.name".

    Returns:
      One line per field that was reset.

    Raises:
      UserError: as `check`; a flag of the tokenizer's section beside the tokenizer's run.
    """
    _refuse_unread_section(config, given)
    lines = []
    while True:
        try:
            check(config)
            return lines
        except UnreadError as error:
            if error.field in given or error.choices.isdisjoint(given):
                raise
            _, section, field = error.field.split(".")
            config[section][field] = error.default
            lines.append(f"{error.effect}; reset to its default, {error.default!r}.")


def _refuse_unread_section(config: ConfigDict, given: Collection[str]) -> None:
    """Raises a `UserError` for flags of a tokenizer that comes with all its fields from its run."""
    name, folder = config.get("model", {}).get("name"), config.get("tokenizer")
    section = tokenizer_of(name) if folder and name in models.names() else ""
    for field in given if section else ():
        if field.startswith(f"config.{section}."):
            raise UserError(
                f"{field} has no effect with config.tokenizer={folder!r}, whose own fields are "
                "read; leave one of them out."
            )


def build(experiment: Experiment, spec: ImageSpec, frozen: Frozen | None = None) -> Model:
    """The experiment's model, for images like `spec`.

    Args:
      experiment: the settings.
      spec: the images.
      frozen: the arrays of a prior's tokenizer or of a perceptual loss's classifier to begin with;
        `None` where they come from a checkpoint.

    Raises:
      UserError: the model cannot be built for such images.
    """
    if experiment.judge is not None:
        judge = models.build(judge_of(experiment.name), experiment.judge, spec)
        return models.build(experiment.name, experiment.model, spec, Perceptual(judge, frozen))
    if experiment.codes is None:
        model = models.build(experiment.name, experiment.model, spec)
        return of_grids(model) if stored.origin(experiment.data.name) is not None else model
    tokenizer = models.build(experiment.tokenizer_model, experiment.codes, spec)
    prior = levels.prior(experiment.name, experiment.model, tokenizer.codes.specs)
    return two_stage(tokenizer, prior, frozen)


def to_dict(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """The nested dict that `check` reads back."""
    others = {name: to_mapping(section) for name, section in experiment.sections.items()}
    own = borrows(experiment.name)
    top = {field: getattr(experiment, field) for field in (own, f"{own}_digest") if own}
    return {**top, "model": {"name": experiment.name, **to_mapping(experiment.model)}, **others}


def to_json(experiment: Experiment, path: str | os.PathLike[str]) -> None:
    """Writes config.json; an existing file is replaced only when the new one is complete."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(to_dict(experiment), indent=2) + "\n")


def from_json(path: str | os.PathLike[str]) -> Experiment:
    """Reads config.json.

    Raises:
      UserError: it is missing, not valid JSON, or not a config of this version.
    """
    path = paths.of(path)
    try:
        values = json.loads(read_regular(path, MOST_BYTES).decode())
    except FileNotFoundError:
        if (path.parent / "checkpoints").is_dir():
            raise UserError(
                f"{path} is missing beside checkpoints; repeat the run's train command, which "
                "writes it."
            ) from None
        raise UserError(
            f"{path.parent} holds no run: there is no {path.name}. "
            "Give the --workdir of a run that `train` has made."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except RecursionError:
        raise UserError(f"{path} is not valid JSON: it is nested too deeply.") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from None
    return from_record(values, path)


def from_record(values: Mapping[str, Any], where: str | os.PathLike[str]) -> Experiment:
    """The experiment of an existing run, from its recorded config.

    Args:
      values: the nested dict that `to_dict` returned.
      where: the file that holds it, for the message.

    Raises:
      UserError: not a config of this version.
    """
    try:
        return check(values)
    except UserError as error:
        raise UserError(f"{where} is not a config of this version: {error}") from None
