"""Processes that meet at a keeper: all come, or somebody is named."""

import json
import signal
import socket
import subprocess
import sys
import time

import pytest

from rnngen_jax.hosts import keeper

# A process of a run: joins, says what it has done, and does what it is told on its stdin.
PROCESS = """
import contextlib, sys, time
from rnngen_jax.errors import LostError, RunError, UserError
from rnngen_jax.hosts.link import Link
from rnngen_jax.hosts.place import Place

address, count, index, timeout, rate = sys.argv[1:]
place = Place(address, int(count), int(index))
try:
    link = Link(place, {"rate": float(rate), "name": "vae"}, float(timeout))
    link.when_over(lambda message: print("over:", message, flush=True))
    print("joined", flush=True)
    for line in sys.stdin:
        with link.explained():
            exec(line)
        print("ok", flush=True)
except LostError as error:
    print(f"lost: {error}", flush=True)
    sys.exit(43)
except (RunError, UserError) as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    sys.exit(1)
"""


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def start(address):
    started = []

    def start(index, count=2, timeout=2.0, rate=0.5):
        arguments = (address, count, index, timeout, rate)
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def tell(process, line):
    process.stdin.write(line + "\n")
    process.stdin.flush()


def answer(process):
    return process.stdout.readline().strip()


def joined(*processes):
    for process in processes:
        assert answer(process) == "joined"


def end(process):
    """Its exit code, and all that it still says."""
    out, err = process.communicate(timeout=30)
    return process.returncode, out.strip(), err.strip()


def test_all_come_agree_and_leave(start):
    second, third, first = start(1, 3), start(2, 3), start(0, 3)  # in any order
    joined(first, second, third)
    for step in (7, 8):  # each time anew
        for process in (first, second, third):
            tell(process, f"link.agree('its step', {step})")
        assert [answer(process) for process in (first, second, third)] == ["ok"] * 3
    for process in (first, second, third):
        tell(process, "link.leave()")
        assert answer(process) == "ok"
    tell(first, "link.wait_for_others(); print(time.monotonic())")
    time.sleep(1)
    ended = time.monotonic()
    for process in (second, third):
        assert end(process) == (0, "", "")
    assert float(answer(first)) > ended  # the first waits, since JAX's service is inside it
    assert answer(first) == "ok"
    assert end(first) == (0, "", "")


def test_one_that_has_left_is_not_missed(start):
    first, second = start(0), start(1)
    joined(first, second)
    tell(second, "link.leave()")
    assert answer(second) == "ok"
    assert end(second)[0] == 0
    time.sleep(2.5)
    tell(first, "link.leave()")
    assert answer(first) == "ok"
    assert end(first) == (0, "", "")


def test_one_that_has_ended_well_keeps_its_code_whoever_is_lost_after(start):
    first, second = start(0), start(1)
    joined(first, second)
    tell(first, "from rnngen_jax.hosts import link as module; module._PATIENCE = 0.2")
    assert answer(first) == "ok"
    tell(first, "link.leave(); time.sleep(1.5)")
    time.sleep(0.3)
    second.kill()
    assert answer(first) == "ok"
    assert end(first) == (0, "", "")


@pytest.mark.parametrize("gone", [0, 1])
def test_one_is_killed(start, gone):
    processes = start(0), start(1)
    joined(*processes)
    other = processes[1 - gone]
    tell(other, "time.sleep(60)")  # as in a collective that never ends
    processes[gone].kill()
    code, out, err = end(other)
    assert (code, out.startswith(f"over: process {gone} on ")) == (43, True), (out, err)
    assert err == (
        f"error: process {gone} on {socket.gethostname()} is gone. The last checkpoint is good: to "
        "go on, give the same command again on all."
    )


def test_an_error_of_a_collective_is_explained(start):
    first, second = start(0), start(1)
    joined(first, second)
    tell(first, "time.sleep(0.5); raise ValueError('read error from peer')")
    second.kill()
    code, out, err = end(first)
    assert (code, err.count("\n")) == (43, 0)
    assert "process 1 on" in err
    assert "ValueError" not in out + err


def test_an_error_of_ones_own_ends_the_others(start):
    first, second = start(0), start(1)
    joined(first, second)
    tell(first, "time.sleep(60)")
    tell(second, "link.leave('no such folder: /data.'); sys.exit(2)")
    code, _, err = end(first)
    where = f"process 1 on {socket.gethostname()}"
    assert (code, err) == (1, f"error: {where} has ended: no such folder: /data.")
    assert end(second)[0] == 2


def test_one_stops(start):
    first, second = start(0), start(1)
    joined(first, second)
    tell(first, "time.sleep(60)")
    second.send_signal(signal.SIGSTOP)
    code, _, err = end(first)
    assert (code, "has not been heard of for 2 s" in err) == (43, True)
    assert "process 1 on" in err


