"""The keeper: a small process beside a run's first one, at which all its processes meet.

It listens at the run's address. A process that comes opens a link to it, over which it sends lines
of JSON, and learns when all have come, that they were started alike, and when one of them is gone,
has stalled or has failed. JAX's own clients come to the same address, since a cluster may let only
one port through; their connections are passed on to the service inside the first process. They
stay open when that process is gone: JAX would end every other one at once, with a dump of its
stack, where the keeper says who is gone.

Whoever reaches the port can end the run, as with JAX's own service: a cluster's network is trusted.

`main` takes four arguments: the file descriptor of the listening socket, the service's port on this
host, the number of processes, and the seconds that a process may stay away, silent or behind. It
needs little more than the standard library, so that it starts at once.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rnngen_jax.errors import LOST

GREETING = b"rnngen "  # a link's first bytes; JAX's are those of HTTP/2
MOST_BYTES = 2**20  # of a line
OWN_ENDS = 1  # exit code of those whose run another has ended by an error of its own


def beats(timeout: float) -> float:
    """The seconds between two heartbeats."""
    return min(5.0, timeout / 4)


@dataclass
class _Process:
    """One process of the run, by its link.

    Attributes:
      writer: the link.
      host: its host's name.
      settings: how it was started, flat.
      heard: time of its newest line.
      mark: how far its main thread has come; it only rises.
      marked: time of the newest rise.
      left: whether it has said goodbye, so that it is not missed.
      gone: whether its link is closed.
    """

    writer: asyncio.StreamWriter
    host: str
    settings: Mapping[str, Any]
    heard: float = field(default_factory=time.monotonic)
    mark: int = 0
    marked: float = field(default_factory=time.monotonic)
    left: bool = False
    gone: bool = False


@dataclass
class _Keeper:
    """The state of the meeting.

    Attributes:
      count, timeout: as the module's arguments.
      service: port of JAX's service on this host.
      processes: those who have come, by number.
      agreements: by number, what each process has said.
      started: whether all have come.
      over: the line that says that the run is over and why, once it is.
      ended: when that was.
      changed: set when something has changed that the watch may have to see.
    """

    count: int
    timeout: float
    service: int
    processes: dict[int, _Process] = field(default_factory=dict)
    agreements: dict[int, dict[int, Any]] = field(default_factory=dict)
    started: bool = False
    over: dict[str, Any] | None = None
    ended: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def name(self, index: int) -> str:
        """A process in words."""
        return f"process {index} on {self.processes[index].host}"

    def all_gone(self, but: int | None = None) -> bool:
        """Whether of those who have come, nobody is there any more, apart from one of them."""
        return all(each.gone for index, each in self.processes.items() if index != but)

    def tell(self, line: Mapping[str, Any]) -> None:
        """Sends a line to every process."""
        for each in self.processes.values():
            _send(each.writer, line)

    def end(self, message: str, code: int) -> None:
        """Tells everybody that the run is over, and why; the first reason counts."""
        if self.over is None:
            self.over, self.ended = {"over": message, "code": code}, time.monotonic()
            self.tell(self.over)
        self.changed.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        # Whatever a stranger sends to this port ends its own connection alone.
        with contextlib.suppress(OSError, EOFError, ValueError, KeyError, TypeError):
            first = await reader.readexactly(len(GREETING))
            if first == GREETING:
                await self.link(reader, writer)
                return
            await self.relay(first, reader, writer)
        writer.close()

    async def relay(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Passes a connection on to JAX's service, and keeps it open when that is gone."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                inner, outer = await asyncio.open_connection("127.0.0.1", self.service)
                break
            except OSError:  # the first process has not started it yet
                if time.monotonic() > deadline:
                    return
                await asyncio.sleep(0.05)
        outer.write(first)
        back = asyncio.create_task(_pump(inner, writer))
        await _pump(reader, outer)
        outer.close()
        await back
        while not self.all_gone():
            self.changed.clear()
            await self.changed.wait()

    async def link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reads the lines of one process until it is gone."""
        hello = json.loads(await reader.readline())
        index = hello["index"]
        own = _Process(writer, hello["host"], hello["settings"])
        refused = self.refusal(index, hello)
        if refused is not None:
            self.end(refused, OWN_ENDS)
        if self.over is not None:
            _send(writer, self.over)
            await writer.drain()
            return
        self.processes[index] = own
        if len(self.processes) == self.count:
            self.started = True
            self.tell({"go": True})
        self.changed.set()
        try:
            while line := await reader.readline():
                own.heard = time.monotonic()
                self.hear(index, own, json.loads(line))
        except (OSError, ValueError):
            pass  # a connection that breaks, like one that ends
        writer.close()
        own.gone = True
        if not own.left:
            self.end(f"{self.name(index)} is gone", LOST)
        if self.started and 0 in self.processes and self.all_gone(but=0):
            _send(self.processes[0].writer, {"alone": True})
        self.changed.set()

    def refusal(self, index: int, hello: Mapping[str, Any]) -> str | None:
        """Why a process does not belong to this run; `None` if it does."""
        if hello["count"] != self.count:
            return (
                f"process {index} was started as one of {hello['count']}, the first as one of "
                f"{self.count}; JAX_NUM_PROCESSES must be the same for all"
            )
        if index in self.processes:
            return (
                f"two processes, on {self.processes[index].host} and {hello['host']}, were started "
                f"as number {index}; JAX_PROCESS_ID must be another for each"
            )
        for other, known in sorted(self.processes.items()):
            wrong = _difference(known.settings, hello["settings"])
            if wrong is not None:
                name, first, second = wrong
                return (
                    f"process {other} has {name}={_shown(first)}, process {index} has "
                    f"{_shown(second)}; start all processes alike"
                )
        return None

    def hear(self, index: int, own: _Process, line: Mapping[str, Any]) -> None:
        """Takes in one line of a process."""
        if "mark" in line and line["mark"] > own.mark:
            own.mark, own.marked = line["mark"], own.heard
        if "bye" in line:
            own.left = True
            if line.get("message"):
                self.end(f"{self.name(index)} has ended: {line['message']}", line["bye"])
        if "agree" in line:
            said = self.agreements.setdefault(line["number"], {})
            said[index] = line["value"]
            if len(said) == self.count:
                self.compare(line["agree"], said)
                self.tell({"agreed": line["number"]})

    def compare(self, name: str, said: Mapping[int, Any]) -> None:
        """Ends a run whose processes do not agree."""
        for index in range(1, self.count):
            if said[index] != said[0]:
                self.end(
                    f"{self.name(0)} has {name} {_shown(said[0])}, {self.name(index)} has "
                    f"{_shown(said[index])}; give all of them the same --workdir, on a disk that "
                    "they share",
                    OWN_ENDS,
                )
                return

    async def watch(self) -> None:
        """Looks after the processes until all have left."""
        begin = time.monotonic()
        while not ((self.started or self.over) and self.all_gone()):
            now = time.monotonic()
            self.tell({})
            message = None if self.over else self.trouble(now, begin)
            if message is not None:
                self.end(message, LOST)
            if self.over and now > self.ended + self.timeout:
                return
            await asyncio.sleep(beats(self.timeout) / 2)

    def trouble(self, now: float, begin: float) -> str | None:
        """Who is missing, silent or stalled, in words; `None` if nobody is."""
        if not self.started:
            missing = [str(n) for n in range(self.count) if n not in self.processes]
            if not missing or now < begin + self.timeout:
                return None
            several = len(missing) > 1
            which = (
                f"processes {', '.join(missing)} have" if several else f"process {missing[0]} has"
            )
            return f"{which} not come within {self.timeout:g} s"
        here = self.processes.items()
        there = {index: each for index, each in here if not (each.left or each.gone)}
        for index, each in there.items():
            if now > each.heard + self.timeout:
                return f"{self.name(index)} has not been heard of for {self.timeout:g} s"
        if not there:
            return None
        index = min(there, key=lambda number: there[number].mark)
        # Those that are further on wait for it, and have done so for as long as this.
        waiting = [each.marked for each in there.values() if each.mark > there[index].mark]
        since = max(there[index].marked, min(waiting, default=now))
        if waiting and now > since + self.timeout:
            return f"{self.name(index)} has stalled for {self.timeout:g} s, and the others wait"
        return None


