"""Measures training steps by name: here, or in processes that end before code is generated.

Of the time that a TPU's compiler takes for a program, most goes into the code of each operation,
when everything that is counted here is settled: the program's text and the assignment of its
buffers. Asked for dumps, it writes both before that. So each program is compiled in a process of
its own, which is ended once they are there. What a compiler says that writes none is taken when it
has come to its end.
"""

import json
import multiprocessing
import os
import pathlib
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from rnngen_jax.errors import RunError, UserError
from rnngen_jax.pods import compiling, hlo, records, steps, topology
from rnngen_jax.pods.compiling import Measured

# `measure(config, topology, alone)`: of a training step, for a machine or one device of it.
Measure = Callable[[str, str, bool], Measured]
Known = Mapping[str, Measured]

_POLL = 0.2  # seconds
_DONE = ".after_optimizations_after_buffer_assignment.txt"  # is written last, of each program
_TEXT = ".after_optimizations.txt"
_MEMORY = ".after_optimizations-memory-usage-report.txt"
_TOTAL = re.compile(r"\(color=0\)\nTotal bytes: (\d+)")  # of the device's large memory
_REFUSALS = {"UserError": UserError, "RunError": RunError}


def measuring(kept: pathlib.Path | None) -> Measure:
    """A function that measures training steps, and each program once.

    Args:
      kept: a file that has what was measured before, to which more is added; or `None`.

    Raises:
      UserError, RunError: as `steps.trace`, from the function; or the compiler fails.
    """
    known = {} if kept is None else records.read(kept)

    def measure(config: str, name: str, alone: bool) -> Measured:
        how = here if name.startswith("cpu:") else apart
        program, found = how(config, name, alone, known)
        if program not in known:
            known[program] = found
            if kept is not None:
                records.append(kept, program, found)
        return found

    return measure


def here(config: str, name: str, alone: bool, known: Known) -> tuple[str, Measured]:
    """Compiles in this process; the program's digest, and what was found.

    Args:
      config, name, alone: as for `steps.trace`.
      known: what is known of programs by their digests, and need not be compiled.
    """
    traced = steps.trace(config, name, alone)
    program = traced.digest()
    return program, known.get(program) or compiling.measure(*traced)


def apart(config: str, name: str, alone: bool, known: Known) -> tuple[str, Measured]:
    """Compiles in a process of its own, until buffers are assigned; as `here`, without cycles."""
    context = multiprocessing.get_context("forkserver")
    # They are imported once, in the process from which the others are forked.
    context.set_forkserver_preload([__name__])
    start = time.perf_counter()
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="rnngen_pods_") as folder:
        given = (config, name, alone, folder, theirs)
        process = context.Process(target=_compile, args=given, daemon=True)
        process.start()
        theirs.close()
        try:
            traced = _said(ours)
            program = traced["program"]
            if program in known:
                return program, known[program]
            while not ours.poll(_POLL):
                counted = dumped(pathlib.Path(folder))
                if counted is not None:
                    chip = traced["chip"] and topology.Chip(*traced["chip"])
                    seconds = time.perf_counter() - start
                    return program, Measured(traced["devices"], chip, *counted, seconds)
            return program, records.from_json(_said(ours))
        except EOFError:
            process.join()
            raise RunError(
                f"the compiler of {name} ended with code {process.exitcode} at {config}."
            ) from None
        finally:
            process.kill()
            process.join()


def dumped(folder: pathlib.Path) -> tuple[hlo.Costs, hlo.Costs, int] | None:
    """What a compiler's dumps say: operations at least and at most, and peak bytes of memory.

    Args:
      folder: where it writes them.

    Returns:
      `None` if they are not, or not all, there yet.
    """
    for done in folder.glob(f"*{_DONE}"):
        text, memory = (
            done.with_name(done.name.removesuffix(_DONE) + ending) for ending in (_TEXT, _MEMORY)
        )
        total = _TOTAL.search(memory.read_text()) if memory.exists() else None
        if total and text.exists():
            return (*hlo.bounds(text.read_text()), int(total[1]))
    return None


def _said(connection: Connection) -> dict[str, Any]:
    said = json.loads(connection.recv_bytes())
    if "refused" in said:
        raise _REFUSALS[said["refused"]](said["message"])
    return said


def _compile(config: str, name: str, alone: bool, folder: str, connection: Connection) -> None:
    """The work of a process: says which program it is, and what it found if it is not ended."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import jax

    # The TPU's compiler needs no TPU, and must not look for one.
    jax.config.update("jax_platforms", "cpu")
    topology.have_devices([name])

    def say(said: dict[str, Any]) -> None:
        connection.send_bytes(json.dumps(said).encode())

    try:
        traced = steps.trace(config, name, alone)
        machine = traced.machine
        described = {"devices": len(machine.devices), "chip": machine.chip}
        say({"program": traced.digest(), **described})
        dumps = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        say(records.to_json(compiling.measure(*traced, dumps)))
    except (UserError, RunError) as error:
        say({"refused": type(error).__name__, "message": str(error)})


def _end_with_parent() -> None:
    """Ends this process with the one that asked for it, whichever way that ends."""
    multiprocessing.parent_process().join()
    os._exit(1)
