"""The record of a checkpoint and of a pending write: Python on one side, bytes that scripts can read on the other.

Both are stored as *stamp*, *header*, *checksum*, *body*::

    stamp      20  made by the script: created_at (6, ms), version or revision (5), bytes new on the server (5),
                   check (4, see codec.place_check)
    header      1  format
                1  flags: 1 = pending write, 2 = channel versions are canonical and stored as integers
                1  key id of the checksum, 0 = unkeyed
                2  number of page references            3  supersteps since the oldest snapshot that its DeltaChannels
                                                           are rebuilt from, 0 = they need no ancestors
                2  number of chunk references           5  logical bytes: what the values take serialized
                                                        5  of these, the bytes that stand in chunks
               16  each: references to pages, then to chunks
                   checkpoint: parent id, root parent id, run id, fork (its head)
                   pending write: index + 2**31 (4), task id
                   delta history: parent id of its checkpoint, three empty ids
    checksum   16  BLAKE2b over layout, prefix, thread, kind, namespace, checkpoint id, header, body
    body           packed; scripts never open it

An id in a header is ``\\x80`` and 16 bytes for a canonical UUID, else its length (1 byte, or ``\\x7f`` and 4) and its UTF-8
text. All pending writes of one checkpoint stand in one field: format (1), their number (3), then for each its length (4) and
the record: one field costs less than the names of many, and no index entry is needed to find them.

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
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, Final, NamedTuple, cast
from uuid import UUID

import msgspec
import ormsgpack

from . import chunks as cutting
from .bounded import Bounded
from .chunks import Segment
from .codec import BODY_MAX, CHUNK_MAX, DIGEST, CompressionType, Integrity, digest, pack, place_check, unpack
from .errors import CheckpointCorruptError, CheckpointLostError, FormatError, IntegrityKeyError, SerializationError
from .keys import LAYOUT, shown

FORMAT: Final = 1
STAMP: Final = 20
FIXED: Final = 20
INLINE_MAX: Final = 96
"""Values up to this many serialized bytes stand in the record."""
LOGICAL_MAX: Final = 1 << 30
"""What one record may hold, serialized, in bytes: what a record from elsewhere can make a reader build."""

WRITE, CANONICAL = 1, 2

_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Place(NamedTuple):
    """Where a record stands; its checksum is bound to it."""

    prefix: bytes
    thread: bytes
    kind: bytes
    ns: bytes
    checkpoint: bytes

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
        return (b"%d" % LAYOUT, *self)


@dataclass(slots=True)
class Value:
    """A channel's value in stored form: inline bytes, or segments and the digests they count."""

    type: str
    content: bytes | list[Segment]
    digests: tuple[bytes, ...]
    size: int

    @property
    def chunked(self) -> int:
        """How many of its bytes stand in chunks."""
        if isinstance(self.content, bytes):
            return 0
        return self.size - cutting.literal(self.content)


_Size = Annotated[int, msgspec.Meta(ge=0)]


