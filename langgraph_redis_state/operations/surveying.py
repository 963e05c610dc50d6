"""All headers of a thread, its pending writes and its tags, read in portions and verified."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from ..address import Address
from ..effects import Operation, Read, compute
from ..errors import CheckpointLostError
from ..storage import keys, records, thread_fields
from .engine import Engine
from .reading import START, Cursor, Page, read_page, size_of
from .thread_headers import CheckpointKey, StoredWrites, ThreadHeaders, awaited

SURVEY_CHECKPOINTS = 250


def read_headers(engine: Engine, target: Address, use: bool = False) -> Operation[ThreadHeaders | None]:
    """Every header of a thread, and the revision they belong to. None if the thread changed while they were read.

    Tidying up is no use of a thread: else a nightly prune would keep idle threads for ever.
    """
    survey = ThreadHeaders(names=target.keys.names)
    cursor: Cursor | None = START
    while cursor is not None:
        page = yield from read_page(engine, target, None, cursor, SURVEY_CHECKPOINTS, whole=False, use=use)
        if survey.headers and page.revision != survey.revision:
            return None
        yield from compute(partial(_add_page, target, survey, page), size_of(page.found, page.parts))
        cursor = page.following
    survey.now, survey.early = page.now, page.writes > sum(map(len, survey.writes.values()))
    survey.deleted = yield from read_deleted(engine, target, awaited(survey.headers, ()))
    return survey


def read_deleted(engine: Engine, target: Address, places: Iterable[CheckpointKey]) -> Operation[set[CheckpointKey]]:
    """Which of these checkpoints the tombstone of the thread names."""
    found: set[CheckpointKey] = set()
    left = list(places)
    for at in range(0, len(left), SURVEY_CHECKPOINTS):
        batch = left[at : at + SURVEY_CHECKPOINTS]
        fields = [keys.checkpoint_field(ns.encode(), checkpoint.encode()) for ns, checkpoint in batch]
        stored = target.keys.names.field
        scores = yield Read(
            [("ZSCORE", target.keys.tombstone, stored(name)) for name in fields],
            target.about("reading the tombstone"),
        )
        found.update(place for place, score in zip(batch, scores, strict=True) if score is not None)
    return found


def _add_page(target: Address, survey: ThreadHeaders, page: Page) -> None:
    survey.revision, survey.statement = page.revision, page.statement
    survey.entries |= page.entries
    survey.tags = survey.tags or open_tags(target, page.tags)
    stored = survey.names.field
    survey.sizes |= {name: len(stored(name)) + len(content or b"") for name, content in page.tags.items()}
    for each in page.found:
        at = (each.ns.decode(errors="replace"), each.checkpoint.decode(errors="replace"))
        survey.headers[at] = each.header
        name = keys.checkpoint_field(each.ns, each.checkpoint)
        size = len(stored(name))
        survey.sizes[name] = size + len(each.record or b"")
        if each.writes:
            head = keys.writes_field(each.ns, each.checkpoint)
            survey.writes[at] = opened_writes(target, each.ns, each.checkpoint, {head: each.writes})
            survey.sizes[head] = size + len(each.writes)


def opened_writes(target: Address, ns: bytes, checkpoint: bytes, fields: Mapping[bytes, bytes]) -> StoredWrites:
    """The pending writes in the fields of a checkpoint."""
    place = target.place(b"W", ns, checkpoint)
    raws = thread_fields.gathered_writes(fields, place)
    return [(records.verified(raw, place, target.seal)[0], raw) for raw in raws]


def open_tags(target: Address, fields: Mapping[bytes, bytes | None]) -> dict[str, CheckpointKey]:
    """Names of checkpoints, verified."""
    tags: dict[str, CheckpointKey] = {}
    for name, content in fields.items():
        if content is None:
            where = f"tag {name[1:].decode(errors='replace')!r} of thread {target.thread!r}"
            raise CheckpointLostError(f"{where}: the index names it, but it is gone from the server (evicted?)")
        ns, checkpoint = thread_fields.open_tag(content, target.place(name, b"", b""), target.seal)
        tags[name[1:].decode()] = (ns.decode(), checkpoint.decode())
    return tags
