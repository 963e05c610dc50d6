"""Removing: delete_thread, delete_for_runs, prune, retention after a put, and the removal of chosen checkpoints, which all but
the first share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol

from .. import validation
from ..address import Address
from ..caching.parts import Parts
from ..effects import Operation, Read, compute
from ..errors import (
    CheckpointCorruptError,
    CheckpointerError,
    CheckpointLostError,
    InvalidConfigError,
    ServerRefusedError,
    ThreadBusyError,
)
from ..scripts import commands
from ..scripts.replies import StagingLostError
from ..storage import keys, records
from ..storage.records import Header
from ..storage.thread_fields import Counts
from . import freshness, retention
from .buckets import threads_indexed
from .delta_channels import read_lineage
from .engine import Engine, logger
from .reading import read_reference_pages, size_of
from .removal_plan import WEIGHED, Removal
from .surveying import opened_writes, read_deleted, read_headers
from .thread_headers import CheckpointKey, StoredWrites, ThreadHeaders, left_over
from .uploading import STAGING_MS, stage

BUSY_TRIES = 10

STAGED_TOGETHER = 500
"""A large removal copies so many fields in one script: some 3 ms."""


def retain(engine: Engine, serde: SerializerProtocol, target: Address, roots: int, about: str) -> Operation[None]:
    """After a put that left so many root checkpoints: removes, when it is due, those that are too many or too old."""
    limit, age, thread = engine.settings.max_versions, engine.settings.max_age, target.keys.name
    resting = engine.resting.take(thread) or 0
    if resting > 1:
        engine.resting.put(thread, resting - 1)
    if resting or not (retention.is_due(roots, limit, age) or engine.overtaken.get(thread)):
        return
    try:
        done = yield from remove_all_but(engine, serde, target, partial(retention.newest_roots, limit=limit, age=age))
    except CheckpointerError as error:  # the put itself is done; the next one that is due tries again
        logger.error("%s: the checkpoint is stored, but old ones could not be removed: %s", about, error)
        return
    if done is None or engine.overtaken.get(thread):
        engine.overtaken.put(thread, done is None)
    if done is not None and (rest := retention.rest(*done)):
        engine.resting.put(thread, rest)


def delete_thread(engine: Engine, thread: Any) -> Operation[None]:
    target = engine.address(thread)
    about = target.about("delete_thread")
    yield from engine.check_layout(False, commands.DELETE_THREAD)
    yield from commands.delete_thread(target.keys, about, engine.settings.tombstone)


def delete_for_runs(engine: Engine, serde: SerializerProtocol, run_ids: Sequence[str]) -> Operation[None]:
    """Finds the threads of the runs in the buckets' indexes, then removes thread by thread."""
    keys.check_several(run_ids, "delete_for_runs: run_ids")
    runs = {engine.run_name(_run(run)): _run(run) for run in run_ids}
    yield from engine.check_layout(False)
    threads: dict[str, set[str]] = {}
    for stored, run in runs.items():
        about = f"delete_for_runs: run {run!r}"
        for thread in (yield from threads_indexed(engine, "runs", b"R" + keys.run_entry(stored) + b"\0", about)):
            threads.setdefault(thread, set()).add(stored.decode())
    for thread, found in threads.items():
        target = engine.address(thread)
        keep = partial(retention.other_runs, found)
        yield from remove_surely(engine, serde, target, keep, "delete_for_runs")


def prune(
    engine: Engine, serde: SerializerProtocol, threads: Sequence[Any], strategy: str, keep_last: int | None
) -> Operation[None]:
    keys.check_several(threads, "prune: thread_ids")
    # the agent server says delete_all where BaseCheckpointSaver says delete
    whole = validation.one_of(strategy, ("keep_latest", "delete", "delete_all"), "prune: strategy") != "keep_latest"
    keep_last = validation.at_most(keep_last, "prune: keep_last")
    if keep_last is not None and whole:
        raise ValueError(f"prune: keep_last goes with 'keep_latest', not with {strategy!r}")
    for thread in tuple(threads):
        if whole:
            yield from delete_thread(engine, thread)
            continue
        yield from engine.check_layout(False)
        target = engine.address(thread)
        keep: retention.Choice = retention.latest_of_each
        if keep_last is not None:
            keep = partial(retention.newest_roots, limit=keep_last, age=None)
        yield from remove_surely(engine, serde, target, keep, "prune")


