"""How many copies there must be before a write counts as done, and the exchange with the server that makes sure of it.

Redis answers a write before any replica has it and, unless told otherwise, before it is on disk. A level of durability puts
`WAIT` or `WAITAOF` behind the script that writes, in one packet: one round trip, and the same connection, since the server
waits for the last write of the connection that asks, and would acknowledge nothing on another one.

No I/O here: `confirmed` is a generator that says what to send on one connection, and the drivers send it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

from . import checks
from .effects import Call, Command
from .errors import DurabilityError

__all__ = ["Durability", "Fsync", "Replicas"]


@dataclass(frozen=True)
class Replicas:
    """A write is done when this many replicas have it in memory (`WAIT`); otherwise it raises `DurabilityError`.

    `"all"` means every replica that the primary lists as connected right after the write, and at least one. A replica that
    hangs is listed until the server's `repl-timeout`, and until then writes fail; one that is disconnected is not waited for.
    So nothing acknowledged is lost when the primary alone fails and the most advanced replica takes over, as Sentinel and
    Cluster choose it. A number is stricter: so many, whoever is connected. Less than all of them loses what it acknowledged
    if a replica that was not among them takes over. A primary that is replaced without having failed (an ordered
    fail-over, a network in two parts) goes on with the replicas left to it; only the number of all replicas refuses that.

    Args:
        count: replicas, at least 1, or "all". The user needs the right to `WAIT`, for "all" also to `ROLE`.
        timeout: seconds to wait for them, less than the client's `socket_timeout`.
    """

    count: int | Literal["all"]
    timeout: float = 3.0

    def __post_init__(self) -> None:
        if self.count != "all":
            object.__setattr__(self, "count", checks.whole(self.count, "Replicas: count", 1, also=', or "all"'))
        checks.timeout(self.timeout, "Replicas: timeout")


@dataclass(frozen=True)
class Fsync:
    """A write is done when it is on disk (`WAITAOF`, Redis and Valkey from 7.2 on); otherwise it raises `DurabilityError`.

    The servers need `appendonly yes`. With `appendfsync everysec` a write waits up to a second and more for its turn, with
    `always` not at all.

    Args:
        local: 1: on the disk of the primary; 0: only on those of replicas.
        replicas: on the disks of so many replicas.
        timeout: seconds to wait for them, less than the client's `socket_timeout`.
    """

    local: int = 1
    replicas: int = 0
    timeout: float = 3.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "local", checks.whole(self.local, "Fsync: local", 0, 1))
        object.__setattr__(self, "replicas", checks.whole(self.replicas, "Fsync: replicas", 0))
        if not self.local and not self.replicas:
            raise ValueError("Fsync waits for nothing with local=0 and replicas=0; durability=None says so")
        checks.timeout(self.timeout, "Fsync: timeout")


Durability = Replicas | Fsync

Packet = Callable[[str], list[Command]]
"""What to send together on one connection, given the name of the server that it leads to ("" when there is only one)."""
Exchange = Generator[Packet | Call, Any, Any]

ROUNDS = 6
"""Most packets for one write: more than one when scripts are unknown, slots move, or replicas turn up."""


def confirmed(effect: Call, level: Durability, seen: dict[str, int], where: str, in_cluster: bool) -> Exchange:
    """Performs a script that writes and waits for its copies; returns the script's reply.

    Yields packets, and is sent the name of the server and its replies, errors among them. In a Cluster it also yields the
    `Call` itself when the slot is not where it was: the client library then finds it, as it does without durability, and
    the packet is sent again to the right place. Every script may be repeated, and writes something each time it says `ok`.

    `seen` remembers for each server how many replicas it had, so that "all" is one round trip, too.
    """
    by_text, asked = False, 1
    all_of_them = isinstance(level, Replicas) and level.count == "all"

    def packet(place: str) -> list[Command]:
        nonlocal asked
        script = effect.script
        asked = seen.get(place, 1)
        head: Command = ("EVAL", script.source.encode()) if by_text else ("EVALSHA", script.sha)
        return [(*head, *effect.arguments), *_waiting(level, asked)]

    short = ""
    for left in range(ROUNDS - 1, -1, -1):
        try:
            place, (reply, *told) = yield packet
            if isinstance(reply, Exception):
                raise reply
        except Exception as error:
            if left and not by_text and _is(error, "NoScriptError"):
                by_text = True
                continue
            if left and in_cluster and _is(error, *ELSEWHERE):
                yield effect
                continue
            raise
        answer = effect.own(reply)
        if answer[0] != b"ok":
            return answer  # nothing was written
        refusal = next((each for each in told if isinstance(each, Exception)), None)
        if refusal is not None:
            raise DurabilityError(f"{effect.about}, on {where}: {_WRITTEN}, but {_advice(level, str(refusal))}") from refusal
        connected = 0
        if all_of_them:
            seen[place] = connected = max(len(told[0][2]), 1)
        short = _missing(level, told[-1], connected)
        if not short:
            return answer
        if asked >= connected:
            break  # or else it was asked for fewer than there are
    raise DurabilityError(
        f"{effect.about}, on {where}: {_WRITTEN}, but within {level.timeout:g} s it was {short}; it can be read, and a "
        "fail-over may lose it. Repeating the call waits again; are the replicas connected and keeping up?"
    )


def _missing(level: Durability, told: Any, connected: int) -> str:
    """What is missing in the answer to WAIT or WAITAOF; "" if it is enough."""
    if isinstance(level, Fsync):
        local, replicas = told
        if local >= level.local and replicas >= level.replicas:
            return ""
        there = "on its disk" if local else "not on its disk"
        return f"{there} and on those of {replicas} replicas, of {level.local} and {level.replicas} asked for"
    wanted = connected if level.count == "all" else level.count
    return "" if told >= wanted else f"acknowledged by {told} of {wanted} replicas"


_WRITTEN = "the write exists on the primary"
# by name: valkey-py has the same classes under its own root
ELSEWHERE = (
    *("MovedError", "AskError", "TryAgainError", "ClusterDownError", "SlotNotCoveredError", "MasterDownError"),
    *("ConnectionError", "TimeoutError"),
)


def _waiting(level: Durability, replicas: int) -> list[Command]:
    milliseconds = math.ceil(level.timeout * 1000)
    if isinstance(level, Fsync):
        return [("WAITAOF", level.local, level.replicas, milliseconds)]
    if level.count == "all":
        return [("ROLE",), ("WAIT", replicas, milliseconds)]
    return [("WAIT", level.count, milliseconds)]


def _is(error: Exception, *names: str) -> bool:
    return not {cls.__name__ for cls in type(error).__mro__}.isdisjoint(names)


def _advice(level: Durability, text: str) -> str:
    command = "WAITAOF" if isinstance(level, Fsync) else "WAIT or ROLE" if level.count == "all" else "WAIT"
    if "unknown command" in text:
        advice = "this server does not know the command: WAITAOF needs Redis 7.2 or Valkey; Replicas(...) works everywhere"
    elif "appendonly" in text:
        advice = "turn on appendonly on the server"
    elif "UNBLOCKED" in text:
        advice = "the server stopped being the primary meanwhile, and the write may be lost; repeating the call is safe"
    else:
        advice = f"the user needs the right to {command}"
    return f"how many copies it has is not known, since the server refused {command} ({text}): {advice}"
