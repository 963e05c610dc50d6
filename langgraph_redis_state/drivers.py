"""The two loops that perform the effects of an operation: one waits by blocking, one by awaiting. The only place that talks
to the server, and where the client library's errors become ours.

A driver sends the reply of each effect into the generator, or throws the error there, and returns the generator's result.
EVALSHA first, EVAL when the server does not know the script (a new server, a fail-over, SCRIPT FLUSH); repeating commands
after a broken connection is redis-py's business, and every script may be repeated. With a level of durability, what
`durability.confirmed` says is sent on one connection, in a Cluster to the node of the thread.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from .connection import Connection, closed_meanwhile
from .contact import Contact
from .durability import Packet, confirmed
from .effects import Call, Compute, Effect, ForeignReply, Operation, Read, Scan
from .errors import (
    CheckpointCorruptError,
    CheckpointerError,
    ServerRefusedError,
    ServerUnavailableError,
)

T = TypeVar("T")

COMPUTE_INLINE = 256 * 1024
"""Work on up to this many bytes is done on the event loop, on more in a thread."""
SCAN_COUNT = 1000
"""Keys that a server looks at in one SCAN, and serves nobody else meanwhile."""

MOVING_SECONDS = 60.0
"""How long a Cluster may take to move a slot before a call that needs it fails."""
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
                        reply = _read(client, effect)
                    if contact is not None:
                        contact.used = True
                    break
                except ForeignReply:
                    _disconnect(client)
                    raise
                except Exception as caught:
                    if not (_is_cluster(client) and _slot_moves(caught)) or time.monotonic() > moving_until:
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
                        reply = await _aread(client, effect)
                    if contact is not None:
                        contact.used = True
                    break
                except ForeignReply:
                    await _adisconnect(client)
                    raise
                except Exception as caught:
                    if not (_is_cluster(client) and _slot_moves(caught)) or time.monotonic() > moving_until:
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
    exchange = confirmed(effect, connection.durability, connection.replicas_seen, connection.where, in_cluster)
    answer: Any = None
    error: Exception | None = None
    while True:
        try:
            step = exchange.throw(error) if error is not None else exchange.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = error = None
        try:
            answer = _call(client, step) if isinstance(step, Call) else _send(client, effect.keys[0], step, in_cluster)
        except Exception as caught:  # noqa: BLE001 - thrown into the exchange, never dropped
            error = caught


async def _aperform(client: Any, effect: Call, connection: Connection) -> Any:
    if connection.durability is None or not effect.script.writes:
        batches = None if _is_cluster(client) else connection.batches(client)
        return effect.own(await (_acall(client, effect) if batches is None else batches.reply(client, effect, _acall)))
    in_cluster = _is_cluster(client)
    exchange = confirmed(effect, connection.durability, connection.replicas_seen, connection.where, in_cluster)
    answer: Any = None
    error: Exception | None = None
    while True:
        try:
            step = exchange.throw(error) if error is not None else exchange.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = error = None
        try:
            if isinstance(step, Call):
                answer = await _acall(client, step)
            else:
                answer = await _asend(client, effect.keys[0], step, in_cluster)
        except Exception as caught:  # noqa: BLE001 - thrown into the exchange, never dropped
            error = caught


def _send(client: Any, key: bytes, packet: Packet, in_cluster: bool) -> tuple[str, list[Any]]:
    """A packet on one connection: the name of the node, and its replies, errors among them."""
    place = ""
    if in_cluster:
        # pipelines of Cluster clients choose a connection for each command, those of a node's client have one
        node = client.get_node_from_key(key)
        place = node.name
        of_node = getattr(client, "get_redis_connection", None) or client.get_valkey_connection
        client = of_node(node)
    with client.pipeline(transaction=False) as pipeline:
        for command in packet(place):
            pipeline.execute_command(*command)
        return place, pipeline.execute(raise_on_error=False)


async def _asend(client: Any, key: bytes, packet: Packet, in_cluster: bool) -> tuple[str, list[Any]]:
    if not in_cluster:
        async with client.pipeline(transaction=False) as pipeline:
            for command in packet(""):
                pipeline.execute_command(*command)
            return "", await pipeline.execute(raise_on_error=False)
    node = client.get_node_from_key(key)
    commands = packet(node.name)
    replies: list[Any] = []
    # not `node.execute_pipeline`: before redis-py 8 it loses the connection when sending fails or the caller is cancelled
    line = node.acquire_connection()
    try:
        await line.send_packed_command(line.pack_commands(commands))
        for command in commands:
            try:
                replies.append(await node.parse_response(line, command[0]))
            except Exception as error:
                if "ResponseError" not in {cls.__name__ for cls in type(error).__mro__}:
                    raise
                replies.append(error)
    finally:
        release = getattr(node, "release", None) or node._free.append
        release(line)
    return node.name, replies


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
        return client.evalsha(effect.script.sha, *effect.arguments)
    except Exception as error:
        if not _unknown_script(error):
            raise
    return client.eval(effect.script.source.encode(), *effect.arguments)


async def _acall(client: Any, effect: Call) -> Any:
    evalsha: Callable[..., Awaitable[Any]] = client.evalsha
    try:
        return await evalsha(effect.script.sha, *effect.arguments)
    except Exception as error:
        if not _unknown_script(error):
            raise
    return await client.eval(effect.script.source.encode(), *effect.arguments)


def _read(client: Any, effect: Read | Scan) -> list[Any]:
    if isinstance(effect, Scan):
        return list(client.scan_iter(match=effect.match, count=SCAN_COUNT))
    if len(effect.commands) == 1:
        return [client.execute_command(*command) for command in effect]
    with client.pipeline(transaction=False) as pipeline:
        for command in effect:
            pipeline.execute_command(*command)
        replies: list[Any] = pipeline.execute()
        return replies


async def _aread(client: Any, effect: Read | Scan) -> list[Any]:
    if isinstance(effect, Scan):
        return [key async for key in client.scan_iter(match=effect.match, count=SCAN_COUNT)]
    if len(effect.commands) == 1:
        return [await client.execute_command(*command) for command in effect]
    async with client.pipeline(transaction=False) as pipeline:
        for command in effect:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute()
        return replies


_SECRETS = re.compile(r"password|authenticat|NOAUTH|WRONGPASS", re.IGNORECASE)
_RIGHTS = re.compile(r"can't run this command|can't access|has no permissions|NOPERM|unauthenticated")


def _unknown_script(error: Exception) -> bool:
    # by name: valkey-py has the same classes under its own root
    return type(error).__name__ == "NoScriptError"


_OF_A_NODE = ("redis_connection", "execute_command", "connection_kwargs", "connection")


def _slot_moves(error: Exception) -> bool:
    """Whether nothing was done because the Cluster is moving the slot, which redis-py waits for only a moment.

    A script names all keys of a thread; while some have moved and some not, and even when all have but one of the named does
    not exist, each node sends it away. redis-py gives up after 16 tries, and stumbles over a node that has no slot yet.
    """
    text = str(error)
    return (
        ("ClusterError" in type(error).__name__ and "TTL exhausted" in text)
        or type(error).__name__ in ("TryAgainError", "AskError", "MovedError")
        or (isinstance(error, AttributeError) and error.obj is None and error.name in _OF_A_NODE)
    )


def translated(error: Exception, effect: Effect, connection: Connection, in_cluster: bool) -> Exception:
    """The error of this package for one of the client library; others, programming errors among them, stay as they are."""
    if isinstance(error, CheckpointerError) or isinstance(effect, Compute):
        return error
    names = {cls.__name__ for cls in type(error).__mro__}
    text = str(error)
    if "MasterNotFoundError" in names:
        # what follows is the whole of a client with all its settings, for each sentinel
        text = (
            f"{text.partition(' : ')[0]}; do the sentinels of the URL answer and know this service? What they "
            "want of a client, as a secret of their own, goes into redis_options as sentinel_kwargs"
        )
    where = f"{effect.about}, on {connection.where}"
    ours: CheckpointerError
    if isinstance(error, ForeignReply):
        ours = ServerUnavailableError(
            f"{where}: the client library gave the answer to another call, and nothing of it was used; its idle connections "
            "were closed. Whether a write arrived is not known, repeating it is safe"
        )
    elif (
        "AuthenticationError" in names
        or ("RedisClusterException" in names and _SECRETS.search(text))
        or "NoPermissionError" in names
        or text.startswith(("NOAUTH", "WRONGPASS", "NOPERM"))
    ):
        ours = ServerRefusedError(f"{where}: the server refused the user, password or rights ({text}); check the URL and ACL")
    elif _RIGHTS.search(text):
        ours = ServerRefusedError(f"{where}: user, password or rights do not suffice ({text}); check the URL and ACL")
    elif any(sign in text for sign in ("NOREPLICAS", "MISCONF", "MASTERDOWN")):
        ours = ServerRefusedError(f"{where}: the server does not accept writes now ({text})")
    elif "ReadOnlyError" in names or "READONLY" in text:
        ours = ServerRefusedError(
            f"{where}: the server is a read-only replica ({text}); connect to the primary, or through Sentinel or Cluster"
        )
    elif "OutOfMemoryError" in names or "OOM " in text:
        ours = ServerRefusedError(
            f"{where}: the server's memory is full ({text}); raise maxmemory, or free some: delete_thread and prune still work"
        )
    elif {
        "BusyLoadingError",
        "ConnectionError",
        "TimeoutError",
        "ClusterDownError",
        "MasterDownError",
    } & names or isinstance(error, OSError):
        after = (
            "whether the write arrived is not known, repeating it is safe"
            if isinstance(effect, Call) and effect.script.writes
            else "is the server up, and the URL right? Repeating the call is safe"
        )
        if "[SSL" in text:
            after = f"check ssl_ca_certs, ssl_certfile and ssl_keyfile in redis_options; {after}"
        ours = ServerUnavailableError(f"{where}: no answer ({type(error).__name__}: {text}); {after}")
    elif "ResponseError" in names and ("WRONGTYPE" in text or "user_script" in text or "running script" in text):
        ours = CheckpointCorruptError(
            f"{where}: a script could not read what is stored there ({text}); something else changed it, see verify"
        )
    elif not in_cluster and (names & {"MovedError", "AskError"} or text.startswith(("MOVED ", "ASK "))):
        ours = ServerRefusedError(
            f"{where}: this server is a node of a Cluster, and another one has the thread ({text}); connect with "
            "redis+cluster://, or with a RedisCluster client"
        )
    elif in_cluster and _slot_moves(error):
        ours = ServerUnavailableError(
            f"{where}: the Cluster has been moving the slot for {MOVING_SECONDS:.0f} s ({text}); nothing was done"
        )
    elif "RedisError" in names or "ValkeyError" in names:
        ours = ServerRefusedError(f"{where}: the server refused ({type(error).__name__}: {text})")
    elif "AttributeError" in names and "NoneType" in text and "write" in text:
        # redis-py's async Cluster client, when another task reconnects the node it is about to write to
        ours = ServerUnavailableError(f"{where}: the connection was closed before the command was sent ({text})")
    elif closed_meanwhile(error):
        ours = ServerUnavailableError(
            f"{where}: another call closed the connection ({text}); whether a write arrived is not known, repeating is safe"
        )
    elif "RedisClusterException" in names:
        single = "; it is a single server: use redis://" if "not enabled" in text else ""
        ours = ServerUnavailableError(f"{where}: the cluster cannot be reached ({text}){single}")
    else:
        return error
    ours.__cause__ = error
    return ours
