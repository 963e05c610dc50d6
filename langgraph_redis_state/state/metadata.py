"""Metadata of states: versions and their numbers, tags, checksums. Pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from sys import getsizeof
from typing import Any, NamedTuple

import ormsgpack

from .. import validation
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
    """When it was last replaced, by the clock of the replacing program; else `created_at`."""
    tags: list[str]
    size_bytes: int
    """Bytes of the serialized state."""
    stored_bytes: int
    """Bytes that it added on the server: compressed, without chunks that were there already."""
    compression_type: CompressionType
    checksum: str
    """BLAKE2b-128 of the serialized content, hexadecimal. Equal for equal content: sets and str keys have no order."""
    ttl_seconds: float | None
    """Seconds until the state expires, with all its versions; None: never."""


VersionLike = int | str | StateMetadata

StateLike = str | StateMetadata


@dataclass(frozen=True, slots=True)
class StateVersion:
    """A version as its record stores it. `ts`: when it was replaced, '' if never; `size`: bytes of the serialized state."""

    id: str
    header: Header
    metadata: Mapping[str, Any]
    ts: str
    size: int

    @property
    def counted(self) -> int:
        """The highest number that this version or an older one has."""
        return self.header.version + int(self.metadata.get("offset", 0))

    @property
    def version(self) -> int | str:
        version: int | str = self.metadata.get("version", self.counted)
        return version

    @property
    def tags(self) -> list[str]:
        return list(self.metadata.get("tags", ()))

    def described(self, state_id: str, left: int) -> StateMetadata:
        """`left`: ms until the state expires, negative if it does not."""
        created = datetime.fromtimestamp(self.header.created_at / 1000, timezone.utc)
        return StateMetadata(
            state_id=state_id,
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
    """The newest versions of a state, newest first, and the revision of the thread at that time. Only a hint."""

    versions: Sequence[StateVersion]
    revision: bytes

    @property
    def head(self) -> StateVersion | None:
        return self.versions[0] if self.versions else None

    @property
    def size(self) -> int:
        """Bytes of memory: what CPython needs for a version, its tags, and its references."""
        return sum(
            2500
            + NAME * (len(each.header.pages) + len(each.header.loose))
            + sum(getsizeof(tag) + 20 for tag in each.metadata.get("tags", ()))
            + 2 * getsizeof(each.version)
            for each in self.versions
        )


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


def named(versions: Sequence[StateVersion], label: int | str | None) -> StateVersion | None:
    return next((each for each in versions if label is not None and str(each.version) == str(label)), None)


def numbered(label: int | str | None, old: StateVersion | None, head: StateVersion | None) -> dict[str, Any]:
    """The metadata that number a version: `version` if given, and `offset`, which added to the server's counter gives the
    highest number so far."""
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
    """BLAKE2b of the serialized content, with dicts and sets sorted if that is possible: equal content has equal checksums."""
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
    except Exception:  # noqa: BLE001 - no msgpack that can be sorted
        return blob
    return ordered if len(ordered) == len(blob) else blob  # bytes that only look like msgpack