def remove_surely(
    engine: Engine, serde: SerializerProtocol, target: Address, keep: retention.Choice, what: str, sweep: bool = False
) -> Operation[None]:
    """`remove_all_but`, tried again while the thread changes, up to BUSY_TRIES times."""
    for _ in range(BUSY_TRIES):
        if (yield from remove_all_but(engine, serde, target, keep, sweep)) is not None:
            return
    raise ThreadBusyError(
        f"{target.about(what)}: the thread changed each of {BUSY_TRIES} times while choosing what to keep; "
        "nothing was removed, try again when it is quieter"
    )


def remove_all_but(
    engine: Engine, serde: SerializerProtocol, target: Address, keep: retention.Choice, sweep: bool = False
) -> Operation[tuple[int, int] | None]:
    """Removes every checkpoint that `keep` does not choose: how many that were, of how many. None if the thread changed in
    between. `sweep`: also removes chunks and pages that nothing refers to if `keep` chooses all checkpoints."""
    survey = yield from read_headers(engine, target)
    if survey is None:
        return None

    def choose() -> list[CheckpointKey]:
        kept = keep(survey.followed())
        return [place for place in survey.headers if place not in kept]

    dropped = yield from compute(choose, sum(survey.sizes.values()))
    if (dropped or survey.early or sweep) and not (yield from remove(engine, serde, target, survey, dropped)):
        return None
    return len(dropped), len(survey.headers)


def remove_known(
    engine: Engine,
    target: Address,
    revision: bytes,
    kept: Sequence[Header],
    gone: Mapping[str, Header],
    replaced: Sequence[Header],
) -> Operation[bytes | None]:
    """`remove` for a thread of root checkpoints whose headers are all known at `revision`: one script, without a survey.

    Removes the checkpoints `gone`, by id, and what only they and the overwritten records `replaced` refer to. Returns the new
    revision; None if nothing was removed: the thread changed, or this is more than one script should measure. `remove` has no
    such limit.
    """
    about = target.about("removing checkpoints")
    yield from engine.check_layout(False, commands.REMOVE)
    went = [*gone.values(), *replaced]
    staying = {page for header in kept for page in header.pages}
    leaving = {page for header in went for page in header.pages}
    parts = Parts(verified=engine.chunks)
    parts.lists = {name: listed for name in staying | leaving if (listed := engine.chunks.pages.get(name)) is not None}
    parts.pages = (yield from read_reference_pages(engine, target, [*(staying | leaving) - parts.lists.keys()], about)).pages
    if not staying | leaving <= parts.lists.keys() | parts.pages.keys():
        return None

    def chunks_of(pages: set[bytes], headers: Sequence[Header]) -> set[bytes]:
        return {name for page in pages for name in parts.page(page, about)}.union(*(header.loose for header in headers))

    leaving -= staying  # a page that stays keeps its chunks
    chunks = chunks_of(leaving, went) - chunks_of(staying, kept)
    fields = [keys.checkpoint_field(b"", id.encode()) for id in gone]
    names = [*fields, *sorted([b"P" + name for name in leaving] + [b"D" + name for name in chunks])]
    if len(names) > WEIGHED:
        return None
    if not names:
        return revision
    logical, chunked = sum(header.logical for header in gone.values()), sum(header.chunked for header in gone.values())
    # the script measures the stored bytes and the plain bytes of chunks
    less = Counts.difference(checkpoints=len(gone), chunks=len(chunks), logical=logical, referred=chunked)
    plan = commands.RemovalPlan(False, less, names, fields, measured=names)
    call = partial(commands.remove, target.keys, about, revision, plan)
    removed = yield from freshness.remove_known(engine, target, [(b"", id.encode()) for id in gone], call)
    return next_revision(revision) if removed else None


def next_revision(revision: bytes) -> bytes:
    """The revision of a thread after one change."""
    born, number = revision.split()
    return b"%s %d" % (born, int(number) + 1)


