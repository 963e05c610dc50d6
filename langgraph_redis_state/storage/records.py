"""The record of a checkpoint and of a pending write: Python on one side, bytes that scripts can read on the other.

Both are stored as *stamp*, *header*, *checksum*, *body*::

    stamp      20  made by the script: created_at (6, ms), version or revision (5), bytes new on the server (5),
                   check (4, see codec.place_check)
    header      1  format
                1  flags: 1 = pending write, 2 = channel versions are canonical and stored as integers, 4 = encrypted
                1  key id, 0 = unkeyed
                2  number of page references            3  supersteps since the oldest snapshot that its DeltaChannels
                                                           are rebuilt from, 0 = they need no ancestors
                2  number of chunk references           5  logical bytes: what the values take serialized
                                                        5  of these, the bytes that stand in chunks
               16  each: references to pages, then to chunks
                   checkpoint: parent id, root parent id, run id, fork (its head)
                   pending write: index + 2**31 (4), task id
                   delta history: parent id of its checkpoint, three empty ids
    checksum   16  BLAKE2b over layout, prefix, thread, kind, namespace, checkpoint id, header, body; encrypted: the
                   synthetic IV (seals.py)
    body           packed, then maybe encrypted; scripts never open it

An id in a header is ``\x80`` and 16 bytes for a canonical UUID, else its length (1 byte, or ``\x7f`` and 4) and its UTF-8
text. How the pending writes of one checkpoint stand in fields is in thread_fields.py; all are bound to the first of these.

The body of a checkpoint is msgpack ``[type, bytes, channels]``: the serializer's form of (checkpoint without values,
metadata), and for each channel ``[name, type, bytes]`` when small or ``[name, type, segments, size]`` (see chunks.py). That of
a pending write is ``[task path, channel, type, bytes or segments, size]``. That of a delta history is
``[bytes or segments, size, number of segments in chunks of the values, channels that cannot be rebuilt]`` (see deltas.py).

What a record declares, its logical bytes and those in chunks, is checked against its body before any chunk is looked at, and
each value's size before its chunks are joined: a small record may name one chunk many times.

This module may know bytes and names, no I/O and no LangGraph types; values are opaque (type, bytes) pairs here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..errors import CheckpointCorruptError, FormatError, SerializationError
from . import chunks
from .codec import BODY_MAX, DIGEST, Part, digest, place_check, unpack
from .keys import LAYOUT, shown
from .names import PLAIN_NAMES, Names
from .seals import ENCRYPTED, Seal

FORMAT: Final = 1

STAMP: Final = 20

FIXED: Final = 20
LOGICAL_MAX: Final = 1 << 30
"""What one record may hold, serialized, in bytes: what a record from elsewhere can make a reader build."""

WRITE, CANONICAL = 1, 2

_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class RecordKey(NamedTuple):
    """Where a record stands; its checksum is bound to it."""

    prefix: bytes
    thread: bytes
    kind: bytes
    ns: bytes
    checkpoint: bytes
    names: Names = PLAIN_NAMES

    def __str__(self) -> str:
        what = {b"W": "pending writes of checkpoint", b"H": "delta history of checkpoint"}.get(self.kind, "checkpoint")
        return (
            f"thread {shown(self.thread)!r}, namespace {shown(self.ns)!r}, {what} {shown(self.checkpoint)!r} "
            f"(prefix {shown(self.prefix)!r})"
        )

    @property
    def field(self) -> bytes:
        return self.kind + self.ns + b"\0" + self.checkpoint

    @property
    def signed(self) -> tuple[bytes, ...]:
        return (b"%d" % LAYOUT, *self[:5])

    @property
    def stored(self) -> tuple[bytes, bytes]:
        """Thread and field as scripts know them."""
        return self.names.thread(self.thread), self.names.field(self.field)


@dataclass(slots=True)
class Header:
    """What a record says without its body. `created_at` in ms; ids are None where there is none."""

    created_at: int = 0
    version: int = 0
    new_bytes: int = 0
    flags: int = 0
    pages: tuple[bytes, ...] = ()
    loose: tuple[bytes, ...] = ()
    depth: int = 0
    logical: int = 0
    chunked: int = 0
    parent: str | None = None
    root: str | None = None
    run: str | None = None
    fork: str | None = None
    index: int = 0
    task: str = ""


def packed_id(text: bytes) -> bytes:
    """An id in its header form."""
    if len(text) == 36 and _UUID.fullmatch(text):
        return b"\x80" + bytes.fromhex(text.replace(b"-", b"").decode())
    if len(text) < 0x7F:
        return b"%c%s" % (len(text), text)
    return b"\x7f" + len(text).to_bytes(4, "big") + text


def write_marker(index: int, task: bytes) -> bytes:
    """What identifies a pending write within its checkpoint."""
    return (index + 2**31).to_bytes(4, "big") + packed_id(task)


@dataclass(slots=True)
class References:
    """A reference list, cut into pages, with the bytes of each page."""

    pages: dict[bytes, bytes]
    order: tuple[bytes, ...]
    loose: tuple[bytes, ...]

    @classmethod
    def of(cls, digests: Sequence[bytes]) -> References:
        if len(digests) <= chunks.PAGE_FROM:
            return cls({}, (), tuple(digests))
        cut, loose = chunks.paginate(digests)
        joined = [b"".join(page) for page in cut]
        names = tuple(digest(page) for page in joined)
        return cls(dict(zip(names, joined, strict=True)), names, loose)


def seal(
    by: Seal,
    place: RecordKey,
    references: References,
    tail: bytes,
    body: bytes,
    *,
    flags: int,
    depth: int,
    logical: int,
    chunked: int,
) -> bytes:
    """Header, checksum and body of one record. `tail` is what follows the references in the header."""
    if len(references.order) > 0xFFFF or logical > LOGICAL_MAX:
        raise SerializationError(
            f"{place}: {logical} bytes in {len(references.order)} pages are too large for one record, which holds "
            f"{LOGICAL_MAX} bytes; keep large values elsewhere and their names in the state"
        )
    header = b"".join(
        (
            b"%c%c%c" % (FORMAT, flags | by.flags, by.key_id),
            len(references.order).to_bytes(2, "big"),
            len(references.loose).to_bytes(2, "big"),
            min(depth, 0xFFFFFF).to_bytes(3, "big"),
            logical.to_bytes(5, "big"),
            chunked.to_bytes(5, "big"),
            *references.order,
            *references.loose,
            tail,
        )
    )
    return header + by.close(place.signed, header, body)


def declared(record: bytes) -> tuple[int, int]:
    """What a record without its stamp declares: logical bytes, and how many of them stand in chunks."""
    return int.from_bytes(record[10:15], "big"), int.from_bytes(record[15:20], "big")


def checksum(record: bytes, body: bytes) -> bytes:
    """The checksum of a record, with its stamp or without. `body`: packed, plain; encrypted, it is as long."""
    end = len(record) - len(body)
    return record[end - DIGEST : end]


def open_record(raw: bytes, place: RecordKey, by: Seal) -> tuple[Header, bytes]:
    """Header and plain body of a stored record, after its checksum was verified."""
    header, body = verified(raw, place, by)
    return header, unpacked(body, place)


def unpacked(body: bytes, place: RecordKey) -> bytes:
    """The plain body of a record that was verified."""
    return unpack(body, BODY_MAX, Part(place, ": body"))


def verified(raw: bytes, place: RecordKey, by: Seal) -> tuple[Header, bytes]:
    """Header and packed body of a stored record, after its checksum was verified.

    Raises CheckpointCorruptError, IntegrityKeyError, EncryptionKeyError or FormatError, naming the place; nothing of the body
    is looked at.
    """
    header, checksum, body, signed = parsed(raw, place)
    body = by.open(place.signed, place, signed, checksum, body)
    # checked after the checksum: from here on the bytes are ours
    if place_check(raw[:16], *place.stored, *_marker(header)) != raw[16:STAMP]:
        raise CheckpointCorruptError(f"{place}: the server's stamp (time, version, size) is damaged")
    return header, body


def stamp(created_at: int, version: int, new_bytes: int, place: RecordKey, *marker: bytes) -> bytes:
    """The stamp a script would make; used when a record moves to another place (copies)."""
    content = created_at.to_bytes(6, "big") + version.to_bytes(5, "big") + new_bytes.to_bytes(5, "big")
    return content + place_check(content, *place.stored, *marker)


def _marker(header: Header) -> tuple[bytes, ...]:
    """What the stamp of a pending write is bound to besides its place."""
    return (write_marker(header.index, header.task.encode()),) if header.flags & WRITE else ()


def parsed(raw: bytes, place: RecordKey) -> tuple[Header, bytes, bytes, bytes]:
    """(header, checksum, body, header bytes), bounds checked, nothing verified yet."""
    if len(raw) < STAMP + FIXED + DIGEST:
        raise CheckpointCorruptError(f"{place}: {len(raw)} bytes are too few for a record")
    at = STAMP
    if raw[at] != FORMAT:
        raise FormatError(
            f"{place}: record format {raw[at]}, this version reads {FORMAT}; it is damaged, or a newer version of "
            "langgraph-redis-state wrote it"
        )
    header = Header(
        created_at=int.from_bytes(raw[0:6], "big"),
        version=int.from_bytes(raw[6:11], "big"),
        new_bytes=int.from_bytes(raw[11:16], "big"),
        flags=raw[at + 1],
        depth=int.from_bytes(raw[at + 7 : at + 10], "big"),
        logical=int.from_bytes(raw[at + 10 : at + 15], "big"),
        chunked=int.from_bytes(raw[at + 15 : at + 20], "big"),
    )
    n_pages = int.from_bytes(raw[at + 3 : at + 5], "big")
    n_loose = int.from_bytes(raw[at + 5 : at + 7], "big")
    at += FIXED
    names = [raw[p : p + DIGEST] for p in range(at, at + DIGEST * (n_pages + n_loose), DIGEST)]
    header.pages, header.loose = tuple(names[:n_pages]), tuple(names[n_pages:])
    at += DIGEST * (n_pages + n_loose)
    try:
        if header.flags & WRITE:
            header.index = int.from_bytes(raw[at : at + 4], "big") - 2**31
            task, at = unpack_id(raw, at + 4)
            header.task = task or ""
        else:
            header.parent, at = unpack_id(raw, at)
            header.root, at = unpack_id(raw, at)
            header.run, at = unpack_id(raw, at)
            header.fork, at = unpack_id(raw, at)
    except (IndexError, UnicodeDecodeError):
        raise CheckpointCorruptError(f"{place}: the header of the record is damaged") from None
    if at + DIGEST > len(raw):
        raise CheckpointCorruptError(f"{place}: the record is cut short")
    return header, raw[at : at + DIGEST], raw[at + DIGEST :], raw[STAMP:at]


def is_current(raw: bytes, by: Seal) -> bool:
    """Whether a record is stored under the key that this seal writes with."""
    return raw[STAMP + 1] & ENCRYPTED == by.flags and raw[STAMP + 2] == by.key_id


def unpack_id(raw: bytes, at: int) -> tuple[str | None, int]:
    """An id in its header form, and where it ends."""
    size = raw[at]
    at += 1
    if size == 0x80:
        text = raw[at : at + 16].hex() if at + 16 <= len(raw) else _cut_short()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}", at + 16
    if size == 0x7F:
        size = int.from_bytes(raw[at : at + 4], "big")
        at += 4
    elif size > 0x80:
        _cut_short()
    if at + size > len(raw):
        _cut_short()
    return (raw[at : at + size].decode() if size else None), at + size


def _cut_short() -> str:
    raise IndexError("id")


def moved(
    raw: bytes, here: RecordKey, there: RecordKey, by: Seal, to: Seal, renamed: Mapping[bytes, bytes] = {}
) -> tuple[Header, bytes]:
    """A stored record as it must be at another place or under another seal, after verifying it where it is. `renamed`: the
    references that have other names there, with these."""
    header, body = verified(raw, here, by)
    at = STAMP + FIXED + DIGEST * (len(header.pages) + len(header.loose))
    tail = raw[at : len(raw) - len(body) - DIGEST]
    header.pages, header.loose = (tuple([renamed.get(each, each) for each in names]) for names in (header.pages, header.loose))
    flags = raw[STAMP + 1] & ~ENCRYPTED | to.flags
    signed = b"%c%c%c%s" % (FORMAT, flags, to.key_id, raw[STAMP + 3 : STAMP + FIXED])
    signed += b"".join((*header.pages, *header.loose, tail))
    top = stamp(header.created_at, header.version, header.new_bytes, there, *_marker(header))
    return header, top + signed + to.close(there.signed, signed, body)
