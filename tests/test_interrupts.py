"""Ctrl-C and SIGTERM end a command whatever it is at, with one line and their own code."""

import signal
import subprocess
import sys
import textwrap

import pytest

LINES = {
    signal.SIGINT: "error: interrupted (Ctrl-C).\n",
    signal.SIGTERM: "error: terminated (SIGTERM).\n",
}
CODES = {signal.SIGINT: 130, signal.SIGTERM: 42}


def heeding():
    """A shell starts what runs in the background with Ctrl-C ignored, and children inherit it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def started(code, *arguments, **options):
    """A process that runs `code` and has printed "ready"."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **{"preexec_fn": heeding, **options},
    )
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def end(process, *numbers):
    """The exit code, and what it printed to stderr, after these signals."""
    for number in numbers:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize("number", LINES)
def test_where_an_exception_would_be_swallowed(number):
    """A handler's exception is printed and dropped inside a finaliser, and the program goes on."""
    process = started(
        """
        import time
        from rnngen_jax import interrupts

        class Swallowing:
            def __del__(self):
                print("ready", flush=True)
                time.sleep(60)

        interrupts.install()
        Swallowing()
        print("went on")
        """
    )
    assert end(process, number) == (CODES[number], LINES[number])


@pytest.mark.parametrize("number", LINES)
def test_where_an_exception_would_be_taken_for_anothers(number, tmp_path):
    """`config_flags` makes an error of the config's own of all that its file raises."""
    config = tmp_path / "slow.py"
    config.write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    process = started(
        "import sys; from rnngen_jax import main; sys.exit(main.main())",
        "train",
        f"--config={config}",
        f"--workdir={tmp_path}/w",
    )
    assert end(process, number) == (CODES[number], LINES[number])
    assert not (tmp_path / "w").exists()


def test_the_main_thread_inside_a_library_is_not_waited_for():
    process = started(
        """
        import ctypes
        from rnngen_jax import interrupts
        interrupts.install()
        print("ready", flush=True)
        ctypes.CDLL(None).pause()  # the interpreter's own handlers run after it, if ever
        ctypes.CDLL(None).sleep(60)
        """
    )
    assert end(process, signal.SIGTERM) == (42, LINES[signal.SIGTERM])


DEFERRING = """
import sys, time
from rnngen_jax import interrupts
interrupts.install()
interrupts.set_preempted_exit_code(int(sys.argv[1]))
with interrupts.deferred():
    print("ready", flush=True)
    while interrupts.asked() is None:
        time.sleep(.01)
    print(interrupts.asked(), flush=True)
    if sys.argv[2] == "wait":
        time.sleep(60)
    if sys.argv[2] == "tell":
        interrupts.told()
sys.exit(interrupts.exit_code(0))
"""


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")]
)
def test_the_first_is_only_noted_where_there_is_something_to_save(number, name):
    process = started(DEFERRING, 42, "say")
    process.send_signal(number)
    assert process.stdout.readline() == f"{name}\n"
    assert end(process) == (CODES[number], LINES[number])


def test_who_has_told_of_it_is_not_repeated_and_the_code_is_the_users():
    process = started(DEFERRING, 7, "tell")
    assert end(process, signal.SIGTERM) == (7, "")


def test_the_second_ends_at_once():
    process = started(DEFERRING, 42, "wait")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "SIGTERM\n"
    code, err = end(process, signal.SIGINT)
    assert (code, err) == (130, "error: interrupted (Ctrl-C) before the run was saved.\n")


@pytest.mark.parametrize("number", LINES)
def test_a_command_that_is_done_keeps_its_own_code(number):
    """The interpreter, on its way out, gives signals back their default, which kills silently."""
    process = started(
        """
        import os, sys, time
        from rnngen_jax import interrupts

        class Leaving:  # when the interpreter clears its modules
            def __del__(self, write=os.write, sleep=time.sleep):
                write(1, b"ready\\n")
                sleep(1)

        interrupts.install()
        leaving = Leaving()
        sys.exit(interrupts.exit_code(3))
        """
    )
    assert end(process, number) == (3, "")


def test_an_ignored_signal_stays_ignored():
    """As `nohup` and a shell's background jobs start a process."""
    process = started(
        """
        import sys
        from rnngen_jax import interrupts
        interrupts.install()
        print("ready", flush=True)
        sys.stdin.readline()
        sys.exit(interrupts.exit_code(3))
        """,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    process.send_signal(signal.SIGINT)
    process.stdin.write("on\n")
    assert end(process) == (3, "")


def test_what_is_being_written_is_removed(tmp_path):
    (tmp_path / "out.txt").write_text("old")
    process = started(
        """
        import sys, time
        from rnngen_jax import files, interrupts
        interrupts.install()
        with files.filling(sys.argv[1] + "/folder") as folder:
            (folder / "part").touch()
            with files.replacing(sys.argv[1] + "/out.txt") as path:
                path.write_text("half")
                print("ready", flush=True)
                time.sleep(60)
        """,
        tmp_path,
    )
    assert end(process, signal.SIGINT)[0] == 130
    assert (tmp_path / "out.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["out.txt"]
    assert not list((tmp_path / "folder").iterdir())
