"""A config is named by its file, or by its name if it ships; an installation has them all."""

import pathlib
import subprocess
import sys

import pytest

import rnngen_jax as rg
from rnngen_jax import config_files, models
from rnngen_jax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent


def test_the_shipped_configs_are_those_of_the_source_tree():
    assert config_files.folder() == ROOT / "configs"
    assert config_files.names() == models.names()


def test_a_config_from_python_is_that_of_the_flag(tmp_path):
    config = rg.load_config("row_rnn:mnist")
    assert config.data.name == "idx:datasets/mnist"
    config.model.cell = "lstm"
    again = rg.load_config(str(ROOT / "configs" / "row_rnn.py"))
    assert (again.model.cell, again.data.name) == ("gru", "digits")
    for given, said in (("row_rn", "did you mean row_rnn"), ("row_rnn:mnits", "'mnist'")):
        with pytest.raises(UserError, match=said):
            rg.load_config(given)
    (tmp_path / "mine.py").write_text("def get_config(arg='a'):\n    return arg\n")
    assert rg.load_config(f"{tmp_path}/mine.py:b") == "b"


def test_a_name_is_that_of_a_shipped_config_unless_a_file_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.find("vae") == str(ROOT / "configs" / "vae.py")
    (tmp_path / "vae").mkdir()
    assert config_files.find("vae") == str(ROOT / "configs" / "vae.py")
    (tmp_path / "draw").write_text("")
    (tmp_path / "draw.py").write_text("")
    assert config_files.find("draw") == "draw"
    assert config_files.find("draw.py") == "draw.py"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("configs/pixelrnn.py", "there is no file 'configs/pixelrnn.py'; did you mean {here}?"),
        ("configs/pixel_rnn", "there is no file 'configs/pixel_rnn'; did you mean {here}?"),
        ("config/pixel_rnn.py", "there is no file 'config/pixel_rnn.py'; did you mean pixel_rnn?"),
        ("pixel_rnn.py", "there is no file 'pixel_rnn.py'; did you mean pixel_rnn?"),
        ("pixlernn", "there is no file 'pixlernn'; did you mean pixel_rnn?"),
        ("min.py", "there is no file 'min.py'; did you mean mine.py?"),
        (
            "__init__",
            "there is no file '__init__'; give a Python file, or one of classifier, ",
        ),
        ("configs/run.json", "'configs/run.json' is not a Python file; give a Python file, or"),
        (".", "there is no file '.'; give a Python file"),
    ],
)
def test_a_config_that_is_not_there_is_answered_with_the_nearest(
    given, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    here = pathlib.Path("configs") / "pixel_rnn.py"
    here.parent.mkdir()
    for file in (here.parent / "__init__.py", here.parent / "run.json"):
        file.touch()
    for file in (here, pathlib.Path("mine.py")):
        file.write_text("def get_config(): ...\n")
    # What is no config is not offered as one, even if its name is nearer.
    pathlib.Path("minn.py").write_text("def main(): ...\n")
    pathlib.Path("mi.py").write_text("def get_config(:\n")
    with pytest.raises(UserError) as error:
        config_files.find(given)
    assert str(error.value).startswith(said.format(here=here))


# In a process of its own, where the package that was built is found first.
FOUND = """
import importlib.util
from rnngen_jax import config_files
for name in config_files.names():
    found = config_files.find(name)
    assert importlib.util.find_spec(f"rnngen_jax.configs.{name}").origin == found
    print(found)
"""


def test_what_is_installed_holds_every_module_its_data_and_the_configs(tmp_path):
    built, elsewhere = tmp_path / "built", tmp_path / "elsewhere"
    build = [sys.executable, "setup.py", "-q", "build_py", f"--build-lib={built}"]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    package = {path.relative_to(ROOT) for path in (ROOT / "rnngen_jax").rglob("*.py")}
    data = {"py.typed", "data/digits.npz", "data/digits.LICENSE.md"}
    configs = {f"configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    wanted = package | {pathlib.Path("rnngen_jax", name) for name in data | configs}
    assert {path.relative_to(built) for path in built.rglob("*") if path.is_file()} == wanted

    elsewhere.mkdir()
    path = {"PYTHONPATH": str(built)}
    find = [sys.executable, "-P", "-c", FOUND]
    done = subprocess.run(find, cwd=elsewhere, env=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    configs = [built / "rnngen_jax" / "configs" / f"{name}.py" for name in models.names()]
    assert done.stdout.splitlines() == list(map(str, configs))