def remove(
    engine: Engine,
    serde: SerializerProtocol,
    target: Address,
    survey: ThreadHeaders,
    dropped: Iterable[CheckpointKey],
    replaced: Mapping[CheckpointKey, StoredWrites] = {},
    filed: Sequence[tuple[bytes, bytes]] = (),
) -> Operation[bool]:
    """Removes checkpoints, leaves of the pending writes of some only those in `replaced`, and sweeps what nothing refers to
    any more. Of a checkpoint that stays and whose parent goes, what its DeltaChannels are rebuilt from stays too
    (deltas.py). False if the thread changed since the survey. `filed`: metadata under which the thread is found then.

    Mark and sweep happen here, on verified headers and pages (removal_plan.py). The revision says that nothing came in between.
    """
    about = target.about("removing checkpoints")
    yield from engine.check_layout(False, commands.REMOVE)
    names, raw = yield Read([("HKEYS", target.keys.hash), ("HGET", target.keys.hash, "S")], about)
    counts = None if raw is None else Counts.of(raw, target.keys.name, about)
    if counts is None or counts.revision != survey.revision:
        return False
    yield from engine.unlock(target)
    removal = Removal(survey, set(dropped), dict(replaced), {*map(target.keys.names.field_of, names)})
    try:
        yield from _add_left_over(engine, target, about, removal)
        yield from _add_delta_histories(engine, serde, target, about, removal)
        needed = yield from _mark(engine, target, about, removal)
    except (CheckpointLostError, CheckpointCorruptError):
        # read in several steps: only if the thread is still the same is something really missing
        (raw,) = yield Read([("HGET", target.keys.hash, "S")], about)
        if raw is None or Counts.of(raw, target.keys.name, about).revision != survey.revision:
            return False
        raise
    garbage = removal.garbage(needed)
    size = plain = 0
    for at in range(WEIGHED, len(garbage), WEIGHED):  # the first are weighed by the script that removes them
        taken, held = yield from commands.measure_parts(target.keys, about, garbage[at : at + WEIGHED])
        size, plain = size + taken, plain + held
    weights = (garbage, counts.stored, size, plain, filed)
    return (yield from _perform(engine, target, about, removal, weights))


def _perform(
    engine: Engine,
    target: Address,
    about: str,
    removal: Removal,
    weights: tuple[list[bytes], int, int, int, Sequence[tuple[bytes, bytes]]],
) -> Operation[bool]:
    """Removes by one script, of any length, or by many short ones.

    Of a large removal both what goes and what stays would hold the server for long. What stays is copied to staging, on the
    server, and one script renames it, if the thread is still the same: others see the thread before or after. Cut in
    the middle, the thread is as it was, and staging expires. If the server is full, or evicts the staging, one script
    removes what goes, which frees memory.
    """
    survey, staging = removal.survey, target.keys.staging(os.urandom(8).hex().encode())
    for may_stage in (True, False):
        work = partial(removal.plan, *weights, staging=may_stage)
        plan = yield from compute(work, sum(survey.sizes.values()))
        if plan is None:
            return True
        plan = plan._replace(staging=staging if plan.large or not may_stage else ())
        call = partial(commands.remove, target.keys, about, survey.revision, plan)
        try:
            if plan.large and not (yield from _stage_remaining(engine, target, about, staging, survey.revision, plan)):
                return False
            return (yield from freshness.remove(engine, target, survey, removal.gone, removal.replaced, call))
        except (ServerRefusedError, StagingLostError):
            if not plan.large:
                raise
    raise AssertionError("unreachable")  # the last plan is not large


def _stage_remaining(
    engine: Engine, target: Address, about: str, staging: tuple[bytes, bytes], revision: bytes, plan: commands.RemovalPlan
) -> Operation[bool]:
    """Copies what stays to staging. False if the thread changed since `revision`."""
    yield from engine.check_layout(False, commands.STAGE_REMAINING, commands.STAGE)
    fields, at = sorted(plan.fields), 0
    while at < len(fields):
        batch = fields[at : at + STAGED_TOGETHER]
        copied = yield from commands.stage_remaining(target.keys, about, staging, revision, STAGING_MS, batch)
        if copied is None:
            return False
        at += copied
    yield from stage(target, staging, (), sorted(plan.members), about)
    return True


