"""Sets JAX up for the tests before anything imports it: CPU, eight virtual devices, a cache."""

import gc
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

_CACHE = pathlib.Path(tempfile.gettempdir()) / "rnngen_jax_test_cache"

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Where in the code an operation comes from is written into every program, which no test reads: it
# takes a tenth of tracing and lowering.
os.environ.setdefault("JAX_INCLUDE_FULL_TRACEBACKS_IN_LOCATIONS", "0")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
os.environ["MPLBACKEND"] = "Agg"

_DEVICES = "--xla_force_host_platform_device_count=8"
# Tests compile far more than they compute, so the compiler's own optimisation does not pay, nor do
# its fusion emitters: without them a training step compiles in half of the time. Nor do the many
# parts that a program is compiled in, of which each has a cost of its own. Tests with the marker
# `optimised` are run with the compiler's own settings, too, by test_compiler_settings.py.
_QUICK = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)


def known(flags):
    """Those of the flags that the installed XLA knows: one that it does not ends the process."""
    probe = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env={**os.environ, "XLA_FLAGS": " ".join(flags)},
        capture_output=True,
        text=True,
    )
    *_, unknown = probe.stderr.rpartition("Unknown flags in XLA_FLAGS:")
    return [flag for flag in flags if probe.returncode == 0 or flag not in unknown.split()]


# pytest-xdist's workers find the flags as the process that has started them has set them.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
if not _WORKER:
    _SET = [] if os.environ.get("RNNGEN_TESTS_OPTIMISED") else known(_QUICK)
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), _DEVICES, *_SET]).strip()

# A core for each of pytest-xdist's workers: with threads for all cores in every one of them, they
# would wait for each other more than they work.
if _WORKER and hasattr(os, "sched_setaffinity"):
    _CORES = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_CORES[int(_WORKER.removeprefix("gw")) % len(_CORES)]})

import jax  # noqa: E402, after what it reads
import tiny_runs  # noqa: E402

# Traces are millions of short-lived objects among the many that importing JAX has made for good:
# looking for cycles in them at the default pace takes a tenth of the whole time.
gc.freeze()
gc.set_threshold(100_000, 20, 20)


@pytest.fixture(scope="module", autouse=True)
def programs_are_forgotten():
    """Frees a module's compiled programs at its end: kept, a worker's take gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    """A config file of tiny runs."""
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(tiny_runs.CONFIG)
    return path


@pytest.fixture(scope="session")
def runs(tmp_path_factory, config):
    """Two trained runs: a pixel RNN without classes, a row RNN with."""
    root = tmp_path_factory.mktemp("runs")
    for preset, name in (("", "pixel"), (":row_rnn-labels", "row")):
        given = (f"--config={config}{preset}", f"--workdir={root}/{name}")
        assert tiny_runs.rnngen("train", *given) == 0
    return root


@pytest.fixture
def pixel(runs, tmp_path):
    """A copy of a run, to be changed."""
    return shutil.copytree(runs / "pixel", tmp_path / "pixel")


@pytest.fixture
def row(runs, tmp_path):
    """A copy of a run, to be changed."""
    return shutil.copytree(runs / "row", tmp_path / "row")


@pytest.fixture(scope="session")
def _store():
    """A store of buckets on this machine, which all libraries take for Google's."""
    import object_store

    if importlib.util.find_spec("gcsfs") is None:  # imported only later, as it reads the settings
        pytest.skip("gcsfs is not installed")

    with object_store.served() as (store, address), pytest.MonkeyPatch.context() as patch:
        for name in object_store.ENDPOINTS:
            patch.setenv(name, address)
        for name, value in object_store.SETTINGS.items():
            patch.setenv(name, value)
        yield store


@pytest.fixture
def store(_store, tmp_path, monkeypatch):
    """The store with one new bucket, `store.url`; nothing that a bucket cannot do was asked of it.

    The working folder is an empty one, in which nothing may be made by the name of a URL.
    """
    _store.bucket = f"bucket-{len(_store.buckets)}"
    _store.url = f"gs://{_store.bucket}"
    _store.buckets[_store.bucket] = {}
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield _store
    assert _store.refused == []
    assert os.listdir() == []
