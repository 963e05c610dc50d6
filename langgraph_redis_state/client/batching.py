"""Calls of many tasks of one event loop, sent together.

A call that is sent alone costs a connection of redis-py, a packet, timers and turns of the loop: half the time of a small put.
So while several calls are under way, calls that become ready in the same turn of the loop leave in one packet, on one
connection. A few calls, large calls, and calls on a client that the caller gave are sent alone.

State: nothing on the server. Each event loop holds the calls that wait for the end of its turn (microseconds).
Round trips: one a packet. A packet is no transaction: each script is atomic, and scripts of others may run between two of them.
Cancellation: a packet has its own task, so a cancelled caller does not take the connection from the others. A call that is
cancelled before it is sent is not sent, also if the packet is repeated. If it was sent, its reply is read and dropped. If all
callers are cancelled, so is the packet. If the loop stops, the callers are cancelled.
Errors: if the connection breaks, redis-py repeats the packet, and every script may be repeated. A call that the server answers
with an error is sent again alone. If one call prevents that the packet is sent, each call is sent alone. So the client and the
driver handle an error for its call only.

Replies are matched by position, and each call checks its token.
"""

from __future__ import annotations

import asyncio
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from sys import getsizeof
from typing import Any

from ..effects import Call
from .library import AsyncClient, is_named

FEW = 4
"""Fewer concurrent calls than this are faster if each is sent alone."""

PACKET_CALLS = 16
"""Most calls in one packet. The server serves no other connection until it has run them all (about 1 ms), and the loop works on
the replies of the packet before in that time."""

PACKET_BYTES = 128 * 1024

CALL_BYTES = 32 * 1024
"""A call with more bytes of arguments is sent alone, since the calls behind it would wait for it."""

ALONE = object()
"""The reply to a call that found no others to share a packet with: its caller sends it."""

NOTHING: tuple[tuple[str, ...], dict[str, Any]] = (("PING",), {})
"""What redis-py sends instead of a call that was cancelled."""


@dataclass(slots=True, eq=False)
class _Waiting:
    call: Call
    bytes: int
    reply: asyncio.Future[Any]
    """The server's reply, an error of the server or of the connection, or ALONE."""
    packet: _Packet | None = None


@dataclass(slots=True, eq=False)
class _Packet:
    calls: list[_Waiting]
    task: asyncio.Task[list[Any]] | None = None
    commands: list[Any] = field(default_factory=list)
    """What redis-py sends, at the first attempt and at each repetition."""

    def withdraw(self, given_up: _Waiting) -> None:
        if self.commands:
            self.commands[self.calls.index(given_up)] = NOTHING
        if self.task is not None and all(each.reply.done() for each in self.calls):
            self.task.cancel()


class Batches:
    """The calls of one event loop, all on one client."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._under_way = 0
        self._packets: set[asyncio.Task[list[Any]]] = set()  # the loop holds tasks by weak references only

    async def reply(self, client: AsyncClient, call: Call) -> object:
        """Sends a call, alone or in a packet with others: the server's reply."""
        if self._under_way + len(self._waiting) >= FEW:
            size = sum(map(getsizeof, call.args))
            if size <= CALL_BYTES:
                waiting = _Waiting(call, size, asyncio.get_running_loop().create_future())
                try:
                    reply = await self._together(client, waiting)
                except asyncio.CancelledError:
                    if waiting.packet is not None:
                        waiting.packet.withdraw(waiting)
                    raise
                if isinstance(reply, BaseException):
                    if _of_the_connection(reply):
                        # a copy for each caller: one shared error would collect the frames of them all, with their variables
                        raise copy(reply) from reply
                elif reply is not ALONE:
                    return reply
        self._under_way += 1
        try:
            return await client.evalsha(call.script.sha, *call.arguments)
        finally:
            self._under_way -= 1

    def _together(self, client: AsyncClient, waiting: _Waiting) -> asyncio.Future[Any]:
        if not self._waiting:
            waiting.reply.get_loop().call_soon(self._send, client)
        self._waiting.append(waiting)
        return waiting.reply

    def _send(self, client: AsyncClient) -> None:
        """Sends the waiting calls in packets. Calls that read come last, since their replies may be large."""
        waiting, self._waiting = self._waiting, []
        packet: list[_Waiting] = []
        size = 0
        for each in sorted(waiting, key=lambda each: not each.call.script.writes):
            if each.reply.cancelled():
                continue
            if len(packet) == PACKET_CALLS or size + each.bytes > PACKET_BYTES:
                self._start(client, packet)
                packet, size = [], 0
            packet.append(each)
            size += each.bytes
        self._start(client, packet)

    def _start(self, client: AsyncClient, packet: list[_Waiting]) -> None:
        if len(packet) < 2:
            for each in packet:
                each.reply.set_result(ALONE)
            return
        self._under_way += len(packet)
        sent = _Packet(packet)
        for each in packet:
            each.packet = sent
        sent.task = asyncio.get_running_loop().create_task(_exchange(client, sent))
        self._packets.add(sent.task)
        sent.task.add_done_callback(partial(self._settle, packet))

    def _settle(self, packet: list[_Waiting], task: asyncio.Task[list[Any]]) -> None:
        self._packets.discard(task)
        self._under_way -= len(packet)
        for each in packet:
            each.packet = None  # breaks a reference cycle, so that the calls are freed now
        if task.cancelled():
            for each in packet:
                each.reply.cancel()
            return
        error = task.exception()
        replies = task.result() if error is None else [error] * len(packet)
        for each, reply in zip(packet, replies, strict=True):
            if not each.reply.done():
                each.reply.set_result(reply)


async def _exchange(client: AsyncClient, packet: _Packet) -> list[Any]:
    async with client.pipeline(transaction=False) as pipeline:
        for each in packet.calls:
            pipeline.execute_command("EVALSHA", each.call.script.sha, *each.call.arguments)
        packet.commands = pipeline.command_stack
        for each in packet.calls:
            if each.reply.cancelled():
                packet.withdraw(each)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies


def _of_the_connection(error: BaseException) -> bool:
    """Whether the error concerns the whole packet. Any other error is that of one call."""
    return is_named(error, "ConnectionError", "TimeoutError", "OSError") or not isinstance(error, Exception)
