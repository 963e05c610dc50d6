"""`import_threads`: threads of files to a server.

On the server, before: no thread of that id, or its tombstone. The fields are sealed for their place and sent to staging keys,
which nobody sees and which expire after ten minutes; one script then makes them the thread. So a thread is there whole or not
at all, also if the call is cut, and a thread that exists is never changed. Round trips: three for a small thread, one more for
each further 2 MiB. Repeat a call that was cut with `skip_existing`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from ..client.driver import astream, stream
from ..effects import Emit, Operation, Read, Stream, compute
from ..errors import (
    ArchiveDamagedError,
    CheckpointCorruptError,
    CheckpointerError,
    CheckpointLostError,
    InvalidConfigError,
    SaverClosedError,
    ServerRefusedError,
    ServerUnavailableError,
    ThreadExistsError,
    ThreadNotFoundError,
)
from ..operations import freshness
from ..operations.engine import Engine
from ..operations.uploading import stage
from ..saver import RedisSaver
from ..scripts import commands
from ..storage import keys
from .crossing import Crossing
from .exporting import Passphrase, Path, Tell
from .frames import FRAME_BYTES, End, Entry
from .reading import ArchiveReader
from .report import Progress, Report

STAGING_TRIES = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """A thread, in which file its content stands, and the id that it gets."""

    reader: ArchiveReader
    entry: Entry
    name: str


def import_threads(
    path: Path | Sequence[Path],
    saver: RedisSaver,
    *,
    threads: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
    skip_existing: bool = False,
    passphrase: Passphrase = None,
    progress: Tell = None,
) -> Report:
    """Stores the threads of a file under the saver's prefix, with ids, times and version numbers as they were.

    A thread that exists is never changed. A deleted one may be imported again; late writes of runs from before its deletion are
    then accepted again. Threads expire by the saver's `ttl` from now on, unless they have settings of their own.

    Args:
        path: a file; or a full backup and those that build on it, oldest first: of each thread that the last file names, the
            newest content is taken.
        saver: where the threads go.
        threads: ids of threads in the file; None: all.
        names: new ids, by the ids in the file.
        skip_existing: count threads that exist in `Report.existing`, in place of `Report.failures`.
        passphrase: that of the files, if they are encrypted.
        progress: called after each thread.

    Returns:
        A `Report`. A thread that is damaged in the file, or that exists, is in `Report.failures`, and the others are imported.
        Look at `Report.ok`.

    Raises:
        FormatError: a file is no archive, or has a format that this version does not know.
        ArchiveDamagedError: the index of one of several files is damaged, so which threads are meant is not known.
        InvalidConfigError: the passphrase is wrong or missing, or the files do not build on each other.
        ServerUnavailableError, ServerRefusedError: the server does not serve. Repeat the call with `skip_existing`.
    """
    report, begun = Report(), time.monotonic()
    with ExitStack() as stack:
        wanted = _wanted(_opened(path, passphrase, stack), threads, names or {}, report)
        for done in stream(_imported(saver._engine, wanted, skip_existing, report), saver._connection, "import"):
            if progress is not None:
                progress(done)
    report.seconds = time.monotonic() - begun
    return report


async def aimport_threads(
    path: Path | Sequence[Path],
    saver: RedisSaver,
    *,
    threads: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
    skip_existing: bool = False,
    passphrase: Passphrase = None,
    progress: Tell = None,
) -> Report:
    """`import_threads`, awaited."""
    report, begun = Report(), time.monotonic()
    with ExitStack() as stack:
        wanted = _wanted(_opened(path, passphrase, stack), threads, names or {}, report)
        async for done in astream(_imported(saver._engine, wanted, skip_existing, report), saver._connection, "import"):
            if progress is not None:
                progress(done)
    report.seconds = time.monotonic() - begun
    return report


def _opened(path: Path | Sequence[Path], passphrase: Passphrase, stack: ExitStack) -> list[ArchiveReader]:
    """The files, each of which builds on the one before."""
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not paths:
        raise ValueError("import: no file was named")
    readers = [stack.enter_context(ArchiveReader(each, passphrase)) for each in paths]
    for before, reader in pairwise(readers):
        for each in (before, reader):
            if not each.whole or each.tail is None:
                raise each.problems[-1]
        if before.tail is None or reader.tail is None or reader.tail.base != before.tail.ident:
            raise InvalidConfigError(
                f"{reader.path} does not build on {before.path}; name a full backup, then the next, in order"
            )
    return readers


def _wanted(
    readers: Sequence[ArchiveReader], threads: Sequence[str] | None, names: Mapping[str, str], report: Report
) -> list[Wanted]:
    """Where each thread that is wanted stands. What stands nowhere goes into the report."""
    report.problems += [f"{problem}" for reader in readers for problem in reader.problems if problem.thread_id is None]
    report.failures |= {p.thread_id: f"{p}" for reader in readers for p in reader.problems if p.thread_id is not None}
    last = readers[-1].entries
    if threads is not None:
        keys.check_several(threads, "import: threads")
    unknown = [name for name in {**dict.fromkeys(threads or ()), **names} if name not in last and name not in report.failures]
    for name in unknown:
        report.failures[name] = f"{ThreadNotFoundError(f'import: {readers[-1].path} has no thread {name!r}')}"
    chosen = [_newest(readers, name, names, report) for name in (last if threads is None else threads) if name in last]
    return [each for each in chosen if each is not None]


def _newest(readers: Sequence[ArchiveReader], name: str, names: Mapping[str, str], report: Report) -> Wanted | None:
    """The newest content of a thread that the last file names. If that is none, or not that of the last, the report says so."""
    notes: list[str] = []
    for reader in reversed(readers):
        entry = reader.entries.get(name)
        if entry is None:
            break
        if entry.size:
            report.problems += [f"thread {name!r} is older than the backup: {note}" for note in notes]
            return Wanted(reader, entry, names.get(name, name))
        if entry.note:
            notes.append(f"it could not be read when {reader.path} was made ({entry.note})")
    else:
        if not notes:
            notes.append(f"its content stands in an earlier file, on which {readers[0].path} builds; name that one too")
    report.failures[name] = "; ".join(notes)
    return None


def _imported(engine: Engine, wanted: Sequence[Wanted], skip_existing: bool, report: Report) -> Stream:
    yield from engine.check_layout(True, commands.STAGE, commands.COMMIT_COPY)
    for done, each in enumerate(wanted, 1):
        try:
            report.checkpoints += yield from _import_thread(engine, each)
            report.threads += 1
        except (ServerUnavailableError, ServerRefusedError, SaverClosedError):
            raise
        except CheckpointerError as error:
            if skip_existing and isinstance(error, ThreadExistsError):
                report.existing += 1
            else:
                report.failures[each.name] = f"{error}"
        yield Emit([Progress(each.name, done, len(wanted))])


def _import_thread(engine: Engine, wanted: Wanted) -> Operation[int]:
    """How many checkpoints the thread has."""
    target = engine.address(wanted.name)
    yield from engine.unlock(target)
    about = f"import: thread {wanted.entry.thread!r}" + (
        f" as {target.thread!r}" if target.thread != wanted.entry.thread else ""
    )
    (there,) = yield Read([("EXISTS", target.keys.hash)], about)
    if there:
        raise ThreadExistsError(f"{about}: it exists; delete_thread it first, or import it under a new id")
    for _ in range(STAGING_TRIES):
        op = os.urandom(8).hex().encode()
        staged = target.keys.staging(op)
        crossing = Crossing.back(engine, wanted.entry.thread, target)
        section, end = wanted.reader.section(wanted.entry), None
        while end is None:
            part = yield from compute(partial(next, section), min(wanted.entry.size, FRAME_BYTES))
            if isinstance(part, End):
                end = part
                continue
            fields, members = yield from compute(
                partial(_verified, wanted, crossing, part), sum(len(content) for _, content in part)
            )
            yield from stage(target, staged, fields, members, about)
        _check_whole(wanted, crossing)
        counts = crossing.totals(end.changes, end.versions)
        statement = crossing.make_statement(None)
        yield from stage(target, staged, crossing.statement.items(), (), about)
        if (
            yield from commands.commit_copy(
                target.keys,
                about,
                staged,
                ttl=max(engine.settings.ttl, 0),  # what is staged expires soon, and the thread must not
                operation=op,
                counts=counts.numbers,
                fields=crossing.fields,
                members=crossing.members,
                runs=crossing.runs,
                metadata=crossing.metadata(end.metadata),
            )
        ):
            if statement is not None:
                yield from freshness.stands(engine, target, (b"", crossing.statement[b"Z"]), statement, {})
            return counts.checkpoints
    raise CheckpointLostError(f"{about}: what was staged vanished {STAGING_TRIES} times; is the server out of memory?")


def _verified(
    wanted: Wanted, crossing: Crossing, fields: Sequence[tuple[bytes, bytes]]
) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
    try:
        return crossing.resealed(fields)
    except (CheckpointCorruptError, CheckpointLostError) as error:
        raise wanted.reader.wrong(wanted.entry.thread, error) from error


def _check_whole(wanted: Wanted, crossing: Crossing) -> None:
    try:
        crossing.check()
    except (CheckpointCorruptError, CheckpointLostError) as error:
        raise wanted.reader.wrong(wanted.entry.thread, error) from error


def verify_archive(path: Path | Sequence[Path], passphrase: Passphrase = None) -> list[ArchiveDamagedError]:
    """Reads every byte of files and verifies it, without a server. Returns what is damaged; empty: nothing is."""
    with ExitStack() as stack:
        found: list[ArchiveDamagedError] = []
        for reader in _opened(path, passphrase, stack):
            found += reader.problems
            for entry in reader.entries.values():
                try:
                    _verify_thread(reader, entry)
                except ArchiveDamagedError as error:
                    found.append(error)
        return found


def _verify_thread(reader: ArchiveReader, entry: Entry) -> None:
    if not entry.size:
        return
    wanted = Wanted(reader, entry, entry.thread)
    crossing = Crossing.within(entry.thread)
    for part in reader.section(entry):
        if not isinstance(part, End):
            _verified(wanted, crossing, part)
    _check_whole(wanted, crossing)
