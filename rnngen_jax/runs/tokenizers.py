"""The tokenizer of a run that is a prior over codes: another run, opened once and then kept."""

from dataclasses import replace

from rnngen_jax import data, models
from rnngen_jax.config import to_mapping
from rnngen_jax.data import codes as stored
from rnngen_jax.data.base import Dataset
from rnngen_jax.errors import UserError
from rnngen_jax.experiment import Experiment
from rnngen_jax.models.frozen import Frozen
from rnngen_jax.runs.run import Run, load

FOLDER = "tokenizer"  # of a run's own tokenizer, within the run's folder

# Fields of the section `data` that may differ from the tokenizer's: where the images lie and how
# many are left for validation change neither an image nor its codes.
MAY_DIFFER = frozenset({"name", "placement", "validation_fraction"})


def refuse_codes(settings: Experiment) -> None:
    """Raises a `UserError` for a prior that is given codes as its data and not as a tokenizer."""
    where = stored.origin(settings.data.name)
    if where is not None and settings.codes is not None:
        raise UserError(
            f"config.data.name={settings.data.name!r} holds codes already, and {settings.name} is "
            f"trained on images: give config.tokenizer={where.run!r} and the data of that run."
        )


def own_experiment(settings: Experiment) -> Experiment:
    """The training of a run's own tokenizer: on the same data, with the same sections."""
    return Experiment(
        name=settings.tokenizer_model,
        model=settings.codes,
        data=settings.data,
        training=settings.training,
        evaluation=settings.evaluation,
        optimizer_sections=settings.optimizer_sections,
    )


def open_tokenizer(settings: Experiment) -> Run:
    """Opens the run that `config.tokenizer` names.

    Raises:
      UserError: no such run, one of a model without codes, or one of other data.
    """
    where = f"config.tokenizer={settings.tokenizer!r}"
    try:
        run = load(settings.tokenizer)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    require_codes(run, where)
    own, theirs = to_mapping(settings.data), to_mapping(run.experiment.data)
    other = [
        f"config.data.{name} must be {theirs[name]!r}, got {own[name]!r}"
        for name in own
        if own[name] != theirs[name] and name not in MAY_DIFFER
    ]
    if data.canonical(own["name"]) != data.canonical(theirs["name"]):
        other.insert(0, f"config.data.name must be {theirs['name']!r}, got {own['name']!r}")
    if other:
        raise UserError(f"{where} was trained on other data: {'; '.join(other)}.")
    return run


def require_images(run: Run, dataset: Dataset) -> None:
    """Raises a `UserError` unless the data still have images like those of a tokenizer's run."""
    if dataset.spec != run.spec:
        raise UserError(
            f"config.data.name={dataset.name!r} must have the images that the tokenizer "
            f"{run.workdir} was trained on, {run.spec}, got {dataset.spec}."
        )


def require_codes(run: Run, where: str) -> None:
    """Raises a `UserError` unless a run is one of a tokenizer.

    Args:
      run: the run.
      where: the flag that names it, with its value.
    """
    if run.experiment.name not in models.tokenizers():
        allowed = " or ".join(models.tokenizers())
        raise UserError(f"{where} must name a run of {allowed}, got one of {run.experiment.name}.")


def adopt(settings: Experiment, run: Run) -> tuple[Experiment, Frozen]:
    """Settings with the tokenizer's own model, fields and digest, and the arrays of its codes.

    Args:
      settings: of the prior.
      run: of the tokenizer.
    """
    found = replace(
        settings,
        tokenizer_model=run.experiment.name,
        codes=run.experiment.model,
        tokenizer_digest=run.digest.hex(),
    )
    return found, Frozen(*run.model.codes.needs(run.params, run.extra))


def described(run: Run) -> str:
    """The line that says which codes a prior is trained on."""
    grids = run.model.codes.specs
    sizes = " and ".join(f"{grid.height}x{grid.width}x{grid.channels}" for grid in grids)
    return (
        f"tokenizer {run.workdir}, step {run.step}: {sizes} codes of {grids[0].levels}, "
        f"{run.experiment.model.quantiser}"
    )
