"""Processes on this machine, each as if on a host of its own."""

import os
import pathlib
import re
import socket
import subprocess
import sys


def join():
    """Joins the processes, as `rnngen --hosts=auto` does in its own way; verbs then need "off"."""
    import jax

    jax.distributed.initialize(
        os.environ["JAX_COORDINATOR_ADDRESS"],
        int(os.environ["JAX_NUM_PROCESSES"]),
        int(os.environ["JAX_PROCESS_ID"]),
    )


def run(code, count, devices, timeout):
    """Runs code in `count` processes of a coordinator, with `devices` each; their outputs.

    They find the coordinator in JAX's environment variables, and all have to end well.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = re.sub(r"(device_count)=\d+", rf"\1={devices}", os.environ["XLA_FLAGS"])
    environment = os.environ | {
        "XLA_FLAGS": flags,  # the compiler's as they are, so that numbers can be equal to the bit
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(count),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=pathlib.Path(__file__).parents[1],
            env=environment | {"JAX_PROCESS_ID": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * count, outputs
    return outputs
