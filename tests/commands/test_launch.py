"""`launch`: flags of train become a script's or a manifest's, and no cloud is called."""

import shlex

import pytest
import yaml
from tiny_runs import python, rnngen

SSH = ("--to=ssh", "--hosts=one", "--workdir=runs/a")
GKE = ("--to=gke", "--workdir=gs://b/r", "--name=a", "--topology=v5e:4x4", "--image=i")


def trained(script):
    """The words of a script's training command."""
    (line,) = [line for line in script.splitlines() if line.startswith("rnngen train ")]
    return shlex.split(line.removesuffix(" </dev/null 3<&- &"))


def test_the_flags_of_the_config_are_handed_on_as_they_were_given(capsys):
    given = (
        *("--config", "pixel_rnn", "--config.training.steps", "70"),
        *("--config.model.residual", "--noconfig.model.residual"),
        *("--config.optimizer.warmup_steps", "-1", "-config.model.cell=lstm:forget_bias=0"),
        "--config.data.name=npz:it's $(here).npz",
    )
    assert rnngen("launch", *SSH, *given) == 0
    assert trained(capsys.readouterr().out) == [
        "rnngen",
        "train",
        "--config=pixel_rnn",
        "--config.training.steps=70",
        "--config.model.residual",
        "--noconfig.model.residual",
        "--config.optimizer.warmup_steps=-1",
        "-config.model.cell=lstm:forget_bias=0",
        "--config.data.name=npz:it's $(here).npz",
        "--workdir=runs/a",
    ]


def test_stdout_is_the_text_alone_and_notes_go_to_stderr(config, capsys):
    given = (f"--config={config}:vae", "--config.optimizer.name=sgd", "--config.model.features=4")
    assert rnngen("launch", *GKE, f"--config={config}") == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out)["kind"] == "JobSet"
    assert err == f"note: {config} must be on every host, under this path.\n"
    config.with_name("adamw.py").write_text(
        "from rnngen_jax import experiment\n"
        "def get_config():\n"
        "    config = experiment.default('pixel_rnn')\n"
        "    config.optimizer.update(name='adamw', weight_decay=0.1)\n"
        "    return config\n"
    )
    given = (f"--config={config.with_name('adamw.py')}", "--config.optimizer.name=sgd")
    assert rnngen("launch", *GKE, *given) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out)["kind"] == "JobSet"
    assert "config.optimizer.weight_decay" in err


def test_out_is_a_file(tmp_path, capsys):
    out = tmp_path / "a.sh"
    assert rnngen("launch", *SSH, "--config=pixel_rnn", f"--out={out}") == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_text().startswith("#!/usr/bin/env bash\n")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--to=ssh", "--workdir=a"), "--to=ssh needs --hosts"),
        ((*SSH, "--zone=z"), "--zone does not apply to --to=ssh"),
        ((*SSH, "--to=shs"), "did you mean 'ssh'?"),
        ((*SSH, "--config.training.stesp=1"), "did you mean --config.training.steps?"),
        ((*SSH, "--config.training.steps=0"), "config.training.steps must be ≥ 1, got 0"),
        ((*SSH, "--config.optimizer.warmup_steps=9999999"), "config.optimizer.warmup_steps must"),
        ((*SSH, "--nodes=two"), "--nodes must be an integer, got 'two'"),
        ((*GKE, "--name=a\n- b"), "--name must be on one line"),
        ((*GKE, "--name='; rm -rf /"), "--name must be 1 to 40 of a-z"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(given, said, tmp_path, capsys):
    out = tmp_path / "out"
    assert rnngen("launch", "--config=pixel_rnn", f"--out={out}", *given) == 2
    written, err = capsys.readouterr()
    *_, last = err.splitlines()  # after a note, if any
    assert last.startswith("error: ")
    assert said in last
    assert written == ""
    assert not out.exists()


def test_help_and_wrong_flags_do_not_wait_for_jax():
    python(
        "import sys; from rnngen_jax import main\n"
        "assert main.run(['rnngen', 'launch', '--help']) == 0\n"
        "assert 'jax' not in sys.modules\n"
    )