def test_one_stays_behind(start):
    first, second = start(0), start(1)
    joined(first, second)
    for _ in range(3):  # the same in both
        for process in (first, second):
            tell(process, "link.mark()")
            assert answer(process) == "ok"
    time.sleep(3)  # nobody is behind
    tell(first, "link.mark(); time.sleep(60)")
    tell(second, "time.sleep(60)")
    code, _, err = end(first)
    assert (code, "process 1 on" in err) == (43, True)
    assert "has stalled for 2 s, and the others wait" in err
    assert end(second)[0] == 43


def test_one_does_not_come(start):
    first = start(0, 3, timeout=1.0)
    second = start(1, 3, timeout=1.0)
    for process in (first, second):
        assert end(process)[:2] == (43, "lost: process 2 has not come within 1 s.")


def test_the_first_does_not_come(start, address):
    assert end(start(1, timeout=1.0))[:2] == (
        43,
        f"lost: process 0 has not come to {address} within 1 s; see its own messages, or "
        "JAX_COORDINATOR_ADDRESS.",
    )


def test_other_settings(start):
    first, second = start(0, rate=0.005), start(1, rate=0.5)
    both = {process: end(process) for process in (first, second)}
    lines = {out for _, out, _ in both.values()}
    assert [code for code, _, _ in both.values()] == [1, 1]
    assert len(lines) == 1
    assert lines.pop() in (
        "RunError: process 0 has rate=0.005, process 1 has 0.5; start all processes alike.",
        "RunError: process 1 has rate=0.5, process 0 has 0.005; start all processes alike.",
    )


def test_another_number_of_processes(start):
    second, first = start(1, 3), start(0, 2)
    assert "process 1 was started as one of 3, the first as one of 2" in end(second)[1]
    assert end(first)[0] == 1


def test_the_same_number_twice(start):
    first, second, third = start(0, 3), start(1, 3), start(1, 3)
    outs = [end(process)[1] for process in (first, second, third)]
    assert all("were started as number 1; JAX_PROCESS_ID" in out for out in outs)


def test_they_do_not_agree(start):
    first, second = start(0), start(1)
    joined(first, second)
    tell(first, "link.agree('its newest checkpoint at step', 40)")
    tell(second, "link.agree('its newest checkpoint at step', None)")
    host = socket.gethostname()
    expected = (
        f"process 0 on {host} has its newest checkpoint at step 40, process 1 on {host} has none; "
        "give all of them the same --workdir, on a disk that they share."
    )
    for process in (first, second):
        code, out, err = end(process)
        assert (code, expected in out + err) == (1, True)


def test_a_port_that_is_in_use(address):
    with socket.create_server(("", int(address.rpartition(":")[2]))):
        code = f"from rnngen_jax.hosts import link; link._start_keeper({address[10:]}, 2, 1.0)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "is in use; give another one in JAX_COORDINATOR_ADDRESS." in done.stderr


@pytest.fixture
def kept():
    """A keeper of two processes; yields its port and the listening socket of its service."""
    listening, service = socket.create_server(("127.0.0.1", 0)), socket.create_server(("", 0))
    service.settimeout(10)
    code = "from rnngen_jax.hosts import keeper; keeper.main()"
    arguments = (listening.fileno(), service.getsockname()[1], 2, 2.0)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], pass_fds=[listening.fileno()]
    )
    yield listening.getsockname()[1], service, process
    process.kill()
    process.wait()
    listening.close()
    service.close()


def greet(port, index):
    link = socket.create_connection(("127.0.0.1", port), timeout=10)
    hello = {"index": index, "count": 2, "host": "h", "settings": {}}
    link.sendall(keeper.GREETING + json.dumps(hello).encode() + b"\n")
    return link


def test_jaxs_connections_are_passed_on_and_outlive_the_service(kept):
    port, service, process = kept
    links = [greet(port, index) for index in (0, 1)]
    client = socket.create_connection(("127.0.0.1", port), timeout=1)
    client.sendall(b"PRI * HTTP/2.0 and more")
    inside, _ = service.accept()
    inside.settimeout(10)
    assert inside.makefile("rb").read(23) == b"PRI * HTTP/2.0 and more"
    inside.sendall(b"answer")
    assert client.recv(100) == b"answer"
    inside.close()
    with pytest.raises(TimeoutError):  # neither data nor an end
        client.recv(100)
    for link in links:
        link.sendall(b'{"bye": 0}\n')
    with pytest.raises(TimeoutError):  # they may still talk to the service
        client.recv(100)
    for link in links:
        link.close()
    assert process.wait(10) == 0
    assert client.recv(100) == b""


def test_strangers_do_no_harm(kept):
    port, _, process = kept
    for words in (b"rnngen {}\n", b"rnngen []\n", b"rnngen not JSON\n", b"rnngen ", b"GET"):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger:
            stranger.sendall(words)
    first, second = greet(port, 0), greet(port, 1)
    received = b""
    while b"go" not in received:
        received += first.recv(1000)
    assert process.poll() is None
    second.close()
    received = b""
    while b"over" not in received:
        received += first.recv(1000)
    assert b"process 1 on h is gone" in received
