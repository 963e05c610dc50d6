"""An archive that is read: its index, the fields of a thread, and what is damaged. Reads a file and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from ..errors import ArchiveDamagedError, CheckpointCorruptError, FormatError, InvalidConfigError
from ..storage.codec import DIGEST, digest
from . import frames
from .frames import BEGIN, END, FIELDS, FRAME, FRAME_MAX, HEAD, INDEX, LAST, TAIL, End, Entry, Head, Tail


class ArchiveReader:
    """A file of threads. Each thread is found by the index and read for itself, so damage in one does not reach the others. If
    the index is damaged or gone, the threads are found by going through the file.

    Args:
        path: the file.
        passphrase: that with which it was written, if it is encrypted.

    Raises:
        FormatError: the file is no archive, or has a format that this version does not know.
        InvalidConfigError: the passphrase is missing or wrong.
        OSError: the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], passphrase: str | bytes | None = None) -> None:
        self.path = Path(path)
        self._file = open(self.path, "rb")  # noqa: SIM115
        self.problems: list[ArchiveDamagedError] = []
        """Damage that was found on opening. Those that concern no thread do not keep any from being read."""
        self.entries: dict[str, Entry] = {}
        """The threads, in the order of the file."""
        try:
            self._open(passphrase)
        except BaseException:
            self._file.close()
            raise

    def _open(self, passphrase: str | bytes | None) -> None:
        self._size = self._file.seek(0, os.SEEK_END)
        try:
            head, twin = Head.parsed(self._read(0, HEAD)), Head.parsed(self._read(max(self._size - HEAD, 0), HEAD))
            if head is None and twin is None:
                raise FormatError("it is no archive of langgraph-redis-state, or its head and its end are damaged")
            _, self._sealing = frames.sealing_of(passphrase, head or twin)
        except (FormatError, InvalidConfigError) as error:
            raise type(error)(f"{self.path}: {error}") from None
        if head is None:
            self._damaged("its head is damaged; the copy at its end was used")
        if twin is None:
            self._damaged("its end is damaged or missing; perhaps the file is cut")
        self.tail = Tail.parsed(self._read(self._size - HEAD - TAIL, TAIL)) if self._size >= 2 * HEAD + TAIL else None
        self.whole = self._read_index()
        """Whether the index is that of the writer: it names all threads, and in an increment those that did not change."""
        if not self.whole:
            self._damaged("its index is damaged or missing; its threads were found by going through the file")
            self._scan()

    def _damaged(self, what: str, thread: str | None = None) -> None:
        self.problems.append(self._error(what, thread))

    def _error(self, what: str, thread: str | None = None) -> ArchiveDamagedError:
        where = f"{self.path}: thread {thread!r}: " if thread is not None else f"{self.path}: "
        others = "; the other threads of the file can be read" if thread is not None else ""
        return ArchiveDamagedError(f"{where}{what}{others}", thread)

    def _read(self, at: int, size: int) -> bytes:
        self._file.seek(at)
        return self._file.read(size)

    def _frame(self, at: int, number: int | None) -> tuple[int, int, bytes, int]:
        """(kind, number, plain payload, where the next one begins). Raises CheckpointCorruptError."""
        header = self._read(at, FRAME)
        size = int.from_bytes(header[5:], "big")
        behind = at + FRAME + size + DIGEST
        if len(header) < FRAME or size > FRAME_MAX or behind > self._size:
            raise CheckpointCorruptError(f"the frame at byte {at} is damaged or cut")
        found = int.from_bytes(header[1:5], "big")
        plain = frames.opened_frame(self._sealing, header + self._read(at + FRAME, size + DIGEST))
        if plain is None or (number is not None and found != number):
            raise CheckpointCorruptError(f"the frame at byte {at} is damaged")
        return header[0], found, plain, behind

    def _read_index(self) -> bool:
        if self.tail is None:
            return False
        at, number, parts, kind = self.tail.at, self.tail.number, list[bytes](), INDEX
        try:
            while kind != LAST:
                kind, _, plain, at = self._frame(at, number)
                if kind not in (INDEX, LAST):
                    return False
                number += 1
                parts.append(plain)
            entries = [entry for plain in parts for entry in frames.opened_entries(plain)]
        except CheckpointCorruptError:
            return False
        self.entries = {entry.thread: entry for entry in entries}
        return digest(b"".join(parts)) == self.tail.ident

    def _scan(self) -> None:
        """Finds the threads that are whole by going from frame to frame."""
        self.entries = {}
        at, begun = HEAD, None
        while at < self._size:
            try:
                kind, number, plain, behind = self._frame(at, None)
            except CheckpointCorruptError as error:
                if self.tail is not None and at >= self.tail.at:
                    return  # all threads were found
                self._damaged(f"{error}; what follows it was not found", begun.thread if begun else None)
                return
            if kind == BEGIN:
                begun = Entry(plain.decode(errors="replace"), b"", at, 0, number)
            elif kind == END and begun is not None:
                begun.size = behind - begun.at
                self.entries[begun.thread] = begun
                begun = None
            elif kind in (INDEX, LAST):
                return
            at = behind

    def section(self, entry: Entry) -> Iterator[Sequence[tuple[bytes, bytes]] | End]:
        """The fields of a thread, frame by frame, and at last its end. Raises ArchiveDamagedError, which names the thread."""
        at, number, came = entry.at, entry.number, 0
        try:
            kind, _, plain, at = self._frame(at, number)
            if kind != BEGIN or plain.decode(errors="replace") != entry.thread:
                raise CheckpointCorruptError(f"at byte {entry.at} another thread begins")
            while True:
                number += 1
                kind, _, plain, at = self._frame(at, number)
                if kind != FIELDS:
                    break
                fields = frames.opened_fields(plain)
                came += len(fields)
                yield fields
            if kind != END:
                raise CheckpointCorruptError(f"the frame before byte {at} is not the end of the thread")
            end = frames.opened_end(plain)
            if end.fields != came or at != entry.at + entry.size:
                raise CheckpointCorruptError(f"{came} fields came where {end.fields} were written")
            yield end
        except CheckpointCorruptError as error:
            raise self._error(str(error), entry.thread) from error

    def wrong(self, thread: str, error: Exception) -> ArchiveDamagedError:
        """What is wrong with the content of a thread, as an error of this file."""
        return error if isinstance(error, ArchiveDamagedError) else self._error(str(error), thread)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
