"""`migrate`: reads threads of one saver and stores what another does not have.

On the target, before: nothing, a part of a thread (an earlier migration, also one that was killed), or all of it. After:
every checkpoint that the source has, with its writes. The order is that of LangGraph's ids, oldest first. Of each checkpoint
the writes are stored first, then the checkpoint, so a checkpoint that is there is complete. If the migration is cut, the
thread on the target ends with an earlier checkpoint; repeating the call continues there. What is already there is not read
again from the source, but for checkpoints without a child on the target, whose writes may have grown.

Round trips for each checkpoint: one or two to the source, one to the target, one more for each task with pending writes.
Another process that reads the target meanwhile sees a prefix of the thread's past. It must not continue the thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver

from ..errors import ServerUnavailableError
from ..history.versions import Version
from .comparing import compare_thread
from .flow import Flow, aeach, aperform, each, perform
from .kinds import source_of
from .report import Progress, Report
from .sources import Found, OwnSource, Place, Source, config_of
from .writes import batches

__all__ = ["amigrate", "migrate"]

logger = logging.getLogger("langgraph_redis_state")


@dataclass(frozen=True)
class Work:
    source: Source
    target: Source
    dry_run: bool
    verify: bool


def migrate(
    source: BaseCheckpointSaver[Any],
    target: BaseCheckpointSaver[Any],
    *,
    threads: Sequence[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    dry_run: bool = False,
    verify: bool = True,
    workers: int = 1,
) -> Report:
    """Copies threads from one saver to another: ids, versions, metadata, parents, namespaces, pending writes, tags.

    Nothing is changed in the source. What the target has is kept, so the call can be repeated after an error or while the old
    application still writes; it then takes what is new. Use a target without `max_versions`, `max_age` and `conflict="raise"`.

    Args:
        source: any `BaseCheckpointSaver`, opened and set up.
        target: any `BaseCheckpointSaver`, opened and set up.
        threads: ids of threads; None: all that the source has.
        progress: called after each thread.
        dry_run: count only, and store nothing.
        verify: after each thread, read both sides and compare every checkpoint, in `Report.differences`.
        workers: how many threads are migrated at a time.

    Returns:
        A `Report`. A thread that cannot be migrated is in `Report.failures`, and the others are migrated.

    Raises:
        TypeError: a saver can only be awaited, or is none.
        ValueError: the source cannot list its threads.
        ServerUnavailableError: the target, or a source of this package, does not answer. Repeat the call.
    """
    work = Work(source_of(source, False), source_of(target, False), dry_run, verify and not dry_run)
    report, begun = Report(), time.monotonic()
    with serializer_warnings(report):
        named = perform(_threads(work, threads))
        for thread, done in each((_migrated(work, thread) for thread in named), workers):
            _note(report, thread, done, len(named), progress)
    report.seconds = time.monotonic() - begun
    return report


async def amigrate(
    source: BaseCheckpointSaver[Any],
    target: BaseCheckpointSaver[Any],
    *,
    threads: Sequence[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    dry_run: bool = False,
    verify: bool = True,
    workers: int = 1,
) -> Report:
    """`migrate`, awaited. A source that has no async methods is read with its sync ones, which block the event loop."""
    work = Work(source_of(source, True), source_of(target, True), dry_run, verify and not dry_run)
    report, begun = Report(), time.monotonic()
    with serializer_warnings(report):
        named = await aperform(_threads(work, threads))
        async for thread, done in aeach((_migrated(work, thread) for thread in named), workers):
            _note(report, thread, done, len(named), progress)
    report.seconds = time.monotonic() - begun
    return report


def _threads(work: Work, threads: Sequence[str] | None) -> Flow[list[str]]:
    if isinstance(threads, str):
        raise TypeError("threads is a sequence of thread ids, not one text")
    if threads is not None:
        return list(dict.fromkeys(str(thread) for thread in threads))
    return (yield from work.source.threads())


def _note(report: Report, thread: str, done: Report, of: int, progress: Callable[[Progress], None] | None) -> None:
    report.add(done)
    if progress is not None:
        progress(Progress(thread, report.threads, of, report.checkpoints))


def _migrated(work: Work, thread: str) -> Flow[tuple[str, Report]]:
    report = Report(threads=1)
    try:
        places = yield from work.source.places(thread)
        if not places:
            report.failures[thread] = "the source has no such thread"
        yield from _copy(work, thread, places, report)
        yield from _copy_tags(work, thread, report)
        if work.verify:
            yield from compare_thread(work.source, work.target, thread, places, report)
    except ServerUnavailableError:
        raise
    except Exception as error:
        logger.exception("migrate: thread %r was not migrated to its end", thread)
        report.failures[thread] = f"{type(error).__name__}: {error}"
    return thread, report


def _copy(work: Work, thread: str, places: list[Place], report: Report) -> Flow[None]:
    present = yield from _present(work, thread, places)
    inner = {Place(parent, place.ns) for place, parent in present.items() if parent}
    known = set(places)
    for note in work.source.notes:
        report.losses[note] += 1
    for place in places:
        if place in present:
            report.already += 1
            if place in inner:
                continue
        found = yield from work.source.read(thread, place)
        if found is None:
            report.losses["a checkpoint expired or was deleted while it was migrated"] += 1
            continue
        if found.parent and Place(found.parent, place.ns) not in known:
            report.losses["a checkpoint names a parent that the source does not have any more"] += 1
        report.writes += len(found.writes)
        report.checkpoints += place not in present
        if not work.dry_run:
            yield from _store(work.target, thread, found, place not in present)


def _store(target: Source, thread: str, found: Found, new: bool) -> Flow[None]:
    place = found.place
    for task, path, writes in batches(found.writes):
        yield target.verb("put_writes", config_of(thread, place.ns, place.checkpoint), writes, task, path)
    if new:
        checkpoint: Any = found.checkpoint
        versions = dict(checkpoint.get("channel_versions") or {})
        yield target.verb("put", config_of(thread, place.ns, found.parent), checkpoint, found.metadata, versions)


def _present(work: Work, thread: str, places: list[Place]) -> Flow[dict[Place, str | None]]:
    """What the target has of the thread, with parents."""
    target, found = work.target, dict[Place, str | None]()
    if isinstance(target, OwnSource):  # without reading values
        for ns in dict.fromkeys(place.ns for place in places):
            versions: list[Version] = yield target.verb("history", thread, checkpoint_ns=ns)
            found.update((Place(each.checkpoint_id, ns), each.parent_id) for each in versions)
        return found
    for place in (yield from target.places(thread)):
        read = yield from target.read(thread, place)
        if read is not None:
            found[place] = read.parent
    return found


def _copy_tags(work: Work, thread: str, report: Report) -> Flow[None]:
    tags = yield from work.source.tags(thread)
    if not tags:
        return
    if not isinstance(work.target, OwnSource):
        report.losses["the target has no tags"] += len(tags)
        return
    for name, checkpoint in tags.items():
        report.tags += 1
        if not work.dry_run:
            yield work.target.verb("tag", thread, name, checkpoint)


@contextmanager
def serializer_warnings(report: Report) -> Iterator[None]:
    """Counts what LangGraph's serializer warns of while it reads, such as a class that cannot be imported here."""

    class Counting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            report.losses[f"the serializer warns: {record.getMessage()}"] += 1

    heard, handler = logging.getLogger("langgraph.checkpoint.serde"), Counting(logging.WARNING)
    heard.addHandler(handler)
    try:
        yield
    finally:
        heard.removeHandler(handler)
