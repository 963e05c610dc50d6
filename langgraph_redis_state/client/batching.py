"""Calls of many tasks of one event loop, sent together.

By itself each call takes a connection of redis-py, a packet, timers and turns of the loop: as much as all else a small put
costs. So while several calls are under way, those that get ready in the same turn of the loop leave in one packet on one
connection. Few calls, large ones, and those on a client that was given go each by itself, as if this was not here.

What there is: nothing on the server; here, for each event loop, the calls that wait for the end of its turn: microseconds.
Round trips: one for each packet. It is no transaction: each script is atomic, what others send may come between them.
Cut in the middle: a packet has a task of its own, so a caller that is cancelled leaves the connection to the others: its call
is not sent any more, neither by a packet that waits for a connection nor by one that is repeated; if it was sent, its reply is
read and dropped. With its last caller the packet is cancelled. When the connection breaks, redis-py repeats the packet, and
every script may be repeated. A call that is answered with an error is made again, alone, and so is each of a packet that cannot
be sent because of one: whatever the client or the driver does about an error, they do it for that call only. When the loop is
stopped, the callers are cancelled.

Replies are handed out by position; whether one belongs to the call, its token tells.
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
"""So many calls at once are quicker each by itself."""

PACKET_CALLS = 16
"""Most calls in one packet: a server works through them, for about 1 ms, before it looks at another connection, and while it
does, the loop works on the replies to those of the packet before."""

PACKET_BYTES = 128 * 1024

CALL_BYTES = 32 * 1024
"""A call with arguments of more bytes goes by itself, since those behind it would wait for it."""

ALONE = object()
"""Nothing else left with this call."""

NOTHING: tuple[tuple[str, ...], dict[str, Any]] = (("PING",), {})
"""What redis-py sends in the place of a call that nobody waits for any more."""


@dataclass(slots=True, eq=False)
class _Waiting:
    call: Call
    bytes: int
    reply: asyncio.Future[Any]
    """What the server replied, the error of it or of the connection, or ALONE."""
    packet: _Packet | None = None


@dataclass(slots=True, eq=False)
class _Packet:
    calls: list[_Waiting]
    task: asyncio.Task[list[Any]] | None = None
    commands: list[Any] = field(default_factory=list)
    """What redis-py sends, each time it sends."""

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
        self._packets: set[asyncio.Task[list[Any]]] = set()  # the loop itself refers to tasks but weakly

    async def reply(self, client: AsyncClient, call: Call) -> object:
        """What the server replies to a call, in a packet with others or by itself."""
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
                        # raised itself by each, it would gather the frames of all of them, with what is in their states
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
        """What waits, in packets. Calls that read come last, since replies to them may be large."""
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
            each.packet = None  # which refers to it: the calls go now, not when such circles are looked for
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
    """Whether each call of the packet would have met the error. Any other one is that of some call."""
    return is_named(error, "ConnectionError", "TimeoutError", "OSError") or not isinstance(error, Exception)
