"""Pages and chunks by digest: as received, as verified, and cached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import cast

from ..errors import CheckpointCorruptError, CheckpointLostError
from ..storage import chunks
from ..storage.codec import DIGEST, Part, digest
from ..storage.seals import PLAIN, Seal
from .bounded import BoundedCache


class ChunkCache:
    """Pages and chunks that this process has sent or verified, by digest, in at most `limit` bytes. The content of a digest
    never changes, so nothing is invalidated."""

    def __init__(self, limit: int) -> None:
        # the constants: what CPython needs for the objects, roughly
        self.pages: BoundedCache[bytes, tuple[bytes, ...]] = BoundedCache(limit // 8, lambda name, page: 60 * len(page) + 250)
        self.chunks: BoundedCache[bytes, bytes] = BoundedCache(limit - limit // 8, lambda name, plain: len(plain) + 200)

    def have(self, pages: Iterable[bytes], chunks: Set[bytes], by: Seal) -> Parts:
        """Those of these parts that need not be read: pages whose chunks are all cached, and cached chunks outside of pages."""
        parts = Parts(verified=self, by=by)
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
            self.pages.put(name, digests_of(content))
        for name, content in chunks.items():
            self.chunks.put(name, content)


def digests_of(page: bytes) -> tuple[bytes, ...]:
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
    verified: ChunkCache | None = None
    by: Seal = PLAIN

    def page(self, name: bytes, place: object) -> tuple[bytes, ...]:
        digests = self.lists.get(name)
        if digests is None:
            content = self.pages.get(name)
            if content is None:
                raise CheckpointLostError(f"{place}: the page of references {name.hex()} is gone from the server")
            if len(content) > DIGEST * chunks.PAGE_LIMIT or digest(content) != name or len(content) % DIGEST:
                raise CheckpointCorruptError(f"{place}: the page of references {name.hex()} is damaged")
            digests = self.lists[name] = digests_of(content)
            if self.verified is not None:
                self.verified.pages.put(name, digests)
        return digests

    def chunk(self, name: bytes, place: object) -> bytes:
        plain = self.plain.get(name)
        if plain is None:
            packed = self.chunks.get(name)
            if packed is None:
                raise CheckpointLostError(f"{place}: the chunk {name.hex()} is gone from the server")
            plain = self.plain[name] = self.by.unpack(name, packed, Part(place, f": the chunk {name.hex()}"))
            if self.verified is not None:
                self.verified.chunks.put(name, plain)
        return plain
