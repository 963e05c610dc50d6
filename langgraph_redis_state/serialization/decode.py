"""A checkpoint between LangGraph's form of it and its record: what the serializer makes of it, and what this process knows of
stored ones. No I/O, no effects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.checkpoint.base import CheckpointMetadata
from langgraph.checkpoint.serde.base import SerializerProtocol

from ..caching.manifests import Manifest
from ..caching.parts import Parts
from ..errors import CheckpointCorruptError, SerializationError
from ..storage import bodies, chunks, records
from ..storage.bodies import Value
from ..storage.records import Header, RecordKey


class OpenedRecord:
    """A checkpoint's record, verified and taken apart as far as no serializer is needed."""

    __slots__ = ("_entries", "header", "place", "rest")

    def __init__(self, header: Header, plain: bytes, place: RecordKey) -> None:
        self.header, self.place = header, place
        type_, blob, self._entries = bodies.open_checkpoint(header, plain, place)
        self.rest: tuple[str, bytes] = type_, blob
        """What the serializer made of the checkpoint without values, and of its metadata."""

    @property
    def channels(self) -> set[str]:
        return {entry.name for entry in self._entries}

    def known(self, parts: Parts, versions: Mapping[str, Any]) -> Manifest:
        digests = all_digests(self.header, parts, self.place)
        values = bodies.stored_values(self._entries, digests, self.place)
        return Manifest(versions, values, self.header.pages)

    def load(self, serde: SerializerProtocol) -> tuple[dict[str, Any], CheckpointMetadata]:
        rest, metadata = _loads(serde, *self.rest, f"{self.place}, metadata")
        if self.header.flags & records.CANONICAL:
            rest["channel_versions"] = _widened(rest["channel_versions"])
            rest["versions_seen"] = {node: _widened(seen) for node, seen in rest["versions_seen"].items()}
        return rest, metadata


def _widened(versions: Mapping[str, int]) -> dict[str, str]:
    return {name: f"{version:032d}" for name, version in versions.items()}


def loaded(serde: SerializerProtocol, value: Value, parts: Parts, where: str) -> Any:
    return _loads(serde, value.type, joined(value, parts, where), where)


def _loads(serde: SerializerProtocol, type_: str, blob: bytes, what: str) -> Any:
    try:
        return serde.loads_typed((type_, blob))
    except Exception as error:
        raise SerializationError(
            f"{what}: the bytes are intact, but the serializer cannot read them as {type_!r} "
            f"({type(error).__name__}: {error}); use the serializer they were written with"
        ) from error


def all_digests(header: Header, parts: Parts, place: object) -> list[bytes]:
    """The chunks a record refers to, in order, pages resolved."""
    digests: list[bytes] = []
    for page in header.pages:
        digests.extend(parts.page(page, place))
    digests.extend(header.loose)
    return digests


def joined(value: Value, parts: Parts, place: object) -> bytes:
    """The serialized bytes of a value, every chunk verified. Nothing beyond its declared size is inflated or joined."""
    if isinstance(value.content, bytes):
        return value.content
    pieces: list[bytes] = []
    left = value.chunked
    for name in value.digests:
        chunk = parts.chunk(name, place)
        left -= len(chunk)
        if left < 0:
            break
        pieces.append(chunk)
    if left:
        raise CheckpointCorruptError(f"{place}: its chunks do not take the {value.size} bytes that it declares")
    return chunks.join(value.content, pieces)
