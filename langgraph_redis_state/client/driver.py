"""Performs operations: sends the reply to each effect into the operation, or throws the translated error into it.

`perform` turns effects into steps (exchange.py). `run` performs the steps by blocking, `arun` by awaiting, and the sync and the
async methods of the saver differ in nothing else. `stream` and `astream` yield the items of a stream.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import closing, suppress
from typing import Any, TypeVar

from ..effects import Await, Call, Calls, Compute, Note, Operation, Read, ReplyMismatch, Scan, Stream, emitted
from ..errors import CheckpointerError, ServerRefusedError, ServerUnavailableError
from .confirming import confirmed
from .connection import Connection
from .direct import by_pipeline
from .exchange import ByText, Connect, Disconnect, Exchange, Look, Pause, Send, Step, called, looked, read, scanned, together
from .library import AsyncClient, SyncClient, in_cluster
from .telemetry import named, watched
from .translation import MOVING_SECONDS, said_by, slot_moves, translated
from .workarounds import client_of_node, close_idle, close_idle_async, send_to_node

T = TypeVar("T")

BLOCKING = sys.maxsize
"""The size of work that waits for the network."""

MOVING_PAUSE = 0.1

AWAIT_SECONDS = 5.0
"""A task or thread waits so long at a time for another one, which may be held up by itself."""


def run(operation: Operation[T], connection: Connection, verb: str = "") -> T:
    """Performs an operation, blocking. `verb`: what telemetry says of it, if not its name."""
    client: Any = None
    reply: Any = None
    error: Exception | None = None
    with closing(perform(operation, connection, verb)) as going:
        while True:
            try:
                step = going.send(reply) if error is None else going.throw(error)
            except StopIteration as stop:
                result: T = stop.value
                return result
            reply = error = None
            try:
                if isinstance(step, Call):
                    reply = client.evalsha(step.script.sha, *step.arguments)
                elif isinstance(step, Connect):
                    client = reply = connection.client()
                else:
                    reply = _waited(client, step)
            except Exception as caught:  # noqa: BLE001 - thrown into the exchange, never dropped
                error = caught


def _waited(client: SyncClient, step: Step) -> Any:
    if isinstance(step, Look):
        return client.evalsha_ro(step.call.script.sha, *step.call.arguments)
    if isinstance(step, ByText):
        return (client.eval_ro if step.read_only else client.eval)(step.call.script.source.encode(), *step.call.arguments)
    if isinstance(step, Compute):
        return step.work()
    if isinstance(step, Await):
        wait([step.future], AWAIT_SECONDS)
        return None
    if isinstance(step, Send):
        if step.node is not None:
            return by_pipeline(client_of_node(client, step.node), step.commands)
        packet = getattr(client, "packet", None)  # of clients that are made here
        return by_pipeline(client, step.commands) if packet is None else packet(step.commands)
    return time.sleep(step.seconds) if isinstance(step, Pause) else close_idle(client)


async def arun(operation: Operation[T], connection: Connection, verb: str = "") -> T:
    """Performs an operation on the running event loop. `verb`: what telemetry says of it, if not its name."""
    client: Any = None
    reply: Any = None
    error: Exception | None = None
    with closing(perform(operation, connection, verb)) as going:
        while True:
            try:
                step = going.send(reply) if error is None else going.throw(error)
            except StopIteration as stop:
                result: T = stop.value
                return result
            reply = error = None
            try:
                if isinstance(step, Call):
                    batches = connection.batches(client)
                    sent = client.evalsha(step.script.sha, *step.arguments) if batches is None else batches.reply(client, step)
                    reply = await sent
                elif isinstance(step, Connect):
                    client = reply = connection.async_client()
                    if in_cluster(client):  # it loads its slots at first use, which fails if several tasks do so at once
                        await client.initialize()
                else:
                    reply = await _awaited(client, step)
            except Exception as caught:  # noqa: BLE001 - thrown into the exchange, never dropped
                error = caught


async def _done(future: Future[None]) -> None:
    """Waits for a future of any thread, AWAIT_SECONDS at most."""
    if future.done():
        return
    loop, woken = asyncio.get_running_loop(), asyncio.Event()

    def wake(_: object) -> None:
        with suppress(RuntimeError):  # the loop was closed, so nobody waits there
            loop.call_soon_threadsafe(woken.set)

    future.add_done_callback(wake)
    timer = loop.call_later(AWAIT_SECONDS, woken.set)
    try:
        await woken.wait()
    finally:
        timer.cancel()


async def _awaited(client: AsyncClient, step: Step) -> Any:
    if isinstance(step, Look):
        return await client.evalsha_ro(step.call.script.sha, *step.call.arguments)
    if isinstance(step, ByText):
        return await (client.eval_ro if step.read_only else client.eval)(step.call.script.source.encode(), *step.call.arguments)
    if isinstance(step, Compute):
        return await asyncio.to_thread(step.work)
    if isinstance(step, Await):
        return await _done(step.future)
    if isinstance(step, Send):
        if step.node is not None:
            return await send_to_node(step.node, step.commands)
        async with client.pipeline(transaction=False) as pipeline:
            for command in step.commands:
                pipeline.execute_command(*command)
            return await pipeline.execute(raise_on_error=False)
    return await (asyncio.sleep(step.seconds) if isinstance(step, Pause) else close_idle_async(client))


def stream(operation: Stream, connection: Connection, verb: str = "") -> Iterator[Any]:
    """Performs a stream, blocking: yields its items."""
    try:
        while (items := run(emitted(operation), connection, verb or named(operation))) is not None:
            yield from items
    finally:
        operation.close()


async def astream(operation: Stream, connection: Connection, verb: str = "") -> AsyncIterator[Any]:
    """Performs a stream on the running event loop: yields its items."""
    try:
        while (items := await arun(emitted(operation), connection, verb or named(operation))) is not None:
            for item in items:
                yield item
    finally:
        operation.close()


def perform(operation: Operation[T], connection: Connection, verb: str) -> Exchange[T]:
    """An operation in steps."""
    going = watched(operation, verb or named(operation), connection.where)
    try:
        return (yield from _perform(going, connection))
    finally:
        going.close()


def _perform(operation: Operation[T], connection: Connection) -> Exchange[T]:
    """While a Cluster moves the slot of an effect, the effect is repeated."""
    client: object = None
    reply: Any = None
    error: Exception | None = None
    while True:
        try:
            effect = operation.send(reply) if error is None else operation.throw(error)
        except StopIteration as stop:
            result: T = stop.value
            return result
        reply = error = None
        if isinstance(effect, Note):
            continue
        until = 0.0
        try:
            if isinstance(effect, Compute | Await):
                reply = yield effect
                continue
            if client is None:
                contact = connection.contact
                if contact is not None and not contact.answered and (problem := (yield Compute(contact.problem, BLOCKING))):
                    raise ServerUnavailableError(f"{effect.about}, connecting to {connection.where}: {problem}")
                client = yield Connect()
            while True:
                try:
                    reply = yield from _exchange(client, effect, connection)
                    break
                except ReplyMismatch:
                    yield Disconnect()
                    raise
                except Exception as caught:
                    until = until or time.monotonic() + MOVING_SECONDS
                    if not (in_cluster(client) and slot_moves(caught)) or time.monotonic() > until:
                        raise
                yield Pause(MOVING_PAUSE)
            connection.contact = None
        except Exception as caught:  # noqa: BLE001 - thrown into the operation, never dropped
            error = caught
            if not isinstance(effect, Compute | Await):
                error = yield from _explained(caught, effect, connection, client)


def _exchange(client: object, effect: Call | Calls | Read | Scan, connection: Connection) -> Exchange[Any]:
    if isinstance(effect, Call):
        if connection.read_only:
            return looked(client, effect, connection.lacking)
        level = connection.durability
        if level is None or not effect.script.writes:
            return called(client, effect)
        return confirmed(client, effect, level, connection.replicas_seen, connection.where)
    if isinstance(effect, Calls):
        return _several(client, effect.calls, connection)
    return read(client, effect) if isinstance(effect, Read) else scanned(client, effect)


def _several(client: object, calls: Sequence[Call], connection: Connection) -> Exchange[list[Any]]:
    """Together, or one after the other if each is sent in a way of its own: to wait for copies, or so that it cannot write."""
    if not connection.read_only and (connection.durability is None or not any(call.script.writes for call in calls)):
        return (yield from together(client, calls))
    replies = []
    for call in calls:
        replies.append((yield from _exchange(client, call, connection)))
    return replies


def _explained(
    caught: Exception, effect: Call | Calls | Read | Scan, connection: Connection, client: object
) -> Exchange[Exception]:
    """The error of this package for one of the client library. If the very first call fails, asks the server whether it is of
    another kind than the URL says."""
    error = translated(caught, effect, connection.where, in_cluster(client))
    contact = connection.contact
    if contact is not None and contact.answered and isinstance(error, CheckpointerError):
        kind = yield Compute(lambda: contact.kind(str(caught)), BLOCKING)
        if kind is not None:
            error = ServerRefusedError(f"{effect.about}, connecting to {connection.where}: {kind} ({said_by(caught)})")
            error.__cause__ = caught
    return error
