"""What importing means: strictly downward, and no JAX backend."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def test_imports_run_strictly_downward():
    code = (
        "import sys; from importlinter.cli import lint_imports;"
        "sys.exit(lint_imports(config_filename='setup.cfg', no_cache=True))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout


def test_importing_every_module_starts_no_backend():
    # A platform that does not exist makes every use of a device an error.
    code = (
        "import importlib, pkgutil, rnngen_jax\n"
        "found = [m.name for m in pkgutil.walk_packages(rnngen_jax.__path__, 'rnngen_jax.')]\n"
        "for name in found: importlib.import_module(name)\n"
        "import jax\n"
        "try: jax.devices()\n"
        "except RuntimeError: print(len(found))\n"
        "else: raise SystemExit('a backend was there')\n"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40
