"""A process's link to the keeper of its run: what it says, and what it learns of the others."""

import contextlib
import errno
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rnngen_jax.errors import LOST, LostError, RunError, UserError
from rnngen_jax.files import discard_unfinished
from rnngen_jax.hosts import keeper
from rnngen_jax.hosts.place import VARIABLES, Place

_GRACE = 2.0  # seconds in which the main thread may still end the process in its own way
_PATIENCE = 10.0  # seconds in which a failed collective is explained, or others are waited for
_KEEPER = "from rnngen_jax.hosts import keeper; keeper.main()"
_open: list[socket.socket] = []  # links stay open as long as their process is there
_RETRY = 0.1  # seconds between two attempts to connect or to bind


class Link:
    """The link, which a thread keeps alive and reads.

    Once the run is over for another's sake, the main thread may be inside a collective that never
    ends, or may get an error out of it that says nothing. Either way the process ends here, with
    the reason, and without unwinding, since much of that would wait for the others, too.

    Attributes:
      service: in the first process, the port at which JAX's service has to listen on this host.
    """

    def __init__(self, place: Place, settings: Mapping[str, Any], timeout: float) -> None:
        """Joins the others, and returns when all have come.

        Args:
          place: where this process stands; the first one starts the keeper.
          settings: JSON values, flat, of which all processes must have the same.
          timeout: seconds that a process may stay away, silent or behind.

        Raises:
          UserError: the address cannot be used.
          LostError: a process has not come.
          RunError: the processes were not started alike.
        """
        self._timeout = timeout
        self._sending = threading.Lock()
        self._news = threading.Condition()
        self._ending = threading.Lock()
        self._asked = self._agreed = 0
        self._over: tuple[str, int] | None = None
        self._leaving = self._failed = self._alone = False
        self._when_over: Callable[[str], None] = lambda message: None
        self._mark = 0
        self._unread = b""
        host, _, port = place.address.rpartition(":")
        self.service = _start_keeper(int(port), place.count, timeout) if place.index == 0 else 0
        host = "127.0.0.1" if place.index == 0 else host.strip("[]")
        self._socket = self._meet((host, int(port)), place, settings)
        _open.append(self._socket)
        threading.Thread(target=self._listen, name="hosts", daemon=True).start()

    def mark(self) -> None:
        """Notes that the main thread has come one thing further; in all processes alike."""
        self._mark += 1

    def agree(self, name: str, value: Any) -> None:
        """Waits until all processes have said the same JSON value.

        Args:
          name: what it is of a process, for the message: "process 0 has NAME VALUE".
          value: this process's.

        Raises:
          RunError: another one has said another, or has failed.
          LostError: one is gone.
        """
        self._asked += 1
        self._send({"agree": name, "number": self._asked, "value": value})
        with self._news:
            self._news.wait_for(lambda: self._agreed >= self._asked or self._over is not None)
            if self._over is not None:
                raise _error(*self._over)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Ends the process with the reason if an error inside comes from the loss of another."""
        try:
            yield
        except Exception as error:
            # The word that a process is gone may come after the error that this brings about.
            patience = 1.0 if isinstance(error, UserError | RunError) else _PATIENCE
            with self._news:
                self._news.wait_for(lambda: self._over is not None, patience)
            if self._over is not None:
                self._finish()
            raise

    def when_over(self, call: Callable[[str], None]) -> None:
        """Sets what is called with the reason before the process is ended here."""
        self._when_over = call

    def leave(self, message: str = "", first: Callable[[], None] = lambda: None) -> None:
        """Says goodbye, once `first` is done.

        A process that leaves is ended by nobody's loss any more.

        Args:
          message: an error's, with which the others end, too; "" after a good end.
          first: what is to be done while the others still wait.
        """
        with self._news:
            self._leaving, self._failed = True, bool(message)
            self._news.notify_all()
        first()
        self._send({"bye": keeper.OWN_ENDS if message else 0, "message": message})

    def wait_for_others(self) -> None:
        """In the first process, waits for some time until all others have ended."""
        with self._news:
            self._news.wait_for(lambda: self._alone, _PATIENCE)

    def _meet(
        self, address: tuple[str, int], place: Place, settings: Mapping[str, Any]
    ) -> socket.socket:
        """Connects to the keeper, and waits until all have come."""
        deadline = time.monotonic() + self._timeout + _GRACE  # the keeper gives up first
        hello = {
            "index": place.index,
            "count": place.count,
            "host": socket.gethostname(),
            "settings": settings,
        }
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(OSError):
                link = socket.create_connection(address, timeout=left)
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                link.sendall(keeper.GREETING + json.dumps(hello).encode() + b"\n")
                if self._admitted(link, deadline):
                    link.settimeout(None)
                    return link
                link.close()  # by a keeper of an earlier run, that is just ending
            time.sleep(_RETRY)
        raise LostError(
            f"process 0 has not come to {place.address} within {self._timeout:g} s; see its own "
            f"messages, or {VARIABLES[0]}."
        )

    def _admitted(self, link: socket.socket, deadline: float) -> bool:
        """Whether all have come; false if the connection ends before."""
        unread = b""
        while (left := deadline - time.monotonic()) > 0:
            link.settimeout(left)
            received = link.recv(2**16)
            if not received:
                return False
            *lines, unread = (unread + received).split(b"\n")
            for line in map(json.loads, lines):
                if "over" in line:
                    lost = line["code"] == LOST
                    raise (LostError if lost else RunError)(f"{line['over']}.")
                if "go" in line:
                    self._unread = unread
                    return True
        return False

    def _send(self, line: Mapping[str, Any]) -> None:
        """Sends a line; what a broken link means is for the thread to say."""
        with self._sending, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(line).encode() + b"\n")

    def _listen(self) -> None:
        """Reads the keeper's lines and sends heartbeats, until the run is over."""
        unread, heard, pause = self._unread, time.monotonic(), keeper.beats(self._timeout)
        beaten = 0.0
        while self._over is None:
            now = time.monotonic()
            if now > beaten + pause:
                self._send({"mark": self._mark})
                beaten = now
            readable, _, _ = select.select([self._socket], [], [], pause)
            if not readable:
                if now > heard + self._timeout:
                    self._end(f"process 0's host has not been heard of for {self._timeout:g} s")
                continue
            try:
                received = self._socket.recv(2**16)
            except OSError:
                received = b""
            if not received:
                self._end("process 0's host is gone")
                break
            heard = time.monotonic()
            *lines, unread = (unread + received).split(b"\n")
            for line in map(json.loads, lines):
                with self._news:
                    self._alone |= "alone" in line
                    self._agreed = line.get("agreed", self._agreed)
                    self._news.notify_all()
                if "over" in line:
                    self._end(line["over"], line["code"])
        with self._news:
            leaving = self._news.wait_for(lambda: self._leaving, _GRACE)
        if not leaving:
            self._finish()
        if not self._failed:
            return
        # The main thread has its say; but on the way out JAX may wait for those who are gone.
        time.sleep(_PATIENCE)
        os._exit(self._over[1] if self._over else LOST)

    def _end(self, message: str, code: int = LOST) -> None:
        """Notes that the run is over."""
        with self._news:
            if self._over is None:
                self._over = (message, code)
            self._news.notify_all()

    def _finish(self) -> None:
        """Ends the process, with the reason why the run is over."""
        self._ending.acquire()  # for good: one thread does it
        message, code = self._over or ("", LOST)
        with contextlib.suppress(Exception):
            self._when_over(message)
        discard_unfinished()
        with contextlib.suppress(OSError):
            os.write(2, f"error: {_error(message, code)}\n".encode())
        os._exit(code)


