"""A checkpoint, or a pending write, to the bytes that are sent: serialized values, cut into chunks, and a record. No I/O, no
effects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol

from ..caching.manifests import Manifest
from ..caching.messages import MessageCache, SerializedList
from ..errors import SerializationError
from ..storage import bodies, records
from ..storage.bodies import Value
from ..storage.codec import CompressionType
from ..storage.records import RecordKey
from ..storage.seals import Seal

WRITE_INLINE_MAX = 1024
"""A pending write is shared with nothing, so it stays in its record up to this many serialized bytes."""


@dataclass(slots=True)
class NewCheckpoint:
    """A checkpoint on its way in: what was serialized, what is taken over from the parent."""

    rest: tuple[str, bytes]
    serialized: dict[str, tuple[str, bytes | SerializedList]]
    carried: dict[str, Value]
    versions: dict[str, Any]
    flags: int
    rebuilt: Mapping[str, int]
    """The DeltaChannels that are rebuilt from ancestors, with the supersteps since their snapshots."""
    parent: bytes
    root: bytes
    run: bytes
    fork: bytes = b""
    """Of a fork: the id of its head."""
    fine: bool = False
    """Cut so that little changes alone (chunks.py)."""

    @property
    def size(self) -> int:
        return len(self.rest[1]) + sum(len(blob) for _, blob in self.serialized.values())


@dataclass(slots=True)
class EncodedCheckpoint:
    """A record ready to send, with the parts it refers to."""

    record: bytes
    pages: dict[bytes, bytes]
    fresh: bodies.Fresh
    known: Manifest


@dataclass(slots=True)
class EncodedWrites:
    """Pending writes ready to send, with the parts they refer to."""

    writes: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    """Which of two with one marker stays, marker, record."""
    pages: dict[bytes, bytes] = field(default_factory=dict)
    fresh: bodies.Fresh = field(default_factory=dict)


def encode_checkpoint(
    draft: NewCheckpoint, place: RecordKey, by: Seal, compression: CompressionType, messages: MessageCache
) -> EncodedCheckpoint:
    fresh: bodies.Fresh = {}
    values = dict(draft.carried)
    for name, (type_, blob) in draft.serialized.items():
        if isinstance(blob, SerializedList):
            values[name] = messages.chunked(blob, fresh, by)
        else:
            values[name] = bodies.chunked(type_, blob, type_ == "msgpack", fresh, draft.fine, by.name)
    references = records.References.of([*chain.from_iterable([value.digests for value in values.values()])])
    body = bodies.checkpoint_body(draft.rest, values, compression)
    record = records.seal(
        by,
        place,
        references,
        b"".join(records.packed_id(part) for part in (draft.parent, draft.root, draft.run, draft.fork)),
        body,
        flags=draft.flags,
        depth=max(draft.rebuilt.values(), default=0),
        logical=len(draft.rest[1]) + sum(value.size for value in values.values()),
        chunked=sum(value.chunked for value in values.values()),
    )
    known = Manifest(draft.versions, values, references.order, draft.rebuilt, records.checksum(record, body))
    return EncodedCheckpoint(record, references.pages, fresh, known)


def encode_writes(
    writes: Iterable[tuple[int, str, str, bytes]],
    task: bytes,
    path: str,
    place: RecordKey,
    by: Seal,
    compression: CompressionType,
) -> EncodedWrites:
    """`writes`: index, channel, and type and bytes of the value."""
    encoded = EncodedWrites()
    for index, channel, type_, blob in writes:
        if len(blob) <= WRITE_INLINE_MAX:
            value = Value(type_, blob, (), len(blob))
        else:
            value = bodies.chunked(type_, blob, type_ == "msgpack", encoded.fresh, name=by.name)
        references = records.References.of(value.digests)
        marker = records.write_marker(index, task)
        body = bodies.write_body(path, channel, value, compression)
        record = records.seal(
            by,
            place,
            references,
            marker,
            body,
            flags=records.WRITE,
            depth=0,
            logical=len(blob),
            chunked=value.chunked,
        )
        encoded.pages.update(references.pages)
        encoded.writes.append(("first" if index >= 0 else "last", marker, record))
    return encoded


def stored_rest(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """A checkpoint without its values as it is serialized, and the flags of its record."""
    rest = {name: value for name, value in checkpoint.items() if name != "channel_values"}
    rest["id"] = None  # the key says it; None holds its place among the keys
    canonical = _canonical(rest)
    return (rest, 0) if canonical is None else (canonical, records.CANONICAL)


def _canonical(rest: Mapping[str, Any]) -> dict[str, Any] | None:
    """`rest` with all channel versions as integers, if all of them are 32 digits; None if any is not."""
    versions, seen = rest.get("channel_versions"), rest.get("versions_seen")
    if not isinstance(versions, dict) or not isinstance(seen, dict):
        return None
    if not all(map(_is_canonical, versions.values())):
        return None
    if not all(isinstance(each, dict) and all(map(_is_canonical, each.values())) for each in seen.values()):
        return None
    return {
        **rest,
        "channel_versions": {name: int(version) for name, version in versions.items()},
        "versions_seen": {node: {name: int(version) for name, version in each.items()} for node, each in seen.items()},
    }


def _is_canonical(version: Any) -> bool:
    # below 10**18, so that the serializer takes it as an integer
    return (
        isinstance(version, str)
        and len(version) == 32
        and version.startswith("0" * 14)
        and version.isascii()
        and version.isdigit()
    )


def dumped(serde: SerializerProtocol, value: Any, what: str, channel: str | None = None) -> tuple[str, bytes]:
    try:
        type_, blob = serde.dumps_typed(value)
    except Exception as error:
        raise refusal(error, what, channel) from error
    return type_, bytes(blob)


def refusal(error: Exception, what: str, channel: str | None = None) -> SerializationError:
    where = what if channel is None else f"{what}, channel {channel!r}"
    return SerializationError(
        f"{where}: the serializer refuses the value ({type(error).__name__}: {error}); nothing was written. "
        "Keep it out of the state, or pass a serde that takes it"
    )
