"""Which checkpoints of a thread stay, chosen from their headers. Pure functions; the removal itself is `remove.lua`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.serde.types import INTERRUPT

from .keys import ROOT
from .records import Header

INTERRUPTED = WRITES_IDX_MAP[INTERRUPT]
"""Index under which LangGraph stores the interrupt of a task."""

Place = tuple[str, str]
"""(namespace, checkpoint id)"""


@dataclass(frozen=True, slots=True)
class Entry:
    """The header of a checkpoint, and whether one of its pending writes is an interrupt."""

    header: Header
    interrupted: bool


Headers = dict[Place, Entry]


def latest_of_each(thread: Headers) -> set[Place]:
    """LangGraph's `keep_latest`: the newest checkpoint of each namespace, and what rebuilding it needs."""
    newest: dict[str, str] = {}
    for ns, checkpoint in thread:
        newest[ns] = max(newest.get(ns, ""), checkpoint)
    return _with_ancestors(thread, newest.items())


def newest_roots(thread: Headers, limit: int) -> set[Place]:
    """The newest `limit` root checkpoints, and what belongs to them.

    A namespace with ':' is one call of a subgraph and goes with the root checkpoint it ran under; one without keeps its
    newest. An interrupt stays while its checkpoint has no child. What rebuilding a DeltaChannel needs stays.
    """
    roots = sorted((checkpoint for ns, checkpoint in thread if ns == ROOT), reverse=True)
    parents = {(ns, entry.header.parent) for (ns, _), entry in thread.items()}
    kept: set[Place] = {(ROOT, checkpoint) for checkpoint in roots[:limit]}
    kept |= {place for place, entry in thread.items() if entry.interrupted and place not in parents and place[0] == ROOT}
    kept = _with_ancestors(thread, kept)
    gone = {checkpoint for checkpoint in roots if (ROOT, checkpoint) not in kept}
    newest: dict[str, str] = {}
    for ns, checkpoint in thread:
        if ns != ROOT:
            newest[ns] = max(newest.get(ns, ""), checkpoint)
    for place, entry in thread.items():
        ns, checkpoint = place
        owner = entry.header.root
        if ns == ROOT:
            continue
        if (":" in ns and owner is not None and owner not in gone) or (
            (":" not in ns or owner is None) and newest[ns] == checkpoint
        ):
            kept.add(place)
    return _with_ancestors(thread, kept)


def _with_ancestors(thread: Mapping[Place, Entry], places: Iterable[Place]) -> set[Place]:
    """The places, and as many ancestors of each as its header says a DeltaChannel needs."""
    kept: set[Place] = set()
    reach: dict[Place, int] = {}
    for ns, start in places:
        kept.add((ns, start))
        checkpoint, left = start, thread[(ns, start)].header.depth if (ns, start) in thread else 0
        while left > 0:
            parent = thread[(ns, checkpoint)].header.parent
            if parent is None or (ns, parent) not in thread or reach.get((ns, parent), 0) >= left:
                break
            reach[(ns, parent)] = left
            kept.add((ns, parent))
            checkpoint, left = parent, left - 1
    return kept
