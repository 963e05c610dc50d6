"""What the replies of scripts say besides `ok`, as errors, how a thread stands, and what a walk found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple

from ..errors import (
    CheckpointConflictError,
    CheckpointCorruptError,
    CheckpointLostError,
    InvalidConfigError,
    ThreadDeletedError,
    ThreadTooLargeError,
)

Stored = tuple[bytes, bytes, bytes | None, bytes | None, bytes | None]
"""Namespace and id of a checkpoint, its record, its pending writes and its frozen entry, if that was asked for."""


class Ancestors(NamedTuple):
    found: list[Stored]
    pages: dict[bytes, bytes]
    chunks: dict[bytes, bytes]
    following: bytes
    """Id of the next ancestor; empty: the root was reached."""
    following_exists: bool
    start: Stored
    history: bytes | None
    """Delta history of the last checkpoint that was read."""
    statement: bytes | None


@dataclass
class ThreadState:
    wrong: list[int]
    """Numbers of keys of the wrong type, in the order of `ThreadKeys.all`, from 1."""
    counts: bytes | None
    settings: bytes | None
    there: bool
    indexed: int
    left: int
    """What PTTL says of the hash."""
    index_left: int
    active: float | None
    expiry: float | None
    now: int
    bucket_left: int
    runs: set[bytes]
    metadata: set[bytes]


class PartsMissingError(CheckpointLostError):
    """The server lacks chunks or pages to which a record refers; nothing was written."""

    def __init__(self, message: str, names: frozenset[bytes]) -> None:
        super().__init__(message)
        self.names = names
        """Their digests."""


class StagingLostError(CheckpointLostError):
    """What was staged for a removal was evicted or expired; nothing was removed."""


class StatedError(InvalidConfigError):
    """The thread has a statement, and the writer makes none; nothing was written."""


class StatementChangedError(CheckpointCorruptError):
    """The thread has another statement than the writer began with; nothing was written."""

    def __init__(self, message: str, there: Sequence[Any]) -> None:
        super().__init__(message)
        self.statement, self.frozen, self.record, self.writes, self.state = there
        """The statement that is there, what stands at the checkpoint of the call, and 'ok' if there is a thread."""


def raise_for_reply(reply: Sequence[Any], about: str, also: bytes = b"ok", max_bytes: int = 0) -> bool:
    """Whether the reply is `ok`; False if it is `also`. Raises for every other."""
    word = reply[0]
    if word == b"ok":
        return True
    if word == also:
        return False
    if word == b"deleted":
        when = datetime.fromtimestamp(int(reply[1]) / 1e3, timezone.utc).isoformat(timespec="milliseconds")
        raise ThreadDeletedError(
            f"{about}: the thread was deleted at {when} (by the server's clock), after this run began; "
            "nothing was written. Start a new run on the thread id, without a checkpoint_id"
        )
    if word == b"conflict":
        raise CheckpointConflictError(
            f"{about}: the newest checkpoint is {reply[1].decode()!r}, and this is no child of it: another writer was "
            "first, or the config names an older one. Nothing was written; read the thread again and go on from there"
        )
    if word == b"large":
        raise ThreadTooLargeError(
            f"{about}: the thread would take {int(reply[1])} bytes, max_thread_bytes allows {max_bytes}; "
            "nothing was written. Prune it, raise max_thread_bytes, or begin another"
        )
    if word == b"missing":
        raise PartsMissingError(
            f"{about}: the server keeps losing parts of the state ({len(reply) - 1} are missing); nothing was written. "
            "Is maxmemory-policy evicting keys?",
            frozenset(name[1:] for name in reply[1:]),
        )
    if word == b"stated" and len(reply) > 1:
        raise StatementChangedError(f"{about}: other writers change the thread all the time; nothing was written", reply[1:])
    if word == b"stated":
        raise StatedError(
            f"{about}: the thread has a statement of what it holds, which each write must bring up to date, and this saver was "
            "opened without freshness=True; nothing was written"
        )
    if word == b"gone":
        raise StagingLostError(f"{about}: the server evicted what was copied for the removal; nothing was removed")
    if word in (b"lost", b"unindexed"):
        raise CheckpointLostError(f"{about}: {_REFUSALS[word]}")
    raise CheckpointCorruptError(f"{about}: {_REFUSALS.get(word, f'unexpected reply {word!r} from the server')}")


_REFUSALS = {
    b"lost": "the thread's data is gone while its index is there; the server evicted it. Use a maxmemory-policy "
    "that does not evict (noeviction), and delete_thread or start over with a new thread id",
    b"unindexed": "the thread's index is gone (evicted?); repair rebuilds it, and so does a saver that is not read_only",
    b"writes": "the list of pending writes there is damaged; nothing was written",
    b"settings": "the thread's TTL settings (field T) are damaged; set_ttl or persist writes them anew",
    b"counts": "the thread's counts (field S) are damaged; its checkpoints can be read one by one, delete_thread removes it",
}
