"""What the checkpoints that a process read or wrote lately refer to, so that a put sends only what is new. Only a hint."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from sys import getsizeof
from typing import Any

from ..storage.bodies import Value
from .bounded import Locked

NAME = 60
"""Bytes of memory of a digest and of a place for it."""


_KEPT = (str, int, float)
"""Kinds of versions; a union would be made anew for each of them."""


class Manifest:
    """What this process knows of a stored checkpoint: the stored values its children may take over, their versions, and the
    DeltaChannels that are `rebuilt` from ancestors, each with the supersteps since its snapshot.

    It shares nothing with what callers gave or got: values are bytes, and of versions only texts and numbers are kept, each
    beside its value. (LangGraph 1.2.0 to 1.2.12 change `channel_versions` in place.)
    """

    __slots__ = ("checksum", "pages", "rebuilt", "size", "values", "versions")

    def __init__(
        self,
        versions: Mapping[str, Any],
        values: Mapping[str, Value],
        pages: tuple[bytes, ...],
        rebuilt: Mapping[str, int],
        checksum: bytes,
    ) -> None:
        self.values, self.pages, self.rebuilt = dict(values), pages, dict(rebuilt)
        self.versions: dict[str, str | int | float] = {
            name: version for name in values if isinstance(version := versions.get(name), _KEPT)
        }
        self.size = self._measured()
        """Bytes of memory, all it refers to counted as its own."""
        self.checksum = checksum
        """Of the record: it tells what that refers to, where one id is put twice."""

    @property
    def chunks(self) -> set[bytes]:
        return set().union(*(value.digests for value in self.values.values()))

    def _measured(self) -> int:
        size = 350 + getsizeof(self.values) + getsizeof(self.versions) + NAME * len(self.pages)
        size += getsizeof(self.rebuilt) + sum(getsizeof(name) + 32 for name in self.rebuilt)
        for name, value in self.values.items():
            size += 2 * getsizeof(name) + 200 + NAME * len(value.digests)  # a name here and one among the versions
            content = [value.content] if isinstance(value.content, bytes) else value.content
            size += sum(len(each) + 45 if isinstance(each, bytes) else 40 for each in content)
        return size + sum(map(getsizeof, self.versions.values()))


class ManifestCache(Locked):
    """The checkpoints this process read or wrote lately, in at most `limit` bytes. Only ever a hint: the server checks each
    reference."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._known: OrderedDict[tuple[bytes, bytes, bytes], Manifest] = OrderedDict()
        self._newest: dict[tuple[bytes, bytes], tuple[bytes, Manifest]] = {}
        self._limit, self._bytes = limit, 0

    def get(self, thread: bytes, ns: bytes, checkpoint: bytes) -> Manifest | None:
        with self.lock:
            known = self._known.get((thread, ns, checkpoint))
            if known is not None:
                self._known.move_to_end((thread, ns, checkpoint))
            return known

    def newest(self, thread: bytes, ns: bytes) -> Manifest | None:
        """Of those of a namespace the one with the greatest id, which mostly holds what the others hold."""
        with self.lock:
            return self._newest.get((thread, ns), (b"", None))[1]

    def put(self, thread: bytes, ns: bytes, checkpoint: bytes, known: Manifest, parent: bytes = b"") -> None:
        """One larger than the limit is not kept. The `parent`, if it is known, is the next to be forgotten."""
        place = (thread, ns, checkpoint)
        with self.lock:
            before = self._known.get(place)
            if before is not None:
                self._forget(place, before)
            if self._size(place, known) > self._limit:
                return
            if (thread, ns, parent) in self._known:
                self._known.move_to_end((thread, ns, parent), last=False)
            self._known[place] = known
            self._bytes += self._size(place, known)
            if self._newest.get((thread, ns), (b"", None))[0] <= checkpoint:
                self._newest[(thread, ns)] = checkpoint, known
            while self._bytes > self._limit:
                self._forget(*next(iter(self._known.items())))

    def _forget(self, place: tuple[bytes, bytes, bytes], known: Manifest) -> None:
        del self._known[place]
        self._bytes -= self._size(place, known)
        if self._newest.get(place[:2], (b"", None))[0] == place[2]:
            del self._newest[place[:2]]

    def _size(self, place: tuple[bytes, bytes, bytes], known: Manifest) -> int:
        return 900 + sum(map(len, place)) + known.size  # what CPython adds for the keys and the two maps
