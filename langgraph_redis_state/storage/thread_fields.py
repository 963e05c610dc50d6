"""Fields of a thread besides records: counts (S), TTL settings (T), tags (G), pending writes (W). No I/O.

The pending writes of a checkpoint are a list: format (1), number (3), then each with its length (4). What would make a large
list be written again with each small write goes to segments, lists of one task's writes each, which a directory counts and
names: 2, number of writes in all these fields (3), the names of the newest segments. A segment that came when the directory
was full begins with 3 instead of the format, and has the names that stood there behind its number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ..errors import CheckpointCorruptError, FormatError
from .codec import DIGEST, place_check
from .keys import segment_of, shown
from .records import FIXED, FORMAT, STAMP, RecordKey, packed_id
from .seals import ENCRYPTED, Seal

DIRECTORY, CHAINED, NAME, NAMES = 2, 3, 6, 16
"""Formats of a directory and of a segment that begins with names; bytes of a name, and how many such a segment has."""


def as_list(content: bytes) -> tuple[bytes, bytes]:
    """The names with which a segment begins, and its writes as a list."""
    if content[:1] != bytes([CHAINED]):
        return b"", content
    behind = 4 + NAME * NAMES
    return content[4:behind], bytes([FORMAT]) + content[1:4] + content[behind:]


def segment_name(task: str) -> bytes:
    """The name of the segment that a task's pending writes go to."""
    return hashlib.sha1(packed_id(task.encode()), usedforsecurity=False).hexdigest()[:NAME].encode()


def open_directory(content: bytes, place: RecordKey) -> tuple[int, bytes]:
    """How many pending writes a checkpoint has, and names of segments."""
    if len(content) < 4 or content[0] != DIRECTORY or (len(content) - 4) % NAME:
        raise CheckpointCorruptError(f"{place}: the directory of the pending writes is damaged")
    return int.from_bytes(content[1:4], "big"), content[4:]


def gathered_writes(fields: Mapping[bytes, bytes], place: RecordKey) -> list[bytes]:
    """The stored records in the list, the directory and the segments of one checkpoint."""
    directory = fields.get(place.field + b"\0")
    lists = [as_list(content)[1] for name, content in fields.items() if segment_of(name) != b""]
    raws = [raw for blob in lists for raw in split_writes(blob, place)]
    if len(lists) > 1 or directory is not None:
        total, _ = open_directory(directory or b"", place)
        if total != len(raws):
            raise CheckpointCorruptError(f"{place}: {len(raws)} pending writes where another number was stored")
    return raws


def split_writes(blob: bytes, place: RecordKey) -> Iterator[bytes]:
    """The stored records of the pending writes of one checkpoint."""
    if len(blob) < 4 or blob[0] != FORMAT:
        raise FormatError(f"{place}: unknown format of pending writes; damaged, or written by a newer version")
    at, count = 4, 0
    while at < len(blob):
        size = int.from_bytes(blob[at : at + 4], "big")
        at += 4
        if size < STAMP + FIXED + DIGEST or at + size > len(blob):
            raise CheckpointCorruptError(f"{place}: the list of pending writes is damaged")
        yield blob[at : at + size]
        at += size
        count += 1
    if count != int.from_bytes(blob[1:4], "big"):
        raise CheckpointCorruptError(f"{place}: {count} pending writes where another number was stored")


def joined_writes(raws: Sequence[bytes]) -> bytes:
    """The field of these pending writes; empty if there are none."""
    if not raws:
        return b""
    return bytes([FORMAT]) + len(raws).to_bytes(3, "big") + b"".join(len(raw).to_bytes(4, "big") + raw for raw in raws)


def opened_line(raw: bytes | None, thread: bytes, about: str, what: str) -> bytes:
    """A line of text that scripts keep under their own check (fields S and T of a thread), verified."""
    line, _, check = (raw or b"").rpartition(b" ")
    if not line.startswith(b"1 ") or place_check(line, thread).hex().encode() != check:
        raise CheckpointCorruptError(f"{about}: the {what} of thread {shown(thread)!r} are damaged or gone")
    return line


def sealed_line(line: bytes, thread: bytes) -> bytes:
    """Such a line, with its check."""
    return line + b" " + place_check(line, thread).hex().encode()


def opened_counts(raw: bytes | None, thread: bytes, about: str) -> bytes:
    """The numbers in the field S of a thread, in the order of `scripts/lib/counts.lua`."""
    return opened_line(raw, thread, about, "counts (field S)")[2:]


class Counts(NamedTuple):
    """The numbers in the field S of a thread. `born`: µs; `changes`, `versions`: so many so far; `by`: a token of the write
    that left them; the others: what there is."""

    born: int
    changes: int
    versions: int
    checkpoints: int
    writes: int
    chunks: int
    stored: int
    logical: int
    unique: int
    referred: int
    by: int

    @classmethod
    def of(cls, raw: bytes | None, thread: bytes, about: str) -> Counts:
        line = opened_counts(raw, thread, about)
        try:
            return cls(*map(int, line.split()))
        except (TypeError, ValueError):
            raise CheckpointCorruptError(f"{about}: the counts (field S) of thread {shown(thread)!r} are none") from None

    @classmethod
    def difference(cls, **totals: int) -> Counts:
        """By how much some of them change."""
        return cls(*[0] * len(cls._fields))._replace(**totals)

    @property
    def totals(self) -> tuple[int, ...]:
        """What there is in the thread: all but what identifies it and its state."""
        return self[3:10]

    @property
    def numbers(self) -> bytes:
        """All but which write left them, as a script takes them that is a write itself."""
        return b" ".join(b"%d" % each for each in self[:-1])

    def line(self, thread: bytes) -> bytes:
        """The field S."""
        return sealed_line(b"1 %d %d %d %d %d %d %d %d %d %d %d" % self, thread)

    @property
    def revision(self) -> bytes:
        """Which state of which thread this is: two are equal only if nothing was written in between."""
        return b"%d %d" % self[:2]


def seal_tag(ns: bytes, checkpoint: bytes, place: RecordKey, by: Seal) -> bytes:
    """The content of a tag: format, key id, checksum, then the field of the checkpoint it names."""
    body = place.names.field(b"C" + ns + b"\0" + checkpoint)
    return by.sign_tag(place.signed, body) + body


def open_tag(content: bytes, place: RecordKey, by: Seal) -> tuple[bytes, bytes]:
    """(namespace, checkpoint id) of a tag, after its checksum was verified."""
    where = f"tag {place.kind[1:].decode(errors='replace')!r} of thread {shown(place.thread)!r}"
    header, checksum, body = content[:2], content[2:18], content[18:]
    if len(content) < 20 or header[0] & ~ENCRYPTED != FORMAT:
        raise CheckpointCorruptError(f"{where}: damaged, or written by a newer version")
    by.check_tag(place.signed, where, header, checksum, body)
    ns, _, checkpoint = place.names.field_of(body)[1:].rpartition(b"\0")
    return ns, checkpoint
