"""Entries of several buckets in one order, page by page: members of the order for a search, namespaces for a listing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..effects import Call, Operation
from ..scripts import store_commands as scripts
from .items import Bounds


class Entry:
    """One that a page names: a member of the order with its record, if that was read, or a namespace."""

    __slots__ = ("bucket", "due", "field", "name", "record")

    def __init__(self, name: bytes, bucket: int, field: bytes = b"") -> None:
        self.name, self.bucket, self.field, self.due = name, bucket, field, False
        self.record: bytes | None = None


class Walk:
    """Entries of several buckets in one order, page by page."""

    def __init__(self, buckets: Iterable[int], bounds: Bounds) -> None:
        self._lowers = dict.fromkeys(buckets, bounds[0])
        self._upper = bounds[1]
        self._waiting: list[Entry] = []

    @property
    def goes_on(self) -> bool:
        return bool(self._lowers)

    def more(
        self, ask: Callable[[int, Bounds], Call], taken: Callable[[int, scripts.Page], list[Entry]]
    ) -> Operation[list[Entry]]:
        """The next entries, after one round trip: those before which no bucket has another. May be none, though it goes on."""
        asked = list(self._lowers)
        replies = yield from scripts.together([ask(bucket, (self._lowers[bucket], self._upper)) for bucket in asked])
        for bucket, reply in zip(asked, replies, strict=True):
            page = scripts.page(reply)
            self._waiting += taken(bucket, page)
            if page.following:
                self._lowers[bucket] = page.following
            else:
                del self._lowers[bucket]
        self._waiting.sort(key=lambda entry: entry.name)
        bound = min((lower[1:] for lower in self._lowers.values()), default=None)
        ready = [entry for entry in self._waiting if bound is None or entry.name <= bound]
        del self._waiting[: len(ready)]
        return ready
