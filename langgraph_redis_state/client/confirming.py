"""Durable writes: a script that writes, and in the same packet `WAIT` or `WAITAOF` for its copies. No I/O here.

Both go in one packet, on one connection, since `WAIT` counts the replicas that have the last write of its own connection. So a
durable write is one round trip. Every script may be repeated, and each time that it replies `ok` it has written something.
"""

from __future__ import annotations

import math
from typing import Any

from ..durability import Durability, Fsync, Replicas
from ..effects import Call, Command, ReplyMismatch
from ..errors import DurabilityError
from .exchange import ELSEWHERE, Exchange, called, framed, node_of, raised
from .library import in_cluster, is_named

ROUNDS = 6
"""Most packets for one write: more than one if the script is unknown, a slot moves, or a replica connects."""

_WRITTEN = "the write exists on the primary"


def confirmed(client: object, call: Call, level: Durability, seen: dict[str, int], where: str) -> Exchange[list[Any]]:
    """Runs a script that writes and waits for its copies: the script's reply.

    In a Cluster, if the slot has moved, the call is first made without `WAIT`, so that the client library finds the new node.
    Then the packet is sent again, to that node. `seen` remembers how many replicas each server had, so that `Replicas("all")`
    is one round trip, too.
    """
    by_text, short = False, ""
    for left in range(ROUNDS - 1, -1, -1):
        head: Command = ("EVAL", call.script.source.encode()) if by_text else ("EVALSHA", call.script.sha)
        try:
            node = node_of(client, call.keys[0])
            place = "" if node is None else node.name
            asked = seen.get(place, 1)
            reply, *told = yield from framed(node, [(*head, *call.arguments), *_waiting(level, asked)])
            answer = call.unwrap(raised(reply))
        except ReplyMismatch:
            raise
        except Exception as error:
            if left and not by_text and is_named(error, "NoScriptError"):
                by_text = True
                continue
            if left and in_cluster(client) and is_named(error, *ELSEWHERE):
                yield from called(client, call)
                continue
            raise
        if answer[0] != b"ok":
            return answer  # nothing was written
        refusal = next((each for each in told if isinstance(each, Exception)), None)
        if refusal is not None:
            raise DurabilityError(f"{call.about}, on {where}: {_WRITTEN}, but {_advice(level, str(refusal))}") from refusal
        connected = 0
        if _for_all(level):
            seen[place] = connected = max(len(told[0][2]), 1)
        short = _missing(level, told[-1], connected)
        if not short:
            return answer
        if asked >= connected:
            break  # if it waited for fewer replicas than there are, it waits again
    raise DurabilityError(
        f"{call.about}, on {where}: {_WRITTEN}, but within {level.timeout:g} s it was {short}; it can be read, and a "
        "failover may lose it. Repeating the call waits again; are the replicas connected and keeping up?"
    )


def _waiting(level: Durability, replicas: int) -> list[Command]:
    milliseconds = math.ceil(level.timeout * 1000)
    if isinstance(level, Fsync):
        return [("WAITAOF", level.local, level.replicas, milliseconds)]
    if _for_all(level):
        return [("ROLE",), ("WAIT", replicas, milliseconds)]
    return [("WAIT", level.count, milliseconds)]


def _for_all(level: Durability) -> bool:
    return isinstance(level, Replicas) and level.count == "all"


def _missing(level: Durability, told: Any, connected: int) -> str:
    """What is missing in the reply to WAIT or WAITAOF; "" if it is enough."""
    if isinstance(level, Fsync):
        local, replicas = told
        if local >= level.local and replicas >= level.replicas:
            return ""
        there = "on its disk" if local else "not on its disk"
        return f"{there} and on those of {replicas} replicas, of {level.local} and {level.replicas} asked for"
    wanted = connected if level.count == "all" else level.count
    return "" if told >= wanted else f"acknowledged by {told} of {wanted} replicas"


def _advice(level: Durability, text: str) -> str:
    command = "WAITAOF" if isinstance(level, Fsync) else "WAIT or ROLE" if _for_all(level) else "WAIT"
    if "unknown command" in text:
        advice = "this server does not know the command: WAITAOF needs Redis 7.2 or Valkey; Replicas(...) works everywhere"
    elif "appendonly" in text:
        advice = "turn on appendonly on the server"
    elif "UNBLOCKED" in text:
        advice = "the server stopped being the primary meanwhile, and the write may be lost; repeating the call is safe"
    else:
        advice = f"the user needs the right to {command}"
    return f"how many copies it has is not known, since the server refused {command} ({text}): {advice}"
