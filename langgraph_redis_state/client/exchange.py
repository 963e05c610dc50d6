"""What is sent to the server for a call or a read, written once for sync and async. No I/O and no waiting here.

Rule 1: an exchange is a generator. It yields a step, is sent the result of the step or thrown its error, and returns a reply.
Rule 2: a step is one action of a client library: a `Call` by the SHA of its script, `ByText`, `Send`, `Connect`, `Disconnect`,
`Pause`, `Compute`, or `Await`.
Rule 3: a driver (driver.py) performs the step, by blocking or by awaiting, and decides nothing.

A script is sent by EVALSHA, and by EVAL if the server does not know it (a new server, a failover, SCRIPT FLUSH). If a
connection breaks, redis-py repeats the command, and every script may be repeated. A reply is used only if it proves to which
call it belongs: the reply of a script carries a token, and plain commands are sent in a frame. If a script is answered with an
error, it is sent again in a frame.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..effects import Await, Call, Command, Compute, Read, ReplyMismatch, Scan, Script, new_token, packable
from .library import Node, in_cluster, is_named

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Connect:
    """The reply is the client to use."""


@dataclass(frozen=True, slots=True)
class ByText:
    """A `Call` whose script is sent as text, for a server that does not know it."""

    call: Call
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """A `Call` by the SHA of its script in which the server allows no writes."""

    call: Call


@dataclass(frozen=True, slots=True)
class Send:
    """Sends commands in one packet to this node of a Cluster, or to the single server. Its replies may contain errors."""

    node: Node | None
    commands: Sequence[Command]


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Closes the client's idle connections, since one of them may hold replies to other calls."""


Step = Call | Look | ByText | Send | Connect | Disconnect | Pause | Compute | Await
Exchange = Generator[Step, Any, T]

SCAN_COUNT = 1000
"""Keys that a server visits in one SCAN, during which it serves no other client."""

KEYLESS = ("INFO", "PING")

READ = Script("read", bare=True)

ELSEWHERE = (
    *("MovedError", "AskError", "TryAgainError", "ClusterDownError", "SlotNotCoveredError", "MasterDownError"),
    *("ConnectionError", "TimeoutError"),
)
"""Errors after which another node of a Cluster may have the key."""


def looked(client: object, call: Call, lacking: set[str]) -> Exchange[list[Any]]:
    """Runs a script in which the server allows no writes (`EVALSHA_RO`, Redis 7.0). Where the server does not know that, or the
    user may not run it, the script runs as others do, and `lacking` remembers it."""
    if "EVALSHA_RO" not in lacking:
        try:
            return (yield from called(client, call, read_only=True))
        except Exception as error:
            if not re.search(r"(?i)unknown command|EVAL(SHA)?_RO", str(error)):
                raise
            lacking.add("EVALSHA_RO")
    return (yield from called(client, call))


def called(client: object, call: Call, read_only: bool = False) -> Exchange[list[Any]]:
    """Runs a script. Returns its reply without the token."""
    try:
        try:
            reply = yield Look(call) if read_only else call
        except Exception as error:
            if not is_named(error, "NoScriptError"):
                raise
            reply = yield ByText(call, read_only)
    except Exception as error:
        # An error carries no token and may be the reply to another call, so the script is sent again, in a frame. Exceptions: a
        # script that somebody stopped, which would run as long again, and an error that ends the connection.
        final = any(sign in str(error) for sign in ("Script killed by user", "Protocol error"))
        if final or not is_named(error, "ResponseError"):
            raise
    else:
        return call.unwrap(reply)
    command = "EVAL_RO" if read_only else "EVAL"
    (answer,) = yield from framed(node_of(client, call.keys[0]), [(command, call.script.source.encode(), *call.arguments)])
    return call.unwrap(raised(answer))


