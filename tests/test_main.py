"""The command line's own errors: each is one or two plain lines and exit code 2."""

import os
import shlex
import subprocess
import sys
import textwrap

import pytest
import tiny_runs

import rnngen_jax
from rnngen_jax import cli, commands, main
from rnngen_jax.commands.flags import flags_of
from rnngen_jax.errors import RunError

CONFIG = """
from rnngen_jax import experiment

def get_config(arg=""):
    if arg == "key":
        raise KeyError("no such preset")
    if arg == "value":
        raise ValueError("no such preset")
    if arg == "file":
        open("/no/such/file")
    if arg == "nothing":
        return None
    config = experiment.default("pixel_rnn")
    if arg == "field":
        config.model.cel = "gru"
    if arg == "section":
        config.modle = {}
    if arg == "type":
        config.training.steps = "many"
    return config
"""


@pytest.fixture
def rnngen(tmp_path, monkeypatch, capsys):
    """`rnngen(*arguments) -> (code, stdout, stderr)` in an empty folder with some configs."""
    (tmp_path / "c.py").write_text(CONFIG)
    (tmp_path / "syntax.py").write_text("x = (\n")
    (tmp_path / "empty.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        # config_flags reuses the module of the last config file within a process.
        sys.modules.pop("config_config", None)
        capsys.readouterr()
        code = main.run(["rnngen", *arguments])
        return code, *capsys.readouterr()

    return call


REFUSED = {
    "": "a verb is missing",
    "trian": "did you mean 'train'",
    "--workdir=w train": "stands before the verb",
    "base": "not a verb",
    "train": "--config, --workdir missing",
    "train --workdir=w": "--config missing",
    "train --config=c.py": "--workdir missing",
    "train --config=c.py --workdir=": "--workdir missing",
    "train --workdir=w --config": "Missing value for flag --config",
    "train --workdir=w --config=none.py": "there is no file 'none.py'",
    "train --workdir=w --config=.": "there is no file",
    "train --workdir=w --config=c.py --config=c.py": "given twice",
    "train --workdir=w --config=syntax.py": "raised SyntaxError",
    "train --workdir=w --config=empty.py": "get_config",
    "train --workdir=w --config=c.py:key": "raised KeyError: 'no such preset'",
    "train --workdir=w --config=c.py:value": "raised ValueError: no such preset",
    "train --workdir=w --config=c.py:file": "/no/such/file",
    "train --workdir=w --config=c.py:nothing": "must return a ConfigDict",
    "train --workdir=w --config=c.py:type": "raised TypeError",
    "train --workdir=w --config=c.py:field": "did you mean 'cell'",
    "train --workdir=w --config=c.py:section": "did you mean 'model'",
    "train --workdir=w --config=c.py --config.model.laeyrs=3": "model.layers?",
    "train --workdir=w --config=c.py --config.modl.layers=3": "model.layers?",
    "train --workdir=w --config=c.py --config.model.cell.x=3": "it has no fields",
    "train --workdir=w --config=c.py --config.model.layers=1.5": "an integer",
    "train --workdir=w --config=c.py --config.model.dropout=x": "a number",
    "train --workdir=w --config=c.py --config.model.position=x": "true or false",
    "train --workdir=w --config=c.py --config.model=3": "--config.model.FIELD=VALUE",
    "train --workdir=w --config=c.py --config.model.layers": "Missing value",
    "train --workdir=w --config.model.layers=3 --config=c.py": "=FILE.py first",
    "train --workdir=w --config.model.layers=3": "=FILE.py first",
    "train --workdir=w --config=c.py --config.model.name=gan": "'gan' is not a model",
    "train --workdir=w --config=c.py --config.model.cell=gur": "gru",
    "train --workdir=w --config=c.py --config.training.steps=0": (
        "config.training.steps must be ≥ 1, got 0"
    ),
    "train --workdir=w --config=c.py --config.data.name=digit": "digits",
    "train --workdir=w --config=c.py --mask=lower": "a flag of complete, not of train",
    "train --workdir=w --config=c.py --wrokdir=x": "did you mean --workdir?",
    "train --workdir=w --config=c.py more": "'more' is not a flag",
    "train --workdir=c.py --config=c.py": "is not a folder; give one",
    "evaluate --workdir=w": "holds no run",
    "evaluate --workdir=w --config=c.py": "reads WORKDIR/config.json",
    "evaluate --workdir=w --config.model.layers=2": "reads WORKDIR/config.json",
    "evaluate --workdir=w --split=tests": "did you mean 'test'",
    "sample --workdir=w --num=many": "--num must be an integer, got 'many': how many images",
    "sample --workdir=w --num=0": "must be ≥ 1, got 0",
    "sample --workdir=w --temperature=warm": "a number",
    "sample --workdir=w --temperature=0": "must be in [1e-06, 1e+06], got",
    "sample --workdir=w --temperature=-1": "must be in [1e-06, 1e+06], got",
    "sample --workdir=w --temperature=nan": "must be in [1e-06, 1e+06], got",
    "sample --workdir=w --temperature=inf": "must be in [1e-06, 1e+06], got",
    "sample --workdir=w --seed=-1": "must be in [0, 2147483647], got -1",
    "sample --workdir=w --out=x.jpg": ".png, .npz, .gif or .webp",
    "sample --workdir=w --out=c.py/": "which names a file",
    "complete --workdir=w --completions=0": "must be ≥ 1, got 0",
    "complete --workdir=w --out=folder/": ".png, .npz, .gif or .webp",
    "prepare --name=x": "--input missing",
    "prepare --input=digits '--name=A b'": "lower-case",
    "prepare --input=folder:none --name=x --data_dir=d": "no such folder",
    "doctor --workdir=w": "holds no run",
    "bench --suite=trainin": "did you mean 'training'",
    "bench --suite=": "must be one of all, choices, codec, codes, compile",
    "bench --rounds=0": "must be ≥ 1, got 0",
    "bench --shapes=64,16,128": "T,B,I,H;T,B,I,H;... with integers ≥ 1",
    "bench --out=c.py": "a folder",
    "interpolate --workdir=w --kind=pair": "did you mean 'pairs'",
    "interpolate --workdir=w --steps=1": "--steps must be ≥ 2, got 1",
    "interpolate --workdir=w --num=0": "--num must be ≥ 1, got 0",
    "interpolate --workdir=w --path=sperical": "did you mean 'spherical'",
    "interpolate --workdir=w --indices=1,x": "--indices must be comma-separated integers ≥ 0, got",
    "interpolate --workdir=w --indices=1,-2": "--indices must be comma-separated integers ≥ 0, got",
    "interpolate --workdir=w --indices=1,99999999999": (
        "--indices must be comma-separated integers ≥ 0, got"
    ),
    "interpolate --workdir=w --indices=1": "must be a list of two or more for --kind=pairs",
    "interpolate --workdir=w --kind=grid --indices=1,2,3": "must be a list of four for --kind=grid",
    "interpolate --workdir=w --kind=latent --latent=0 --indices=1,2": (
        "must be a list of one for --kind=latent"
    ),
    "interpolate --workdir=w --kind=latent": "--latent is missing",
    "interpolate --workdir=w --latent=1": "--latent=1 is for --kind=latent, not for pairs",
    "interpolate --workdir=w --kind=grid --num=3": "--num=3 is for --kind=pairs, not for grid",
    "interpolate --workdir=w --kind=latent --path=linear": "--path=linear is not for --kind=latent",
    "interpolate --workdir=w --out=a.jpg": ".png, .npz, .gif or .webp, got",
    "reconstruct --workdir=w --out=folder/": ".png, .npz, .gif or .webp, got",
    "reconstruct --workdir=w --num=0": "--num must be ≥ 1, got 0",
    "reconstruct --workdir=w --split=tests": "did you mean 'test'",
    "sample --workdir=w --out=a.jpg": ".png, .npz, .gif or .webp, or a folder/",
    "sample --workdir=w --pixels=means": "did you mean 'mean'",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_in_plain_lines(rnngen, tmp_path, words):
    before = sorted(path.name for path in tmp_path.rglob("*") if "__pycache__" not in path.parts)
    code, out, err = rnngen(*shlex.split(words))
    assert code == 2
    assert REFUSED[words] in err
    assert out == ""
    assert len(err.strip().splitlines()) <= 2
    assert "Traceback" not in err
    after = sorted(path.name for path in tmp_path.rglob("*") if "__pycache__" not in path.parts)
    assert after == before


def test_a_config_that_raises_a_user_error_keeps_its_message(rnngen, tmp_path):
    (tmp_path / "preset.py").write_text(
        textwrap.dedent("""
        from rnngen_jax.errors import UserError
        def get_config(arg=""):
            raise UserError(f"no preset {arg!r}; allowed: mnist.")
        """)
    )
    assert rnngen("train", "--workdir=w", "--config=preset.py:x") == (
        2,
        "",
        "error: no preset 'x'; allowed: mnist.\n",
    )


def test_overrides_reach_the_verb(rnngen, monkeypatch):
    from rnngen_jax.commands import train

    seen = {}
    monkeypatch.setattr(
        train, "run", lambda config, workdir, **_: seen.update(config=config, w=workdir)
    )
    arguments = (
        "--config.model.layers=3",
        "--config.model.cell",
        "lstm",
        "--noconfig.model.position",
    )
    assert rnngen("train", "--config", "c.py", *arguments, "--workdir", "w")[0] == 0
    model = seen["config"].model
    assert (model.layers, model.cell, model.position, seen["w"]) == (3, "lstm", False, "w")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [(RunError("it failed."), 1, "error: it failed.\n"), (KeyboardInterrupt(), 130, "interrupted")],
)
def test_exit_codes(rnngen, monkeypatch, error, code, message):
    from rnngen_jax.commands import doctor

    def fail(config, workdir):
        raise error

    monkeypatch.setattr(doctor, "run", fail)
    got, _, err = rnngen("doctor")
    assert got == code
    assert message in err


def test_a_bug_keeps_its_traceback(rnngen, monkeypatch):
    from rnngen_jax.commands import doctor

    monkeypatch.setattr(doctor, "run", lambda config, workdir: [][0])
    with pytest.raises(IndexError):
        rnngen("doctor")


def test_version(rnngen):
    assert rnngen("--version") == (0, f"rnngen {rnngen_jax.__version__}\n", "")


def test_help_names_every_verb_and_flag(rnngen):
    code, out, _ = rnngen("--help")
    assert code == 0
    for name in commands.names():
        assert f"  {name} " in out
        code, verb_help, _ = rnngen(name, "--help")
        assert code == 0
        assert rnngen("help", name)[1] == verb_help
        for flag in flags_of(cli._verb(name).FLAGS):
            assert f"--{flag.name}" in out
            assert f"--{flag.name}" in verb_help
    assert "rnngen train --config=" in out


def test_help_in_a_process_of_its_own_imports_nothing_slow():
    code = (
        "import sys; from rnngen_jax import main;"
        "main.run(['rnngen', '--help']); main.run(['rnngen', 'train', '--help']);"
        "slow = {'jax', 'flax', 'orbax', 'numpy', 'PIL', 'tensorflow_datasets'} & set(sys.modules);"
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    assert "verbs:" in tiny_runs.python(code)


def test_module_entry_point_exits_with_the_code():
    done = subprocess.run(
        [sys.executable, "-m", "rnngen_jax.main", "trian"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'trian' is not a verb")


def test_what_the_system_refuses_is_one_line(monkeypatch, capsys):
    def refuse(argv):
        raise PermissionError(13, "Permission denied", "/locked")

    monkeypatch.setattr(cli, "run_verb", refuse)
    assert main.run(["rnngen", "doctor"]) == 1
    assert capsys.readouterr().err == "error: /locked: Permission denied.\n"


@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_pipe_that_its_reader_closes_ends_quietly(buffered):
    """Buffered, the pipe breaks in the flush at the end; unbuffered, in a print."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "rnngen_jax.main", "--help"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": buffered},
        text=True,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_broken_pipe_is_an_error(rnngen, monkeypatch):
    from rnngen_jax.commands import doctor

    def fail(config, workdir):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(doctor, "run", fail)
    monkeypatch.setattr(main, "_reader_is_gone", lambda: False)
    assert rnngen("doctor") == (1, "", "error: Broken pipe.\n")


def test_a_lack_of_memory_is_one_line(rnngen, monkeypatch):
    from rnngen_jax.commands import doctor

    monkeypatch.setattr(doctor, "run", lambda config, workdir: bytearray(2**62))
    code, _, err = rnngen("doctor")
    assert code == 1
    assert err.startswith("error: out of memory: ")
    assert err.count("\n") == 1


def test_a_folder_whose_link_points_to_itself(rnngen, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    code, _, err = rnngen("train", "--config=c.py", "--workdir=loop")
    assert (code, err) == (2, "error: --workdir=loop is not a folder; give one, or a new name.\n")
    assert rnngen("evaluate", "--workdir=loop")[::2] == (
        2,
        "error: loop/config.json cannot be read: Too many levels of symbolic links.\n",
    )


@pytest.mark.parametrize("given", ["1e-45", "1e-50", "1e300"])
def test_a_temperature_that_float32_cannot_bear(given, capsys):
    assert main.run(["rnngen", "sample", "--workdir=none", f"--temperature={given}"]) == 2
    assert "must be in [1e-06, 1e+06]" in capsys.readouterr().err
