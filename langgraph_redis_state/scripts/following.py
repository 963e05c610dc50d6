"""Writes that follow: what a process knows of a thread after its own last write to it, and what it makes of that.

After a write a process knows the counts of the thread (field S). They end with a token and a check, so no other write leaves
the same. Its next write names the end of the counts that it follows, and brings the counts that hold after it. If the former
are still there, nobody wrote in between, and the script writes at once (lib/following.lua). If not, the same call goes its
whole way. It is one round trip in each case. A thread that has settings of its own, expires, or has a tombstone or a
statement is not followed.

Of a put that follows no reference is looked up. So one follows only if it builds on a checkpoint that this process put since,
while nobody else wrote (`heads`). What that refers to was found or written then, and is there as long as no field is lost,
which the number of fields tells: where a write on its whole way finds another number, or other counts, than this process left,
what was known of heads is forgotten. A `Tip` that is old or was forgotten costs the short way, and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..effects import new_token
from ..storage.codec import plain_size
from ..storage.keys import ThreadKeys
from ..storage.records import STAMP, declared
from ..storage.thread_fields import Counts

PARTS_MAX = 1000
"""A write that brings more parts does not follow: one command looks at all of them."""

LIST, ENTRY = 4, 4
"""What stands in a list of pending writes before all, and before each."""

HEADS_MAX = 16

PART = 17
"""Bytes in the name of a chunk's or page's field."""


@dataclass(frozen=True, slots=True)
class Tip:
    """A thread after a write of this process."""

    counts: Counts
    end: bytes
    """How the field S ends: a space, the token, a space, the check."""
    fields: int
    """How many the thread has."""
    heads: Mapping[bytes, bytes]
    """Of the namespaces written last the checkpoint that was put last, by the checksum of its record: two puts of one id may
    refer to different parts. It is there, with all it refers to."""
    writes: bytes = b""
    """The field to which this write added pending writes: those that come to it next do not follow."""

    @property
    def size(self) -> int:
        """Bytes of memory, with ids of usual length."""
        return 1000 + len(self.writes) + 250 * len(self.heads)

    @property
    def name(self) -> bytes:
        """What a write that follows must find (following.lua)."""
        return b"%08x" % self.fields + self.end

    def with_head(self, ns: bytes, checksum: bytes) -> Tip:
        heads = {**self.heads}
        heads.pop(ns, None)
        if len(heads) == HEADS_MAX:
            del heads[next(iter(heads))]
        heads[ns] = checksum
        return Tip(self.counts, self.end, self.fields, heads, self.writes)


class Following(NamedTuple):
    """What a write that follows brings; of one that does not, nothing."""

    follows: bytes = b""
    line: bytes = b""
    tip: Tip | None = None
    """The thread after it."""


def put(
    thread: ThreadKeys,
    tip: Tip,
    field: bytes,
    record: bytes,
    pages: Mapping[bytes, bytes],
    chunks: Mapping[bytes, bytes],
    max_bytes: int,
) -> Following:
    """`field`: of the checkpoint, as it is stored; `record`: without its stamp."""
    if len(pages) + len(chunks) > PARTS_MAX:
        return Following()
    counts = _after(tip.counts, len(field) + STAMP + len(record), (record,), pages, chunks, checkpoints=1)
    stamp = counts.versions.to_bytes(5, "big") + (counts.stored - tip.counts.stored).to_bytes(5, "big")
    return _following(thread, tip, stamp, counts, 1 + len(pages) + len(chunks), max_bytes)


def put_writes(
    thread: ThreadKeys,
    tip: Tip,
    field: bytes,
    writes: Collection[tuple[str, bytes, bytes]],
    pages: Mapping[bytes, bytes],
    chunks: Mapping[bytes, bytes],
    max_bytes: int,
) -> Following:
    """`field`: of the list of pending writes, as it is stored; `writes`: as `commands.put_writes` takes them."""
    records = {marker: record for _, marker, record in writes}
    if len(records) != len(writes) or len(pages) + len(chunks) > PARTS_MAX:
        return Following()
    size = len(field) + LIST + sum(ENTRY + STAMP + len(record) for record in records.values())
    counts = _after(tip.counts, size, records.values(), pages, chunks, writes=len(records))
    stamp = counts.changes.to_bytes(5, "big") + bytes(5)
    return _following(thread, tip, stamp, counts, 1 + len(pages) + len(chunks), max_bytes, field)


def after(
    thread: ThreadKeys, before: Tip | None, about: str, line: bytes, fields: int, found: bytes, writes: bytes = b""
) -> Tip | None:
    """The thread after a write that went its whole way. `line`: the counts that it left; empty: it is not to be followed;
    `found`: the name of the tip that it found."""
    if not line:
        return None
    end = b" " + b" ".join(line.rsplit(b" ", 2)[1:])
    heads = before.heads if before is not None and found == before.name else {}
    return Tip(Counts.of(line, thread.name, about), end, fields, heads, writes)


def _after(
    before: Counts,
    stored: int,
    records: Iterable[bytes],
    pages: Mapping[bytes, bytes],
    chunks: Mapping[bytes, bytes],
    checkpoints: int = 0,
    writes: int = 0,
) -> Counts:
    """`stored`: bytes that come, without parts."""
    logical, referred, unique = before.logical, before.referred, before.unique
    for record in records:
        size, chunked = declared(record)
        logical, referred = logical + size, referred + chunked
    for content in chunks.values():
        unique += plain_size(content)
        stored += PART + len(content)
    for content in pages.values():
        stored += PART + len(content)
    return Counts(
        born=before.born,
        changes=before.changes + 1,
        versions=before.versions + checkpoints,
        checkpoints=before.checkpoints + checkpoints,
        writes=before.writes + writes,
        chunks=before.chunks + len(chunks),
        stored=before.stored + stored,
        logical=logical,
        unique=unique,
        referred=referred,
        by=int(new_token()),
    )


def _following(
    thread: ThreadKeys, tip: Tip, stamp: bytes, counts: Counts, more: int, max_bytes: int, writes: bytes = b""
) -> Following:
    """`more`: fields that come."""
    if 0 < max_bytes < counts.stored:
        return Following()  # the script refuses it
    line = counts.line(thread.name)
    end = line[-len(b" %d 12345678" % counts.by) :]
    return Following(stamp + tip.name, line, Tip(counts, end, tip.fields + more, tip.heads, writes))
