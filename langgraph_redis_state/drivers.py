"""The two loops that perform the effects of an operation: one waits by blocking, one by awaiting. The only place that talks
to the server.

A driver sends the reply of each effect into the generator, or throws the error there, and returns the generator's result.
EVALSHA first, EVAL when the server does not know the script (a new server, a fail-over, SCRIPT FLUSH); repeating commands
after a broken connection is redis-py's business, and every script may be repeated. With a level of durability, what
`durability.confirmed` says is sent on one connection, in a Cluster to the node of the thread.

No reply is used without proof whose it is: that of a script carries its token, plain commands go in a frame (effects.py), and a
script that is answered with an error is sent again in one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Any, TypeVar

from .connection import Connection
from .contact import Contact
from .durability import ELSEWHERE, Packet, confirmed
from .effects import Call, Command, Compute, Effect, ForeignReply, Frame, Operation, Read, Scan, Script
from .errors import CheckpointerError, ServerRefusedError, ServerUnavailableError
from .translation import MOVING_SECONDS, slot_moves, translated

T = TypeVar("T")

COMPUTE_INLINE = 256 * 1024
"""Work on up to this many bytes is done on the event loop, on more in a thread."""
SCAN_COUNT = 1000
"""Keys that a server looks at in one SCAN, and serves nobody else meanwhile."""

KEYLESS = ("INFO",)
READ = Script("read", bare=True)

MOVING_PAUSE = 0.1


def run(operation: Operation[T], connection: Connection) -> T:
    """Performs an operation, blocking."""
    client: Any = None
    reply: Any = None
    error: BaseException | None = None
    while True:
        try:
            effect = operation.throw(error) if error is not None else operation.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result
        reply = error = None
        try:
            if isinstance(effect, Compute):
                reply = effect.work()
                continue
            contact = connection.contact()
            if contact is not None and not contact.answered:
                _met(contact.problem(), effect, connection)
            client = client or connection.client()
            moving_until = time.monotonic() + MOVING_SECONDS
            while True:
                try:
                    if isinstance(effect, Call):
                        reply = _perform(client, effect, connection)
                    else:
                        reply = _exchange(client, _reading(client, effect))
                    if contact is not None:
                        contact.used = True
                    break
                except ForeignReply:
                    _disconnect(client)
                    raise
                except Exception as caught:
                    if not (_is_cluster(client) and slot_moves(caught)) or time.monotonic() > moving_until:
                        raise
                time.sleep(MOVING_PAUSE)
        except Exception as caught:  # noqa: BLE001 - thrown into the operation, never dropped
            error = translated(caught, effect, connection, _is_cluster(client))
            if contact := _to_ask(connection.contact(), error):
                kind = contact.kind(str(caught))
                error = _of_another_kind(kind, effect, connection, caught) if kind else error


async def arun(operation: Operation[T], connection: Connection) -> T:
    """Performs an operation on the running event loop."""
    client: Any = None
    reply: Any = None
    error: BaseException | None = None
    while True:
        try:
            effect = operation.throw(error) if error is not None else operation.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result
        reply = error = None
        try:
            if isinstance(effect, Compute):
                reply = effect.work() if effect.size <= COMPUTE_INLINE else await asyncio.to_thread(effect.work)
                continue
            contact = connection.contact(is_async=True)
            if contact is not None and not contact.answered:
                _met(await asyncio.to_thread(contact.problem), effect, connection)
            if client is None:
                client = connection.async_client()
                # a Cluster client learns its slots at first use, and several tasks at once would trip over it
                if _is_cluster(client):
                    await client.initialize()
            moving_until = time.monotonic() + MOVING_SECONDS
            while True:
                try:
                    if isinstance(effect, Call):
                        reply = await _aperform(client, effect, connection)
                    else:
                        reply = await _aexchange(client, _reading(client, effect))
                    if contact is not None:
                        contact.used = True
                    break
                except ForeignReply:
                    await _adisconnect(client)
                    raise
                except Exception as caught:
                    if not (_is_cluster(client) and slot_moves(caught)) or time.monotonic() > moving_until:
                        raise
                await asyncio.sleep(MOVING_PAUSE)
        except Exception as caught:  # noqa: BLE001 - thrown into the operation, never dropped
            error = translated(caught, effect, connection, _is_cluster(client))
            if contact := _to_ask(connection.contact(is_async=True), error):
                kind = await asyncio.to_thread(contact.kind, str(caught))
                error = _of_another_kind(kind, effect, connection, caught) if kind else error


def _met(problem: str | None, effect: Effect, connection: Connection) -> None:
    if problem is not None:
        assert not isinstance(effect, Compute)
        raise ServerUnavailableError(f"{effect.about}, connecting to {connection.where}: {problem}")


def _to_ask(contact: Contact | None, error: BaseException) -> Contact | None:
    """What may tell why the very first call failed."""
    failed = isinstance(error, CheckpointerError) and contact is not None and contact.answered and not contact.used
    return contact if failed else None


def _of_another_kind(kind: str, effect: Effect, connection: Connection, cause: Exception) -> ServerRefusedError:
    assert not isinstance(effect, Compute)
    error = ServerRefusedError(f"{effect.about}, connecting to {connection.where}: {kind} ({cause})")
    error.__cause__ = cause
    return error


def _perform(client: Any, effect: Call, connection: Connection) -> Any:
    if connection.durability is None or not effect.script.writes:
        return effect.own(_call(client, effect))
    in_cluster = _is_cluster(client)
    level, seen = connection.durability, connection.replicas_seen
    return _exchange(client, confirmed(effect, level, seen, connection.where, in_cluster), effect.keys[0])


async def _aperform(client: Any, effect: Call, connection: Connection) -> Any:
    in_cluster = _is_cluster(client)
    if connection.durability is None or not effect.script.writes:
        batches = None if in_cluster else connection.batches(client)
        return effect.own(await (_acall(client, effect) if batches is None else batches.reply(client, effect, _acall)))
    level, seen = connection.durability, connection.replicas_seen
    return await _aexchange(client, confirmed(effect, level, seen, connection.where, in_cluster), effect.keys[0])


def _exchange(client: Any, exchange: Generator[Any, Any, T], key: bytes = b"") -> T:
    """Performs what an exchange yields: a `Call`, a packet for the node of `key`, or a node and the commands for it."""
    answer: Any = None
    error: Exception | None = None
    while True:
        try:
            step = exchange.throw(error) if error is not None else exchange.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        answer = error = None
        try:
            if isinstance(step, Call):
                answer = step.own(_call(client, step))
            elif isinstance(step, tuple):
                answer = _send(client, *step)
            else:
                answer = _send(client, _node(client, key), step)
        except Exception as caught:  # noqa: BLE001 - thrown into the exchange, never dropped
            error = caught


async def _aexchange(client: Any, exchange: Generator[Any, Any, T], key: bytes = b"") -> T:
    answer: Any = None
    error: Exception | None = None
    while True:
        try:
            step = exchange.throw(error) if error is not None else exchange.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        answer = error = None
        try:
            if isinstance(step, Call):
                answer = step.own(await _acall(client, step))
            elif isinstance(step, tuple):
                answer = await _asend(client, *step)
            else:
                answer = await _asend(client, _node(client, key), step)
        except Exception as caught:  # noqa: BLE001 - thrown into the exchange, never dropped
            error = caught


def _node(client: Any, key: bytes) -> Any:
    """The node of a Cluster that has a key; None on a single server."""
    return client.get_node_from_key(key) if _is_cluster(client) else None


def _send(client: Any, node: Any, packet: Packet) -> tuple[str, list[Any]]:
    """A packet in a frame on one connection: the name of the node, and the replies, errors among them."""
    place = ""
    if node is not None:
        # pipelines of Cluster clients choose a connection for each command, those of a node's client have one
        place = node.name
        of_node = getattr(client, "get_redis_connection", None) or client.get_valkey_connection
        client = of_node(node)
    frame = Frame(packet(place))
    with client.pipeline(transaction=False) as pipeline:
        for command in frame.packed:
            pipeline.execute_command(*command)
        return place, frame.own(pipeline.execute(raise_on_error=False))


async def _asend(client: Any, node: Any, packet: Packet) -> tuple[str, list[Any]]:
    frame = Frame(packet("" if node is None else node.name))
    if node is None:
        async with client.pipeline(transaction=False) as pipeline:
            for command in frame.packed:
                pipeline.execute_command(*command)
            return "", frame.own(await pipeline.execute(raise_on_error=False))
    commands = frame.packed
    replies: list[Any] = []
    # not `node.execute_pipeline`: before redis-py 8 it loses the connection when sending fails or the caller is cancelled
    line = node.acquire_connection()
    try:
        await line.send_packed_command(line.pack_commands(commands))
        for command in commands:
            try:
                replies.append(await node.parse_response(line, command[0]))
            except Exception as error:
                if not _is(error, "ResponseError"):
                    raise
                replies.append(error)
    except BaseException:
        await line.disconnect(nowait=True)  # what is still to come belongs to nobody
        raise
    finally:
        release = getattr(node, "release", None) or node._free.append
        release(line)
    return node.name, frame.own(replies)


def _reading(client: Any, effect: Read | Scan) -> Generator[Any, Any, list[Any]]:
    """An exchange that reads, a frame for each server. In a Cluster, what a node does not have any more is asked for by a
    script with its token, for which the client library finds the node."""
    in_cluster = _is_cluster(client)
    command: Command
    if isinstance(effect, Scan):
        names: list[bytes] = []
        for node in client.get_primaries() if in_cluster else [None]:
            cursor: Any = 0
            while True:
                command = ("SCAN", cursor, "MATCH", effect.match, "COUNT", SCAN_COUNT)
                _, (reply,) = yield node, lambda _, command=command: [command]
                cursor, found = _raised(reply)
                names += found
                if int(cursor) == 0:
                    break
        return names
    groups: dict[str, tuple[Any, list[int]]] = {}
    if in_cluster:
        for at, command in enumerate(effect.commands):
            node = client.get_default_node() if command[0] in KEYLESS else client.get_node_from_key(command[1])
            groups.setdefault(node.name, (node, []))[1].append(at)
        if not groups:
            groups = {node.name: (node, []) for node in client.get_primaries()}
    else:
        groups[""] = (None, list(range(len(effect.commands))))
    replies: list[Any] = [None] * len(effect.commands)
    for node, places in groups.values():
        try:
            _, found = yield node, lambda _, places=places: [effect.commands[at] for at in places]
        except Exception as error:
            if not places or not in_cluster or not _is(error, *ELSEWHERE):
                raise
            found = [error] * len(places)
        for at, reply in zip(places, found, strict=True):
            command = effect.commands[at]
            if in_cluster and isinstance(reply, Exception) and _is(reply, *ELSEWHERE) and command[0] not in KEYLESS:
                key: Any = command[1]
                (reply,) = yield Call(READ, [key], [command[0], *command[2:]], effect.about)
            replies[at] = _raised(reply)
    return replies


def _raised(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply


def _is_cluster(client: Any) -> bool:
    return hasattr(client, "nodes_manager")


def _disconnect(client: Any) -> None:
    if _is_cluster(client):
        client.disconnect_connection_pools()
        return
    try:
        client.connection_pool.disconnect(inuse_connections=False)  # the one it was is not in use any more
    except TypeError:  # before redis-py 7 a waiting pool closes all
        client.connection_pool.disconnect()


async def _adisconnect(client: Any) -> None:
    if _is_cluster(client):
        await asyncio.gather(*(node.disconnect() for node in client.get_nodes()))
    else:
        await client.connection_pool.disconnect(inuse_connections=False)


def _call(client: Any, effect: Call) -> Any:
    try:
        try:
            return client.evalsha(effect.script.sha, *effect.arguments)
        except Exception as error:
            if not _unknown_script(error):
                raise
        return client.eval(effect.script.source.encode(), *effect.arguments)
    except Exception as error:
        if not _to_be_proven(error):
            raise
    return _raised(_send(client, _node(client, effect.keys[0]), lambda _: [_by_text(effect)])[1][0])


async def _acall(client: Any, effect: Call) -> Any:
    try:
        try:
            return await client.evalsha(effect.script.sha, *effect.arguments)
        except Exception as error:
            if not _unknown_script(error):
                raise
        return await client.eval(effect.script.source.encode(), *effect.arguments)
    except Exception as error:
        if not _to_be_proven(error):
            raise
    return _raised((await _asend(client, _node(client, effect.keys[0]), lambda _: [_by_text(effect)]))[1][0])


def _to_be_proven(error: Exception) -> bool:
    """Whether the server answered with an error. It carries no token and may be the answer to another call, so the script is
    sent again, in a frame. Not a script that somebody stopped, which would run as long again, nor what ends the connection."""
    return _is(error, "ResponseError") and not any(sign in str(error) for sign in ("Script killed by user", "Protocol error"))


def _by_text(effect: Call) -> Command:
    return ("EVAL", effect.script.source.encode(), *effect.arguments)


def _unknown_script(error: Exception) -> bool:
    # by name: valkey-py has the same classes under its own root
    return type(error).__name__ == "NoScriptError"


def _is(error: Exception, *names: str) -> bool:
    # by name, as above
    return not {cls.__name__ for cls in type(error).__mro__}.isdisjoint(names)
