import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.errors import machine_message

MOST = 2**44  # numbers that no machine has memory for


def raised(function):
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


def test_what_the_system_refuses_is_told_with_its_file():
    assert machine_message(PermissionError(13, "Permission denied", "/a")) == (
        "/a: Permission denied."
    )
    assert machine_message(OSError("two\nlines.")) == "two lines."


@pytest.mark.parametrize(
    ("allocate", "said"),
    [
        (lambda: jnp.zeros(MOST).block_until_ready(), "Out of memory allocating"),
        (lambda: np.zeros(MOST * 2**10), "Unable to allocate"),
        (lambda: bytearray(2**62), "no detail"),
    ],
)
def test_a_lack_of_memory_says_what_to_lower(allocate, said):
    message = machine_message(raised(allocate))
    assert message.startswith(f"out of memory: {said}")
    assert "lower --num, config.training.batch_size or config.evaluation.batch_size" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "given",
    [
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1.5TiB.\nBufferAssignment: ...",
        "INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    ],
)
def test_a_lack_of_memory_on_a_gpu_is_one_line(given):
    message = machine_message(jax.errors.JaxRuntimeError(given))
    assert message.startswith("out of memory: ")
    assert "lower --num" in message
    assert "\n" not in message


def test_all_else_is_a_bug():
    assert machine_message(jax.errors.JaxRuntimeError("INTERNAL: a kernel failed")) is None
    assert machine_message(RuntimeError("out of memory, says somebody")) is None
    assert machine_message(IndexError("list index out of range")) is None


def test_errors_do_not_wait_for_jax():
    code = (
        "import sys; from rnngen_jax.errors import machine_message;"
        "assert machine_message(KeyError()) is None; sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