def _error(message: str, code: int) -> RunError:
    """The error for a run that is over, in words."""
    if code != LOST:
        return RunError(f"{message.removesuffix('.')}.")
    return LostError(
        f"{message}. The last checkpoint is good: to go on, give the same command again on all."
    )


def _start_keeper(port: int, count: int, timeout: float) -> int:
    """Starts the keeper on this host; returns the port at which it expects JAX's service."""
    listening = _listen_at(port, min(timeout, 10.0))
    with listening, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        service = free.getsockname()[1]
        arguments = (listening.fileno(), service, count, timeout)
        subprocess.Popen(
            [sys.executable, "-c", _KEEPER, *map(str, arguments)],
            pass_fds=[listening.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    return service


def _listen_at(port: int, patience: float) -> socket.socket:
    """Listens at a port on all of this host's addresses.

    Raises:
      UserError: it is in use, also after some patience for an earlier run's keeper that is ending.
    """
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    deadline = time.monotonic() + patience
    while True:
        try:
            return socket.create_server(("", port), family=family, dualstack_ipv6=both)
        except (OSError, OverflowError) as error:
            used = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            if used and time.monotonic() < deadline:
                time.sleep(_RETRY)
                continue
            why = "is in use" if used else f"cannot be used: {error}"
            raise UserError(
                f"port {port} of this host {why}; give another one in {VARIABLES[0]}."
            ) from None
