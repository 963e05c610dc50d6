"""Levels of durability: how many copies must exist before a write is done.

Redis answers a write before any replica has it and, unless told otherwise, before it is on disk. A level of durability puts
`WAIT` or `WAITAOF` behind the script that writes: `client/confirming.py`. No I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from . import validation


@dataclass(frozen=True)
class Replicas:
    """A write is done when this many replicas have it in memory (`WAIT`); otherwise it raises `DurabilityError`.

    `"all"` means every replica that the primary lists as connected right after the write, and at least one. A replica that
    hangs is listed until the server's `repl-timeout`, and until then writes fail; one that is disconnected is not waited for.
    So if only the primary fails and the most advanced replica takes over, as Sentinel and Cluster choose it, no acknowledged
    write is lost. A number requires that many replicas, however many are connected. If it is less than all of them, a replica
    without the acknowledged writes may take over, and they are lost. A primary that is replaced while it works (an ordered
    failover, a network partition) continues with the replicas that it still has. Only the number of all replicas prevents that.

    Args:
        count: replicas, at least 1, or "all". The user needs the right to `WAIT`, for "all" also to `ROLE`.
        timeout: seconds to wait for them, less than the client's `socket_timeout`.
    """

    count: int | Literal["all"]
    timeout: float = 3.0

    def __post_init__(self) -> None:
        if self.count != "all":
            object.__setattr__(self, "count", validation.whole(self.count, "Replicas: count", 1, also=', or "all"'))
        validation.timeout(self.timeout, "Replicas: timeout")


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
        object.__setattr__(self, "local", validation.whole(self.local, "Fsync: local", 0, 1))
        object.__setattr__(self, "replicas", validation.whole(self.replicas, "Fsync: replicas", 0))
        if not self.local and not self.replicas:
            raise ValueError("Fsync waits for nothing with local=0 and replicas=0; durability=None says so")
        validation.timeout(self.timeout, "Fsync: timeout")


Durability = Replicas | Fsync