def _send(writer: asyncio.StreamWriter, line: Mapping[str, Any]) -> None:
    """Sends a line, if the connection is still there."""
    if not writer.is_closing():
        writer.write(json.dumps(line).encode() + b"\n")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies bytes from one connection to another until the first ends."""
    with contextlib.suppress(OSError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first name under which two flat mappings differ, with both values."""
    for name in [*first, *(name for name in second if name not in first)]:
        if first.get(name) != second.get(name):
            return name, first.get(name), second.get(name)
    return None


def _shown(value: Any) -> str:
    """A value in a message; text without quotes, as on the command line."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


async def _keep(listening: socket.socket, service: int, count: int, timeout: float) -> None:
    """Keeps one run."""
    keeper = _Keeper(count, timeout, service)
    server = await asyncio.start_server(keeper.serve, sock=listening, limit=MOST_BYTES)
    await keeper.watch()
    server.close()
    await asyncio.sleep(0.2)  # for the last words to go out
    os._exit(0)  # connections that are still open end with it


def main() -> None:
    """Keeps a run, with the arguments that the module says."""
    # What ends the run's processes must leave it time to say so.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    descriptor, service, count, timeout = sys.argv[1:]
    listening = socket.socket(fileno=int(descriptor))
    asyncio.run(_keep(listening, int(service), int(count), float(timeout)))
