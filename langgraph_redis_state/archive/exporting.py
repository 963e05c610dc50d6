"""`export_threads` and `backup`: threads of a server into a file.

On the server nothing changes, no TTL either. A thread is read in two round trips, one more for each further 100 fields: its
counts and its fields, then its counts again. If they differ, the thread changed meanwhile and is read again. What another
process writes is either in the file or not, whole. If the call is cut, there is no file of that name.

Equal threads give equal files: threads stand in the order of their ids, fields in that of their names, nothing tells the time,
the server or the settings of the saver. A backup also has revisions, which differ after an import; and what is encrypted
differs each time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..address import Address
from ..client.driver import astream, stream
from ..effects import Command, Emit, Operation, Read, Stream, compute, pairs, portion
from ..errors import (
    CheckpointerError,
    SaverClosedError,
    ServerRefusedError,
    ServerUnavailableError,
    ThreadBusyError,
    ThreadNotFoundError,
)
from ..operations import freshness
from ..operations.buckets import all_threads
from ..operations.copying import FIELDS_READ, metadata_query, metadata_told, read_fields
from ..operations.reading import fetch
from ..operations.removing import BUSY_TRIES
from ..saver import RedisSaver
from ..storage import keys
from ..storage.codec import CompressionType
from ..storage.thread_fields import Counts
from .crossing import Crossing, archived, in_order
from .frames import Entry
from .reading import ArchiveReader
from .report import Progress, Report
from .writing import ArchiveWriter

HELD_BYTES = 16 << 20
"""What is kept of a thread until its fields are written in order. The fields of a larger one are read twice, and chunks that
are encrypted once more."""

Passphrase = str | bytes | None
Tell = Callable[[Progress], None] | None
Path = str | os.PathLike[str]


def export_threads(
    saver: RedisSaver, path: Path, *, threads: Sequence[str] | None = None, passphrase: Passphrase = None, progress: Tell = None
) -> Report:
    """Writes threads into a file, each as it is at one moment, with all that is stored of it.

    Args:
        saver: where the threads are. `read_only` is enough.
        path: the file; it may not exist. Until it is complete it is called `<path>.part`.
        threads: ids of threads; None: all under the saver's prefix.
        passphrase: encrypts the file (AES-256-GCM, the key by scrypt). Needs the extra `encryption`.
        progress: called after each thread.

    Returns:
        A `Report`. A thread that cannot be read is in `Report.failures` and not in the file, and the others are.

    Raises:
        FileExistsError, OSError: the file exists or cannot be written.
        InvalidConfigError: the passphrase is empty, or the extra is not installed.
        ServerUnavailableError, ServerRefusedError: the server does not serve; there is no file.
    """
    return _written(saver, progress, path, threads, None, False, passphrase)


async def aexport_threads(
    saver: RedisSaver, path: Path, *, threads: Sequence[str] | None = None, passphrase: Passphrase = None, progress: Tell = None
) -> Report:
    """`export_threads`, awaited. Large work and writes of large threads run in a thread."""
    return await _awritten(saver, progress, path, threads, None, False, passphrase)


def backup(
    saver: RedisSaver, path: Path, *, base: Path | None = None, passphrase: Passphrase = None, progress: Tell = None
) -> Report:
    """Writes all threads under the saver's prefix into a file, or those that changed since another backup.

    Args:
        base: an earlier backup. A thread that did not change since then is named and not written. To restore, give
            `import_threads` all files from the full one on. A thread that a backup does not name did not exist.
        passphrase: encrypts the file; it must be that of the base, if that is encrypted.

    For the other arguments, the result and errors see `export_threads`. A thread that could not be read is named in the file
    with the reason; a restore then takes it from an earlier one, and says so.

    Raises:
        ArchiveDamagedError: the index of the base is damaged; make a full backup.
    """
    return _written(saver, progress, path, None, base, True, passphrase)


async def abackup(
    saver: RedisSaver, path: Path, *, base: Path | None = None, passphrase: Passphrase = None, progress: Tell = None
) -> Report:
    """`backup`, awaited."""
    return await _awritten(saver, progress, path, None, base, True, passphrase)


@contextmanager
def _writing(
    saver: RedisSaver, path: Path, threads: Sequence[str] | None, base: Path | None, telling: bool, secret: Passphrase
) -> Iterator[tuple[Stream, Report]]:
    """What writes a file when it is performed, and what will be told of it."""
    report, begun = Report(), time.monotonic()
    known, ident = _base(base, secret)
    with ArchiveWriter(path, secret, *ident) as writer:
        yield _exported(saver, writer, report, threads, known if telling else None), report
        report.bytes = writer.finish()
    report.seconds = time.monotonic() - begun


def _written(saver: RedisSaver, tell: Tell, *what: Any) -> Report:
    with _writing(saver, *what) as (going, report):
        for done in stream(going, saver._connection, "export"):
            if tell is not None:
                tell(done)
    return report


async def _awritten(saver: RedisSaver, tell: Tell, *what: Any) -> Report:
    with _writing(saver, *what) as (going, report):
        async for done in astream(going, saver._connection, "export"):
            if tell is not None:
                tell(done)
    return report


def _base(path: Path | None, passphrase: Passphrase) -> tuple[Mapping[str, Entry], tuple[bytes, ...]]:
    """The threads of a base, and which archive it is."""
    if path is None:
        return {}, ()
    with ArchiveReader(path, passphrase) as reader:
        if not reader.whole or reader.tail is None:
            raise reader.problems[-1]
        return reader.entries, (reader.tail.ident,)


def _exported(
    saver: RedisSaver, writer: ArchiveWriter, report: Report, threads: Sequence[str] | None, known: Mapping[str, Entry] | None
) -> Stream:
    """`known`: entries of the base of a backup; None: revisions are not told."""
    engine = saver._engine
    yield from engine.check_layout(False)
    if threads is None:
        names = [name for name, _ in (yield from all_threads(engine))]
    else:
        keys.check_several(threads, "export: threads")
        names = [keys.thread_text(thread) for thread in threads]
    names = sorted(set(names), key=str.encode)
    for done, name in enumerate(names, 1):
        try:
            found = yield from _export_thread(saver, writer, report, name, known)
            if not found and threads is not None:
                raise ThreadNotFoundError(f"export: there is no thread {name!r}")
        except (ServerUnavailableError, ServerRefusedError, SaverClosedError):
            raise
        except CheckpointerError as error:
            report.failures[name] = f"{error}"
            if known is not None:
                writer.entries.append(Entry(name, b"", note=f"{error}"))
        yield Emit([Progress(name, done, len(names))])


def _export_thread(
    saver: RedisSaver, writer: ArchiveWriter, report: Report, name: str, known: Mapping[str, Entry] | None
) -> Operation[bool]:
    """False if there is no such thread (any more)."""
    engine = saver._engine
    target = engine.address(name)
    yield from engine.unlock(target)
    about = f"export: thread {name!r}"
    for _ in range(BUSY_TRIES):
        before, first = yield Read([_state(target), ("HSCAN", target.keys.hash, 0, "COUNT", FIELDS_READ)], about)
        if not pairs(first[1]):
            found, _ = yield from fetch(engine, target, [(b"", b"")])  # raises if it was there and got lost
            if found:
                continue  # it came into being just now
            return False
        counts = Counts.of(before[0], target.keys.name, about)
        if not counts.checkpoints:  # writes that wait for their checkpoint
            return False
        revision = b" ".join(part for part in before if part is not None)
        old = known.get(name) if known is not None else None
        if old is not None and old.revision == revision:
            writer.entries.append(Entry(name, revision))
            report.unchanged += 1
            return True
        writer.begin(name)
        try:
            whole = yield from _copy_fields(saver, writer, target, about, before, first)
        except Exception:
            writer.abandon()
            raise
        if whole is None:
            writer.abandon()
            continue
        writer.end(name, revision if known is not None else b"", counts.changes, counts.versions, whole)
        report.threads += 1
        report.checkpoints += counts.checkpoints
        return True
    raise ThreadBusyError(f"{about}: it changed each of {BUSY_TRIES} times while it was read; try again when it is quieter")


def _state(target: Address) -> Command:
    """Asks for what says which state of a thread this is: its counts, and its settings, which do not count as a change."""
    return "HMGET", target.keys.hash, "S", "T"


def _copy_fields(
    saver: RedisSaver, writer: ArchiveWriter, target: Address, about: str, before: list[Any], first: Any
) -> Operation[list[tuple[bytes, bytes]] | None]:
    """Writes the fields of a thread, and gives its indexed metadata. None if the thread changed meanwhile."""
    crossing = Crossing.out(saver._engine, target, saver.serde)

    def write(there: list[tuple[bytes, bytes]]) -> None:
        writer.add(in_order(crossing.resealed(there)[0]))

    names, held = yield from _scan(target, about, first)
    if held:
        yield from compute(partial(write, in_order(held.items())), sum(map(len, held.values())))
        names = []
    elif target.seal.decrypts:  # chunks have other names in the archive, and so another order
        parts = [name for name, _ in in_order((name, b"") for name in names if name[:1] in (b"D", b"P"))]
        ahead = Crossing(target, archived(target.thread), CompressionType.NONE)
        if not (yield from _each_batch(target, parts, about, ahead.resealed)):
            return None
        names = [name for _, name in in_order((name[:1] + ahead.renamed.get(name[1:], name[1:]), name) for name in names)]
    else:
        names = [name for name, _ in in_order((name, b"") for name in names)]
    if not (yield from _each_batch(target, names, about, write)):
        return None
    members, after = yield Read([metadata_query(target.keys), _state(target)], about)
    if after != before:
        return None
    crossing.check()
    crossing.check_statement(freshness.gathered(saver._engine, target, crossing.here))
    return crossing.metadata(metadata_told(target.keys, members))


def _each_batch(
    target: Address, names: Sequence[bytes], about: str, work: Callable[[list[tuple[bytes, bytes]]], object]
) -> Operation[bool]:
    """Reads fields, so many at a time, and does something with them. False if one is gone."""
    stored = [target.keys.names.field(name) for name in names]
    for at in range(0, len(stored), FIELDS_READ):
        batch = stored[at : at + FIELDS_READ]
        there = yield from read_fields(target, batch, about)
        if len(there) < len(batch):
            return False
        yield from compute(partial(work, there), sum(len(content) for _, content in there))
    return True


def _scan(target: Address, about: str, first: Any) -> Operation[tuple[list[bytes], dict[bytes, bytes]]]:
    """The plain names of a thread's fields, and, unless it is large, their contents."""
    cursor, there = int(first[0]), pairs(first[1])
    names, held, size = set[bytes](), dict[bytes, bytes](), 0
    plain = target.keys.names.field_of
    while True:
        there = [(plain(name), content) for name, content in there]
        names.update(name for name, _ in there)
        size += sum(len(content) for _, content in there)
        if size <= HELD_BYTES:
            held.update(there)
        else:
            held.clear()
        if not cursor:
            return list(names), held
        cursor, there = yield from portion("HSCAN", target.keys.hash, cursor, FIELDS_READ, about)
