"""TODO"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from sys import getsizeof
from typing import Any, NamedTuple

import ormsgpack

from .. import validation
from ..address import Address
from ..caching.manifests import NAME
from ..errors import InvalidConfigError
from ..storage import keys
from ..storage.codec import DIGEST, CompressionType
from ..storage.records import Header


@dataclass(frozen=True, slots=True)
class StateMetadata:
    """One version of a state, without its content."""

    state_id: str
    version: int | str
    created_at: datetime
    """When the server first stored this version, UTC."""
    updated_at: datetime
    """When it was last replaced (the clock of the program that did), else `created_at`."""
    tags: list[str]
    size_bytes: int
    """What the state takes serialized."""
    stored_bytes: int
    """What saving it added on the server: compressed, without what it shares with what was there."""
    compression_type: CompressionType
    checksum: str
    """BLAKE2b-128 of the serialized content, hexadecimal. Equal for equal content: sets and str keys have no order."""
    ttl_seconds: float | None
    """Seconds until the state expires, with all its versions; None: it does not."""


VersionLike = int | str | StateMetadata

StateLike = str | StateMetadata


@dataclass(frozen=True, slots=True)
class Entry:
    """A version as its record tells it. `parts`: the fields of the chunks and pages it refers to, None if not known yet."""

    id: str
    header: Header
    metadata: Mapping[str, Any]
    ts: str
    size: int
    parts: frozenset[bytes] | None

    @property
    def counted(self) -> int:
        """The highest number up to this version."""
        return self.header.version + int(self.metadata.get("offset", 0))

    @property
    def version(self) -> int | str:
        version: int | str = self.metadata.get("version", self.counted)
        return version

    @property
    def tags(self) -> list[str]:
        return list(self.metadata.get("tags", ()))

    def described(self, target: Address, left: int) -> StateMetadata:
        """`left`: ms until the state expires, negative if it does not."""
        created = datetime.fromtimestamp(self.header.created_at / 1000, timezone.utc)
        return StateMetadata(
            state_id=target.thread,
            version=self.version,
            created_at=created,
            updated_at=max(created, datetime.fromisoformat(self.ts)) if self.ts else created,
            tags=self.tags,
            size_bytes=self.size,
            stored_bytes=self.header.new_bytes,
            compression_type=CompressionType(self.metadata["compression"]),
            checksum=self.metadata["checksum"].hex(),
            ttl_seconds=left / 1000 if left >= 0 else None,
        )


class Seen(NamedTuple):
    """Versions of a state, newest first, at a revision."""

    entries: Sequence[Entry]
    revision: bytes

    @property
    def size(self) -> int:
        """Bytes of memory: what CPython takes for a version, its tags, and what it refers to."""
        return sum(
            2500
            + getsizeof(entry.parts)
            + NAME * (len(entry.parts or ()) + len(entry.header.pages) + len(entry.header.loose))
            + sum(getsizeof(tag) + 20 for tag in entry.metadata.get("tags", ()))
            + 2 * getsizeof(entry.version)
            for entry in self.entries
        )


def parts_of(pages: Iterable[bytes], chunks: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset([b"P" + page for page in pages] + [b"D" + chunk for chunk in chunks])


def union(entries: Iterable[Entry]) -> frozenset[bytes]:
    return frozenset().union(*(entry.parts or () for entry in entries))


def count_chunks(parts: Iterable[bytes]) -> int:
    return sum(part[:1] == b"D" for part in parts)


def next_revision(revision: bytes) -> bytes:
    """The revision after one change."""
    born, number = revision.split()
    return b"%s %d" % (born, int(number) + 1)


def version_label(version: VersionLike) -> int | str:
    given = version.version if isinstance(version, StateMetadata) else version
    label = validation.plain(given)
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        raise InvalidConfigError(f"a version is a whole number or a non-empty string, not {given!r}")
    if isinstance(label, int) and not -(2**63) <= label < 2**63:
        raise InvalidConfigError(
            f"a version that is a number has at most 64 bits, not {label.bit_length()}; name it with a string"
        )
    return label


def named(entries: Sequence[Entry], label: int | str | None) -> Entry | None:
    return next((entry for entry in entries if label is not None and str(entry.version) == str(label)), None)


def numbered(label: int | str | None, old: Entry | None, head: Entry | None) -> dict[str, Any]:
    """`version` if it was given, and `offset`, so that the server's counter and the offset give the highest number so far."""
    if old:
        return {name: old.metadata[name] for name in ("version", "offset") if name in old.metadata}
    highest, count = (head.counted, head.header.version) if head else (0, 0)
    if label is None:
        highest += 1
    elif str(label).isdecimal():
        highest = max(highest, int(label))
    offset = highest - (count + 1)
    return ({} if label is None else {"version": label}) | ({"offset": offset} if offset else {})


def checked_tags(tags: Sequence[str] | None) -> list[str]:
    if isinstance(tags, str) or not all(isinstance(tag, str) and tag for tag in tags or ()):
        raise InvalidConfigError(f"tags must be a sequence of non-empty strings, not {tags!r}")
    return list(dict.fromkeys(keys.encode(tag, "a tag").decode() for tag in tags or ()))


def index_name(tag: str) -> str:
    return f"tag:{tag}"


def content_checksum(type_: str, blob: bytes) -> bytes:
    """Of the content with dicts and sets in one order, since equal content shall have equal checksums; as it is where that
    cannot be done. Never stored."""
    ordered = _ordered(blob) if type_ == "msgpack" else blob
    return hashlib.blake2b(type_.encode() + b"\0" + ordered, digest_size=DIGEST).digest()


def _ordered(blob: bytes) -> bytes:
    def inside(code: int, data: bytes) -> Any:
        return ormsgpack.Ext(code, _ordered(data))

    try:
        value = ormsgpack.unpackb(blob, ext_hook=inside)
        if isinstance(value, list) and value[:1] == ["builtins"] and value[1] in ("set", "frozenset"):
            value[2].sort(key=ormsgpack.packb)
        ordered = ormsgpack.packb(value, option=ormsgpack.OPT_SORT_KEYS)
    except Exception:  # noqa: BLE001 - whatever it is, its bytes are its content
        return blob
    return ordered if len(ordered) == len(blob) else blob  # bytes that only look like msgpack