class Entry(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A channel in the body of a checkpoint. `size`: only of a value in chunks."""

    name: str
    type: str
    content: bytes | list[_Size | bytes]
    size: _Size | None = None


class Write(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The body of a pending write."""

    path: str
    name: str
    type: str
    content: bytes | list[_Size | bytes]
    size: _Size


class History(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The body of a delta history (deltas.py). `places`: so many chunks of the record are those of seeds and writes; `lost`:
    channels that cannot be rebuilt."""

    content: bytes | list[_Size | bytes]
    size: _Size
    places: _Size
    lost: list[str]


Body = tuple[str, bytes, list[Entry]]
_bodies = {kind: msgspec.msgpack.Decoder(kind) for kind in (Body, Write, History)}


class Verified:
    """Pages and chunks this process has sent or verified, by digest, within a number of bytes. What a name stands for never
    changes, so there is nothing to invalidate."""

    def __init__(self, limit: int) -> None:
        # the sums: what CPython adds for the objects, about
        self.pages: Bounded[bytes, tuple[bytes, ...]] = Bounded(limit // 8, lambda name, page: 60 * len(page) + 250)
        self.chunks: Bounded[bytes, bytes] = Bounded(limit - limit // 8, lambda name, plain: len(plain) + 200)

    def have(self, pages: Iterable[bytes], chunks: Set[bytes]) -> Parts:
        """Of these, what need not be read: pages all of whose chunks are here, and chunks outside of them."""
        parts = Parts(verified=self)
        listed: set[bytes] = set()
        for name in pages:
            digests = self.pages.get(name)
            if digests is not None:
                listed.update(digests)
                plain = [self.chunks.get(digest) for digest in digests]
                if None not in plain:
                    parts.lists[name] = digests
                    parts.plain.update(zip(digests, cast(list[bytes], plain), strict=True))
        for name in chunks - listed:
            content = self.chunks.get(name)
            if content is not None:
                parts.plain[name] = content
                parts.loose.append(name)
        return parts

    def sent(self, pages: Mapping[bytes, bytes], chunks: Mapping[bytes, bytes]) -> None:
        for name, content in pages.items():
            self.pages.put(name, _digests(content))
        for name, content in chunks.items():
            self.chunks.put(name, content)


def _digests(page: bytes) -> tuple[bytes, ...]:
    return tuple([page[at : at + DIGEST] for at in range(0, len(page), DIGEST)])


@dataclass(slots=True)
class Parts:
    """What a record refers to, by digest: as received, pages plain and chunks packed; and as verified, `lists` of what pages
    name and `plain` chunks. Verified when taken, each once, and then kept in `verified` too, if there is one."""

    pages: dict[bytes, bytes] = field(default_factory=dict)
    chunks: dict[bytes, bytes] = field(default_factory=dict)
    lists: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    plain: dict[bytes, bytes] = field(default_factory=dict)
    loose: list[bytes] = field(default_factory=list)
    """Those of the `plain` chunks that were here before and are in none of the `lists`."""
    verified: Verified | None = None

    def page(self, name: bytes, place: object) -> tuple[bytes, ...]:
        digests = self.lists.get(name)
        if digests is None:
            content = self.pages.get(name)
            if content is None:
                raise CheckpointLostError(f"{place}: the page of references {name.hex()} is gone from the server")
            if len(content) > DIGEST * cutting.PAGE_LIMIT or digest(content) != name or len(content) % DIGEST:
                raise CheckpointCorruptError(f"{place}: the page of references {name.hex()} is damaged")
            digests = self.lists[name] = _digests(content)
            if self.verified is not None:
                self.verified.pages.put(name, digests)
        return digests

    def chunk(self, name: bytes, place: object) -> bytes:
        plain = self.plain.get(name)
        if plain is None:
            packed = self.chunks.get(name)
            if packed is None:
                raise CheckpointLostError(f"{place}: the chunk {name.hex()} is gone from the server")
            plain = unpack(packed, CHUNK_MAX, f"{place}: chunk {name.hex()}")
            if digest(plain) != name:
                raise CheckpointCorruptError(f"{place}: the chunk {name.hex()} is damaged: its digest differs")
            self.plain[name] = plain
            if self.verified is not None:
                self.verified.chunks.put(name, plain)
        return plain


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


# --- writing ---


@dataclass(slots=True)
class References:
    """A reference list, cut into pages, with the bytes of each page."""

    pages: dict[bytes, bytes]
    order: tuple[bytes, ...]
    loose: tuple[bytes, ...]

    @classmethod
    def of(cls, digests: Sequence[bytes]) -> References:
        cut, loose = cutting.paginate(digests)
        joined = [b"".join(page) for page in cut]
        names = tuple(digest(page) for page in joined)
        return cls(dict(zip(names, joined, strict=True)), names, loose)


def seal(
    integrity: Integrity,
    place: Place,
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
            b"%c%c%c" % (FORMAT, flags, integrity.signing_id),
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
    return header + integrity.sign(place.signed, header, body) + body


Fresh = dict[bytes, cutting.Run]
"""Chunks by digest, plain, in parts: most of them are there already, and are never joined."""


def chunked(type_: str, blob: bytes, structured: bool, fresh: Fresh, fine: bool = False) -> Value:
    """A serialized value in stored form. Its chunks are added to `fresh`."""
    if len(blob) <= INLINE_MAX:
        return Value(type_, blob, (), len(blob))
    segments, pieces = cutting.cut(blob, structured, fine)
    digests = []
    for piece in pieces:
        name = digest(piece)
        fresh[name] = (piece,)
        digests.append(name)
    return Value(type_, segments, tuple(digests), len(blob))


def checkpoint_body(rest: tuple[str, bytes], channels: Mapping[str, Value], compression: CompressionType) -> bytes:
    """`rest` is the serializer's form of (checkpoint without values, metadata)."""
    entries = [
        [name, value.type, value.content] if isinstance(value.content, bytes) else [name, value.type, value.content, value.size]
        for name, value in channels.items()
    ]
    return _packed_body([rest[0], rest[1], entries], compression)


def write_body(path: str, channel: str, value: Value, compression: CompressionType) -> bytes:
    return _packed_body([path, channel, value.type, value.content, value.size], compression)


def history_body(value: Value, places: int, lost: Sequence[str], compression: CompressionType) -> bytes:
    return _packed_body([value.content, value.size, places, list(lost)], compression)


def _packed_body(body: list[Any], compression: CompressionType) -> bytes:
    plain = ormsgpack.packb(body)
    if len(plain) > BODY_MAX:
        raise SerializationError(f"metadata and small values take {len(plain)} bytes, a record holds {BODY_MAX}")
    return pack(plain, compression)


# --- reading ---


def open_record(raw: bytes, place: Place, integrity: Integrity) -> tuple[Header, bytes]:
    """Header and plain body of a stored record, after its checksum was verified."""
    header, body = verified(raw, place, integrity)
    return header, unpack(body, BODY_MAX, f"{place}: body")


def verified(raw: bytes, place: Place, integrity: Integrity) -> tuple[Header, bytes]:
    """Header and packed body of a stored record, after its checksum was verified.

    Raises CheckpointCorruptError, IntegrityKeyError or FormatError, naming the place; nothing of the body is looked at.
    """
    header, checksum, body, key_id, signed = parsed(raw, place)
    if not integrity.knows(key_id):
        raise IntegrityKeyError(
            f"{place}: signed with a key (id {key_id}) that this saver was not given; if it is yours, add it to integrity_key"
        )
    if not key_id and not integrity.accept_unkeyed:
        raise IntegrityKeyError(
            f"{place}: not signed, and this saver has an integrity_key; somebody without the key wrote it, or it is from "
            "before the key was introduced (accept_unkeyed=True reads such data for a while)"
        )
    if not integrity.verifies(key_id, checksum, place.signed, signed, body):
        raise CheckpointCorruptError(f"{place}: the checksum does not hold; the record was damaged or moved")
    # checked after the checksum: from here on the bytes are ours
    if place_check(raw[:16], place.thread, place.field, *_marker(header)) != raw[16:STAMP]:
        raise CheckpointCorruptError(f"{place}: the server's stamp (time, version, size) is damaged")
    return header, body


def stamp(created_at: int, version: int, new_bytes: int, place: Place, *marker: bytes) -> bytes:
    """The stamp a script would make; used when a record moves to another place (copies)."""
    content = created_at.to_bytes(6, "big") + version.to_bytes(5, "big") + new_bytes.to_bytes(5, "big")
    return content + place_check(content, place.thread, place.field, *marker)


def _marker(header: Header) -> tuple[bytes, ...]:
    """What the stamp of a pending write is bound to besides its place."""
    return (write_marker(header.index, header.task.encode()),) if header.flags & WRITE else ()


def parsed(raw: bytes, place: Place) -> tuple[Header, bytes, bytes, int, bytes]:
    """(header, checksum, body, key id, header bytes), bounds checked, nothing verified yet."""
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
    key_id = raw[at + 2]
    n_pages = int.from_bytes(raw[at + 3 : at + 5], "big")
    n_loose = int.from_bytes(raw[at + 5 : at + 7], "big")
    at += FIXED
    names = [raw[p : p + DIGEST] for p in range(at, at + DIGEST * (n_pages + n_loose), DIGEST)]
    header.pages, header.loose = tuple(names[:n_pages]), tuple(names[n_pages:])
    at += DIGEST * (n_pages + n_loose)
    try:
        if header.flags & WRITE:
            header.index = int.from_bytes(raw[at : at + 4], "big") - 2**31
            task, at = _unpack_id(raw, at + 4)
            header.task = task or ""
        else:
            header.parent, at = _unpack_id(raw, at)
            header.root, at = _unpack_id(raw, at)
            header.run, at = _unpack_id(raw, at)
            header.fork, at = _unpack_id(raw, at)
    except (IndexError, UnicodeDecodeError):
        raise CheckpointCorruptError(f"{place}: the header of the record is damaged") from None
    if at + DIGEST > len(raw):
        raise CheckpointCorruptError(f"{place}: the record is cut short")
    return header, raw[at : at + DIGEST], raw[at + DIGEST :], key_id, raw[STAMP:at]


def _unpack_id(raw: bytes, at: int) -> tuple[str | None, int]:
    size = raw[at]
    at += 1
    if size == 0x80:
        return str(UUID(bytes=raw[at : at + 16])) if at + 16 <= len(raw) else _cut_short(), at + 16
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


def split_writes(blob: bytes, place: Place) -> Iterator[bytes]:
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


def all_digests(header: Header, parts: Parts, place: object) -> list[bytes]:
    """The chunks a record refers to, in order, pages resolved."""
    digests: list[bytes] = []
    for page in header.pages:
        digests.extend(parts.page(page, place))
    digests.extend(header.loose)
    return digests


def open_checkpoint(header: Header, plain: bytes, place: object) -> Body:
    """The body of a checkpoint's record, whose sizes are those that its header declares."""
    body = cast(Body, _open_body(plain, Body, place))
    _check_sizes(header, len(body[1]), body[2], place)
    return body


def open_write(header: Header, plain: bytes, place: object) -> Write:
    """The body of a pending write, whose sizes are those that its header declares."""
    body = cast(Write, _open_body(plain, Write, place))
    _check_sizes(header, 0, [body], place)
    return body


def open_history(header: Header, plain: bytes, place: object) -> History:
    """The body of a delta history, whose size is not above what its header declares."""
    body = cast(History, _open_body(plain, History, place))
    content = body.content
    inside = body.size - (len(content) if isinstance(content, bytes) else cutting.literal(content))
    fits = inside == 0 if isinstance(content, bytes) else cutting.count(content) <= inside <= header.chunked
    if not fits or not body.size <= header.logical <= LOGICAL_MAX:
        raise CheckpointCorruptError(
            f"{place}: the record declares {header.logical} bytes, its content cannot take {body.size}"
        )
    return body


def _open_body(plain: bytes, kind: Any, place: object) -> Any:
    """Its checksum held, so a failure here is a bug or a record that somebody else made."""
    try:
        return _bodies[kind].decode(plain)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CheckpointCorruptError(f"{place}: the body is verified, but not laid out as a record's ({error})") from error


def _check_sizes(header: Header, rest: int, values: Iterable[Entry | Write], place: object) -> None:
    logical, chunked = rest, 0
    names: set[str] = set()
    for value in values:
        if value.name in names:
            raise CheckpointCorruptError(f"{place}: channel {value.name!r} stands there twice")
        names.add(value.name)
        content = value.content
        size = len(content) if value.size is None else value.size
        logical += size
        if isinstance(content, bytes):
            wrong = size != len(content)
        else:
            inside = size - cutting.literal(content)
            chunked += inside
            wrong = value.size is None or inside < cutting.count(content)  # no chunk is empty
        if wrong:
            raise CheckpointCorruptError(f"{place}: channel {value.name!r} cannot take {size} bytes, as it declares")
    if (logical, chunked) != (header.logical, header.chunked) or logical > LOGICAL_MAX:
        raise CheckpointCorruptError(
            f"{place}: the record declares {header.logical} bytes, {header.chunked} of them in chunks, its values "
            f"{logical} and {chunked}, and at most {LOGICAL_MAX} are allowed"
        )


def stored_values(entries: Iterable[Entry | Write], digests: Sequence[bytes], place: object) -> dict[str, Value]:
    """The channels of a body, each with its own digests."""
    values: dict[str, Value] = {}
    left, at = iter(digests), 0
    for entry in entries:
        content, type_ = entry.content, sys.intern(entry.type)
        if isinstance(content, bytes):
            values[entry.name] = Value(type_, content, (), len(content))
            continue
        used = cutting.count(content)
        values[entry.name] = Value(type_, content, tuple(islice(left, used)), entry.size or 0)
        at += used
    if at != len(digests):
        raise CheckpointCorruptError(f"{place}: {len(digests)} chunk references for {at} places")
    return values


def taken(content: Any, digests: Iterator[bytes], place: object) -> tuple[bytes, ...]:
    """The next of these digests, as many as there are chunks in a stored value."""
    used = 0 if isinstance(content, bytes) else cutting.count(content)
    found = tuple(islice(digests, used))
    if len(found) != used:
        raise CheckpointCorruptError(f"{place}: fewer chunk references than places")
    return found


def joined(value: Value, parts: Parts, place: object) -> bytes:
    """The serialized bytes of a value, every chunk verified. Nothing beyond its declared size is inflated or joined."""
    if isinstance(value.content, bytes):
        return value.content
    chunks: list[bytes] = []
    left = value.chunked
    for name in value.digests:
        chunk = parts.chunk(name, place)
        left -= len(chunk)
        if left < 0:
            break
        chunks.append(chunk)
    if left:
        raise CheckpointCorruptError(f"{place}: its chunks do not take the {value.size} bytes that it declares")
    return cutting.join(value.content, chunks)


def moved(raw: bytes, here: Place, there: Place, integrity: Integrity) -> tuple[Header, bytes]:
    """A stored record as it must be at another place, signed with the current key, after verifying it where it is."""
    header, body = verified(raw, here, integrity)
    signed = raw[STAMP : len(raw) - len(body) - DIGEST]
    signed = signed[:2] + bytes([integrity.signing_id]) + signed[3:]
    top = stamp(header.created_at, header.version, header.new_bytes, there, *_marker(header))
    return header, top + signed + integrity.sign(there.signed, signed, body) + body


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
    """The numbers in the field S of a thread, in the order of `prelude.lua`."""
    return opened_line(raw, thread, about, "counts (field S)")[2:]


class Counts(NamedTuple):
    """The numbers in the field S of a thread. `born`: µs; `changes`, `versions`: so many so far; the others: what there is."""

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

    @classmethod
    def of(cls, raw: bytes | None, thread: bytes, about: str) -> Counts:
        line = opened_counts(raw, thread, about)
        try:
            return cls(*map(int, line.split()))
        except (TypeError, ValueError):
            raise CheckpointCorruptError(f"{about}: the counts (field S) of thread {shown(thread)!r} are none") from None

    @property
    def revision(self) -> bytes:
        """Which state of which thread this is: two are equal only if nothing was written in between."""
        return b"%d %d" % self[:2]


# --- tags ---


def seal_tag(ns: bytes, checkpoint: bytes, place: Place, integrity: Integrity) -> bytes:
    """The content of a tag: format, key id, checksum, then the field of the checkpoint it names."""
    header, body = bytes([FORMAT, integrity.signing_id]), b"C" + ns + b"\0" + checkpoint
    return header + integrity.sign(place.signed, header, body) + body


def open_tag(content: bytes, place: Place, integrity: Integrity) -> tuple[bytes, bytes]:
    """(namespace, checkpoint id) of a tag, after its checksum was verified."""
    where = f"tag {place.kind[1:].decode(errors='replace')!r} of thread {shown(place.thread)!r}"
    header, checksum, body = content[:2], content[2:18], content[18:]
    if len(content) < 20 or header[0] != FORMAT or not integrity.knows(header[1]):
        raise CheckpointCorruptError(f"{where}: damaged, or written by a newer version or with an unknown key")
    if not header[1] and not integrity.accept_unkeyed:
        raise IntegrityKeyError(f"{where}: not signed, and this saver has an integrity_key")
    if not integrity.verifies(header[1], checksum, place.signed, header, body):
        raise CheckpointCorruptError(f"{where}: the checksum does not hold; it was damaged or moved")
    ns, _, checkpoint = body[1:].rpartition(b"\0")
    return ns, checkpoint