def together(client: object, calls: Sequence[Call]) -> Exchange[list[list[Any]]]:
    """Runs several scripts, in a frame for each server. If some are answered with an error, the first of them is sent alone,
    which finds its node, or makes the script known; then the others are sent again."""
    replies: list[Any] = [None] * len(calls)
    left = list(range(len(calls)))
    while left:
        groups: dict[str, tuple[Node | None, list[int]]] = {}
        for at in left:
            node = node_of(client, calls[at].keys[0])
            groups.setdefault("" if node is None else node.name, (node, []))[1].append(at)
        left = []
        for node, places in groups.values():
            commands = [(b"EVALSHA", calls[at].script.sha, *calls[at].arguments) for at in places]
            try:
                found = yield from framed(node, commands)
            except Exception as error:
                if not (in_cluster(client) and is_named(error, *ELSEWHERE)):
                    raise
                found = [error] * len(places)
            for at, reply in zip(places, found, strict=True):
                if isinstance(reply, Exception):
                    left.append(at)
                else:
                    replies[at] = calls[at].unwrap(reply)
        if left:
            replies[left[0]] = yield from called(client, calls[left[0]])
            left = left[1:]
    return replies


def scanned(client: object, scan: Scan) -> Exchange[list[bytes]]:
    """The names of all matching keys, from each primary."""
    names: list[bytes] = []
    for node in client.get_primaries() if in_cluster(client) else [None]:
        cursor: Any = None
        while cursor is None or int(cursor) != 0:
            (reply,) = yield from framed(node, [("SCAN", cursor or 0, "MATCH", scan.match, "COUNT", SCAN_COUNT)])
            cursor, found = raised(reply)
            names += found
    return names


def read(client: object, effect: Read) -> Exchange[list[Any]]:
    """Runs plain commands, in a frame for each server. In a Cluster, if a key has moved to another node, a script reads it, for
    which the client library finds the node."""
    if not in_cluster(client):
        return list(map(raised, (yield from framed(None, effect.commands))))
    groups: dict[str, tuple[Node, list[int]]] = {}
    for at, command in enumerate(effect.commands):
        node = client.get_default_node() if command[0] in KEYLESS else client.get_node_from_key(command[1])
        groups.setdefault(node.name, (node, []))[1].append(at)
    replies: list[Any] = [None] * len(effect.commands)
    for node, places in groups.values():
        try:
            found = yield from framed(node, [effect.commands[at] for at in places])
        except Exception as error:
            if not is_named(error, *ELSEWHERE):
                raise
            found = [error] * len(places)
        for at, reply in zip(places, found, strict=True):
            name, *rest = effect.commands[at]
            if isinstance(reply, Exception) and is_named(reply, *ELSEWHERE) and name not in KEYLESS:
                key, *more = packable(rest)
                (reply,) = yield from called(client, Call(READ, [key], [name, *more], effect.about))
            replies[at] = raised(reply)
    return replies


def framed(node: Node | None, commands: Sequence[Command]) -> Exchange[list[Any]]:
    """Runs commands between two PINGs that return tokens, on one connection: the frame proves that the replies belong together.

    Names of commands are bytes, so that client libraries do not parse the replies: their parser for one command may raise any
    error on the reply to another. Raises `ReplyMismatch` if the replies belong to other commands.
    """
    first, last = new_token(), new_token()
    packed = [(b"PING", first), *(tuple(packable(command)) for command in commands), (b"PING", last)]
    replies: list[Any] = yield Send(node, packed)
    begin, end = replies[0], replies[-1]
    if (begin, end) == (first, last):
        return replies[1:-1]
    if isinstance(begin, Exception) and isinstance(end, Exception) and str(begin) == str(end):
        raise begin  # both were refused
    raise ReplyMismatch


def raised(reply: Any) -> Any:
    """Returns a reply of a packet, or raises it if it is an error."""
    if isinstance(reply, Exception):
        raise reply
    return reply


def node_of(client: object, key: bytes) -> Node | None:
    """The node of a Cluster that has a key; None on a single server."""
    return client.get_node_from_key(key) if in_cluster(client) else None
