"""The bodies of records: values in stored form; what checkpoints, writes and delta histories hold; their declared sizes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Final, cast

import msgspec
import ormsgpack

from ..errors import CheckpointCorruptError, SerializationError
from . import chunks
from .chunks import Segment
from .codec import BODY_MAX, CompressionType, digest, pack
from .records import LOGICAL_MAX, Header

INLINE_MAX: Final = 96
"""Values up to this many serialized bytes stand in the record."""


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
        return self.size - chunks.literal(self.content)


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

Fresh = dict[bytes, chunks.Run]
"""Chunks by digest, plain, in parts: most of them are there already, and are never joined."""


def chunked(
    type_: str, blob: bytes, structured: bool, fresh: Fresh, fine: bool = False, name: Callable[[bytes], bytes] = digest
) -> Value:
    """A serialized value in stored form. Its chunks are added to `fresh`, each under what `name` gives for it."""
    if len(blob) <= INLINE_MAX:
        return Value(type_, blob, (), len(blob))
    segments, pieces = chunks.cut(blob, structured, fine)
    digests = []
    for piece in pieces:
        digests.append(name(piece))
        fresh[digests[-1]] = (piece,)
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
    inside = body.size - (len(content) if isinstance(content, bytes) else chunks.literal(content))
    fits = inside == 0 if isinstance(content, bytes) else chunks.count(content) <= inside <= header.chunked
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
            inside = size - chunks.literal(content)
            chunked += inside
            wrong = value.size is None or inside < chunks.count(content)  # no chunk is empty
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
        used = chunks.count(content)
        values[entry.name] = Value(type_, content, tuple(islice(left, used)), entry.size or 0)
        at += used
    if at != len(digests):
        raise CheckpointCorruptError(f"{place}: {len(digests)} chunk references for {at} places")
    return values


def taken(content: Any, digests: Iterator[bytes], place: object) -> tuple[bytes, ...]:
    """The next of these digests, as many as there are chunks in a stored value."""
    used = 0 if isinstance(content, bytes) else chunks.count(content)
    found = tuple(islice(digests, used))
    if len(found) != used:
        raise CheckpointCorruptError(f"{place}: fewer chunk references than places")
    return found
