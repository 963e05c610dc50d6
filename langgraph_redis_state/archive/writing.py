"""An archive that is written: a file beside its name, which it gets when it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from ..storage.codec import DIGEST, digest
from .frames import (
    BEGIN,
    END,
    FIELDS,
    FRAME_BYTES,
    INDEX,
    LAST,
    End,
    Entry,
    Tail,
    frame,
    packed_end,
    packed_entries,
    packed_field,
)
from .frames import sealing_of as sealing


class ArchiveWriter:
    """Writes threads one after the other. Until the end the file has the name `<path>.part`; only its owner may read it."""

    def __init__(
        self, path: str | os.PathLike[str], passphrase: str | bytes | None = None, base: bytes = bytes(DIGEST)
    ) -> None:
        self._path = Path(path)
        if self._path.exists():
            raise FileExistsError(f"{self._path} exists and would be overwritten; choose another name, or remove it first")
        self._head, self._sealing = sealing(passphrase)
        self._part, self._base = Path(f"{self._path}.part"), base
        self._part.unlink(missing_ok=True)
        self._file = open(os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")  # noqa: SIM115
        self._file.write(self._head.packed())
        self._number = 0
        self._buffer: list[bytes] = []
        self._held = self._came = self._begun = self._first = 0
        self.entries: list[Entry] = []

    def begin(self, thread: str) -> None:
        self._begun, self._first = self._file.tell(), self._number
        self._buffer, self._held, self._came = [], 0, 0
        self._frame(BEGIN, thread.encode())

    def add(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        for name, content in fields:
            self._buffer.append(packed_field(name, content))
            self._held += len(self._buffer[-1])
            self._came += 1
            if self._held >= FRAME_BYTES:
                self._flush()

    def end(self, thread: str, revision: bytes, changes: int, versions: int, metadata: list[tuple[bytes, bytes]]) -> None:
        self._flush()
        self._frame(END, packed_end(End(self._came, changes, versions, metadata)))
        size = self._file.tell() - self._begun
        self.entries.append(Entry(thread, revision, self._begun, size, self._first))

    def abandon(self) -> None:
        """Takes the thread back that was begun. The numbers of its frames are not used again: they are nonces."""
        self._file.seek(self._begun)
        self._file.truncate()

    def _flush(self) -> None:
        if self._buffer:
            self._frame(FIELDS, b"".join(self._buffer))
            self._buffer, self._held = [], 0

    def _frame(self, kind: int, plain: bytes) -> None:
        self._file.write(frame(self._sealing, kind, self._number, plain))
        self._number += 1

    def finish(self) -> int:
        """Writes index and tail, and gives the file its name. Returns its size in bytes."""
        at, number, parts = self._file.tell(), self._number, list[bytes]()
        step = 5000
        for n in range(0, max(len(self.entries), 1), step):
            parts.append(packed_entries(self.entries[n : n + step]))
            self._frame(LAST if n + step >= len(self.entries) else INDEX, parts[-1])
        self._file.write(Tail(at, number, digest(b"".join(parts)), self._base).packed() + self._head.packed())
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        self._part.rename(self._path)
        return size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """What was not finished leaves nothing."""
        if not self._file.closed:
            self._file.close()
            self._part.unlink(missing_ok=True)
