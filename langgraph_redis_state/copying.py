"""The fields of a thread made those of another one. No I/O: operations.py reads and stores them."""

from __future__ import annotations

from collections.abc import Sequence

from . import keys, records
from .codec import Integrity
from .records import Parts
from .target import Target


class Copying:
    """One copy. Every field is verified before it is sealed for its new place."""

    def __init__(self, origin: Target, target: Target, integrity: Integrity) -> None:
        self._origin, self._target, self._integrity = origin, target, integrity
        self._about = f"copy_thread: thread {origin.thread!r}"
        self._copied: set[bytes] = set()
        self._needed: set[bytes] = set()
        self.runs: dict[bytes, None] = {}
        """Of the checkpoints so far."""

    @property
    def lacking(self) -> set[bytes]:
        """The pages and chunks that fields refer to and that were not among them so far."""
        return self._needed - self._copied

    @property
    def came(self) -> tuple[int, int]:
        """How many fields there were so far, and members of the index."""
        return len(self._copied), sum(len(keys.members_of(name)) for name in self._copied)

    def resealed(self, there: Sequence[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
        """These fields as the other thread has them, and the members of its index that name them."""
        fields = [(name, content) for name, raw in there if (content := self._resealed(name, raw)) is not None]
        self._copied.update(name for name, _ in fields)
        return fields, [member for name, _ in fields for member in keys.members_of(name)]

    def _resealed(self, name: bytes, content: bytes) -> bytes | None:
        kind = name[:1]
        if kind == b"P":
            self._needed.update(b"D" + chunk for chunk in Parts({name[1:]: content}).page(name[1:], self._about))
            return content
        if kind == b"D":
            Parts({}, {name[1:]: content}).chunk(name[1:], self._about)
            return content
        if name == b"T":
            line = records.opened_line(content, self._origin.keys.name, "copy_thread", "TTL settings (field T)")
            return records.sealed_line(line, self._target.keys.name)
        if kind == b"G":
            here, there = (each.place(name, b"", b"") for each in (self._origin, self._target))
            return records.seal_tag(*records.open_tag(content, here, self._integrity), there, self._integrity)
        if kind in (b"C", b"W", b"H"):
            here, there = (each.place(kind, *keys.split_field(name)) for each in (self._origin, self._target))
            if kind != b"W":
                return self._moved(content, here, there)
            return records.joined_writes([self._moved(raw, here, there) for raw in records.split_writes(content, here)])
        return None  # counts are taken over by the script, and which operation made the origin does not matter

    def _moved(self, raw: bytes, here: records.Place, there: records.Place) -> bytes:
        header, record = records.moved(raw, here, there, self._integrity)
        self._needed.update(b"P" + page for page in header.pages)
        self._needed.update(b"D" + chunk for chunk in header.loose)
        if header.run:
            self.runs[header.run.encode()] = None
        return record