def _add_left_over(engine: Engine, target: Address, about: str, removal: Removal) -> Operation[None]:
    """Adds to the survey the pending writes whose checkpoint is not there, which no index names; those left over go."""
    survey = removal.survey
    early = [name for name in removal.listed if name[:1] == b"W" and key_of(name) not in survey.headers]
    if not early:
        return
    (blobs,) = yield Read([("HMGET", target.keys.hash, *map(target.keys.names.field, early))], about)
    fields: dict[bytes, dict[bytes, bytes]] = {}
    for name, blob in zip(early, blobs, strict=True):
        fields.setdefault(keys.writes_field(*keys.split_field(name)), {})[name] = blob or b""
        survey.sizes[name] = len(target.keys.names.field(name)) + len(blob or b"")
    stored: dict[CheckpointKey, int] = {}
    for head, there in fields.items():
        place = key_of(head)
        survey.writes[place] = opened_writes(target, *keys.split_field(head), there)
        stored[place] = max((header.created_at for header, _ in survey.writes[place]), default=0)
    survey.deleted |= yield from read_deleted(engine, target, stored)
    left = left_over(survey.headers, stored, survey.deleted, survey.tags.values()) & stored.keys()
    removal.replaced.update((place, []) for place in left)


def _add_delta_histories(
    engine: Engine, serde: SerializerProtocol, target: Address, about: str, removal: Removal
) -> Operation[None]:
    """Adds the delta histories of checkpoints that stay, whose parents go, and that have none yet."""
    settings, gone = engine.settings, removal.gone
    for (ns, checkpoint), header in removal.survey.headers.items():
        if not header.depth or (ns, checkpoint) in gone or (ns, header.parent) not in gone:
            continue
        place = target.place(b"H", ns.encode(), checkpoint.encode())
        if place.field not in removal.listed:
            at = engine.address(target.thread, ns)
            at.checkpoint = place.checkpoint
            lineage = yield from read_lineage(engine, serde, at, about, None, None)
            size = sum(value.size for writes in lineage.writes.values() for _, value in writes)
            add = partial(removal.cut.add, lineage, place, header, removal.listed, target.seal, settings.compression)
            yield from compute(add, size)


def _mark(engine: Engine, target: Address, about: str, removal: Removal) -> Operation[Mapping[bytes, CheckpointKey]]:
    """The chunks and pages that what stays refers to, each with who does."""
    survey, listed, cut = removal.survey, removal.listed, removal.cut
    histories = [name for name in listed if name[:1] == b"H"]
    if histories:
        (blobs,) = yield Read([("HMGET", target.keys.hash, *map(target.keys.names.field, histories))], about)
        for name, blob in zip(histories, blobs, strict=True):
            whose = target.place(b"H", *keys.split_field(name))
            survey.histories[key_of(name)] = records.verified(blob or b"", whose, target.seal)[0]
            survey.sizes[name] = len(target.keys.names.field(name)) + len(blob or b"")
    needed: dict[bytes, CheckpointKey] = {}
    pages: dict[bytes, CheckpointKey] = {}

    def mark() -> None:
        for place, header in removal.staying():
            needed.update((b"D" + name, place) for name in header.loose)
            pages.update((name, place) for name in header.pages)

    yield from compute(mark, sum(survey.sizes.values()))
    parts = yield from read_reference_pages(engine, target, [name for name in pages if b"P" + name in listed], about)
    parts.pages |= {name[1:]: content for name, content in cut.fields.items() if name[:1] == b"P"}

    def mark_chunks_of_pages() -> set[bytes]:
        for name, place in pages.items():
            needed[b"P" + name] = place
            needed.update((b"D" + chunk, place) for chunk in parts.page(name, about))
        return needed.keys() - listed - cut.fields.keys()

    lost = yield from compute(mark_chunks_of_pages, size_of((), parts) + sum(map(len, parts.pages.values())))
    if lost:
        ns, checkpoint = needed[lost.pop()]
        raise CheckpointCorruptError(
            f"{about}: checkpoint {checkpoint!r} of namespace {ns!r} refers to parts that are not there; nothing was removed"
        )
    return needed


def key_of(field: bytes) -> CheckpointKey:
    ns, checkpoint = keys.split_field(field)
    return ns.decode(errors="replace"), checkpoint.decode(errors="replace")


def _run(run: Any) -> str:
    text = keys.id_text(run)
    if text is None:
        raise InvalidConfigError(f"delete_for_runs: a run id must be a string (or an int or UUID), not {run!r}")
    return text
