"""A name that is wrong on the command line is answered with the right one, wherever that is."""

import json

import pytest

from rnngen_jax import main

PIXEL_RNN = ("--config=pixel_rnn", "--workdir=w")
GAN = ("--config=mlp_gan", "--workdir=w")


@pytest.fixture
def rnngen(tmp_path, monkeypatch, capsys):
    """`rnngen(*arguments) -> (code, stdout, stderr)` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        capsys.readouterr()
        code = main.run(["rnngen", *arguments])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("config", "given", "meant"),
    [
        # A field by its name alone, in short, in another section, in a section that is not there.
        (PIXEL_RNN, "lr=1", "optimizer.learning_rate"),
        (PIXEL_RNN, "cell=gru", "model.cell"),
        (PIXEL_RNN, "steps=9", "training.steps"),  # a flag of interpolate, too
        (PIXEL_RNN, "num_layers=2", "model.layers"),
        (PIXEL_RNN, "Cell=gru", "model.cell"),
        (PIXEL_RNN, "order=column", "model.order"),  # nearer than --workdir
        (PIXEL_RNN, "config.training.learning_rate=1", "optimizer.learning_rate"),
        (PIXEL_RNN, "config.model.lr=1", "optimizer.learning_rate"),
        (PIXEL_RNN, "config.model.learnign_rate=1", "optimizer.learning_rate"),
        (PIXEL_RNN, "config.lr=1", "optimizer.learning_rate"),
        (PIXEL_RNN, "config.optimiser.lr=1", "optimizer.learning_rate"),
        (PIXEL_RNN, "noconfig.model.psition", "model.position"),
        # A section by its name alone stands for what chooses among its kinds.
        (PIXEL_RNN, "optimizer=sgd", "optimizer.name"),
        (PIXEL_RNN, "dataset=digits", "data.name"),
        # Of several fields of one name, those of the nearest section.
        (GAN, "config.discrminator.lr=1", "discriminator.learning_rate"),
        (GAN, "config.trainning.batch_size=8", "training.batch_size"),
    ],
)
def test_a_wrong_flag_is_answered_with_the_field_that_is_meant(rnngen, config, given, meant):
    code, out, err = rnngen("train", *config, f"--{given}")
    assert (code, out) == (2, "")
    name, kind = given.split("=")[0], "field" if "config" in given else "flag of train"
    name = name.removeprefix("no")
    assert err == f"error: --{name} is not a {kind}; did you mean --config.{meant}?\n"


def test_several_fields_of_one_name_are_all_named(rnngen):
    _, _, err = rnngen("train", *GAN, "--lr=1")
    fields = [f"--config.{name}.learning_rate" for name in ("discriminator", "optimizer")]
    assert f"did you mean {' or '.join(fields)}?" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("pixel_rnn",),
            "'pixel_rnn' is not a verb; did you mean rnngen train --config=pixel_rnn?",
        ),
        (("pixelrnn:digits",), "did you mean rnngen train --config=pixel_rnn:digits?"),
        (("configs/vae.py",), "did you mean rnngen train --config=vae?"),
        (("trian",), "'trian' is not a verb; did you mean 'train'?"),
        (("eval",), "did you mean 'evaluate'?"),
        (("help", "trian"), "'trian' is not a verb; did you mean 'train'?"),
        (("zebra",), "'zebra' is not a verb; allowed: bench,"),
        (("train", "vae", "--workdir=w"), "'vae' is not a flag; did you mean --config=vae?"),
        (("train", *PIXEL_RNN, "config.model.cell=gru"), "did you mean --config.model.cell=gru?"),
        (("evaluate", "workdir=w"), "'workdir=w' is not a flag; did you mean --workdir=w?"),
        (("evaluate", "."), "'.' is not a flag; did you mean --workdir=.?"),
        (("evaluate", "zebra"), "rnngen evaluate takes only --flag=value."),
        (("evaluate", "--wrkdir=w"), "did you mean --workdir?"),
        (("evaluate", "--lr=1"), "--lr is not a flag of evaluate; allowed: --workdir,"),
        (("train", *PIXEL_RNN, "--zebra=1"), "--hosts_timeout, --config.SECTION.FIELD."),
        (("train", *PIXEL_RNN, "--config.model.zebra=1"), "strategy in config.model."),
        (("train", "--workdir=w", "--config=none.py", "--lr=1"), "no file 'none.py'"),
        (("train", *PIXEL_RNN, "--config.model.name=vae"), "model.above is not a field of vae;"),
        (("train", "--workdir=w", "--lr=1"), "--lr is not a flag of train; allowed: --config,"),
        (("train", "--workdir=w", "--config=pixel_rnn:bmnist"), "did you mean 'binary_mnist'?"),
        (("train", "--workdir=w", "--config", "pixlrnn:x"), "--config=pixlrnn:x: there is no file"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_one(rnngen, arguments, said):
    code, out, err = rnngen(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.fixture
def started(monkeypatch):
    """The config with which `train` is called."""
    from rnngen_jax.commands import train

    seen = []
    monkeypatch.setattr(train, "run", lambda config, **_: seen.append(config.to_dict()))
    return seen


@pytest.mark.parametrize("given", [["--config=row_rnn:mnist"], ["--config", "row_rnn:mnist"]])
def test_a_shipped_config_is_named_from_any_folder(rnngen, started, given):
    assert rnngen("train", *given, "--config.model.layers", "3", "--workdir=w")[0] == 0
    model = started[0]["model"]
    assert (model["name"], model["layers"], model["readout"]) == ("row_rnn", 3, "logistic_mixture")


def test_one_flag_changes_one_choice(rnngen, started):
    code, out, _ = rnngen("train", *GAN, "--config.model.penalty=none")
    assert code == 0
    assert out == (
        "config.model.penalty_weight=1.0 has no effect with penalty='none'; "
        "reset to its default, 10.0.\n"
    )
    assert json.loads(json.dumps(started[0]["model"]))["penalty_weight"] == 10


def test_a_flag_that_nothing_reads_is_refused(rnngen, started):
    flags = ("--config.model.penalty=none", "--config.model.penalty_weight=2")
    code, out, err = rnngen("train", *GAN, *flags)
    assert (code, out) == (2, "")
    assert err.startswith(
        "error: config.model.penalty_weight=2.0 has no effect with penalty='none'"
    )
    assert not started
