"""A TCP proxy between a client and a server that does harm to a stream of bytes at one exact position, or delays all of it.

`Fault(direction, position, harm)` lets `position` bytes pass and does its harm to the next one, once. The bytes are counted
on the connection that first sends something after the fault was set, from then on:

    cut         both sides are closed
    half-close  the side that the bytes go to sees the end of the stream; the other direction goes on
    swallow     this byte and all that follow vanish; nothing is closed
    delay       this byte and all that follow come a little later
    late        (requests) they are held until `release`, long after the client has given up
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

HOST = "127.0.0.1"
DELAY_SECONDS = 0.002

Direction = Literal["request", "reply"]


@dataclass(eq=False)
class Fault:
    direction: Direction
    position: int
    harm: str
    fired: bool = False
    seen: int = 0
    link: Any = None
    held: list[bytes] = field(default_factory=list)
    delivered: bool = False
    settled: threading.Event = field(default_factory=threading.Event)
    """The server answered what was held."""


class Proxies:
    """A thread with the event loop that all proxies of a test run in."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._servers: list[asyncio.AbstractServer] = []
        self._links: set[_Link] = set()

    def __enter__(self) -> Proxies:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def open(self, server: str | tuple[str, int], latency: float = 0.0) -> Proxy:
        """A proxy for a unix socket or a port; `latency`: seconds that all bytes take longer, each way."""
        return self._run(self._open(server, latency))

    async def _open(self, server: str | tuple[str, int], latency: float) -> Proxy:
        proxy = Proxy(self._loop, server, latency, self._links)
        listening = await self._loop.create_server(lambda: _Link(proxy).client, HOST, 0)
        self._servers.append(listening)
        proxy.port = listening.sockets[0].getsockname()[1]
        return proxy

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for link in list(self._links):
            link.close()
        await asyncio.sleep(0)


class Proxy:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, server: str | tuple[str, int], latency: float, links: set[_Link]
    ) -> None:
        self.loop, self.server, self.latency, self.links = loop, server, latency, links
        self.port = 0
        self.fault: Fault | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def set(self, direction: Direction, position: int, harm: str) -> Fault:
        self.fault = Fault(direction, position, harm)
        return self.fault

    def release(self) -> None:
        """Deliver what a `late` fault holds, and wait for the server to answer it."""
        fault = self.fault
        assert fault is not None
        assert fault.fired
        self.loop.call_soon_threadsafe(fault.link.deliver, fault)
        assert fault.settled.wait(10), "the server does not answer what came late"


class _End(asyncio.Protocol):
    """One of the two connections of a link."""

    def __init__(self, link: _Link, sends: Direction) -> None:
        self.link, self.sends = link, sends
        self.transport: Any = None
        self.early: list[bytes] = []
        self.lost = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        for chunk in self.early:
            transport.write(chunk)
        self.link.made(self)

    def data_received(self, chunk: bytes) -> None:
        self.link.received(self, chunk)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self.link.lost(self)

    def write(self, chunk: bytes) -> None:
        if self.lost or not chunk:
            return
        if self.transport is None:
            self.early.append(chunk)
        else:
            self.transport.write(chunk)

    def end(self) -> None:
        """The stream to it ends."""
        if self.transport is not None and not self.lost and self.transport.can_write_eof():
            self.transport.write_eof()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class _Link:
    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.client, self.server = _End(self, "request"), _End(self, "reply")
        self._harmed: Fault | None = None
        self._connecting: Any = None
        proxy.links.add(self)

    def made(self, end: _End) -> None:
        if end is self.client:
            loop, server = self._proxy.loop, self._proxy.server
            connect = (
                loop.create_unix_connection(lambda: self.server, server)
                if isinstance(server, str)
                else loop.create_connection(lambda: self.server, *server)
            )
            self._connecting = loop.create_task(connect)
        elif self.client.lost:
            end.close()

    def received(self, end: _End, chunk: bytes) -> None:
        fault, proxy = self._proxy.fault, self._proxy
        harmed = self._harmed
        if harmed is not None and harmed.direction == end.sends:
            harmed.held.append(chunk)
            return
        if harmed is not None and harmed.delivered:
            harmed.settled.set()
            self.close()
            return
        if fault is not None and not fault.fired:
            if end is self.client and fault.link is None:
                fault.link = self
            if fault.link is self and end.sends == fault.direction:
                begin, fault.seen = fault.seen, fault.seen + len(chunk)
                if fault.seen > fault.position:
                    fault.fired, self._harmed = True, fault
                    cut = fault.position - begin
                    self._harm(fault, end, chunk[:cut], chunk[cut:])
                    return
        if proxy.latency:
            proxy.loop.call_later(proxy.latency, self._other(end).write, chunk)
        else:
            self._other(end).write(chunk)

    def _harm(self, fault: Fault, end: _End, passing: bytes, harmed: bytes) -> None:
        other = self._other(end)
        other.write(passing)
        if fault.harm == "cut":
            self.close()
        elif fault.harm == "half-close":
            other.end()
        fault.held.append(harmed)
        if fault.harm == "delay":
            self._proxy.loop.call_later(DELAY_SECONDS, self._pass_on, fault, other)

    def _pass_on(self, fault: Fault, end: _End) -> None:
        self._harmed = None
        end.write(b"".join(fault.held))

    def deliver(self, fault: Fault) -> None:
        fault.delivered = True
        self.server.write(b"".join(fault.held))
        if self.server.lost:
            fault.settled.set()

    def _other(self, end: _End) -> _End:
        return self.server if end is self.client else self.client

    def lost(self, end: _End) -> None:
        harmed = self._harmed
        if end is self.client and harmed is not None and harmed.harm == "late" and not harmed.settled.is_set():
            return  # the server shall still get what is held
        if end is self.server and harmed is not None:
            harmed.settled.set()
        self.close()

    def close(self) -> None:
        self.client.close()
        self.server.close()
        if self.client.lost and (self.server.lost or self.server.transport is None):
            self._proxy.links.discard(self)
