"""One typed function for each script of the store, as `commands.py` has them for those of threads.

A script of the store takes the keys of one bucket. So most functions make a `Call`, which an operation yields alone or together
with those to other buckets, and have a counterpart that takes its reply.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from ..effects import Call, Calls, Operation, Script, counted, pairs
from ..errors import CheckpointCorruptError, CheckpointLostError, InvalidConfigError

READ = Script("store_read")

SEARCH = Script("store_search")

SPACES = Script("store_spaces")

WRITE = Script("store_write", writes=True)

SIMILAR = Script("store_similar", also=("VADD", "VCARD", "VDIM", "VREM", "VSIM"))
"""With the commands that a store with an index needs of other scripts."""

TOUCH = Script("store_touch")

SWEEP = Script("store_sweep")

REPAIR = Script("store_repair", writes=True)

Keys = Sequence[bytes]
"""Those of a bucket: its items, their order, when they expire, their vectors."""


class Found(NamedTuple):
    records: list[bytes | None]
    due: list[int]
    """Places of those whose TTL a read should refresh."""


class Page(NamedTuple):
    names: list[bytes]
    """Members of the order, or namespaces."""
    following: bytes
    """Lower bound of the next page, empty if there is none."""
    records: Sequence[bytes | None] = ()
    """Those of the first names behind the ones that were skipped."""
    due: Sequence[int] = ()


def together(calls: Sequence[Call]) -> Operation[list[list[Any]]]:
    """Their replies, after one round trip to each server. Raises if the bucket of one has lost a key."""
    if not calls:
        return []
    replies: list[list[Any]] = [(yield calls[0])] if len(calls) == 1 else (yield Calls(calls))
    for call, (word, *rest) in zip(calls, replies, strict=True):
        if word == b"ok":
            continue
        if word == b"dims":
            raise InvalidConfigError(
                f"{call.about}: the vectors that are stored have {rest[0]} dimensions, and those of this store's index another "
                "number; nothing was written. Use the embeddings they were made with, or another prefix"
            )
        if word in _GONE:
            raise CheckpointLostError(f"{call.about}: {_GONE[word]}")
        raise CheckpointCorruptError(f"{call.about}: unexpected reply {word!r} from the server")
    return replies


def read(keys: Keys, about: str, fields: Sequence[bytes]) -> Call:
    return Call(READ, keys, fields, about)


def write(keys: Keys, about: str, reads: Collection[bytes], writes: Sequence[tuple[bytes, ...]]) -> Call:
    """`writes`: field, record, and if it has vectors their attributes, and each; an empty record removes the item."""
    return Call(WRITE, keys, [*counted(reads), *(part for each in writes for part in each)], about)


def found(reply: Sequence[Any]) -> Found:
    """The reply to `read` and to `write`."""
    _, records, due = reply
    return Found(records, [place - 1 for place in due])


def search(keys: Keys, about: str, bounds: tuple[bytes, bytes], most: int, skipped: int, max_bytes: int) -> Call:
    return Call(SEARCH, keys, [*bounds, most, skipped, max_bytes], about)


def spaces(keys: Keys, about: str, bounds: tuple[bytes, bytes], most: int, look_ups: int, depth: int) -> Call:
    return Call(SPACES, keys, [*bounds, most, look_ups, depth], about)


def page(reply: Sequence[Any]) -> Page:
    """The reply to `search` and to `spaces`."""
    if len(reply) == 3:
        return Page(reply[1], reply[2])
    _, members, records, due, following = reply
    return Page(members, following, records, [place - 1 for place in due])


def similar(keys: Keys, about: str, vector: bytes, most: int, only: bytes, compared: int) -> Call:
    return Call(SIMILAR, keys, [vector, most, only, compared], about)


def similarities(reply: Sequence[Any]) -> tuple[list[tuple[bytes, float]], int]:
    """The reply to `similar`: names with similarities from 0 to 1, the greatest first, and how many vectors there are."""
    _, flat, total = reply
    return [(name, float(score)) for name, score in pairs(flat)], total


def touch(keys: Keys, about: str, fields: Sequence[bytes]) -> Call:
    return Call(TOUCH, keys, fields, about)


def sweep(keys: Keys, about: str, most: int) -> Call:
    return Call(SWEEP, keys, [most], about)


def swept(reply: Sequence[Any]) -> tuple[int, bool]:
    """The reply to `sweep`: how many items were removed, and whether there may be more."""
    _, removed, more = reply
    return int(removed), bool(more)


def repair(keys: Keys, about: str, members: Collection[bytes], fields: Collection[bytes]) -> Operation[int]:
    """How many members of the order were wrong or absent."""
    _, changed = yield Call(REPAIR, keys, [*counted(members), *fields], about)
    return int(changed)


_GONE = {
    b"lost": "the items of this bucket are gone while their order is there; the server evicted them. Use a maxmemory-policy "
    "that does not evict (noeviction); repair() of the store forgets what is lost",
    b"unindexed": "the order of this bucket's items is gone (evicted?); they can be read one by one, and repair() of the "
    "store makes the order anew",
}
