"""What the project promises also holds as users compile it.

The other tests turn the compiler's optimisation off, see conftest.py. Those with the marker
`optimised`, a few for each promise, are run here once more with the compiler's own settings.
"""

import os
import pathlib
import re
import subprocess
import sys

TESTS = pathlib.Path(__file__).parent
# What is promised, and the file of the tests that hold it to that.
PROMISES = {
    "every strategy is the plain loop": (
        "recurrence/test_unroll.py",
        "recurrence/test_associative.py",
        "recurrence/test_newton.py",
    ),
    "probabilities sum to one": ("models/test_pixel_likelihoods.py",),
    "step by step is all at once": ("models/test_pixel_steps.py",),
    "the codec gives every bit back": ("evaluation/test_codec.py",),
    "a run that goes on is the one that never stopped": ("training/test_resume.py",),
}
FILES = sorted(file for files in PROMISES.values() for file in files)


def test_promises_hold_with_the_compilers_own_settings():
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    environment |= {"XLA_FLAGS": "", "RNNGEN_TESTS_OPTIMISED": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-m", "optimised", *FILES],
        cwd=TESTS,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    passed = re.findall(r"^(\S+?)::.* PASSED", done.stdout, re.MULTILINE)
    assert {name.removeprefix("tests/") for name in passed} == set(FILES)


def test_the_marked_tests_are_those_of_the_files_above():
    marked = {
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("test_*.py")
        if re.search(r"\bmark\.optimised\b", path.read_text()) and path != pathlib.Path(__file__)
    }
    assert marked == set(FILES)
