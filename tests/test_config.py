"""Names that do not fit are answered with the nearest that does."""

import pytest

from rnngen_jax.config import closest, nearest, require, require_choice
from rnngen_jax.errors import UserError

FIELDS = (
    "batch_size",
    "cell",
    "ema_decay",
    "eps",
    "l1",
    "layers",
    "learned_carry",
    "learning_rate",
    "validate_every",
    "validation_fraction",
    "weight_decay",
)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("cell", "cell"),
        ("laeyrs", "layers"),
        ("esp", "eps"),
        ("CELL", "cell"),
        ("batch-size", "batch_size"),
        ("learn_rate", "learning_rate"),
        ("lr", "learning_rate"),
        ("learnrate", "learning_rate"),
        ("LR", "learning_rate"),
        ("bs", "batch_size"),
        ("b_s", "batch_size"),
        ("wd", "weight_decay"),
        ("ema", "ema_decay"),
        ("val", "validate_every"),  # the shorter of two
        ("valf", "validation_fraction"),
        ("b", None),  # which could be anything
        ("rate", None),  # no beginning of the first word
        ("lrb", None),
        ("epochs", None),  # which is not eps
        ("zebra", None),
        ("", None),
    ],
)
def test_the_closest_name_is_that_of_a_slip_or_an_abbreviation(given, wanted):
    assert closest(given, FIELDS) == wanted


def test_a_message_ends_with_the_nearest_name_and_all_that_are_allowed():
    assert nearest("gur", ["lstm", "gru"]) == "did you mean 'gru'? Allowed: gru, lstm."
    assert nearest("transformer", ["lstm", "gru"]) == "allowed: gru, lstm."
    assert nearest("eps", []) == "allowed: none."


def test_a_requirement_says_what_must_be_and_what_was_given():
    require(True, "config.model.features", 1, "≥ 1")
    with pytest.raises(UserError) as error:
        require(False, "config.model.features", 0, "≥ 1")
    assert str(error.value) == "config.model.features must be ≥ 1, got 0."


def test_a_choice_is_answered_with_all_and_the_nearest():
    require_choice("cell", "gru", ["lstm", "gru"])
    for given, hint in (("gur", "; did you mean 'gru'?"), ("transformer", "."), (3, ".")):
        with pytest.raises(UserError) as error:
            require_choice("cell", given, ["lstm", "gru"])
        assert str(error.value) == f"cell must be one of gru, lstm, got {given!r}{hint}"
